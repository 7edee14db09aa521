"""A scorecard as a job of one, two or eight opened sums, and one more that calibrates it."""

from __future__ import annotations

import hashlib
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
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.scorecard import adding, fitting
from privagg.programs.scorecard.asked import Asked, blocks_of
from privagg.programs.scorecard.finishing import Finished, answers_of, card_of
from privagg.programs.scorecard.fitting import State
from privagg.programs.sums import IntMatrix
from privagg.programs.sums_program import NoisySum, SumsProgram
from privagg.programs.tables.bins import coded, offsets
from privagg.programs.tables.calibration import SCORE_ENDS
from privagg.training.targets import Regression

SENSITIVITY_GRID = 2**20
"""S: a row of norm 1, truncated, has norm at most S."""

COUNTS, PRODUCTS, SCORES, CALIBRATION = "counts", "products", "scores", "calibration"
"""Kinds of openings."""

PARTS = {1: Fraction(1), 2: Fraction(7, 10), 8: Fraction(6, 10)}
"""Openings -> part of the budget that the counts have."""

PRODUCTS_PART = {2: Fraction(3, 10), 8: Fraction(2, 10)}
"""Likewise the products; scores have the rest."""

CALIBRATION_PART = Fraction(1, 20)
"""Of the budget, taken from the counts'."""

_A_BLOCK = 1000
"""Microseconds of processor time that smoothing takes beside its cubes."""


@dataclass(frozen=True)
class Opening:
    """What one round opens.

    Attributes:
        kind: of what a record adds.
        part: of the budget.
    """

    kind: str
    part: Fraction


class Scorecard(OfContent, SumsProgram):
    """Points a bin, from a few opened sums.

    Args:
        content: what is asked.

    Raises:
        ConfigError: it does not fit the declared table; nothing was spent.
    """

    name = "scorecard"
    asks = Asked
    content: Asked

    def __init__(self, content: Asked) -> None:
        super().__init__(content)
        self.blocks = blocks_of(content)

    @classmethod
    def chosen(
        cls, asked: Mapping[str, Any], records: int, epsilon: Fraction, delta: Fraction
    ) -> Mapping[str, Any]:
        """See `AnsweringProgram.chosen`: how many openings, and bins."""
        content = Asked.model_validate(asked).chosen(records, epsilon, delta)
        return content.model_dump(mode="json")

    @cached_property
    def rounds(self) -> tuple[Opening, ...]:
        """What is opened, in order; the parts add to 1."""
        count = self.content.openings or 8
        counts, products = PARTS[count], PRODUCTS_PART.get(count, Fraction(0))
        scores = count - 2
        found = [Opening(COUNTS, counts - CALIBRATION_PART * self.content.calibration)]
        if products:
            found.append(Opening(PRODUCTS, products))
        rest = 1 - counts - products
        found += [Opening(SCORES, rest / scores) for _ in range(scores)]
        if self.content.calibration:
            found.append(Opening(CALIBRATION, CALIBRATION_PART))
        return tuple(found)

    def openings(self, noise_multiplier: Decimal) -> tuple[OpeningTerms, ...]:
        """See `SumsProgram.openings`."""
        one = isqrt(SENSITIVITY_GRID**2 // len(self.blocks))
        largest = {COUNTS: one, SCORES: one}
        return tuple(
            OpeningTerms(
                state=0 if number == 1 else fitting.HEAD + 5 * sum(self._sizes),
                length=self._length(each.kind),
                sensitivity_grid=SENSITIVITY_GRID,
                largest_grid=largest.get(each.kind, SENSITIVITY_GRID),
                noise_multiplier=sqrt_floor_decimal(Fraction(noise_multiplier) ** 2 / each.part),
            )
            for number, each in enumerate(self.rounds, 1)
        )

    def integers(self, number: int, state: FloatVector, records: Columns) -> IntMatrix:
        """See `SumsProgram.integers`."""
        kind, some = self.rounds[number - 1].kind, self._read(records)
        if kind == COUNTS:
            rows = adding.count_rows(some, self._sizes)
        else:
            now = State.of(state)
            if kind == PRODUCTS:
                rows = adding.product_rows(some, self._table(now.values), now.share)
            elif kind == SCORES:
                effects = self._table(now.effects)
                rows = adding.score_rows(some, effects, self._sizes, now.share)
            else:
                rows = adding.calibration_rows(some, self._table(now.effects), now.share)
        return np.trunc(rows * SENSITIVITY_GRID).astype(np.int64)

    def step(self, number: int, state: FloatVector, found: NoisySum) -> FloatVector:
        """See `SumsProgram.step`: what opened sums say of the card so far.

        An opening of scores in which other sites are than in the counts says nothing of these: the
        card stays as it was.
        """
        kind = self.rounds[number - 1].kind
        opened, stddev = self._read_sum(kind, found)
        if kind == COUNTS:
            first = fitting.after_counts(self.blocks, self._rising, opened, stddev)
            return first._replace(who=_standing_for(found.contributors)).vector()
        now = State.of(state)
        if kind == PRODUCTS:
            now = fitting.after_products(self.blocks, now, opened, stddev)
        elif kind == SCORES and now.who == _standing_for(found.contributors):
            now = fitting.after_scores(self.blocks, self._rising, now, opened, stddev)
        return now.vector()

    def answers(self, sums: Sequence[NoisySum]) -> tuple[Answer, ...]:
        """See `SumsProgram.answers`; of a job that was cut short, the card so far."""
        return tuple(answers_of(self.content, self.blocks, self._finished(sums)))

    def model(self, sums: Sequence[NoisySum]) -> dict[str, JsonValue]:
        """See `AnsweringProgram.model`: the card."""
        card = card_of(self.content, self.blocks, self._finished(sums))
        return card.model_dump(mode="json")

    def work(self) -> int:
        """See `AnsweringProgram.work`: eigenvalues of every block's bins, every round."""
        cubes = sum(size**3 for size in self._sizes) + len(self.blocks) ** 3
        return super().work() + len(self.rounds) * (_A_BLOCK * len(self.blocks) + cubes // 20)

    # --- inside ---------------------------------------------------------------------------------

    def _finished(self, sums: Sequence[NoisySum]) -> Finished:
        state, variances, calibration = self.begin(), np.zeros((2, 0)), None
        for number, found in enumerate(sums, 1):
            kind = self.rounds[number - 1].kind
            opened, stddev = self._read_sum(kind, found)
            before, state = state, self.step(number, state, found)
            if kind == CALIBRATION:
                calibration = (opened, stddev)
            elif kind == SCORES:
                now = State.of(before)
                variances = fitting.score_variances(self.blocks, now, opened, stddev)
            elif kind == COUNTS:
                variances = fitting.evidence_variances(self.blocks, State.of(state))
            else:
                weights = self._weights(State.of(before), State.of(state))
                variances = variances * weights**2
        return Finished(State.of(state), variances, calibration, len(sums))

    def _weights(self, before: State, after: State) -> FloatArray:
        """What opening 2 multiplied each bin's evidence by, float64 (K,)."""
        found = np.zeros(len(after.effects))
        for at in offsets(self.blocks):
            size = float(np.abs(before.effects[at]).max())
            found[at] = float(np.abs(after.effects[at]).max()) / size if size > 0 else 0.0
        return found

    def _read_sum(self, kind: str, found: NoisySum) -> tuple[FloatArray, float]:
        """What was opened and its noise's deviation: in records, or of products the rows' sum."""
        unit = SENSITIVITY_GRID / (sqrt(len(self.blocks)) if kind in (COUNTS, SCORES) else 1.0)
        return found.total / unit, found.stddev / unit

    def _read(self, records: Columns) -> adding.Learnt:
        target, name = self.content.data.target, self.content.data.target.columns[0]
        if isinstance(target, Regression):
            low, high = target.range
            labels = (records.numbers(name) - low) / (high - low)
            known = ~np.isnan(labels)
        else:
            codes = records.codes(name)
            labels, known = np.where(codes == 1, 1.0, 0.0), codes < 2
        labels = np.where(known, np.clip(labels, 0.0, 1.0), 0.0)
        return adding.Learnt(coded(self.blocks, records), labels, known.astype(np.float64))

    def _table(self, values: FloatArray) -> list[FloatArray]:
        return [values[at] for at in offsets(self.blocks)]

    @cached_property
    def _sizes(self) -> list[int]:
        return [block.size for block in self.blocks]

    @cached_property
    def _rising(self) -> list[int]:
        """Of each block 1 where the chance may only rise, -1 where it may only fall, else 0."""
        directions = {"rising": 1, "falling": -1}
        named = {name: directions[each] for name, each in self.content.monotone.items()}
        return [named.get(block.name, 0) for block in self.blocks]

    def _length(self, kind: str) -> int:
        whole, count = sum(self._sizes), len(self.blocks)
        return {
            COUNTS: 2 * whole,
            PRODUCTS: count * (count + 1) // 2 + count,
            SCORES: whole,
            CALIBRATION: 2 * (len(SCORE_ENDS) - 1),
        }[kind]


def _standing_for(names: Sequence[str]) -> float:
    """A whole number below 2^40 for some sites; others have another, but for chance."""
    digest = hashlib.sha256("\0".join(sorted(names)).encode()).digest()
    return float(int.from_bytes(digest[:5]))
