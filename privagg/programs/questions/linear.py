"""Linear regression by least squares, from one opened sum of products."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, inf, sqrt
from typing import Literal

import numpy as np

from privagg.programs.answers import (
    LEAST_DEVIATIONS,
    Figure,
    around,
    count_figure,
    possible_variance,
)
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.questions.design import Design, number_term
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


class Linear(Regression):
    """Linear regression of a column of numbers, fitted by least squares.

    A record adds the products of (x, z), x its terms and z the outcome's place in its declared
    range, over the largest norm that they can have: no record is clipped beyond the declared
    ranges. The population's intervals take residuals to be normal with one variance, since
    their fourth moments are not opened. Where the noise hides directions of x, a ridge in the
    scale of the declared ranges is added and told as a figure; coefficients that it draws to 0 have
    no interval, and those of the others are of ridge coefficients.

    Args:
        of: a column with a declared range.
    """

    kind: Literal["linear"] = "linear"

    @property
    def about(self) -> str:
        """See `Question.about`."""
        return (
            f"linear regression of {self.of} on {', '.join(self.on)}; for the population as if "
            "residuals were normal with one variance"
        )

    def _joint(self, schema: TableSchema) -> Design:
        """The terms and, after them, the outcome."""
        return Design((*self.design(schema).terms, number_term(schema, self.of)))

    def width(self, schema: TableSchema, number: int) -> int:
        """See `Question.width`: the products."""
        return len(self._joint(schema).products.first)

    def rows(
        self, schema: TableSchema, number: int, state: FloatArray, records: Columns
    ) -> FloatArray:
        """See `Question.rows`: the products, over the largest norm that they can have."""
        joint = self._joint(schema)
        return joint.multiply(joint.matrix(records)[0]) * (1.0 / joint.largest)

    def answer(
        self, schema: TableSchema, found: Sequence[Found], level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`: coefficients, and the variance of what they leave over."""
        design, joint = self.design(schema), self._joint(schema)
        moments = joint.symmetric(found[0].sums * joint.largest)
        noise = found[0].stddev * joint.largest
        count, outcome = float(moments[0, 0]), joint.terms[-1]
        figures = [count_figure(count, {}, noise, level)]
        if count < LEAST_DEVIATIONS * noise or count <= len(design.terms):
            return (*figures, *unknown(design))
        solved = solve(design, moments[:-1, :-1], moments[:-1, -1], (noise, noise))
        residual, deviation = _residual(joint, moments, solved, noise)
        spread = possible_variance(residual, deviation, level)
        unit, shift = outcome.half, np.zeros(len(design.terms))
        shift[0] = outcome.middle
        estimate = Estimate(
            unit * solved.vector + shift,
            unit**2 * solved.noise,
            unit**2 * (solved.noise + spread * solved.inverse),
            solved,
        )
        figures += coefficient_figures(design, estimate, level)
        opened, sampling = residual * unit**2, 2 * spread**2 / count
        figures.append(
            Figure(
                "residual variance", {}, max(opened, 0.0), opened,
                around(opened, deviation * unit**2, level, (0.0, inf)),
                around(opened, hypot(deviation, sqrt(sampling)) * unit**2, level, (0.0, inf)),
            )
        )  # fmt: skip
        return tuple(figures)


def _residual(
    joint: Design, moments: FloatArray, solved: Solution, noise: float
) -> tuple[float, float]:
    """The residuals' variance in the outcome's range of 2, and what the noise makes of it."""
    freedom = float(moments[0, 0]) - len(solved.vector)
    contrast = np.append(-solved.vector, 1.0)
    variance = float(contrast @ moments @ contrast) / freedom
    moved = joint.derivatives(contrast)
    gradient = contrast @ moved - 2 * (solved.ridge @ solved.vector @ solved.inverse @ moved[:-1])
    gradient[0] -= variance  # the count's own product is the first
    return variance, noise * sqrt(float(gradient @ gradient)) / freedom
