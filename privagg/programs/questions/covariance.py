"""Covariances and correlations of columns of numbers."""

from __future__ import annotations

from itertools import combinations_with_replacement
from math import inf, sqrt
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from privagg.programs.answers import (
    LEAST_DEVIATIONS,
    Figure,
    Interval,
    around,
    count_figure,
    possible_variance,
)
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.questions.design import INTERCEPT, Design, Term, number_term
from privagg.programs.questions.question import OneSum
from privagg.training.table import TableSchema


class Covariance(OneSum):
    """Covariance and correlation matrix of columns of numbers.

    Values are clamped to their declared ranges; only records that lack none of the columns count.
    A record adds the upper triangle of x xᵀ, x = (1, u_1, ..., u_k), each u in [-1, 1], over the
    norm that this has where every u is at an end: no record is clipped. The population's intervals
    take the columns to be jointly normal there, since their fourth moments are not opened: they
    are too narrow for columns with heavy tails.

    Args:
        of: columns with a declared range.
    """

    kind: Literal["covariance"] = "covariance"
    of: tuple[str, ...] = Field(min_length=2, max_length=50)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.of)) < len(self.of):
            raise ValueError(f"`of` lists a column twice: {', '.join(self.of)}")
        return self

    @property
    def about(self) -> str:
        """See `Question.about`."""
        return (
            f"covariances and correlations of {', '.join(self.of)}; for the population as if the "
            "columns were jointly normal"
        )

    def _design(self, schema: TableSchema) -> Design:
        return Design((Term(INTERCEPT), *(number_term(schema, name) for name in self.of)))

    def cells(self, schema: TableSchema) -> int:
        """See `OneSum.cells`: (k + 1)(k + 2) / 2 products of k columns."""
        return len(self._design(schema).products.first)

    def values(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `OneSum.values`: the products, over the largest norm that they can have."""
        design = self._design(schema)
        return design.multiply(design.matrix(records)[0]) * (1.0 / design.largest)

    def read(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `OneSum.read`: the values are of the nearest matrix without negative variances."""
        design = self._design(schema)
        moments, noise = design.symmetric(sums * design.largest), stddev * design.largest
        count = float(moments[0, 0])
        found = [count_figure(count, {}, noise, level)]
        if count < LEAST_DEVIATIONS * noise or count <= 0:
            return (*found, *_unknown(self.of))
        means = moments[0, 1:] / count
        raw = moments[1:, 1:] / count - np.outer(means, means)
        values, vectors = np.linalg.eigh(raw)
        value = raw if values[0] >= 0 else (vectors * np.maximum(values, 0.0)) @ vectors.T
        spread = _Spread(design, moments, raw, noise, level)
        for i, j in combinations_with_replacement(range(len(self.of)), 2):
            found += spread.figures(i, j, value)
        return tuple(found)


def _group(of: tuple[str, ...], i: int, j: int) -> dict[str, str]:
    return {"of": of[i]} if i == j else {"of": of[i], "with": of[j]}


def _unknown(of: tuple[str, ...]) -> list[Figure]:
    nothing, found = Interval(-inf, inf), []
    for i, j in combinations_with_replacement(range(len(of)), 2):
        for what in ("variance",) if i == j else ("covariance", "correlation"):
            found.append(Figure(what, _group(of, i, j), None, 0.0, nothing, nothing))
    return found


class _Spread:
    """Figures of pairs of columns, with how far noise and sampling may have moved them.

    Args:
        design: the columns' terms, after the intercept's.
        moments: float64 (k + 1, k + 1), opened sums of products.
        raw: float64 (k, k), covariances of the columns' places in their ranges.
        noise: standard deviation of each product's sum.
        level: of both intervals.
    """

    def __init__(
        self, design: Design, moments: FloatArray, raw: FloatArray, noise: float, level: float
    ) -> None:
        self._place, self._raw, self._noise, self._level = design.products.place, raw, noise, level
        self._terms, self._count = design.terms[1:], float(moments[0, 0])
        self._means = moments[0, 1:] / self._count
        self._cells = len(design.products.first)

    def figures(self, i: int, j: int, value: FloatArray) -> list[Figure]:
        """Of a pair, or of one column with itself.

        Args:
            i, j: their places.
            value: float64 (k, k), as post-processed.
        """
        raw, unit = self._raw, self._terms[i].half * self._terms[j].half
        noise = self._of_noise(i, j)
        varied = self._possible(i, value) * self._possible(j, value)
        spread = max(varied + value[i, j] ** 2, 0.0) / self._count
        group = _group(tuple(term.name for term in self._terms), i, j)
        limits = (0.0 if i == j else -unit, unit)
        opened = float(raw[i, j]) * unit
        found = [
            Figure(
                "variance" if i == j else "covariance", group, float(value[i, j]) * unit, opened,
                around(opened, noise * unit, self._level, limits),
                around(opened, sqrt(noise**2 + spread) * unit, self._level, limits),
            )
        ]  # fmt: skip
        return found if i == j else [*found, self._correlation(i, j, value, group)]

    def _correlation(self, i: int, j: int, value: FloatArray, group: dict[str, str]) -> Figure:
        raw, own = self._raw, (self._gradient(i, i), self._gradient(j, j))
        for at, gradient in zip((i, j), own, strict=True):
            if raw[at, at] <= LEAST_DEVIATIONS * self._noise * sqrt(float(np.sum(gradient**2))):
                nothing = Interval(-inf, inf)
                return Figure("correlation", group, None, 0.0, nothing, nothing)
        product = sqrt(raw[i, i] * raw[j, j])
        opened = float(raw[i, j]) / product
        gradient = self._gradient(i, j) / product
        gradient -= opened / 2 * (own[0] / raw[i, i] + own[1] / raw[j, j])
        noise = self._noise * sqrt(float(np.sum(gradient**2)))
        sampling = max(1 - opened**2, 0.0) / sqrt(self._count)
        told = float(value[i, j]) / sqrt(value[i, i] * value[j, j])
        return Figure(
            "correlation", group, min(max(told, -1.0), 1.0), opened,
            around(opened, noise, self._level, (-1.0, 1.0)),
            around(opened, sqrt(noise**2 + sampling**2), self._level, (-1.0, 1.0)),
        )  # fmt: skip

    def _of_noise(self, i: int, j: int) -> float:
        """Standard deviation of a covariance by the noise."""
        return self._noise * sqrt(float(np.sum(self._gradient(i, j) ** 2)))

    def _possible(self, i: int, value: FloatArray) -> float:
        """A column's variance for how far sampling goes, in its range of 2."""
        found = float(value[i, i]) if self._raw[i, i] > 0 else 0.0
        return possible_variance(found, self._of_noise(i, i), self._level, 1.0)

    def _gradient(self, i: int, j: int) -> FloatArray:
        """d covariance / d product, float64 (p,); to first order."""
        found, n = np.zeros(self._cells), self._count
        found[self._place[i + 1, j + 1]] += 1 / n
        found[self._place[0, i + 1]] -= self._means[j] / n
        found[self._place[0, j + 1]] -= self._means[i] / n
        found[0] += (self._means[i] * self._means[j] - self._raw[i, j]) / n
        return found
