"""Every signed statement that a coordinator got in a run, kept so that the bundle can show them.

What the sites signed of their uploads and the key holder of its openings lasts longer than the
process: a statement is on disk before the attempt that it belongs to is recorded as over.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Self

from privagg.errors import ConfigError
from privagg.protocol.messages import Statement

FILE_NAME = "statements.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS statement (
    run TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL, kind INTEGER NOT NULL,
    sender TEXT NOT NULL, header TEXT NOT NULL, payload_digest TEXT NOT NULL,
    signature TEXT NOT NULL, PRIMARY KEY (run, round, attempt, kind, sender)
) WITHOUT ROWID
"""


class StatementStore:
    """Signed statements by run, round, attempt, kind and sender; the first of each is kept.

    Args:
        path: SQLite file, made when something is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def beside(cls, output: Path) -> Self:
        """The store of the runs whose files lie in the folder `output`."""
        return cls(output / FILE_NAME)

    def keep(self, statements: Iterable[Statement]) -> None:
        """Keep verified statements durably; those kept already are left as they are.

        Raises:
            ConfigError: the file cannot be written.
        """
        rows = [_row(statement) for statement in statements]
        if not rows:
            return
        try:
            with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
                database.execute("PRAGMA synchronous=FULL")
                database.execute(_SCHEMA)
                database.executemany(
                    "INSERT OR IGNORE INTO statement VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows
                )
        except sqlite3.Error as error:
            raise ConfigError(f"cannot keep statements in {self._path}: {error}") from error

    def of(self, run: str) -> tuple[Statement, ...]:
        """The statements of a run, by round, attempt, kind and sender.

        Raises:
            ConfigError: the file cannot be read.
        """
        if not self._path.exists():
            return ()
        try:
            with closing(sqlite3.connect(self._path, timeout=30)) as database:
                rows = database.execute(
                    "SELECT kind, header, payload_digest, signature FROM statement WHERE run = ? "
                    "ORDER BY round, attempt, kind, sender",
                    (run,),
                ).fetchall()
        except sqlite3.Error as error:
            raise ConfigError(f"cannot read the statements in {self._path}: {error}") from error
        return tuple(
            Statement(kind=kind, header=header, payload_digest=digest, signature=signature)
            for kind, header, digest, signature in rows
        )


def _row(statement: Statement) -> tuple[str | int, ...]:
    said = json.loads(statement.header)
    place = (said["run"], said["round"], said["attempt"], statement.kind, said["sender"])
    return (*place, statement.header, statement.payload_digest, statement.signature)
