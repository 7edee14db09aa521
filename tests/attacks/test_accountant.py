"""Settings for which the accountant had no answer, a wide one, or asked for 76 GiB."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import pytest

from privagg.privacy.accountants.proven import CertifiedAccountant
from privagg.privacy.certified import ContourState, Mechanism, epsilon_interval, work
from privagg.privacy.events import DpEvent
from privagg.privacy.events import Mechanism as Round

# q, sigma, rounds, delta, and the relative width that is shown.
SECOND = 1e6
"""Units of work, each about a microsecond: counted, so that no machine fails the story."""

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
    mechanism = Mechanism(rate, noise)
    with work.limited(math.inf) as meter:
        interval = epsilon_interval({mechanism: rounds}, delta)
    assert meter.spent < 5 * SECOND
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
    with work.limited(math.inf) as meter:
        bound = CertifiedAccountant().epsilon(event, Decimal("1.9e-6"))
    assert bound.upper == Decimal("Infinity")
    assert meter.spent < SECOND


@pytest.mark.parametrize("noise", ["1", "0.1"])
def test_a_dozen_slow_mechanisms_are_not_slow_together(noise: str) -> None:
    """Each distinct mechanism used to cost seconds of its own: 38 for the twelve of the first."""
    event = DpEvent()
    for number in range(1, 13):
        rate = Decimal(number).scaleb(-6 if noise == "1" else -3)
        wider = Decimal(noise) + Decimal(number).scaleb(-2)
        event += DpEvent.once(Round.of(rate, wider), count=100)
    with work.limited(math.inf) as meter:
        bound = CertifiedAccountant().epsilon(event, Decimal("1e-6"))
    assert meter.spent < 6 * SECOND
    assert bound.lower is not None
    assert bound.lower <= bound.upper < Decimal("Infinity")


def test_infinity_comes_with_advice_that_works() -> None:
    """It was given as "no finite bound could be proven", with no reason and no way out."""
    event = DpEvent.once(
        Round.of(Decimal("0.5"), Decimal("0.05")), count=3, distance=Decimal("1e-20")
    )
    bound = CertifiedAccountant().epsilon(event, Decimal("1e-4"))
    assert bound.upper == Decimal("Infinity")
    told = re.search(r"1E-20 .* delta of at least (\S+); .* (\S+) times the noise", bound.method)
    assert told is not None
    assert CertifiedAccountant().epsilon(event, Decimal(told[1])).upper.is_finite()
    louder = DpEvent.once(
        Round.of(Decimal("0.5"), Decimal("0.05") * Decimal(told[2])),
        count=3, distance=Decimal("1e-20"),
    )  # fmt: skip
    assert CertifiedAccountant().epsilon(louder, Decimal("1e-4")).upper.is_finite()
