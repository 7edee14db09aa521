"""Rounds without subsampling against an independent computation."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import pytest

from privagg.privacy.certified import Mechanism, delta_interval, epsilon_interval
from privagg.privacy.certified.balls import upper_end, working_precision
from privagg.privacy.certified.gaussian import total_variation_bound

from . import reference

CASES = [("0.5", 1, "3"), ("1", 10, "2.5"), ("17.45", 30, "0.9"), ("100", 10_000, "7.2")]
CASES.append(("3", 2, "0"))


@pytest.mark.parametrize(("noise", "rounds", "epsilon"), CASES)
def test_against_an_independent_computation(noise: str, rounds: int, epsilon: str) -> None:
    interval = delta_interval({Mechanism(1, noise): rounds}, epsilon)
    expected = reference.gaussian_delta(Fraction(noise), rounds, Fraction(epsilon))
    with mpmath.workdps(reference.DIGITS):
        assert abs(reference.real(interval.upper) / expected - 1) < 1e-20
        assert abs(reference.real(interval.lower) / expected - 1) < 1e-20
    back = epsilon_interval({Mechanism(1, noise): rounds}, interval.upper)
    assert back.lower <= Fraction(epsilon)
    assert abs(float(back.upper) - float(Fraction(epsilon))) <= 1e-9 * max(1, float(back.upper))


def test_unequal_rounds_compose_like_one_of_their_joint_strength() -> None:
    # 1/3^2 + 1/4^2 = (5/12)^2: two rounds equal one with noise multiplier 12/5.
    mixed = epsilon_interval({Mechanism(1, 3): 1, Mechanism(1, 4): 1}, "1e-6")
    joint = epsilon_interval({Mechanism(1, Fraction(12, 5)): 1}, "1e-6")
    assert max(mixed.lower, joint.lower) <= min(mixed.upper, joint.upper)


@pytest.mark.parametrize(("rate", "noise"), [("0.3", "0.7"), ("1", "2"), ("0.001", "40")])
def test_total_variation_bound_is_delta_at_zero_for_one_round(rate: str, noise: str) -> None:
    mechanism = Mechanism(Fraction(rate), Fraction(noise))
    with working_precision(128):
        bound = upper_end(total_variation_bound(((mechanism, 1),)))
    exact = delta_interval({mechanism: 1}, 0)
    assert exact.lower <= bound
    assert math.isclose(float(bound), float(exact.upper), rel_tol=1e-15)
