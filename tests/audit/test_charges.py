"""Epsilon is recomputed: an owner who signs a false one with everything else right is found."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.audit import Brought, Methods, verify_bundle
from privagg.audit.charges import ALL_UP_TO, RATIO, agrees, spread
from privagg.privacy.accountant import EpsilonBound
from tests.audit.conftest import failures
from tests.benchmarks.verify import make


def test_an_owner_who_understates_epsilon_is_found(methods: Methods) -> None:
    honest = verify_bundle(make(4), Brought(methods=methods))
    assert honest.holds, failures(honest)
    false = make(4, understated={1: Decimal("0.01"), 2: Decimal("0.02"), 3: Decimal("0.03")})
    made = verify_bundle(false, Brought(methods=methods))
    assert "records ε = 0.01" in failures(made)
    last = make(4, understated={3: Decimal("0.2")})
    assert "records ε = 0.2" in failures(verify_bundle(last, Brought(methods=methods)))


def test_an_overstated_epsilon_is_not_what_was_computed_either(methods: Methods) -> None:
    made = verify_bundle(make(2, understated={1: Decimal(5)}), Brought(methods=methods))
    assert "records ε = 5" in failures(made)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20_000))
def test_charges_are_spread_in_small_steps_up_to_the_last(count: int) -> None:
    chosen = spread(count)
    assert chosen[0] == 0
    assert chosen[-1] == count - 1
    assert chosen == sorted(set(chosen))
    if count <= ALL_UP_TO:
        assert len(chosen) == count
    assert all(b <= max(a + 1, a * RATIO + 1) for a, b in pairwise(chosen))


@pytest.mark.parametrize(
    ("claimed", "fits"),
    [("1.0000001", True), ("1.00001", False), ("0.9999999", False), ("Infinity", False)],
)
def test_what_agrees_with_a_proven_interval(claimed: str, fits: bool) -> None:
    bound = EpsilonBound(Decimal(1), Decimal("0.99999999"), "contour", certified=True)
    assert agrees(Decimal(claimed), bound) is fits
