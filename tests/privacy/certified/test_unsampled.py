"""Every record in every round: above the sampled delta, and advice that works when followed."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

import pytest

from privagg.errors import CertificationError
from privagg.privacy.certified import Mechanism, delta_interval, epsilon_interval
from privagg.privacy.certified.balls import upper_end, working_precision
from privagg.privacy.certified.gaussian import total_variation_bound
from privagg.privacy.certified.unsampled import UnsampledCurve

from . import reference

# q, sigma, rounds, delta, distance: no epsilon fits.
HOPELESS = [
    ("1", "0.001", 1, "1e-5", "1e-20"),
    ("0.5", "0.05", 3, "1e-4", "1e-20"),
    ("0.5", "0.05", 3, "1e-4", "1e-200"),
    ("0.5", "0.03", 1, "1e-5", "1e-19"),
    ("0.1", "0.3", 100, "1e-6", "1e-18"),
    ("0.1", "1", 1000, "1e-6", "1e-18"),
    ("1", "0.2", 10, "1e-6", "1e-40"),
    ("1e-3", "0.15", 100, "1e-6", "1e-18"),
    ("1", "1", 10, "1e-6", "6e-7"),
]


@pytest.mark.parametrize(("rate", "noise", "epsilon"), [("0.3", "0.7", "1"), ("0.9", "2", "0.4")])
def test_never_below_the_sampled_delta(rate: str, noise: str, epsilon: str) -> None:
    q, sigma, eps = Fraction(rate), Fraction(noise), Fraction(epsilon)
    rounds = ((Mechanism(q, sigma), 1),)
    with working_precision(192):
        bound = float(upper_end(UnsampledCurve.of(rounds, Fraction(0)).delta_at(eps)))
    for add in (False, True):
        assert bound >= float(reference.single_delta(q, sigma, eps, add=add))
    assert bound >= float(delta_interval({Mechanism(q, sigma): 1}, eps).lower)


@pytest.mark.parametrize("distance", ["0", "1e-15", "1e-11"])
def test_its_epsilon_is_the_closed_forms(distance: str) -> None:
    tau, delta = Fraction(distance), Fraction("1e-6")
    mechanism = Mechanism("1", "1.5")
    known = epsilon_interval({mechanism: 4}, delta, extra_distance=tau)
    with working_precision(192):
        found = UnsampledCurve.of(((mechanism, 4),), tau).epsilon(delta)
    assert found is not None
    assert math.isclose(float(found), float(known.upper), rel_tol=1e-9)
    assert found >= known.lower


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta", "distance"), HOPELESS)
def test_whoever_follows_the_advice_gets_a_number(
    rate: str, noise: str, rounds: int, delta: str, distance: str
) -> None:
    with pytest.raises(CertificationError, match="uses up delta") as caught:
        epsilon_interval({Mechanism(rate, noise): rounds}, delta, extra_distance=distance)
    told, followed = str(caught.value), 0
    assert distance.upper() in told
    if larger := re.search(r"a delta of at least ([^;]+)", told):
        found = epsilon_interval(
            {Mechanism(rate, noise): rounds}, larger[1], extra_distance=distance
        )
        assert found.upper >= 0
        followed += 1
    if louder := re.search(r"at least (\S+) times the noise", told):
        mechanism = Mechanism(rate, str(Decimal(noise) * Decimal(louder[1])))
        assert epsilon_interval({mechanism: rounds}, delta, extra_distance=distance).upper > 0
        followed += 1
    assert followed


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta", "distance"), HOPELESS)
def test_infinity_is_not_said_of_less_distance(
    rate: str, noise: str, rounds: int, delta: str, distance: str
) -> None:
    """The same rounds without a distance have an epsilon, whatever their noise."""
    assert epsilon_interval({Mechanism(rate, noise): rounds}, delta).upper > 0


@pytest.mark.parametrize("rounds", [1, 3, 1000])
def test_distances_of_products_stay_below_one(rounds: int) -> None:
    with working_precision(192):
        bound = total_variation_bound(((Mechanism("0.5", "0.05"), rounds),))
        exact = 1 - 0.5**rounds
        assert float(bound) == pytest.approx(exact, rel=1e-12)
        assert upper_end(bound) <= 1 + Fraction(1, 10**30)
