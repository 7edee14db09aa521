"""The secret keys of runs at their holder: one a run, made once, erased for good.

A key and the signed statement of it are one row, written before the statement leaves: whoever is
killed has made no key or this one. The row stays after the secret is gone, so that a run never
gets a second key. What erasing cannot promise (journals of the file system, flash memory, backups)
is said in SECURITY.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

from privagg.errors import KeyErasedError, KeyMismatchError

SCHEMA = """
CREATE TABLE IF NOT EXISTS run_key (
    run TEXT NOT NULL PRIMARY KEY, statement BLOB NOT NULL, until TEXT NOT NULL,
    secret BLOB, erased TEXT NOT NULL DEFAULT ''
);
CREATE TRIGGER IF NOT EXISTS run_key_is_kept BEFORE UPDATE ON run_key
    WHEN NEW.run <> OLD.run OR NEW.statement <> OLD.statement OR NEW.until <> OLD.until
        OR OLD.secret IS NULL OR NEW.secret IS NOT NULL OR NEW.erased = ''
    BEGIN SELECT RAISE(ABORT, 'the key of a run is only ever erased'); END;
CREATE TRIGGER IF NOT EXISTS run_key_stays BEFORE DELETE ON run_key
    BEGIN SELECT RAISE(ABORT, 'a run never gets a second key'); END;
"""


class KeyStore:
    """The keys in a key holder's database.

    Args:
        connect: a connection to it, whose commits are durable and whose deletions overwrite.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect

    def known(self, run: str) -> bool:
        """Whether the run was ever given a key."""
        with closing(self._connect()) as database:
            return bool(database.execute("SELECT 1 FROM run_key WHERE run = ?", (run,)).fetchall())

    def statement(self, run: str) -> bytes | None:
        """The signed statement of a run's key, None where it has none yet.

        Raises:
            KeyErasedError: it had one.
        """
        with closing(self._connect()) as database:
            row = database.execute(
                "SELECT statement, erased FROM run_key WHERE run = ?", (run,)
            ).fetchone()
        if row is not None and row[1]:
            raise _erased(run, row[1])
        return None if row is None else bytes(row[0])

    def keep(self, run: str, *, statement: bytes, secret: bytes, until: str) -> None:
        """Keep a new key durably; where the run has one already, that one stays."""
        with closing(self._connect()) as database:
            database.execute(
                "INSERT OR IGNORE INTO run_key (run, statement, until, secret) VALUES (?, ?, ?, ?)",
                (run, statement, until, secret),
            )

    def secret(self, run: str) -> bytes:
        """The secret key of a run.

        Raises:
            KeyErasedError: it is gone.
            KeyMismatchError: no key was made here for such a run.
        """
        with closing(self._connect()) as database:
            row = database.execute(
                "SELECT secret, erased FROM run_key WHERE run = ?", (run,)
            ).fetchone()
        if row is None:
            raise KeyMismatchError(f"no key was made here for run {run!r}")
        if row[1]:
            raise _erased(run, row[1])
        return bytes(row[0])

    def erase_ended(self, today: str) -> int:
        """Erase every key whose last day was before `today` (`YYYY-MM-DD`); how many there were."""
        with closing(self._connect()) as database:
            done = database.execute(
                "UPDATE run_key SET secret = NULL, erased = 'when its last day, ' || until || "
                "', was over' WHERE secret IS NOT NULL AND until < ?",
                (today,),
            )
            return done.rowcount


def erase(database: sqlite3.Connection, run: str, why: str) -> None:
    """Erase a run's key as part of a transaction; `why` goes on from "the key was erased"."""
    database.execute(
        "UPDATE run_key SET secret = NULL, erased = ? WHERE run = ? AND secret IS NOT NULL",
        (why, run),
    )


def _erased(run: str, why: str) -> KeyErasedError:
    return KeyErasedError(
        f"the key of run {run!r} was erased {why}; nothing is opened under it any more. Start a "
        "new run, which gets a key of its own"
    )
