"""The database under a ledger: connections, transactions, durability, and nothing about budgets.

SQLite (one institution, several processes): write-ahead log, fsync on every commit, the write lock
taken before anything is read. PostgreSQL (many writers): the single row of `ledger_tree` is locked
first, so that writers queue there; readers see one snapshot.

Tables of an older version are brought up to date step by step, each one transaction of its own.
Entries never change meaning or bytes: a migration touches what follows from them (tables, indices,
triggers), never the log itself. A step that fails leaves the ledger as it was.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import InterfaceError as SqlInterfaceError

from privagg.durable import sync_folder
from privagg.errors import (
    LedgerError,
    LedgerTamperedError,
    MissingDependencyError,
    PrivaggError,
)
from privagg.privacy.ledger import schema

BUSY_TIMEOUT_S = 120
_PAGE_BYTES = 1 << 14  # an upload of megabytes is written page by page, twice; entries do not care
_LOG_PAGES = 64  # what the write-ahead log beside the file keeps between two uploads
_WRITING = "privagg_ledger_writing"

Location = Path | str
"""A path of an SQLite file, or an SQLAlchemy URL (`sqlite:///…`, `postgresql+psycopg://…`)."""


def url_of(location: Location) -> URL:
    """The database URL of a location.

    Raises:
        LedgerError: a URL of a database that a ledger cannot live in.
    """
    if isinstance(location, Path) or "://" not in location:
        return URL.create("sqlite", database=str(location))
    try:
        url = make_url(location)
    except ArgumentError as error:
        raise LedgerError("the ledger's location is not a path or database URL") from error
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise LedgerError(f"a ledger lives in SQLite or PostgreSQL, not in {url.drivername!r}")
    return url


class _OneSQLite(SQLiteDialect_pysqlite):
    """SQLite's dialect, the same for all ledgers: a statement is compiled once in a process.

    What SQLAlchemy compiled is found again under the dialect it was compiled for, and by default
    every engine has one of its own: each ledger would compile all its statements anew.
    """

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))


registry.register("sqlite.privagg", __name__, _OneSQLite.__name__)
_COMPILED: dict[Any, Any] = {}  # of few statements, as lists of names come in powers of two


class _Group(threading.local):
    """Of the thread at hand: whether its writes are one transaction, and that one once begun."""

    stack: ExitStack | None = None
    connection: Connection | None = None


class Store:
    """Transactions on one ledger's database; safe across threads, processes and forks."""

    def __init__(self, location: Location, *, read_only: bool) -> None:
        self.url = url_of(location)
        self.read_only = read_only
        self.where = self.url.render_as_string(hide_password=True)
        if self.url.get_backend_name() == "sqlite" and self.url.database in (None, "", ":memory:"):
            raise LedgerError("a ledger must be durable: give a file, not an in-memory database")
        self.engine = _engine(self.url, read_only)
        self._group = _Group()
        _survive_forks(self.engine)

    @property
    def path(self) -> Path | None:
        """The SQLite file, None for a server."""
        return Path(self.url.database or "") if self.engine.dialect.name == "sqlite" else None

    def make_file(self) -> None:
        """Create the SQLite file, readable by its owner only; no-op where it is there."""
        if self.path is None or self.path.exists():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            sync_folder(self.path.parent)
        except FileExistsError:
            return
        except OSError as error:
            raise LedgerError(f"cannot create the ledger {self.path}: {error.strerror}") from error

    def require_file(self) -> None:
        """Refuse to open an SQLite ledger that is not there.

        Raises:
            LedgerError: no such file.
        """
        if self.path is not None and not self.path.is_file():
            is_folder = self.path.is_dir()
            advice = "it is a folder, name the file in it" if is_folder else "correct the path"
            raise LedgerError(f"there is no ledger at {self.path}; {advice}")

    @contextmanager
    def write(self, *, lock_tree: bool = True) -> Iterator[Connection]:
        """A transaction that holds the ledger's one write lock from its first statement on.

        Inside `together` it is a part of the one there, whole or undone by itself.

        Raises:
            LedgerError: opened read-only, locked for too long, or not reachable.
            LedgerTamperedError: the database is damaged.
        """
        group = self._group
        if group.stack is None:
            with self._begun(lock_tree) as connection:
                yield connection
            return
        if group.connection is None:
            group.connection = group.stack.enter_context(self._begun(lock_tree))
        with self._translated(), group.connection.begin_nested():
            yield group.connection

    @contextmanager
    def together(self) -> Iterator[None]:
        """Have all that this thread writes inside be one transaction, synced once, at its end.

        It begins with the first write. Nothing that rests on it may leave before the end. An error
        of privagg's own undoes the write that it came from; what was written before it is kept.
        Any other end, a kill for one, leaves nothing of it.
        """
        if self._group.stack is not None:
            yield
            return
        failed: PrivaggError | None = None
        with ExitStack() as stack:
            self._group.stack = stack
            try:
                yield
            except PrivaggError as error:
                failed = error
            finally:
                self._group.stack = self._group.connection = None
        if failed is not None:
            raise failed

    @contextmanager
    def _begun(self, lock_tree: bool) -> Iterator[Connection]:
        if self.read_only:
            raise LedgerError(f"the ledger {self.where} was opened without its signing key")
        with self._translated(), self.engine.connect() as plain:
            connection = plain.execution_options(**{_WRITING: True})
            if connection.dialect.name != "sqlite":
                # After the lock each statement must see what the writer before has committed.
                connection = connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                if lock_tree and connection.dialect.name != "sqlite":
                    connection.execute(select(schema.tree.c.size).with_for_update())
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one snapshot and blocks nobody.

        Inside `together`, once something was written there, it sees that.

        Raises:
            LedgerError: not reachable.
            LedgerTamperedError: the database is damaged.
        """
        if self._group.connection is not None:
            with self._translated():
                yield self._group.connection
            return
        with self._translated(), self.engine.connect() as connection:
            if connection.dialect.name != "sqlite":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def has_schema(self) -> bool:
        """True where the database holds a ledger."""
        with self._translated():
            return bool(inspect(self.engine).has_table(schema.meta.name))

    def copy_to(self, other: Store) -> None:
        """Copy an SQLite file whole, as one snapshot.

        Args:
            other: the SQLite file that becomes the copy; what is in it goes.

        Raises:
            LedgerTamperedError: the database is damaged.
        """
        with self._translated(), self.engine.connect() as source, other.engine.connect() as copy:
            found, made = source.connection.driver_connection, copy.connection.driver_connection
            assert isinstance(found, sqlite3.Connection)
            assert isinstance(made, sqlite3.Connection)
            found.backup(made)

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, SqlInterfaceError) as error:
            raise LedgerError(f"the ledger {self.where} cannot be used: {error.orig}") from error
        except DatabaseError as error:
            raise LedgerTamperedError(
                f"the ledger {self.where}: {error.orig}; name a ledger, or restore a copy "
                "(privagg ledger restore)"
            ) from error
        except UnicodeDecodeError as error:  # of SQLite's own words about a schema that is damaged
            raise LedgerTamperedError(f"the ledger {self.where} is damaged: {error}") from error


def _is_new(url: URL) -> bool:
    """Whether a file holds nothing yet. SQLite is not asked: that would settle what is set next."""
    file = Path(url.database or "")
    return not file.exists() or file.stat().st_size == 0


def _engine(url: URL, read_only: bool) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    arguments: dict[str, Any] = {"timeout": BUSY_TIMEOUT_S} if sqlite else {"connect_timeout": 30}
    try:
        if sqlite:
            address, shared = url.set(drivername="sqlite+privagg"), {"compiled_cache": _COMPILED}
            engine = create_engine(address, connect_args=arguments, execution_options=shared)
        else:
            engine = create_engine(url, connect_args=arguments, pool_pre_ping=True)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise MissingDependencyError(
            f"{url.drivername} needs an optional part: install privagg[postgres]"
        ) from error

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.isolation_level = None  # BEGIN is ours, so that it can be IMMEDIATE
            connection.execute("PRAGMA trusted_schema=OFF")
            if read_only:
                connection.execute("PRAGMA query_only=ON")
            else:
                if _is_new(url):
                    # Heeded by a new file only, where any other waits for whoever writes it.
                    connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
                    connection.execute("PRAGMA auto_vacuum=FULL")  # forgotten uploads keep no room
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
                connection.execute(f"PRAGMA journal_size_limit={_LOG_PAGES * _PAGE_BYTES}")
                connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_WRITING, False)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
        elif writing:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_S}s'")

    return engine


def _survive_forks(engine: Engine) -> None:
    """A forked child must not share its parent's connections."""
    reference = weakref.ref(engine)

    def after_fork() -> None:
        inherited = reference()
        if inherited is not None:
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=after_fork)


def _keep_peers_checkpoints(connection: Connection) -> None:
    """1 -> 2: room for the signed checkpoints of other ledgers."""
    schema.kept.create(connection)
    schema.protect(connection, schema.kept)


STEPS: dict[int, Callable[[Connection], None]] = {
    1: _keep_peers_checkpoints,
    2: schema.create_extended,
    3: schema.create_told,
}
"""Version that a step starts from -> the step to the next version."""


def is_up_to_date(store: Store) -> bool:
    """Whether a ledger's tables are of this software's version.

    Raises:
        LedgerError: they are of one that is unknown here.
    """
    with store.read() as connection:
        return _version(connection, store.where) == schema.SCHEMA_VERSION


def bring_up_to_date(store: Store) -> int:
    """Bring a ledger's tables to this software's version.

    Returns:
        How many steps were taken.

    Raises:
        LedgerError: the version is unknown here, or the ledger was opened without its key and is
            of an older version.
    """
    steps = 0
    while True:
        with store.read() as connection:
            version = _version(connection, store.where)
        if version == schema.SCHEMA_VERSION:
            return steps
        if store.read_only:
            raise LedgerError(
                f"the ledger {store.where} has schema version {version}, older than "
                f"{schema.SCHEMA_VERSION}; open it once with its signing key to bring it up to date"
            )
        with store.write() as connection:
            # Another process may have taken the step while this one waited for the lock.
            if _version(connection, store.where) == version:
                STEPS[version](connection)
                schema.write_meta(connection, "schema_version", str(version + 1))
        steps += 1


def _version(connection: Connection, where: str) -> int:
    text = schema.read_meta(connection).get("schema_version", "")
    known = {str(version): version for version in (*STEPS, schema.SCHEMA_VERSION)}
    if text not in known:
        raise LedgerError(
            f"the ledger {where} has schema version {text or 'none'}; this software knows "
            f"{', '.join(sorted(known))}. Use a newer privagg"
        )
    return known[text]
