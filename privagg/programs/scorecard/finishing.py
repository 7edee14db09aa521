"""What a scorecard answers: points with their bands, what counts most, how right its scores are.

Bands are those of the last smoothing: how far a bin's points may lie beside its neighbours and 0,
the other columns taken as they came out, and how far the calibration line moves all of them. What
noise in other columns does to them is left out. So they are about right, and no promise;
`tests/programs/test_scorecard.py` holds them against many draws of the noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np

from privagg.programs.answers import Answer, Figure, Interval, around
from privagg.programs.questions.columns import FloatArray
from privagg.programs.scorecard.asked import Asked
from privagg.programs.scorecard.card import DECIMALS, Card, CardBlock, as_points
from privagg.programs.scorecard.fitting import State, centred
from privagg.programs.tables.bins import Block, offsets
from privagg.programs.tables.calibration import (
    POSITIVES,
    Line,
    area_figure,
    line_of,
    logit,
    reliability_figures,
    score_cells,
)
from privagg.programs.tables.importance import importance_figure
from privagg.training.targets import Regression

POINTS, START = "points", "points to start from"


@dataclass(frozen=True)
class Finished:
    """A card before it is scaled.

    Attributes:
        state: after the last opening.
        variances: float64 (2, K), of the effects: by the noise alone, and with sampling.
        calibration: float64 (2B,), counts by bin of the score and their noise's deviation; None
            where they were not opened.
        openings: how many sums it rests on.
    """

    state: State
    variances: FloatArray
    calibration: tuple[FloatArray, float] | None
    openings: int

    @cached_property
    def line(self) -> Line:
        """What makes scores probabilities; by itself no change."""
        if self.calibration is None:
            return Line(0.0, 1.0, np.zeros(2))
        return line_of(*self.calibration, self.state.share)

    def effects(self, blocks: Sequence[Block]) -> tuple[float, list[FloatArray]]:
        """The logit of a record of mean effects, and effects of mean 0, by block."""
        intercept, slope, _ = self.line
        raw, whole = [self.state.effects[at] for at in offsets(blocks)], self.state.whole
        pairs = zip(raw, offsets(blocks), strict=True)
        found = [centred(each, whole[at]) for each, at in pairs]
        means = sum(float((a - b)[0]) for a, b in zip(raw, found, strict=True))
        base = logit(self.state.share) + intercept + slope * means
        return base, [slope * each for each in found]

    def point_variances(self, blocks: Sequence[Block]) -> FloatArray:
        """Of the final effects, float64 (2, K), the line's among them."""
        line = self.line
        effects = np.concatenate(self.effects(blocks)[1]) / line.slope
        return line.slope**2 * self.variances + line.variance[:, None] * effects**2


def card_of(
    content: Asked, blocks: Sequence[Block], found: Finished, label: str | None = None
) -> Card:
    """The card as a file.

    Args:
        content: what was asked.
        blocks: of bins.
        found: what was learned.
        label: the class that it is of, where there are several.
    """
    up = label is not None or isinstance(content.data.target, Regression)
    base, effects = found.effects(blocks)
    points = as_points(effects, content.scaling, up)
    return Card(
        data=content.data,
        label=label,
        scaling=content.scaling,
        start=round(content.scaling.start(base, up), DECIMALS),
        blocks=tuple(CardBlock.of(*each) for each in zip(blocks, points, strict=True)),
        openings=found.openings,
    )


def answers_of(
    content: Asked, blocks: Sequence[Block], found: Finished, label: str | None = None
) -> Iterator[Answer]:
    """The answers.

    Args:
        content, blocks, found, label: as for `card_of`.
    """
    card, level, whole = card_of(content, blocks, found, label), content.level, found.state.whole
    per_logit = abs(content.scaling.per_logit(card.counts_up))
    errors = per_logit * np.sqrt(found.point_variances(blocks))
    yield _whole_card(content, blocks, found, card)
    yield Answer(
        {"name": "importance", "about": "how far points of each column vary between records"},
        tuple(
            importance_figure(
                block.name,
                np.array(card.blocks[place].points),
                whole[at],
                errors[:, at],
                level,
            )
            for place, (block, at) in enumerate(zip(blocks, offsets(blocks), strict=True))
        ),
    )
    for block, own, at in zip(blocks, card.blocks, offsets(blocks), strict=True):
        figures = [
            Figure(
                POINTS, group, value, value, around(value, by_noise, level),
                around(value, with_sampling, level),
            )
            for group, value, by_noise, with_sampling in zip(
                block.groups, own.points, *errors[:, at].tolist(), strict=True
            )
        ]  # fmt: skip
        yield Answer({"name": block.name, "about": "points by bin"}, tuple(figures))
    if found.calibration is not None and not card.is_amount:
        yield Answer(
            {"name": "calibration", "about": "share of positives by score"},
            tuple(reliability_figures(score_cells(*found.calibration, level), found.state.share)),
        )


def _whole_card(content: Asked, blocks: Sequence[Block], found: Finished, card: Card) -> Answer:
    state, level = found.state, content.level
    count = float(state.whole.sum()) / len(blocks)
    noise = state.noise**2 * len(state.whole) / len(blocks) ** 2 / max(count, 1.0) ** 2
    sampling = state.share * (1 - state.share) / max(count, 1.0)
    low, high, what = 0.0, 1.0, POSITIVES
    if isinstance(content.data.target, Regression):
        (low, high), what = content.data.target.range, "mean"
    share = low + (high - low) * state.share
    start = Interval(card.start, card.start)
    figures = [
        Figure(START, {}, card.start, card.start, start, start),
        Figure(
            what, {}, share, share,
            around(share, (high - low) * sqrt(noise), level, (low, high)),
            around(share, (high - low) * sqrt(noise + sampling), level, (low, high)),
        ),
    ]  # fmt: skip
    if found.calibration is not None and not card.is_amount:
        figures.append(area_figure(score_cells(*found.calibration, level)))
    about = "points add up, from those that every record has"
    return Answer({"name": "the card", "about": about}, tuple(figures))
