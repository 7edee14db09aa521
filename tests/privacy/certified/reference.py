"""Independent reference values: nothing here imports the certified package."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
from scipy.special import ndtr

DIGITS = 40


def real(value: Fraction) -> Any:
    """Return an mpmath number for an exact rational."""
    return mpmath.mpf(value.numerator) / mpmath.mpf(value.denominator)


def ratio(u: Any, rate: Any, mu: Any) -> Any:
    """Return V(u) = dP/dQ in noise units."""
    return 1 - rate + rate * mpmath.exp(mu * u - mu * mu / 2)


def gaussian_delta(noise: Fraction, rounds: int, epsilon: Fraction) -> Any:
    """Return delta(eps) of Gaussian rounds by integrating (dP - e^eps dQ)_+ numerically."""
    with mpmath.workdps(DIGITS):
        mu = mpmath.sqrt(rounds) / real(noise)
        cut = real(epsilon) / mu + mu / 2
        gain = mpmath.quad(lambda u: mpmath.npdf(u, mu, 1), [cut, cut + 5, cut + 40])
        loss = mpmath.quad(lambda u: mpmath.npdf(u, 0, 1), [cut, cut + 5, cut + 40])
        return gain - mpmath.exp(real(epsilon)) * loss


def single_delta(rate: Fraction, noise: Fraction, epsilon: Fraction, *, add: bool) -> Any:
    """Return delta(eps) of one subsampled round by numerical integration of the positive part."""
    with mpmath.workdps(DIGITS):
        q, mu, eps = real(rate), 1 / real(noise), real(epsilon)

        def gap(u: Any) -> Any:
            base = mpmath.npdf(u, 0, 1)
            mixed = base * ratio(u, q, mu)
            return base - mpmath.exp(eps) * mixed if add else mixed - mpmath.exp(eps) * base

        # The sign changes once; bisect for it, then integrate one side.
        low, high = mpmath.mpf(-60), mpmath.mpf(60) + 2 * mu
        if add and gap(low) <= 0:
            return mpmath.mpf(0)
        for _ in range(200):
            middle = (low + high) / 2
            positive_right = gap(middle) > 0
            if positive_right != add:
                high = middle
            else:
                low = middle
        edges = [low - 40, low - 12, low - 4, low] if add else [low, low + 4, low + 12, low + 40]
        return mpmath.quad(gap, edges)


def transform(rate: Fraction, noise: Fraction, order: Any, *, add: bool, window: Any = None) -> Any:
    """Return M(order) for complex order, to 20 digits, by integration on the real axis."""
    with mpmath.workdps(22):
        q, mu = real(rate), 1 / real(noise)

        def integrand(u: Any) -> Any:
            power = -order if add else order + 1
            value = mpmath.npdf(u, 0, 1) * mpmath.power(ratio(u, q, mu), power)
            return value if window is None else value * window(u)

        peak = float(mpmath.re(order) + 1) * float(mu)
        points = [-14, -6, -2, 2, 6, 12]
        points += [p for p in (peak - 3, peak + 3, peak + 14) if p > 12]
        return mpmath.quad(integrand, sorted(points))


def transform_float(
    rate: Fraction, noise: Fraction, order: complex, *, add: bool, window: Any = None
) -> complex:
    """Return M(order) in double precision by a fine Riemann sum; good to about 1e-12 of M(c)."""
    q, mu = float(rate), 1 / float(noise)
    nodes = np.arange(-12.0, (order.real + 1) * mu + 14.0, 0.01)
    values = 1 - q + q * np.exp(mu * nodes - mu * mu / 2)
    power = -order if add else order + 1
    density = np.exp(power * np.log(values) - nodes**2 / 2) / np.sqrt(2 * np.pi)
    if window is not None:
        low, high, blur = window
        density = density * (ndtr((high - nodes) / blur) - ndtr((low - nodes) / blur))
    return complex(0.01 * density.sum())


def window(low: float, high: float, blur: float) -> Any:
    """Return the smeared indicator of (low, high] as an mpmath function."""

    def value(u: Any) -> Any:
        top = mpmath.ncdf((high - u) / blur) if high < 1e300 else mpmath.mpf(1)
        bottom = mpmath.ncdf((low - u) / blur) if low > -1e300 else mpmath.mpf(0)
        return top - bottom

    return value
