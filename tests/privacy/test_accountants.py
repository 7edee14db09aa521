"""The accountants: dp-accounting's own figures, never rounded down, beside the certified one."""

from __future__ import annotations

import threading
from decimal import Decimal
from itertools import pairwise

import dp_accounting
import mpmath
import pytest
from dp_accounting import pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import CertificationError, UnknownEventError
from privagg.privacy.accountant import Accountant
from privagg.privacy.accountants import (
    CertifiedAccountant,
    PldAccountant,
    RdpAccountant,
    default_accountant,
    float_down,
    float_up,
    fold_distance,
)
from privagg.privacy.events import DpEvent, Mechanism

INFINITY = Decimal("Infinity")
DELTA = Decimal("1e-5")
ALL: list[Accountant] = [RdpAccountant(), PldAccountant(1e-3), CertifiedAccountant()]


def event(rate: str, noise: str, rounds: int, distance: str = "0") -> DpEvent:
    mechanism = Mechanism.of(Decimal(rate), Decimal(noise))
    return DpEvent.once(mechanism, count=rounds, distance=Decimal(distance))


def peer(rate: float, noise: float) -> object:
    return dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["0.001", "0.01", "0.1"]),
    st.sampled_from(["0.7", "1.3", "4"]),
    st.integers(1, 5000),
    st.sampled_from(["1e-4", "1e-6", "1e-9"]),
)
def test_rdp_is_dp_accountings_figure_and_never_less(
    rate: str, noise: str, rounds: int, delta: str
) -> None:
    theirs = rdp.RdpAccountant()
    theirs.compose(peer(float(rate), float(noise)), rounds)
    expected = theirs.get_epsilon(float(delta))
    ours = RdpAccountant().epsilon(event(rate, noise, rounds), Decimal(delta))
    assert Decimal(expected) <= ours.upper <= Decimal(expected) * (1 + Decimal("1e-7"))
    assert not ours.certified


@pytest.mark.parametrize("rounds", [1, 400])
def test_pld_is_dp_accountings_figure_and_never_less(rounds: int) -> None:
    theirs = pld.PLDAccountant(value_discretization_interval=1e-3)
    theirs.compose(peer(0.02, 1.5), rounds)
    expected = theirs.get_epsilon(1e-6)
    ours = PldAccountant(1e-3).epsilon(event("0.02", "1.5", rounds), Decimal("1e-6"))
    assert Decimal(expected) <= ours.upper <= Decimal(expected) * (1 + Decimal("1e-7"))


# Noise multiplier, rate, rounds, delta -> epsilon by dp-accounting 0.6.0's PLD (interval 1e-4), and
# the proven epsilon by contour inversion, both computed before this code was written.
KNOWN = [
    ("1", "0.01", 1000, "1e-5", "1.8282436", "1.8282367"),
    ("100", "1", 10000, "1e-12", "7.2385120", "7.2384944"),
    ("17.45", "1", 30, "1e-4", "0.99992313", "0.99992312"),
]


@pytest.mark.parametrize(("noise", "rate", "rounds", "delta", "by_pld", "proven"), KNOWN)
def test_known_figures(
    noise: str, rate: str, rounds: int, delta: str, by_pld: str, proven: str
) -> None:
    asked = event(rate, noise, rounds), Decimal(delta)
    assert PldAccountant().epsilon(*asked).upper == pytest.approx(
        Decimal(by_pld), rel=Decimal("1e-7")
    )
    bound = CertifiedAccountant().epsilon(*asked)
    assert bound.certified
    assert bound.upper == pytest.approx(Decimal(proven), rel=Decimal("1e-7"))
    assert bound.lower is not None
    assert bound.lower <= bound.upper
    assert RdpAccountant().epsilon(*asked).upper > bound.lower


def gaussian_delta(mu: mpmath.mpf, epsilon: mpmath.mpf) -> mpmath.mpf:
    """Balle and Wang (2018), Theorem 8, for a Gaussian mechanism with sensitivity over noise mu."""
    first = mpmath.ncdf(mu / 2 - epsilon / mu)
    return first - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)


@pytest.mark.parametrize("distance", ["0", "1e-9", "1e-7"])
@pytest.mark.parametrize("accountant", ALL, ids=lambda each: each.name)
def test_the_distance_is_folded_in_as_defined(accountant: Accountant, distance: str) -> None:
    with mpmath.workdps(50):
        bound = accountant.epsilon(event("1", "5", 4, distance), DELTA)
        mu = mpmath.mpf(2) / 5
        tau = mpmath.mpf(distance)

        def real(epsilon: Decimal) -> mpmath.mpf:
            value = mpmath.mpf(str(epsilon))
            return gaussian_delta(mu, value) + (1 + mpmath.exp(value)) * tau

        assert real(bound.upper) <= mpmath.mpf(str(DELTA))
        if accountant.name != "rdp":
            assert real(bound.upper * Decimal("0.999")) > mpmath.mpf(str(DELTA))


@pytest.mark.parametrize("accountant", ALL, ids=lambda each: each.name)
def test_more_distance_and_more_rounds_never_cost_less(accountant: Accountant) -> None:
    by_distance = [
        accountant.epsilon(event("1", "5", 4, distance), DELTA).upper
        for distance in ("0", "1e-20", "1e-9", "1e-6")
    ]
    assert by_distance == sorted(by_distance)
    assert by_distance[0] < by_distance[-1]
    by_rounds = [accountant.epsilon(event("1", "5", n), DELTA).upper for n in (1, 2, 5)]
    assert all(one < two for one, two in pairwise(by_rounds))


@pytest.mark.parametrize(
    "accountant",
    [RdpAccountant(), PldAccountant(1e-3), CertifiedAccountant()],
    ids=lambda a: a.name,
)
def test_a_distance_that_uses_up_delta_leaves_no_guarantee(accountant: Accountant) -> None:
    for distance in ("5e-6", "1e-3", "1"):
        assert accountant.epsilon(event("1", "5", 1, distance), DELTA).upper == INFINITY


@pytest.mark.parametrize("accountant", ALL, ids=lambda each: each.name)
def test_nothing_costs_nothing_and_no_noise_costs_everything(accountant: Accountant) -> None:
    assert accountant.epsilon(DpEvent(), DELTA).upper == 0
    assert accountant.epsilon(DpEvent(distance=Decimal("1e-6")), DELTA).upper == 0
    assert accountant.epsilon(DpEvent(distance=Decimal("1e-5")), DELTA).upper == INFINITY
    bare = DpEvent.once(Mechanism(kind="non-private"))
    assert accountant.epsilon(bare, DELTA).upper == INFINITY
    mixed = bare + event("0.01", "1", 1)
    assert accountant.epsilon(mixed, DELTA).upper == INFINITY


@pytest.mark.parametrize("accountant", ALL, ids=lambda each: each.name)
@pytest.mark.parametrize("delta", ["0", "1", "-1", "NaN", "Infinity", "2"])
def test_a_delta_that_is_no_probability_is_refused(accountant: Accountant, delta: str) -> None:
    with pytest.raises(CertificationError, match="delta"):
        accountant.epsilon(event("1", "5", 1), Decimal(delta))


@pytest.mark.parametrize("accountant", ALL, ids=lambda each: each.name)
def test_an_unknown_relation_is_refused(accountant: Accountant) -> None:
    known = event("1", "5", 1)
    unknown = DpEvent.model_construct(
        terms=known.terms, distance=known.distance, adjacency="replace-one"
    )
    with pytest.raises(UnknownEventError, match="replace-one"):
        accountant.epsilon(unknown, DELTA)


def test_rdp_orders_lost_to_cancellation_do_not_count_as_no_cost() -> None:
    # At this rate dp-accounting's divergence comes out as 0 or negative at most orders, which it
    # reads as epsilon = 0.
    tiny = event("1e-9", "8", 1)
    assert RdpAccountant().epsilon(tiny, Decimal("1e-12")).upper > 0
    certified = CertifiedAccountant().epsilon(tiny, Decimal("1e-12"))
    assert certified.upper <= RdpAccountant().epsilon(tiny, Decimal("1e-12")).upper


@settings(max_examples=100, deadline=None)
@given(st.decimals("1e-300", "1e6", allow_nan=False))
def test_floats_are_rounded_to_the_side_that_was_asked_for(value: Decimal) -> None:
    assert Decimal(float_down(value)) <= value <= Decimal(float_up(value))


@settings(max_examples=100, deadline=None)
@given(st.decimals("0", "1e-4", places=30), st.decimals("1e-8", "1e-3", places=12))
def test_folding_solves_its_equation(distance: Decimal, delta: Decimal) -> None:
    # The Laplace-like curve epsilon(delta) = -ln(delta): any non-increasing curve will do.
    def curve(allowed: Decimal) -> Decimal:
        return max(Decimal(0), -allowed.ln()).next_plus()

    epsilon = fold_distance(curve, delta, distance)
    if epsilon.is_finite():
        left = delta - (1 + epsilon.exp()) * distance
        assert left > 0
        assert curve(left) <= epsilon * (1 + Decimal("1e-24"))
    else:
        # There is no solution: at every epsilon the left side is already too large.
        for tenth in range(400):
            tried = Decimal(tenth) / 10
            left = delta - (1 + tried.exp()) * distance
            assert left <= 0 or curve(left) > tried


def test_the_default_is_the_certified_one() -> None:
    assert isinstance(default_accountant(), CertifiedAccountant)


def test_a_growing_composition_costs_what_it_costs_afresh() -> None:
    accountant = CertifiedAccountant()
    one, two = ("0.1", "2"), ("0.2", "3")
    composed = DpEvent()
    # Two budgets grow in turns, one of them by two mechanisms.
    for rounds in range(30, 34):
        composed = event(*one, rounds) + event(*two, rounds // 2)
        for asked in (composed, event(*two, rounds)):
            followed = accountant.epsilon(asked, DELTA)
            fresh = CertifiedAccountant().epsilon(asked, DELTA)
            assert followed.lower is not None
            assert fresh.lower is not None
            assert followed.lower <= fresh.upper
            assert fresh.lower <= followed.upper
            assert followed.upper == pytest.approx(fresh.upper, rel=Decimal("1e-5"))
    # Going back, as a refused projection does, is answered afresh and rightly.
    back = accountant.epsilon(event(*two, 3), DELTA)
    assert back.upper == CertifiedAccountant().epsilon(event(*two, 3), DELTA).upper


def test_threads_take_turns() -> None:
    accountant = CertifiedAccountant()
    expected = [CertifiedAccountant().epsilon(event("1", "9", n), DELTA) for n in range(1, 9)]
    found: dict[int, object] = {}

    def ask(rounds: int) -> None:
        found[rounds] = accountant.epsilon(event("1", "9", rounds), DELTA)

    threads = [threading.Thread(target=ask, args=(rounds,)) for rounds in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[rounds] for rounds in range(1, 9)] == expected


@pytest.mark.parametrize(("rate", "noise"), [("1", "0.1"), ("0.5", "0.1"), ("1", "0.001")])
def test_where_noise_is_too_little_for_the_distance_epsilon_is_infinite(
    rate: str, noise: str
) -> None:
    """delta >= (1 + e^epsilon) distance bounds epsilon by 35 here; the Gaussian alone needs 80."""
    event = DpEvent.once(Mechanism.of(Decimal(rate), Decimal(noise)), count=5)
    near = event.model_copy(update={"distance": Decimal("1e-20")})
    bound = CertifiedAccountant().epsilon(near, Decimal("1e-5"))
    assert bound.certified
    assert bound.upper == Decimal("Infinity")
    exact = CertifiedAccountant().epsilon(event, Decimal("1e-5"))
    assert Decimal(80) < exact.upper < Decimal("Infinity")


def test_where_floats_overflow_in_the_search_a_proof_without_sampling_stands() -> None:
    """Losses of 200 and more: the search for a contour ran into NaN and ended in a traceback."""
    accountant, delta = CertifiedAccountant(), Decimal("1e-4")
    mechanism = Mechanism.of(Decimal("0.5"), Decimal("0.05"))
    three = accountant.epsilon(DpEvent.once(mechanism, count=3), delta)
    one = accountant.epsilon(DpEvent.once(mechanism), delta)
    assert three.certified
    assert three.upper.is_finite()
    assert one.lower is not None
    assert three.upper >= one.lower
