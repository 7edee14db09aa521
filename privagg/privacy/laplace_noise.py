"""Integer Laplace noise shared out: what one site adds, drawn from an exact table.

With n shares counted on, a site adds the difference of two Pólya variates of shape 1/n; n of them
make integer Laplace noise of the plan's scale, exactly, and m of them the law of shape m/n. What is
not exact is the table: its thresholds are rounded to 127 bits and its tail is cut, which moves a
draw by a total-variation distance below 2^-111 that a plan puts into its event.

Source: `proofs/laplace.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import cached_property, lru_cache
from math import ceil

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from privagg.errors import NoiseError
from privagg.privacy.laplace_law import LaplaceLaw
from privagg.privacy.noise_bounds import decimal_above
from privagg.privacy.noise_table import MAGNITUDE_BITS, MagnitudeTable
from privagg.privacy.randomness import ByteStream

TAIL_SCALES = 96
"""A table ends at 96 scales; what lies beyond is folded into its last value."""

_TAIL = Fraction(1, 2**127)
"""Upper bound of what lies beyond: 2 (1 + t) exp(-96) for t <= 1024 and shapes up to 1."""

_FIRST_BITS = 192
_MOST_BITS = 1 << 12
_STDDEV_STEP = 2**20


@dataclass(frozen=True)
class IntegerLaplace:
    """One of `shares` shares of integer Laplace noise.

    Args:
        scale: t of the noise that all shares make together, in grid units, exact, 1/32 to 1024.
        shares: n, at least 1.

    Raises:
        NoiseError: outside those ranges.
    """

    scale: Fraction
    shares: int

    def __post_init__(self) -> None:
        if self.shares < 1:
            raise NoiseError(f"shares must be at least 1, got {self.shares}")
        _ = self.law

    @property
    def law(self) -> LaplaceLaw:
        """Of one share."""
        return LaplaceLaw(self.scale, Fraction(1, self.shares))

    @property
    def bound(self) -> int:
        """Largest magnitude that `sample` can return, in grid units."""
        return ceil(TAIL_SCALES * self.scale)

    @cached_property
    def stddev_grid(self) -> Fraction:
        """Standard deviation of a share in grid units, rounded up to a multiple of 2^-20.

        It is attested, so every party has to find the same digits: decimals have no precision that
        is shared among threads, as that of balls is.
        """
        with localcontext(Context(prec=60)):
            a = (Decimal(-self.scale.denominator) / Decimal(self.scale.numerator)).exp()
            stddev = (2 * a / self.shares).sqrt() / (1 - a)
            return Fraction(ceil(stddev * _STDDEV_STEP), _STDDEV_STEP)

    def sample(self, stream: ByteStream, size: int) -> NDArray[np.int64]:
        """Draw `size` independent values.

        Args:
            stream: secret randomness; about 8 bytes a value are used.
            size: number of values, at least 0.

        Returns:
            Grid units, shape (size,), int64, at most `bound` in magnitude. The time taken depends
            on the values (see `privagg.privacy.noise_table`).
        """
        return laplace_table(self).lookup(stream.uint64(size), stream)

    def total_distance(self, *, dimension: int, shares: int, rounds: int = 1) -> Decimal:
        """What a plan folds into delta for the tables behind a released sum.

        Args:
            dimension: coordinates of a contribution.
            shares: in the sum that the guarantee counts on, at most.
            rounds: rounds released.

        Returns:
            rounds * dimension * shares * distance of a draw, rounded up.
        """
        rounding = Fraction(self.bound + 1, 2 ** (MAGNITUDE_BITS + 1))
        return decimal_above(rounds * dimension * shares * (rounding + _TAIL))


def cumulative_thresholds(noise: IntegerLaplace) -> list[int]:
    """floor(2^127 P(|R| <= m)) for m = 0 ... bound - 1, proved.

    Each value is enclosed in a ball; where the ball does not decide the floor, all are computed
    again with twice the precision.
    """
    bits = _FIRST_BITS
    while bits <= _MOST_BITS:
        with ctx.workprec(bits):
            found = _floors(noise, ceil(3 * bits * noise.scale / 4) + 8)
        if found is not None:
            return found
        bits *= 2
    raise NoiseError(
        f"the table of a scale of {noise.scale} in {noise.shares} shares could not be decided with "
        f"{bits // 2} bits; use another scale"
    )


def _floors(noise: IntegerLaplace, count: int) -> list[int] | None:
    """The thresholds, from P(0) ... P(count); None where a floor is open at this precision."""
    masses, _ = noise.law.masses(max(count, noise.bound))
    floors, reached = [], -masses[0]
    for mass in masses[: noise.bound]:
        reached += 2 * mass
        floor = (reached * arb(2) ** MAGNITUDE_BITS).floor().unique_fmpz()
        if floor is None:
            return None
        floors.append(int(floor))
    return floors


@lru_cache(maxsize=64)
def laplace_table(noise: IntegerLaplace) -> MagnitudeTable:
    """The table of one share, made once a process (about 10 µs an entry)."""
    return MagnitudeTable(cumulative_thresholds(noise))
