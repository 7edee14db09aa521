"""A training's rounds compared: one bounded figure of the model after every few of them.

The held-out records are the same each time, so that the sums of a figure compare the rounds. A
figure lies between 0 and 1, and a record adds it less a half, twice: from -1 to 1. Beside it a
record counts a quarter, which says how many there are and costs little. What stops a training and
which round is best follows from these opened sums and the public schedule alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import log, log1p
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from privagg.errors import ConfigError
from privagg.programs.answers import Answer, Figure, Interval
from privagg.programs.evaluation.amounts import absolute_errors
from privagg.programs.evaluation.binary import squared_errors
from privagg.programs.evaluation.classes import squared_distances
from privagg.programs.evaluation.estimates import BoolArray, Cells, FloatArray
from privagg.programs.evaluation.grades import median_grades
from privagg.programs.evaluation.measure import Codes, Measure, Scores, some_of
from privagg.training.targets import ClassKind, MultiLabel, Ordinal, Regression, TargetKind

COUNTED = Fraction(1, 4)
"""What a record counts, beside a figure from -1 to 1."""

MOST_LOOKS = 1000

LOOKS = "looks"
"""Under which a plan of training pins its `Schedule`."""


class Schedule(BaseModel):
    """When a training is looked at, and what follows: public, and pinned with the plan.

    Args:
        rounds: of the training, as planned.
        every: rounds between two evaluations.
        figure: that is compared.
        patience: the training stops after so many evaluations without an improvement.
        least: what counts as an improvement, in the figure's unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(ge=1, le=10**6)
    every: int = Field(ge=1, le=10**6)
    figure: Literal["accuracy", "error"] = "error"
    patience: int | None = Field(default=None, ge=1, le=10**4)
    least: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @property
    def looks(self) -> int:
        """How many evaluations there are at most."""
        return self.rounds // self.every

    def require_some(self) -> None:
        """Refuse a schedule without any evaluation, or with too many.

        Raises:
            ConfigError: says which.
        """
        if not 1 <= self.looks <= MOST_LOOKS:
            raise ConfigError(
                f"evaluation.rounds.every = {self.every} of {self.rounds} rounds makes "
                f"{self.looks} evaluations; there are 1 to {MOST_LOOKS}. Nothing was spent"
            )


class Compared(NamedTuple):
    """A figure by which rounds are compared.

    Attributes:
        name: as it is told.
        lost: of each record, float64 `(r,)` in [0, 1], by its own outputs and target alone; 0 is
            best.
        highest: what is told of a record whose `lost` is 1, or of an accuracy whose is 0.
        rises: whether more is better.
    """

    name: str
    lost: Callable[[Scores], FloatArray]
    highest: float = 1.0
    rises: bool = False

    def told(self, lost: float) -> float:
        """The figure, in its own unit."""
        return self.highest * (1 - lost if self.rises else lost)


def compared(target: TargetKind, figure: str, cut: float) -> Compared:
    """What is compared for a kind of target.

    Args:
        target: what the model predicts.
        figure: of a `Schedule`.
        cut: logit from which on a yes is called so.

    Raises:
        ConfigError: the kind has no such figure.
    """
    error = figure == "error"
    if isinstance(target, ClassKind) and target.class_count > 2:
        if error:
            return Compared("Brier score", squared_distances, 2.0)
        return Compared("accuracy", lambda s: _wrong(s.outputs.argmax(axis=1), s), rises=True)
    if isinstance(target, ClassKind | MultiLabel):
        if error:
            return Compared("Brier score", squared_errors)
        return Compared("accuracy", lambda s: _wrong(s.outputs >= cut, s), rises=True)
    if isinstance(target, Ordinal):
        if not error:
            return Compared("accuracy", lambda s: _wrong(median_grades(s.outputs), s), rises=True)
        most = float(target.class_count - 1)
        return Compared(
            "mean absolute grade error",
            lambda s: np.abs(median_grades(s.outputs) - s.targets) / most,
            most,
        )
    if isinstance(target, Regression) and error:
        low, high = target.range
        return Compared("mean absolute error", lambda s: absolute_errors(target, s), high - low)
    raise ConfigError(
        f"evaluation.rounds.figure {figure!r} is none of a model of {target.name!r}; take 'error', "
        "with a target of classes, grades, labels or an amount. Nothing was spent"
    )


def _wrong(called: BoolArray | Codes, scores: Scores) -> FloatArray:
    """Whether each record is called otherwise than it is; of several labels, which part of them."""
    wrong = np.asarray(called, dtype=np.int64).reshape(len(scores.targets), -1) != np.asarray(
        scores.targets
    ).reshape(len(scores.targets), -1)
    return np.asarray(wrong.mean(axis=1), dtype=np.float64)


class RoundsMeasure(Measure):
    """A figure and a count of each of the training's rounds that are looked at.

    Args:
        schedule: when, and what is compared.
        target: what the model predicts.
        threshold: probability from which on a yes is called so.

    Raises:
        ConfigError: there is nothing to look at, or the target has no such figure.
    """

    def __init__(self, schedule: Schedule, target: TargetKind, threshold: float) -> None:
        schedule.require_some()
        cut = log(threshold) - log1p(-threshold)
        self.schedule, self._compared = schedule, compared(target, schedule.figure, cut)
        self.parts = (Fraction(1, schedule.looks),) * schedule.looks

    def width(self, number: int) -> int:
        """See `Measure.width`: the count, then the figure."""
        return 2

    def square(self, number: int) -> Fraction:
        """See `Measure.square`."""
        return 1 + COUNTED**2

    def ones(self, number: int) -> int:
        """See `Measure.ones`; it counts a part of one."""
        return 1

    def rows(self, number: int, knots: FloatArray, scores: Scores) -> FloatArray:
        """See `Measure.rows`."""
        outputs = np.nan_to_num(scores.outputs, nan=0.0)
        lost = np.clip(self._compared.lost(Scores(outputs, scores.targets)), 0.0, 1.0)
        return np.stack([np.full(len(lost), float(COUNTED)), 1 - 2 * lost], axis=1)

    def cells(
        self, opened: FloatArray, variance: float, group: dict[str, str], level: float
    ) -> Cells:
        """See `Measure.cells`: how many records, and the figure's sum."""
        weights = np.array([float(COUNTED), 1.0])
        sampling = np.array([max(opened[0], 0.0) / float(COUNTED), 0.0])
        return Cells(opened / weights, variance / weights**2, sampling, 1, group, level)

    def figures(self, knots: FloatArray, cells: Cells) -> tuple[Figure, ...]:
        """See `Measure.figures`: the figure, for one round."""
        each, size = self._compared, max(cells.total, 1.0)
        part = min(max((1 - float(cells.values[1]) / size) / 2, 0.0), 1.0)
        return (
            cells.figure(
                each.name,
                lambda v: each.told((1 - float(v[1] / v[0])) / 2),
                some_of(1, [0]),
                limits=(0.0, each.highest),
                sampling=each.highest**2 * part * (1 - part) / size,
            ),
        )

    # --- what follows -----------------------------------------------------------------------------

    def best(self, opened: Sequence[FloatArray]) -> int:
        """The round with the best figure, the first of equal ones.

        Args:
            opened: one at least; float64 (2,) each, in records, with noise.
        """
        sums = [float(each[1]) for each in opened]
        return self.schedule.every * (1 + sums.index(max(sums)))

    def stops(self, opened: Sequence[FloatArray]) -> bool:
        """Whether the training stops after the last of these looks.

        Args:
            opened: as for `best`.
        """
        patience, highest = self.schedule.patience, self._compared.highest
        if patience is None:
            return False
        count = max(float(np.mean([each[0] for each in opened])) / float(COUNTED), 1.0)
        needed = 2 * count * self.schedule.least / highest
        best, since = float(opened[0][1]), 0
        for each in opened[1:]:
            found = float(each[1])
            best, since = (found, 0) if found > best + needed else (best, since + 1)
        return since >= patience

    def answer(self, opened: Sequence[FloatArray], variance: float, level: float) -> Answer:
        """What the looks say: how many records, the figure of each round, and the best one.

        Args:
            opened: as for `best`.
            variance: of the noise of each number.
            level: of the intervals.
        """
        weights = np.array([float(COUNTED), 1.0])
        count = float(np.mean([each[0] for each in opened])) / weights[0]
        noise = variance / np.array([len(opened), 1.0]) / weights**2
        sampling = np.array([max(count, 0.0), 0.0])

        def cells(total: float, group: dict[str, str]) -> Cells:
            return Cells(np.array([count, total]), noise, sampling, 1, group, level)

        found = [cells(0.0, {}).count("count", some_of(1, [0]))]
        for place, each in enumerate(opened, 1):
            group = {"round": str(place * self.schedule.every)}
            found.extend(self.figures(np.zeros(0), cells(float(each[1]), group)))
        best = float(self.best(opened))
        known = Interval(best, best)
        found.append(Figure("best round", {}, best, best, known, known))
        about = "how well the model does after which round"
        return Answer({"name": "rounds", "about": about}, tuple(found))
