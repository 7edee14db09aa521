"""A grid from both sides: against numerical integration of one and two rounds."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import CertificationError
from privagg.privacy.certified import Mechanism
from privagg.privacy.certified.balls import ball, lower_end, upper_end, working_precision

from . import reference
from .grid import BITS, Grid, GridCurve


def grid(rate: Fraction, times: int, reach: Fraction, cells: int) -> Grid:
    step, lowest = reach / cells, -rate * Fraction(101, 100)
    first = int(lowest / step) - 2
    last = int((reach - times * lowest) / step) + 2
    return Grid(step, first, last, cells - times * first + 2)


def ends(rate: Fraction, noise: Fraction, times: int, epsilon: Fraction, cells: int) -> list[float]:
    curve = GridCurve(Mechanism(rate, noise), times, grid(rate, times, epsilon * 2, cells))
    with working_precision(BITS):
        bounds = curve.bounds(epsilon)
        return [float(lower_end(bounds.lower)), float(upper_end(bounds.upper))]


@pytest.mark.parametrize("epsilon", ["1e-3", "4e-3"])
def test_one_round_against_numerical_integration(epsilon: str) -> None:
    rate, noise, eps = Fraction("1e-3"), Fraction("0.9"), Fraction(epsilon)
    low, high = ends(rate, noise, 1, eps, 2000)
    truth = float(reference.single_delta(rate, noise, eps, add=False))
    assert low <= truth <= high
    assert high - low < 1e-4 * truth


def test_two_rounds_against_numerical_integration() -> None:
    rate, noise, eps = Fraction("1e-3"), Fraction("0.9"), Fraction("4e-3")
    with mpmath.workdps(20):
        q, mu = reference.real(rate), 1 / reference.real(noise)

        def given_first(u: Any) -> Any:
            # E_Q[(v V - e^eps)_+] in closed form, v the first round's ratio.
            v = reference.ratio(u, q, mu)
            level = (mpmath.exp(reference.real(eps)) / v - 1 + q) / q
            if level <= 0:
                return mpmath.npdf(u) * (v - mpmath.exp(reference.real(eps)))
            cut = mpmath.log(level) / mu + mu / 2
            gain = mpmath.ncdf(mu - cut) - level * mpmath.ncdf(-cut)
            return mpmath.npdf(u) * v * q * gain

        points = [-12, -3, -1, 0, 1, 1.5, 2, 2.5, 3, 4, 6, 12]
        truth = float(mpmath.quad(given_first, points))
    low, high = ends(rate, noise, 2, eps, 2000)
    assert low <= truth * (1 + 1e-10)
    assert truth <= high * (1 + 1e-10)
    assert high - low < 1e-3 * truth


def test_the_other_direction_is_bounded_too() -> None:
    rate, noise, eps = Fraction("0.01"), Fraction("2"), Fraction("1e-3")
    _, high = ends(rate, noise, 1, eps, 2000)
    assert float(reference.single_delta(rate, noise, eps, add=True)) <= high


@settings(max_examples=10, deadline=None)
@given(
    rate=st.sampled_from(["1e-3", "1e-2"]),
    noise=st.sampled_from(["0.7", "1.5", "4"]),
    cells=st.integers(3, 300),
)
def test_any_grid_tells_the_truth(rate: str, noise: str, cells: int) -> None:
    eps = Fraction(rate) * 2
    low, high = ends(Fraction(rate), Fraction(noise), 1, eps, cells)
    truth = float(reference.single_delta(Fraction(rate), Fraction(noise), eps, add=False))
    assert low <= truth * (1 + 1e-12)
    assert truth <= high * (1 + 1e-12)


def test_beyond_its_reach_it_says_nothing() -> None:
    curve = GridCurve(Mechanism("1e-3", "1"), 2, grid(Fraction("1e-3"), 2, Fraction("1e-2"), 50))
    bounds = curve.bounds(Fraction(1))
    assert bounds.lower == 0
    assert bounds.upper == 1
    with pytest.raises(CertificationError, match="cells"):
        GridCurve(Mechanism("1e-3", "1"), 2, Grid(Fraction(1, 10**9), -10, 10**7, 10**7))
    with working_precision(BITS):
        assert ball(Fraction(1, 2)) == 0.5
