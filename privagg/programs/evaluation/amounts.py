"""Amounts: how far predictions are off, by quantiles of the absolute error and its square mean."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import sqrt

import numpy as np

from privagg.programs.answers import Figure
from privagg.programs.evaluation.estimates import Cells, FloatArray
from privagg.programs.evaluation.measure import Measure, Scores, in_cells, some_of
from privagg.programs.questions.quantiles import quantile_figures
from privagg.training.targets import Regression

BINS = 32
ENDS = (np.arange(BINS + 1) / BINS) ** 2
"""Of the bins of an absolute error in parts of the declared range: finer where it is small."""

QUANTILES = (0.5, 0.9)


class AmountMeasure(Measure):
    """A count by absolute error, and the error's square; both in parts of the declared range.

    Predictions and amounts lie within that range, so that no error is beyond it.

    Args:
        target: with the range.
    """

    def __init__(self, target: Regression) -> None:
        self._target = target
        low, high = target.range
        self._range = high - low

    def width(self, number: int) -> int:
        """See `Measure.width`."""
        return BINS + 1

    def square(self, number: int) -> Fraction:
        """See `Measure.square`."""
        return Fraction(2)

    def ones(self, number: int) -> int:
        """See `Measure.ones`."""
        return 1

    def rows(self, number: int, knots: FloatArray, scores: Scores) -> FloatArray:
        """See `Measure.rows`; each prediction is made by itself."""
        off = absolute_errors(self._target, scores)
        counted = in_cells(np.searchsorted(ENDS[1:-1], off, side="right"), BINS)
        return np.concatenate([counted, (off * off)[:, None]], axis=1)

    def cells(
        self, opened: FloatArray, variance: float, group: dict[str, str], level: float
    ) -> Cells:
        """See `Measure.cells`."""
        sampling = np.concatenate([np.maximum(opened[:BINS], 0.0), np.zeros(1)])
        return Cells(opened, np.full(BINS + 1, variance), sampling, BINS, group, level)

    def figures(self, knots: FloatArray, cells: Cells) -> tuple[Figure, ...]:
        """See `Measure.figures`: in the column's own unit."""
        everyone = some_of(BINS, slice(None))
        counts = np.maximum(cells.values[:BINS], 0.0)
        squares = ((ENDS[:-1] + ENDS[1:]) / 2) ** 2
        size = max(float(counts.sum()), 1.0)
        mean = float((counts * squares).sum()) / size
        each = float((counts * (squares - mean) ** 2).sum()) / size
        middle = max(float(cells.values[-1]) / max(cells.total, 1.0), 0.0)
        quantiles = quantile_figures(
            self._range * ENDS, cells.values[:BINS], sqrt(cells.noise[0]), QUANTILES, cells.level
        )
        return (
            cells.count("count", everyone),
            cells.figure(
                "root mean square error", self._root, everyone, limits=(0.0, self._range),
                sampling=self._range**2 * each / (4 * max(middle, 1e-12) * size),
            ),
            *(
                replace(found, what=f"error {found.what}", group=dict(cells.group))
                for found in quantiles
            ),
        )  # fmt: skip

    def _root(self, values: FloatArray) -> float:
        return self._range * sqrt(max(float(values[-1] / values[:BINS].sum()), 0.0))


def absolute_errors(target: Regression, scores: Scores) -> FloatArray:
    """How far each prediction is off, float64 `(r,)`, in parts of the declared range.

    Args:
        target: with the range.
        scores: of some records; each prediction is made by itself.
    """
    outputs = np.nan_to_num(scores.outputs, nan=0.0)
    predictions = np.array([float(target.predictions(one[None])[0]) for one in outputs])
    low, high = target.range
    away = np.abs(predictions - target.amounts(scores.targets)) / (high - low)
    return np.asarray(np.clip(away, 0.0, 1.0))
