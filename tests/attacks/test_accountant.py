"""Settings for which the accountant had no answer, a wide one, or asked for 76 GiB."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from privagg.privacy.accountants.proven import CertifiedAccountant
from privagg.privacy.certified import ContourState, Mechanism, epsilon_interval
from privagg.privacy.events import DpEvent
from privagg.privacy.events import Mechanism as Round

# q, sigma, rounds, delta, and the relative width that is shown.
SETTINGS = [
    ("0.5", "0.05", 3, "1e-4", 1e-6),
    ("1", "0.001", 1, "1e-5", 1e-6),
    ("0.5", "0.03", 1, "1e-5", 1e-6),
    ("1e-6", "0.8", 1000, "1e-6", 1e-6),
    ("1e-4", "0.8", 10, "1e-6", 1e-6),
    ("1e-7", "1", 1000, "1e-9", 1e-6),
    ("1e-5", "0.5", 2, "1e-6", 1e-6),
]


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta", "width"), SETTINGS)
def test_a_plan_cannot_silence_the_accountant(
    rate: str, noise: str, rounds: int, delta: str, width: float
) -> None:
    """A party that proposes odd numbers gets a proven epsilon all the same, and soon."""
    mechanism, start = Mechanism(rate, noise), time.process_time()
    interval = epsilon_interval({mechanism: rounds}, delta)
    assert time.process_time() - start < 5
    assert 0 < interval.lower <= interval.upper
    assert interval.relative_width <= width
    state = ContourState()
    state.add(mechanism, rounds)
    assert state.epsilon(delta) == interval


def test_the_ledgers_accountant_answers_with_a_finite_number() -> None:
    event = DpEvent.once(Round.of(Decimal("0.5"), Decimal("0.05")), count=3)
    bound = CertifiedAccountant().epsilon(event, Decimal("1e-4"))
    assert Decimal("706") < bound.upper < Decimal("707")


def test_a_distance_near_delta_costs_no_gigabytes() -> None:
    """No epsilon exists then: it was looked for through gigabytes, and minutes, of contours."""
    event = DpEvent.once(
        Round.of(Decimal("1e-6"), Decimal("0.0254")), count=2, distance=Decimal("2e-8")
    )
    start = time.process_time()
    assert CertifiedAccountant().epsilon(event, Decimal("1.9e-6")).upper == Decimal("Infinity")
    assert time.process_time() - start < 1
