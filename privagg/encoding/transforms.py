"""Linear maps before the grid, the same at every party, so that sums still line up.

A rotation by random signs and a Hadamard matrix spreads a vector evenly over its coordinates, so
that few bits a coordinate suffice; it keeps the L2 norm. A mask keeps k coordinates that all
parties agree on; it never raises the norm. Both are public, and undoing them on an opened sum is
post-processing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.encoding.vectors import FloatVector
from privagg.errors import EncodingError
from privagg.privacy.randomness import public_stream


@dataclass(frozen=True)
class Rotation:
    """x -> H D x / sqrt(n): D random signs from a public seed, H the Hadamard matrix of order n.

    Effect on sensitivity: none, it is orthogonal. For any fixed x, each coordinate of the result is
    sub-Gaussian with variance |x|^2 / n over the signs.

    Args:
        dimension: coordinates of x; n is the next power of two, x is padded with zeros.
        seed: public, the same at every party of a round.

    Source: Ailon & Chazelle, STOC 2006 (the transform); Suresh et al., ICML 2017, and Kairouz, Liu
        & Steinke, ICML 2021 (before quantising in federated learning).
    """

    dimension: int
    seed: bytes

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise EncodingError(f"a rotation needs at least 1 coordinate, got {self.dimension}")

    @property
    def encoded_dimension(self) -> int:
        """n, the smallest power of two that is at least `dimension`."""
        return 1 << (self.dimension - 1).bit_length()

    def apply(self, values: FloatVector) -> FloatVector:
        """Rotate float64 (dimension,) to float64 (n,)."""
        padded = np.zeros(self.encoded_dimension)
        padded[: self.dimension] = values
        return hadamard(padded * self._signs())

    def undo(self, values: FloatVector) -> FloatVector:
        """Rotate float64 (n,) back to float64 (dimension,)."""
        turned: FloatVector = hadamard(values) * self._signs()
        return turned[: self.dimension]

    def _signs(self) -> FloatVector:
        """The n signs of D."""
        n = self.encoded_dimension
        raw = public_stream(self.seed, "rotation").bytes(-(-n // 8))
        bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=n)
        return 1.0 - 2.0 * bits.astype(np.float64)


def hadamard(values: FloatVector) -> FloatVector:
    """The Walsh-Hadamard transform over sqrt(n), its own inverse; n additions a power of two.

    Args:
        values: float64, shape (n,), n a power of two.
    """
    result: FloatVector = np.array(values, dtype=np.float64)
    n = len(result)
    half = 1
    while half < n:
        pairs = result.reshape(-1, 2, half)
        # Kept aside: the differences still need what the sums replace.
        total = pairs[:, 0] + pairs[:, 1]
        np.subtract(pairs[:, 0], pairs[:, 1], out=pairs[:, 1])
        pairs[:, 0] = total
        half *= 2
    result *= 1 / sqrt(n)
    return result


@dataclass(frozen=True, eq=False)
class Mask:
    """The k coordinates that a round sends; the others stay at home.

    Effect on sensitivity: none upwards, dropping coordinates never raises a norm. A mask must not
    depend on private data: `random_mask` draws it from a public seed, `top_mask` takes a part of it
    from what was released already.

    Args:
        dimension: d, coordinates of an update.
        indices: int64, shape (k,), ascending, each in [0, d).
        factors: float64, shape (k,): what kept coordinates are multiplied by on decoding, one over
            the probability that the public draw keeps them, so that its mean is the whole update.

    Raises:
        EncodingError: indices or factors are not of that form.

    Source: Konecny et al., "Federated Learning: Strategies for Improving Communication Efficiency",
        2016 (random masks); Aji & Heafield, EMNLP 2017 (largest values); Horvitz & Thompson,
        J. Amer. Statist. Assoc. 47, 1952 (weights of a draw with unequal probabilities).
    """

    dimension: int
    indices: NDArray[np.int64]
    factors: FloatVector

    def __post_init__(self) -> None:
        kept = self.indices
        if kept.dtype != np.int64 or kept.ndim != 1 or len(kept) < 1:
            raise EncodingError("a mask needs at least one index, as an int64 vector")
        if kept[0] < 0 or kept[-1] >= self.dimension or (np.diff(kept) < 1).any():
            raise EncodingError(
                f"mask indices must ascend within [0, {self.dimension}), each at most once"
            )
        if self.factors.shape != kept.shape or not (self.factors >= 1).all():
            raise EncodingError("a mask needs a factor of at least 1 for every index")

    @property
    def encoded_dimension(self) -> int:
        """k."""
        return len(self.indices)

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """The kept coordinates of floats or integers, (d,) to (k,)."""
        return np.asarray(values[self.indices])

    def undo(self, values: FloatVector) -> FloatVector:
        """Kept coordinates in their places, zeros elsewhere, float64 (d,)."""
        whole = np.zeros(self.dimension)
        whole[self.indices] = values * self.factors
        return whole


def random_mask(dimension: int, kept: int, *, seed: bytes) -> Mask:
    """k of d coordinates, uniformly, from a public seed; every factor is d / k.

    Args:
        dimension: d.
        kept: k, from 1 to d.
        seed: public, the same at every party of a round, another one in every round.

    Raises:
        EncodingError: k lies outside 1 ... d.
    """
    _check_kept(kept, dimension)
    keys = public_stream(seed, "mask").uint64(dimension)
    return Mask(dimension, _smallest(keys, kept), np.full(kept, dimension / kept))


def top_mask(released: FloatVector, kept: int, *, seed: bytes) -> Mask:
    """The largest coordinates of something already released, and some of the others.

    The k - k // 2 largest are always kept (factor 1). The rest are k // 2 of the other coordinates,
    uniformly, each with one over its probability: without them a coordinate that is small once
    would be silent for ever, and the mean would not be the update.

    Args:
        released: float64, shape (d,), finite, public, say the round's model: choosing by a site's
            own update would be a release of its own that nobody charged.
        kept: k, from 1 to d. Among equals the lowest indices are kept.
        seed: public, the same at every party of a round, another one in every round.

    Raises:
        EncodingError: k lies outside 1 ... d, or a value is not finite.
    """
    dimension = len(released)
    _check_kept(kept, dimension)
    if not np.isfinite(released).all():
        raise EncodingError("a mask cannot be chosen by values that are not finite")
    factors = np.zeros(dimension)
    factors[_smallest(-np.abs(released), kept - kept // 2)] = 1
    others = np.flatnonzero(factors == 0)
    if explored := kept // 2:
        drawn = random_mask(len(others), explored, seed=seed)
        factors[others[drawn.indices]] = drawn.factors
    indices = np.flatnonzero(factors)
    return Mask(dimension, indices, factors[indices])


def _smallest(keys: NDArray[np.uint64] | FloatVector, count: int) -> NDArray[np.int64]:
    """Ascending indices of the `count` smallest keys, ties by index."""
    limit = np.partition(keys, count - 1)[count - 1]
    below = np.flatnonzero(keys < limit)
    ties = np.flatnonzero(keys == limit)[: count - len(below)]
    return np.sort(np.concatenate([below, ties])).astype(np.int64)


def _check_kept(kept: int, dimension: int) -> None:
    if not 1 <= kept <= dimension:
        raise EncodingError(f"a mask keeps 1 to {dimension} coordinates, not {kept}")


@dataclass(frozen=True, eq=False)
class Transform:
    """A mask, then a rotation of what it keeps; either may be absent.

    Args:
        dimension: d, coordinates of an update.
        mask: the coordinates that are sent; None sends all.
        rotation: over the coordinates that are sent; None leaves them as they are.

    Raises:
        EncodingError: dimensions do not meet.
    """

    dimension: int
    mask: Mask | None = None
    rotation: Rotation | None = None

    def __post_init__(self) -> None:
        if self.dimension < 1 or (self.mask and self.mask.dimension != self.dimension):
            raise EncodingError(f"the mask is not for updates of dimension {self.dimension}")
        if self.rotation and self.rotation.dimension != self._kept:
            raise EncodingError(
                f"the rotation is for {self.rotation.dimension} coordinates, but {self._kept} are "
                "sent"
            )

    @property
    def _kept(self) -> int:
        return self.mask.encoded_dimension if self.mask else self.dimension

    @property
    def encoded_dimension(self) -> int:
        """n, coordinates after mask and rotation."""
        return self.rotation.encoded_dimension if self.rotation else self._kept

    def apply(self, update: NDArray[Any]) -> FloatVector:
        """An update's values as they go on the grid: float64 (d,) to (n,).

        Not finite where a value is not, or overflows in a rotation.

        Raises:
            EncodingError: wrong shape.
        """
        if np.shape(update) != (self.dimension,):
            raise EncodingError(
                f"an update must have shape ({self.dimension},), got {np.shape(update)}"
            )
        values: FloatVector = np.asarray(update, dtype=np.float64)
        if self.mask:
            values = self.mask.apply(values)
        if self.rotation:
            # What overflows is no longer finite, and the grid makes zeros of such an update.
            with np.errstate(over="ignore", invalid="ignore"):
                values = self.rotation.apply(values)
        return values

    def undo(self, values: FloatVector) -> FloatVector:
        """Values of an opened sum as an update: float64 (n,) to (d,).

        Raises:
            EncodingError: wrong shape.
        """
        if values.shape != (self.encoded_dimension,):
            raise EncodingError(
                f"a sum must have shape ({self.encoded_dimension},), got {values.shape}"
            )
        if self.rotation:
            values = self.rotation.undo(values)
        return self.mask.undo(values) if self.mask else values
