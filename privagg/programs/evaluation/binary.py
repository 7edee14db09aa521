"""Two classes: counts by score and class, from which area, curve, calibration and errors follow.

A first round, on a tenth of the budget, opens how the model's logits lie, without the classes.
That gives a public distribution function, so that a logit has a rank between 0 and 1. The second
round counts records by bin of about equal counts and by class, and adds up where in its bin each
record lies. So the bins fit a model whose scores all lie between 0.1 and 0.3 as well as any other,
and the area under the ROC curve loses nothing by them: within a bin, the mean places of both
classes say how often a positive record outranks a negative one.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import exp, inf, log, log1p

import numpy as np

from privagg.errors import ConfigError
from privagg.programs.answers import Answer, Figure
from privagg.programs.evaluation.estimates import BoolArray, Cells, FloatArray
from privagg.programs.evaluation.measure import Measure, Scores, in_cells, some_of

ENDS = np.linspace(-6.4, 6.4, 33)
"""Ends of the first round's cells, in logits; probabilities from 0.0017 to 0.9983. What lies
outside counts in the outer ones."""

LONGEST_LOSS = 5.0
"""Log-loss is clamped to this: a true class of probability below 0.0067 costs no more."""

LOSS_WEIGHT = Fraction(1, 4)
"""Of a record's two losses beside its count: a mean over a few thousand records hardly shows their
larger noise, and the counts have 5 % more for both."""

_FINE, _STEPS, _FARTHEST, _SMALLEST = 4096, 30, 1e3, 1e-10
_LEAST, _NARROWEST = 1e-9, 1e-12


class BinaryMeasure(Measure):
    """Two classes, told by one logit or two.

    Args:
        threshold: probability from which on a record is called positive.
        bins: of the scores.

    Raises:
        ConfigError: the threshold lies beyond the scores that are told apart.
    """

    parts = (Fraction(1, 10), Fraction(9, 10))

    def __init__(self, threshold: float, bins: int) -> None:
        self._cut, self._bins = log(threshold) - log1p(-threshold), bins
        if not ENDS[0] < self._cut < ENDS[-1]:
            raise ConfigError(
                f"evaluation.threshold = {threshold} lies where scores are no longer told apart; "
                "choose one between 0.002 and 0.998. Nothing was spent"
            )

    # --- what is opened -------------------------------------------------------------------------

    def width(self, number: int) -> int:
        """See `Measure.width`: cells; then counts and places, negatives first, and two losses."""
        return len(ENDS) - 1 if number == 1 else 4 * self._bins + 2

    def square(self, number: int) -> Fraction:
        """See `Measure.square`: a place lies within a half of 0."""
        return Fraction(1) if number == 1 else 1 + Fraction(1, 4) + 2 * LOSS_WEIGHT**2

    def ones(self, number: int) -> int:
        """See `Measure.ones`."""
        return 1

    def knots(self, number: int) -> int:
        """See `Measure.knots`: the distribution function at `ENDS`."""
        return 0 if number == 1 else len(ENDS)

    def place(self, opened: FloatArray) -> FloatArray:
        """See `Measure.place`."""
        return distribution(opened)

    def rows(self, number: int, knots: FloatArray, scores: Scores) -> FloatArray:
        """See `Measure.rows`."""
        logits = _logits(scores.outputs)
        if number == 1:
            return in_cells(np.searchsorted(ENDS[1:-1], logits, side="right"), len(ENDS) - 1)
        cuts = self._cuts(knots)
        cell = np.searchsorted(cuts[1:-1], logits, side="right")
        ranks = _ranks(cuts, knots)
        low, high = ranks[cell], ranks[cell + 1]
        within = (_ranks(logits, knots) - low) / np.maximum(high - low, _NARROWEST)
        positive = scores.targets == 1
        counted = in_cells(np.where(positive, self._bins + cell, cell), 2 * self._bins)
        placed = counted * (np.clip(within, 0.0, 1.0) - 0.5)[:, None]
        signed = np.where(positive, logits, -logits)
        losses = np.array([_losses(float(each)) for each in signed]).reshape(-1, 2)
        return np.concatenate([counted, placed, losses * float(LOSS_WEIGHT)], axis=1)

    def cells(
        self, opened: FloatArray, variance: float, group: dict[str, str], level: float
    ) -> Cells:
        """See `Measure.cells`."""
        counts = 2 * self._bins
        weights = np.ones(len(opened))
        weights[2 * counts :] = float(LOSS_WEIGHT)
        there = np.maximum(opened[:counts], 0.0)
        sampling = np.concatenate([there, there / 12, np.zeros(2)])
        return Cells(opened / weights, variance / weights**2, sampling, counts, group, level)

    def _cuts(self, knots: FloatArray) -> FloatArray:
        """Ends of the bins, in logits: at equal shares of the ranks, and at the threshold."""
        cuts = np.interp(np.arange(self._bins + 1) / self._bins, knots, ENDS)
        cuts[1 + int(np.abs(cuts[1:-1] - self._cut).argmin())] = self._cut
        return np.asarray(cuts)

    # --- what follows ---------------------------------------------------------------------------

    def figures(self, knots: FloatArray, cells: Cells) -> tuple[Figure, ...]:
        """See `Measure.figures`: area, accuracy beside the base rate, confusion and losses."""
        everyone, negative, above = self._parted(knots)
        typical = self._typical_losses(knots)
        return (
            cells.count("count", everyone),
            cells.share("share of positives", ~negative, everyone),
            cells.figure("area under the ROC curve", self._area, negative, ~negative),
            cells.share("accuracy", above != negative, everyone),
            cells.figure("base rate", self._base_rate, everyone),
            cells.share("sensitivity", ~negative & above, ~negative),
            cells.share("specificity", negative & ~above, negative),
            cells.count("true positives", ~negative & above),
            cells.count("false positives", negative & above),
            cells.count("true negatives", negative & ~above),
            cells.count("false negatives", ~negative & ~above),
            cells.mean("Brier score", -2, 1.0, _variance(cells, typical[:, 0])),
            cells.mean("log-loss", -1, LONGEST_LOSS, _variance(cells, typical[:, 1])),
        )

    def curves(self, knots: FloatArray, cells: Cells) -> tuple[Answer, ...]:
        """See `Measure.curves`: points of the ROC curve, and calibration by score."""
        return (
            Answer(
                {"name": "ROC curve", "about": "shares of both classes from a score on"},
                self._roc(knots, cells),
            ),
            Answer(
                {"name": "calibration", "about": "share of positives by score"},
                self._calibration(knots, cells),
            ),
        )

    def _parted(self, knots: FloatArray) -> tuple[BoolArray, BoolArray, BoolArray]:
        """All cells; those of negative records; those from the threshold on."""
        bins, counts = self._bins, 2 * self._bins
        called = int(np.searchsorted(self._cuts(knots)[1:-1], self._cut)) + 1
        above = some_of(counts, [*range(called, bins), *range(bins + called, counts)])
        return some_of(counts, slice(None)), some_of(counts, slice(0, bins)), above

    def _area(self, values: FloatArray) -> float:
        """Mann-Whitney's share of pairs in which the positive record has the higher score.

        Linear in the negative and in the positive sums, which have independent noise, so that no
        negative cell biases it. Within a bin, over ranks that are spread evenly, one class's record
        outranks the other's in a half of the pairs and the difference of their mean places.
        """
        negative, positive, low, high = values[: 4 * self._bins].reshape(4, self._bins)
        below = np.cumsum(negative) - negative
        inside = positive * negative / 2 + high * negative - positive * low
        pairs = positive.sum() * negative.sum()
        return float(((positive * below).sum() + inside.sum()) / pairs) if pairs else inf

    def _base_rate(self, values: FloatArray) -> float:
        """The larger class's share: what is right of those who guess it without a model."""
        each = values[: 2 * self._bins].reshape(2, -1).sum(axis=1)
        return float(each.max() / each.sum())

    def _roc(self, knots: FloatArray, cells: Cells) -> tuple[Figure, ...]:
        """Shares of both classes from each inner end of a bin on."""
        bins, counts = self._bins, 2 * self._bins
        negative = some_of(counts, slice(0, bins))
        found = []
        for place, cut in enumerate(self._cuts(knots)[1:-1], 1):
            above = some_of(counts, [*range(place, bins), *range(bins + place, counts)])
            for kind, those in (("false", negative), ("true", ~negative)):
                group = {"score from": _chance_text(cut)}
                found.append(cells.share(f"{kind} positive rate", those & above, those, group))
        return tuple(found)

    def _calibration(self, knots: FloatArray, cells: Cells) -> tuple[Figure, ...]:
        """Share of positives in each bin; then the line that would make logits right."""
        bins = self._bins
        ends = ["0", *map(_chance_text, self._cuts(knots)[1:-1]), "1"]
        shares = tuple(
            cells.share(
                "share of positives",
                some_of(2 * bins, [bins + place]),
                some_of(2 * bins, [place, bins + place]),
                {"score": f"{low} to {high}"},
            )
            for place, (low, high) in enumerate(pairwise(ends))
        )
        _, negative, _ = self._parted(knots)
        centres, open_ends = self._centres(knots), (-inf, inf)
        return (
            *shares,
            cells.figure(
                "calibration intercept", lambda v: self._line(v, centres)[0], negative, ~negative,
                limits=open_ends,
            ),
            cells.figure(
                "calibration slope", lambda v: self._line(v, centres)[1], negative, ~negative,
                limits=open_ends,
            ),
        )  # fmt: skip

    def _line(self, values: FloatArray, centres: FloatArray) -> tuple[float, float]:
        """Cox's intercept a and slope b: the records' logits are most likely a + b·logit."""
        negative, positive = values[: 2 * self._bins].reshape(2, -1)
        whole, found = np.maximum(negative + positive, 0.0), np.array([0.0, 1.0])
        for _ in range(_STEPS):
            chance = 1 / (1 + np.exp(-np.clip(found[0] + found[1] * centres, -30, 30)))
            weights = whole * chance * (1 - chance)
            mean = float((weights * centres).sum() / max(weights.sum(), _LEAST))
            spread = float((weights * (centres - mean) ** 2).sum())
            if spread < _LEAST:
                return inf, inf
            missed = positive - whole * chance
            slope = float(((centres - mean) * missed).sum()) / spread
            step = np.array([float(missed.sum() / weights.sum()) - slope * mean, slope])
            found = found + step
            if np.abs(found).max() > _FARTHEST:
                return inf, inf
            if np.abs(step).max() < _SMALLEST:
                break
        return float(found[0]), float(found[1])

    def _centres(self, knots: FloatArray) -> FloatArray:
        """The mean logit of each bin, by the public distribution function."""
        fine = np.linspace(ENDS[0], ENDS[-1], _FINE + 1)
        mass, middle = np.diff(np.interp(fine, ENDS, knots)), (fine[:-1] + fine[1:]) / 2
        cuts = self._cuts(knots)
        place = np.searchsorted(cuts[1:-1], middle, side="right")
        whole = np.bincount(place, mass, self._bins)
        means = np.bincount(place, mass * middle, self._bins) / np.maximum(whole, 1e-300)
        return np.where(whole > 0, means, (cuts[:-1] + cuts[1:]) / 2)

    def _typical_losses(self, knots: FloatArray) -> FloatArray:
        """float64 (cells, 2): a record's losses at the middle of its cell."""
        centres = self._centres(knots)
        return np.array([_losses(float(each)) for each in (*-centres, *centres)])


def _variance(cells: Cells, losses: FloatArray) -> float:
    """About how a loss varies from record to record."""
    counts = np.maximum(cells.values[: cells.counts], 0.0)
    whole = max(float(counts.sum()), 1.0)
    mean = float((counts * losses).sum()) / whole
    return float((counts * (losses - mean) ** 2).sum()) / whole


def distribution(opened: FloatArray) -> FloatArray:
    """A distribution function at `ENDS` from noised counts between; it rises a little everywhere.

    Args:
        opened: float64 `(len(ENDS) - 1,)`.
    """
    counts = np.maximum(opened, 0.0)
    counts = counts + max(float(counts.sum()), 1.0) / (100 * len(counts))
    below = np.concatenate([[0.0], np.cumsum(counts)])
    return np.asarray(below / below[-1])


def _ranks(logits: FloatArray, knots: FloatArray) -> FloatArray:
    """Their places in the public distribution function, each by the same few roundings."""
    inside = np.clip(logits, ENDS[0], ENDS[-1])
    cell = np.clip(np.searchsorted(ENDS, inside, side="right") - 1, 0, len(ENDS) - 2)
    part = (inside - ENDS[cell]) / (ENDS[cell + 1] - ENDS[cell])
    return np.asarray(knots[cell] + (knots[cell + 1] - knots[cell]) * part)


def _logits(outputs: FloatArray) -> FloatArray:
    """The positive class's logit, float64 `(r,)`; not a number counts as 0."""
    logits = outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]
    return np.nan_to_num(logits, nan=0.0)


def _losses(logit: float) -> tuple[float, float]:
    """Squared error and log-loss, in parts of its longest, where `logit` is the true class's.

    By the mathematics library on one number: numpy's may round a number by where it stands.
    """
    low = exp(-abs(logit))
    missed = (low if logit > 0 else 1.0) / (1.0 + low)
    loss = log1p(low) + max(-logit, 0.0)
    return missed * missed, min(loss, LONGEST_LOSS) / LONGEST_LOSS


def squared_errors(scores: Scores) -> FloatArray:
    """The squared error of each record's probability, or its mean over several labels.

    Args:
        scores: of some records, one logit for each label.
    """
    yes = np.asarray(scores.targets).reshape(scores.outputs.shape) == 1
    signed = np.where(yes, scores.outputs, -scores.outputs)
    missed = [[_losses(one)[0] for one in row] for row in signed.tolist()]
    return np.array([sum(row) / len(row) for row in missed])


def _chance_text(logit: float) -> str:
    """A logit's probability as people read it."""
    return f"{1 / (1 + exp(-logit)):.3g}"
