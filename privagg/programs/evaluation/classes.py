"""Three classes or more: which class the model gives records of which, and its two losses."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import exp, inf, log

import numpy as np

from privagg.errors import ConfigError
from privagg.programs.answers import Figure
from privagg.programs.evaluation.binary import LONGEST_LOSS, LOSS_WEIGHT
from privagg.programs.evaluation.estimates import Cells, FloatArray
from privagg.programs.evaluation.measure import Measure, Scores, in_cells, some_of

MOST_CLASSES = 30


class ClassesMeasure(Measure):
    """A cell for each pair of a record's class and the model's choice.

    Args:
        classes: K, how many there are.

    Raises:
        ConfigError: too many for a table of all pairs.
    """

    def __init__(self, classes: int) -> None:
        require_few(classes)
        self._classes = classes

    def width(self, number: int) -> int:
        """See `Measure.width`: pairs, those of the first class first, and two losses."""
        return self._classes**2 + 2

    def square(self, number: int) -> Fraction:
        """See `Measure.square`."""
        return 1 + 2 * LOSS_WEIGHT**2

    def ones(self, number: int) -> int:
        """See `Measure.ones`."""
        return 1

    def rows(self, number: int, knots: FloatArray, scores: Scores) -> FloatArray:
        """See `Measure.rows`; of equal outputs the first is chosen."""
        outputs = np.nan_to_num(scores.outputs, nan=0.0)
        numbers = np.asarray(scores.targets, dtype=np.int64)
        pairs = in_cells(numbers * self._classes + outputs.argmax(axis=1), self._classes**2)
        each = zip(outputs.tolist(), numbers.tolist(), strict=True)
        losses = np.array([_losses(*one) for one in each]).reshape(-1, 2)
        return np.concatenate([pairs, losses * float(LOSS_WEIGHT)], axis=1)

    def cells(
        self, opened: FloatArray, variance: float, group: dict[str, str], level: float
    ) -> Cells:
        """See `Measure.cells`."""
        counts = self._classes**2
        weights = np.ones(len(opened))
        weights[counts:] = float(LOSS_WEIGHT)
        sampling = np.concatenate([np.maximum(opened[:counts], 0.0), np.zeros(2)])
        return Cells(opened / weights, variance / weights**2, sampling, counts, group, level)

    def figures(self, knots: FloatArray, cells: Cells) -> tuple[Figure, ...]:
        """See `Measure.figures`: accuracy beside the base rate, each class's recall, losses."""
        names = [*map(str, range(self._classes))]
        return (
            *confusion_figures(cells, names),
            cells.mean("Brier score", -2, 2.0),
            cells.mean("log-loss", -1, LONGEST_LOSS),
        )


def require_few(classes: int) -> None:
    """Refuse a table of pairs that would be mostly noise.

    Args:
        classes: how many there are.

    Raises:
        ConfigError: too many.
    """
    if classes > MOST_CLASSES:
        raise ConfigError(
            f"a table of {classes} classes by {classes} would be mostly noise; at most "
            f"{MOST_CLASSES} classes are evaluated on held-out records. Nothing was spent"
        )


def confusion_figures(cells: Cells, names: Sequence[str]) -> tuple[Figure, ...]:
    """How many there are, accuracy beside the base rate, each class's recall, and all pairs.

    Args:
        cells: those of the first class come first, by what the model chose.
        names: of the K classes; the first K² counts are of their pairs.
    """
    classes, counts = len(names), cells.counts
    everyone = some_of(counts, slice(None))
    right = some_of(counts, [k * classes + k for k in range(classes)])
    each = [some_of(counts, slice(k * classes, (k + 1) * classes)) for k in range(classes)]

    def base_rate(values: FloatArray) -> float:
        own = values[: classes**2].reshape(classes, -1).sum(axis=1)
        return float(own.max() / own.sum())

    return (
        cells.count("count", everyone),
        cells.share("accuracy", right, everyone),
        cells.figure("base rate", base_rate, everyone),
        *(
            cells.share("recall", right & own, own, {"class": name})
            for name, own in zip(names, each, strict=True)
        ),
        *(
            cells.count(
                "count", some_of(counts, [k * classes + j]), {"class": name, "called": called}
            )
            for k, name in enumerate(names)
            for j, called in enumerate(names)
        ),
    )


def _losses(outputs: list[float], own: int) -> tuple[float, float]:
    """Brier's sum of squares in parts of 2, and log-loss in parts of its longest.

    On one record's numbers, in their order.
    """
    largest = max(outputs)
    if largest == inf:
        outputs = [0.0 if each == inf else -inf for each in outputs]
        largest = 0.0
    raised = [exp(each - largest) for each in outputs]
    whole = sum(raised)
    squares = sum((each / whole - (place == own)) ** 2 for place, each in enumerate(raised))
    loss = log(whole) - (outputs[own] - largest)
    return min(squares / 2, 1.0), min(loss, LONGEST_LOSS) / LONGEST_LOSS


def squared_distances(scores: Scores) -> FloatArray:
    """Brier's sum of squares of each record in parts of 2, float64 `(r,)`.

    Args:
        scores: of some records; no output is not a number.
    """
    numbers = np.asarray(scores.targets, dtype=np.int64)
    each = zip(scores.outputs.tolist(), numbers.tolist(), strict=True)
    return np.array([_losses(*one)[0] for one in each])
