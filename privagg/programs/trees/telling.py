"""What boosted trees answer: what counts most, how each column moves a score, how right it is.

The effect of a column is its partial dependence: the mean of the score over records if all had that
bin and everything else as it is. Trees that ask all records the same questions have it exactly,
from the weight of each leaf. Its band takes each tree's noise by itself; later trees mend what
noise did to earlier ones, so that it is rather too wide, and it claims no more than that.

Source: Friedman 2001, "Greedy function approximation: a gradient boosting machine", 8.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from privagg.programs.answers import Answer, Figure, around
from privagg.programs.evaluation.estimates import Cells
from privagg.programs.questions.columns import Codes, FloatArray
from privagg.programs.tables.bins import Block, offsets
from privagg.programs.tables.calibration import (
    POSITIVES,
    Line,
    area_figure,
    line_of,
    public_share,
    reliability_figures,
    score_cells,
)
from privagg.programs.tables.importance import importance_figure
from privagg.programs.trees.asked import Asked
from privagg.programs.trees.growing import Grown, Started, State
from privagg.programs.trees.losses import Amount, Loss, MoreClasses, TwoClasses
from privagg.programs.trees.structure import Forest

EFFECT, MEAN, SHARE = "effect", "mean", "share"

_LEAST = 1e-9
"""Of a weight that is divided by."""

MOST_TOLD = 128
"""Effects of one column; of more, as many classes have, its importance alone is told."""


@dataclass(frozen=True)
class Finished:
    """Trees as their openings left them.

    Attributes:
        loss: of the target.
        blocks: of bins.
        forest: all questions.
        started: what opening 1 said.
        trees: grown ones, before the rate.
        rate: of each.
        calibration: counts by bin of the score and their noise's deviation; None where they were
            not opened.
    """

    loss: Loss
    blocks: Sequence[Block]
    forest: Forest
    started: Started
    trees: tuple[Grown, ...]
    rate: float
    calibration: tuple[FloatArray, float] | None

    @cached_property
    def line(self) -> Line:
        """What makes chances of two classes right; by itself no change."""
        if self.calibration is None:
            return Line(0.0, 1.0, np.zeros(2))
        return line_of(*self.calibration, self.share)

    @property
    def share(self) -> float:
        """Of positives, that scores start from."""
        return public_share(float(1 / (1 + np.exp(-self.started.base[0]))))

    @property
    def state(self) -> State:
        """What is said of records in the end, of as many trees as were grown."""
        slope, leaves = self.line.slope, [each.leaves for each in self.trees]
        none = np.zeros((0, self.loss.outputs, self.forest.leaves))
        return State(
            base=self.started.base + self.line.intercept,
            effects=slope * self.started.effects,
            leaves=slope * self.rate * (np.stack(leaves) if leaves else none),
        )

    def effects(self, place: int) -> tuple[FloatArray, FloatArray]:
        """How a column moves scores, and the variances: float64 (K, bins), float64 (2, K, bins).

        Args:
            place: of the column.
        """
        at, slope = [*offsets(self.blocks)][place], self.line.slope
        found = slope * self.started.effects[:, at]
        variances, step = slope**2 * self.started.variances[:, :, at], slope * self.rate
        for number, tree in enumerate(self.trees):
            levels = np.flatnonzero(self.forest.columns[number] == place).astype(np.int64)
            if not len(levels):
                continue
            sides = self.forest.sides[number, levels, : found.shape[1]]
            there = (sides.T[:, None, :] == self.forest.answers[:, levels]).all(axis=2)
            for output, (leaves, bent) in enumerate(zip(tree.leaves, tree.curvature, strict=True)):
                taken = step * there * _elsewhere(bent, self.forest, levels)
                reach = (taken @ tree.reach[output]) ** 2
                found[output] += taken @ leaves
                variances[0, output] += tree.noise * reach.sum(axis=1)
                variances[1, output] += reach @ (tree.noise + self.loss.spread * bent)
        return found, variances


def _elsewhere(curvature: FloatArray, forest: Forest, levels: Codes) -> FloatArray:
    """Of each leaf the weight of all with its answers at other levels, float64 (L,)."""
    cube = (curvature + _LEAST).reshape((2,) * forest.depth)
    summed = cube.sum(axis=tuple(levels.tolist()), keepdims=True)
    return np.broadcast_to(summed / cube.sum(), cube.shape).ravel()


def answers_of(content: Asked, found: Finished) -> Iterator[Answer]:
    """The answers.

    Args:
        content: what was asked.
        found: what was learned.
    """
    level = content.level
    about = "what bins and leaves add up to, from where scores start"
    yield Answer({"name": "the trees", "about": about}, tuple(_whole(content, found)))
    importance, effects = list[Figure](), list[Answer]()
    for place, (block, at) in enumerate(zip(found.blocks, offsets(found.blocks), strict=True)):
        whole, (values, variances) = found.started.whole[at] + _LEAST, found.effects(place)
        values = values - (values @ whole / whole.sum())[:, None]
        errors = np.sqrt(variances)
        importance.append(importance_figure(
            block.name, values.ravel(), np.tile(whole, len(values)), errors.reshape(2, -1), level
        ))  # fmt: skip
        if values.size <= MOST_TOLD:
            told = tuple(_effects(content, block, values, errors))
            effects.append(Answer({"name": block.name, "about": "effect by bin"}, told))
    about = "how far each column moves scores between records"
    yield Answer({"name": "importance", "about": about}, tuple(importance))
    yield from effects
    if found.calibration is not None:
        yield Answer(
            {"name": "calibration", "about": "share of positives by score"},
            tuple(reliability_figures(score_cells(*found.calibration, level), found.share)),
        )


def _effects(
    content: Asked, block: Block, values: FloatArray, errors: FloatArray
) -> Iterator[Figure]:
    target = content.data.target
    names = target.categories(target.columns[0]) if len(values) > 1 else ("",)
    for output, name in enumerate(names):
        each = zip(block.groups, values[output].tolist(), *errors[:, output].tolist(), strict=True)
        for group, value, by_noise, with_sampling in each:
            named = {**group, target.name: name} if name else group
            yield Figure(
                EFFECT, named, value, value, around(value, by_noise, content.level),
                around(value, with_sampling, content.level),
            )  # fmt: skip


def _whole(content: Asked, found: Finished) -> Iterator[Figure]:
    """What the target's cells say, and how well records are told apart."""
    loss, opened, target = found.loss, found.started.cells, content.data.target
    variance = np.full(len(opened), found.started.doubt**2)
    cells = Cells(opened, variance, np.maximum(opened, 0.0), len(opened), {}, content.level)
    whole, place = np.ones(len(opened), dtype=np.bool_), np.arange(len(opened))
    yield cells.count("count", whole)
    if isinstance(loss, TwoClasses):
        yield cells.share(POSITIVES, place == 1, whole)
        if found.calibration is not None:
            yield area_figure(score_cells(*found.calibration, content.level))
    elif isinstance(loss, MoreClasses):
        for number, label in enumerate(target.categories(target.columns[0])):
            yield cells.share(SHARE, place == number, whole, {target.name: label})
    elif isinstance(loss, Amount):
        low, width = loss.low, loss.width
        yield cells.figure(
            MEAN, lambda v: float(low + width * v[1] / v.sum()), whole, limits=(low, low + width)
        )
