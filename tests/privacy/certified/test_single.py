"""One subsampled round against numerical integration, both directions."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import pytest

from privagg.privacy.certified import Mechanism, delta_interval, epsilon_interval

from . import reference

CASES = [
    ("0.5", "0.6", "1"),
    ("0.9", "2", "0.2"),
    ("0.01", "1", "0.1"),
    ("0.001", "0.5", "0.02"),
    ("0.7", "1.5", "1.3"),
    ("0.9", "2", "0"),
]


@pytest.mark.parametrize(("rate", "noise", "epsilon"), CASES)
def test_against_numerical_integration(rate: str, noise: str, epsilon: str) -> None:
    q, s, eps = Fraction(rate), Fraction(noise), Fraction(epsilon)
    interval = delta_interval({Mechanism(q, s): 1}, eps)
    expected = max(reference.single_delta(q, s, eps, add=add) for add in (False, True))
    with mpmath.workdps(reference.DIGITS):
        assert abs(reference.real(interval.upper) / expected - 1) < 1e-18
        assert abs(reference.real(interval.lower) / expected - 1) < 1e-18


def test_add_direction_vanishes_where_no_ratio_is_small_enough() -> None:
    # 1 - q = 0.5 = e^-0.693...: at 0.7 only the remove direction is left.
    expected = reference.single_delta(Fraction("0.5"), Fraction(1), Fraction("0.7"), add=True)
    assert expected == 0
    assert delta_interval({Mechanism("0.5", 1): 1}, "0.7").lower > 0


@pytest.mark.parametrize(
    ("rate", "noise", "delta"), [("1e-4", "0.4", "1e-12"), ("0.3", "5", "1e-6")]
)
def test_epsilon_inverts_delta(rate: str, noise: str, delta: str) -> None:
    mechanism = Mechanism(Fraction(rate), Fraction(noise))
    interval = epsilon_interval({mechanism: 1}, delta)
    assert interval.method == "single-round"
    assert interval.relative_width < 1e-11
    assert delta_interval({mechanism: 1}, interval.upper).upper <= Fraction(delta)
    assert delta_interval({mechanism: 1}, interval.lower).lower >= Fraction(delta)
