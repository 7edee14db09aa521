"""From opened sums to effects: what the coordinator learns between the openings of a scorecard.

Opening 1 gives each bin's weight of evidence. Opening 2 says how blocks go together: a ridge
towards the evidence, whose floor is the known noise, undoes double counting. Each further opening
says what the card predicts bin by bin; labels were opened once and are never opened again, so what
remains is known 11 times more exactly than if they were. The blocks then take a damped Newton step
together. At last a calibration line makes scores probabilities.

All of it is post-processing: opened sums, the noise's known size, declared facts; never a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple, Self

import numpy as np

from privagg.programs.questions.columns import FloatArray
from privagg.programs.scorecard.adding import LABELS, Middle
from privagg.programs.scorecard.smoothing import monotone, smoothed
from privagg.programs.tables.bins import Block, offsets
from privagg.programs.tables.calibration import STEEPEST, public_share

ROOM = 1.2
"""How far a record's values may reach beyond their root mean square before they are shrunk."""

FLOOR = 1.5
"""Of the ridge, in parts of what noise alone makes the largest eigenvalue."""

MOMENTUM = 0.5
LARGEST_STEP, STEP = 0.5, 0.5
"""A step of all blocks together is at most so large, and at most so much over the largest
eigenvalue of their correlations, or it overshoots where blocks say the same."""

LEAST_PART, LARGEST_PART = -1.0, 2.0
"""Of its weight of evidence, that a block counts beside the others."""

CURVED = 1.2
"""Of the curvature at the share of positives, that steps count with: a little too short they last,
a little too long they do not."""

_LEAST = 1e-9

HEAD = 4
"""Floats of a state before its tables."""

_LARGEST = 1e15
"""Of what a state holds: whatever it says, squares stay within what floats hold."""


class State(NamedTuple):
    """What is public after an opening.

    Attributes:
        share: of positives, within `SHARES`.
        step: of the blocks together; 0 before opening 2.
        noise: standard deviation of the counts' noise, in records.
        who: stands for those whose records are in the counts.
        counts: float64 (2, K), of label 0 and 1 by bin, as opened.
        values: float64 (K,), of opening 2's table.
        effects: float64 (K,), of the card, in logits.
        moves: float64 (K,), of the last step.
    """

    share: float
    step: float
    noise: float
    who: float
    counts: FloatArray
    values: FloatArray
    effects: FloatArray
    moves: FloatArray

    @classmethod
    def of(cls, state: FloatArray) -> Self:
        """From one vector, whatever it holds."""
        whole = np.clip(np.nan_to_num(state), -_LARGEST, _LARGEST)
        share, step, noise, who = whole[:HEAD].tolist()
        none, some, values, effects, moves = np.split(whole[HEAD:], 5)
        effects = np.clip(effects, -STEEPEST, STEEPEST)
        counts = np.stack([none, some])
        return cls(public_share(share), step, noise, who, counts, values, effects, moves)

    def vector(self) -> FloatArray:
        """One vector, float64 (HEAD + 5K,)."""
        head = np.array([self.share, self.step, self.noise, self.who])
        tables = (*self.counts, self.values, self.effects, self.moves)
        return np.asarray(np.concatenate([head, *tables]))

    @property
    def whole(self) -> FloatArray:
        """About how many records are in each bin, float64 (K,)."""
        return np.asarray(np.maximum(self.counts.sum(axis=0), 0.0))


def after_counts(
    blocks: Sequence[Block],
    rising: Sequence[int],
    opened: FloatArray,
    stddev: float,
    others: int = 1,
) -> State:
    """Weight of evidence, and the table of opening 2.

    Args:
        blocks: of bins.
        rising: of each block 1 where effects may only rise, -1 where they may only fall, else 0.
        opened: float64 (2K,), in records.
        stddev: of the noise of each of label 1.
        others: classes that label 0 stands for, each with as much noise.
    """
    none, some = opened.reshape(2, -1)
    places = list(offsets(blocks))
    positive = float(np.mean([some[at].sum() for at in places]))
    everybody = positive + float(np.mean([none[at].sum() for at in places]))
    # The deviation of `everybody`.
    doubt = stddev * sqrt((1 + others) * len(none)) / len(blocks)
    share = public_share((positive + doubt / 2) / (max(everybody, 0.0) + doubt + _LEAST))
    whole = np.maximum(none + some, 0.0)
    missed = (1 - share) * some - share * none
    noise = _noise_of_counts(stddev, share, others)
    effects, values = np.zeros(len(none)), np.zeros(len(none))
    bent = share * (1 - share) * whole
    weights = list[float]()
    for block, direction, at in zip(blocks, rising, places, strict=True):
        count = whole[at]
        variance = np.full(len(count), noise)
        found = smoothed(missed[at], bent[at], variance, block.distances).means
        found = centred(directed(block, direction, found, count), count)
        size = max(float(count @ found**2) / max(everybody, 1.0), _LEAST)
        effects[at], values[at] = found, found * size**-0.25
        weights.append(sqrt(size))
    values /= ROOM * sqrt(sum(weights))
    rest = np.zeros(len(none))
    return State(share, 0.0, stddev, 0.0, opened.reshape(2, -1), values, effects, rest)


def _noise_of_counts(stddev: float, share: float, others: int) -> float:
    """Variance of (1 - share) n_1 - share n_0, where n_0 has the noise of so many counts."""
    return stddev**2 * (others * share**2 + (1 - share) ** 2)


def after_products(
    blocks: Sequence[Block], state: State, opened: FloatArray, stddev: float
) -> State:
    """How much each block counts beside the others, and how large further steps may be.

    Args:
        blocks: of bins.
        state: after opening 1.
        opened: float64 (F (F + 1)/2 + F,), the rows' sum.
        stddev: of the noise of each.
    """
    count, scale = len(blocks), sqrt(0.5 + LABELS**2)
    first, second = np.triu_indices(count)
    products = opened[: len(first)] * scale / np.where(first == second, sqrt(0.5), 1.0)
    gram = np.zeros((count, count))
    gram[first, second] = gram[second, first] = products
    labels = opened[len(first) :] * scale * max(state.share, 1 - state.share) / LABELS
    floor = FLOOR * 2 * sqrt(count) * stddev * scale
    bent = state.share * (1 - state.share)
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    gram = (vectors * values) @ vectors.T
    evidence = np.array([_ratio(state, at) for at in offsets(blocks)])
    below = bent * (evidence @ gram @ evidence + 0.1 * floor * (evidence @ evidence)) + _LEAST
    towards = min(max(float(evidence @ labels) / below, 0.02), 1.0) * evidence
    rest = vectors.T @ (labels - bent * (gram @ towards))
    weights = towards + vectors @ (rest / (bent * (values + floor) + _LEAST))
    weights = np.clip(weights, LEAST_PART * evidence, LARGEST_PART * evidence)
    effects = np.concatenate(
        [state.values[at] * weight for at, weight in zip(offsets(blocks), weights, strict=True)]
    )
    return state._replace(effects=effects, step=_step(gram))


def _ratio(state: State, at: slice) -> float:
    """What a block's table is to be multiplied by for its weight of evidence."""
    size = float(np.abs(state.values[at]).max())
    return float(np.abs(state.effects[at]).max()) / size if size > 0 else 0.0


def _step(gram: FloatArray) -> float:
    spread = np.sqrt(np.maximum(np.diag(gram), 0.05 * np.mean(np.diag(gram)) + _LEAST))
    largest = float(np.linalg.eigvalsh(gram / np.outer(spread, spread))[-1])
    return min(LARGEST_STEP, STEP / min(max(largest, 1.0), len(gram)))


def after_scores(
    blocks: Sequence[Block],
    rising: Sequence[int],
    state: State,
    opened: FloatArray,
    stddev: float,
    others: int = 1,
) -> State:
    """One damped Newton step of all blocks together.

    Args:
        blocks, rising, others: as for `after_counts`.
        state: that the opening started from.
        opened: float64 (K,), in records.
        stddev: of the noise of each.
    """
    missed, noise, bent = residuals(state, opened, stddev, others)
    moves, effects, whole = state.moves.copy(), state.effects.copy(), state.whole
    for block, direction, at in zip(blocks, rising, offsets(blocks), strict=True):
        found = smoothed(missed[at], bent[at], np.full(len(bent[at]), noise), block.distances)
        moves[at] = MOMENTUM * moves[at] + state.step * found.means
        effects[at] = directed(block, direction, effects[at] + moves[at], whole[at])
    return state._replace(moves=moves, effects=effects)


def residuals(
    state: State, opened: FloatArray, stddev: float, others: int = 1
) -> tuple[FloatArray, float, FloatArray]:
    """What labels have more than the card predicts, by bin.

    Args:
        state, opened, stddev, others: as for `after_scores`.

    Returns:
        float64 (K,); the variance of the noise of each; float64 (K,), the curvature.
    """
    middle = Middle.of(state.share)
    none, some = state.counts
    missed = (1 - middle.centre) * some - middle.centre * none - opened * middle.half
    noise = (stddev * middle.half) ** 2
    noise += _noise_of_counts(state.noise, middle.centre, others)
    return missed, noise, CURVED * state.share * (1 - state.share) * state.whole


def directed(block: Block, direction: int, effects: FloatArray, counts: FloatArray) -> FloatArray:
    """Effects that only rise, or only fall, from bin to bin; the bin of what is missing is free.

    Args:
        block: of one column where there is a direction.
        direction: 1, -1, or 0 where there is none.
        effects: float64 (K,).
        counts: float64 (K,), about how many records are in each.
    """
    if not direction:
        return effects
    found = effects.copy()
    found[:-1] = direction * monotone(direction * effects[:-1], np.maximum(counts[:-1], 1.0))
    return found


def centred(effects: FloatArray, counts: FloatArray) -> FloatArray:
    """Effects whose mean over records is 0.

    Args:
        effects: float64 (K,).
        counts: float64 (K,), about how many records are in each.
    """
    return effects - float(counts @ effects) / max(float(counts.sum()), 1.0)


def evidence_variances(blocks: Sequence[Block], state: State, others: int = 1) -> FloatArray:
    """Of the bins' effects after opening 1: float64 (2, K), by noise alone, and with sampling.

    Args:
        blocks, others: as for `after_counts`.
        state: after it.
    """
    share = state.share
    missed = (1 - share) * state.counts[1] - share * state.counts[0]
    noise = _noise_of_counts(state.noise, share, others)
    return _variances(blocks, missed, noise, share * (1 - share) * state.whole)


def score_variances(
    blocks: Sequence[Block], state: State, opened: FloatArray, stddev: float, others: int = 1
) -> FloatArray:
    """As `evidence_variances`, after an opening of scores.

    Args:
        blocks, others: as for `after_counts`.
        state: that the opening started from.
        opened: float64 (K,), in records.
        stddev: of the noise of each.
    """
    return _variances(blocks, *residuals(state, opened, stddev, others))


def _variances(
    blocks: Sequence[Block], missed: FloatArray, noise: float, bent: FloatArray
) -> FloatArray:
    found = np.zeros((2, len(missed)))
    for block, at in zip(blocks, offsets(blocks), strict=True):
        variance = np.full(len(bent[at]), noise)
        found[1, at] = smoothed(missed[at], bent[at], variance, block.distances).variances
        found[0, at] = found[1, at] * variance / (variance + bent[at] + _LEAST)
    return found
