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

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from privagg.programs.questions.columns import FloatArray

SPREADS = np.array([0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0])
"""Grid of τ, in logits."""

LENGTHS = (2.0, 8.0, 30.0)
"""Grid of ℓ, in steps."""

_LEAST = 1e-3
"""Of a curvature: an empty bin still has a place in the sums of others."""


class _Fixed:
    """An array as a key: equal where every number is.

    Args:
        numbers: not written to afterwards.
    """

    def __init__(self, numbers: FloatArray) -> None:
        self.numbers, self._key = numbers, (numbers.shape, numbers.tobytes())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Fixed) and self._key == other._key


class _Basis(NamedTuple):
    """One length's prior beside curvature and noise, whatever the sums are.

    Attributes:
        scale: float64 (K,), of the sums.
        vectors: float64 (K, K), in which sums are independent.
        sides: float64 (K, K), what each says of the effects.
        spread, weights: float64 (T, K), by τ.
        variances: float64 (T, K), of the effects.
    """

    scale: FloatArray
    vectors: FloatArray
    sides: FloatArray
    spread: FloatArray
    weights: FloatArray
    variances: FloatArray


@lru_cache(maxsize=1024)
def _bases(curvature: _Fixed, noise: _Fixed, distances: _Fixed) -> tuple[_Basis, ...]:
    """Of every length; from opening to opening of scores they are the same."""
    h, apart = np.maximum(curvature.numbers, _LEAST), distances.numbers
    scale = 1 / np.sqrt(noise.numbers + h)
    lengths = LENGTHS if np.isfinite(apart).sum() > len(h) else LENGTHS[:1]
    found = list[_Basis]()
    for length in lengths:
        prior = np.exp(-apart / length)
        towards = (h * scale)[:, None] * prior
        values, vectors = np.linalg.eigh(towards * h * scale)
        spread = 1 + SPREADS[:, None] ** 2 * np.maximum(values, 0)
        weights, sides = SPREADS[:, None] ** 2 / spread, vectors.T @ towards
        variances = SPREADS[:, None] ** 2 * (1 - weights @ sides**2)
        found.append(_Basis(scale, vectors, sides, spread, weights, variances))
    return tuple(found)


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
    return _smoothed(*map(_Fixed, (sums, curvature, noise, distances)))


@lru_cache(maxsize=4096)
def _smoothed(sums: _Fixed, curvature: _Fixed, noise: _Fixed, distances: _Fixed) -> Smoothed:
    """Once for the step after an opening, the card and its answers."""
    evidence, means, variances = list[FloatArray](), list[FloatArray](), list[FloatArray]()
    for basis in _bases(curvature, noise, distances):
        found = basis.vectors.T @ (sums.numbers * basis.scale)
        evidence.append(-0.5 * (found**2 / basis.spread + np.log(basis.spread)).sum(axis=1))
        means.append((basis.weights * found) @ basis.sides)
        variances.append(basis.variances)
    likely = np.concatenate(evidence)
    chance = np.exp(likely - likely.max())
    chance /= chance.sum()
    each, mean = np.concatenate(means), chance @ np.concatenate(means)
    result = Smoothed(mean, chance @ (np.concatenate(variances) + (each - mean) ** 2))
    for numbers in result:
        numbers.flags.writeable = False
    return result


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
