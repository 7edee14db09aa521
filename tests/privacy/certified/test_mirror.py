"""The mirror against numerical integration, a grid that shares no step with it, and contours."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from privagg.errors import CertificationError
from privagg.privacy.certified import Mechanism, delta_interval, epsilon_interval
from privagg.privacy.certified.balls import lower_end, upper_end, working_precision
from privagg.privacy.certified.contour import Product
from privagg.privacy.certified.mechanism import Direction, Rounds
from privagg.privacy.certified.mirror import METHOD, MirrorCurve, mirrored_ends
from privagg.privacy.certified.mirroring import make_mirror_plan
from privagg.privacy.certified.planning import Effort, Goal
from privagg.privacy.certified.strategy import product_of, remove_ends
from privagg.privacy.certified.tables import BulkShape, Frame, Shape, round_table
from privagg.privacy.certified.transform import TrapezoidGrid
from privagg.privacy.certified.window import Window

from . import reference
from .grid import BITS, Grid, GridCurve

ROUND = Mechanism("0.02", "1.2")


def mirrored(rounds: Rounds, epsilon: Fraction, delta: float) -> tuple[Fraction, Fraction, bool]:
    """Return (lower, upper, whether a bulk was taken out) of delta, aimed at both floats."""
    plan = make_mirror_plan(rounds, Goal(math.log(delta), float(epsilon)), Effort())
    with working_precision(plan.frame.precision_bits):
        found = MirrorCurve(product_of(plan, rounds)).bounds(epsilon)
        return lower_end(found.lower), upper_end(found.upper), plan.frame.bulk_order is not None


def ratios(rate: float, noise: float, nodes: np.ndarray) -> np.ndarray:
    return 1 + rate * np.expm1(nodes / noise - 1 / (2 * noise * noise))


def by_integration(rate: float, noise: float, rounds: int, epsilon: float) -> float:
    """Return delta of two or three rounds: a sum over all but the last, which is a closed form."""
    step = 0.001 if rounds == 2 else 0.01
    nodes = np.arange(-9.0, 14.0, step)
    weight = step * np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)
    first = ratios(rate, noise, nodes)
    if rounds == 3:
        first = np.multiply.outer(first, first).ravel()
        weight = np.multiply.outer(weight, weight).ravel()
    level = (math.exp(epsilon) / first - 1 + rate) / rate
    cut = noise * np.log(np.maximum(level, 1e-300)) + 1 / (2 * noise)
    gain = rate * (ndtr(1 / noise - cut) - level * ndtr(-cut))
    return float((weight * first * np.where(level > 0, gain, 1 - math.exp(epsilon) / first)).sum())


@pytest.mark.parametrize(
    ("rate", "noise", "rounds", "epsilon"),
    [
        ("1e-3", "0.9", 2, "4e-3"),
        ("1e-3", "0.7", 3, "2e-3"),
        ("0.01", "2", 3, "0.02"),
        ("1e-4", "1", 2, "5e-3"),
        ("1e-3", "0.6", 3, "5e-3"),
    ],
)
def test_two_and_three_rounds_against_numerical_integration(
    rate: str, noise: str, rounds: int, epsilon: str
) -> None:
    truth = by_integration(float(rate), float(noise), rounds, float(epsilon))
    found = mirrored(((Mechanism(rate, noise), rounds),), Fraction(epsilon), truth)
    assert float(found[0]) <= truth * (1 + 1e-7)
    assert truth <= float(found[1]) * (1 + 1e-7)
    assert float(found[1] - found[0]) < 1e-8 * truth


@pytest.mark.parametrize(
    ("rate", "noise", "rounds", "epsilon"),
    [("1e-5", "0.7", 40, "3e-3"), ("1e-4", "1.5", 12, "6e-4"), ("2e-6", "0.4", 100, "8e-3")],
)
def test_a_grid_and_the_mirror_overlap(rate: str, noise: str, rounds: int, epsilon: str) -> None:
    mechanism, eps = Mechanism(rate, noise), Fraction(epsilon)
    step, lowest = eps / 2000, -Fraction(rate) * Fraction(101, 100)
    first, last = int(lowest / step) - 2, int((eps * 2 - rounds * lowest) / step) + 2
    grid = Grid(step, first, last, 4000 - rounds * first + 2)
    curve = GridCurve(mechanism, rounds, grid)
    with working_precision(BITS):
        bounds = curve.bounds(eps)
        low, high = lower_end(bounds.lower), upper_end(bounds.upper)
    found = mirrored(((mechanism, rounds),), eps, float(high))
    assert low <= found[1]
    assert found[0] <= high
    assert float(found[1] - found[0]) < 1e-7 * float(high)
    assert float(high - low) < 5e-2 * float(high)


@pytest.mark.parametrize(
    ("rate", "noise", "rounds"), [("1e-3", "1", 3000), ("0.01", "2", 500), ("5e-4", "0.7", 200)]
)
def test_a_contour_and_the_mirror_agree(rate: str, noise: str, rounds: int) -> None:
    composition, delta = ((Mechanism(rate, noise), rounds),), Fraction("1e-7")
    contour = remove_ends(composition, delta, Fraction(0), Effort())
    mirror = mirrored_ends(composition, delta, Fraction(0), Effort())
    assert contour.upper is not None
    assert mirror.upper is not None
    assert contour.lower <= mirror.upper
    assert mirror.lower <= contour.upper
    assert max(contour.width(), mirror.width()) < Fraction(1, 10**7)


@given(
    order=st.floats(0.3, 40.0),
    alias_factor=st.floats(1.01, 4.0),
    period=st.floats(0.2, 8.0),
    count=st.integers(1, 60),
    bits=st.sampled_from([40, 64, 128]),
    step=st.floats(0.05, 1.2),
    height=st.floats(0.05, 1.8),
    start=st.floats(-12.0, -1.0),
    nodes=st.integers(3, 200),
    cut=st.one_of(st.none(), st.floats(0.5, 4.0)),
    blur=st.floats(0.1, 1.5),
    edge=st.floats(0.1, 6.0),
    bulk_order=st.floats(1.0, 60.0),
    epsilon=st.fractions(0, 1, max_denominator=50),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_mirror_tells_the_truth(
    order: float,
    alias_factor: float,
    period: float,
    count: int,
    bits: int,
    step: float,
    height: float,
    start: float,
    nodes: int,
    cut: float | None,
    blur: float,
    edge: float,
    bulk_order: float,
    epsilon: Fraction,
) -> None:
    """Whatever plan, window and hard edge are chosen: a bad choice loosens, and never lies."""
    grid = TrapezoidGrid(start, step, nodes, height)
    bulk = None if cut is None else BulkShape(Window(high=cut, blur=blur), grid, grid, cut + edge)
    frame = Frame(
        Direction.ADD, order, period, count, order * alias_factor, bits,
        None if cut is None else bulk_order,
    )  # fmt: skip
    with working_precision(bits):
        try:
            product = Product(frame)
            product.add(round_table(ROUND, frame, Shape(Window(), grid, grid, grid, bulk)), 1)
            found = MirrorCurve(product).bounds(epsilon)
            low, high = lower_end(found.lower), upper_end(found.upper)
        except CertificationError:
            return
    exact = Fraction(
        str(reference.single_delta(ROUND.sampling_rate, ROUND.noise_multiplier, epsilon, add=False))
    )
    assert low <= exact + Fraction(1, 10**15)
    assert high >= exact - Fraction(1, 10**15)


def test_both_kinds_of_plan_are_sharp() -> None:
    """The test above would pass if every mirror were refused; planned ones must be narrow."""
    for rate, noise, epsilon, has_bulk in [
        ("0.05", "10", "0.01", False),
        ("1e-6", "0.7", "1e-3", True),
    ]:
        eps = Fraction(epsilon)
        truth = reference.single_delta(Fraction(rate), Fraction(noise), eps, add=False)
        low, high, cut = mirrored(((Mechanism(rate, noise), 1),), eps, float(truth))
        assert cut == has_bulk
        assert low <= Fraction(str(truth)) * (1 + Fraction(1, 10**25))
        assert Fraction(str(truth)) * (1 - Fraction(1, 10**25)) <= high
        assert float((high - low) / high) < 1e-8


def test_the_other_direction_is_bounded_where_it_says_so() -> None:
    rate, noise, eps = Fraction("0.01"), Fraction("2"), Fraction("1e-3")
    plan = make_mirror_plan(((Mechanism(rate, noise), 1),), Goal(math.log(1e-3), 1e-3), Effort())
    with working_precision(plan.frame.precision_bits):
        curve = MirrorCurve(product_of(plan, ((Mechanism(rate, noise), 1),)))
        assert curve.covers_add
        high = upper_end(curve.bounds(eps).upper)
    assert float(reference.single_delta(rate, noise, eps, add=True)) <= float(high)


def test_a_mirror_needs_the_add_direction() -> None:
    frame = Frame(Direction.REMOVE, 1.0, 5.0, 3, 2.0, 128)
    with working_precision(128), pytest.raises(CertificationError, match="add direction"):
        MirrorCurve(Product(frame))


@pytest.mark.parametrize(
    ("rate", "noise", "rounds", "delta"),
    [
        ("1e-6", "0.8", 1000, "1e-6"),
        ("1e-7", "1", 1000, "1e-9"),
        ("2.6e-8", "0.8595", 528_559, "1.317e-11"),
        ("1.681e-9", "86.18", 1378, "3.415e-15"),
        ("4.034e-6", "0.4048", 13, "1.35e-6"),
    ],
)
def test_rare_rounds_are_enclosed_narrowly(rate: str, noise: str, rounds: int, delta: str) -> None:
    interval = epsilon_interval({Mechanism(rate, noise): rounds}, delta)
    assert interval.method == interval.lower_method == METHOD
    assert 0 < interval.relative_width < 1e-8
    back = delta_interval({Mechanism(rate, noise): rounds}, interval.upper)
    assert back.upper <= Fraction(delta)
    assert float(back.upper) > float(delta) * (1 - 1e-6)
    assert back.relative_width < 1e-6


def test_epsilon_far_below_the_first_aim_is_aimed_at_again() -> None:
    """Near epsilon = 0 a mirror without its bulk is sharp only close to its own aim."""
    near_zero = epsilon_interval({Mechanism("1e-6", "0.8"): 5}, "1e-6")
    assert 0 < near_zero.relative_width < 1e-8
    assert epsilon_interval({Mechanism("1e-6", "0.8"): 3}, "1e-6").upper == 0


def test_rare_rounds_of_several_kinds_compose() -> None:
    one, two = Mechanism("1e-6", "0.8"), Mechanism("1e-5", "2")
    mixed = epsilon_interval({one: 1000, two: 500, Mechanism("3e-7", "0.3"): 20}, "1e-6")
    assert mixed.method == mixed.lower_method == METHOD
    assert 0 < mixed.relative_width < 1e-8
    assert mixed.lower > epsilon_interval({one: 1000}, "1e-6").upper
    whole = epsilon_interval({one: 1000, Mechanism(1, "1000"): 3}, "1e-6")
    assert 0 < whole.relative_width < 1e-6


def test_a_distance_only_widens_the_upper_end() -> None:
    rounds = {Mechanism("1e-6", "0.8"): 1000}
    plain = epsilon_interval(rounds, "1e-6")
    moved = epsilon_interval(rounds, "1e-6", extra_distance="1e-9")
    assert moved.lower <= plain.upper < moved.upper
