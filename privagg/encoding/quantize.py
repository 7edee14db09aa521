"""Few bits a coordinate: rounding rules whose effect on sensitivity is a number, and enforced.

For whole updates of one unit (client level), never for a site's sum over records: there each
record is put on the grid by itself (`privagg.encoding.grid`). An update passes a public mask, a
public rotation, the clip and the scale, a rounding rule, the clamp to b bits. Every rule checks its
integer norm in exact arithmetic against the plan's number (`privagg.privacy.plan.compression`), so
that holds whatever floats and coins did.

Stochastic rounding is repeated until the norm is within it, so it is right on average but for a
vector of norm at most e^(-1/2) / (1 - e^(-1/2)) sqrt(n) < 1.55 sqrt(n) grid units.

The argument is `proofs/sensitivity.md`. Source: Kairouz, Liu & Steinke, "The distributed discrete
Gaussian mechanism for federated learning with secure aggregation", ICML 2021 (conditional
randomised rounding); Suresh et al., "Distributed mean estimation with limited communication",
ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.encoding.grid import Grid, capped_square_sums
from privagg.encoding.transforms import Transform
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import EncodingError
from privagg.privacy.plan.compression import (
    LARGEST_CLIP_NORM_GRID,
    Rounding,
    norm_squared_bound,
    rounded_sensitivity,
)
from privagg.privacy.randomness import ByteStream

STOCHASTIC_TRIES = 89
"""Draws that all exceed their bound with probability at most e^(-89/2) < 2^-64."""


@dataclass(frozen=True)
class UpdateEncoding:
    """A whole update of one unit to bounded integers.

    Args:
        grid: clip norm, scale (S at most 2^30) and the clamp; a clamp of 2^(b-1) - 1 makes it b
            bits a coordinate.
        transform: the round's public mask and rotation.
        rounding: the rule; `stochastic` draws coins from the site's own stream.

    Raises:
        EncodingError: S is too large for the exact check.
    """

    grid: Grid
    transform: Transform
    rounding: Rounding = Rounding.TRUNCATE

    def __post_init__(self) -> None:
        if self.grid.sensitivity_grid > LARGEST_CLIP_NORM_GRID:
            raise EncodingError(
                f"an update encoding takes a sensitivity_grid of at most 2^30, got "
                f"{self.grid.sensitivity_grid}"
            )

    @property
    def norm_squared_bound(self) -> int:
        """M: the sum of squares of `encode`'s result never exceeds it; enforced exactly."""
        steps, n = self.grid.sensitivity_grid, self.transform.encoded_dimension
        return norm_squared_bound(self.rounding, steps, n)

    @property
    def sensitivity_grid(self) -> int:
        """L2 sensitivity of the plan that has this encoding: sqrt(M), rounded up."""
        steps, n = self.grid.sensitivity_grid, self.transform.encoded_dimension
        return rounded_sensitivity(self.rounding, steps, n)

    def encode(self, update: NDArray[Any], stream: ByteStream) -> IntVector:
        """Put one unit's whole update on the grid.

        Args:
            update: float32 or float64, shape (d,); zeros where a value is not finite.
            stream: the site's own secret randomness; used by `stochastic` only.

        Returns:
            int64, shape (n,), sum of squares at most `norm_squared_bound`. An absent unit adds
            nothing, so presence moves the sum by at most `sensitivity_grid` in L2.

        Raises:
            EncodingError: wrong shape.
        """
        return self.grid.clamp(self._round(self.transform.apply(update), stream))

    def _round(self, values: FloatVector, stream: ByteStream) -> IntVector:
        """Clip, scale and round within the norm; the last resort is truncation, which always is."""
        if self.rounding is Rounding.TRUNCATE:
            return self.grid.quantise_update(values)
        scaled = self.grid.scaled_records(values[np.newaxis])[0]
        if self.rounding is Rounding.NEAREST:
            rounded: IntVector = np.rint(scaled).astype(np.int64)
            if self._within(rounded):
                return rounded
        if self.rounding is Rounding.STOCHASTIC:
            for _ in range(STOCHASTIC_TRIES):
                rounded = stochastic_round(scaled, stream)
                if self._within(rounded):
                    return rounded
        return self.grid.quantise_update(values)

    def _within(self, rounded: IntVector) -> bool:
        """Whether the sum of squares is at most M, exactly."""
        limit = self.norm_squared_bound
        if max(int(rounded.max()), -int(rounded.min())) > 2**31:
            return False
        return int(capped_square_sums(rounded[np.newaxis], limit)[0]) <= limit


def encode_released(
    grid: Grid, update: NDArray[Any], rounding: Rounding, stream: ByteStream
) -> IntVector:
    """Put an update on the grid that is private already (local noise): no sensitivity at stake.

    Args:
        grid: scale and clamp; the update is not clipped.
        update: float64, shape (n,).
        rounding: `nearest`, or `stochastic` for a rounding that is right on average.
        stream: the site's own; used by `stochastic` only.

    Returns:
        int64, shape (n,), within the grid's clamp. NaN becomes 0, infinities the clamp.

    Raises:
        EncodingError: wrong dtype or number of axes.
    """
    if rounding is not Rounding.STOCHASTIC:
        return grid.round_public(update)
    bound = float(min(grid.contribution_bound, 2**51))
    with np.errstate(over="ignore"):
        scaled = np.asarray(update, dtype=np.float64) * float(grid.scale)
    finite = np.nan_to_num(scaled, nan=0.0, posinf=bound, neginf=-bound)
    return grid.clamp(stochastic_round(np.clip(finite, -bound, bound), stream))


def stochastic_round(scaled: FloatVector, stream: ByteStream) -> IntVector:
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
    signed: IntVector = np.where(scaled < 0, -rounded, rounded)
    return signed
