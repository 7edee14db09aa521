"""Count, sum, mean and variance of a column of numbers."""

from __future__ import annotations

from math import hypot, inf, sqrt
from typing import Literal, NamedTuple

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
        """See `OneSum.values`: (1, u, u²)/√3 in its group's place, u in [-1, 1] in the range."""
        low, high = range_of(schema, self.of)
        values = records.numbers(self.of)
        known = ~np.isnan(values)
        u = np.where(known, 2.0 * ((values - low) / (high - low)) - 1.0, 0.0)
        group = np.zeros(len(records), np.int64) if self.by is None else records.codes(self.by)
        here = one_hot(group, len(self._groups(schema))) * known[:, None] * (1.0 / sqrt(3.0))
        stacked = np.stack([here, here * u[:, None], here * (u * u)[:, None]], axis=2)
        return stacked.reshape(len(records), self.cells(schema))

    def read(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `OneSum.read`: intervals by the delta method, exact to first order."""
        low, high = range_of(schema, self.of)
        noise, found = stddev * sqrt(3.0), list[Figure]()
        for label, (count, first, second) in zip(
            self._groups(schema), (sums * sqrt(3.0)).reshape(-1, 3).tolist(), strict=True
        ):
            group = {} if self.by is None else {self.by: label}
            found.append(count_figure(count, group, noise, level))
            found += _moments(_Moments(count, first, second, noise), group, (low, high), level)
        return tuple(found)


class _Moments(NamedTuple):
    """Opened sums of 1, u and u², with the noise of each."""

    zeroth: float
    first: float
    second: float
    noise: float


def _moments(
    sums: _Moments, group: dict[str, str], limits: tuple[float, float], level: float
) -> list[Figure]:
    """Sum, mean and variance in the column's unit; nothing where the count is mostly noise."""
    low, high = limits
    n, noise = sums.zeroth, sums.noise
    if n < LEAST_DEVIATIONS * noise or n <= 0:
        unknown, asked = Interval(-inf, inf), ("sum", "mean", "variance")
        return [Figure(what, group, None, n, unknown, unknown) for what in asked]
    half = (high - low) / 2
    u, square = sums.first / n, sums.second / n
    variance = square - u * u
    of_mean = noise * sqrt(1 + u * u) / n
    of_variance = noise * sqrt(1 + 4 * u * u + (2 * u * u - square) ** 2) / n
    spread = possible_variance(variance, of_variance, level, 1.0)
    mean, centre = (u + 1) * half + low, variance * half**2
    total, of_total = half * (sums.first + n) + low * n, noise * hypot(low + half, half)
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
