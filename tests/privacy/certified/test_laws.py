"""Laws that epsilon must obey, as properties over random settings."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privagg.privacy.certified import (
    Mechanism,
    delta_interval,
    epsilon_interval,
)

RATES = st.fractions(Fraction(1, 500), Fraction(1), max_denominator=500)
NOISES = st.fractions(Fraction(7, 10), Fraction(50), max_denominator=20)
# From 30 rounds on every setting is quick; fewer are in test_contour and test_vectors.
COUNTS = st.integers(30, 20_000)
DELTAS = st.integers(3, 11).map(lambda digits: Fraction(1, 10**digits))
MODEST = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(RATES, NOISES, COUNTS, DELTAS, st.integers(1, 500))
@MODEST
def test_more_rounds_never_lower_epsilon(
    rate: Fraction, noise: Fraction, count: int, delta: Fraction, more: int
) -> None:
    mechanism = Mechanism(rate, noise)
    fewer = epsilon_interval({mechanism: count}, delta)
    assert epsilon_interval({mechanism: count + more}, delta).upper >= fewer.lower


@given(RATES, NOISES, COUNTS, DELTAS)
@MODEST
def test_more_noise_or_less_sampling_never_raises_epsilon(
    rate: Fraction, noise: Fraction, count: int, delta: Fraction
) -> None:
    base = epsilon_interval({Mechanism(rate, noise): count}, delta)
    quieter = epsilon_interval({Mechanism(rate, noise * Fraction(11, 10)): count}, delta)
    rarer = epsilon_interval({Mechanism(rate * Fraction(9, 10), noise): count}, delta)
    assert quieter.lower <= base.upper
    assert rarer.lower <= base.upper


@given(RATES, NOISES, COUNTS, DELTAS)
@MODEST
def test_the_interval_is_narrow_and_delta_inverts_epsilon(
    rate: Fraction, noise: Fraction, count: int, delta: Fraction
) -> None:
    composition = {Mechanism(rate, noise): count}
    interval = epsilon_interval(composition, delta)
    assert interval.relative_width <= 0.25
    # The two functions plan different contours: what they prove must not contradict.
    assert delta_interval(composition, interval.upper).lower <= delta
    if interval.lower:
        assert delta_interval(composition, interval.lower).upper >= delta


@given(RATES, NOISES, st.integers(31, 500), DELTAS)
@MODEST
def test_equal_mechanisms_written_apart_are_the_same(
    rate: Fraction, noise: Fraction, count: int, delta: Fraction
) -> None:
    together = epsilon_interval({Mechanism(rate, noise): count}, delta)
    # A second mechanism that differs by a trillionth is composed as a mixed composition.
    nearly = Mechanism(rate, noise * (1 + Fraction(1, 10**12)))
    apart = epsilon_interval({Mechanism(rate, noise): count - 1, nearly: 1}, delta)
    assert apart.lower <= together.upper
    assert together.lower <= apart.upper * (1 + Fraction(1, 10**9))
