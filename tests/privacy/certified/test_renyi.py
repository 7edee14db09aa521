"""The Renyi fallback: moments, conversion, and that it covers the add direction."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.privacy.certified import Mechanism, epsilon_interval
from privagg.privacy.certified.balls import ball, upper_end, working_precision
from privagg.privacy.certified.renyi import RenyiBudget, log_moment

from . import reference


@pytest.mark.parametrize(("rate", "noise", "order"), [("0.02", "1.3", 7), ("0.5", "3", 40)])
def test_moment_is_the_integral(rate: str, noise: str, order: int) -> None:
    q, s = Fraction(rate), Fraction(noise)
    with working_precision(128):
        moment = float(log_moment(Mechanism(q, s), order))
    expected = reference.transform(q, s, order - 1, add=False)
    assert math.isclose(moment, float(reference.mpmath.log(expected)), rel_tol=1e-12)


@given(
    rate=st.floats(1e-3, 0.99),
    noise=st.floats(1.0, 20.0),
    order=st.floats(1.001, 15.0),
)
@settings(max_examples=60, deadline=None)
def test_add_moment_never_exceeds_remove_moment(rate: float, noise: float, order: float) -> None:
    q, s = Fraction(rate), Fraction(noise)
    remove = reference.transform_float(q, s, complex(order - 1), add=False).real
    add = reference.transform_float(q, s, complex(order - 1), add=True).real
    assert add <= remove * (1 + 1e-9)


@pytest.mark.parametrize(
    ("rate", "noise", "rounds", "delta"),
    [("0.01", "1", 1000, "1e-5"), ("0.2", "10", 500, "1e-9"), ("1", "8", 40, "1e-6")],
)
def test_upper_end_is_an_upper_end_and_not_far(
    rate: str, noise: str, rounds: int, delta: str
) -> None:
    mechanism = Mechanism(Fraction(rate), Fraction(noise))
    exact = epsilon_interval({mechanism: rounds}, delta)
    with working_precision(128):
        budget = RenyiBudget.of(((mechanism, rounds),))
        upper = budget.upper_epsilon(Fraction(delta))
        back = upper_end(budget.delta_at(upper))
    assert exact.lower < upper < exact.upper * Fraction(5, 4)
    assert back <= Fraction(delta) * (1 + Fraction(1, 10**20))


def test_delta_is_never_above_one() -> None:
    with working_precision(128):
        budget = RenyiBudget.of(((Mechanism("0.5", "0.5"), 50),))
        assert budget.delta_at(Fraction(0)) <= ball(1)
