"""What can be asked, what a record adds for it, and what follows from the opened sums.

A question turns a record into a row of floats of L2 norm at most 1 and reads its answer from the
sum of the rows, which carries Gaussian noise of a known standard deviation. So every figure has two
intervals: *for these records* (the noise alone, whose variance is exact) and *for the population*
that the records are a sample of (noise and sampling). Rows are made by operations on each record's
own numbers that IEEE arithmetic rounds alike wherever a record stands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from math import hypot, inf, prod, sqrt
from statistics import NormalDist
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from privagg.programs.questions.columns import Columns, FloatArray, categories_of, range_of
from privagg.training.table import TableSchema

OTHER = "other or missing"
LEAST_DEVIATIONS = 3.0
"""A mean or quantile is given only of groups whose count is this many noise deviations above 0."""


class Interval(NamedTuple):
    """Lowest and highest value at the stated level."""

    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """One number of an answer.

    Attributes:
        what: `count`, `sum`, `mean`, `variance` or `quantile 0.5`.
        group: column -> category that it is of; empty where it is of all records.
        value: after post-processing; None where the noise leaves nothing to say.
        raw: as it was opened; for a count the noised count itself.
        records: for these records: the noise alone.
        population: for the population: noise and sampling.
    """

    what: str
    group: dict[str, str]
    value: float | None
    raw: float
    records: Interval
    population: Interval


class Question(BaseModel, ABC):
    """One question; what it needs of the records is declared and public.

    Args:
        name: how the answer is called.
        share: of the opening's budget, relative to the other questions' shares.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    share: Decimal = Field(default=Decimal(1), gt=0, le=1000)

    @abstractmethod
    def width(self, schema: TableSchema) -> int:
        """Floats in a row.

        Raises:
            ConfigError: a column is not declared as the question needs it.
        """

    @abstractmethod
    def rows(self, schema: TableSchema, records: Columns) -> FloatArray:
        """What each record adds, float64 (r, width), of L2 norm at most 1 but for rounding."""

    @abstractmethod
    def answer(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """The figures that follow from the opened sums.

        Args:
            schema: the public declaration.
            sums: float64 (width,), the rows' sum with noise.
            stddev: of the noise of each of them.
            level: of both intervals, in (0, 1).
        """


class Count(Question):
    """How many records there are, overall or in each cell of a cross-table of categories.

    Args:
        by: columns with declared categories, at most three; each has a cell for what is none.
    """

    kind: Literal["count"] = "count"
    by: tuple[str, ...] = Field(default=(), max_length=3)

    def _labels(self, schema: TableSchema) -> list[tuple[str, ...]]:
        return [(*categories_of(schema, name), OTHER) for name in self.by]

    def width(self, schema: TableSchema) -> int:
        """See `Question.width`: cells."""
        return prod(len(labels) for labels in self._labels(schema))

    def rows(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `Question.rows`: 1 in one cell."""
        cell = np.zeros(len(records), dtype=np.int64)
        for name, labels in zip(self.by, self._labels(schema), strict=True):
            cell = cell * len(labels) + records.codes(name)
        return _one_hot(cell, self.width(schema))

    def answer(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`: a count below 0 is told as 0, and kept as it was opened."""
        cells = product(*self._labels(schema))
        return tuple(
            _count(float(raw), dict(zip(self.by, cell, strict=True)), stddev, level)
            for raw, cell in zip(sums, cells, strict=True)
        )


class Mean(Question):
    """Count, sum, mean and variance of a column of numbers, overall or by category.

    Values are clamped to the declared range; records whose cell is missing are not counted.

    Args:
        of: a column with a declared range.
        by: a column with declared categories.
    """

    kind: Literal["mean"] = "mean"
    of: str
    by: str | None = None

    def _groups(self, schema: TableSchema) -> tuple[str, ...]:
        return ("",) if self.by is None else (*categories_of(schema, self.by), OTHER)

    def width(self, schema: TableSchema) -> int:
        """See `Question.width`: three numbers a group."""
        range_of(schema, self.of)
        return 3 * len(self._groups(schema))

    def rows(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `Question.rows`: (1, u, u²)/√3 in its group's place, u in [-1, 1] in the range."""
        low, high = range_of(schema, self.of)
        values = records.numbers(self.of)
        known = ~np.isnan(values)
        u = np.where(known, 2.0 * ((values - low) / (high - low)) - 1.0, 0.0)
        group = np.zeros(len(records), np.int64) if self.by is None else records.codes(self.by)
        here = _one_hot(group, len(self._groups(schema))) * known[:, None] * (1.0 / sqrt(3.0))
        stacked = np.stack([here, here * u[:, None], here * (u * u)[:, None]], axis=2)
        return stacked.reshape(len(records), self.width(schema))

    def answer(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`: intervals by the delta method, exact to first order."""
        low, high = range_of(schema, self.of)
        noise, found = stddev * sqrt(3.0), list[Figure]()
        for label, (count, first, second) in zip(
            self._groups(schema), (sums * sqrt(3.0)).reshape(-1, 3).tolist(), strict=True
        ):
            group = {} if self.by is None else {self.by: label}
            found.append(_count(count, group, noise, level))
            found += _moments(_Moments(count, first, second, noise), group, (low, high), level)
        return tuple(found)


class Quantiles(Question):
    """Quantiles of a column of numbers, from a histogram over its declared range.

    Args:
        of: a column with a declared range.
        at: which, each in (0, 1), ascending.
        bins: of the histogram, all of one width.
    """

    kind: Literal["quantiles"] = "quantiles"
    of: str
    at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.25, 0.5, 0.75)
    bins: int = Field(default=64, ge=2, le=4096)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.at or list(self.at) != sorted(set(self.at)):
            raise ValueError(f"`at` lists quantiles in ascending order, got {list(self.at)}")
        return self

    def width(self, schema: TableSchema) -> int:
        """See `Question.width`: bins."""
        range_of(schema, self.of)
        return self.bins

    def rows(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `Question.rows`: 1 in the value's bin; nothing where it is missing."""
        low, high = range_of(schema, self.of)
        values = records.numbers(self.of)
        known = ~np.isnan(values)
        place = np.where(known, (values - low) / (high - low), 0.0) * self.bins
        cell = np.minimum(place.astype(np.int64), self.bins - 1)
        return _one_hot(cell, self.bins) * known[:, None]

    def answer(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`: where the noised distribution, made monotone, crosses each level.

        An interval's ends are where the band of the cumulative counts crosses it; at a bin edge the
        cumulative count of the first k bins has k times a bin's noise variance.
        """
        low, high = range_of(schema, self.of)
        edges = np.linspace(low, high, self.bins + 1)
        count = float(sums.sum())
        counted = sqrt(self.bins) * stddev
        if count < LEAST_DEVIATIONS * counted:
            whole = Interval(low, high)
            return tuple(Figure(f"quantile {q:g}", {}, None, q, whole, whole) for q in self.at)
        below = np.concatenate([[0.0], np.cumsum(sums)]) / count
        z, steps = _deviations(level), np.arange(self.bins + 1)
        # Of F(k) = A / (A + B), A the first k bins and B the rest, both with independent noise.
        share = np.clip(below, 0.0, 1.0)
        noise = stddev * np.sqrt((1 - share) ** 2 * steps + share**2 * (self.bins - steps)) / count
        sampling = np.sqrt(share * (1 - share) / count)
        found = []
        for q in self.at:
            value = _crossing(edges, np.maximum.accumulate(share), q)
            found.append(
                Figure(
                    f"quantile {q:g}", {}, value, value,
                    _band(edges, below, z * noise, q),
                    _band(edges, below, z * np.sqrt(noise**2 + sampling**2), q),
                )
            )  # fmt: skip
        return tuple(found)


class Missing(Question):
    """How many records lack each of some columns, or hold what is none of its categories.

    Args:
        of: declared columns.
    """

    kind: Literal["missing"] = "missing"
    of: tuple[str, ...] = Field(min_length=1, max_length=200)

    def width(self, schema: TableSchema) -> int:
        """See `Question.width`: a count a column."""
        numeric = {f.name for f in schema.features if hasattr(f, "range")}
        for name in self.of:
            if name not in numeric:
                categories_of(schema, name)
        return len(self.of)

    def rows(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `Question.rows`: 1/√k for each of the k columns that is missing."""
        numeric = {f.name for f in schema.features if hasattr(f, "range")}
        absent = [
            np.isnan(records.numbers(name)) if name in numeric
            else records.codes(name) == len(categories_of(schema, name))
            for name in self.of
        ]  # fmt: skip
        return np.stack(absent, axis=1) * (1.0 / sqrt(len(self.of)))

    def answer(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`."""
        scale = sqrt(len(self.of))
        return tuple(
            _count(float(raw) * scale, {"missing": name}, stddev * scale, level)
            for raw, name in zip(sums, self.of, strict=True)
        )


AnyQuestion = Annotated[Count | Mean | Quantiles | Missing, Field(discriminator="kind")]


def _one_hot(cell: np.ndarray[tuple[int], np.dtype[np.int64]], width: int) -> FloatArray:
    return np.asarray(cell[:, None] == np.arange(width), dtype=np.float64)


def _deviations(level: float) -> float:
    """z such that a normal variable is within z deviations with probability `level`."""
    return NormalDist().inv_cdf((1 + level) / 2)


def _around(
    value: float, deviation: float, level: float, limits: tuple[float, float] = (-inf, inf)
) -> Interval:
    """The interval, as far as it lies where the figure can be: that loses no coverage."""
    reach, (least, most) = _deviations(level) * deviation, limits
    return Interval(*(min(max(end, least), most) for end in (value - reach, value + reach)))


def _count(raw: float, group: dict[str, str], noise: float, level: float) -> Figure:
    """A count; the population's is that of a Poisson count of the same mean."""
    value, sampling = max(raw, 0.0), sqrt(max(raw, 0.0) + noise**2)
    return Figure(
        "count",
        group,
        value,
        raw,
        _around(raw, noise, level, (0.0, inf)),
        _around(raw, sampling, level, (0.0, inf)),
    )


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
    spread = max(variance, 0.0)
    of_mean = noise * sqrt(1 + u * u) / n
    of_variance = noise * sqrt(1 + 4 * u * u + (2 * u * u - square) ** 2) / n
    mean, centre = (u + 1) * half + low, variance * half**2
    total, of_total = half * (sums.first + n) + low * n, noise * hypot(low + half, half)
    return [
        Figure(  # of a Poisson number of records
            "sum", group, total, total, _around(total, of_total, level),
            _around(total, sqrt(of_total**2 + n * (mean**2 + spread * half**2)), level),
        ),
        Figure(
            "mean", group, min(max(mean, low), high), mean,
            _around(mean, of_mean * half, level, limits),
            _around(mean, half * sqrt(of_mean**2 + spread / n), level, limits),
        ),
        Figure(  # the sampling part is a normal column's, 2 v² / n
            "variance", group, spread * half**2, centre,
            _around(centre, of_variance * half**2, level, (0.0, half**2)),
            _around(
                centre, half**2 * sqrt(of_variance**2 + 2 * spread**2 / n), level, (0.0, half**2)
            ),
        ),
    ]  # fmt: skip


def _crossing(edges: FloatArray, below: FloatArray, level: float) -> float:
    """Where an ascending function, linear between the edges, reaches `level`."""
    return float(np.interp(level, below, edges))


def _band(edges: FloatArray, below: FloatArray, reach: FloatArray, level: float) -> Interval:
    """Where a band around a function surely was below `level`, and surely is above it."""
    under = np.flatnonzero(below + reach < level)
    above = np.flatnonzero(below - reach > level)
    low = edges[0] if not len(under) else edges[under[-1]]
    high = edges[-1] if not len(above) else edges[above[0]]
    return Interval(float(min(low, high)), float(max(low, high)))
