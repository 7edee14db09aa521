"""Little noise: counting participations against closed forms and the contour."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import CertificationError
from privagg.privacy.certified import Mechanism, epsilon_interval
from privagg.privacy.certified.balls import lower_end, upper_end, working_precision
from privagg.privacy.certified.contour import METHOD as CONTOUR
from privagg.privacy.certified.participations import METHOD, ParticipationCurve
from privagg.privacy.certified.planning import Effort
from privagg.privacy.certified.strategy import remove_ends
from privagg.privacy.certified.work import MOST_WORK, limited

from . import reference


@pytest.mark.parametrize("epsilon", ["300", "680", "700"])
def test_one_round_against_numerical_integration(epsilon: str) -> None:
    rate, noise, eps = Fraction("0.5"), Fraction("0.03"), Fraction(epsilon)
    with working_precision(192):
        curve = ParticipationCurve(Mechanism(rate, noise), 1, Fraction("1e-5"))
        bounds = curve.bounds(eps)
        low, high = lower_end(bounds.lower), upper_end(bounds.upper)
    truth = float(reference.single_delta(rate, noise, eps, add=False))
    assert float(low) <= truth * (1 + 1e-9)
    assert truth <= float(high) * (1 + 1e-9)
    assert float(high - low) <= 1e-12


def test_three_rounds_agree_with_the_contour() -> None:
    mechanism, delta = Mechanism("0.5", "0.05"), Fraction("1e-4")
    counted = epsilon_interval({mechanism: 3}, delta)
    contour = remove_ends(((mechanism, 3),), delta, Fraction(0), Effort())
    assert counted.method == METHOD != CONTOUR
    assert contour.upper is not None
    assert counted.lower <= contour.upper
    assert contour.lower <= counted.upper
    assert counted.relative_width < 1e-9


@pytest.mark.parametrize(
    ("rate", "noise", "rounds", "delta"),
    [("0.1", "0.107", 2, "1e-6"), ("0.0047", "0.117", 2, "1e-4"), ("0.3", "0.104", 5, "1e-4")],
)
def test_doubtful_coins_agree_with_the_contour(
    rate: str, noise: str, rounds: int, delta: str
) -> None:
    mechanism, target = Mechanism(rate, noise), Fraction(delta)
    counted = epsilon_interval({mechanism: rounds}, target)
    contour = remove_ends(((mechanism, rounds),), target, Fraction(0), Effort())
    assert counted.method == METHOD != CONTOUR
    assert contour.upper is not None
    assert counted.lower <= contour.upper
    assert contour.lower <= counted.upper
    assert counted.relative_width <= 1e-6


UNKNOWN = ("0", "1e9")
# Rate, noise, rounds, delta, and what a contour proved in five to nine seconds, or could not.
LONG = [
    ("0.000000469", "0.06832", 2954, "1.107e-13", "371.725173856", "371.725173858"),
    ("0.003025", "0.07878", 589, "0.09216", "275.340083218", "275.340083220"),
    ("0.000000004086", "0.07326", 269976, "2.943e-11", "247.062672488", "247.062672489"),
    ("0.00000844", "0.07896", 7546, "1.044e-12", "484.708027573", "484.708027574"),
    ("0.002096", "0.08044", 50, "9.19e-14", "589.065365714", "589.065365715"),
    ("0.00004282", "0.05554", 743116, "6.801e-14", *UNKNOWN),
    ("0.0008055", "0.05291", 929, "5.934e-13", *UNKNOWN),
    ("0.00006735", "0.06796", 16549, "1.307e-11", *UNKNOWN),
    ("0.0000001791", "0.05787", 393529, "1.12e-11", *UNKNOWN),
]


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta", "low", "high"), LONG)
def test_what_contours_took_seconds_for(
    rate: str, noise: str, rounds: int, delta: str, low: str, high: str
) -> None:
    with limited(MOST_WORK) as meter:
        found = epsilon_interval({Mechanism(rate, noise): rounds}, delta)
    assert found.relative_width <= 1e-6
    assert meter.spent <= MOST_WORK / 10
    assert found.lower <= Fraction(high)
    assert Fraction(low) <= found.upper


@settings(max_examples=20, deadline=None)
@given(rounds=st.integers(1, 2000), rate=st.sampled_from(["1e-6", "0.003", "0.4"]))
def test_more_rounds_never_cost_less(rounds: int, rate: str) -> None:
    mechanism = Mechanism(rate, "0.02")
    fewer = epsilon_interval({mechanism: rounds}, "1e-9")
    more = epsilon_interval({mechanism: rounds + 1}, "1e-9")
    assert fewer.lower <= fewer.upper
    assert fewer.lower <= more.upper


def test_noise_that_hides_participation_is_refused() -> None:
    with working_precision(192), pytest.raises(CertificationError, match="hides"):
        ParticipationCurve(Mechanism("0.1", "1"), 3, Fraction("1e-6"))
