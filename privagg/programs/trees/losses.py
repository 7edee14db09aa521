"""What a record adds to a leaf, by the kind of target, and why it is never longer than 1.

With f the public score of a record, a record adds a gradient g and a curvature h, scaled so that
the square of all its numbers together is at most 1 whatever f is (proofs/boosted-trees.md):

    two classes    g = y - p, h = c p (1 - p), c = 3.3
    more classes   g_k = [y = k] - p_k, h_k = c p_k (1 - p_k), c = 2, all by 1/√2
    an amount      g = (y - f)/B clipped to [-1, 1], h = 1, weighted by a cosine and a sine
    time to event  g and h added over all of a person's intervals, and shrunk where longer than 1

so the state moves what is learned and never what is charged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np

from privagg.errors import ConfigError
from privagg.programs.questions.columns import Codes, Columns, FloatArray
from privagg.programs.questions.logistic import ROUNDING, exponentials
from privagg.programs.questions.question import one_hot
from privagg.programs.tables.calibration import SHARES, STEEPEST, logit, public_share
from privagg.training.targets import Regression, Target, TargetKind, TimeToEvent

TWO_CLASSES = 3.3
"""c of two classes; 3.3302 is the largest that holds (proofs/scorecard.md, 7)."""

MORE_CLASSES = 2.0
"""c of more classes, the largest that holds (proofs/boosted-trees.md, 2)."""

COUNT_PART = 0.3
"""Of an amount's row of norm 1: the weight of the count beside the gradient."""

CLIP = 0.5
"""B: residuals of squared loss beyond this part of the range count as its end."""

SPREAD = 0.3
"""Variance of an amount's residual, in parts of B², that leaves are shrunk by."""

_LEAST = 1e-9


class Learnt(NamedTuple):
    """Some records as trees read them.

    Attributes:
        codes: int64 (F, r), the bin of each in each column.
        cells: float64 (m, r), what is counted of each in the opening that trees start from; the
            squares of a record's add up to 1 at most.
        target: float64 (t, r), by the loss.
        counted: float64 (r,), 0 of a record without a target, which adds nothing; else 1.
    """

    codes: Codes
    cells: FloatArray
    target: FloatArray
    counted: FloatArray


class Sums(NamedTuple):
    """Gradients and curvatures of records, float64 (K, r) each."""

    gradient: FloatArray
    curvature: FloatArray


class Loss(ABC):
    """One kind of target.

    Attributes:
        outputs: K, numbers that a leaf has.
        bases: numbers that scores start from.
        cells: m, what is counted of a record at first.
        gradient, curvature: what g and h are multiplied by in a record's row.
        spread: variance of g beside its curvature.
    """

    outputs: int
    bases: int
    cells: int
    gradient: float
    curvature: float
    spread: float = 1.0

    @abstractmethod
    def read(self, codes: Codes, records: Columns) -> Learnt:
        """Some records.

        Args:
            codes: int64 (F, r).
            records: the same.
        """

    @abstractmethod
    def base(self, opened: FloatArray, stddev: float) -> FloatArray:
        """Where scores start, float64 (bases,).

        Args:
            opened: float64 (m,), sums of `Learnt.cells`.
            stddev: of the noise of each.
        """

    @abstractmethod
    def of_cells(self, base: FloatArray) -> Sums:
        """Gradient and curvature of a record of each cell where scores are 0: float64 (K, m) each.

        Args:
            base: float64 (bases,).
        """

    @abstractmethod
    def rows(self, base: FloatArray, scores: FloatArray, some: Learnt) -> Sums:
        """What each record adds to its leaf of one tree; the square of all is at most 1.

        Args:
            base: float64 (bases,).
            scores: float64 (K, r), of the trees so far.
            some: records.
        """

    @abstractmethod
    def predictions(self, base: FloatArray, scores: FloatArray) -> FloatArray:
        """Chances of classes, amounts, or chances of no event until each interval's end.

        Args:
            base: float64 (bases,).
            scores: float64 (K, r).

        Returns:
            float64 (n, r): n is 1, the number of classes, or that of intervals.
        """


def loss_of(target: TargetKind) -> Loss:
    """The loss of a target.

    Args:
        target: as declared.

    Raises:
        ConfigError: trees are not for its kind; nothing was spent.
    """
    if isinstance(target, Target):
        return TwoClasses(target) if target.kind == "binary" else MoreClasses(target)
    if isinstance(target, Regression) and target.loss in ("squared", "huber"):
        return Amount(target)
    if isinstance(target, TimeToEvent):
        return Hazards(target)
    told = f"loss {target.loss!r}" if isinstance(target, Regression) else "another kind"
    raise ConfigError(
        f"the target {target.name!r} has {told}; boosted trees are for classes, for an amount "
        "under squared or huber loss, and for a time to an event. Train a gradient model for "
        "others. Nothing was spent"
    )


@dataclass
class TwoClasses(Loss):
    """y is 0 or 1; scores are logits."""

    of: Target
    outputs, bases, cells = 1, 1, 2
    gradient, curvature = ROUNDING, TWO_CLASSES * ROUNDING

    def read(self, codes: Codes, records: Columns) -> Learnt:
        """See `Loss.read`."""
        cells, counted = _classes(self.of, records)
        return Learnt(codes, cells, cells[1:], counted)

    def base(self, opened: FloatArray, stddev: float) -> FloatArray:
        """See `Loss.base`: the logit of the share of positives."""
        return np.array([logit(public_share(_shares(opened, stddev)[1]))])

    def of_cells(self, base: FloatArray) -> Sums:
        """See `Loss.of_cells`."""
        chance = float(self.predictions(base, np.zeros((1, 1)))[0, 0])
        return Sums(np.array([[-chance, 1 - chance]]), np.full((1, 2), chance * (1 - chance)))

    def rows(self, base: FloatArray, scores: FloatArray, some: Learnt) -> Sums:
        """See `Loss.rows`."""
        chance = self.predictions(base, scores)
        counted = some.counted * ROUNDING
        bent = TWO_CLASSES * chance * (1 - chance)
        return Sums((some.target - chance) * counted, bent * counted)

    def predictions(self, base: FloatArray, scores: FloatArray) -> FloatArray:
        """See `Loss.predictions`."""
        return np.asarray(1 / (1 + exponentials(-np.clip(base[0] + scores, -STEEPEST, STEEPEST))))


class MoreClasses(Loss):
    """y is one of K classes; scores are logarithms of chances but for a common addend."""

    def __init__(self, target: Target) -> None:
        self.of, count = target, target.class_count
        self.outputs = self.bases = self.cells = count
        self.gradient = sqrt(0.5) * ROUNDING
        self.curvature = MORE_CLASSES * self.gradient

    def read(self, codes: Codes, records: Columns) -> Learnt:
        """See `Loss.read`."""
        cells, counted = _classes(self.of, records)
        return Learnt(codes, cells, cells, counted)

    def base(self, opened: FloatArray, stddev: float) -> FloatArray:
        """See `Loss.base`: logarithms of the classes' shares."""
        return np.asarray(np.log(np.maximum(_shares(opened, stddev), SHARES[0] / len(opened))))

    def of_cells(self, base: FloatArray) -> Sums:
        """See `Loss.of_cells`."""
        chances = self.predictions(base, np.zeros((self.outputs, 1)))
        bent = np.tile(chances * (1 - chances), self.outputs)
        return Sums(np.eye(self.outputs) - chances, bent)

    def rows(self, base: FloatArray, scores: FloatArray, some: Learnt) -> Sums:
        """See `Loss.rows`."""
        chances, counted = self.predictions(base, scores), some.counted * self.gradient
        bent = MORE_CLASSES * chances * (1 - chances)
        return Sums((some.target - chances) * counted, bent * counted)

    def predictions(self, base: FloatArray, scores: FloatArray) -> FloatArray:
        """See `Loss.predictions`."""
        logits = np.clip(base[:, None] + scores, -STEEPEST, STEEPEST)
        parts = exponentials(logits - logits.max(axis=0))
        whole = np.zeros(parts.shape[1])
        for each in parts:  # one after the other: alike however many records there are
            whole = whole + each
        return np.asarray(parts / whole)


class Amount(Loss):
    """y is an amount's place in its range, in [0, 1]; scores are in parts of B."""

    outputs, bases, cells = 1, 1, 2
    spread = SPREAD

    def __init__(self, target: Regression) -> None:
        low, high = target.range
        self.of, self.low, self.width = target, low, high - low
        self.reach = CLIP
        if target.loss == "huber":
            self.reach = min(target.delta / self.width, 1.0) if target.delta else 0.1
        self.gradient = sqrt(1 - COUNT_PART**2) * ROUNDING
        self.curvature = COUNT_PART * ROUNDING

    def read(self, codes: Codes, records: Columns) -> Learnt:
        """See `Loss.read`."""
        place = (records.numbers(self.of.columns[0]) - self.low) / self.width
        counted = (~np.isnan(place)).astype(np.float64)
        place = np.clip(np.nan_to_num(place), 0.0, 1.0)
        cells = np.stack([1 - place, place]) * counted
        return Learnt(codes, cells, place[None], counted)

    def base(self, opened: FloatArray, stddev: float) -> FloatArray:
        """See `Loss.base`: the mean's place."""
        return np.array([_shares(opened, stddev)[1]])

    def of_cells(self, base: FloatArray) -> Sums:
        """See `Loss.of_cells`: a record's residual is the mean of both by its place."""
        return Sums((np.array([[0.0, 1.0]]) - base[0]) / self.reach, np.ones((1, 2)))

    def rows(self, base: FloatArray, scores: FloatArray, some: Learnt) -> Sums:
        """See `Loss.rows`."""
        missed = (some.target - self._places(base, scores)) / self.reach
        missed = np.clip(missed, -1.0, 1.0) * self.gradient
        return Sums(missed * some.counted, (some.counted * self.curvature)[None])

    def predictions(self, base: FloatArray, scores: FloatArray) -> FloatArray:
        """See `Loss.predictions`."""
        return self.low + self.width * self._places(base, scores)

    def _places(self, base: FloatArray, scores: FloatArray) -> FloatArray:
        return np.asarray(np.clip(base[0] + self.reach * scores, 0.0, 1.0))


class Hazards(Loss):
    """y is when a person was seen last and how; the one score moves all hazards' logits alike."""

    outputs = 1
    gradient = curvature = ROUNDING

    def __init__(self, target: TimeToEvent) -> None:
        self.of, self.bases = target, target.outputs
        self.cells = 2 * target.outputs + 1

    def read(self, codes: Codes, records: Columns) -> Learnt:
        """See `Loss.read`: a person is in one cell, of the interval it was seen last in and how."""
        time, event = (self.of.columns[0], self.of.columns[1])
        parts, events = records.numbers(time) / self.of.last, records.codes(event)
        known = (events < 2) & (parts >= 0)
        encoded = np.stack([np.where(known, parts, 0.0), np.where(known, events, 0)], axis=1)
        periods, (outlived, had) = self.of.periods(encoded), self.of.seen_last(encoded)
        cell = np.where(had, self.bases + 1 + np.minimum(outlived, self.bases - 1), outlived)
        counted = known.astype(np.float64)
        target = np.concatenate([periods.seen.T, periods.happened.T])
        return Learnt(codes, one_hot(cell, self.cells).T * counted, target, counted)

    def base(self, opened: FloatArray, stddev: float) -> FloatArray:
        """See `Loss.base`: logits of the intervals' hazards, as far as the noise lets them be.

        Each is drawn to the hazard of all intervals together.
        """
        left, events = opened[: self.bases + 1], opened[self.bases + 1 :]
        reach = left[::-1].cumsum()[::-1] + np.append(events[::-1].cumsum()[::-1], 0.0)
        people = np.maximum(reach[:-1] - (left[:-1] + events) / 2, 0.0)
        doubt = stddev * sqrt(2.0 * self.cells)
        typical = public_share((max(events.sum(), 0.0) + _LEAST) / (people.sum() + doubt + _LEAST))
        hazards = (np.maximum(events, 0.0) + doubt * typical) / (people + doubt + _LEAST)
        return np.array([logit(public_share(each)) for each in hazards.tolist()])

    def of_cells(self, base: FloatArray) -> Sums:
        """See `Loss.of_cells`: who was seen last in an interval was followed for half of it."""
        chances = 1 / (1 + np.exp(-np.clip(base, -STEEPEST, STEEPEST)))
        found = list[FloatArray]()
        for each in (chances, chances * (1 - chances)):
            before = np.append(0.0, each.cumsum())
            found.append(np.concatenate([before + np.append(each, 0.0) / 2, before[1:]]))
        happened = np.arange(self.cells) > self.bases
        return Sums((happened - found[0])[None], found[1][None])

    def rows(self, base: FloatArray, scores: FloatArray, some: Learnt) -> Sums:
        """See `Loss.rows`: all intervals of a person together, shrunk where longer than 1."""
        seen, happened = np.split(some.target, 2)
        missed, bent = np.zeros(len(some.counted)), np.zeros(len(some.counted))
        for at, start in enumerate(base.tolist()):
            chance = 1 / (1 + exponentials(-np.clip(start + scores[0], -STEEPEST, STEEPEST)))
            missed = missed + happened[at] - seen[at] * chance
            bent = bent + seen[at] * chance * (1 - chance)
        shrink = some.counted * ROUNDING / np.maximum(1.0, np.sqrt(missed * missed + bent * bent))
        return Sums((missed * shrink)[None], (bent * shrink)[None])

    def predictions(self, base: FloatArray, scores: FloatArray) -> FloatArray:
        """See `Loss.predictions`."""
        logits = np.clip(base[:, None] + scores, -STEEPEST, STEEPEST)
        return self.of.predictions((logits - self.of.starting_logits[:, None]).T).T


def _classes(target: Target, records: Columns) -> tuple[FloatArray, FloatArray]:
    """A 1 in the class of each record, float64 (K, r), and whether it has one."""
    codes = records.codes(target.columns[0])
    found = (np.arange(target.class_count)[:, None] == codes).astype(np.float64)
    return found, found.any(axis=0).astype(np.float64)


def _shares(opened: FloatArray, stddev: float) -> FloatArray:
    """Parts of each cell, drawn to equal ones as far as the noise goes."""
    doubt = stddev * sqrt(len(opened)) + _LEAST
    found = np.maximum(opened, 0.0) + doubt / len(opened)
    return np.asarray(found / found.sum())
