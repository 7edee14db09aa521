"""What the bulk of small losses keeps, against numerical integration."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import pytest

from privagg.privacy.certified.balls import ball, upper_end, working_precision
from privagg.privacy.certified.bulk import bulk_moment, leak
from privagg.privacy.certified.window import Law, Window

from . import reference

CASES = [
    ("1e-3", "0.8", 3.0, 0.2, 4.5, 60.0),
    ("1e-6", "0.4", 3.0, 0.1, 3.9, 5000.0),
    ("0.05", "2", 2.0, 0.5, 6.0, 3.0),
    ("0.01", "0.1", 4.5, 0.05, 4.9, 2.0),
]


@pytest.mark.parametrize(("rate", "noise", "high", "blur", "edge", "order"), CASES)
def test_the_moment_left_of_the_edge(
    rate: str, noise: str, high: float, blur: float, edge: float, order: float
) -> None:
    with working_precision(128), mpmath.workdps(30):
        law = Law(ball(Fraction(rate)), 1 / ball(Fraction(noise)))
        found = bulk_moment(law, Window(high=high, blur=blur), edge, ball(order))
        q, mu = reference.real(Fraction(rate)), 1 / reference.real(Fraction(noise))
        cut = reference.window(float("-inf"), high, blur)
        points = [-14, -5, 0, high - 0.5, high, (high + edge) / 2, edge]
        truth = mpmath.quad(
            lambda u: mpmath.npdf(u) * reference.ratio(u, q, mu) ** (order + 1) * cut(u), points
        )
        assert float(upper_end(found)) >= float(truth) * (1 - 1e-12)
        assert float(upper_end(found)) - 1 <= 2 * abs(float(truth) - 1) + 0.05


@pytest.mark.parametrize(("rate", "noise", "high", "blur", "edge", "order"), CASES)
def test_the_leak_beyond_the_edge(
    rate: str, noise: str, high: float, blur: float, edge: float, order: float
) -> None:
    with working_precision(128), mpmath.workdps(30):
        law = Law(ball(Fraction(rate)), 1 / ball(Fraction(noise)))
        found = leak(law, Window(high=high, blur=blur), edge)
        q, mu = reference.real(Fraction(rate)), 1 / reference.real(Fraction(noise))
        cut = reference.window(float("-inf"), high, blur)
        truth = mpmath.quad(
            lambda u: mpmath.npdf(u) * reference.ratio(u, q, mu) * cut(u),
            [edge, edge + 0.5, edge + 2, edge + 8, edge + 16],
        )
        assert order > 0
        assert float(upper_end(found)) >= float(truth) > 0
