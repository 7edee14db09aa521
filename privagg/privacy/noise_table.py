"""Exact cumulative tables of symmetric integer noise, and vectorised look-ups in them.

A table holds T_m = floor(2^127 * P(|R| <= m)), here for R = round(N), N ~ N(0, sigma^2), every
entry certified in ball arithmetic (Arb through python-flint); `privagg.privacy.laplace_noise` has
those of Laplace noise. A magnitude is the number of thresholds that a uniform 127-bit integer
reaches, a 128th bit is the sign. The first 64 bits decide all but about one draw in 2^50; only then
are the other 64 drawn, which changes nothing in the distribution. The argument is
`proofs/integer-noise.md`.

The time and the memory accesses of a look-up depend on the value drawn. Whoever can watch a site's
caches or time its sampling to the microsecond learns something about the noise; the sums that
leave the site carry no such trace.
"""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from functools import lru_cache
from math import ceil

import numpy as np
from flint import arb, ctx, fmpq
from numpy.typing import NDArray

from privagg.errors import NoiseError
from privagg.kernels.thresholds import Thresholds
from privagg.privacy.randomness import ByteStream

MAGNITUDE_BITS = 127
"""Bits of the uniform integer that chooses a magnitude."""

TAIL_STDDEVS = 13
"""A table ends at 13 standard deviations; what lies beyond is folded into its last value."""

_FIRST_BITS = 160
"""Precision tried first, in bits: it leaves all but about one floor in 2^30 decided."""

_ONE = np.uint64(1)


def table_bound(stddev: Fraction) -> int:
    """Largest magnitude in the table of this standard deviation: ceil(13 sigma)."""
    return ceil(TAIL_STDDEVS * stddev)


def cumulative_thresholds(stddev: Fraction) -> list[int]:
    """floor(2^127 P(|round(N(0, stddev^2))| <= m)) for m = 0 ... table_bound - 1, proved.

    P(|R| <= m) = erf((m + 1/2) / (stddev sqrt 2)). Each value is enclosed in a ball; where the ball
    does not decide the floor, the precision is doubled.

    Args:
        stddev: standard deviation in grid units, exact.
    """
    return [_threshold(stddev, m) for m in range(table_bound(stddev))]


def _threshold(stddev: Fraction, magnitude: int) -> int:
    """One entry of `cumulative_thresholds`."""
    bits = _FIRST_BITS
    while bits <= 1 << 14:
        step = _half_step(stddev, bits)
        with ctx.workprec(bits):
            argument = arb(2 * magnitude + 1) * step
            value = (argument.erf() * arb(2) ** MAGNITUDE_BITS).floor().unique_fmpz()
        if value is not None:
            return int(value)
        bits *= 2
    raise NoiseError(
        f"threshold {magnitude} at standard deviation {stddev} could not be decided with "
        f"{bits // 2} bits; use another standard deviation"
    )


@lru_cache(maxsize=64)
def _half_step(stddev: Fraction, bits: int) -> arb:
    """A ball around 1 / (2 stddev sqrt 2): how much erf's argument grows in half a grid unit."""
    with ctx.workprec(bits):
        return arb(fmpq(stddev.denominator, 2 * stddev.numerator)) / arb(2).sqrt()


class MagnitudeTable:
    """Look-up table for a symmetric integer R, its tail folded into the largest magnitude.

    Args:
        thresholds: T_m = floor(2^127 P(|R| <= m)) for m = 0 ... largest magnitude - 1.
    """

    def __init__(self, thresholds: list[int]) -> None:
        self._thresholds = thresholds
        self._upper = Thresholds([threshold >> 64 for threshold in thresholds])

    def lookup(self, words: NDArray[np.uint64], stream: ByteStream) -> NDArray[np.int64]:
        """The values that uniform `words` stand for.

        Args:
            words: uniform 64-bit words, shape (n,): bit 0 is the sign, the rest is the upper part
                of the 127-bit integer that chooses the magnitude.
            stream: gives the lower 64 bits for the rare word that its upper part does not decide.

        Returns:
            Values in grid units, shape (n,), int64, at most the largest in magnitude.
        """
        values, undecided = self._upper.look_up(words)
        for i in undecided:
            full = (int(words[i] >> _ONE) << 64) | int(stream.uint64(1)[0])
            magnitude = bisect_right(self._thresholds, full)
            values[i] = -magnitude if words[i] & _ONE else magnitude
        return values


@lru_cache(maxsize=64)
def gaussian_table(stddev: Fraction) -> MagnitudeTable:
    """The table of round(N(0, stddev^2)), made once a process (about 10 µs an entry)."""
    return MagnitudeTable(cumulative_thresholds(stddev))
