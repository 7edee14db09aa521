"""The worst round's test: never above delta, exact for one round, close for few participations."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.privacy.certified import Mechanism, delta_interval
from privagg.privacy.certified.balls import lower_end, working_precision
from privagg.privacy.certified.extreme import WorstRoundCurve
from privagg.privacy.certified.single import SingleRoundCurve


@settings(max_examples=12, deadline=None)
@given(
    rate=st.sampled_from(["0.02", "0.2", "0.7"]),
    noise=st.floats(0.8, 6.0),
    rounds=st.integers(2, 60),
    epsilon=st.floats(0.05, 3.0),
)
def test_never_above_the_true_delta(rate: str, noise: float, rounds: int, epsilon: float) -> None:
    mechanism, eps = Mechanism(Fraction(rate), Fraction(noise)), Fraction(epsilon)
    with working_precision(192):
        low = lower_end(WorstRoundCurve(((mechanism, rounds),)).bounds(eps).lower)
    assert low <= delta_interval({mechanism: rounds}, eps).upper


@pytest.mark.parametrize(("rate", "noise"), [("0.01", "1"), ("1", "3"), ("0.3", "0.7")])
def test_one_round_is_its_own_worst(rate: str, noise: str) -> None:
    mechanism, eps = Mechanism(Fraction(rate), Fraction(noise)), Fraction(1, 2)
    with working_precision(192):
        low = float(WorstRoundCurve(((mechanism, 1),)).bounds(eps).lower)
        exact = float(SingleRoundCurve(mechanism).bounds(eps).upper)
    assert math.isclose(low, exact, rel_tol=1e-12)
