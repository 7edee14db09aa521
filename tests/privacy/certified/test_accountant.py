"""The certified accountant against closed forms and published values."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest

from privagg.errors import CertificationError, PrivacyError, UnknownEventError
from privagg.privacy.certified import (
    Interval,
    Mechanism,
    accountant,
    delta_interval,
    epsilon_interval,
    round_down,
    round_up,
    work,
)
from privagg.privacy.certified.mechanism import Direction


def mechanism(rate: str, noise: str) -> Mechanism:
    return Mechanism(Fraction(rate), Fraction(noise))


# Values of a separate trial of the contour method, in ball arithmetic; eight to nine digits.
TRIAL = [
    ("0.01", "1", 1000, "1e-5", "1.8282367"),
    ("0.01", "1", 3000, "1e-5", "3.1923258"),
    ("0.01", "0.5", 1000, "1e-5", "13.3608240"),
    ("0.001", "20", 100, "1e-5", "8.3659791e-4"),
    ("1", "100", 10_000, "1e-12", "7.2384944"),
    ("1", "17.45", 30, "1e-4", "0.99992312"),
]


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta", "expected"), TRIAL)
def test_trial_values(rate: str, noise: str, rounds: int, delta: str, expected: str) -> None:
    interval = epsilon_interval({mechanism(rate, noise): rounds}, delta)
    assert interval.relative_width < 1e-9
    last_digit = Fraction(expected) / 10**7
    assert interval.lower - last_digit <= Fraction(expected) <= interval.upper + last_digit


@pytest.mark.parametrize(
    ("rate", "noise", "rounds", "delta", "at_least"),
    [
        ("1e-4", "0.6", 30_000, "1e-12", "3.8041"),
        ("1e-4", "0.6", 50_000, "1e-12", "3.9278"),
        ("0.05", "10", 30_000, "1e-12", "6.2224"),
        ("1e-4", "0.8", 100_000, "1e-11", "0.7318"),
    ],
)
def test_where_floating_point_accountants_fall_below(
    rate: str, noise: str, rounds: int, delta: str, at_least: str
) -> None:
    interval = epsilon_interval({mechanism(rate, noise): rounds}, delta)
    assert interval.lower >= Fraction(at_least)
    assert interval.relative_width < 1e-6


def test_mixed_rounds_hold_their_parts() -> None:
    one, two = mechanism("0.02", "1.1"), mechanism("0.1", "4")
    mixed = epsilon_interval({one: 200, two: 100}, "1e-6")
    assert mixed.lower > epsilon_interval({one: 200}, "1e-6").upper
    assert mixed.lower > epsilon_interval({two: 100}, "1e-6").upper
    assert mixed.relative_width < 1e-6


def test_delta_and_epsilon_are_inverse() -> None:
    rounds = {mechanism("0.02", "1.1"): 300}
    interval = epsilon_interval(rounds, "1e-6")
    a_millionth_more = Fraction("1e-6") * (1 + Fraction(1, 10**6))
    assert delta_interval(rounds, interval.upper).upper <= a_millionth_more
    assert delta_interval(rounds, interval.lower).upper >= Fraction("1e-6")


def test_extra_distance_costs_epsilon_and_is_refused_when_it_eats_delta() -> None:
    rounds = {mechanism("0.02", "1.1"): 300}
    plain = epsilon_interval(rounds, "1e-6")
    folded = epsilon_interval(rounds, "1e-6", extra_distance="1e-9")
    assert folded.upper > plain.upper
    at_upper = delta_interval(rounds, folded.upper).upper
    # e <= 2.7183 turned up, so the folded delta is over-estimated and still fits nearly.
    growth = Fraction(3) ** 5
    assert folded.upper < 5
    assert at_upper < Fraction("1e-6") - 2 * Fraction("1e-9")
    assert at_upper + (1 + growth) * Fraction("1e-9") > Fraction("1e-6")
    with pytest.raises(CertificationError, match="uses up delta"):
        epsilon_interval(rounds, "1e-6", extra_distance="5e-7")


def test_delta_looks_at_add_wherever_remove_does_not_cover_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large add direction, made up, must be seen; beyond -T log(1 - q) it is proven to be 0."""
    asked, real = [], accountant._delta_contour

    def contour(rounds: Any, direction: Direction, *rest: Any) -> Any:
        asked.append(direction)
        made_up = Fraction(1, 4), Fraction(1, 4), 192
        return made_up if direction is Direction.ADD else real(rounds, direction, *rest)

    monkeypatch.setattr(accountant, "_delta_contour", contour)
    near = delta_interval({mechanism("0.2", "0.8"): 2}, "1e-3")
    assert (near.lower, near.upper) == (Fraction(1, 4), Fraction(1, 4))
    asked.clear()
    assert delta_interval({mechanism("0.2", "0.8"): 2}, "0.45").upper < Fraction(1, 2)
    assert asked == [Direction.REMOVE]


def test_a_distance_that_leaves_no_epsilon_is_refused_at_once() -> None:
    """Little noise puts epsilon where e^epsilon times the distance is far beyond delta."""
    with (
        work.limited(math.inf) as meter,
        pytest.raises(CertificationError, match="no finite epsilon holds"),
    ):
        epsilon_interval({mechanism("1e-6", "0.0254"): 2}, "1.9e-6", extra_distance="2e-8")
    assert meter.spent < 1e6
    # e^0.5 times the distance fits, and so does epsilon.
    rounds = {mechanism("0.01", "1"): 2}
    assert epsilon_interval(rounds, "1e-3", extra_distance="1e-4").upper < Fraction(1, 2)


def test_nothing_composed_and_negligible_rounds_are_proven_zero() -> None:
    assert epsilon_interval({}, "1e-6").upper == 0
    assert epsilon_interval({mechanism("1e-4", "300"): 3}, "1e-3").upper == 0


@pytest.mark.parametrize("delta", ["0", "1", "-1e-5", "nan", 1e-5, True])
def test_nonsense_delta_is_refused(delta: object) -> None:
    with pytest.raises(PrivacyError):
        epsilon_interval({mechanism("0.01", "1"): 1}, delta)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rate", "noise"), [("0", "1"), ("1.01", "1"), ("0.5", "0"), ("0.5", "-1")]
)
def test_nonsense_mechanisms_are_refused(rate: str, noise: str) -> None:
    with pytest.raises(PrivacyError):
        mechanism(rate, noise)


def test_floats_and_unknown_events_are_refused() -> None:
    with pytest.raises(PrivacyError, match="exact rational"):
        Mechanism(0.1, Fraction(1))  # type: ignore[arg-type]
    with pytest.raises(UnknownEventError):
        epsilon_interval({"laplace": 1}, "1e-5")  # type: ignore[dict-item]
    with pytest.raises(PrivacyError, match="number of rounds"):
        epsilon_interval({mechanism("0.1", "1"): -1}, "1e-5")


def test_rounding_helpers_go_outwards() -> None:
    third = Fraction(1, 3)
    assert Fraction(round_up(third, 5)) >= third >= Fraction(round_down(third, 5))
    assert str(round_up(third, 5)) == "0.33334"
    assert str(round_down(third, 5)) == "0.33333"


def test_contradictory_interval_is_refused() -> None:
    with pytest.raises(PrivacyError, match="contradictory"):
        Interval(Fraction(2), Fraction(1), "contour", "contour", 128)
