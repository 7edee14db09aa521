"""Logistic regression: which of two happens, by a fixed number of Newton's steps."""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Any, Literal

import numpy as np

from privagg.errors import ConfigError
from privagg.programs.questions.columns import Columns, FloatArray, categories_of
from privagg.programs.questions.design import Design
from privagg.programs.questions.newton import Newton, Scales
from privagg.training.table import TableSchema

FREE = ((1 + sqrt(5)) / 2) ** 5
"""max A such that (y - p)² + A (p (1 - p))² <= 1 for every p in [0, 1]: at 1 - p = (√5 - 1)/2."""

ROUNDING = 1 - 1e-12
"""Products of floats exceed a bound by less than this leaves."""

LEAST_MEAN = 1e-3
"""From which the first step starts at least, and as far from 1 at most."""

_exp_each = np.frompyfunc(exp, 1, 1)


def exponentials(values: Any) -> Any:
    """exp, each value by itself: vector kernels may round by a value's place."""
    return np.asarray(_exp_each(values), dtype=np.float64)


class Logistic(Newton):
    """Logistic regression of a column with two categories, or of one category against the others.

    A record adds p (1 - p) x xᵀ and (y - p) x: where the score is scaled to norm 1 by |y - p| <= 1
    and the largest x, the information comes along free, see `FREE`. The population's intervals are
    those of a model that is right.

    Args:
        of: a column with declared categories, or the target.
        event: which of them is counted as happening; by default the second of two.
    """

    kind: Literal["logistic"] = "logistic"
    event: str | None = None

    @property
    def about(self) -> str:
        """See `Question.about`."""
        return (
            f"logistic regression of {self.of} on {', '.join(self.on)}; for the population as if "
            "the model were right"
        )

    @property
    def ratio(self) -> str:
        """See `Newton.ratio`."""
        return "odds ratio"

    def outcome(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `Newton.outcome`: 1 where the event happened, 0 for every other category."""
        codes, labels = records.codes(self.of), categories_of(schema, self.of)
        happened = (codes == labels.index(self._event(schema))).astype(np.float64)
        return np.where(codes < len(labels), happened, np.nan)

    def mean(self, schema: TableSchema, predictor: Any) -> Any:
        """See `Newton.mean`."""
        return 1.0 / (1.0 + exponentials(np.clip(-predictor, -40.0, 40.0)))

    def weight(self, mean: Any) -> Any:
        """See `Newton.weight`."""
        return mean * (1.0 - mean)

    def first(self, schema: TableSchema) -> float:
        """See `Newton.first`."""
        return 0.5

    def start(self, schema: TableSchema, mean: float) -> float:
        """See `Newton.start`."""
        within = min(max(mean, LEAST_MEAN), 1 - LEAST_MEAN)
        return log(within / (1 - within))

    def scales(self, schema: TableSchema, design: Design) -> Scales:
        """See `Newton.scales`."""
        self._event(schema)
        return Scales(sqrt(FREE) / design.largest * ROUNDING, 1.0 / design.longest * ROUNDING)

    def _event(self, schema: TableSchema) -> str:
        labels = categories_of(schema, self.of)
        event = labels[-1] if self.event is None and len(labels) == 2 else self.event
        if event not in labels or len(labels) < 2:
            raise ConfigError(
                f"question {self.name!r}: `event` is one of at least two categories of "
                f"{self.of!r}, which are {', '.join(labels)}; got {event!r}. Nothing was spent"
            )
        return event
