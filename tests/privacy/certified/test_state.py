"""The incremental state against the accountant that starts afresh."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import PrivacyError, UnknownEventError
from privagg.privacy.certified import ContourState, Interval, Mechanism, epsilon_interval

ROUNDS = [Mechanism("0.01", "1"), Mechanism("0.02", "1.5"), Mechanism(1, 40)]


def agree(one: Interval, two: Interval) -> bool:
    """Whether two intervals can both be right."""
    return one.lower <= two.upper and two.lower <= one.upper


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), min_size=1, max_size=5))
@settings(max_examples=12, deadline=None)
def test_any_order_of_rounds_gives_the_same_epsilon(history: list[tuple[int, int]]) -> None:
    state = ContourState()
    for which, count in history:
        state.add(ROUNDS[which], count)
        state.epsilon("1e-6")
    after = state.epsilon("1e-6")
    fresh = epsilon_interval(state.composition, "1e-6")
    assert agree(after, fresh)
    assert after.relative_width <= 1e-6


def test_a_long_history_round_by_round() -> None:
    state, last = ContourState(), Fraction(0)
    for number in range(300):
        state.add(ROUNDS[number % 2])
        interval = state.epsilon("1e-6")
        assert interval.upper > last
        last = interval.lower
        if number in (0, 7, 150, 299):
            assert agree(interval, epsilon_interval(state.composition, "1e-6"))


def test_several_deltas_and_a_distance() -> None:
    state = ContourState()
    state.add(ROUNDS[0], 500)
    for delta in ("1e-5", "1e-9"):
        for distance in ("0", "1e-12"):
            fresh = epsilon_interval(state.composition, delta, extra_distance=distance)
            assert agree(state.epsilon(delta, extra_distance=distance), fresh)
    plain = state.epsilon("1e-9").upper
    assert state.epsilon("1e-9", extra_distance="1e-11").upper > plain


def test_nothing_composed_costs_nothing() -> None:
    assert ContourState().epsilon("1e-6").upper == 0


def test_refusals_change_nothing() -> None:
    state = ContourState()
    state.add(ROUNDS[0], 3)
    with pytest.raises(PrivacyError):
        state.add(ROUNDS[0], -1)
    with pytest.raises(UnknownEventError):
        state.add("laplace")  # type: ignore[arg-type]
    assert state.composition == {ROUNDS[0]: 3}
