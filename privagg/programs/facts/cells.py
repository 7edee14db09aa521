"""A site's table before anything is declared of it: each cell by itself, as a number or a text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from privagg.programs.questions.columns import Codes, Columns, FloatArray
from privagg.training.features import as_number, numeric_values

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 64
"""Bytes of a text that can be a category, at most."""

MISSING = 0
TOO_LONG = LONGEST + 1

HASHES = 128
"""Values of a text's hash."""

Bytes = npt.NDArray[np.uint8]


class Texts(NamedTuple):
    """A column as texts, one for each way in which a category can be spelt.

    Attributes:
        text: uint8 (r, `LONGEST`), UTF-8 with zeros behind it.
        length: int64 (r,), its bytes; `MISSING` or `TOO_LONG` where there is no such text.
        hash: int64 (r,), public and the same everywhere, below `HASHES`.
    """

    text: Bytes
    length: Codes
    hash: Codes


class Cells(Columns):
    """Some records of a table: numbers as they are written, unclamped, and texts.

    Args:
        numbers: column -> float64 (r,); NaN: missing or no number.
        texts: column -> its texts.
        count: r.
    """

    def __init__(
        self, numbers: Mapping[str, FloatArray], texts: Mapping[str, Texts], count: int
    ) -> None:
        super().__init__(numbers, {}, count)
        self._texts = dict(texts)

    @classmethod
    def of(cls, frame: pd.DataFrame, numbers: Sequence[str], texts: Sequence[str]) -> Self:
        """The named columns of a table; every line is a record.

        Args:
            frame: the table, which has all of them.
            numbers: columns that are read as numbers.
            texts: columns that are read as texts.
        """
        return cls(
            {name: numeric_values(frame[name]) for name in numbers},
            {name: _texts(frame[name]) for name in texts},
            len(frame),
        )

    def __getitem__(self, some: slice | list[int]) -> Self:
        """Some of the records, in this order."""
        count = self._count_of(some)
        numbers = {name: values[some] for name, values in self._numbers.items()}
        texts = {
            name: Texts(each.text[some], each.length[some], each.hash[some])
            for name, each in self._texts.items()
        }
        return type(self)(numbers, texts, count)

    def texts(self, name: str) -> Texts:
        """A column of texts."""
        return self._texts[name]


def spelt(cell: object) -> str:
    """The one spelling of a category: `1`, `1.0` and `True` are `1`, and `Yes` is `yes`.

    What a declared category equals (`privagg.training.features.equal_categories`), it equals in
    this spelling, too.
    """
    number = as_number(cell)
    if number is None:
        return str(cell).strip().casefold()
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


@lru_cache(maxsize=4096)
def _placed(text: str) -> tuple[bytes, int, int]:
    """A text's bytes with zeros behind, how many they are, and their hash."""
    data = text.encode("utf-8", errors="replace")
    length = len(data) if len(data) <= LONGEST else TOO_LONG
    digest = hashlib.blake2b(data, digest_size=8, person=b"privagg-facts").digest()
    return data[:LONGEST].ljust(LONGEST, b"\0"), length, int.from_bytes(digest) % HASHES


def _texts(column: pd.Series) -> Texts:
    present = ~column.isna().to_numpy(dtype=np.bool_)
    placed = [
        _placed(spelt(cell) if there else "") for there, cell in zip(present, column, strict=True)
    ]
    joined = b"".join(data for data, _, _ in placed)
    return Texts(
        np.frombuffer(joined, dtype=np.uint8).reshape(len(placed), LONGEST),
        np.array([length for _, length, _ in placed], dtype=np.int64),
        np.array([number for _, _, number in placed], dtype=np.int64),
    )
