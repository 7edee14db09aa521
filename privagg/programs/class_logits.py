"""FedDistill by class logits: sites share what their networks say of each class, and no weights.

The state is a table of C classes: for each the mean logits that the sites' networks give its
records, and its share of the records. Each site trains its own network at home towards the labels
and towards the table's logits of each record's class, and uploads, clipped together as one vector,

    for each class c     (f_c · mean of clip(z, ±B) / B,   f_c)

z being the logits of its own records of class c and f_c their share. The next table is the ratio of
the opened sums; a class of which the noise leaves too little keeps the logits that it had. What a
site uploads follows from a network that all of its records made, so that this is of whole sites.

Source: Jeong, Oh, Kim, Park, Bennis & Kim, "Communication-efficient on-device machine learning:
    federated distillation and augmentation under non-IID private data", 2018; there each site
    leaves its own logits out of the mean, and sites count alike.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from privagg.encoding.vectors import FloatVector
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import Randomness
from privagg.programs.answers import LEAST_DEVIATIONS
from privagg.programs.clients import PersonalClient
from privagg.programs.gradient import GradientTraining
from privagg.programs.program import Opened
from privagg.training.draws import RoundId
from privagg.training.local_sgd import LARGEST_LOGIT, TaughtSgd
from privagg.training.taught import Taught

LEAST_SHARE = 1e-4
"""Of the records, below which a class says nothing."""


class ClassLogitsClient(PersonalClient):
    """A site's part; arguments as for `ClientLearner`, of a model that is `Taught`."""

    _sgd: TaughtSgd

    def _trained(
        self,
        parameters: FloatVector,
        randomness: Randomness,
        round_id: RoundId,
        correction: FloatVector | None = None,
    ) -> FloatVector:
        super()._trained(parameters, randomness, round_id, correction)
        return self._sgd.table()


class ClassLogits(GradientTraining):
    """The coordinator's part.

    Args:
        *args, **options: as for `GradientTraining`, of a model that is `Taught`.
        plan: says how much noise an opened sum has.
    """

    def __init__(self, *args: Any, plan: ClientPlan, **options: Any) -> None:
        super().__init__(*args, **options)
        assert isinstance(self._model, Taught)
        self._plan, self._shape = plan, tuple(self._model.table.shape)

    def fold(self, state: FloatVector, opened: Opened) -> FloatVector:
        """See `Program.fold`: the opened logits by the opened shares, class by class."""
        before, found = state.reshape(self._shape), opened.update.reshape(self._shape)
        share = found[:, -1:]
        known = share > max(LEAST_SHARE, LEAST_DEVIATIONS * self._noise(opened))
        ratio = found[:, :-1] / np.where(known, share, 1.0)
        logits = LARGEST_LOGIT * np.clip(ratio, -1.0, 1.0)
        after = np.concatenate([logits, np.minimum(share, 1.0)], axis=1)
        return np.asarray(np.where(known, after, before)).ravel()

    def _noise(self, opened: Opened) -> float:
        """The standard deviation of each coordinate of what was opened."""
        plan, names = self._plan, opened.contributors
        if plan.noise is None:
            return 0.0
        grid = float(plan.noise.stddev_grid) * float(plan.unit_per_grid)
        return grid * sqrt(len(names)) / float(plan.divisor(names))
