"""Which records were used under which data set's name: an owner's own memory, never exported.

A data set's name is a word in a file that others write, and each name has a budget of its own. So
the owner keeps keyed hashes of the records beside the ledger. Before it approves a name, and again
before a run's first charge, these tell whether records count under another name already, and
whether they are those that were approved. Key and hashes stay in one file that only its owner can
read; without the key the hashes of guessed records cannot be computed.

A record is recognised whatever columns the configuration declares, in whatever order and whatever
way numbers, booleans and letters are spelled, and an image under whatever range, shape and label.
No setting of how a table is written changes what it is recognised by, so nobody who writes one can
make known records look new: numbers are read with a decimal comma or a point, texts as UTF-8 or
else Windows-1252, columns by their names in the file. Records that were altered, or exported with
other columns, spellings of dates or categories, or with thousands kept apart, are not.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from privagg.errors import DataError
from privagg.identity.secretfile import require_private
from privagg.training.data import Records, chunks
from privagg.training.declared import DatasetSource, ImageSource, Source, TableSource
from privagg.training.features import TRUTH
from privagg.training.images import MappedArray
from privagg.training.reading import is_text, lying_parts, with_gaps

Tags = frozenset[bytes]
"""Keyed hashes of a data set's records, each once."""

RECOGNISED_SHARE = 0.01
_SEPARATED = re.compile(r"[+-]?\d[\d.,' \u00a0\u202f\u2019]*[.,]\d+")
_GROUPS = re.compile(r"[+-]?\d{1,3}([.,]\d{3})+")
_TAG_BYTES = 16


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
class Recognised:
    """How records stand to what is remembered; for the owner's eyes only.

    Attributes:
        strange: share of them that is not remembered under their own data set's name.
        elsewhere: other names under which strange ones count, from a hundredth of the smaller set.
    """

    strange: float
    elsewhere: tuple[Overlap, ...] = ()


@dataclass(frozen=True)
class KnownRecords:
    """The owner's memory of records.

    Args:
        path: its file, made with mode 0600 where it does not exist yet.
    """

    path: Path

    def tags(self, records: Iterable[bytes]) -> Tags:
        """Keyed hashes of records.

        Args:
            records: canonical bytes of each; empty ones, which say nothing, are left out.
        """
        with closing(self._open()) as connection:
            (key,) = connection.execute("SELECT key FROM key").fetchone()
        return frozenset(
            hmac.digest(key, record, hashlib.sha256)[:_TAG_BYTES] for record in records if record
        )

    def recognise(self, dataset: str, tags: Tags) -> Recognised:
        """What is known of a data set's records; nothing is written.

        A record that was remembered under its own name was looked at then, and is not told again.
        """
        with closing(self._open()) as connection:
            return _recognised(connection, dataset, tags)

    def remember(self, dataset: str, tags: Tags, *, overlapping: bool = False) -> Recognised:
        """Remember these records under a name, unless some count under another one already.

        Looking and remembering are one step: of two that happen at once, one sees the other.

        Args:
            dataset, tags: as for `recognise`.
            overlapping: remember them also where they count elsewhere.

        Returns:
            What was known before; nothing was remembered where some count elsewhere, unless they
            may.
        """
        with closing(self._open()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            found = _recognised(connection, dataset, tags)
            if overlapping or not found.elsewhere:
                rows = [(dataset, tag) for tag in tags]
                connection.executemany("INSERT OR IGNORE INTO known VALUES (?, ?)", rows)
        return found

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            require_private(self.path, "the memory of records")
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


def _recognised(connection: sqlite3.Connection, dataset: str, tags: Tags) -> Recognised:
    strange = tags - _of(connection, dataset)
    rows = connection.execute("SELECT DISTINCT dataset FROM known").fetchall()
    others = ((name, _of(connection, name)) for name in sorted(n for (n,) in rows if n != dataset))
    found = [Overlap(name, _share(strange, len(tags), known)) for name, known in others]
    elsewhere = tuple(overlap for overlap in found if overlap.share >= RECOGNISED_SHARE)
    return Recognised(len(strange) / len(tags) if tags else 0.0, elsewhere)


def _of(connection: sqlite3.Connection, dataset: str) -> set[bytes]:
    rows = connection.execute("SELECT tag FROM known WHERE dataset = ?", (dataset,))
    return {bytes(tag) for (tag,) in rows}


def _share(strange: Tags | set[bytes], size: int, others: set[bytes]) -> float:
    smaller = min(size, len(others))
    return len(strange & others) / smaller if smaller else 0.0


def record_bytes(source: Source, base: Path, data: str, records: Records) -> Iterable[bytes]:
    """Canonical bytes of each of a site's records, as they lie in its files.

    Args:
        source: how its files are read.
        base, data: as for `load_records`; empty `data` where the records are not in files.
        records: what was read; used where they are in no file, or a factory made them.

    Raises:
        ConfigError, DataError: a file cannot be read.
    """
    if isinstance(source, TableSource) and (data or source.database):
        return _table_as_bytes(source, base / data)
    if data and isinstance(source, ImageSource):
        return _images_as_bytes(base / data)
    first_label = source.first_label if isinstance(source, DatasetSource) else 0
    return _tensors_as_bytes(records, first_label)


def _table_as_bytes(source: TableSource, path: Path) -> Iterator[bytes]:
    for part in lying_parts(source, path):
        if is_text(source, path):
            yield from rows_as_bytes(with_gaps(part), source.file.encoding)
        else:
            yield from rows_as_bytes(part)


def rows_as_bytes(frame: pd.DataFrame, encoding: str = "utf-8") -> list[bytes]:
    """Each row of a table: all its cells under their columns' names, numbers by their values and
    texts without regard to capital letters, as they are encoded.

    A row's bytes depend on that row and on the columns' names alone; a row without any value is
    empty.

    Args:
        frame: the table as it lies there.
        encoding: that its texts were read by; whichever it was, the same file gives the same bytes.
    """
    given = {_plain_text(str(name), encoding): place for place, name in enumerate(frame.columns)}
    names = sorted(given)
    header = hashlib.sha256("\x1f".join(names).encode()).digest()
    numbers = np.empty((len(frame), len(names)))
    texts: list[list[str]] = [[] for _ in range(len(frame))]
    for place, name in enumerate(names):
        column = frame.iloc[:, given[name]].astype(object)
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        numbers[:, place] = values + 0.0  # one spelling of zero
        for row in np.flatnonzero(np.isnan(values) & ~column.isna().to_numpy()):
            text = _plain_text(str(column.iat[row]), encoding).strip().casefold()
            number = TRUTH.get(text, _written_number(text))
            if number is not None:
                numbers[row, place] = number
            elif text:
                texts[row].append(f"{name}:{text}")
    said = np.count_nonzero(~np.isnan(numbers), axis=1)
    numbers[np.isnan(numbers)] = np.nan  # one spelling of "no number"
    return [
        header + row.tobytes() + "\x1f".join(words).encode() if some or words else b""
        for row, words, some in zip(numbers, texts, said, strict=True)
    ]


def _plain_text(text: str, encoding: str) -> str:
    """What its bytes are as UTF-8, or else as Windows-1252, whatever they were read as."""
    if encoding == "utf-8" or text.isascii():
        return text
    lying = text.encode(encoding, errors="replace")
    for name in ("utf-8", "cp1252"):
        try:
            return lying.decode(name)
        except UnicodeDecodeError:
            continue
    return lying.decode("latin-1")


def _written_number(text: str) -> float | None:
    """The number that a text with decimal comma or separated thousands stands for, or None.

    Always the same one, whatever the table's settings say; it recognises, and measures nothing.
    """
    if not _SEPARATED.fullmatch(text):
        return None
    last = max(text.rfind(","), text.rfind("."))
    whole = re.sub(r"[^0-9+-]", "", text[:last])
    if text.count(text[last]) == 1:
        return float(f"{whole}.{text[last + 1 :]}")
    return float(whole + text[last + 1 :]) if _GROUPS.fullmatch(text) else None


def _images_as_bytes(path: Path) -> Iterator[bytes]:
    """Each image by its pixels alone: the same person under whatever label."""
    pixels = MappedArray.of(path)
    for part in chunks(len(pixels)):
        batch = pixels.rows(part)
        for one in np.asarray(batch, dtype=np.float64).reshape(len(batch), -1):
            yield one.tobytes()


def _tensors_as_bytes(records: Records, first_label: int) -> Iterator[bytes]:
    """Each record by its input and its label as it lies there, whichever the first class is."""
    for part in chunks(len(records)):
        x, y = records.gather(part)
        for one, number in zip(x.numpy(), y.tolist(), strict=True):
            yield one.tobytes() + str(number + first_label).encode()
