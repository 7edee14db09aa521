"""From opened sums to leaves: what the coordinator learns between the openings of trees.

Opening 1 counts the target by bin of every column; scores start from its mean, and from what each
bin says by itself. The leaves of a tree are shrunk under a Gaussian prior by which leaves are the
more alike the more questions they answer alike: of covariance τ² ρ^d, d the answers in which two
leaves differ. That is shrinkage towards the ancestors, in every order of the questions. With G and
H the opened sums, σ² the variance of G's noise and v that of a gradient beside its curvature, they
are

    w = K H (H K H + diag(σ² + v H))⁻¹ G

and a rate of it is added to what the forest says so far. All of it is post-processing: opened sums,
the noise's known size, public facts; never a record.

Source: Friedman 2001, "Greedy function approximation: a gradient boosting machine", Annals of
Statistics 29; the posterior mean of a Gaussian process: Rasmussen & Williams 2006, (2.25).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple, Self

import numpy as np

from privagg.programs.questions.columns import Codes, FloatArray
from privagg.programs.scorecard.smoothing import smoothed
from privagg.programs.tables.bins import Block, offsets
from privagg.programs.tables.calibration import STEEPEST
from privagg.programs.trees.losses import Loss
from privagg.programs.trees.structure import Forest

ALIKE = 0.7
"""ρ: how much the leaves on both sides of a question are alike."""

LARGEST_LEAF = 3.0
"""Of a leaf before the rate, in the scores' unit: what lies beyond is noise."""

EVIDENCE = 1.8
"""Over the root of their number: how much bins by themselves count, as columns say the same."""

_LEAST = 1e-9


class State(NamedTuple):
    """What is public after an opening.

    Attributes:
        base: float64 (bases,), where scores start.
        effects: float64 (K, B), of the bins of all columns, B together.
        leaves: float64 (T, K, L), of every tree; 0 of those that are not grown yet.
    """

    base: FloatArray
    effects: FloatArray
    leaves: FloatArray

    @classmethod
    def of(cls, state: FloatArray, loss: Loss, bins: int, forest: Forest) -> Self:
        """From one vector, whatever it holds.

        Args:
            state: float64 (bases + K B + T K L,).
            loss: says bases and K.
            bins: B.
            forest: says T and L.
        """
        whole = np.clip(np.nan_to_num(state), -STEEPEST, STEEPEST)
        base, effects, leaves = np.split(whole, [loss.bases, loss.bases + loss.outputs * bins])
        shape = (forest.trees, loss.outputs, forest.leaves)
        return cls(base, effects.reshape(loss.outputs, bins), leaves.reshape(shape))

    def vector(self) -> FloatArray:
        """One vector."""
        return np.concatenate([self.base, self.effects.ravel(), self.leaves.ravel()])

    def scores(
        self, forest: Forest, blocks: Sequence[Block], codes: Codes, count: int
    ) -> FloatArray:
        """What bins and the first trees say of records, float64 (K, r).

        Args:
            forest: all trees.
            blocks: of bins.
            codes: int64 (F, r), the bin of each record in each column.
            count: trees that are asked.
        """
        found = np.zeros((len(self.effects), codes.shape[1]))
        for at, each in zip(offsets(blocks), codes, strict=True):
            found += self.effects[:, at][:, each]
        for leaves, places in zip(self.leaves, forest.places(codes, 0, count), strict=False):
            found += leaves[:, places]  # tree after tree: alike however many records there are
        return found


class Grown(NamedTuple):
    """Leaves of one tree before the rate.

    Attributes:
        leaves: float64 (K, L).
        reach: float64 (K, L, L), what each leaf takes from each opened gradient.
        curvature: float64 (K, L), H as opened, none below 0.
        noise: σ².
    """

    leaves: FloatArray
    reach: FloatArray
    curvature: FloatArray
    noise: float


class Started(NamedTuple):
    """What opening 1 says.

    Attributes:
        base: float64 (bases,).
        effects: float64 (K, B), of the bins of all columns.
        variances: float64 (2, K, B), of these: by the noise alone, and with sampling.
        whole: float64 (B,), about how many records are in each bin.
        cells: float64 (m,), how many there are of each cell, and `doubt`, the noise's deviation.
        doubt: likewise.
    """

    base: FloatArray
    effects: FloatArray
    variances: FloatArray
    whole: FloatArray
    cells: FloatArray
    doubt: float


def started(blocks: Sequence[Block], loss: Loss, opened: FloatArray, stddev: float) -> Started:
    """Where scores start, and what each bin says by itself, as much as columns repeat each other.

    Args:
        blocks: of bins.
        loss: of the target.
        opened: float64 (m, B), counts of the target's cells by bin.
        stddev: of the noise of each.
    """
    cells, doubt = opened.sum(axis=1) / len(blocks), stddev * sqrt(opened.shape[1]) / len(blocks)
    base = loss.base(cells, doubt)
    steps, whole = loss.of_cells(base), np.maximum(opened.sum(axis=0), 0.0)
    gradient, curvature = steps.gradient @ opened, np.maximum(steps.curvature @ opened, 0.0)
    noises = stddev**2 * (steps.gradient**2).sum(axis=1)
    part = min(1.0, EVIDENCE / sqrt(len(blocks)))
    effects, variances = np.zeros_like(gradient), np.zeros((2, *gradient.shape))
    for at, block in zip(offsets(blocks), blocks, strict=True):
        for output, noise in enumerate(noises.tolist()):
            bent, each = curvature[output, at], np.full(block.size, noise)
            found = smoothed(gradient[output, at], bent, each, block.distances)
            mean = float(whole[at] @ found.means) / max(float(whole[at].sum()), 1.0)
            effects[output, at] = part * (found.means - mean)
            variances[1, output, at] = part**2 * found.variances
            variances[0, output, at] = part**2 * found.variances * noise / (noise + bent + _LEAST)
    return Started(base, effects, variances, whole, cells, doubt)


def likeness(depth: int) -> FloatArray:
    """ρ^d for the leaves of a tree, float64 (L, L).

    Args:
        depth: questions.
    """
    found = np.ones((1, 1))
    for _ in range(depth):
        found = np.kron(found, np.array([[1.0, ALIKE], [ALIKE, 1.0]]))
    return found


def grown(
    gradient: FloatArray, curvature: FloatArray, noise: float, spread: float, prior: FloatArray
) -> Grown:
    """Leaves shrunk as far as noise and sampling go, each output by itself.

    Args:
        gradient: G, float64 (K, L), noise and all.
        curvature: H, likewise.
        noise: σ², variance of the noise of each of G.
        spread: v.
        prior: τ² ρ^d, float64 (L, L).
    """
    bent = np.maximum(curvature, 0.0)
    whole = bent[:, :, None] * prior * bent[:, None]
    places = np.arange(len(prior))
    whole[:, places, places] += noise + spread * bent + _LEAST
    reach = np.asarray(np.linalg.solve(whole, bent[:, :, None] * prior)).transpose(0, 2, 1)
    leaves = np.clip((reach @ gradient[:, :, None])[:, :, 0], -LARGEST_LEAF, LARGEST_LEAF)
    return Grown(leaves, reach, bent, noise)
