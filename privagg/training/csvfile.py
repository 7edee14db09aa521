"""CSV files, line by line: what one record holds never changes how another one is read.

A physical line is a record. A reader that lets a quoted cell go on over lines lets one stray
quotation mark swallow every record after it; one that infers types or an index from what it meets
lets a surplus cell move all others. Here a line is read by the header and itself alone.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pandas as pd

from privagg.errors import DataError
from privagg.training.tablefile import TableFile

MAX_LINE_BYTES = 1 << 20
"""A longer line is no record; what a line may take is no other line's business."""

BROKEN_LINES = "privagg broken lines"
"""Key of `DataFrame.attrs`: numbers of the lines that could not be read, for the owner's eyes."""

OTHER_ENCODING = "privagg lines of another encoding"
"""Likewise: lines that are UTF-8 beyond ASCII, in a file that is said to be of another encoding."""

MISSING = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
        *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""Cells that count as missing: the texts that `pandas.read_csv` documents as its default."""

UTF_8 = "utf-8"
_END = "\x1eend of the line\x1e"


def read_csv(path: Path, written: TableFile) -> pd.DataFrame:
    """The records of a CSV file; cells stay text, blank lines are none.

    Only a line feed, or a carriage return and a line feed, ends a line; cells cannot hold either,
    also not within quotation marks.

    Args:
        path: its first line is the header; compressed where its name ends in `.gz`.
        written: its encoding, and what separates its cells.

    Returns:
        One column a header cell, one row a record, each cell as it lies there. A record that is
        too short lacks its last cells, which are None. A line that cannot be read (an open
        quotation mark, bytes of another encoding or of value 0, a carriage return within, more
        than `MAX_LINE_BYTES`, a cell beyond `csv.field_size_limit`) and one with more cells than
        the header, other than empty ones at its end, reads as a record without any value;
        `attrs[BROKEN_LINES]` and `attrs[OTHER_ENCODING]` have numbers of lines.

    Raises:
        DataError: there is no header, it cannot be read, has one cell or names a column twice.
        ValueError, OSError, EOFError, zlib.error: the file cannot be decompressed.
    """
    with _bytes(path) as file:
        lines = ((n, line) for n, line in enumerate(_lines(file), start=1) if line != b"")
        header = _header(next(lines, (1, b""))[1], path, written)
        records, broken, others = [], [], []
        for number, line in lines:
            cells = _record(_cells(line, written), len(header))
            if cells is None:
                broken.append(number)
            elif line and written.encoding != UTF_8 and _is_beyond_ascii(line):
                others.append(number)
            records.append(cells or [None] * len(header))
    frame = pd.DataFrame(records, columns=header, dtype=object)
    frame.attrs[BROKEN_LINES], frame.attrs[OTHER_ENCODING] = broken, others
    return frame


def _bytes(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines without their ends; None for one that is too long to be a record."""
    while line := file.readline(MAX_LINE_BYTES):
        whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
        rest = line
        while not (rest.endswith(b"\n") or len(rest) < MAX_LINE_BYTES):
            rest = file.readline(MAX_LINE_BYTES)
        yield line.removesuffix(b"\n").removesuffix(b"\r") if whole else None


def _cells(line: bytes | None, written: TableFile) -> list[str] | None:
    """The cells of one line, or None where it cannot be told apart into cells."""
    if line is None or b"\0" in line:
        return None
    try:
        text = [line.decode(written.encoding), _END]
        rows = list(csv.reader(text, delimiter=written.delimiter, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    return rows[0] if len(rows) == 2 and rows[1] == [_END] else None  # else a quote stays open


def _is_beyond_ascii(line: bytes) -> bool:
    """Whether bytes are UTF-8 and hold more than ASCII, as texts of other encodings hardly are."""
    try:
        return not line.isascii() and bool(line.decode())
    except UnicodeDecodeError:
        return False


def _header(line: bytes | None, path: Path, written: TableFile) -> list[str]:
    if line == b"":
        raise DataError(f"{path} is empty; its first line must name the columns")
    line = line or b""
    marked, utf_8 = line.startswith(codecs.BOM_UTF8), written.encoding == UTF_8
    line = line.removeprefix(codecs.BOM_UTF8) if utf_8 else line
    if not utf_8 and (marked or _is_beyond_ascii(line)):
        raise DataError(
            f"{path} is UTF-8, as its first line shows, and its encoding is said to be "
            f"{written.encoding!r}; remove `encoding` from its [file] section"
        )
    try:
        line.decode(written.encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not {written.encoding.upper()}; save it as 'CSV UTF-8', or say `encoding` "
            f"in its [file] section, such as 'latin-1' (byte {error.start}: {error.reason})"
        ) from error
    header = _cells(line, written)
    if not header:
        raise DataError(
            f"the first line of {path} cannot be read as names of columns: it opens a quotation "
            "mark that it does not close, is too long, holds bytes of value 0 (as UTF-16 does), or "
            "has no line feed after it; save it as CSV in UTF-8 with one line a record"
        )
    _require_delimiter(header, path, written)
    _require_distinct(header, path)
    return header


def _record(row: list[str] | None, width: int) -> list[str | None] | None:
    if row is None or any(cell.strip() for cell in row[width:]):
        return None
    return [*row[:width], *[None] * (width - len(row))]


def _require_delimiter(header: list[str], path: Path, written: TableFile) -> None:
    others = (sign for sign in (";", "\t", "|", ",") if sign != written.delimiter)
    other = next((sign for sign in others if sign in header[0]), None)
    if len(header) == 1 and other is not None:
        raise DataError(
            f"the columns of {path} are separated by {other!r}, not by {written.delimiter!r}; say "
            f'so in its [file] section (delimiter = {json.dumps(other)}, and decimal = "," where '
            "numbers have decimal commas), in party.toml or in the shared configuration"
        )


def _require_distinct(header: list[str], path: Path) -> None:
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise DataError(
            f"column(s) {', '.join(map(repr, repeated))} appear more than once in {path}; keep "
            "one of each"
        )
