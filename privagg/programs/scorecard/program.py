"""A scorecard as a job of one, two or eight opened sums, and one more that calibrates it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import isqrt, sqrt
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import JsonValue

from privagg.encoding.vectors import FloatVector
from privagg.privacy.plan import OpeningTerms
from privagg.privacy.plan.arithmetic import sqrt_floor_decimal
from privagg.programs.answers import Answer
from privagg.programs.content import OfContent
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.scorecard import adding, fitting
from privagg.programs.scorecard.asked import Asked, blocks_of, classes_of
from privagg.programs.scorecard.cards import Cards
from privagg.programs.scorecard.finishing import Finished, answers_of, card_of
from privagg.programs.scorecard.fitting import State
from privagg.programs.scorecard.learning import (
    CALIBRATION,
    COUNTS,
    PRODUCTS,
    SCORES,
    Learning,
    Part,
)
from privagg.programs.sums import IntMatrix, Placed
from privagg.programs.sums_program import NoisySum, SumsProgram
from privagg.programs.tables.bins import coded
from privagg.programs.tables.calibration import SCORE_ENDS
from privagg.training.targets import Regression

SENSITIVITY_GRID = 2**20
"""S: a row of norm 1, truncated, has norm at most S."""

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
    """Points a bin, from a few opened sums; of several classes, a card of each against the others.

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
        self._labels = classes_of(content)
        directions = {"rising": 1, "falling": -1}
        named = {name: directions[each] for name, each in content.monotone.items()}
        rising = tuple(named.get(block.name, 0) for block in self.blocks)
        self._one = Learning(self.blocks, rising, max(len(self._labels) - 1, 1))
        self._known = WeakKeyDictionary[Columns, list[adding.Learnt]]()

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

    @property
    def cards(self) -> int:
        """How many are learned."""
        return max(len(self._labels), 1)

    def openings(self, noise_multiplier: Decimal) -> tuple[OpeningTerms, ...]:
        """See `SumsProgram.openings`."""
        state = self.cards * (fitting.HEAD + 5 * sum(self._one.sizes))
        return tuple(
            OpeningTerms(
                state=0 if number == 1 else state,
                length=self._length(each.kind),
                sensitivity_grid=SENSITIVITY_GRID,
                largest_grid=isqrt(SENSITIVITY_GRID**2 // self._parts_of_a_row(each.kind)),
                noise_multiplier=sqrt_floor_decimal(Fraction(noise_multiplier) ** 2 / each.part),
            )
            for number, each in enumerate(self.rounds, 1)
        )

    def integers(self, number: int, state: FloatVector, records: Columns) -> IntMatrix | Placed:
        """See `SumsProgram.integers`."""
        if records not in self._known:  # no state is in it
            self._known[records] = self._read(records)
        kind, some = self.rounds[number - 1].kind, self._known[records]
        if kind == COUNTS:
            labels = [each.labels for each in some]
            shares = labels if len(labels) > 1 else [1 - labels[0], labels[0]]
            places, amounts = adding.count_cells(some[0], shares, self._one.sizes)
            return self._in_blocks(places, amounts)
        cards = [*zip(self._states(state), some, strict=True)]
        if kind != SCORES:
            rows = [self._one.rows(kind, *card) for card in cards]
            return _whole(rows[0] if len(rows) == 1 else np.hstack(rows) / sqrt(len(rows)))
        cells = [self._one.cells(*card) for card in cards]
        whole = sum(self._one.sizes)
        places = np.concatenate([each + whole * k for k, (each, _) in enumerate(cells)], axis=1)
        amounts = np.concatenate([each for _, each in cells], axis=1) / sqrt(len(cards))
        return self._in_blocks(places, amounts)

    def step(self, number: int, state: FloatVector, found: NoisySum) -> FloatVector:
        """See `SumsProgram.step`: what opened sums say of each card so far."""
        before = [None] * self.cards if number == 1 else self._states(state)
        pairs = zip(before, self._split(number, found), strict=True)
        return np.concatenate([self._one.after(now, part).vector() for now, part in pairs])

    def answers(self, sums: Sequence[NoisySum]) -> tuple[Answer, ...]:
        """See `SumsProgram.answers`; of a job that was cut short, the card so far."""
        found = list[Answer]()
        for label, finished in self._finished(sums):
            for answer in answers_of(self.content, self.blocks, finished, label):
                name = str(answer.question["name"]) + (f" · {label}" if label else "")
                found.append(replace(answer, question={**answer.question, "name": name}))
        return tuple(found)

    def model(self, sums: Sequence[NoisySum]) -> dict[str, JsonValue]:
        """See `AnsweringProgram.model`: the card, or one of each class."""
        made = tuple(
            card_of(self.content, self.blocks, finished, label)
            for label, finished in self._finished(sums)
        )
        found = made[0] if len(made) == 1 else Cards(cards=made)
        return found.model_dump(mode="json")

    def work(self) -> int:
        """See `AnsweringProgram.work`: eigenvalues of every block's bins, every round."""
        cubes = sum(size**3 for size in self._one.sizes) + len(self.blocks) ** 3
        a_card = len(self.rounds) * (_A_BLOCK * len(self.blocks) + cubes // 20)
        return super().work() + self.cards * a_card

    # --- inside ---------------------------------------------------------------------------------

    def _finished(self, sums: Sequence[NoisySum]) -> Iterator[tuple[str | None, Finished]]:
        """Each card with the class that it is of; None where there is one card."""
        parts = [self._split(number, found) for number, found in enumerate(sums, 1)]
        for label, own in zip(self._labels or (None,), zip(*parts, strict=True), strict=True):
            yield label, self._one.finished(own)

    def _in_blocks(self, places: IntMatrix, amounts: FloatArray) -> Placed:
        """Rows that hold the same amount in every block."""
        return Placed(places, np.repeat(_whole(amounts), len(self.blocks), axis=1))

    def _states(self, state: FloatVector) -> list[State]:
        return [State.of(each) for each in np.split(state, self.cards)]

    def _parts_of_a_row(self, kind: str) -> int:
        """How many equal parts a record's square is split into, one for each coordinate at most."""
        blocks = len(self.blocks) if kind in (COUNTS, SCORES) else 1
        return blocks * (1 if kind == COUNTS else self.cards)

    def _split(self, number: int, found: NoisySum) -> list[Part]:
        """What a round opened of each card."""
        kind = self.rounds[number - 1].kind
        unit = SENSITIVITY_GRID / sqrt(self._parts_of_a_row(kind))
        opened, stddev = found.total / unit, found.stddev / unit
        if kind != COUNTS:
            own = np.split(opened, self.cards)
        elif self.cards == 1:
            own = [opened]
        else:
            counts = opened.reshape(self.cards, -1)
            own = [np.concatenate([counts.sum(axis=0) - each, each]) for each in counts]
        return [Part(kind, each, stddev, _standing_for(found.contributors)) for each in own]

    def _read(self, records: Columns) -> list[adding.Learnt]:
        """Some records as each card reads them."""
        target, name = self.content.data.target, self.content.data.target.columns[0]
        if isinstance(target, Regression):
            low, high = target.range
            labels = [(records.numbers(name) - low) / (high - low)]
            known = ~np.isnan(labels[0])
        else:
            codes = records.codes(name)
            classes = range(self.cards) if self._labels else [1]
            labels = [np.where(codes == each, 1.0, 0.0) for each in classes]
            known = codes < max(self.cards, 2)
        bins, counted = coded(self.blocks, records), known.astype(np.float64)
        labels = [np.where(known, np.clip(each, 0.0, 1.0), 0.0) for each in labels]
        for each in (bins, counted, *labels):
            each.flags.writeable = False  # a later round reads it again
        return [adding.Learnt(bins, each, counted) for each in labels]

    def _length(self, kind: str) -> int:
        whole, count = sum(self._one.sizes), len(self.blocks)
        a_card = {
            PRODUCTS: count * (count + 1) // 2 + count,
            SCORES: whole,
            CALIBRATION: 2 * (len(SCORE_ENDS) - 1),
        }
        return max(self.cards, 2) * whole if kind == COUNTS else self.cards * a_card[kind]


def _whole(amounts: FloatArray) -> IntMatrix:
    """In grid units, towards zero."""
    return (amounts * SENSITIVITY_GRID).astype(np.int64)


def _standing_for(names: Sequence[str]) -> float:
    """A whole number below 2^40 for some sites; others have another, but for chance."""
    digest = hashlib.sha256("\0".join(sorted(names)).encode()).digest()
    return float(int.from_bytes(digest[:5]))
