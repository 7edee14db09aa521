"""Grades: which grade the model gives records of which, and how many grades it is off."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from privagg.programs.answers import Figure
from privagg.programs.evaluation.classes import confusion_figures, require_few
from privagg.programs.evaluation.estimates import Cells, FloatArray
from privagg.programs.evaluation.measure import Codes, Measure, Scores, in_cells, some_of
from privagg.training.targets import Ordinal


class GradesMeasure(Measure):
    """A cell for each pair of a record's grade and the grade that the model gives it.

    That is the median grade: as many as there are thresholds, from the lowest on, that the model
    holds a record to be above rather than not. Nothing else is opened, so that the cells have the
    whole budget.

    Args:
        target: with the grades, from the lowest to the highest.

    Raises:
        ConfigError: there are too many for a table of all pairs.
    """

    only_ones = True

    def __init__(self, target: Ordinal) -> None:
        require_few(target.class_count)
        self._names = [*map(str, target.classes)]
        self._grades = target.class_count

    def width(self, number: int) -> int:
        """See `Measure.width`: pairs, those of the lowest grade first."""
        return self._grades**2

    def square(self, number: int) -> Fraction:
        """See `Measure.square`."""
        return Fraction(1)

    def ones(self, number: int) -> int:
        """See `Measure.ones`."""
        return 1

    def rows(self, number: int, knots: FloatArray, scores: Scores) -> FloatArray:
        """See `Measure.rows`."""
        grades = np.asarray(scores.targets, dtype=np.int64)
        pairs = grades * self._grades + median_grades(scores.outputs)
        return in_cells(pairs, self._grades**2)

    def cells(
        self, opened: FloatArray, variance: float, group: dict[str, str], level: float
    ) -> Cells:
        """See `Measure.cells`."""
        counts = self._grades**2
        noise, sampling = np.full(counts, variance), np.maximum(opened, 0.0)
        return Cells(opened, noise, sampling, counts, group, level)

    def figures(self, knots: FloatArray, cells: Cells) -> tuple[Figure, ...]:
        """See `Measure.figures`: as of classes; then how many grades off, beside a guess."""
        everyone, most = some_of(cells.counts, slice(None)), float(self._grades - 1)
        places = np.arange(self._grades)
        off = np.abs(places[:, None] - places).astype(np.float64)

        def away(values: FloatArray) -> float:
            return float((values * off.ravel()).sum() / values.sum())

        def guessed(values: FloatArray) -> float:
            each = values.reshape(self._grades, -1).sum(axis=1)
            return float((off @ each).min() / values.sum())

        return (
            *confusion_figures(cells, self._names),
            cells.figure("mean absolute grade error", away, everyone, limits=(0.0, most)),
            cells.figure("base grade error", guessed, everyone, limits=(0.0, most)),
        )


def median_grades(outputs: FloatArray) -> Codes:
    """The grade that a model gives each record, int64 `(r,)`.

    Args:
        outputs: float64 `(r, k)`, a logit for each threshold; not a number counts as 0.
    """
    above = np.minimum.accumulate(np.nan_to_num(outputs, nan=0.0), axis=1) > 0
    return np.asarray(above.sum(axis=1), dtype=np.int64)
