"""How right scores are: counts of labels by score, the line that makes scores probabilities.

A record adds (1 - y, y) in the bin of its score, a vector of norm at most 1 whatever made the score
(proofs/scorecard.md). From the opened counts follow Platt's line, the share of positives by score
and the area under the ROC curve; all of it is post-processing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import log
from typing import NamedTuple

import numpy as np

from privagg.programs.answers import Figure
from privagg.programs.evaluation.estimates import Cells
from privagg.programs.questions.columns import FloatArray
from privagg.programs.questions.logistic import ROUNDING, exponentials
from privagg.programs.questions.question import one_hot

POSITIVES, AREA = "share of positives", "area under the ROC curve"

SHARES = (0.02, 0.98)
"""Least and largest share of positives that is worked with."""

STEEPEST = 30.0
"""Of a logit; beyond, a probability is 0 or 1 as far as anybody sees."""

SCORE_ENDS = np.linspace(-4.0, 4.0, 25)
"""Of the bins, in logits from that of the share of positives."""

CALIBRATED = (1.0, 0.14)
"""How far the line's intercept and slope are expected to lie from 0 and 1."""

LOWEST_LINE, HIGHEST_LINE = (-2.0, 0.5), (2.0, 2.0)
"""Beyond, noise is all there is."""

_LEAST, _STEPS = 1e-9, 20


class Line(NamedTuple):
    """What makes scores probabilities.

    Attributes:
        intercept, slope: of the logits.
        variance: float64 (2,), of the slope: by the noise alone, and with sampling.
    """

    intercept: float
    slope: float
    variance: FloatArray


def logit(share: float) -> float:
    """The logarithm of the odds.

    Args:
        share: above 0 and below 1.
    """
    return log(share) - log(1 - share)


def public_share(value: float) -> float:
    """A share that may be worked with, whatever a state says it is."""
    return min(max(float(np.nan_to_num(value, nan=0.5)), SHARES[0]), SHARES[1])


def score_rows(away: FloatArray, labels: FloatArray, counted: FloatArray) -> FloatArray:
    """Counts by bin of the score, float64 (r, 2B): of label 0, then of label 1.

    Args:
        away: float64 (r,), logits from that of the share of positives.
        labels: float64 (r,), within [0, 1].
        counted: float64 (r,), 0 of a record that adds nothing, else 1.
    """
    place = np.searchsorted(SCORE_ENDS[1:-1], away, side="right")
    there = one_hot(place, len(SCORE_ENDS) - 1) * counted[:, None] * ROUNDING
    both = (there * (1 - labels)[:, None], there * labels[:, None])
    return np.asarray(np.concatenate(both, axis=1))


def line_of(opened: FloatArray, stddev: float, share: float) -> Line:
    """Intercept and slope that make scores probabilities, by Newton's steps.

    Both are drawn to 0 and 1, the more the less the counts say beside their noise.

    Args:
        opened: float64 (2B,), counts of label 0 and 1 by bin of the score.
        stddev: of the noise of each.
        share: of positives that scores start from.

    Source: Platt 1999, "Probabilistic outputs for support vector machines".
    """
    none, some = opened.reshape(2, -1)
    whole = np.maximum(none + some, 0.0)
    centres = (SCORE_ENDS[:-1] + SCORE_ENDS[1:]) / 2
    x = np.stack([np.ones(len(centres)), centres], axis=1)
    start = np.array([0.0, 1.0])
    found, spread = start, np.zeros((2, 2))
    for _ in range(_STEPS):
        chance = 1 / (1 + exponentials(-np.clip(x @ found + logit(share), -STEEPEST, STEEPEST)))
        slopes = x.T @ (some - (none + some) * chance)
        bent = x.T @ (x * (whole * chance * (1 - chance))[:, None])
        noise = x.T @ (x * (stddev**2 * (chance**2 + (1 - chance) ** 2))[:, None])
        known = bent @ np.linalg.inv(bent + noise + _LEAST * np.eye(2))
        whole_bent = known @ bent + np.diag(1 / np.square(CALIBRATED))
        towards = known @ slopes - (found - start) / np.square(CALIBRATED)
        found = np.clip(found + np.linalg.solve(whole_bent, towards), LOWEST_LINE, HIGHEST_LINE)
        reach = np.linalg.solve(whole_bent, known)
        spread = np.stack([reach @ noise @ reach.T, reach @ (noise + bent) @ reach.T])
    return Line(float(found[0]), float(found[1]), spread[:, 1, 1])


def score_cells(opened: FloatArray, stddev: float, level: float) -> Cells:
    """Counts by bin of the score, of label 0 and then of label 1.

    Args:
        opened: float64 (2B,).
        stddev: of the noise of each.
        level: of the intervals.
    """
    variance = np.full(len(opened), stddev**2)
    return Cells(opened, variance, np.maximum(opened, 0.0), len(opened), {}, level)


def area_figure(cells: Cells) -> Figure:
    """Area under the ROC curve, records of one bin taken as equal.

    Args:
        cells: of `score_cells`.
    """
    none = np.arange(cells.counts) < cells.counts // 2
    return cells.figure(AREA, _area, none, ~none)


def _area(counts: FloatArray) -> float:
    none, some = counts.reshape(2, -1)
    below = np.cumsum(none) - none / 2
    return float(some @ below / (some.sum() * none.sum()))


def reliability_figures(cells: Cells, share: float) -> Iterator[Figure]:
    """Share of positives in each bin of the score that holds enough records.

    Args:
        cells: of `score_cells`.
        share: of positives that scores start from.
    """
    bins = cells.counts // 2
    ends = 1 / (1 + exponentials(-(SCORE_ENDS + logit(share))))
    ends[0], ends[-1] = 0.0, 1.0
    for place, (low, high) in enumerate(pairwise(ends.tolist())):
        whole = np.zeros(cells.counts, dtype=np.bool_)
        whole[[place, bins + place]] = True
        if not cells.certain(whole):
            continue
        group = {"score": f"{low:.3g} to {high:.3g}"}
        yield cells.share(POSITIVES, whole & (np.arange(cells.counts) >= bins), whole, group)
