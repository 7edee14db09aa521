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
