"""Effects of neighbouring bins from noised sums, shrunk as far as the known noise says.

Sums r_k = h_k θ_k + error of known variance are read under the prior that θ is Gaussian with
covariance τ² exp(-d/ℓ), d the steps between two bins. Its posterior mean is averaged over a public
grid of τ and ℓ by how likely each makes the sums (empirical Bayes), so that there is nothing to
tune: where noise is all there is, τ = 0 wins and every effect is 0.

All of it is post-processing of opened sums (proofs/scorecard.md).

Source: Kimeldorf & Wahba 1970, "A correspondence between Bayesian estimation on stochastic
processes and smoothing by splines", Annals of Mathematical Statistics 41; Hoeting, Madigan, Raftery
& Volinsky 1999, "Bayesian model averaging: a tutorial", Statistical Science 14.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from privagg.programs.questions.columns import FloatArray

SPREADS = np.array([0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0])
"""Grid of τ, in logits."""

LENGTHS = (2.0, 8.0, 30.0)
"""Grid of ℓ, in steps."""

_LEAST = 1e-3
"""Of a curvature: an empty bin still has a place in the sums of others."""


class Smoothed(NamedTuple):
    """Effects of one block's bins.

    Attributes:
        means: float64 (K,), posterior means.
        variances: float64 (K,), posterior variances, over all priors of the grid.
    """

    means: FloatArray
    variances: FloatArray


def smoothed(
    sums: FloatArray, curvature: FloatArray, noise: FloatArray, distances: FloatArray
) -> Smoothed:
    """Effects of the bins of one block.

    Args:
        sums: r, float64 (K,), noise and all.
        curvature: h, float64 (K,); the sampling variance of r too.
        noise: float64 (K,), variance of the noise of each sum.
        distances: float64 (K, K), steps between bins.
    """
    h = np.maximum(curvature, _LEAST)
    scale = 1 / np.sqrt(noise + h)
    lengths = LENGTHS if np.isfinite(distances).sum() > len(h) else LENGTHS[:1]
    evidence, means, variances = list[FloatArray](), list[FloatArray](), list[FloatArray]()
    for length in lengths:
        prior = np.exp(-distances / length)
        towards = (h * scale)[:, None] * prior
        values, vectors = np.linalg.eigh(towards * h * scale)
        spread = 1 + SPREADS[:, None] ** 2 * np.maximum(values, 0)
        found, sides = vectors.T @ (sums * scale), vectors.T @ towards
        evidence.append(-0.5 * (found**2 / spread + np.log(spread)).sum(axis=1))
        weights = SPREADS[:, None] ** 2 / spread
        means.append((weights * found) @ sides)
        variances.append(SPREADS[:, None] ** 2 * (1 - weights @ sides**2))
    likely = np.concatenate(evidence)
    chance = np.exp(likely - likely.max())
    chance /= chance.sum()
    each, mean = np.concatenate(means), chance @ np.concatenate(means)
    return Smoothed(mean, chance @ (np.concatenate(variances) + (each - mean) ** 2))


def monotone(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The nearest values that never fall, by pooling adjacent violators.

    Args:
        values: float64 (K,).
        weights: float64 (K,), above 0, of the squared distances.

    Source: Ayer, Brunk, Ewing, Reid & Silverman 1955, "An empirical distribution function for
        sampling with incomplete information", Annals of Mathematical Statistics 26.
    """
    pools = list[tuple[float, float, int]]()
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] >= pool[0]:
            mean, mass, count = pools.pop()
            whole = mass + pool[1]
            pool = ((mean * mass + pool[0] * pool[1]) / whole, whole, count + pool[2])
        pools.append(pool)
    return np.repeat([pool[0] for pool in pools], [pool[2] for pool in pools])
