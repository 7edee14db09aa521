"""Regressions by a fixed, public number of Newton's steps, each from one opened sum.

The state is the coefficients, which are public. In each round a record adds what it has of the
information, w x xᵀ, and of the score, (y - mean) x, both at the state and scaled so that together
their norm is at most 1 whatever the record and the state are. With a canonical link the next state
is that of Newton's step. The noise of the last score is what moves the last state; of the
information it only shortens or lengthens a step, and a further step corrects that.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import hypot, sqrt
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from privagg.programs.answers import LEAST_DEVIATIONS, Figure, count_figure
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.questions.design import Design
from privagg.programs.questions.question import Found
from privagg.programs.questions.regression import (
    Estimate,
    Regression,
    Solution,
    coefficient_figures,
    solve,
    unknown,
)
from privagg.training.table import TableSchema

LARGEST = 1e6
"""Of a coefficient, whose column lies in [-1, 1]."""

LONGEST_STEP = 2.0
"""Of the predictors' root mean square in one step."""

MOST_LEFT = 0.5
"""Of the same: where the steps may be further from their end, nothing is said of how far."""

NEGLIGIBLE = 1e-8
"""Of the same: what nobody needs to tell from nothing."""


class Scales(NamedTuple):
    """What products of a record's information, and entries of its score, are multiplied by."""

    information: float
    score: float


class Step(NamedTuple):
    """Where a step of Newton's leads.

    Attributes:
        coefficients: float64 (m,).
        covariance: float64 (m, m), by the noise of its own round alone.
        noise: how far that moves predictors.
        left: how far they are from the end of all steps, about: half the square of this one.
    """

    coefficients: FloatArray
    covariance: FloatArray
    noise: float
    left: float


class Opened(NamedTuple):
    """What a round opened.

    Attributes:
        information: float64 (m, m).
        score: float64 (m,).
        noise: of a product in the information, and of an entry of the score.
    """

    information: FloatArray
    score: FloatArray
    noise: tuple[float, float]

    def solve(self, design: Design, state: FloatArray) -> Solution:
        """Newton's step from the state."""
        return solve(design, self.information, self.score, self.noise, state)


class Newton(Regression):
    """A generalised linear model with its canonical link.

    Args:
        rounds: Newton's steps, each one opened sum with an even part of the question's budget.
    """

    rounds: int = Field(default=4, ge=2, le=20)

    # --- what a model says of itself --------------------------------------------------------------

    @abstractmethod
    def outcome(self, schema: TableSchema, records: Columns) -> FloatArray:
        """y of some records, float64 (r,); NaN where it is missing."""

    @abstractmethod
    def mean(self, schema: TableSchema, predictor: Any) -> Any:
        """The mean of y, each value by itself, float64 of the same shape."""

    @abstractmethod
    def weight(self, mean: Any) -> Any:
        """What a record weighs in the information: the variance of y at a mean."""

    @abstractmethod
    def first(self, schema: TableSchema) -> float:
        """The mean that every record has in round 1."""

    @abstractmethod
    def start(self, schema: TableSchema, mean: float) -> float:
        """The predictor of a mean y, as far as the model allows one."""

    @abstractmethod
    def scales(self, schema: TableSchema, design: Design) -> Scales:
        """Such that no record's row is longer than 1, at any state."""

    @property
    @abstractmethod
    def ratio(self) -> str:
        """What the exponential of a coefficient is called."""

    # --- the question -----------------------------------------------------------------------------

    @property
    def round_count(self) -> int:
        """See `Question.round_count`."""
        return self.rounds

    def width(self, schema: TableSchema, number: int) -> int:
        """See `Question.width`: the information's products and the score."""
        design = self.design(schema)
        self.scales(schema, design)
        return len(design.products.first) + len(design.terms)

    def begin(self, schema: TableSchema) -> FloatArray:
        """See `Question.begin`: an intercept alone."""
        return self._constant(schema, self.first(schema))

    def rows(
        self, schema: TableSchema, number: int, state: FloatArray, records: Columns
    ) -> FloatArray:
        """See `Question.rows`."""
        design, y = self.design(schema), self.outcome(schema, records)
        x, known = design.matrix(records)
        mean, scales = self.mean(schema, predictors(x, state)), self.scales(schema, design)
        information = design.multiply(x) * (self.weight(mean) * scales.information)[:, None]
        score = x * ((y - mean) * scales.score)[:, None]
        return np.where(
            (known & ~np.isnan(y))[:, None], np.concatenate([information, score], axis=1), 0.0
        )

    def step(self, schema: TableSchema, number: int, state: FloatArray, found: Found) -> FloatArray:
        """See `Question.step`."""
        design = self.design(schema)
        start, opened = self._opened(schema, design, number, state, found)
        return moved(start, opened.solve(design, start))

    def answer(
        self, schema: TableSchema, found: Sequence[Found], level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`."""
        design, state = self.design(schema), self.begin(schema)
        count, noise = self._count(schema, design, found[0])
        figures = [count_figure(count, {}, noise, level)]
        if count < LEAST_DEVIATIONS * noise or count <= len(design.terms):
            return (*figures, *unknown(design, self.ratio))
        steps = []
        for number, each in enumerate(found, 1):
            start, opened = self._opened(schema, design, number, state, each)
            solved = opened.solve(design, start)
            steps.append(step_of(start, solved))
            state = moved(start, solved)
        # The first starts from what its own noise moved, so it counts only where it is alone.
        estimate = joined(steps[1:] or steps, solved)
        return (*figures, *coefficient_figures(design, estimate, level, self.ratio))

    # --- Newton's step ----------------------------------------------------------------------------

    def _count(self, schema: TableSchema, design: Design, first: Found) -> tuple[float, float]:
        """How many records count, from the first round, and the noise of that."""
        unit = 1.0 / (
            float(self.weight(self.first(schema))) * self.scales(schema, design).information
        )
        return float(first.sums[0]) * unit, first.stddev * unit

    def _constant(self, schema: TableSchema, mean: float) -> FloatArray:
        """The coefficients of a model of one mean for all records."""
        found = np.zeros(len(self.design(schema).terms))
        found[0] = self.start(schema, mean)
        return found

    def _opened(
        self, schema: TableSchema, design: Design, number: int, state: FloatArray, found: Found
    ) -> tuple[FloatArray, Opened]:
        """What a round opened, and the state that it holds for.

        In round 1 all records have one mean, so what they add tells what they would add at any
        other: the step is taken from the mean of y that this round itself opened.
        """
        scales, products = self.scales(schema, design), len(design.products.first)
        information = design.symmetric(found.sums[:products]) / scales.information
        score = found.sums[products:] / scales.score
        noise = (found.stddev / scales.information, found.stddev / scales.score)
        count, deviation = self._count(schema, design, found)
        if number > 1 or count < LEAST_DEVIATIONS * deviation or count <= 0:
            return state, Opened(information, score, noise)
        before = self.first(schema)
        start = self._constant(schema, before + float(score[0]) / count)
        mean = float(self.mean(schema, start[:1])[0])
        weight = float(self.weight(before))
        each, shift = float(self.weight(mean)) / weight, (before - mean) / weight
        score = score + shift * information[0]
        noise = (noise[0] * each, hypot(noise[1], noise[0] * shift))
        return start, Opened(information * each, score, noise)


def _size(step: FloatArray, solved: Solution) -> float:
    """How far a step moves predictors: the root of their mean square, records by weight."""
    return sqrt(float(step @ solved.matrix @ step) / float(solved.matrix[0, 0]))


def step_of(state: FloatArray, solved: Solution) -> Step:
    """Where Newton's step leads, at its full length.

    Args:
        state: float64 (m,), where it started.
        solved: the step.
    """
    noise = float(np.sum(solved.matrix * solved.noise)) / float(solved.matrix[0, 0])
    left = _size(solved.vector, solved) ** 2 / 2
    return Step(state + solved.vector, solved.noise, sqrt(noise), left)


def moved(state: FloatArray, solved: Solution) -> FloatArray:
    """The coefficients one step further, and no further than `LONGEST_STEP`.

    Args:
        state: float64 (m,), the coefficients before.
        solved: the step.
    """
    shortened = LONGEST_STEP / max(_size(solved.vector, solved), LONGEST_STEP)
    return np.clip(state + shortened * solved.vector, -LARGEST, LARGEST)


def joined(steps: list[Step], last: Solution) -> Estimate:
    """The mean of where the steps lead, each by how far it may be off: all have their own noise.

    What the mean still lacks is spread over all directions of the predictors alike.

    Args:
        steps: one or more, in their order.
        last: of them, as it was solved.
    """
    parts = np.array([1.0 / (step.noise**2 + step.left**2 + NEGLIGIBLE**2) for step in steps])
    parts /= parts.sum()
    left = sum(part * step.left for part, step in zip(parts, steps, strict=True))
    noise = left**2 * last.matrix[0, 0] / len(last.vector) * last.inverse
    for part, step in zip(parts, steps, strict=True):
        noise = noise + part**2 * step.covariance
    mean = sum(part * step.coefficients for part, step in zip(parts, steps, strict=True))
    return Estimate(mean, noise, noise + last.inverse, last, left <= MOST_LEFT)


def predictors(x: FloatArray, coefficients: FloatArray) -> FloatArray:
    """x @ coefficients, float64 (r,), added in the same order for every record.

    Args:
        x: float64 (r, m), within [-1, 1].
        coefficients: float64 (m,), whatever they are.
    """
    total = np.zeros(len(x))
    for place, each in enumerate(np.clip(np.nan_to_num(coefficients), -LARGEST, LARGEST).tolist()):
        total = total + x[:, place] * each
    return total
