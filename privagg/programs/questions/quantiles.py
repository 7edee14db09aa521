"""Quantiles of a column of numbers, from one histogram."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from privagg.programs.answers import LEAST_DEVIATIONS, Figure, Interval, deviations
from privagg.programs.questions.columns import Columns, FloatArray, range_of
from privagg.programs.questions.question import OneSum, one_hot
from privagg.training.table import TableSchema


class Quantiles(OneSum):
    """Quantiles of a column of numbers, from a histogram over its declared range.

    Args:
        of: a column with a declared range.
        at: which, each in (0, 1), ascending, at most 200.
        bins: of the histogram, all of one width.
    """

    one_cell: ClassVar[bool] = True
    kind: Literal["quantiles"] = "quantiles"
    of: str
    at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((0.25, 0.5, 0.75), max_length=200)
    bins: int = Field(default=64, ge=2, le=4096)

    @property
    def about(self) -> str:
        """See `Question.about`."""
        return f"quantiles of {self.of}"

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.at or list(self.at) != sorted(set(self.at)):
            raise ValueError(f"`at` lists quantiles in ascending order, got {list(self.at)}")
        return self

    def cells(self, schema: TableSchema) -> int:
        """See `OneSum.cells`: bins."""
        range_of(schema, self.of)
        return self.bins

    def values(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `OneSum.values`: 1 in the value's bin; nothing where it is missing."""
        low, high = range_of(schema, self.of)
        values = records.numbers(self.of)
        known = ~np.isnan(values)
        place = np.where(known, (values - low) / (high - low), 0.0) * self.bins
        cell = np.minimum(place.astype(np.int64), self.bins - 1)
        return one_hot(cell, self.bins) * known[:, None]

    def read(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `OneSum.read`."""
        low, high = range_of(schema, self.of)
        return quantile_figures(np.linspace(low, high, self.bins + 1), sums, stddev, self.at, level)


def quantile_figures(
    edges: FloatArray, sums: FloatArray, stddev: float, at: Sequence[float], level: float
) -> tuple[Figure, ...]:
    """Where the noised distribution of a histogram, made monotone, crosses each level.

    An interval's ends are where the band of the cumulative counts crosses it; at a bin edge the
    cumulative count of the first k bins has k times a bin's noise variance.

    Args:
        edges: float64 (bins + 1,), ascending.
        sums: float64 (bins,), counts with noise.
        stddev: of the noise of each of them.
        at: which quantiles, each in (0, 1), ascending.
        level: of both intervals, in (0, 1).
    """
    bins, low, high = len(sums), float(edges[0]), float(edges[-1])
    count = float(sums.sum())
    counted = sqrt(bins) * stddev
    if count < LEAST_DEVIATIONS * counted or count <= 0:
        whole = Interval(low, high)
        return tuple(Figure(f"quantile {q:g}", {}, None, q, whole, whole) for q in at)
    below = np.concatenate([[0.0], np.cumsum(sums)]) / count
    z, steps = deviations(level), np.arange(bins + 1)
    # Of F(k) = A / (A + B), A the first k bins and B the rest, both with independent noise.
    share = np.clip(below, 0.0, 1.0)
    noise = stddev * np.sqrt((1 - share) ** 2 * steps + share**2 * (bins - steps)) / count
    sampling = np.sqrt(share * (1 - share) / count)
    found = []
    for q in at:
        value = _crossing(edges, np.maximum.accumulate(share), q)
        found.append(
            Figure(
                f"quantile {q:g}", {}, value, value,
                band(edges, below, z * noise, q, high),
                band(edges, below, z * np.sqrt(noise**2 + sampling**2), q, high),
            )
        )  # fmt: skip
    return tuple(found)


def _crossing(edges: FloatArray, below: FloatArray, level: float) -> float:
    """Where an ascending function, linear between the edges, reaches `level`."""
    return float(np.interp(level, below, edges))


def band(
    edges: FloatArray, below: FloatArray, reach: FloatArray, level: float, most: float
) -> Interval:
    """Where a band around a function surely was below `level`, and surely is above it.

    Args:
        edges: float64 (k,), where the function is known, ascending.
        below: float64 (k,), its values.
        reach: float64 (k,), of the band, to both sides.
        level: that is crossed.
        most: the interval's end where the function may stay below.
    """
    under = np.flatnonzero(below + reach < level)
    above = np.flatnonzero(below - reach > level)
    low = edges[0] if not len(under) else edges[under[-1]]
    high = most if not len(above) else edges[above[0]]
    return Interval(float(min(low, high)), float(max(low, high)))
