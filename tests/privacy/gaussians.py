"""Exact laws of rounded Gaussians in many digits, written apart from the package, for its tests."""

from __future__ import annotations

from fractions import Fraction

import mpmath as mp
from flint import fmpz_poly


def number(value: Fraction | int) -> mp.mpf:
    """An exact fraction at the working precision."""
    value = Fraction(value)
    return mp.mpf(value.numerator) / value.denominator


def rounded_gaussian(variance: Fraction | int, reach: int) -> list[mp.mpf]:
    """P(round(N(0, variance)) = k) for k = -reach ... reach."""
    scale = mp.sqrt(2 * number(variance))
    edges = [mp.erfc((2 * k - 1) / (2 * scale)) / 2 for k in range(reach + 2)]
    half = [edges[k] - edges[k + 1] for k in range(1, reach + 1)]
    return [*reversed(half), 1 - 2 * edges[1], *half]


def widened_gaussian(variance: mp.mpf, width: int, k: mp.mpf | int) -> mp.mpf:
    """Density at k of N(0, variance) + U + width * U', both uniform on [-1/2, 1/2], in closed form.

    The second difference of F, F' = Phi: F(x) = x Phi(x / s) + s phi(x / s).
    """
    s = mp.sqrt(variance)

    def integral(x: mp.mpf) -> mp.mpf:
        return x * mp.erfc(-x / (s * mp.sqrt(2))) / 2 + s * mp.npdf(x / s)

    near, far = mp.mpf(width - 1) / 2, mp.mpf(width + 1) / 2
    k = -abs(mp.mpf(k))  # the side on which nothing cancels down from 1
    return (integral(k + far) - integral(k + near) - integral(k - near) + integral(k - far)) / width


def convolve(one: list[mp.mpf], other: list[mp.mpf], radix: int = 1) -> list[mp.mpf]:
    """The law of X + radix * Y from those of X and Y, each centred on 0, in fixed point."""
    digits = mp.mp.prec + 20
    wide = [mp.mpf(0)] * (radix * (len(other) - 1) + 1)
    wide[::radix] = other
    first, second = (fmpz_poly([int(mp.ldexp(p, digits)) for p in law]) for law in (one, wide))
    length = len(one) + len(wide) - 1
    product = [int(c) for c in (first * second).coeffs()]
    product += [0] * (length - len(product))
    return [mp.ldexp(mp.mpf(c), -2 * digits) for c in product]


def variation(one: list[mp.mpf], other: list[mp.mpf]) -> mp.mpf:
    """Total-variation distance of two laws on the same values."""
    return mp.fsum(abs(p - q) for p, q in zip(one, other, strict=True)) / 2
