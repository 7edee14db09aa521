"""Trees whose structure is public: columns and cuts are drawn by a public seed, never by records.

A tree asks as many questions as it is deep, the same of every record, each of one column; the
answers, as bits, are the number of the leaf. A question about numbers, or about categories in an
order, is a cut between two bins; one about other categories is which part of them a cell is among.
What is missing falls on a side that is drawn too.

Source: Geurts, Ernst & Wehenkel 2006, "Extremely randomized trees", Machine Learning 63; one
question a level: Kohavi 1994, "Bottom-up induction of oblivious, read-once decision graphs".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import shake_256
from itertools import islice
from typing import Self

import numpy as np
import numpy.typing as npt

from privagg.programs.questions.columns import Codes
from privagg.programs.tables.bins import Block

Sides = npt.NDArray[np.int64]
Parts = npt.NDArray[np.int16]

_AT_ONCE = 4096
"""Bytes that are drawn together."""


@dataclass(frozen=True)
class Forest:
    """All trees, in their order.

    Attributes:
        columns: int64 (T, D), place of the block that each level of each tree asks about.
        sides: int64 (T, D, W), 0 or 1: the side of each of its bins; W the most of any block.
    """

    columns: Codes
    sides: Sides

    @classmethod
    def drawn(cls, blocks: Sequence[Block], count: int, depth: int, seed: int) -> Self:
        """By SHAKE-256 of the seed, so that everybody draws the same.

        Args:
            blocks: of bins, one a column.
            count: T, trees.
            depth: D, questions of each.
            seed: public.
        """
        numbers, widest = _numbers(seed), max(block.size for block in blocks)
        asked = list(islice(_columns(len(blocks), numbers), count * depth))
        sides = np.zeros((count * depth, widest), dtype=np.int64)
        for place, at in enumerate(asked):
            drawn = _sides(blocks[at], numbers)
            sides[place, : len(drawn)] = drawn
        return cls(np.array(asked).reshape(count, depth), sides.reshape(count, depth, widest))

    @property
    def trees(self) -> int:
        """T."""
        return len(self.columns)

    @property
    def depth(self) -> int:
        """D."""
        return int(self.columns.shape[1])

    @property
    def leaves(self) -> int:
        """L, of each tree."""
        return int(2**self.depth)

    @cached_property
    def answers(self) -> Codes:
        """Of each leaf the answers of all levels, int64 (L, D); the first is its highest bit."""
        return np.arange(self.leaves)[:, None] >> np.arange(self.depth)[::-1] & 1

    @cached_property
    def parts(self) -> tuple[Parts, ...]:
        """What each bin of each block adds to the number of each tree's leaf: int16 (W, T) each."""
        each = self.sides << np.arange(self.depth)[::-1, None]
        return tuple(
            (each * (self.columns == block)[:, :, None]).sum(axis=1).T.astype(np.int16)
            for block in range(int(self.columns.max()) + 1)
        )

    def places(self, codes: Codes, first: int, last: int) -> Codes:
        """The leaf of each record in trees `first` to `last` - 1, int64 (last - first, r).

        Args:
            codes: int64 (F, r), the bin of each record in each block.
            first, last: of the trees, from 0.
        """
        found = np.zeros((codes.shape[1], last - first), dtype=np.int16)
        for column, part in zip(codes, self.parts, strict=False):
            found += part[column, first:last]
        return np.ascontiguousarray(found.T).astype(np.int64)


def _numbers(seed: int) -> Iterator[int]:
    """64-bit numbers that follow from a seed, without end: remainders of them are even enough."""
    block = 0
    while True:
        name = f"privagg boosted-trees/1 seed {seed} block {block}".encode()
        yield from np.frombuffer(shake_256(name).digest(_AT_ONCE), dtype="<u8").tolist()
        block += 1


def _columns(count: int, numbers: Iterator[int]) -> Iterator[int]:
    """Columns without end: all of them shuffled, and again, so that none is asked more often."""
    while True:
        deck = list(range(count))
        while deck:
            yield deck.pop(next(numbers) % len(deck))


def _sides(block: Block, numbers: Iterator[int]) -> list[int]:
    """The side of each bin, the last one that of what is missing; values lie on both."""
    values = block.size - 1
    if values < 2:
        return [0] * values + [1]
    missing = next(numbers) % 2
    if block.cuts[0].ordered:
        cut = 1 + next(numbers) % (values - 1)
        return [*(int(place >= cut) for place in range(values)), missing]
    found = [next(numbers) % 2 for _ in range(values)]
    if len(set(found)) == 1:
        found[next(numbers) % values] ^= 1
    return [*found, missing]
