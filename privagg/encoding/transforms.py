"""Linear maps before the grid, the same at every party, so that sums still line up.

A rotation by random signs and a Hadamard matrix spreads a vector evenly over its coordinates, so
that few bits a coordinate suffice; it keeps the L2 norm. A mask keeps k coordinates that all
parties agree on; it never raises the norm. Both are public, and undoing them on an opened sum is
post-processing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from privagg.errors import EncodingError
from privagg.privacy.randomness import public_stream

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rotation:
    """x -> H D x / sqrt(n): D random signs from a public seed, H the Hadamard matrix of order n.

    Effect on sensitivity: none, it is orthogonal. For any fixed x, each coordinate of the result is
    sub-Gaussian with variance |x|^2 / n over the signs.

    Args:
        dimension: coordinates of x; n is the next power of two, x is padded with zeros.
        seed: public, the same at every party of a round.

    Source: Ailon & Chazelle 2006 (the transform); Suresh et al. 2017 and Kairouz, Liu & Steinke
        2021 (before quantising in federated learning).
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

    def apply(self, values: Floats) -> Floats:
        """Rotate float64 (dimension,) to float64 (n,)."""
        padded = np.zeros(self.encoded_dimension)
        padded[: self.dimension] = values
        return hadamard(padded * self._signs())

    def undo(self, values: Floats) -> Floats:
        """Rotate float64 (n,) back to float64 (dimension,)."""
        turned: Floats = hadamard(values) * self._signs()
        return turned[: self.dimension]

    def _signs(self) -> Floats:
        """The n signs of D."""
        n = self.encoded_dimension
        raw = public_stream(self.seed, "rotation").bytes(-(-n // 8))
        bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=n)
        return 1.0 - 2.0 * bits.astype(np.float64)


def hadamard(values: Floats) -> Floats:
    """The Walsh-Hadamard transform over sqrt(n), its own inverse; n additions a power of two.

    Args:
        values: float64, shape (n,), n a power of two.
    """
    result: Floats = np.array(values, dtype=np.float64)
    n = len(result)
    half = 1
    while half < n:
        pairs = result.reshape(-1, 2, half)
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
    depend on private data: `random_mask` draws it from a public seed, `top_mask` takes it from
    what was released already.

    Args:
        dimension: d, coordinates of an update.
        indices: int64, shape (k,), ascending, each in [0, d).
        decoded_factor: what kept coordinates are multiplied by on decoding: d / k makes the
            expectation over a random mask the whole update, 1 leaves them as they are.

    Source: Konecny et al. 2016 (random masks); Aji & Heafield 2017 (largest values).
    """

    dimension: int
    indices: NDArray[np.int64]
    decoded_factor: float = 1.0

    def __post_init__(self) -> None:
        kept = self.indices
        if kept.dtype != np.int64 or kept.ndim != 1 or len(kept) < 1:
            raise EncodingError("a mask needs at least one index, as an int64 vector")
        if kept[0] < 0 or kept[-1] >= self.dimension or (np.diff(kept) < 1).any():
            raise EncodingError(
                f"mask indices must ascend within [0, {self.dimension}), each at most once"
            )

    @property
    def encoded_dimension(self) -> int:
        """k."""
        return len(self.indices)

    def apply(self, values: Floats) -> Floats:
        """The kept coordinates, float64 (k,)."""
        return np.asarray(values[self.indices])

    def undo(self, values: Floats) -> Floats:
        """Kept coordinates in their places, zeros elsewhere, float64 (d,)."""
        whole = np.zeros(self.dimension)
        whole[self.indices] = values * self.decoded_factor
        return whole


def random_mask(dimension: int, kept: int, *, seed: bytes, round_number: int) -> Mask:
    """k of d coordinates, uniformly, from a public seed; unbiased on decoding (factor d / k).

    Args:
        dimension: d.
        kept: k, from 1 to d.
        seed: public, the same at every party.
        round_number: every round has a mask of its own.

    Raises:
        EncodingError: k lies outside 1 ... d.
    """
    _check_kept(kept, dimension)
    keys = public_stream(seed, "mask", round_number).uint64(dimension)
    return Mask(dimension, _smallest(keys, kept), dimension / kept)


def top_mask(released: Floats, kept: int) -> Mask:
    """The k largest coordinates of something already released, say the last round's mean update.

    Args:
        released: float64, shape (d,), finite, public: choosing by a site's own update would be a
            release of its own that nobody charged.
        kept: k, from 1 to d. Among equals the lowest indices are kept.

    Raises:
        EncodingError: k lies outside 1 ... d, or a value is not finite.
    """
    _check_kept(kept, len(released))
    if not np.isfinite(released).all():
        raise EncodingError("a mask cannot be chosen by values that are not finite")
    return Mask(len(released), _smallest(-np.abs(released), kept))


def _smallest(keys: NDArray[np.uint64] | Floats, count: int) -> NDArray[np.int64]:
    """Ascending indices of the `count` smallest keys, ties by index."""
    limit = np.partition(keys, count - 1)[count - 1]
    below = np.flatnonzero(keys < limit)
    ties = np.flatnonzero(keys == limit)[: count - len(below)]
    return np.sort(np.concatenate([below, ties])).astype(np.int64)


def _check_kept(kept: int, dimension: int) -> None:
    if not 1 <= kept <= dimension:
        raise EncodingError(f"a mask keeps 1 to {dimension} coordinates, not {kept}")
