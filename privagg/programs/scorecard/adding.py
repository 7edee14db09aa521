"""What a record adds to each opening of a scorecard, and why no state makes it longer than 1.

With F blocks of bins, a label y in [0, 1] and p a public share, a record adds

    counts      (1 - y, y) in its bin of every block, each by 1/√F; of several classes, a one of
                its class
    products    s sᵀ above the diagonal, s_j²/√2 on it, and LABELS · s (y - p)/max(p, 1 - p), where
                s are its bins' values in a public table, shrunk to norm 1 where they are longer;
                all of it by 1/√(1/2 + LABELS²)
    scores      u in its bin of every block, by 1/√F: u in [-1, 1] is how far its probability under
                a public card lies from a public middle, in parts of a public reach
    calibration (1 - y, y) in the bin of its score

Several classes have a card each, of the class against all others; all else than the counts is added
once a card, by 1/√cards. So a record's norm is at most 1 whatever the public state is
(proofs/scorecard.md). The state moves what is learned, never what is charged.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, sqrt
from typing import NamedTuple

import numpy as np

from privagg.programs.questions.columns import Codes, FloatArray
from privagg.programs.questions.logistic import ROUNDING, exponentials
from privagg.programs.tables import calibration
from privagg.programs.tables.calibration import STEEPEST, logit

LABELS = 1.0
"""How much the products of bins with labels count beside those of bins with each other."""

REACH = (2.5, 1.75)
"""Logits below and above that of a share of a half or less which scores are told apart between;
beyond, they count as the end. Of a larger share it is the other way round."""


class Middle(NamedTuple):
    """Between which probabilities scores are told apart.

    Attributes:
        centre: probability.
        half: how far it goes to either side.
    """

    centre: float
    half: float

    @classmethod
    def of(cls, share: float) -> Middle:
        """About a public share of positives.

        Args:
            share: within `SHARES`.
        """
        base = logit(share)
        below, above = REACH if share <= 0.5 else REACH[::-1]
        low, high = (1 / (1 + exp(-end)) for end in (base - below, base + above))
        return cls((low + high) / 2, (high - low) / 2)


class Learnt(NamedTuple):
    """Some records as a scorecard reads them.

    Attributes:
        codes: int64 (F, r), the bin of each in each block.
        labels: float64 (r,), within [0, 1].
        counted: bool (r,), whether it has a label; else it adds nothing.
    """

    codes: Codes
    labels: FloatArray
    counted: FloatArray


def count_cells(
    records: Learnt, shares: Sequence[FloatArray], sizes: Sequence[int]
) -> tuple[Codes, FloatArray]:
    """Counts by bin, of each label after the other: where, (r, labels F), and how much in each
    block, (r, labels).

    Args:
        records: some.
        shares: float64 (r,) of each label: how much of it a record has; squares add to 1 at most.
        sizes: bins of each block; K together, so that label l stands in places l K and on.
    """
    there = records.counted / sqrt(len(sizes)) * ROUNDING
    bins, whole = _places(records, sizes), sum(sizes)
    places = np.concatenate([bins + whole * label for label in range(len(shares))], axis=1)
    return places, np.stack([there * each for each in shares], axis=1)


def product_rows(records: Learnt, table: Sequence[FloatArray], share: float) -> FloatArray:
    """Products, float64 (r, F (F + 1)/2 + F).

    Args:
        records: some.
        table: a value for each bin, by block.
        share: within `SHARES`.
    """
    values = shrunk(records, table)
    missed = (records.labels - share) / max(share, 1 - share) * LABELS
    found = np.empty((len(values) * (len(values) + 1) // 2 + len(values), len(missed)))
    rows = iter(found)  # written in place: in so many numbers, each copy counts
    for i, a in enumerate(values):
        np.multiply(a * a, sqrt(0.5), out=next(rows))
        for b in values[i + 1 :]:
            np.multiply(a, b, out=next(rows))
    for each in values:
        np.multiply(each, missed, out=next(rows))
    found /= sqrt(0.5 + LABELS**2)
    found *= ROUNDING
    return found.T


def shrunk(records: Learnt, table: Sequence[FloatArray]) -> list[FloatArray]:
    """Each record's values of a table, of norm 1 at most: float64 (r,) by block.

    Args:
        records, table: as for `product_rows`.
    """
    values = [each[codes] for each, codes in zip(table, records.codes, strict=True)]
    square = np.zeros(len(records.labels))
    for each in values:  # one after the other: alike however many records there are
        square = square + each * each
    factor = records.counted * ROUNDING / np.maximum(1.0, np.sqrt(square))
    return [each * factor for each in values]


def score_cells(
    records: Learnt, table: Sequence[FloatArray], sizes: Sequence[int], share: float
) -> tuple[Codes, FloatArray]:
    """Scores by bin: where, (r, F), and how much in each block, (r, 1).

    Args:
        records: some.
        table: effects of the bins, by block, in logits.
        sizes: bins of each block.
        share: within `SHARES`; the card starts from its logit.
    """
    place = records.counted * (placed(records, table, share) / sqrt(len(sizes)) * ROUNDING)
    return _places(records, sizes), place[:, None]


def placed(records: Learnt, table: Sequence[FloatArray], share: float) -> FloatArray:
    """u: where each record's chance lies about the middle, float64 (r,) within [-1, 1].

    Args:
        records, table, share: as for `score_cells`.
    """
    middle = Middle.of(share)
    chance = 1 / (1 + exponentials(-scores(records, table, logit(share))))
    return np.asarray(np.clip((chance - middle.centre) / middle.half, -1, 1))


def calibration_rows(records: Learnt, table: Sequence[FloatArray], share: float) -> FloatArray:
    """Counts by bin of the score, float64 (r, 2B): of label 0, then of label 1.

    Args:
        records, table, share: as for `score_cells`.
    """
    return calibration.score_rows(scores(records, table, 0.0), records.labels, records.counted)


def scores(records: Learnt, table: Sequence[FloatArray], base: float) -> FloatArray:
    """What a card gives each record, in logits, float64 (r,).

    Args:
        records: some.
        table: effects of the bins, by block.
        base: that it starts from.
    """
    found = np.full(len(records.labels), base)
    for each, codes in zip(table, records.codes, strict=True):
        found = found + each[codes]
    return np.asarray(np.clip(found, -STEEPEST, STEEPEST))


def _places(records: Learnt, sizes: Sequence[int]) -> Codes:
    """Each record's bin of every block among the bins of all, int64 (r, F)."""
    starts = np.cumsum([0, *sizes[:-1]])
    return np.ascontiguousarray((records.codes + starts[:, None]).T, dtype=np.int64)
