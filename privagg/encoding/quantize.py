"""Few bits a coordinate: rounding rules whose effect on sensitivity is a number, and enforced.

For whole updates of one unit (client level), never for a site's sum over records: there each
record is put on the grid by itself (`privagg.encoding.grid`). An update passes a public mask, a
public rotation, the clip and the scale, a rounding rule, the clamp to b bits. Every rule checks its
integer norm in exact arithmetic, so `sensitivity_grid` holds whatever floats and coins did.

With S grid units in the clip norm, n coordinates after mask and rotation:

- truncate: sensitivity S; moves a coordinate towards zero, by less than 1.
- nearest: sensitivity min(S + sqrt(n)/2, 2 S); moves a coordinate by at most 1/2.
- stochastic, repeated until the norm is within it: sensitivity the smaller of S + sqrt(n) and
  sqrt(S^2 + n/4 + sqrt(2 ln(1/beta)) (S + sqrt(n)/2)); right on average but for a vector of norm
  at most beta / (1 - beta) * sqrt(n), as draws beyond the bound, at most beta of all, are repeated.

The argument is `proofs/sensitivity.md`. Source: Kairouz, Liu & Steinke 2021, "The distributed
discrete Gaussian mechanism for federated learning with secure aggregation" (conditional randomised
rounding); Suresh et al. 2017, "Distributed mean estimation with limited communication".
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from math import ceil, isqrt, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.encoding.grid import Floats, Grid, Integers, capped_square_sums
from privagg.encoding.transforms import Mask, Rotation
from privagg.errors import EncodingError
from privagg.privacy.randomness import ByteStream

LARGEST_QUANTISED_SENSITIVITY = 2**30
"""S of an update encoding: its rounded norm still fits the exact check."""

_NEVER = Fraction(1, 2**64)  # probability with which stochastic rounding may give up


class Rounding(str, Enum):
    """How a clipped coordinate in grid units becomes an integer."""

    TRUNCATE = "truncate"
    NEAREST = "nearest"
    STOCHASTIC = "stochastic"


@dataclass(frozen=True)
class UpdateEncoding:
    """A whole update of one unit to bounded integers and a sum of them back.

    Args:
        grid: clip norm, scale (S at most 2^30) and the clamp; a clamp of 2^(b-1) - 1 makes it b
            bits a coordinate.
        dimension: d, coordinates of an update.
        rounding: the rule; `stochastic` draws coins from the site's own stream.
        beta: for `stochastic`: how often a draw may exceed the norm and be repeated, 0 < beta <=
            0.9. Smaller means less bias and a higher sensitivity. e^(-1/2) is the usual choice.
        mask: the coordinates that are sent; None sends all.
        rotation: over the coordinates that the mask keeps; None leaves them as they are.

    Raises:
        EncodingError: a number is outside its range, or dimensions do not meet.
    """

    grid: Grid
    dimension: int
    rounding: Rounding = Rounding.TRUNCATE
    beta: Decimal | Fraction = Fraction(3, 5)
    mask: Mask | None = None
    rotation: Rotation | None = None

    def __post_init__(self) -> None:
        if self.grid.sensitivity_grid > LARGEST_QUANTISED_SENSITIVITY:
            raise EncodingError(
                f"an update encoding takes a sensitivity_grid of at most 2^30, got "
                f"{self.grid.sensitivity_grid}"
            )
        if not 0 < self.beta <= Fraction(9, 10):
            raise EncodingError(f"beta must lie in (0, 0.9], got {self.beta}")
        if self.dimension < 1 or (self.mask and self.mask.dimension != self.dimension):
            raise EncodingError(f"the mask is not for updates of dimension {self.dimension}")
        if self.rotation and self.rotation.dimension != self._kept:
            raise EncodingError(
                f"the rotation is for {self.rotation.dimension} coordinates, but {self._kept} are "
                "sent"
            )

    @property
    def _kept(self) -> int:
        """Coordinates after the mask."""
        return self.mask.encoded_dimension if self.mask else self.dimension

    @property
    def encoded_dimension(self) -> int:
        """n, the integers that `encode` returns."""
        return self.rotation.encoded_dimension if self.rotation else self._kept

    @property
    def bits(self) -> int:
        """b, bits of one clamped coordinate before weight and noise."""
        return 1 + min(self.grid.contribution_bound, self.sensitivity_grid).bit_length()

    @property
    def norm_squared_bound(self) -> int:
        """M: the sum of squares of `encode`'s result never exceeds it; enforced exactly."""
        return _norm_squared_bound(
            self.rounding, self.grid.sensitivity_grid, self.encoded_dimension, Fraction(self.beta)
        )

    @property
    def sensitivity_grid(self) -> int:
        """L2 sensitivity for the plan, in grid units: sqrt(M), rounded up."""
        root = isqrt(self.norm_squared_bound)
        return root if root**2 == self.norm_squared_bound else root + 1

    def encode(self, update: NDArray[Any], stream: ByteStream) -> Integers:
        """Put one unit's whole update on the grid.

        Args:
            update: float32 or float64, shape (d,); zeros where a value is not finite.
            stream: the site's own secret randomness; used by `stochastic` only.

        Returns:
            int64, shape (n,), sum of squares at most `norm_squared_bound`. An absent unit adds
            nothing, so presence moves the sum by at most `sensitivity_grid` in L2.

        Raises:
            EncodingError: wrong dtype or shape.
        """
        if np.shape(update) != (self.dimension,):
            raise EncodingError(
                f"an update must have shape ({self.dimension},), got {np.shape(update)}"
            )
        return self.grid.clamp(self._round(self._transformed(update), stream))

    def decode(self, total: Integers, divisor: float | Fraction | int = 1) -> Floats:
        """The mean update of an opened sum, float64 (d,): scale, rotation and mask undone.

        Args:
            total: int64, shape (n,).
            divisor: public, finite and positive.

        Raises:
            EncodingError: wrong shape, or the divisor is not a finite positive number.
        """
        if total.shape != (self.encoded_dimension,):
            raise EncodingError(
                f"a sum must have shape ({self.encoded_dimension},), got {total.shape}"
            )
        values = self.grid.decode(total, divisor)
        if self.rotation:
            values = self.rotation.undo(values)
        return self.mask.undo(values) if self.mask else values

    def _transformed(self, update: NDArray[Any]) -> Floats:
        """Mask, then rotate; float64 (n,), not finite where a value overflows."""
        values: Floats = np.asarray(update, dtype=np.float64)
        if self.mask:
            values = self.mask.apply(values)
        if self.rotation:
            with np.errstate(over="ignore", invalid="ignore"):
                values = self.rotation.apply(values)
        return values

    def _round(self, values: Floats, stream: ByteStream) -> Integers:
        """Clip, scale and round within the norm; the last resort is truncation, which always is."""
        scaled = self.grid.scaled_records(values[np.newaxis])[0]
        if self.rounding is Rounding.NEAREST:
            rounded: Integers = np.rint(scaled).astype(np.int64)
            if self._within(rounded):
                return rounded
        if self.rounding is Rounding.STOCHASTIC:
            for _ in range(_tries(Fraction(self.beta))):
                rounded = stochastic_round(scaled, stream)
                if self._within(rounded):
                    return rounded
        return self.grid.quantise_update(values)

    def _within(self, rounded: Integers) -> bool:
        """Whether the sum of squares is at most M, exactly."""
        limit = self.norm_squared_bound
        if max(int(rounded.max()), -int(rounded.min())) > 2**31:
            return False
        return int(capped_square_sums(rounded[np.newaxis], limit)[0]) <= limit


def stochastic_round(scaled: Floats, stream: ByteStream) -> Integers:
    """Round away from zero with the probability of the fraction, else towards it.

    Args:
        scaled: float64, shape (n,), magnitudes below 2^52.
        stream: secret randomness, 8 bytes a value.

    Returns:
        int64, shape (n,), with expectation `scaled` to within 2^-64.
    """
    magnitude = np.abs(scaled)
    whole = np.floor(magnitude)
    # Exact: taking the whole part off a positive float rounds nothing (off a negative one it may).
    threshold = ((magnitude - whole) * 2.0**64).astype(np.uint64)
    rounded = whole.astype(np.int64) + (stream.uint64(len(scaled)) < threshold)
    signed: Integers = np.where(scaled < 0, -rounded, rounded)
    return signed


def grid_for_bits(
    clip_norm_l2: float | Decimal | Fraction,
    *,
    bits: int,
    rotated_dimension: int | None = None,
    clamp_probability: Decimal = Decimal("1e-6"),
) -> Grid:
    """The finest grid whose coordinates fit `bits` bits, sign included.

    Without rotation a single coordinate may hold the whole norm: S = 2^(b-1) - 1. After a rotation
    of n coordinates none exceeds S sqrt(2 ln(2 n / p) / n) but with probability p over the signs,
    so S can be larger by the inverse of that root; the clamp that then acts costs accuracy only.

    Args:
        clip_norm_l2: C.
        bits: b, 2 to 31.
        rotated_dimension: n after a `Rotation`; None where there is none.
        clamp_probability: p, that any coordinate of an update is clamped.

    Raises:
        EncodingError: bits outside 2 ... 31.
    """
    if not 2 <= bits <= 31:
        raise EncodingError(f"bits must lie between 2 and 31, got {bits}")
    largest = 2 ** (bits - 1) - 1
    spread = 1.0
    if rotated_dimension is not None:
        tail = 2 * rotated_dimension / float(clamp_probability)
        spread = min(1.0, sqrt(2 * log(tail) / rotated_dimension))
    steps = min(int(largest / spread), LARGEST_QUANTISED_SENSITIVITY)
    return Grid(clip_norm_l2, max(2, steps), largest)


def _norm_squared_bound(rounding: Rounding, steps: int, n: int, beta: Fraction) -> int:
    """M of the module's table, rounded up; being enforced, any M is a valid bound."""
    if rounding is Rounding.TRUNCATE:
        return steps**2
    root = sqrt(n)
    if rounding is Rounding.NEAREST:
        return min(ceil((steps + root / 2) ** 2), 4 * steps**2)
    coin = sqrt(2 * log(1 / float(beta)))
    likely = steps**2 + n / 4 + coin * (steps + root / 2)
    return ceil(min((steps + root) ** 2, likely))


def _tries(beta: Fraction) -> int:
    """Draws after which stochastic rounding gives up, with probability at most 2^-64."""
    return ceil(log(float(_NEVER)) / log(float(beta)))
