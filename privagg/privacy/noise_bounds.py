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


def join_distance(
    *, low: Fraction, high: Fraction, radix: int, variance: Fraction, reach: Fraction
) -> Fraction:
    """Distance of X + radix * Y from one rounded Gaussian, X and Y being ideal (Lemma 2).

    Ideal means: X = round(N(0, low) + V) with V independent of N, and Y the same with `high`. Then
    X + radix * Y is, up to this distance, again ideal, with variance low + radix^2 * high. One
    lemma serves both the sum of two shares (radix 1) and one step of the radix composition.

    Args:
        low: variance of the Gaussian that X stands for, at least 1, in grid units squared.
        high: the same for Y.
        radix: b >= 1.
        variance: low + radix^2 * high, or more.
        reach: at least as large as everything in X + radix * Y but its Gaussian can get.
    """
    w = low * high / (low + radix**2 * high)

    def bound() -> arb:
        exponent = 2 * arb.pi() ** 2 * _ball(w)
        cut = _ball(reach) + (2 * exponent * _ball(variance)).sqrt() + 1
        return (5 * cut + 5) * (-exponent).exp()

    return _above(bound)


def sum_distance(*, variance: Fraction, reach: Fraction, shares: int) -> Fraction:
    """Distance of a sum of `shares` ideal shares from one rounded Gaussian (Lemma 3).

    Args:
        variance: v, of the Gaussian that each share stands for; the sum stands for shares * v.
        reach: at least as large as everything in a share but its Gaussian can get.
        shares: h >= 1; one share is its own sum, at distance 0.
    """
    joins = shares - 1
    if joins == 0:
        return Fraction(0)
    return joins * join_distance(
        low=variance, high=variance, radix=1, variance=shares * variance, reach=shares * reach
    )


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
