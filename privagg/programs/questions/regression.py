"""What linear, logistic and Poisson regressions share: what is asked, and how they are solved."""

from __future__ import annotations

from math import inf, sqrt
from typing import NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from privagg.programs.answers import Figure, Interval, StandardErrors, around
from privagg.programs.questions.columns import FloatArray
from privagg.programs.questions.design import Design
from privagg.programs.questions.question import Question
from privagg.training.features import BoolArray
from privagg.training.table import TableSchema

LEAST_EIGENVALUE = 1.0
"""Of a matrix that is solved with, in deviations of the noise that its entries have, see `solve`.
"""

HIDDEN = 0.05
"""Part of a coefficient that a ridge takes: where it is more, the coefficient has no interval."""

LEAST_SHARE = 1e-6
"""Of its largest eigenvalue, whatever the noise: so that every machine solves it alike."""


class Regression(Question):
    """An outcome explained by columns: one coefficient each, and an intercept.

    A column of categories has a coefficient for each category but its base. Only records that lack
    none of the columns count.

    Args:
        of: the outcome, a declared column or the target.
        on: declared columns.
        base: column of categories -> the category that the others are compared with; by default
            the first declared.
    """

    of: str
    on: tuple[str, ...] = Field(min_length=1, max_length=100)
    base: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if len(set(self.on)) < len(self.on) or self.of in self.on:
            raise ValueError(
                f"`on` lists each column once and never the outcome {self.of!r}, got "
                f"{', '.join(self.on)}"
            )
        return self

    def design(self, schema: TableSchema) -> Design:
        """The columns `on` as terms."""
        return Design.of(schema, self.on, self.base)


class Solution(NamedTuple):
    """What a linear system with noise gives.

    Attributes:
        vector: float64 (m,).
        matrix, inverse, ridge: float64 (m, m), what it was solved with, and what of it was added.
        noise: float64 (m, m), the covariance that the noise gives the vector, to first order.
    """

    vector: FloatArray
    matrix: FloatArray
    inverse: FloatArray
    ridge: FloatArray
    noise: FloatArray

    @property
    def hidden(self) -> BoolArray:
        """Of which coefficients the ridge takes more than `HIDDEN`, bool (m,)."""
        return np.asarray(np.diag(self.inverse @ self.ridge) > HIDDEN)


def solve(
    design: Design,
    matrix: FloatArray,
    right: FloatArray,
    deviations: tuple[float, float],
    start: FloatArray | None = None,
) -> Solution:
    """Solve with an opened matrix, made positive enough that its noise moves little.

    A ridge lifts eigenvalues to `LEAST_EIGENVALUE` deviations of an entry times the root of the
    matrix's order, half of what noise alone may have: in simulations `noise` holds from there on.
    The ridge draws to 0 what coefficients have in those directions, and in no other;
    `Solution.hidden` says whose.

    Args:
        design: whose products the matrix holds.
        matrix: float64 (m, m), symmetric.
        right: float64 (m,).
        deviations: of the noise of a product in the matrix, and of an entry of `right`.
        start: float64 (m,), what the vector is a step from; a ridge draws their sum to 0.
    """
    values, vectors = np.linalg.eigh(matrix)
    of_matrix, of_right = deviations
    hidden = LEAST_EIGENVALUE * of_matrix * sqrt(len(matrix))
    floor = max(hidden, LEAST_SHARE * max(float(values[-1]), 1.0))
    inverse = (vectors / np.maximum(values, floor)) @ vectors.T
    ridge = (vectors * np.maximum(floor - values, 0.0)) @ vectors.T
    vector = inverse @ (right if start is None else right - ridge @ start)
    moved = design.derivatives(vector)
    spread = of_right**2 * np.eye(len(matrix)) + of_matrix**2 * (moved @ moved.T)
    return Solution(vector, matrix + ridge, inverse, ridge, inverse @ spread @ inverse)


class Estimate(NamedTuple):
    """Coefficients of the design matrix.

    Attributes:
        coefficients: float64 (m,).
        records, population: float64 (m, m), their covariance by the noise alone, and with sampling.
        solved: by which they were found, the last time.
        sure: False where none has an interval.
    """

    coefficients: FloatArray
    records: FloatArray
    population: FloatArray
    solved: Solution
    sure: bool = True


def coefficient_figures(
    design: Design, found: Estimate, level: float, ratio: str = ""
) -> list[Figure]:
    """A figure for each term in the columns' own units, and the ridge where there is one.

    Args:
        design: whose terms they are.
        found: their estimate.
        level: of both intervals.
        ratio: what the exponential of a coefficient is called; empty where it says nothing.
    """
    to_own = design.own_units
    values = to_own @ found.coefficients
    both = [
        np.sqrt(np.maximum(np.diag(to_own @ each @ to_own.T), 0.0))
        for each in (found.records, found.population)
    ]
    hidden = np.abs(to_own) @ found.solved.hidden > 0
    figures, ridge = [], float(np.linalg.norm(found.solved.ridge, 2))
    what = "penalised coefficient" if ridge else "coefficient"
    if ridge:
        figures.append(
            Figure("penalty", {}, ridge, ridge, Interval(ridge, ridge), Interval(ridge, ridge))
        )
    for place, (term, value) in enumerate(zip(design.terms, values.tolist(), strict=True)):
        group, errors = {"term": term.name}, StandardErrors(*(float(each[place]) for each in both))
        sure = found.sure and not hidden[place]
        records, population = (
            around(value, error, level) if sure else Interval(-inf, inf) for error in errors
        )
        told = errors if sure else None
        figures.append(Figure(what, group, value, value, records, population, told))
        if ratio and term.column:
            power = exponential(value)
            ends = (_powers(records), _powers(population))
            figures.append(Figure(ratio, group, power, power, *ends))
    return figures


def unknown(design: Design, ratio: str = "") -> list[Figure]:
    """The figures of `coefficient_figures` where there are too few records for the noise."""
    nothing, figures = Interval(-inf, inf), []
    for term in design.terms:
        for what in ("coefficient", ratio) if ratio and term.column else ("coefficient",):
            figures.append(Figure(what, {"term": term.name}, None, 0.0, nothing, nothing))
    return figures


def _powers(ends: Interval) -> Interval:
    return Interval(exponential(ends.low), exponential(ends.high))


def exponential(value: float) -> float:
    """exp(value), at most about 1e304; of infinity itself infinity."""
    return inf if value == inf else float(np.exp(min(value, 700.0)))
