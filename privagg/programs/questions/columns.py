"""A site's table as questions read it: declared columns, each cell by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from privagg.encoding.vectors import rows_bytes
from privagg.errors import ConfigError
from privagg.training.features import (
    CategoricalFeature,
    NumericFeature,
    equal_categories,
    numeric_values,
)
from privagg.training.table import TableSchema

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


LARGEST_END = 1e100
"""Of a range that is asked about: a variance, times a count, stays far below what floats hold."""


class Columns:
    """Some records of a table, by declared column; slices of it are records of the same table.

    A cell is read from that cell and the public declaration alone: a number is clamped to its
    declared range, a category is one of those declared or none.

    Args:
        numbers: column -> float64 (r,) in the column's own unit, within its range; NaN: missing.
        codes: column -> int64 (r,), place among its categories; their number where it is none.
        count: r.
    """

    def __init__(
        self, numbers: Mapping[str, FloatArray], codes: Mapping[str, Codes], count: int
    ) -> None:
        self._numbers, self._codes, self._count = dict(numbers), dict(codes), count

    @classmethod
    def read(cls, frame: pd.DataFrame, schema: TableSchema, *, target: bool = True) -> Self:
        """The declared columns of a table; every line is a record, also one without a target.

        Args:
            frame: the table.
            schema: its public declaration.
            target: False where the target's columns are not read, and need not be there.

        Raises:
            DataError: a declared column is missing.
        """
        if target:
            schema.require_columns(frame)
        numbers: dict[str, FloatArray] = {}
        codes: dict[str, Codes] = {}
        for feature in schema.features:
            column = frame[feature.name]
            if isinstance(feature, NumericFeature):
                numbers[feature.name] = np.clip(feature.read(column), *feature.range)
            else:
                codes[feature.name] = _codes(column, feature)
        if not target:
            return cls(numbers, codes, len(frame))
        kind = schema.target
        encoded = kind.read(frame).reshape(len(frame), len(kind.columns))
        for place, name in enumerate(kind.columns):
            if ends := kind.range_of(name):
                numbers[name] = np.clip(numeric_values(frame[name]), *ends)
            elif labels := kind.categories(name):
                known = encoded[:, place] >= 0
                codes[name] = np.where(known, encoded[:, place], len(labels)).astype(np.int64)
        return cls(numbers, codes, len(frame))

    def __len__(self) -> int:
        """Number of records; private."""
        return self._count

    def __getitem__(self, some: slice | list[int]) -> Self:
        """Some of the records, in this order."""
        numbers = {name: values[some] for name, values in self._numbers.items()}
        codes = {name: values[some] for name, values in self._codes.items()}
        return type(self)(numbers, codes, self._count_of(some))

    def record_bytes(self) -> list[bytes]:
        """Each record's own bytes, from its declared columns in the order of their names.

        Records that read alike have the same, wherever they stand and however they are written.
        """
        columns = {**self._numbers, **self._codes}
        if not columns:
            return [b""] * self._count
        return rows_bytes(np.stack([columns[name] for name in sorted(columns)], axis=1))

    def _count_of(self, some: slice | list[int]) -> int:
        return len(range(*some.indices(self._count)) if isinstance(some, slice) else some)

    def numbers(self, name: str) -> FloatArray:
        """A column of numbers, float64 (r,)."""
        return self._numbers[name]

    def codes(self, name: str) -> Codes:
        """A column of categories, int64 (r,)."""
        return self._codes[name]


def _codes(column: pd.Series, feature: CategoricalFeature) -> Codes:
    found = np.full(len(column), len(feature.categories), dtype=np.int64)
    for code, equal in enumerate(equal_categories(column, feature.categories)):
        found[equal] = code
    return found


def categories_of(schema: TableSchema, name: str) -> tuple[str, ...]:
    """The declared categories of a column, as texts; the target's classes likewise.

    Raises:
        ConfigError: no column of this name has declared categories.
    """
    if name in schema.target.columns and (labels := schema.target.categories(name)):
        return labels
    for feature in schema.features:
        if feature.name == name and isinstance(feature, CategoricalFeature):
            return tuple(map(str, feature.categories))
    raise ConfigError(
        f"a question is by or of {name!r}, which has no declared categories; declare them under "
        f"[[data.features]] with categories = [...], or ask of one of "
        f"{', '.join(_named(schema, CategoricalFeature)) or 'none'}. Nothing was spent"
    )


def range_of(schema: TableSchema, name: str) -> tuple[float, float]:
    """The declared range of a column of numbers.

    Raises:
        ConfigError: no column of this name has one, or one whose square floats cannot hold.
    """
    ranges = {f.name: f.range for f in schema.features if isinstance(f, NumericFeature)}
    ends = ranges.get(name) or (name in schema.target.columns and schema.target.range_of(name))
    if ends:
        if max(map(abs, ends)) > LARGEST_END:
            raise ConfigError(
                f"the range {list(ends)} of {name!r} is too wide for its answers to be computed; "
                f"declare ends within ±{LARGEST_END:g}. Nothing was spent"
            )
        return ends
    raise ConfigError(
        f"a question is of {name!r}, which has no declared range; declare it under "
        f"[[data.features]] with range = [low, high], or ask of one of "
        f"{', '.join(_named(schema, NumericFeature)) or 'none'}. Nothing was spent"
    )


def _named(schema: TableSchema, kind: type[NumericFeature] | type[CategoricalFeature]) -> list[str]:
    return [feature.name for feature in schema.features if isinstance(feature, kind)]
