"""How far integer noise is from the Gaussian it stands for: total-variation distances, proved.

Every function returns an upper bound, rounded up. The derivations are in
`proofs/integer-noise.md`; the names of the lemmas there stand beside the formulas here.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction

from flint import arb, ctx, fmpq

from privagg.privacy.noise_table import MAGNITUDE_BITS, table_bound

SMALLEST_REPORTED = Decimal("1E-1000")
"""A distance below this is reported as this."""

_TAIL = Fraction(1, 2**125)
"""Upper bound of P(|N(0, 1)| >= 13) = 1.22e-38."""

_DIGITS = 6
_BITS = 256


def decimal_above(value: Fraction) -> Decimal:
    """The smallest decimal of six digits at or above `value` >= 0, and at least 1e-1000 if > 0."""
    if value == 0:
        return Decimal(0)
    context = Context(prec=_DIGITS, rounding=ROUND_CEILING)
    rounded = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    return max(rounded, SMALLEST_REPORTED)


def table_distance(stddev: Fraction) -> Fraction:
    """Distance of one table sample from round(N(0, stddev^2)) (Lemma 1).

    Each of the B + 1 magnitudes is off by at most 2^-127 through rounding, and what lies beyond
    B = table_bound is at most P(|N(0, 1)| >= 13).
    """
    rounding = Fraction(table_bound(stddev) + 1, 2 ** (MAGNITUDE_BITS + 1))
    return rounding + _TAIL


def join_distance(base_stddev: Fraction, radix: int, stddev: Fraction) -> Fraction:
    """Distance that one step R + radix * Z of the radix composition adds (Lemma 3).

    R and Z stand for Gaussians with standard deviations base_stddev and at least base_stddev, and
    `stddev` is at least that of R + radix * Z. Requires base_stddev >= 4 * radix >= 8.
    """
    w = base_stddev**2 / (1 + radix**2)

    def bound() -> arb:
        aliases = 5 * (-2 * arb.pi() ** 2 * _ball(w)).exp()
        return (21 * _ball(stddev) + 2) * aliases + 2 * arb(-200).exp()

    return _above(bound)


def sum_distance(variance: Fraction, shares: int) -> Fraction:
    """Distance of a sum of `shares` ideal shares from one rounded Gaussian (Lemma 2).

    Each share stands for a Gaussian of variance at least `variance` >= 256; the sum stands for one
    of `shares` times that variance. One share is its own sum: distance 0.
    """
    if shares == 1:
        return Fraction(0)

    def bound() -> arb:
        v, h = _ball(variance), arb(shares)
        nearest = (-(arb.pi() ** 2) * v / 2).exp()
        aliases = 2 * nearest / (1 - nearest**8)
        reach = h * v.sqrt() + arb.pi() * v * h.sqrt() + 1
        return (reach + arb(0.5)) * (h + 1) * aliases + 2 * nearest

    return _above(bound)


def _ball(value: Fraction) -> arb:
    """A ball around an exact fraction, at the working precision."""
    return arb(fmpq(value.numerator, value.denominator))


def _above(bound: Callable[[], arb]) -> Fraction:
    """An exact upper bound of what `bound` encloses, at least `SMALLEST_REPORTED`."""
    with ctx.workprec(_BITS):
        enclosure = bound()
        if enclosure < arb(10) ** SMALLEST_REPORTED.adjusted():
            return Fraction(SMALLEST_REPORTED)
        mantissa, exponent = enclosure.upper().man_exp()
    return int(mantissa) * Fraction(2) ** int(exponent)
