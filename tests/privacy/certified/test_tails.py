"""Bounds on discarded nodes against explicit sums over them."""

from __future__ import annotations

import math

import pytest
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.privacy.certified import tails
from privagg.privacy.certified.balls import ball, working_precision
from privagg.privacy.certified.window import Law, Window

STEP = 0.25


def explicit(law: Law, power: arb, window: Window, nodes: list[float]) -> arb:
    """Return step * sum phi(u) V(u)^power W(u) over the nodes."""
    total = arb(0)
    for node in nodes:
        u = arb(node)
        value = (power * law.log_ratio(u) - u * u / 2).exp() / (2 * arb.pi()).sqrt()
        if not window.is_open:
            value *= window.on_real_line(u)
        total += value
    return arb(STEP) * total


@given(
    rate=st.floats(1e-4, 0.9),
    noise=st.floats(0.4, 60.0),
    order=st.floats(0.5, 400.0),
    start=st.floats(4.0, 12.0),
    edge=st.sampled_from([math.inf, 3.0, 4.0]),
    blur=st.sampled_from([1.0, 0.5, 0.2]),
)
@settings(max_examples=60, deadline=None)
def test_remove_tails_bound_their_sums(
    rate: float, noise: float, order: float, start: float, edge: float, blur: float
) -> None:
    with working_precision(128):
        law = Law(ball(rate), 1 / ball(noise))
        window = Window(high=edge, blur=blur)
        last = start + (order + 1) / noise + 40.0
        right = [start + STEP * n for n in range(1, int((last - start) / STEP))]
        bound = tails.remove_right(law, ball(order), window, ball(start), ball(STEP))
        assert explicit(law, ball(order) + 1, window, right) <= bound
        left = [-start - STEP * n for n in range(1, 120)]
        bound = tails.remove_left(law, ball(order), window, ball(-start))
        assert explicit(law, ball(order) + 1, window, left) <= bound
        inner = Window(low=2.0, high=edge, blur=blur)
        bound = tails.remove_left(law, ball(order), inner, ball(-start))
        assert explicit(law, ball(order) + 1, inner, left) <= bound


@given(
    rate=st.floats(1e-4, 0.9),
    noise=st.floats(0.4, 60.0),
    order=st.floats(0.5, 2000.0),
    start=st.floats(2.0, 14.0),
)
@settings(max_examples=60, deadline=None)
def test_add_tails_bound_their_sums(rate: float, noise: float, order: float, start: float) -> None:
    with working_precision(128):
        law = Law(ball(rate), 1 / ball(noise))
        reach = start + order * rate / noise + 40.0
        far = [start + STEP * n for n in range(1, int((reach - start) / STEP))]
        bound = tails.add_right(law, ball(order), ball(start))
        assert explicit(law, -ball(order), Window(), far) <= bound
        bound = tails.add_left(law, ball(order), ball(-start), ball(STEP))
        assert explicit(law, -ball(order), Window(), [-u for u in far]) <= bound


def test_bounds_are_not_absurdly_loose() -> None:
    with working_precision(128):
        law = Law(ball(0.01), arb(1))
        nodes = [10 + STEP * n for n in range(1, 200)]
        bound = tails.remove_right(law, arb(5), Window(), arb(10), ball(STEP))
        assert float(bound) < 100 * float(explicit(law, arb(6), Window(), nodes))


@pytest.mark.parametrize("start", [3.0, 5.9])
def test_a_start_inside_the_window_is_not_bounded(start: float) -> None:
    with working_precision(128):
        law = Law(ball(0.01), arb(1))
        bound = tails.remove_right(law, arb(5), Window(high=6.0), ball(start), ball(STEP))
        assert not bound.is_finite()


def test_cut_mass_is_what_the_window_removes() -> None:
    with working_precision(128):
        law, window = Law(ball(0.2), arb(2)), Window(high=2.5, blur=0.5)
        nodes = [-12 + 0.01 * n for n in range(2600)]
        kept = sum(float(explicit(law, arb(1), window, [node])) / STEP * 0.01 for node in nodes)
        assert math.isclose(1 - kept, float(window.cut_mass(law)), rel_tol=1e-6)
