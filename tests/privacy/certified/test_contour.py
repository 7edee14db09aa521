"""Contours chosen at random may be loose; they must never be wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from flint import acb, arb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privagg.errors import CertificationError
from privagg.privacy.certified import Mechanism, delta_interval
from privagg.privacy.certified.balls import lower_end, upper_end, working_precision
from privagg.privacy.certified.contour import ContourCurve, Product
from privagg.privacy.certified.mechanism import Direction
from privagg.privacy.certified.planning import Effort, Goal, make_plan
from privagg.privacy.certified.splitting import make_split_plan
from privagg.privacy.certified.strategy import curve_of
from privagg.privacy.certified.tables import Frame, RoundTable, Shape, round_table
from privagg.privacy.certified.transform import TrapezoidGrid
from privagg.privacy.certified.window import Window

from . import reference

ROUND = Mechanism("0.2", "1.5")


def bounds(frame: Frame, shape: Shape, epsilon: Fraction) -> tuple[Fraction, Fraction] | None:
    """Return the interval that one round on this contour gives, or None where it is refused."""
    with working_precision(frame.precision_bits):
        try:
            table = round_table(ROUND, frame, shape)
            found = ContourCurve.of(frame, [(table, 1)]).bounds(epsilon)
            return lower_end(found.lower), upper_end(found.upper)
        except CertificationError:
            return None


@given(
    direction=st.sampled_from(Direction),
    order=st.floats(0.3, 25.0),
    alias_factor=st.floats(1.01, 4.0),
    period=st.floats(0.2, 30.0),
    count=st.integers(1, 60),
    bits=st.sampled_from([40, 64, 128]),
    step=st.floats(0.05, 1.2),
    height=st.floats(0.05, 2.3),
    start=st.floats(-12.0, -1.0),
    nodes=st.integers(3, 200),
    edge=st.sampled_from([math.inf, 4.0, 7.0]),
    blur=st.floats(0.3, 1.5),
    epsilon=st.fractions(0, 3, max_denominator=50),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_contour_tells_the_truth(
    direction: Direction,
    order: float,
    alias_factor: float,
    period: float,
    count: int,
    bits: int,
    step: float,
    height: float,
    start: float,
    nodes: int,
    edge: float,
    blur: float,
    epsilon: Fraction,
) -> None:
    window = Window() if direction is Direction.ADD else Window(high=edge, blur=blur)
    grid = TrapezoidGrid(start, step, nodes, height)
    frame = Frame(direction, order, period, count, order * alias_factor, bits)
    found = bounds(frame, Shape(window, grid, grid, grid), epsilon)
    if found is None:
        return
    add = direction is Direction.ADD
    truth = reference.single_delta(ROUND.sampling_rate, ROUND.noise_multiplier, epsilon, add=add)
    exact = Fraction(str(truth))
    assert found[0] <= exact + Fraction(1, 10**15)
    assert found[1] >= exact - Fraction(1, 10**15)


def test_planned_contours_are_sharp() -> None:
    """The test above would pass if every contour were refused; a planned one must be narrow."""
    epsilon = Fraction("0.15")
    for direction in Direction:
        truth = reference.single_delta(
            ROUND.sampling_rate, ROUND.noise_multiplier, epsilon, add=direction is Direction.ADD
        )
        goal = Goal(math.log(float(truth) or 1e-6), float(epsilon))
        plan = make_plan(((ROUND, 1),), direction, goal, Effort())
        curve = curve_of(plan, ((ROUND, 1),))
        with working_precision(plan.frame.precision_bits):
            found = curve.bounds(epsilon)
        low, high = lower_end(found.lower), upper_end(found.upper)
        assert low <= Fraction(str(truth)) + Fraction(1, 10**30)
        assert high >= Fraction(str(truth)) - Fraction(1, 10**30)
        if truth:
            assert float((high - low) / high) < 1e-8


@pytest.mark.parametrize(
    ("rate", "noise", "rounds", "epsilon"),
    [("1e-3", "0.6", 40, "1.2"), ("2e-4", "0.5", 8, "0.9"), ("1e-3", "0.45", 1, "1.5")],
)
def test_split_contour_agrees_with_plain(rate: str, noise: str, rounds: int, epsilon: str) -> None:
    composition = ((Mechanism(Fraction(rate), Fraction(noise)), rounds),)
    eps = Fraction(epsilon)
    exact = delta_interval(dict(composition), eps)
    goal = Goal(math.log(float(exact.upper)), float(eps))
    plan = make_split_plan(composition, goal, Effort())
    assert plan.frame.bulk_order is not None
    curve = curve_of(plan, composition)
    with working_precision(plan.frame.precision_bits):
        found = curve.bounds(eps)
    low, high = lower_end(found.lower), upper_end(found.upper)
    assert low <= exact.upper
    assert exact.lower <= high
    assert float((high - low) / high) < 1e-5


def test_bulk_and_plain_rounds_do_not_mix_on_one_frame() -> None:
    goal = Goal(math.log(1e-6), None)
    plan = make_plan(((ROUND, 5),), Direction.REMOVE, goal, Effort())
    frame = replace(plan.frame, bulk_order=40.0)
    with working_precision(frame.precision_bits), pytest.raises(CertificationError, match="bulk"):
        round_table(ROUND, frame, plan.shapes[ROUND])


def test_a_ball_that_holds_zero_keeps_its_modulus_only() -> None:
    frame = Frame(Direction.REMOVE, 1.0, 5.0, 1, 2.0, 64)
    with working_precision(64):
        vague = acb(arb(0, 0.25), arb(0, 0.25))
        table = RoundTable.of([acb(1), vague], arb(1), arb(1), arb(0))
        sharp = RoundTable.of([acb(1), acb(-0.5, 0.5)], arb(1), arb(1), arb(0))
        product = Product(frame)
        product.add(sharp, 3)
        product.add(table, 2)
        value = product.values()[1]
        # 3 rounds of modulus sqrt(1/2) and 2 of at most sqrt(1/8), in any direction
        assert value.contains(acb(0))
        assert 0.5**1.5 / 8 <= float(value.real.rad()) < 0.5**1.5 / 8 * 1.01


def test_branches_do_not_matter() -> None:
    frame = Frame(Direction.REMOVE, 1.0, 5.0, 3, 2.0, 128)
    with working_precision(128):
        points = [acb(-0.5, 1e-30), acb(-0.5, -1e-30), acb(0.1, -0.9), acb(-0.3, -0.4)]
        product = Product(frame)
        product.add(RoundTable.of(points, arb(1), arb(1), arb(0)), 7)
        for value, point in zip(product.values(), points, strict=True):
            assert value.overlaps(point**7)
            assert float((value - point**7).abs_upper()) < 1e-30


@pytest.mark.parametrize(
    "change", [{"order": -1.0}, {"alias_order": 0.5}, {"period": -2.0}, {"count": 0}]
)
def test_frames_without_a_meaning_are_refused(change: dict[str, float]) -> None:
    plan = make_plan(((ROUND, 5),), Direction.REMOVE, Goal(math.log(1e-6)), Effort())
    frame = replace(plan.frame, **change)  # type: ignore[arg-type]
    with working_precision(128), pytest.raises(CertificationError):
        ContourCurve.of(frame, [(round_table(ROUND, frame, plan.shapes[ROUND]), 5)])
