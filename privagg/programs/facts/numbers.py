"""The range, quantiles and gaps of a column of numbers of which nothing is known yet."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10, sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np

from privagg.programs.answers import LEAST_DEVIATIONS, Figure, Interval, count_figure
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.questions.quantiles import quantile_figures
from privagg.programs.questions.question import Found, Question, one_hot
from privagg.training.table import TableSchema

SMALLEST, LARGEST = -20, 44
"""Binary exponents: numbers closer to 0 than 2^-20 count as 0, those beyond 2^44 as 2^44."""

_ENDS = 2.0 ** np.arange(SMALLEST, LARGEST + 1)
_EDGES = np.concatenate([-_ENDS[::-1], _ENDS])
_LOWS = np.where(_EDGES[:-1] == -_ENDS[0], 0.0, _EDGES[:-1])
_HIGHS = np.where(_EDGES[1:] == _ENDS[0], 0.0, _EDGES[1:])
SIZES = len(_LOWS)
"""Cells of one sign and one binary exponent, with that of 0 between the signs."""

BINS = 32
TAIL = 0.005
"""Part of the records beyond each proposed end."""

AT = (TAIL, 0.1, 0.25, 0.5, 0.75, 0.9, 1 - TAIL)

FALSE_RATE = 1e-4
"""Probability at most that a range reaches to sizes that no record has."""

MOST_HIDDEN = 0.25
NEAR_ZERO = 8
EVIDENCE = 2.0
"""Deviations of noise by which an end's records are more than may be left out."""


class NumberFacts(Question):
    """A column's range from three histograms, each within what the one before it found.

    Round 1 counts a record by its number's sign and binary exponent; sizes whose count no noise
    explains make up a first range. Rounds 2 and 3 count in bins of equal width within the range so
    far, what lies outside in the end bins, and leave out at both ends as many bins as hold no more
    than `TAIL` of the records by all that can be told through the noise.
    """

    kind: Literal["number"] = "number"

    @property
    def about(self) -> str:
        """See `Question.about`."""
        return f"range, quantiles and gaps of {self.name}"

    @property
    def round_count(self) -> int:
        """See `Question.round_count`."""
        return 3

    def width(self, schema: TableSchema, number: int) -> int:
        """See `Question.width`: sizes or bins, and a cell of missing numbers."""
        return 1 + (SIZES if number == 1 else BINS)

    def state_length(self, schema: TableSchema, number: int) -> int:
        """See `Question.state_length`: the range so far; both ends 0 where none was found."""
        return 0 if number == 1 else 4

    def rows(
        self, schema: TableSchema, number: int, state: FloatArray, records: Columns
    ) -> FloatArray:
        """See `Question.rows`: 1 in one cell."""
        values, width = records.numbers(self.name), self.width(schema, number)
        known = ~np.isnan(values)
        inside = np.where(known, values, 0.0)
        if number == 1:
            cell = np.searchsorted(_EDGES, inside, side="right") - 1
        elif state[0] < state[1]:
            place = (np.clip(inside, state[0], state[1]) - state[0]) / (state[1] - state[0]) * BINS
            cell = place.astype(np.int64)
        else:
            cell = np.zeros(len(values), dtype=np.int64)
        return one_hot(np.where(known, np.clip(cell, 0, width - 2), width - 1), width)

    def step(self, schema: TableSchema, number: int, state: FloatArray, found: Found) -> FloatArray:
        """See `Question.step`: the range so far."""
        cells = found.sums[:-1]
        if number == 1:
            kept = np.flatnonzero(cells > deviations_of(FALSE_RATE, SIZES) * found.stddev)
            return _of_sizes(int(kept[0]), int(kept[-1])) if len(kept) else np.zeros(4)
        return _within(cells, found.stddev, state)

    def answer(
        self, schema: TableSchema, found: Sequence[Found], level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`: both ends, quantiles, and how many have or lack a number.

        Quantiles are those of numbers clamped to the range of round 2. An end's value is rounded
        outward to few digits, and `raw` is where the bins say it is.
        """
        state = np.zeros(0)
        for number, each in enumerate(found, 1):
            before, state = state, self.step(schema, number, state, each)
        last = found[-1]
        gaps = count_figure(float(last.sums[-1]), {"missing": self.name}, last.stddev, level)
        if len(found) < self.round_count or not before[0] < before[1]:
            return (gaps,)
        cells = last.sums[:-1]
        edges = np.linspace(before[0], before[1], BINS + 1)
        quantiles = quantile_figures(edges, cells, last.stddev, AT, level)
        if float(cells.sum()) < LEAST_DEVIATIONS * last.stddev * sqrt(BINS):
            return (gaps, *quantiles)
        values = outward(float(state[0]), float(state[1]))
        ends = (
            _end("low end", values[0], float(state[0]), quantiles[0]),
            _end("high end", values[1], float(state[1]), quantiles[-1]),
        )
        return (*ends, *quantiles, gaps)


def _end(what: str, value: float, raw: float, quantile: Figure) -> Figure:
    """A proposed end, in the intervals of the quantile that it stands for, widened to hold it."""
    records, population = (
        Interval(min(value, each.low), max(value, each.high))
        for each in (quantile.records, quantile.population)
    )
    return Figure(what, {}, value, raw, records, population)


def deviations_of(rate: float, times: int) -> float:
    """Deviations that none of `times` normal variables exceeds but with probability `rate`.

    Args:
        rate: in (0, 1), an upper bound.
        times: how many variables.
    """
    return NormalDist().inv_cdf(1 - rate / times)


def outward(low: float, high: float) -> tuple[float, float]:
    """A range with ends of few digits that holds the given one, at most a twelfth wider.

    Args:
        low, high: its ends, low < high.
    """
    power = 10.0 ** floor(log10((high - low) / 24))
    step = max(power * each for each in (1, 2, 5) if power * each <= (high - low) / 24)
    digits = max(0, -floor(log10(step)))
    return round(floor(low / step) * step, digits), round(ceil(high / step) * step, digits)


def _of_sizes(first: int, last: int) -> FloatArray:
    """The range of the sizes seen, and the widest to be proposed: a size more at each end.

    An end that is small beside the other one is taken as 0: sizes halve towards 0 without end, each
    with fewer records than can be seen.
    """
    low, high = float(_LOWS[first]), float(_HIGHS[last])
    if abs(low) <= abs(high) / NEAR_ZERO:
        return np.array([0.0, high, 0.0, _HIGHS[min(last + 1, SIZES - 1)]])
    if abs(high) <= abs(low) / NEAR_ZERO:
        return np.array([low, 0.0, _LOWS[max(first - 1, 0)], 0.0])
    wide = _LOWS[max(first - 1, 0)], _HIGHS[min(last + 1, SIZES - 1)]
    return np.array([low, high, *wide])


def _within(cells: FloatArray, stddev: float, state: FloatArray) -> FloatArray:
    """The range without what may be left out at its ends, and the first one after it."""
    edges, count = np.linspace(state[0], state[1], BINS + 1), float(cells.sum())
    if count < LEAST_DEVIATIONS * stddev * sqrt(BINS):
        return state
    below = np.clip(np.concatenate([[0.0], np.cumsum(cells)]) / count, 0.0, 1.0)
    middle = float(np.interp(0.5, np.maximum.accumulate(below), edges))
    noise = stddev / count
    low = middle - _reach(middle - edges, cells / count, noise)
    high = middle + _reach(edges[::-1] - middle, cells[::-1] / count, noise)
    found = np.clip([low, high], state[2], state[3])
    return np.array([*found, *state[2:]]) if found[0] < found[1] else state


def _reach(distances: FloatArray, shares: FloatArray, noise: float) -> float:
    """How far one end lies from the middle.

    The first k bins are held against `EVIDENCE` deviations of their noise, for every k: a tail that
    no single bin shows is seen in several. Noise hides a tail of up to these; the end is moved out
    by as much as a bell curve's tail of that size would reach on.

    Args:
        distances: float64 (bins + 1,), of the bins' outer edges from the middle, from the end on.
        shares: float64 (bins,), of the records.
        noise: standard deviation of each.
    """
    hidden = TAIL + EVIDENCE * noise * np.sqrt(np.arange(1, len(shares) + 1))
    seen = np.flatnonzero(np.cumsum(shares) > hidden)
    first = int(seen[0]) if len(seen) else 0
    normal = NormalDist()
    further = normal.inv_cdf(TAIL) / normal.inv_cdf(min(float(hidden[first]), MOST_HIDDEN))
    return max(float(distances[first]), 0.0) * further
