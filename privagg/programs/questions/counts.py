"""How many records there are, and how many lack a value."""

from __future__ import annotations

from itertools import product
from math import prod, sqrt
from typing import Literal

import numpy as np
from pydantic import Field

from privagg.programs.answers import Figure, count_figure
from privagg.programs.questions.columns import Columns, FloatArray, categories_of
from privagg.programs.questions.question import OTHER, OneSum, one_hot
from privagg.training.table import TableSchema


class Count(OneSum):
    """How many records there are, overall or in each cell of a cross-table of categories.

    Args:
        by: columns with declared categories, at most three; each has a cell for what is none.
    """

    kind: Literal["count"] = "count"
    by: tuple[str, ...] = Field(default=(), max_length=3)

    @property
    def ones(self) -> int:
        """See `Question.ones`."""
        return 1

    @property
    def about(self) -> str:
        """See `Question.about`."""
        return f"how many records by {', '.join(self.by)}" if self.by else "how many records"

    def _labels(self, schema: TableSchema) -> list[tuple[str, ...]]:
        return [(*categories_of(schema, name), OTHER) for name in self.by]

    def cells(self, schema: TableSchema) -> int:
        """See `OneSum.cells`: cells."""
        return prod(len(labels) for labels in self._labels(schema))

    def values(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `OneSum.values`: 1 in one cell."""
        cell = np.zeros(len(records), dtype=np.int64)
        for name, labels in zip(self.by, self._labels(schema), strict=True):
            cell = cell * len(labels) + records.codes(name)
        return one_hot(cell, self.cells(schema))

    def read(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `OneSum.read`: a count below 0 is told as 0, and kept as it was opened."""
        cells = product(*self._labels(schema))
        return tuple(
            count_figure(float(raw), dict(zip(self.by, cell, strict=True)), stddev, level)
            for raw, cell in zip(sums, cells, strict=True)
        )


class Missing(OneSum):
    """How many records lack each of some columns, or hold what is none of its categories.

    Args:
        of: declared columns.
    """

    kind: Literal["missing"] = "missing"
    of: tuple[str, ...] = Field(min_length=1, max_length=200)

    @property
    def about(self) -> str:
        """See `Question.about`."""
        return f"how many records lack a value of {', '.join(self.of)}"

    @property
    def ones(self) -> int:
        """See `Question.ones`."""
        return len(self.of)

    def cells(self, schema: TableSchema) -> int:
        """See `OneSum.cells`: a count a column."""
        numeric = {f.name for f in schema.features if hasattr(f, "range")}
        for name in self.of:
            if name not in numeric:
                categories_of(schema, name)
        return len(self.of)

    def values(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `OneSum.values`: 1/√k for each of the k columns that is missing."""
        numeric = {f.name for f in schema.features if hasattr(f, "range")}
        absent = [
            np.isnan(records.numbers(name)) if name in numeric
            else records.codes(name) == len(categories_of(schema, name))
            for name in self.of
        ]  # fmt: skip
        return np.stack(absent, axis=1) * (1.0 / sqrt(len(self.of)))

    def read(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `OneSum.read`."""
        scale = sqrt(len(self.of))
        return tuple(
            count_figure(float(raw) * scale, {"missing": name}, stddev * scale, level)
            for raw, name in zip(sums, self.of, strict=True)
        )
