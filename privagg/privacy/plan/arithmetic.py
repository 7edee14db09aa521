"""Exact square roots with a direction, for numbers whose error must fall on the safe side."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import isqrt

DECIMALS = 12
"""Decimal places kept of a noise multiplier; the rest is rounded to the safe side."""


def sqrt_ceil(value: Fraction, step: Fraction) -> Fraction:
    """Smallest multiple of `step` whose square is at least `value` (>= 0)."""
    squared = value / (step * step)
    root = isqrt(squared.numerator // squared.denominator)
    while Fraction(root * root) < squared:
        root += 1
    return root * step


def sqrt_floor_decimal(value: Fraction, places: int = DECIMALS) -> Decimal:
    """Largest decimal with `places` places whose square is at most `value` (>= 0)."""
    scaled = value * 10 ** (2 * places)
    return Decimal(isqrt(scaled.numerator // scaled.denominator)).scaleb(-places)
