"""FedBoost as Hamer, Mohri & Suresh mean it: weights of an ensemble of predictors, by sums.

With weights α on the simplex and v_k how likely predictor k finds a record, the loss is the mean of
-log Σ α_k v_k. Its gradient in α_k is minus the mean of v_k / Σ α_j v_j, which no public number
bounds. A record therefore adds

    ρ_k = α_k v_k / Σ α_j v_j,      that is α_k times its gradient

which are parts of 1, so their norm is at most 1 whatever α and v are (proofs/fedboost.md): nothing
is clipped, no gradient is biased, and α is public, so the server has the gradient by a division. It
takes the paper's mirror step, an exponentiated gradient on the simplex. Where a round asks of fewer
predictors, sums run over these.

The name has another reading in surveys: boosted trees over federated data. That is
`boosted-trees`, not this.

Source: Hamer, Mohri & Suresh 2020, "FedBoost: communication-efficient algorithms for federated
learning", ICML; Kivinen & Warmuth 1997, "Exponentiated gradient versus gradient descent for linear
predictors", Information and Computation 132.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np
from pydantic import JsonValue

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.privacy.plan import OpeningTerms
from privagg.privacy.plan.arithmetic import sqrt_floor_decimal
from privagg.privacy.randomness import public_stream
from privagg.programs.answers import Answer, Figure, Interval
from privagg.programs.content import OfContent
from privagg.programs.fedboost.asked import Asked, require_fitting
from privagg.programs.fedboost.ensemble import Ensemble
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.questions.logistic import ROUNDING
from privagg.programs.sums import IntMatrix
from privagg.programs.sums_program import NoisySum, SumsProgram

SENSITIVITY_GRID = 2**20
"""S: parts of 1, truncated, have norm at most S."""

KEPT = 0.01
"""Of all weight, spread evenly before each round: none is so small that its gradient is noise."""

STEEPEST = 1.0
"""Of a gradient above that of the ensemble: how far one step follows it; below, it is 1 at most."""

AVERAGED = 0.5
"""Of the rounds, the last ones whose weights are averaged."""


class FedBoost(OfContent, SumsProgram):
    """Weights of an ensemble.

    Args:
        content: what is asked.

    Raises:
        ConfigError: it does not fit the declared table; nothing was spent.
    """

    name = "fedboost"
    asks = Asked
    content: Asked

    def __init__(self, content: Asked) -> None:
        super().__init__(content)
        require_fitting(content)
        self._count = len(content.predictors)
        self._sent = content.sent or self._count

    def openings(self, noise_multiplier: Decimal) -> tuple[OpeningTerms, ...]:
        """See `SumsProgram.openings`: every round has the same part of the budget."""
        rounds = self.content.rounds
        each = OpeningTerms(
            state=self._count,
            length=self._sent,
            sensitivity_grid=SENSITIVITY_GRID,
            largest_grid=SENSITIVITY_GRID,
            noise_multiplier=sqrt_floor_decimal(Fraction(noise_multiplier) ** 2 * rounds),
        )
        return (each,) * rounds

    def begin(self) -> FloatVector:
        """See `SumsProgram.begin`: all weights are alike."""
        return np.full(self._count, 1 / self._count)

    def integers(self, number: int, state: FloatVector, records: Columns) -> IntMatrix:
        """See `SumsProgram.integers`; a record that a predictor says nothing of adds 0."""
        target = self._target(records)
        asked, weights = self.asked_of(number), mixed(state)
        parts = np.zeros((self._sent, len(records)))
        whole = np.zeros(len(records))
        for place, k in enumerate(asked.tolist()):
            found = self.content.predictors[k].likelihood(records, target)
            parts[place] = weights[k] * found
            whole = whole + parts[place]
        known = np.isfinite(whole) & (whole > 0)
        rows = np.where(known, parts / np.where(known, whole, 1.0), 0.0) * ROUNDING
        return np.trunc(rows.T * SENSITIVITY_GRID).astype(np.int64)

    def step(self, number: int, state: FloatVector, found: NoisySum) -> FloatVector:
        """See `SumsProgram.step`: the gradient, and an exponentiated-gradient step along it."""
        asked, weights = self.asked_of(number), mixed(state)
        opened, noise = found.total / SENSITIVITY_GRID, found.stddev / SENSITIVITY_GRID
        records = max(float(opened.sum()), noise * self._sent**0.5, 1.0)
        part = self._sent / self._count
        gradient = opened / records * part / weights[asked]
        # The ensemble's own is 1: a constant for all moves no weight, and those not asked have it.
        moved = np.zeros(self._count)
        moved[asked] = np.clip(gradient - 1.0, -1.0, STEEPEST) / part
        stepped = weights * np.exp(self.content.rate * (moved - moved.max()))
        return np.asarray(stepped / stepped.sum())

    def asked_of(self, number: int) -> IntVector:
        """The predictors that a round asks of, int64 (sent,), rising; public."""
        draw = public_stream(b"privagg/fedboost", self.content.seed, number).uint64(self._count)
        return np.sort(np.argsort(draw, kind="stable")[: self._sent]).astype(np.int64)

    def weights(self, sums: Sequence[NoisySum]) -> FloatArray:
        """The ensemble's weights, float64 (q,): those of the last rounds, averaged.

        Args:
            sums: as for `answers`.
        """
        state, found = self.begin(), list[FloatVector]()
        for number, opened in enumerate(sums, 1):
            state = self.step(number, state, opened)
            found.append(state)
        return np.asarray(np.mean(found[int(len(found) * AVERAGED) :], axis=0))

    def answers(self, sums: Sequence[NoisySum]) -> tuple[Answer, ...]:
        """See `SumsProgram.answers`: no interval is claimed but that weights are parts of 1."""
        anywhere = Interval(0.0, 1.0)
        figures = [
            Figure("weight", {"predictor": each.name}, value, value, anywhere, anywhere)
            for each, value in zip(
                self.content.predictors, self.weights(sums).tolist(), strict=True
            )
        ]
        about = "weights of an ensemble, by the records' likelihood under it"
        return (Answer({"name": "the ensemble", "about": about}, tuple(figures)),)

    def model(self, sums: Sequence[NoisySum]) -> dict[str, JsonValue]:
        """See `AnsweringProgram.model`: the predictors with their weights."""
        found = Ensemble(
            data=self.content.data,
            predictors=self.content.predictors,
            weights=tuple(self.weights(sums).tolist()),
        )
        return found.model_dump(mode="json")

    def _target(self, records: Columns) -> FloatArray:
        if self.content.of_values:
            return np.zeros(len(records))
        codes = records.codes(self.content.data.target.columns[0])
        return np.where(codes < 2, codes.astype(np.float64), np.nan)


def mixed(state: FloatVector) -> FloatArray:
    """Weights that a round works with, float64 (q,), above 0 and adding to 1, whatever a state is.

    Args:
        state: float64 (q,), public.
    """
    found = np.clip(np.nan_to_num(state, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    whole = float(found.sum())
    even = np.full(len(found), 1 / len(found))
    found = found / whole if whole > 0 else even
    return np.asarray((1 - KEPT) * found + KEPT * even)
