"""Delta of one, two or three equal rounds by quadrature: the definition, integrated as it stands.

remove is E_Q[(V_1 ... V_T - e^eps)_+] and add is E_Q[(1 - e^eps V_1 ... V_T)_+], with V = 1 - q +
q exp(mu u - mu^2 / 2) under a standard normal u. The innermost round has a closed form, the others
are integrated by Gauss-Legendre panels that narrow towards the point where the positive part
becomes affine. Arb serves as a big float only: what comes back is right to some 20 digits for two
rounds and 8 for three, as coarser and finer panels agree on, and is no enclosure. Nothing here
imports the certified package.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise

import mpmath
import numpy as np
from flint import arb, ctx, fmpq

BITS = 240
_DIGITS = 45
_HALVINGS = 40


def real(value: Fraction | int | str) -> arb:
    """Return a rational as a big float."""
    exact = Fraction(value)
    return arb(fmpq(exact.numerator, exact.denominator))


def two_sided(
    rate: Fraction, noise: Fraction, rounds: int, epsilon: Fraction, *, reach: float = 13.0
) -> tuple[Fraction, Fraction]:
    """Return delta(eps) in the directions (remove, add), as the big floats' exact values.

    Args:
        reach: how far from both modes is integrated; 13 is enough for delta above 1e-30.
    """
    with ctx.workprec(BITS):
        round_ = _Rounds(rate, noise, rounds, reach)
        level = real(epsilon).exp()
        return _exact(round_.remove(rounds, level)), _exact(round_.add(rounds, level))


class _Rounds:
    def __init__(self, rate: Fraction, noise: Fraction, rounds: int, reach: float) -> None:
        self.rate, self.noise, self.mu = real(rate), real(noise), 1 / real(noise)
        # Each further round costs the number of nodes once more.
        self.points, width = (20, 1.0) if rounds < 3 else (10, 1.5)
        mode = float(self.mu.mid())
        modes = [0.0, mode] if mode > 2 * reach else [mode / 2]
        reach += 0.0 if len(modes) == 2 else mode / 2
        self.edges = [np.arange(m - reach, m + reach + width, width).tolist() for m in modes]

    def ratio(self, u: arb) -> arb:
        return 1 - self.rate + self.rate * (self.mu * u - self.mu * self.mu / 2).exp()

    def cut(self, level: arb) -> arb | None:
        """Return u with V(u) = level, None where V never falls so low."""
        excess = ((level - 1 + self.rate) / self.rate).mid()
        return self.noise * excess.log() + self.mu / 2 if excess > 0 else None

    def remove(self, rounds: int, level: arb) -> arb:
        """Return E_Q[(V_1 ... V_T - level)_+]."""
        if rounds == 1:
            cut = self.cut(level)
            if cut is None:
                return 1 - level
            own = (1 - self.rate) * _normal(-cut) + self.rate * _normal(self.mu - cut)
            return own - level * _normal(-cut)
        kink = self.cut(level / (1 - self.rate) ** (rounds - 1))

        def term(u: arb) -> arb:
            return self.ratio(u) * self.remove(rounds - 1, level / self.ratio(u))

        return self.integral(term, kink)

    def add(self, rounds: int, level: arb) -> arb:
        """Return E_Q[(1 - level V_1 ... V_T)_+]."""
        if rounds == 1:
            cut = self.cut(1 / level)
            if cut is None:
                return arb(0)
            other = (1 - self.rate) * _normal(cut) + self.rate * _normal(cut - self.mu)
            return _normal(cut) - level * other
        kink = self.cut(1 / (level * (1 - self.rate) ** (rounds - 1)))
        return self.integral(lambda u: self.add(rounds - 1, level * self.ratio(u)), kink)

    def integral(self, term: Callable[[arb], arb], kink: arb | None) -> arb:
        """Return E_Q[term(u)]."""
        total = arb(0)
        place = None if kink is None else float(kink.mid())
        for edges in self.edges:
            for low, high in pairwise(_narrowed(edges, place)):
                middle, half = (arb(low) + high) / 2, (arb(high) - low) / 2
                for node, weight in _nodes(self.points):
                    u = middle + half * node
                    total += (half * weight * (-u * u / 2).exp() * term(u)).mid()
        return total / (2 * arb.pi()).sqrt()


def _exact(value: arb) -> Fraction:
    mantissa, exponent = value.mid().man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def _normal(x: arb) -> arb:
    return (-x / arb(2).sqrt()).erfc() / 2


def _narrowed(edges: list[float], place: float | None) -> list[float]:
    """Return edges of panels that halve towards `place` from both sides."""
    if place is None or not edges[0] < place < edges[-1]:
        return edges
    near = [place + side * 2.0**-k for side in (-1, 1) for k in range(_HALVINGS)]
    inside = [point for point in near if edges[0] < point < edges[-1]]
    return sorted({*edges, *inside, place})


@cache
def _nodes(points: int) -> list[tuple[arb, arb]]:
    """Return Gauss-Legendre nodes and weights on [-1, 1], by Newton's method from doubles."""
    found = []
    with mpmath.workdps(_DIGITS):
        for start in np.polynomial.legendre.leggauss(points)[0]:
            x = mpmath.mpf(float(start))
            for _ in range(6):
                value, before = mpmath.legendre(points, x), mpmath.legendre(points - 1, x)
                slope = points * (x * value - before) / (x * x - 1)
                x -= value / slope
            before = mpmath.legendre(points - 1, x)
            slope = -points * before / (x * x - 1)
            weight = 2 / ((1 - x * x) * slope**2)
            found.append(
                (arb(mpmath.nstr(x, _DIGITS)).mid(), arb(mpmath.nstr(weight, _DIGITS)).mid())
            )
    return found
