"""Floating-point accountants below the proven epsilon, reproduced; and where they are right."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest

from privagg.privacy.certified import epsilon_interval
from tests.benchmarks.settings import Setting
from tests.vectors.peers import peers

# Found with dp-accounting 0.6.0 and Opacus 1.6.0, at their default discretisations.
UNDER_REPORTS = [
    ("dp_accounting_pld", Setting((("1e-4", "0.8", 100_000),), "1e-11")),
    ("opacus_prv", Setting((("0.05", "10", 30_000),), "1e-12")),
]


def peer_named(name: str) -> Callable[[Setting], float]:
    """Return a peer, or skip where it is not installed."""
    found = peers()
    if name not in found:
        pytest.skip(f"{name} is not installed")
    return found[name]


@pytest.mark.parametrize(("name", "setting"), UNDER_REPORTS)
def test_under_reports_are_reproduced(name: str, setting: Setting) -> None:
    interval = epsilon_interval(setting.composition(), setting.delta)
    assert Fraction(peer_named(name)(setting)) < interval.lower * Fraction(995, 1000)


@pytest.mark.parametrize(
    "setting",
    [Setting((("0.01", "1", 1000),), "1e-5"), Setting((("1", "17.45", 30),), "1e-4")],
)
def test_at_moderate_delta_the_discretised_accountant_lies_just_above(setting: Setting) -> None:
    interval = epsilon_interval(setting.composition(), setting.delta)
    value = Fraction(peer_named("dp_accounting_pld")(setting))
    assert interval.lower <= value <= interval.upper * Fraction(1001, 1000)
