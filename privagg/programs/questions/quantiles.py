"""Quantiles of a column of numbers, from one histogram."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import sqrt
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from privagg.programs.answers import LEAST_DEVIATIONS, Figure, Interval, deviations
from privagg.programs.questions.columns import Columns, FloatArray, range_of
from privagg.programs.questions.question import OneSum, one_hot
from privagg.training.table import TableSchema

USUAL_BINS = 64
"""Where neither the question nor whoever asks it says how many."""

FEWEST_BINS, MOST_CHOSEN = 4, 256


class Quantiles(OneSum):
    """Quantiles of a column of numbers, from a histogram over its declared range.

    Args:
        of: a column with a declared range.
        at: which, each in (0, 1), ascending, at most 200.
        bins: of the histogram, all of one width; chosen for the records and epsilon where it is
            left out (`fitting_bins`).
    """

    kind: Literal["quantiles"] = "quantiles"
    of: str
    at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((0.25, 0.5, 0.75), max_length=200)
    bins: int | None = Field(default=None, ge=2, le=4096)

    @property
    def ones(self) -> int:
        """See `Question.ones`."""
        return 1

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
        return self.bins or USUAL_BINS

    def fitted(self, records: int, epsilon: Fraction) -> Self:
        """See `Question.fitted`: with its bins chosen."""
        if self.bins is not None:
            return self
        return self.model_copy(update={"bins": fitting_bins(records, epsilon)})

    def values(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `OneSum.values`: 1 in the value's bin; nothing where it is missing."""
        low, high = range_of(schema, self.of)
        values, bins = records.numbers(self.of), self.cells(schema)
        known = ~np.isnan(values)
        place = np.where(known, (values - low) / (high - low), 0.0) * bins
        cell = np.minimum(place.astype(np.int64), bins - 1)
        return one_hot(cell, bins) * known[:, None]

    def read(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `OneSum.read`."""
        low, high = range_of(schema, self.of)
        return quantile_figures(np.linspace(low, high, len(sums) + 1), sums, stddev, self.at, level)


def fitting_bins(records: int, epsilon: Fraction) -> int:
    """How many bins blur a quantile by their noise about as much as by their width.

    Half the difference of the counts on both sides of a median has, over k bins of Laplace noise,
    deviation √k/(√2·ε). Where values are evenly spread a bin has n/k of them, and where one lies in
    it has deviation 1/√12 of its width: k³ = (nε)²/6 makes them equal. Exact, so that everybody
    finds the same.

    Args:
        records: n, as declared, of all sites.
        epsilon: of this question alone.

    Returns:
        From 4 to 256.
    """
    most = Fraction(records) ** 2 * epsilon**2 / 6
    return max(k for k in range(FEWEST_BINS, MOST_CHOSEN + 1) if k == FEWEST_BINS or k**3 <= most)


def quantile_figures(
    edges: FloatArray, sums: FloatArray, stddev: float, at: Sequence[float], level: float
) -> tuple[Figure, ...]:
    """Where the noised distribution of a histogram, made monotone, crosses each level.

    Monotone is the middle between the least ascending function above it and the greatest below it,
    which noise moves to neither side. An interval has all bins that the level may be crossed in by
    the band of the cumulative counts; at a bin edge the cumulative count of the first k bins has k
    times a bin's noise variance.

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
    rising = np.maximum.accumulate(share) + np.minimum.accumulate(share[::-1])[::-1]
    found = []
    for q in at:
        value = float(np.interp(q, rising / 2, edges))
        found.append(
            Figure(
                f"quantile {q:g}", {}, value, value,
                band(edges, below, z * noise, q, high),
                band(edges, below, z * np.sqrt(noise**2 + sampling**2), q, high),
            )
        )  # fmt: skip
    return tuple(found)


def band(
    edges: FloatArray, below: FloatArray, reach: FloatArray, level: float, most: float
) -> Interval:
    """Between which edges an ascending function may reach `level`, by a band around it.

    It reaches it between two edges next to each other, so it does outside only if the band misses
    it at one of these two, whatever the band does elsewhere.

    Args:
        edges: float64 (k,), where the function is known, ascending.
        below: float64 (k,), its values.
        reach: float64 (k,), of the band, to both sides.
        level: that is crossed.
        most: the interval's end where the function may stay below.
    """
    reached = np.flatnonzero(below + reach >= level)
    short = np.flatnonzero(below - reach <= level)
    first = max(int(reached[0]) - 1, 0) if len(reached) else len(edges) - 1
    last = int(short[-1]) + 1 if len(short) else 0
    low, high = float(edges[first]), float(edges[last]) if last < len(edges) else most
    return Interval(min(low, high), max(low, high))
