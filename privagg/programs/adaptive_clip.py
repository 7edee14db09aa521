"""Adaptive clipping: the clip follows a quantile of updates' norms, its count in the same upload.

The state's last value is the round's clip C_t, public as the model is. A site sends its update in
units of C_t beside one number that says whether the update lay within it:

    sent       (sqrt(1 − β²) · Δ / C_t,  ± β)          clipped together, at the plan's clip norm
    share      p = (1 + mean of the last / β) / 2       noise of z / (2 β m) at m equal sites
    next clip  C_{t+1} = C_t · exp(−η (p − γ))

Update and count are one vector under one clip, so the plan's sensitivity, noise and event are those
of any client-level round: the count is charged with the update, as a part β² of the squared
sensitivity. A site without records sends zero in both.

Source: Andrew, Thakkar, McMahan & Ramaswamy, "Differentially private learning with adaptive
    clipping", NeurIPS 2021, Algorithm 1; there two noises are sized apart and the bit is ± 1/2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import nn

from privagg.encoding.vectors import FloatVector
from privagg.privacy.randomness import Randomness
from privagg.programs.clients import ClientLearner
from privagg.programs.gradient import GradientTraining
from privagg.programs.program import Opened
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.draws import RoundId

_FARTHEST = 2.0**20
"""The clip stays within this factor of the plan's, both ways."""


class AdaptiveClient(ClientLearner):
    """A site's part; arguments as for `ClientLearner`, of a plan with one coordinate more."""

    @staticmethod
    def extra_coordinates(model: nn.Module) -> int:
        """See `ClientLearner.extra_coordinates`: the count's."""
        return 1

    def _trained(
        self,
        parameters: FloatVector,
        randomness: Randomness,
        round_id: RoundId,
        correction: FloatVector | None = None,
    ) -> FloatVector:
        model, clip = parameters[:-1], float(parameters[-1])
        update = super()._trained(model, randomness, round_id, correction)
        share, first = self._rule.algorithm.count_share, float(self._plan.clip_norm_l2)
        norm = float(np.linalg.norm(update))
        if not (math.isfinite(norm) and clip > 0):
            return np.zeros(self._plan.dimension)
        longest = first * math.sqrt(1.0 - share**2)
        scaled = update * (longest / max(clip, norm))
        return np.append(scaled, share * first if norm <= clip else -share * first)


class AdaptiveClip(GradientTraining):
    """The coordinator's part.

    Args:
        *args, **options: as for `GradientTraining`.
        algorithm: quantile γ, rate η and share β.
        clip: C_0, the plan's clip norm.
    """

    def __init__(self, *args: Any, algorithm: AlgorithmSpec, clip: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._algorithm, self._clip = algorithm, clip

    def begin(self) -> FloatVector:
        """See `Program.begin`: the model, and the plan's clip norm."""
        return np.append(super().begin(), self._clip)

    def fold(self, state: FloatVector, opened: Opened) -> FloatVector:
        """See `Program.fold`: a step of the model in the round's clip, then the next clip."""
        share, clip = self._algorithm.count_share, float(state[-1])
        unit = clip / (self._clip * math.sqrt(1.0 - share**2))
        moved = self._optimizer.step(state[:-1], opened.update[:-1] * unit)
        below = min(max((1.0 + float(opened.update[-1]) / (share * self._clip)) / 2.0, 0.0), 1.0)
        rate = self._algorithm.clip_learning_rate
        clip *= math.exp(-rate * (below - self._algorithm.quantile))
        return np.append(moved, min(max(clip, self._clip / _FARTHEST), self._clip * _FARTHEST))

    def released(self, state: FloatVector) -> FloatVector:
        """See `GradientTraining.released`."""
        average = self._optimizer.average
        return state[:-1] if average is None else average
