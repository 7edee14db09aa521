"""A table that is the answer of a database, read once and changed by nobody.

What a database says of an address or a password it could not use may repeat them, so its own
words about connecting are not repeated.
"""

from __future__ import annotations

from pathlib import Path
from sqlite3 import (
    SQLITE_DENY,
    SQLITE_FUNCTION,
    SQLITE_OK,
    SQLITE_READ,
    SQLITE_RECURSIVE,
    SQLITE_SELECT,
)
from typing import Any

import pandas as pd
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from privagg.errors import ConfigError, DataError, MissingDependencyError
from privagg.training.tablefile import Database

MOST_SAID = 200
"""Characters of a database's own words that a message repeats."""


def read_query(database: Database, folder: Path) -> pd.DataFrame:
    """The rows of a query, each cell as the database gives it; nothing is changed there.

    Args:
        database: where, and the query.
        folder: that the path of a SQLite file starts from.

    Raises:
        ConfigError: the URL is none, or its database is not there.
        MissingDependencyError: the database's driver is not installed.
        DataError: it cannot be connected to, or does not answer the query with a table.
    """
    engine = _engine(_url(database, folder))
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        raise DataError(
            f"the database of [database] in party.toml cannot be connected to ({_kind(error)}); "
            "try the same URL with the database's own client, from this machine"
        ) from None
    with connection:
        return _answer(connection, database.query)


def _url(database: Database, folder: Path) -> URL:
    try:
        url = make_url(database.address)
    except (SQLAlchemyError, ValueError):
        raise ConfigError(
            "the URL of [database] in party.toml is none; it reads "
            "dialect+driver://user:password@host/database, and signs in a password that mean "
            "something in a URL stand as % and two digits"
        ) from None
    if url.get_backend_name() != "sqlite":
        return url
    path = folder / (url.database or "")
    if not path.is_file():
        raise ConfigError(
            f"[database] in party.toml names the SQLite file {path}, which is not there; a path "
            "that is not absolute starts at the party's folder"
        )
    return url.set(database=str(path.resolve()))


def _engine(url: URL) -> Engine:
    try:
        return create_engine(url, poolclass=NullPool)
    except NoSuchModuleError:
        raise ConfigError(
            f"[database] in party.toml names {url.drivername!r}, which SQLAlchemy does not know; "
            "name a database such as postgresql+psycopg or sqlite, or install its dialect"
        ) from None
    except ImportError as error:
        raise MissingDependencyError(
            f"[database] in party.toml needs a driver that is not installed ({error.name}); "
            "install it, for PostgreSQL: pip install 'privagg[postgres]', and write "
            "postgresql+psycopg://..."
        ) from None


def _answer(connection: Connection, query: str) -> pd.DataFrame:
    if connection.dialect.name == "postgresql":
        connection = connection.execution_options(postgresql_readonly=True)
    try:
        if connection.dialect.name == "sqlite":
            _read_alone(connection)
        found = connection.exec_driver_sql(query)
        if not found.returns_rows:
            raise DataError("the query of [database] in party.toml returns no table; use a SELECT")
        names, rows = list(found.keys()), found.fetchall()
    except SQLAlchemyError as error:
        raise DataError(
            f"the query of [database] in party.toml fails ({_kind(error)}: {_first_line(error)}); "
            "try it with the database's own client"
        ) from None
    finally:
        connection.rollback()
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"column(s) {', '.join(map(repr, repeated))} appear more than once in the query's "
            "answer; name each one once (AS)"
        )
    return pd.DataFrame([tuple(row) for row in rows], columns=names, dtype=object)


def _read_alone(connection: Connection) -> None:
    """Have SQLite refuse every statement but one that reads: its own flag can be taken back by the
    query, and does not keep other files from being made (`ATTACH`, `VACUUM INTO`).
    """
    reading = (SQLITE_SELECT, SQLITE_READ, SQLITE_FUNCTION, SQLITE_RECURSIVE)

    def allowed(action: int, *_: str | None) -> int:
        return SQLITE_OK if action in reading else SQLITE_DENY

    driver: Any = connection.connection.driver_connection
    driver.set_authorizer(allowed)


def _first_line(error: SQLAlchemyError) -> str:
    """What the database says of a query; it has let us in, so this is not about the address."""
    own = error.orig if isinstance(error, DBAPIError) else error
    return str(own).strip().partition("\n")[0][:MOST_SAID]


def _kind(error: SQLAlchemyError) -> str:
    own = error.orig if isinstance(error, DBAPIError) else error
    return type(own).__name__
