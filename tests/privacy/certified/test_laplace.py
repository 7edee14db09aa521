"""What is proven of integer Laplace noise, against enumeration and against dp-accounting."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as distributions
from scipy import stats

from privagg.errors import CertificationError, PrivacyError, UnknownEventError
from privagg.privacy.accountants import CertifiedAccountant, PldAccountant, RdpAccountant
from privagg.privacy.certified import (
    Convolved,
    Interval,
    LaplaceRound,
    Mechanism,
    epsilon_interval,
    mixed_epsilon_interval,
)
from privagg.privacy.certified.mixed import FEW
from privagg.privacy.events import DpEvent, LaplaceMechanism
from privagg.privacy.events import Mechanism as EventMechanism
from privagg.privacy.laplace_law import LaplaceLaw
from privagg.privacy.renyi import renyi_divergences

DELTA = Fraction(1, 10**5)
NOTHING: dict[Mechanism, int] = {}


def coordinate(scale: Fraction | int, shape: Fraction | int, shift: int) -> LaplaceRound:
    return LaplaceRound(LaplaceLaw(Fraction(scale), Fraction(shape)), shift)


def masses(each: LaplaceRound, count: int) -> np.ndarray[Any, Any]:
    """P(-count) ... P(count) by scipy's negative binomial: no step shared with the package."""
    j = np.arange(count + math.ceil(60 * each.law.scale) + 60)
    decay = -math.expm1(-1 / float(each.law.scale))
    single = stats.nbinom.pmf(j, float(each.law.shape), decay)
    half = np.array([single[: len(j) - k] @ single[k:] for k in range(count + 1)])
    return np.concatenate([half[:0:-1], half])


def enumerated(rounds: list[LaplaceRound], epsilon: float, moved: list[int] | None = None) -> float:
    """delta(eps) of independent coordinates moved by exactly their shifts, by adding up."""
    own, other = np.ones(1), np.ones(1)
    for each, by in zip(rounds, moved or [each.shift for each in rounds], strict=True):
        count = math.ceil(45 * each.law.scale) + each.shift
        law = masses(each, count)
        shifted = np.roll(law, by)
        own = np.outer(own, law[each.shift : -each.shift]).ravel()
        other = np.outer(other, shifted[each.shift : -each.shift]).ravel()
    return float(np.maximum(own - math.exp(epsilon) * other, 0).sum())


SINGLE = [
    coordinate(1, 1, 1),
    coordinate(1, Fraction(1, 3), 1),
    coordinate(1, Fraction(5, 3), 1),
    coordinate(3, Fraction(1, 2), 4),
    coordinate(3, Fraction(1, 40), 2),
    coordinate(Fraction(5, 2), 6, 3),
    coordinate(Fraction(1, 2), Fraction(1, 7), 1),
]


@pytest.mark.parametrize("each", SINGLE)
@pytest.mark.parametrize("delta", [Fraction(1, 10), Fraction(1, 1000), Fraction(1, 10**7)])
def test_one_coordinate_is_enclosed_closely(each: LaplaceRound, delta: Fraction) -> None:
    found = mixed_epsilon_interval(NOTHING, {each: 1}, delta)
    upper, lower = float(found.upper), float(found.lower)
    assert enumerated([each], upper) <= float(delta) * (1 + 1e-9) + 1e-14
    if lower:
        assert enumerated([each], lower) >= float(delta) * (1 - 1e-9) - 1e-14
    assert upper - lower < 0.01 * upper + 3 * float(delta)


def test_all_shares_together_cost_the_shift_over_the_scale_and_one_of_three_twice_that() -> None:
    """What every observer of single uploads is told: with shares, one alone protects far less."""
    whole = mixed_epsilon_interval(NOTHING, {coordinate(1, 1, 1): 1}, DELTA)
    alone = mixed_epsilon_interval(NOTHING, {coordinate(1, Fraction(1, 3), 1): 1}, DELTA)
    assert 0.9999 < whole.upper <= 1
    assert float(alone.upper) == pytest.approx(2.08, abs=0.005)
    law = masses(coordinate(1, Fraction(1, 3), 1), 1)
    assert float(alone.upper) <= math.log(law[1] / law[2]) + 1e-9


@pytest.mark.parametrize("shape", [Fraction(1, 3), Fraction(1), Fraction(5, 2)])
def test_no_smaller_move_and_no_spread_of_it_costs_more(shape: Fraction) -> None:
    """Every vector that is nowhere larger, sorted, costs less at every epsilon."""
    two = [coordinate(2, shape, 3), coordinate(2, shape, 2)]
    for epsilon in (0.0, 0.2, 0.7, 1.5, 2.3):
        worst = enumerated(two, epsilon)
        for moved in itertools.product(range(-3, 4), range(-2, 3)):
            assert enumerated(two, epsilon, list(moved)) <= worst + 1e-13


@pytest.mark.parametrize("shape", [Fraction(1, 3), Fraction(1), Fraction(5, 2)])
def test_several_coordinates_never_cost_more_than_is_proven(shape: Fraction) -> None:
    two = {coordinate(2, shape, 3): 1, coordinate(2, shape, 1): 2}
    for delta in (Fraction(1, 20), Fraction(1, 10**4)):
        found = mixed_epsilon_interval(NOTHING, two, delta)
        rounds = [each for each, times in two.items() for _ in range(times)]
        assert enumerated(rounds, float(found.upper)) <= float(delta) * (1 + 1e-9)
        assert enumerated(rounds, 0.98 * float(found.upper)) > float(delta)
        assert enumerated(rounds, float(found.lower)) >= float(delta) * (1 - 1e-9)
        assert found.lower > 0.6 * found.upper


@pytest.mark.parametrize(("scale", "shift", "times"), [(10, 1, 30), (4, 2, 5), (20, 1, 200)])
def test_compositions_lie_between_dp_accountings_bounds(scale: int, shift: int, times: int) -> None:
    found = mixed_epsilon_interval(NOTHING, {coordinate(scale, 1, shift): times}, DELTA)
    low, high = (
        distributions.from_discrete_laplace_mechanism(
            1 / scale,
            shift,
            pessimistic_estimate=pessimistic,
            value_discretization_interval=1e-4,
            use_connect_dots=False,
        )
        .self_compose(times)
        .get_epsilon_for_delta(float(DELTA))
        for pessimistic in (False, True)
    )
    assert low * (1 - 1e-6) <= found.upper <= high * 1.01
    assert found.lower <= found.upper <= Fraction(times * shift, scale)


def test_with_a_gaussian_round_delta_is_the_integral_over_both_losses() -> None:
    each, sigma = coordinate(2, Fraction(1, 2), 1), 3.0
    found = mixed_epsilon_interval({Mechanism(Fraction(1), Fraction(3)): 1}, {each: 1}, DELTA)
    law = masses(each, 120)
    own, other = law[1:], law[:-1]
    epsilon, mu = float(found.upper), 1 / sigma

    def gaussian(loss: float) -> float:
        return float(
            stats.norm.cdf(mu / 2 - loss / mu)
            - math.exp(loss) * stats.norm.cdf(-mu / 2 - loss / mu)
        )

    exact = sum(
        p * gaussian(epsilon - math.log(p / q))
        for p, q in zip(own, other, strict=True)
        if min(p, q) > 1e-18
    )
    assert exact <= float(DELTA)
    assert exact >= 0.9 * float(DELTA)
    assert 0 < found.lower < found.upper


def test_many_gaussian_rounds_are_counted_up_and_never_cost_less() -> None:
    """A ledger's figure grows with every round, and is the exact one at counts of two digits."""
    each, held, before = coordinate(2, 1, 1), Convolved(), Fraction(0)
    for times in (FEW, FEW + 1, FEW + 10):
        rounds = {Mechanism(Fraction(1, 100), Fraction(1)): times}
        found = mixed_epsilon_interval(rounds, {each: 1}, DELTA, convolved=held)
        assert found.upper >= before * (1 - Fraction(1, 10**9))
        before = found.upper
    assert before == mixed_epsilon_interval(rounds, {each: 1}, DELTA).upper
    alone = epsilon_interval(rounds, DELTA).upper
    assert alone < found.lower + Fraction(1, 2)
    assert alone < found.upper <= Fraction(1, 2) + alone


def test_a_distance_is_folded_in_and_refused_where_it_uses_up_delta() -> None:
    each = {coordinate(2, 1, 1): 1, coordinate(2, 1, 2): 1}
    ideal = mixed_epsilon_interval(NOTHING, each, DELTA)
    real = mixed_epsilon_interval(NOTHING, each, DELTA, extra_distance=Fraction(1, 10**6))
    assert real.upper >= ideal.upper
    with pytest.raises(CertificationError):
        mixed_epsilon_interval(NOTHING, each, DELTA, extra_distance=Fraction(1, 10**5))


@pytest.mark.parametrize("shift", [0, -1, 4097])
def test_a_shift_outside_the_proof_is_refused(shift: int) -> None:
    with pytest.raises(PrivacyError):
        coordinate(1, 1, shift)


# --- as events ------------------------------------------------------------------------------------


def event(shift: int, scale: str, shares: int, shared_by: int, count: int = 1) -> DpEvent:
    return DpEvent.once(LaplaceMechanism.of(shift, Decimal(scale), shares, shared_by), count=count)


def test_an_event_survives_json_and_composes_with_others() -> None:
    mixed = event(1, "2.50", 2, 6) + DpEvent.once(EventMechanism.of(Decimal(1), Decimal(2)))
    assert DpEvent.model_validate_json(mixed.model_dump_json()) == mixed
    assert event(1, "2.50", 2, 6) + event(1, "2.5", 1, 3) == event(1, "2.5", 1, 3, count=2)
    assert mixed + event(1, "2.5", 1, 3) == event(1, "2.5", 3, 9) + mixed
    assert [term.mechanism.kind for term in mixed.terms] == ["gaussian", "integer-laplace"]


def test_every_accountant_reads_it() -> None:
    """The certified figure is a proof; the peers' lie beside it."""
    delta = Decimal("1e-5")
    for asked in (
        event(1, "3", 1, 1),
        event(2, "3", 2, 3, count=3),
        event(1, "10", 1, 1, count=40),
        event(1, "4", 5, 4) + DpEvent.once(EventMechanism.of(Decimal(1), Decimal(4)), count=2),
        event(1, "4", 1, 2) + DpEvent.once(EventMechanism.of(Decimal("0.1"), Decimal(2)), count=20),
    ):
        proven = CertifiedAccountant().epsilon(asked, delta)
        assert proven.certified
        pld = PldAccountant(1e-3).epsilon(asked, delta).upper
        assert float(pld) == pytest.approx(float(proven.upper), rel=0.03)
        assert RdpAccountant().epsilon(asked, delta).upper >= Decimal("0.99") * (proven.lower or 0)


def test_more_shares_than_are_tabulated_count_as_many_as_are() -> None:
    many = CertifiedAccountant().epsilon(event(1, "2", 100, 1), Decimal("1e-5"))
    few = CertifiedAccountant().epsilon(event(1, "2", 16, 1), Decimal("1e-5"))
    assert many == few


def test_a_renyi_divergence_of_it_has_no_proof() -> None:
    with pytest.raises(UnknownEventError):
        renyi_divergences(event(1, "2", 1, 1))


def test_what_was_asked_before_does_not_change_an_answer() -> None:
    def ask() -> Interval:
        return mixed_epsilon_interval(NOTHING, {coordinate(200, Fraction(1, 3), 1): 1}, DELTA)

    assert ask() == ask()
