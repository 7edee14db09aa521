"""The categories of a column that nobody has listed: found, read out and counted under noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from privagg.programs.answers import Figure, count_figure
from privagg.programs.facts.cells import HASHES, LONGEST, MISSING, Bytes, Cells, Texts
from privagg.programs.facts.numbers import deviations_of
from privagg.programs.questions.columns import Codes, Columns, FloatArray
from privagg.programs.questions.question import Found, Question, one_hot
from privagg.training.features import BoolArray
from privagg.training.table import TableSchema

READING = 4
"""Rounds in which texts are read out."""

DIGITS = 16
"""Values of half a byte."""

SEEN = 3.0
"""Deviations of noise above which a cell of lengths and hashes is read out."""

FALSE_RATE = 0.01
"""Probability at most that a column's list has a category which no record has."""


class _Slots(NamedTuple):
    """What is read out: the public state.

    Attributes:
        length: int64 (most,), bytes of each slot's text; 0 where the slot is empty.
        hash: int64 (most,), of the text.
        digits: int64 (most, 2·longest), half bytes, as far as they were read.
    """

    length: Codes
    hash: Codes
    digits: Codes

    @property
    def state(self) -> FloatArray:
        """As one vector of floats."""
        parts = (self.length, self.hash, self.digits.ravel())
        return np.concatenate(parts).astype(np.float64)

    @property
    def texts(self) -> Bytes:
        """uint8 (most, `LONGEST`), as `Texts.text` has them."""
        halves = self.digits.astype(np.uint8)
        found = np.zeros((len(halves), LONGEST), dtype=np.uint8)
        found[:, : halves.shape[1] // 2] = halves[:, ::2] * DIGITS + halves[:, 1::2]
        return found


class CategoryFacts(Question):
    """A column's categories and how many records have each; rare ones are counted together.

    Round 1 counts a record by its text's length and hash. Up to `most` cells that stand out are
    read out in rounds 2 to 5: a record whose text falls in such a cell adds 1 at each half byte of
    its text, and the largest count is that half byte of the cell's text. The last round counts the
    texts so found. One that no noise explains is a category: as that noise is drawn after the text
    is fixed, a list has a text that no record has with probability `FALSE_RATE` at most.

    Args:
        longest: bytes of a text that can be a category; a longer one counts as another.
        most: how many texts are read out.
        target: the column is what is predicted.
    """

    kind: Literal["category"] = "category"
    longest: int = Field(default=24, ge=1, le=LONGEST)
    most: int = Field(default=24, ge=1, le=256)
    target: bool = False

    @property
    def about(self) -> str:
        """See `Question.about`."""
        return f"categories and gaps of {self.name}"

    @property
    def round_count(self) -> int:
        """See `Question.round_count`."""
        return READING + 2

    def width(self, schema: TableSchema, number: int) -> int:
        """See `Question.width`."""
        if number == 1:
            return 1 + self.longest * HASHES  # first the missing
        if number == self.round_count:
            return 2 + self.most  # the missing, and those that are none of the texts
        return self.most * self._in_a_round * DIGITS

    def state_length(self, schema: TableSchema, number: int) -> int:
        """See `Question.state_length`."""
        return 0 if number == 1 else self.most * (2 + 2 * self.longest)

    def rows(
        self, schema: TableSchema, number: int, state: FloatArray, records: Columns
    ) -> FloatArray:
        """See `Question.rows`: 1 in one cell; where k half bytes are read out, 1/√k in k cells."""
        assert isinstance(records, Cells)
        texts, width = records.texts(self.name), self.width(schema, number)
        if number == 1:
            cell = np.where(
                texts.length == MISSING, 0, 1 + (texts.length - 1) * HASHES + texts.hash
            )
            return one_hot(cell, width) * (texts.length <= self.longest)[:, None]
        slots = self._slots(state)
        if number == self.round_count:
            same = _same(texts, slots)
            cell = np.where(same.any(axis=1), 2 + same.argmax(axis=1), texts.length != MISSING)
            return one_hot(cell.astype(np.int64), width)
        return self._digit_rows(number, slots, texts)

    def step(self, schema: TableSchema, number: int, state: FloatArray, found: Found) -> FloatArray:
        """See `Question.step`: the cells that stand out; then their texts, by half bytes."""
        if number == 1:
            cells = found.sums[1:]
            order = np.argsort(-cells, kind="stable")[: self.most]
            seen = order[cells[order] > SEEN * found.stddev]
            length, hashes = (np.zeros(self.most, dtype=np.int64) for _ in range(2))
            length[: len(seen)], hashes[: len(seen)] = seen // HASHES + 1, seen % HASHES
            return _Slots(length, hashes, np.zeros((self.most, 2 * self.longest), np.int64)).state
        slots = self._slots(state)
        cells = found.sums.reshape(self.most, self._in_a_round, DIGITS)
        places = range(number - 2, 2 * self.longest, READING)
        for column, place in enumerate(places):
            there = place < 2 * slots.length
            slots.digits[there, place] = cells[there, column].argmax(axis=1)
        return slots.state

    def answer(
        self, schema: TableSchema, found: Sequence[Found], level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`: a count for each category, for all others, and of the missing."""
        state, last = np.zeros(0), found[-1]
        for number, each in enumerate(found[: self.round_count - 1], 1):
            state = self.step(schema, number, state, each)
        if len(found) < self.round_count:
            return (self._gaps(found[0], level),)
        slots = self._slots(state)
        counts, named, others = last.sums[2:], list[tuple[float, str]](), [float(last.sums[1])]
        enough = deviations_of(FALSE_RATE, self.most) * last.stddev
        for place, text in enumerate(_texts_of(slots)):
            if text is not None and counts[place] > enough:
                named.append((float(counts[place]), text))
            elif slots.length[place]:
                others.append(float(counts[place]))
        named.sort(key=lambda each: (-each[0], each[1]))
        figures = [count_figure(n, {self.name: text}, last.stddev, level) for n, text in named]
        rest = last.stddev * sqrt(len(others))
        other = replace(count_figure(sum(others), {}, rest, level), what="others")
        return (*figures, other, self._gaps(last, level))

    @property
    def _in_a_round(self) -> int:
        """Half bytes of a text that are read out in one round, at most."""
        return -(-2 * self.longest // READING)

    def _slots(self, state: FloatArray) -> _Slots:
        whole = state.astype(np.int64)
        length, hashes = whole[: self.most], whole[self.most : 2 * self.most]
        return _Slots(length, hashes, whole[2 * self.most :].reshape(self.most, -1))

    def _digit_rows(self, number: int, slots: _Slots, texts: Texts) -> FloatArray:
        """float64 (r, width): the half bytes that this round reads out of each record's text."""
        within = (texts.length[:, None] == slots.length) & (texts.hash[:, None] == slots.hash)
        within &= slots.length > 0
        count, slot = len(texts.length), within.argmax(axis=1)
        rows = np.zeros((count, self.most, self._in_a_round, DIGITS))
        every, there = np.arange(count), within.any(axis=1)
        read = np.zeros(count)
        for column, place in enumerate(range(number - 2, 2 * self.longest, READING)):
            byte = texts.text[:, place // 2].astype(np.int64)
            digit = byte % DIGITS if place % 2 else byte // DIGITS
            adds = there & (place < 2 * texts.length)
            rows[every, slot, column, digit] = adds
            read += adds
        rows /= np.sqrt(np.maximum(read, 1.0))[:, None, None, None]
        return rows.reshape(count, -1)

    def _gaps(self, found: Found, level: float) -> Figure:
        return count_figure(float(found.sums[0]), {"missing": self.name}, found.stddev, level)


def _same(texts: Texts, slots: _Slots) -> BoolArray:
    """bool (r, most): whose text is a slot's, to the last byte."""
    read = slots.texts
    alike = texts.length[:, None] == np.where(slots.length > 0, slots.length, -1)
    return np.asarray(alike & (texts.text[:, None, :] == read).all(axis=2))


def _texts_of(slots: _Slots) -> list[str | None]:
    """Each slot's text; None where it is none, or another slot's, too."""
    found: list[str | None] = []
    for data, length in zip(slots.texts, slots.length, strict=True):
        try:
            text = data[:length].tobytes().decode("utf-8") if length else None
        except UnicodeDecodeError:
            text = None
        found.append(None if text in found or text is None or not text.isprintable() else text)
    return found
