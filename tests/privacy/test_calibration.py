"""Calibration never lands above the target, and hardly below it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from privagg.errors import CalibrationError
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.accountants import PldAccountant, default_accountant
from privagg.privacy.calibration import RESOLUTION, calibrate
from privagg.privacy.events import DpEvent, Mechanism


def gaussian(rounds: int):  # type: ignore[no-untyped-def]
    return lambda sigma: DpEvent.once(Mechanism.of(Decimal(1), sigma), count=rounds)


def poisson(rate: str, rounds: int):  # type: ignore[no-untyped-def]
    return lambda sigma: DpEvent.once(Mechanism.of(Decimal(rate), sigma), count=rounds)


def analytic_sigma(epsilon: float, delta: float, rounds: int) -> float:
    """Balle & Wang 2018, theorem 8, for the composition of `rounds` Gaussians."""

    def excess(sigma: float) -> float:
        mu = rounds**0.5 / sigma
        first = norm.cdf(mu / 2 - epsilon / mu)
        return float(first - 2.718281828459045**epsilon * norm.cdf(-mu / 2 - epsilon / mu) - delta)

    return float(brentq(excess, 1e-2, 1e5, xtol=1e-12))


@pytest.mark.parametrize("epsilon", ["0.1", "1", "5", "10"])
def test_the_gaussian_is_calibrated_to_the_last_step(epsilon: str) -> None:
    accountant = default_accountant()
    delta = Decimal("1e-4")
    sigma = calibrate(gaussian(6), epsilon=Decimal(epsilon), delta=delta, accountant=accountant)
    assert accountant.epsilon(gaussian(6)(sigma), delta).upper <= Decimal(epsilon)
    less = accountant.epsilon(gaussian(6)(sigma - RESOLUTION), delta)
    assert less.upper > Decimal(epsilon)
    assert float(sigma) == pytest.approx(analytic_sigma(float(epsilon), 1e-4, 6), abs=3e-6)


def test_subsampled_calibration_agrees_with_a_peer() -> None:
    accountant = default_accountant()
    target, delta = Decimal(2), Decimal("1e-5")
    sigma = calibrate(poisson("0.05", 200), epsilon=target, delta=delta, accountant=accountant)
    assert accountant.epsilon(poisson("0.05", 200)(sigma), delta).upper <= target
    peer = PldAccountant().epsilon(poisson("0.05", 200)(sigma), delta).upper
    assert float(peer) == pytest.approx(2.0, rel=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    target=st.decimals("0.1", "50", places=3),
    power=st.floats(0.5, 3),
    scale=st.floats(0.01, 10),
)
def test_never_above_the_target_whatever_the_curve(
    target: Decimal, power: float, scale: float
) -> None:
    class Curve:
        name = "curve"

        def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
            sigma = float(event.terms[0].mechanism.noise_multiplier)
            return EpsilonBound(Decimal(repr(scale / sigma**power)), None, "test", False)

    curve = Curve()
    sigma = calibrate(gaussian(1), epsilon=target, delta=Decimal("0.1"), accountant=curve)
    assert curve.epsilon(gaussian(1)(sigma), Decimal("0.1")).upper <= target
    if sigma > 1:
        below = curve.epsilon(gaussian(1)(sigma - RESOLUTION), Decimal("0.1")).upper
        assert below > target


def test_what_cannot_be_met_is_refused() -> None:
    class Stubborn:
        name = "stubborn"

        def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
            return EpsilonBound(Decimal(5), None, "test", False)

    with pytest.raises(CalibrationError, match="raise epsilon or delta"):
        calibrate(gaussian(1), epsilon=Decimal(1), delta=Decimal("1e-5"), accountant=Stubborn())
