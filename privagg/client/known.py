"""Which records were used under which data set's name: an owner's own memory, never exported.

A data set's name is a word in a file that others write, and each name has a budget of its own. So
the owner keeps keyed hashes of the records beside the ledger and looks, before it approves a name,
whether these records count under another one already. Key and hashes stay in one file that only its
owner can read; without the key the hashes of guessed records cannot be computed.

A record is recognised whatever columns the configuration declares, in whatever order and
whatever way numbers are spelled. Records that were altered, or exported with other columns, are
not.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from privagg.client.data import Records, read_frame
from privagg.client.loading import Source, TableSource
from privagg.errors import DataError

RECOGNISED_SHARE = 0.01
_TAG_BYTES = 16
_BATCH = 4096


@dataclass(frozen=True)
class Overlap:
    """Records that count under another data set's name; for the owner's eyes only.

    Attributes:
        dataset: the other name.
        share: of the smaller of both sets.
    """

    dataset: str
    share: float


@dataclass(frozen=True)
class KnownRecords:
    """The owner's memory of records.

    Args:
        path: its file, made with mode 0600 where it does not exist yet.
    """

    path: Path

    def overlaps(self, dataset: str, records: Iterable[bytes]) -> list[Overlap]:
        """Other names under which at least a hundredth of these records count; nothing is written.

        Args:
            dataset: the name that is asked for.
            records: canonical bytes of each record.
        """
        if not self.path.exists():
            return []
        with closing(self._open()) as connection:
            own = self._tags(connection, records)
            rows = connection.execute("SELECT DISTINCT dataset FROM known")
            names = sorted(name for (name,) in rows if name != dataset)
            found = [Overlap(name, _share(own, _of(connection, name))) for name in names]
        return [overlap for overlap in found if overlap.share >= RECOGNISED_SHARE]

    def remember(self, dataset: str, records: Iterable[bytes]) -> None:
        """Remember these records under a name, beside what is known under it."""
        with closing(self._open()) as connection, connection:
            rows = [(dataset, tag) for tag in self._tags(connection, records)]
            connection.executemany("INSERT OR IGNORE INTO known VALUES (?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self.path)
            with connection:
                connection.execute("CREATE TABLE IF NOT EXISTS key (key BLOB NOT NULL)")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS known (dataset TEXT, tag BLOB, "
                    "PRIMARY KEY (dataset, tag)) WITHOUT ROWID"
                )
                connection.execute(
                    "INSERT INTO key SELECT ? WHERE NOT EXISTS (SELECT 1 FROM key)",
                    (secrets.token_bytes(32),),
                )
        except (OSError, sqlite3.Error) as error:
            raise DataError(f"the memory of records {self.path} cannot be used: {error}") from error
        return connection

    def _tags(self, connection: sqlite3.Connection, records: Iterable[bytes]) -> set[bytes]:
        (key,) = connection.execute("SELECT key FROM key").fetchone()
        return {hmac.digest(key, record, hashlib.sha256)[:_TAG_BYTES] for record in records}


def _of(connection: sqlite3.Connection, dataset: str) -> set[bytes]:
    rows = connection.execute("SELECT tag FROM known WHERE dataset = ?", (dataset,))
    return {bytes(tag) for (tag,) in rows}


def _share(some: set[bytes], others: set[bytes]) -> float:
    smaller = min(len(some), len(others))
    return len(some & others) / smaller if smaller else 0.0


def record_bytes(source: Source, base: Path, data: str, records: Records) -> Iterable[bytes]:
    """Canonical bytes of each of a site's records: of a table's whole rows, else of the tensors.

    Args:
        source: how its files are read.
        base, data: as for `load_records`.
        records: what was read; used where `data` is no table's path.

    Raises:
        ConfigError, DataError: the table cannot be read.
    """
    if isinstance(source, TableSource) and data:
        return rows_as_bytes(read_frame(base / data))
    return _tensors_as_bytes(records)


def rows_as_bytes(frame: pd.DataFrame) -> list[bytes]:
    """Each row of a table: all its cells under their columns' names, numbers by their values."""
    cells = []
    for name in sorted(map(str, frame.columns)):
        column = frame[name].astype(object)
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        plain = ["" if missing else str(cell).strip()
                 for cell, missing in zip(column, column.isna(), strict=True)]  # fmt: skip
        cells.append(
            [f"{name}={number!r}" if number == number else f"{name}:{text}"
             for number, text in zip(numbers.tolist(), plain, strict=True)]
        )  # fmt: skip
    return ["\x1f".join(row).encode() for row in zip(*cells, strict=True)]


def _tensors_as_bytes(records: Records) -> Iterable[bytes]:
    for start in range(0, len(records), _BATCH):
        x, y = records.gather(np.arange(start, min(start + _BATCH, len(records))))
        for one, number in zip(x.numpy(), y.tolist(), strict=True):
            yield one.tobytes() + str(number).encode()
