"""The secret keys of runs at their holder: one a run, made once, erased for good.

A key and the signed statement of it are one row, written before the statement leaves: whoever is
killed has made no key or this one. The row stays after the secret is gone, so that a run never
gets a second key; and a coordinator that asks for one run after the other gets `MOST_LIVING` keys
and no more, until some of them are gone. What erasing cannot promise (journals of the file system,
flash memory, backups) is said in SECURITY.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager

from privagg.errors import KeyErasedError, KeyMismatchError, OpeningRefusedError

MOST_LIVING = 64
"""Keys that are not erased yet, at most: a run that never ends keeps its key for a long time."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS run_key (
    run TEXT NOT NULL PRIMARY KEY, plan TEXT NOT NULL, statement BLOB NOT NULL,
    until TEXT NOT NULL,
    secret BLOB, erased TEXT NOT NULL DEFAULT ''
);
CREATE TRIGGER IF NOT EXISTS run_key_is_kept BEFORE UPDATE ON run_key
    WHEN NEW.run <> OLD.run OR NEW.plan <> OLD.plan OR NEW.statement <> OLD.statement
        OR NEW.until <> OLD.until OR OLD.secret IS NULL OR NEW.secret IS NOT NULL OR NEW.erased = ''
    BEGIN SELECT RAISE(ABORT, 'the key of a run is only ever erased'); END;
CREATE TRIGGER IF NOT EXISTS run_key_stays BEFORE DELETE ON run_key
    BEGIN SELECT RAISE(ABORT, 'a run never gets a second key'); END;
"""


_LIVING = "(SELECT count(*) FROM run_key WHERE secret IS NOT NULL)"


class KeyStore:
    """The keys in a key holder's database.

    Args:
        connect: a connection to it, whose commits are durable and whose deletions overwrite.
    """

    def __init__(self, connect: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self._connect = connect

    def known(self, run: str) -> bool:
        """Whether the run was ever given a key."""
        with self._connect() as database:
            return bool(database.execute("SELECT 1 FROM run_key WHERE run = ?", (run,)).fetchall())

    def living(self, run: str) -> bool:
        """Whether the run has a key that is not erased."""
        query = "SELECT 1 FROM run_key WHERE run = ? AND secret IS NOT NULL"
        with self._connect() as database:
            return bool(database.execute(query, (run,)).fetchall())

    def statement(self, run: str) -> bytes | None:
        """The signed statement of a run's key, None where it has none yet.

        Raises:
            KeyErasedError: it had one.
        """
        with self._connect() as database:
            row = database.execute(
                "SELECT statement, erased FROM run_key WHERE run = ?", (run,)
            ).fetchone()
        if row is not None and row[1]:
            raise _erased(run, row[1])
        return None if row is None else bytes(row[0])

    def require_room(self) -> None:
        """Refuse another key while there are as many as this party holds at once.

        Raises:
            OpeningRefusedError: there are; the message says how they end.
        """
        with self._connect() as database:
            (living,) = database.execute(f"SELECT {_LIVING}").fetchone()
        if living >= MOST_LIVING:
            raise OpeningRefusedError(
                f"{living} runs that never ended still have their keys, and no more are held at "
                "once. Each goes with the result of its run's last round, or when the approval "
                "ends; its owner ends it at once with: privagg approve --withdraw"
            )

    def keep(self, run: str, *, plan: str, statement: bytes, secret: bytes, until: str) -> None:
        """Keep a new key durably; where the run has one already, that one stays.

        Where several processes ask at once, and the room is for fewer, the rest is not kept.

        Args:
            run: whose key it is.
            plan: SHA-256 (hex) of the plan that it opens for.
            statement: the signed frame that states it.
            secret: `DecryptionKey.to_bytes`.
            until: last day, UTC (`YYYY-MM-DD`).
        """
        with self._connect() as database:
            database.execute(
                "INSERT OR IGNORE INTO run_key (run, plan, statement, until, secret) "
                f"SELECT ?, ?, ?, ?, ? WHERE {_LIVING} < {MOST_LIVING}",
                (run, plan, statement, until, secret),
            )

    def secret(self, run: str, today: str) -> bytes:
        """The secret key of a run; once its last day was before `today` it is erased.

        Raises:
            KeyErasedError: it is gone.
            KeyMismatchError: no key was made here for such a run.
        """
        with self._connect() as database:
            row = database.execute(
                "SELECT secret, erased, until FROM run_key WHERE run = ?", (run,)
            ).fetchone()
        if row is None:
            raise KeyMismatchError(f"no key was made here for run {run!r}")
        secret, erased, until = row
        if not erased and until < today:
            self.erase_ended(today)
            return self.secret(run, today)
        if erased:
            raise _erased(run, erased)
        return bytes(secret)

    def erase_ended(self, today: str) -> int:
        """Erase every key whose last day was before `today` (`YYYY-MM-DD`); how many there were."""
        why = "'when its last day, ' || until || ', was over'"
        return self._erase_living(why, "until < ?", today)

    def erase_unapproved(self, plan: str) -> int:
        """Erase every key of a plan for which its owner has no approval in force; how many."""
        why = "'as no approval of its holder''s owner was in force'"
        return self._erase_living(why, "plan = ?", plan)

    def _erase_living(self, why: str, which: str, value: str) -> int:
        """Erase what is not erased yet; `why` and `which` are SQL of this class alone."""
        with self._connect() as database:
            return database.execute(
                f"UPDATE run_key SET secret = NULL, erased = {why} "
                f"WHERE secret IS NOT NULL AND {which}",
                (value,),
            ).rowcount


def erase(database: sqlite3.Connection, run: str, why: str) -> None:
    """Erase a run's key as part of a transaction.

    Args:
        database: inside the transaction.
        run: whose key it is.
        why: goes on from "the key was erased".
    """
    database.execute(
        "UPDATE run_key SET secret = NULL, erased = ? WHERE run = ? AND secret IS NOT NULL",
        (why, run),
    )


def _erased(run: str, why: str) -> KeyErasedError:
    return KeyErasedError(
        f"the key of run {run!r} was erased {why}; nothing is opened under it any more. Start a "
        "new run, which gets a key of its own"
    )
