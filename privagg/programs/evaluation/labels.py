"""Several labels of one record: each is measured as two classes are, all from the same openings."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from privagg.errors import ConfigError
from privagg.programs.answers import Answer, Figure
from privagg.programs.evaluation.binary import BinaryMeasure
from privagg.programs.evaluation.estimates import Cells, FloatArray
from privagg.programs.evaluation.measure import Measure, Scores
from privagg.training.targets import MultiLabel

MOST_LABELS = 100


class LabelsMeasure(Measure):
    """A record adds for each of L labels what it would add were that the only one.

    Its row's norm is the root of L times that of one label.

    Args:
        target: with the labels.
        threshold, bins: of each label, as `BinaryMeasure` has them.

    Raises:
        ConfigError: there are too many labels, or the threshold cannot be told.
    """

    parts = BinaryMeasure.parts

    def __init__(self, target: MultiLabel, threshold: float, bins: int) -> None:
        if len(target.labels) > MOST_LABELS:
            raise ConfigError(
                f"the figures of {len(target.labels)} labels would be mostly noise; at most "
                f"{MOST_LABELS} labels are evaluated on held-out records. Nothing was spent"
            )
        self._labels, self._one = target.labels, BinaryMeasure(threshold, bins)

    def width(self, number: int) -> int:
        """See `Measure.width`: one label after the other."""
        return len(self._labels) * self._one.width(number)

    def square(self, number: int) -> Fraction:
        """See `Measure.square`."""
        return len(self._labels) * self._one.square(number)

    def ones(self, number: int) -> int:
        """See `Measure.ones`."""
        return len(self._labels) * self._one.ones(number)

    def knots(self, number: int) -> int:
        """See `Measure.knots`: each label has its own."""
        return len(self._labels) * self._one.knots(number)

    def place(self, opened: FloatArray) -> FloatArray:
        """See `Measure.place`."""
        return np.concatenate([self._one.place(own) for own in self._split(opened)])

    def rows(self, number: int, knots: FloatArray, scores: Scores) -> FloatArray:
        """See `Measure.rows`."""
        found = [
            self._one.rows(
                number, own, Scores(scores.outputs[:, [place]], scores.targets[:, place])
            )
            for place, own in enumerate(self._split(knots))
        ]
        return np.concatenate(found, axis=1)

    def cells(
        self, opened: FloatArray, variance: float, group: dict[str, str], level: float
    ) -> Cells:
        """See `Measure.cells`: as they were opened; `figures` parts them by label."""
        size = len(opened)
        return Cells(opened, np.full(size, variance), np.zeros(size), size, group, level)

    def figures(self, knots: FloatArray, cells: Cells) -> tuple[Figure, ...]:
        """See `Measure.figures`: those of each label."""
        return tuple(
            figure
            for own, part in self._parted(knots, cells)
            for figure in self._one.figures(own, part)
        )

    def curves(self, knots: FloatArray, cells: Cells) -> tuple[Answer, ...]:
        """See `Measure.curves`: of each label."""
        found = [self._one.curves(own, part) for own, part in self._parted(knots, cells)]
        return tuple(
            Answer(each[0].question, tuple(figure for one in each for figure in one.figures))
            for each in zip(*found, strict=True)
        )

    def _parted(self, knots: FloatArray, cells: Cells) -> list[tuple[FloatArray, Cells]]:
        """Knots and cells of each label."""
        variance = float(cells.noise[0])
        return [
            (own, self._one.cells(part, variance, {**cells.group, "label": label}, cells.level))
            for label, own, part in zip(
                self._labels, self._split(knots), self._split(cells.values), strict=True
            )
        ]

    def _split(self, values: FloatArray) -> list[FloatArray]:
        return np.split(values, len(self._labels))
