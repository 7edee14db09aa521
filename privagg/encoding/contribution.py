"""What a site computes in a round, as whoever asks for it knows it."""

from __future__ import annotations

from typing import Protocol

from privagg.encoding.planned import RoundId
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.privacy.randomness import Randomness


class Learner(Protocol):
    """Turns a round's public state into this site's integers under the plan."""

    def contribution(
        self, parameters: FloatVector, randomness: Randomness, round_id: RoundId
    ) -> IntVector:
        """Compute on the records, bound on the grid, weigh, and add this site's noise.

        Args:
            parameters: float64 (d,), the round's public state: the model, in training.
            randomness: source of sampling and noise.
            round_id: (run, round, attempt), labels for the streams.

        Returns:
            int64 (n,), n = `plan.upload_dimension`, all within the plan's upload bound.
        """
        ...
