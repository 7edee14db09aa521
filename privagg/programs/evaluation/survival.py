"""Time to an event: counts by risk score and by interval seen last, from which the C-index follows.

A first round, on a tenth of the budget, opens how the model's scores lie, without what happened,
so that bins of about equal counts follow. In the second a record adds 1 in one cell: its bin, the
interval in which it was seen last, and whether with the event. That one cell is its whole vector,
of norm 1, however many intervals there are.

Of two records in different intervals it is known who had the event first wherever the earlier one
had it. The C-index of these pairs is the figure: cells stand in pairs of different ones, whose
noise is independent, so that neither the pairs nor those in the right order are biased by it. Two
things tell it from the C-index of exact times and scores. Pairs within one interval do not count,
and are the hardest to tell apart, so that it lies higher: 0.779 for 0.749 with eight intervals of
made-up people; more intervals bring it nearer, at the cost of more noise. Pairs within one bin
count half, which moves it to 0.5 by about one part in bins² of its distance.
"""

from __future__ import annotations

from fractions import Fraction
from math import exp, inf, log, log1p

import numpy as np

from privagg.programs.answers import Figure, Interval
from privagg.programs.evaluation.binary import ENDS, distribution
from privagg.programs.evaluation.estimates import Cells, FloatArray
from privagg.programs.evaluation.measure import Measure, Scores, in_cells, some_of
from privagg.training.targets import TimeToEvent


class SurvivalMeasure(Measure):
    """A record counts in one cell, of K intervals with the event or K + 1 without, times the bins.

    Args:
        target: with the intervals.
        bins: of the scores: the logarithm of the hazard of all intervals together.
    """

    parts = (Fraction(1, 10), Fraction(9, 10))

    def __init__(self, target: TimeToEvent, bins: int) -> None:
        self._target, self._bins, self._intervals = target, bins, target.outputs

    def width(self, number: int) -> int:
        """See `Measure.width`: cells of scores; then with the event, then without, by interval."""
        return len(ENDS) - 1 if number == 1 else (2 * self._intervals + 1) * self._bins

    def square(self, number: int) -> Fraction:
        """See `Measure.square`."""
        return Fraction(1)

    def ones(self, number: int) -> int:
        """See `Measure.ones`."""
        return 1

    def knots(self, number: int) -> int:
        """See `Measure.knots`: the distribution function at `ENDS`."""
        return 0 if number == 1 else len(ENDS)

    def place(self, opened: FloatArray) -> FloatArray:
        """See `Measure.place`."""
        return distribution(opened)

    def rows(self, number: int, knots: FloatArray, scores: Scores) -> FloatArray:
        """See `Measure.rows`."""
        found = [_score(one) for one in self._target.logits(scores.outputs).tolist()]
        risks = np.array(found, dtype=np.float64)
        if number == 1:
            return in_cells(np.searchsorted(ENDS[1:-1], risks, side="right"), len(ENDS) - 1)
        cuts = np.interp(np.arange(1, self._bins) / self._bins, knots, ENDS)
        place = np.searchsorted(cuts, risks, side="right")
        interval, event = self._target.seen_last(scores.targets)
        group = np.where(event, interval, self._intervals + interval)
        return in_cells(group * self._bins + place, self.width(2))

    def cells(
        self, opened: FloatArray, variance: float, group: dict[str, str], level: float
    ) -> Cells:
        """See `Measure.cells`."""
        size = len(opened)
        return Cells(
            opened, np.full(size, variance), np.maximum(opened, 0.0), size, group, level
        )  # fmt: skip

    def figures(self, knots: FloatArray, cells: Cells) -> tuple[Figure, ...]:
        """See `Measure.figures`: the C-index beside that of any order, and how many had the event.

        Nothing is said of it where the number of pairs is not far above its noise.
        """
        everyone = some_of(cells.counts, slice(None))
        events = some_of(cells.counts, slice(0, self._intervals * self._bins))
        half = Interval(0.5, 0.5)
        return (
            cells.count("count", everyone),
            cells.count("with the event", events),
            cells.share("share with the event", events, everyone),
            cells.figure("C-index between intervals", self._index, events, everyone),
            Figure("base C-index", dict(cells.group), 0.5, 0.5, half, half),
        )

    def _index(self, values: FloatArray) -> float:
        """The share of pairs that are in the right order, of those whose order is known.

        Linear in each cell by itself, in its numerator and in its denominator.
        """
        bins, intervals = self._bins, self._intervals
        events, without = np.split(values.reshape(-1, bins), [intervals])
        outlived = np.cumsum((np.append(events[1:], np.zeros((1, bins)), axis=0)
                              + without[1:])[::-1], axis=0)[::-1]  # fmt: skip
        lower = np.cumsum(outlived, axis=1) - outlived / 2
        pairs = float((events.sum(axis=1) * outlived.sum(axis=1)).sum())
        return float((events * lower).sum()) / pairs if pairs > 0 else inf


def _score(logits: list[float]) -> float:
    """The logarithm of the hazard of all intervals together, of one record's own numbers."""
    whole = sum(max(each, 0.0) + log1p(exp(-abs(each))) for each in logits)
    return log(whole) if whole > 0 else -inf
