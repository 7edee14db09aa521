"""Intervals of every method against quadrature of the definition, in both directions."""

from __future__ import annotations

from fractions import Fraction

import pytest

from privagg.privacy.certified import Mechanism, delta_interval, epsilon_interval
from privagg.privacy.certified.balls import lower_end, upper_end, working_precision
from privagg.privacy.certified.participations import ParticipationCurve

from . import quadrature

# q, sigma, rounds, and delta or the epsilon whose delta is asked for; rare rounds, then little
# noise, then what contours and closed forms do.
SETTINGS = [
    ("1e-4", "14", 2, "1e-6"),
    ("1e-3", "0.9", 2, "at 0.004"),
    ("1e-9", "60", 2, "1e-12"),
    ("0.999999999", "0.02", 2, "1e-9"),
    ("0.5", "0.06", 2, "at 300"),
    ("1e-9", "0.03", 2, "1e-12"),
    ("0.3", "1.3", 2, "at 0.5"),
    ("0.0011", "2", 2, "1e-5"),
    ("1e-9", "0.2", 1, "at 0.000001"),
    ("0.999999999999", "3", 1, "1e-9"),
    ("1", "7000", 1, "1e-6"),
]


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta"), SETTINGS)
def test_the_interval_holds_the_truth(rate: str, noise: str, rounds: int, delta: str) -> None:
    q, sigma = Fraction(rate), Fraction(noise)

    def truth(epsilon: Fraction) -> Fraction:
        return max(quadrature.two_sided(q, sigma, rounds, epsilon))

    target = truth(Fraction(delta[3:])) if delta.startswith("at ") else Fraction(delta)
    interval = epsilon_interval({Mechanism(q, sigma): rounds}, target)
    slack = target / 10**17
    assert truth(interval.upper) <= target + slack
    assert truth(interval.lower) >= target - slack


@pytest.mark.parametrize("epsilon", ["0.001", "0.5", "1"])
def test_delta_holds_the_truth(epsilon: str) -> None:
    """At 0.001 the add direction is far from silent, at 1 it is."""
    q, sigma = Fraction("0.3"), Fraction("1.3")
    interval = delta_interval({Mechanism(q, sigma): 2}, epsilon)
    truth = max(quadrature.two_sided(q, sigma, 2, Fraction(epsilon)))
    assert interval.lower <= truth <= interval.upper * (1 + Fraction(1, 10**17))
    assert interval.relative_width < 1e-6


# With noise 0.06 a coin is never in doubt; with 0.14 it is, once in some thousand rounds.
@pytest.mark.parametrize(("noise", "delta"), [("0.06", "1e-3"), ("0.1", "1e-6"), ("0.14", "0.1")])
@pytest.mark.parametrize("epsilon", ["0", "1.7", "20", "130", "410", "700"])
def test_counted_participations_hold_the_truth_at_any_epsilon(
    epsilon: str, noise: str, delta: str
) -> None:
    q, sigma = Fraction("0.4"), Fraction(noise)
    with working_precision(192):
        curve = ParticipationCurve(Mechanism(q, sigma), 2, Fraction(delta))
        bounds = curve.bounds(Fraction(epsilon))
    remove, _ = quadrature.two_sided(q, sigma, 2, Fraction(epsilon))
    slack = Fraction(1, 10**20)
    assert lower_end(bounds.lower) <= remove + slack
    assert remove <= upper_end(bounds.upper) + slack


def test_coarser_and_finer_panels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    q, sigma, epsilon = Fraction("0.01"), Fraction("0.7"), Fraction("0.05")
    coarse = quadrature.two_sided(q, sigma, 2, epsilon)
    monkeypatch.setattr(quadrature, "_HALVINGS", 60)
    fine = quadrature.two_sided(q, sigma, 2, epsilon, reach=15.3)
    for one, two in zip(coarse, fine, strict=True):
        assert abs(one - two) < Fraction("1e-17") * two + Fraction("1e-40")
