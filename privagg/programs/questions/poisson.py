"""Poisson regression: how often something happens, by a fixed number of Newton's steps."""

from __future__ import annotations

from math import log, sqrt
from typing import Any, Literal

import numpy as np
from pydantic import Field

from privagg.errors import ConfigError
from privagg.programs.questions.columns import Columns, FloatArray, range_of
from privagg.programs.questions.design import Design
from privagg.programs.questions.logistic import LEAST_MEAN, ROUNDING, exponentials
from privagg.programs.questions.newton import Newton, Scales
from privagg.training.table import TableSchema

OF_SCORE = 0.8
"""Part of the squared norm that a score may have: its noise is what the last state has."""


class Poisson(Newton):
    """Poisson regression of a column of counts, with the logarithm as link.

    A record adds μ x xᵀ and (y - μ) x. y is within its declared range [0, c], and a rate above
    `largest_rate` counts as that, r: so |y - μ| <= max(c, r) and μ <= r. A model that expects more
    than r of some records is not the one that is fitted: declare r so that no record has more.
    The population's intervals are those of a model that is right: too narrow where counts vary more
    than a Poisson variable does.

    Args:
        of: a column with a declared range from 0 or more on.
        largest_rate: the most that the model expects of any record; by default the range's end.
    """

    kind: Literal["poisson"] = "poisson"
    largest_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def about(self) -> str:
        """See `Question.about`."""
        return (
            f"Poisson regression of {self.of} on {', '.join(self.on)}; for the population as if "
            "the model were right"
        )

    @property
    def ratio(self) -> str:
        """See `Newton.ratio`."""
        return "rate ratio"

    def outcome(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `Newton.outcome`."""
        return records.numbers(self.of)

    def mean(self, schema: TableSchema, predictor: Any) -> Any:
        """See `Newton.mean`."""
        _, rate = self._ends(schema)
        return np.minimum(exponentials(np.clip(predictor, -700.0, log(rate))), rate)

    def weight(self, mean: Any) -> Any:
        """See `Newton.weight`."""
        return mean

    def first(self, schema: TableSchema) -> float:
        """See `Newton.first`: where the information is largest beside its noise."""
        return self._ends(schema)[1]

    def start(self, schema: TableSchema, mean: float) -> float:
        """See `Newton.start`."""
        _, rate = self._ends(schema)
        return log(min(max(mean, LEAST_MEAN * rate), rate))

    def scales(self, schema: TableSchema, design: Design) -> Scales:
        """See `Newton.scales`.

        The squared norm is convex in y and in μ, so largest where both are at an end; at μ = 0 it
        is a part `OF_SCORE` at most.
        """
        count, rate = self._ends(schema)
        score = sqrt(OF_SCORE) / max(count, rate)
        information = sqrt(1.0 - (score * max(count - rate, rate)) ** 2) / rate
        return Scales(information / design.largest * ROUNDING, score / design.longest * ROUNDING)

    def _ends(self, schema: TableSchema) -> tuple[float, float]:
        """The largest y and the largest rate."""
        low, high = range_of(schema, self.of)
        rate = high if self.largest_rate is None else self.largest_rate
        if low < 0 or not (1e-3 <= high <= 1e9 and 1e-3 <= rate <= 1e9):
            raise ConfigError(
                f"question {self.name!r}: counts of {self.of!r} lie between 0 and the end of "
                f"their range, that and `largest_rate` between 0.001 and 1e9; got the range "
                f"[{low:g}, {high:g}] and the rate {rate:g}. Nothing was spent"
            )
        return high, rate
