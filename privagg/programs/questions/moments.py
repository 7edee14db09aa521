"""Count, sum, mean and variance of a column of numbers."""

from __future__ import annotations

from math import inf, sqrt
from typing import Literal

import numpy as np

from privagg.programs.answers import (
    LEAST_DEVIATIONS,
    Figure,
    Interval,
    around,
    count_figure,
    possible_variance,
)
from privagg.programs.questions.columns import Columns, FloatArray, categories_of, range_of
from privagg.programs.questions.question import OTHER, OneSum, one_hot
from privagg.training.table import TableSchema


class Mean(OneSum):
    """Count, sum, mean and variance of a column of numbers, overall or by category.

    Values are clamped to the declared range; records whose cell is missing are not counted.

    Args:
        of: a column with a declared range.
        by: a column with declared categories.
    """

    kind: Literal["mean"] = "mean"
    of: str
    by: str | None = None

    @property
    def about(self) -> str:
        """See `Question.about`."""
        if self.by is None:
            return f"count, sum, mean and variance of {self.of}"
        return f"count, sum, mean and variance of {self.of} by {self.by}"

    def _groups(self, schema: TableSchema) -> tuple[str, ...]:
        return ("",) if self.by is None else (*categories_of(schema, self.by), OTHER)

    def cells(self, schema: TableSchema) -> int:
        """See `OneSum.cells`: three numbers a group."""
        range_of(schema, self.of)
        return 3 * len(self._groups(schema))

    def values(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `OneSum.values`: ((1-p)², 2p(1-p), p²) in its group, p from 0 to 1 in the range.

        These add to 1, so their norm is 1 at most, and give 1, p and p² with less noise than a row
        of (1, u, u²)/√3, u in [-1, 1], does: the mean of values at one end with 0.91 of it, in the
        middle with 0.82.
        """
        low, high = range_of(schema, self.of)
        values = records.numbers(self.of)
        known = ~np.isnan(values)
        p = np.where(known, (values - low) / (high - low), 0.0)
        group = np.zeros(len(records), np.int64) if self.by is None else records.codes(self.by)
        here = one_hot(group, len(self._groups(schema))) * known[:, None]
        parts = np.stack([(1.0 - p) * (1.0 - p), 2.0 * p * (1.0 - p), p * p], axis=1)
        stacked = here[:, :, None] * parts[:, None, :]
        return np.asarray(stacked.reshape(len(records), self.cells(schema)))

    def read(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `OneSum.read`: intervals by the delta method, exact to first order."""
        low, high = range_of(schema, self.of)
        found = list[Figure]()
        for label, parts in zip(self._groups(schema), sums.reshape(-1, 3), strict=True):
            group = {} if self.by is None else {self.by: label}
            found.append(count_figure(float(parts.sum()), group, stddev * sqrt(3.0), level))
            found += _moments(parts, stddev, group, (low, high), level)
        return tuple(found)


_FIRST, _SECOND = np.array([-1.0, 0.0, 1.0]), np.array([1.0, -1.0, 1.0])
"""What the sums of u = 2p - 1 and u² are made of, from those of (1-p)², 2p(1-p) and p²."""


def _moments(
    parts: FloatArray,
    stddev: float,
    group: dict[str, str],
    limits: tuple[float, float],
    level: float,
) -> list[Figure]:
    """Sum, mean and variance in the column's unit; nothing where the count is mostly noise."""
    low, high = limits
    n = float(parts.sum())
    if n < LEAST_DEVIATIONS * stddev * sqrt(3.0) or n <= 0:
        unknown, asked = Interval(-inf, inf), ("sum", "mean", "variance")
        return [Figure(what, group, None, n, unknown, unknown) for what in asked]
    half, middle = (high - low) / 2, (high + low) / 2
    u, square = float(_FIRST @ parts) / n, float(_SECOND @ parts) / n
    variance = square - u * u
    moves_mean = _FIRST - u
    of_mean = stddev * float(np.linalg.norm(moves_mean)) / n
    of_variance = stddev * float(np.linalg.norm(_SECOND - square - 2 * u * moves_mean)) / n
    spread = possible_variance(variance, of_variance, level, 1.0)
    mean, centre = u * half + middle, variance * half**2
    total, of_total = mean * n, stddev * sqrt(low**2 + middle**2 + high**2)
    return [
        Figure(  # of a Poisson number of records
            "sum", group, total, total, around(total, of_total, level),
            around(total, sqrt(of_total**2 + n * (mean**2 + spread * half**2)), level),
        ),
        Figure(
            "mean", group, min(max(mean, low), high), mean,
            around(mean, of_mean * half, level, limits),
            around(mean, half * sqrt(of_mean**2 + spread / n), level, limits),
        ),
        Figure(  # the sampling part is a normal column's, 2 v² / n
            "variance", group, max(centre, 0.0), centre,
            around(centre, of_variance * half**2, level, (0.0, half**2)),
            around(
                centre, half**2 * sqrt(of_variance**2 + 2 * spread**2 / n), level, (0.0, half**2)
            ),
        ),
    ]  # fmt: skip
