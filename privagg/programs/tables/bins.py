"""The public bins of a table: each declared column, and each declared pair, cut into places.

A record is in one bin of every block, by its own cells and the public declaration alone. Bins of a
number are equal steps of its declared range on its declared scale, or lie between edges that are
given; a category is a bin. What is missing, or none of the declared categories, is a bin of its
own, and so is 0 on a logarithmic scale that starts there: nothing is imputed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from math import expm1, inf, log1p

import numpy as np

from privagg.programs.questions.columns import Codes, Columns, FloatArray
from privagg.programs.questions.question import OTHER
from privagg.training.features import CategoricalFeature, NumericFeature

_DIGITS = 4
"""Of an edge, where bins stay apart by them: a points table is read by people."""


@dataclass(frozen=True)
class Cut:
    """One column in bins: those of its values in their order, then one for what is missing.

    Attributes:
        column: its name.
        labels: of the bins; the last is `OTHER`.
        edges: between the bins of numbers, rising, in the column's unit: a value on an edge lies
            below it. None of categories.
        ordered: whether neighbouring bins are alike.
    """

    column: str
    labels: tuple[str, ...]
    edges: tuple[float, ...] | None
    ordered: bool

    @classmethod
    def of_number(cls, feature: NumericFeature, count: int, edges: Sequence[float] | None) -> Cut:
        """A column of numbers.

        Args:
            feature: its declaration.
            count: bins in equal steps, without that of what is missing; 2 at least.
            edges: in place of equal steps, rising within the range.
        """
        found = equal_steps(feature, count) if edges is None else tuple(edges)
        low, high = feature.range
        labels = [f"{a:.6g} to {b:.6g}" for a, b in pairwise((low, *found, high))]
        if found[0] == low:
            labels[0] = f"{low:.6g}"
        return cls(feature.name, (*labels, OTHER), found, True)

    @classmethod
    def of_categories(cls, feature: CategoricalFeature, ordered: bool) -> Cut:
        """A column of categories.

        Args:
            feature: its declaration.
            ordered: whether the order of the declared categories means something.
        """
        return cls(feature.name, (*map(str, feature.categories), OTHER), None, ordered)

    def codes(self, records: Columns) -> Codes:
        """The bin of each record, int64 (r,)."""
        if self.edges is None:
            return records.codes(self.column)
        values = records.numbers(self.column)
        place = np.searchsorted(np.array(self.edges), values, side="left")
        return np.where(np.isnan(values), len(self.labels) - 1, place).astype(np.int64)

    @cached_property
    def distances(self) -> FloatArray:
        """How many steps bins lie apart, float64 (K, K); infinite where they say nothing alike."""
        count = len(self.labels)
        place = np.arange(count, dtype=np.float64)
        if self.ordered:
            found = np.abs(place[:, None] - place)
            found[-1, :-1] = found[:-1, -1] = inf
            return found
        return np.where(np.eye(count) > 0, 0.0, inf)


@dataclass(frozen=True)
class Block:
    """Bins that every record is in one of: those of a column, or of a pair of columns together.

    Attributes:
        cuts: one, or two; the bin of two is that of the first times the bins of the second, plus
            that of the second.
    """

    cuts: tuple[Cut, ...]

    @property
    def name(self) -> str:
        """How it is called."""
        return " × ".join(cut.column for cut in self.cuts)

    @property
    def size(self) -> int:
        """Its bins."""
        found = 1
        for cut in self.cuts:
            found *= len(cut.labels)
        return found

    def codes(self, records: Columns) -> Codes:
        """The bin of each record, int64 (r,)."""
        found = np.zeros(len(records), dtype=np.int64)
        for cut in self.cuts:
            found = found * len(cut.labels) + cut.codes(records)
        return found

    @cached_property
    def groups(self) -> tuple[dict[str, str], ...]:
        """Of each bin, column -> label."""
        columns = [cut.column for cut in self.cuts]
        places = product(*(cut.labels for cut in self.cuts))
        return tuple(dict(zip(columns, labels, strict=True)) for labels in places)

    @cached_property
    def distances(self) -> FloatArray:
        """As `Cut.distances`, float64 (size, size); of a pair, the steps of both together."""
        found = np.zeros((1, 1))
        for cut in self.cuts:
            count = len(found) * len(cut.labels)
            found = (found[:, None, :, None] + cut.distances[None, :, None, :]).reshape(count, -1)
        return found


def equal_steps(feature: NumericFeature, count: int) -> tuple[float, ...]:
    """Edges of so many bins in equal steps of a column's declared scale.

    Args:
        feature: its declaration.
        count: bins; on a logarithmic scale from 0 the first holds 0 alone.
    """
    low, high = feature.range
    start, end = (_scaled(feature, bound) for bound in (low, high))
    apart = feature.transform == "signed-log" and low == 0
    steps = count - 1 if apart else count
    exact = [_unscaled(feature, start + (end - start) * k / steps) for k in range(1, steps)]
    exact = [low, *exact] if apart else exact
    short = [float(f"{each:.{_DIGITS}g}") for each in exact]
    bounded = [*short, high] if apart else [low, *short, high]
    return tuple(short if all(a < b for a, b in pairwise(bounded)) else exact)


def _scaled(feature: NumericFeature, value: float) -> float:
    if feature.transform == "linear":
        return value
    return (1 if value >= 0 else -1) * log1p(abs(value) / feature.log_unit)


def _unscaled(feature: NumericFeature, value: float) -> float:
    if feature.transform == "linear":
        return value
    return (1 if value >= 0 else -1) * feature.log_unit * expm1(abs(value))


def coded(blocks: Sequence[Block], records: Columns) -> Codes:
    """The bin of each record in each block, int64 (blocks, r)."""
    return np.stack([block.codes(records) for block in blocks])


def offsets(blocks: Sequence[Block]) -> Iterator[slice]:
    """Where each block's bins stand among those of all."""
    start = 0
    for block in blocks:
        yield slice(start, start + block.size)
        start += block.size
