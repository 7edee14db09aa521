"""Boosted trees whose structure is public, as a job: each opening grows some of them.

Opening 1 counts the target by bin of every column: scores start from what each bin says by itself.
Each further one opens, for the leaves of some trees, the sums of gradients and curvatures of the
records in them under what is said so far; the leaves follow, and move the scores on. At last one
may say how right the chances are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import isqrt, sqrt
from typing import Any

import numpy as np
from pydantic import JsonValue

from privagg.encoding.vectors import FloatVector
from privagg.privacy.plan import OpeningTerms
from privagg.privacy.plan.arithmetic import sqrt_floor_decimal
from privagg.programs.answers import Answer
from privagg.programs.content import OfContent
from privagg.programs.questions.columns import Codes, Columns, FloatArray
from privagg.programs.questions.logistic import ROUNDING
from privagg.programs.sums import IntMatrix, Placed
from privagg.programs.sums_program import NoisySum, SumsProgram
from privagg.programs.tables import calibration
from privagg.programs.tables.bins import coded, offsets
from privagg.programs.trees.asked import Asked, blocks_of
from privagg.programs.trees.growing import Grown, Started, State, grown, likeness, started
from privagg.programs.trees.losses import Learnt, TwoClasses, loss_of
from privagg.programs.trees.model import Trees
from privagg.programs.trees.structure import Forest
from privagg.programs.trees.telling import Finished, answers_of

SENSITIVITY_GRID = 2**16
"""S: a row of norm 1, truncated, has norm at most S."""

START, LEAVES, CALIBRATION = "start", "leaves", "calibration"
"""Kinds of openings."""

CALIBRATION_PART = Fraction(1, 20)
"""Of the budget."""

_A_SOLUTION = 150
"""Microseconds of processor time for the leaves of a tree beside their cube."""


@dataclass(frozen=True)
class Opening:
    """What one round opens.

    Attributes:
        kind: of what a record adds.
        part: of the budget.
        first: tree, from 0, of `LEAVES`.
    """

    kind: str
    part: Fraction
    first: int = 0


class BoostedTrees(OfContent, SumsProgram):
    """Trees whose structure is public and whose leaves are opened sums.

    Args:
        content: what is asked.

    Raises:
        ConfigError: it does not fit the declared table; nothing was spent.
    """

    name = "boosted-trees"
    asks = Asked
    content: Asked

    def __init__(self, content: Asked) -> None:
        super().__init__(content)
        self.size = content.size
        self.blocks, self.loss = blocks_of(content), loss_of(content.data.target)

    @classmethod
    def chosen(
        cls, asked: Mapping[str, Any], records: int, epsilon: Fraction, delta: Fraction
    ) -> Mapping[str, Any]:
        """See `AnsweringProgram.chosen`: how many trees, how deep, how many an opening."""
        content = Asked.model_validate(asked).chosen(records, epsilon, delta)
        return content.model_dump(mode="json")

    @cached_property
    def forest(self) -> Forest:
        """The trees' questions."""
        return Forest.drawn(self.blocks, self.size.trees, self.size.depth, self.content.seed)

    @cached_property
    def rounds(self) -> tuple[Opening, ...]:
        """What is opened, in order; the parts add to 1."""
        calibrated = self.content.calibration and isinstance(self.loss, TwoClasses)
        start = Fraction(str(self.size.start))
        rest = 1 - start - CALIBRATION_PART * calibrated
        count = self.size.trees // self.size.together
        found = [Opening(START, start)]
        found += [Opening(LEAVES, rest / count, at * self.size.together) for at in range(count)]
        return (*found, *[Opening(CALIBRATION, CALIBRATION_PART)] * calibrated)

    def openings(self, noise_multiplier: Decimal) -> tuple[OpeningTerms, ...]:
        """See `SumsProgram.openings`."""
        leaves = self.size.trees * (1 << self.size.depth)
        state = self.loss.bases + self.loss.outputs * (self._bins + leaves)
        return tuple(
            OpeningTerms(
                state=0 if number == 1 else state,
                length=self._length(each.kind),
                sensitivity_grid=SENSITIVITY_GRID,
                largest_grid=self._largest(each.kind),
                noise_multiplier=sqrt_floor_decimal(Fraction(noise_multiplier) ** 2 / each.part),
            )
            for number, each in enumerate(self.rounds, 1)
        )

    def integers(self, number: int, state: FloatVector, records: Columns) -> IntMatrix | Placed:
        """See `SumsProgram.integers`."""
        opening = self.rounds[number - 1]
        some = self.loss.read(coded(self.blocks, records), records)
        if opening.kind == START:
            return self._start_rows(some)
        now = self._state(state)
        if opening.kind == CALIBRATION:
            away = now.scores(self.forest, self.blocks, some.codes, self.size.trees)[0]
            rows = calibration.score_rows(away, some.target[0], some.counted)
            return np.trunc(rows * SENSITIVITY_GRID).astype(np.int64)
        return self._leaf_rows(now, some, opening.first)

    def step(self, number: int, state: FloatVector, found: NoisySum) -> FloatVector:
        """See `SumsProgram.step`: the forest with the trees that the sums grow."""
        opening = self.rounds[number - 1]
        if opening.kind == START:
            first = self._started(found)
            leaves = np.zeros((self.size.trees, self.loss.outputs, self.forest.leaves))
            return State(first.base, first.effects, leaves).vector()
        now = self._state(state)
        if opening.kind == LEAVES:
            for at, each in enumerate(self._grown(found), opening.first):
                now.leaves[at] = self.size.rate * each.leaves
        return now.vector()

    def answers(self, sums: Sequence[NoisySum]) -> tuple[Answer, ...]:
        """See `SumsProgram.answers`; of a job that was cut short, the trees so far."""
        return tuple(answers_of(self.content, self._finished(sums)))

    def model(self, sums: Sequence[NoisySum]) -> dict[str, JsonValue]:
        """See `AnsweringProgram.model`: the trees."""
        found = self._finished(sums)
        made = Trees.of(self.content.data, self.blocks, found.forest, found.state)
        return made.model_dump(mode="json")

    def work(self) -> int:
        """See `AnsweringProgram.work`: the leaves of every tree, twice."""
        each = _A_SOLUTION + (1 << 3 * self.size.depth) // 500
        return super().work() + 4 * self.size.trees * self.loss.outputs * each

    # --- inside ---------------------------------------------------------------------------------

    def _start_rows(self, some: Learnt) -> Placed:
        """The target's cells in each record's bin of every column."""
        each = some.cells * (SENSITIVITY_GRID / sqrt(len(self.blocks)) * ROUNDING)
        starts = np.array([at.start for at in offsets(self.blocks)])
        bins = some.codes.T + starts
        cells = np.arange(len(each))[:, None] * self._bins
        return _placed(bins[:, None, :] + cells, np.trunc(each).T[:, :, None])

    def _leaf_rows(self, now: State, some: Learnt, first: int) -> Placed:
        """Gradients, then curvatures, in each record's leaf of some trees."""
        trees = self.size.together
        added = np.concatenate(self.loss.rows(
            now.base, now.scores(self.forest, self.blocks, some.codes, first), some
        ))  # fmt: skip
        whole = np.trunc(added * (SENSITIVITY_GRID / sqrt(trees)))
        leaf = self.forest.places(some.codes, first, first + trees).T
        starts = np.arange(trees * len(whole)).reshape(trees, -1) * self.forest.leaves
        return _placed(leaf[:, :, None] + starts, whole.T[:, None, :])

    def _started(self, found: NoisySum) -> Started:
        unit = SENSITIVITY_GRID / sqrt(len(self.blocks))
        opened = found.total.reshape(self.loss.cells, self._bins) / unit
        return started(self.blocks, self.loss, opened, found.stddev / unit)

    def _grown(self, found: NoisySum) -> list[Grown]:
        """The leaves of each tree of an opening, before the rate."""
        unit = SENSITIVITY_GRID / sqrt(self.size.together)
        each, bent = unit * self.loss.gradient, unit * self.loss.curvature
        sums = found.total.reshape(self.size.together, 2, self.loss.outputs, self.forest.leaves)
        noise = (found.stddev / each) ** 2
        prior = self.size.prior**2 * likeness(self.size.depth)
        return [
            grown(gradient / each, curvature / bent, noise, self.loss.spread, prior)
            for gradient, curvature in sums
        ]

    def _finished(self, sums: Sequence[NoisySum]) -> Finished:
        trees, calibrated = list[Grown](), None
        for number, found in enumerate(sums, 1):
            kind = self.rounds[number - 1].kind
            if kind == LEAVES:
                trees += self._grown(found)
            elif kind == CALIBRATION:
                calibrated = found.total / SENSITIVITY_GRID, found.stddev / SENSITIVITY_GRID
        first = self._started(sums[0])
        return Finished(
            self.loss, self.blocks, self.forest, first, tuple(trees), self.size.rate, calibrated
        )

    def _state(self, state: FloatVector) -> State:
        return State.of(state, self.loss, self._bins, self.forest)

    @cached_property
    def _bins(self) -> int:
        return sum(block.size for block in self.blocks)

    def _length(self, kind: str) -> int:
        return {
            START: self.loss.cells * self._bins,
            LEAVES: 2 * self.size.together * self.loss.outputs * (1 << self.size.depth),
            CALIBRATION: 2 * (len(calibration.SCORE_ENDS) - 1),
        }[kind]

    def _largest(self, kind: str) -> int:
        """No integer of a record lies beyond."""
        parts = {START: len(self.blocks), LEAVES: self.size.together, CALIBRATION: 1}[kind]
        return isqrt(SENSITIVITY_GRID**2 // parts)


def _placed(places: Codes, amounts: FloatArray) -> Placed:
    """Each record's whole numbers at its places, which rise: int64 (r, a, b), float64 likewise."""
    values = np.broadcast_to(amounts, places.shape).astype(np.int64)
    return Placed(places.reshape(len(places), -1), values.reshape(len(places), -1))
