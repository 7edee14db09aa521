"""Ball arithmetic helpers: exact numbers in, proven ends out.

Every `arb` is a midpoint with a radius that encloses the true value, whatever the precision; a
lower precision can only widen it. A comparison of two balls is True only where it is certain.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from fractions import Fraction

from flint import acb, arb, ctx, fmpq, fmpz

from privagg.errors import CertificationError


def working_precision(bits: int) -> AbstractContextManager[None]:
    """Return a context in which ball arithmetic works with `bits` bits."""
    manager: AbstractContextManager[None] = ctx.workprec(bits)
    return manager


def ball(value: Fraction | int | float) -> arb:
    """Return a ball that encloses `value`; floats stand for the exact dyadic they hold."""
    if isinstance(value, Fraction):
        return arb(fmpq(value.numerator, value.denominator))
    return arb(value)


def _exact(value: arb) -> Fraction:
    pair = value.man_exp()
    mantissa, exponent = int(pair[0]), int(pair[1])
    if exponent >= 0:
        return Fraction(mantissa << exponent)
    return Fraction(mantissa, 1 << -exponent)


def upper_end(value: arb) -> Fraction:
    """Return an exact rational no smaller than anything in the ball."""
    if not value.is_finite():
        raise CertificationError("a bound is not finite at this precision; raise the effort")
    return _exact(value.upper())


def lower_end(value: arb) -> Fraction:
    """Return an exact rational no larger than anything in the ball."""
    if not value.is_finite():
        raise CertificationError("a bound is not finite at this precision; raise the effort")
    return _exact(value.lower())


def widened(value: acb, error: arb) -> acb:
    """Return the ball `value` enlarged so that it holds every point within `error` of it."""
    return value + error_square(error)


def error_square(error: arb) -> acb:
    """Return a complex ball round 0 that holds every number of absolute value <= `error`."""
    slack = arb(0, error.abs_upper())
    return acb(slack, slack)


def normal_cdf(x: arb) -> arb:
    """Return the standard normal distribution function, accurate in both tails."""
    return (-x / arb(2).sqrt()).erfc() / 2


def log_float(value: arb) -> float:
    """Return a float near log(value), for choosing parameters only; -inf at or below 0."""
    middle = value.mid()
    if not middle > 0:
        return float("-inf")
    return float(middle.log())


def as_dyadic(value: float) -> Fraction:
    """Return the exact value of a float."""
    return Fraction(*value.as_integer_ratio())


__all__ = [
    "acb",
    "arb",
    "as_dyadic",
    "ball",
    "error_square",
    "fmpz",
    "log_float",
    "lower_end",
    "normal_cdf",
    "upper_end",
    "widened",
    "working_precision",
]
