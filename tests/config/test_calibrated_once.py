"""Noise is calibrated once a configuration, and no need takes another's."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from privagg import Federation
from privagg.config import asking
from privagg.config.asking import AskSetup
from privagg.config.schema import Config, parse_config
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.events import DpEvent
from tests.run.test_scorecard_asking import CONFIG


def read(**changes: dict[str, Any]) -> Config:
    values = tomllib.loads(CONFIG)
    for section, settings in changes.items():
        values[section] |= settings
    return parse_config(values)


def asked(config: Config | None = None) -> AskSetup:
    return AskSetup.of(Federation(config or read()).setup)


@pytest.fixture
def calibrations(monkeypatch: pytest.MonkeyPatch) -> list[Decimal]:
    """The target of each calibration that is made."""
    made: list[Decimal] = []
    genuine: Callable[..., Decimal] = asking.calibrate

    def counted(event_of: Any, *, epsilon: Decimal, **settings: Any) -> Decimal:
        made.append(epsilon)
        return genuine(event_of, epsilon=epsilon, **settings)

    monkeypatch.setattr(asking, "calibrate", counted)
    return made


def test_whoever_comes_later_takes_the_same_noise(calibrations: list[Decimal]) -> None:
    first = asked()
    plan = first.plan
    assert len(calibrations) == 1
    again = AskSetup.of(first)
    assert again.plan.digest == plan.digest
    assert AskSetup.of(first.with_config(read())).plan.digest == plan.digest
    assert len(calibrations) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"ask": {"epsilon": 1}},
        {"privacy": {"delta": 1e-5}},
        {"privacy": {"colluders": 1}},
        {"privacy": {"dropouts": 1}},
        {"ask": {"settings": {"ordered": ["delay"], "openings": 2}}},
    ],
    ids=lambda changes: str(changes),
)
def test_another_need_has_noise_of_its_own(
    changes: dict[str, dict[str, Any]], calibrations: list[Decimal]
) -> None:
    """The memo goes along with the configuration; each plan is the one of a fresh process."""
    first, other = asked(), read(**changes)
    before = first.plan
    beside = AskSetup.of(first.with_config(other)).plan
    assert len(calibrations) == 2
    assert beside.digest == asked(other).plan.digest
    assert beside.digest != before.digest


class Doubling:
    """Takes twice what the usual accountant says."""

    name = "doubling"

    def __init__(self) -> None:
        self.usual = asked().accountant

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        bound = self.usual.epsilon(event, delta)
        return replace(bound, upper=2 * bound.upper, lower=2 * bound.lower)


def test_another_accountant_takes_no_noise_of_the_first(calibrations: list[Decimal]) -> None:
    first = asked()
    multipliers = []
    for setup in (first, replace(first, accountant=Doubling())):
        plan = AskSetup.of(setup).plan
        multipliers.append(plan.openings[0].noise_multiplier)
        assert setup.accountant.epsilon(plan.total_committed("north"), plan.delta).upper <= 2
    assert len(calibrations) == 2
    assert multipliers[1] > multipliers[0]
