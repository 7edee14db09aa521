"""CSV files, record by record: what one record holds never changes how another one is read.

A library's reader settles some questions for the whole file by what it meets on the way: a surplus
cell in the first record can make the first column an index, which moves every other record's cells
by one column. Here a record is read by the header and itself alone.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pandas as pd

from privagg.errors import DataError

MISSING = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
        *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""Cells that count as missing: the texts that `pandas.read_csv` documents as its default."""

_END = "\x1eend of the file\x1e"


def read_csv(path: Path) -> pd.DataFrame:
    """The records of a comma-separated file; cells stay text, blank lines are none.

    Args:
        path: UTF-8, its first line the header; compressed where its name ends in `.gz`.

    Returns:
        One column a header cell, one row a record, None where a cell is missing. A record that is
        too short lacks its last cells. One with more cells than the header, other than empty ones
        at its end, cannot be told apart into columns and reads as a record without any value.

    Raises:
        DataError: there is no header, it has no commas or names a column twice, or a quotation mark
            is never closed.
        ValueError, OSError, EOFError, csv.Error, zlib.error: the file cannot be read as text.
    """
    with _text(path) as file:
        rows = _rows(file, path)
        header = next(rows, None)
        if header is None:
            raise DataError(f"{path} is empty; its first line must name the columns")
        _require_commas(header, path)
        _require_distinct(header, path)
        records = [_record(row, len(header)) for row in rows]
    return pd.DataFrame(records, columns=header, dtype=object)


def _text(path: Path) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _rows(file: IO[str], path: Path) -> Iterator[list[str]]:
    """Rows that are not blank; a mark at the end tells whether the last one was complete."""

    def lines() -> Iterator[str]:
        yield from file
        yield _END

    last: list[str] = []
    for last in csv.reader(lines(), skipinitialspace=True):
        if last and last != [_END]:
            yield last
    if last != [_END]:
        raise DataError(
            f"{path} opens a quotation mark that is never closed, so its records cannot be told "
            "apart; correct the file"
        )


def _record(row: list[str], width: int) -> list[str | None]:
    if any(cell.strip() for cell in row[width:]):
        return [None] * width
    cells = [None if cell in MISSING else cell for cell in row[:width]]
    return cells + [None] * (width - len(cells))


def _require_commas(header: list[str], path: Path) -> None:
    other = next((sign for sign in (";", "\t", "|") if sign in header[0]), None)
    if len(header) == 1 and other is not None:
        raise DataError(
            f"the columns of {path} are separated by {other!r}, not by commas; save it as CSV with "
            "commas between cells and decimal points in numbers (a spreadsheet writes what the "
            "system's regional settings say)"
        )


def _require_distinct(header: list[str], path: Path) -> None:
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise DataError(
            f"column(s) {', '.join(map(repr, repeated))} appear more than once in {path}; keep "
            "one of each"
        )
