"""The Renyi fallback: moments, conversion, and that it covers the add direction."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import PrivacyError, UnknownEventError
from privagg.privacy import events
from privagg.privacy.certified import (
    Mechanism,
    epsilon_from_renyi,
    epsilon_interval,
    renyi_divergences,
)
from privagg.privacy.certified.balls import ball, upper_end, working_precision
from privagg.privacy.certified.renyi import RenyiBudget, log_moment
from privagg.privacy.renyi import renyi_divergences as event_divergences

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


def test_divergences_agree_with_a_double_precision_accountant() -> None:
    rdp = pytest.importorskip("dp_accounting.rdp")
    dp_accounting = pytest.importorskip("dp_accounting")
    sampled = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.1))
    peer = rdp.RdpAccountant([2, 9, 33]).compose(sampled, 700)
    ours = renyi_divergences({Mechanism("0.01", "1.1"): 700}, (2, 9, 33))
    assert [float(ours[order]) for order in (2, 9, 33)] == pytest.approx(peer.rdp, rel=1e-9)


def test_divergences_add_up_and_imply_an_epsilon_above_the_exact_one() -> None:
    first, second = Mechanism("0.02", "1.3"), Mechanism("1", "30")
    both = renyi_divergences({first: 500, second: 4})
    apart = renyi_divergences({first: 500}), renyi_divergences({second: 4})
    for order, value in both.items():
        assert math.isclose(value, apart[0][order] + apart[1][order], rel_tol=1e-15)
    exact = epsilon_interval({first: 500, second: 4}, "1e-6")
    assert exact.upper < epsilon_from_renyi(both, "1e-6") < exact.upper * Fraction(5, 4)


@pytest.mark.parametrize("order", [1, 0, -3, 5000, 2.5, True])
def test_orders_without_a_finite_sum_are_refused(order: int) -> None:
    with pytest.raises(PrivacyError, match="whole number"):
        renyi_divergences({Mechanism("0.02", "1.3"): 5}, [order])


def test_an_event_has_its_mechanisms_divergences() -> None:
    mechanism = events.Mechanism(kind="gaussian", noise_multiplier="4")
    event = events.DpEvent.once(mechanism, count=8, distance="1e-20")
    # alpha / (2 sigma^2) a round
    assert math.isclose(event_divergences(event, [6])[6], 8 * 6 / 32, rel_tol=1e-15)
    with pytest.raises(UnknownEventError, match="without noise"):
        event_divergences(events.DpEvent.once(events.Mechanism(kind="non-private")))
