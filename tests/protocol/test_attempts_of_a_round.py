"""Of several attempts of one round, masked sums open at most one."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from privagg.protocol.messages import Consent, Refusal, Release, Statement, Upload
from privagg.secure.masked import scheme as schemes
from privagg.secure.masked.parameters import MaskedParameters
from tests.attacks.test_masked_sums import unbind
from tests.dishonest import Coordinator
from tests.protocol.test_unmasking import Stages, check, masked
from tests.simulator import Simulation

SEVEN = tuple("abcdefg")


def test_a_bound_round_has_no_further_attempt(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    coordinator = Coordinator(simulation)
    first = {site: coordinator.start(site, 1) for site in SEVEN}
    assert isinstance(coordinator.show("a", SEVEN).header, Release)
    said = coordinator.start("a", 2).header
    assert isinstance(said, Refusal)
    assert "bound to a list of attempt 1" in said.message
    assert simulation.charges("a") == 1
    again = coordinator.start("a", 1)
    assert again.to_bytes() == first["a"].to_bytes()
    assert isinstance(coordinator.start("b", 2).header, Upload)


def test_attempts_are_masked_in_rising_order_alone(tmp_path: Path) -> None:
    """Three that masked 2 before 1 could release for 1, and the other four for 2."""
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    coordinator = Coordinator(simulation)
    coordinator.start("a", 2)
    for site in SEVEN:
        said = coordinator.start(site, 1).header
        assert isinstance(said, Refusal) == (site == "a")
    assert simulation.charges("a") == 1
    said = coordinator.start("a", 1).header
    assert isinstance(said, Refusal)
    assert "round 1, attempt 2, of run" in said.message
    assert "comes too late" in said.message


GONE = {
    "before their consent": {"a": 0, "b": 1, "c": 1},
    "before their release": {"c": 2, "d": 2, "e": 2, "f": 2, "g": 2},
}
"""Who vanishes in the first attempt: too few consent; two release, where five have to."""


@pytest.mark.parametrize("when", GONE)
def test_an_attempt_that_failed_at_its_opening_is_made_again(tmp_path: Path, when: str) -> None:
    """Fresh masks, charged again; whoever released contributes to no further attempt."""
    simulation = masked(tmp_path, names=SEVEN, dropouts=2, colluders=2)
    stages = Stages(simulation)
    stages.gone = GONE[when]
    first = simulation.round(1)
    assert first.outcome == "stopped"
    assert "a new attempt may be made" in first.reason
    assert not first.opening_asked
    released = {name for name, number in stages.released if number == 1}
    assert released == ({"a", "b"} if "release" in when else set())
    stages.gone = {}
    again = simulation.round(1, attempt=2)
    assert check(simulation, again), again.reason
    assert {*again.survivors} == {*SEVEN} - released
    for name in released:
        assert "bound to a list of attempt 1, which may be opened yet" in again.refusals[name]
    charges = dict.fromkeys(SEVEN, 2) | dict.fromkeys(released or "a", 1)
    assert {name: simulation.charges(name) for name in SEVEN} == charges


def test_with_too_many_released_a_round_is_not_tried_again(tmp_path: Path) -> None:
    simulation = masked(tmp_path, names=SEVEN, dropouts=2, colluders=2)
    stages = Stages(simulation)
    stages.gone = {"d": 2, "e": 2, "f": 2, "g": 2}
    first = simulation.round(1)
    assert "3 released and contribute to no further attempt" in first.reason
    assert first.opening_asked
    charges = [simulation.charges(name) for name in SEVEN]
    stages.gone = {}
    again = simulation.round(1, attempt=2)
    assert again.outcome == "stopped"
    assert [simulation.charges(name) - was for name, was in zip(SEVEN, charges, strict=True)] == [
        0, 0, 0, 1, 1, 1, 1,
    ]  # fmt: skip


@pytest.mark.parametrize("rule", [True, False])
@pytest.mark.parametrize("few", [True, False])
def test_a_consent_binds_where_colluders_and_one_site_open_a_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: bool, rule: bool
) -> None:
    """Six consent and one of them releases, with a colluder; the rest is asked for a new attempt.

    Where a seed opens with c + 1 shares both sums are opened, were the consents not binding. With
    n - m + c + 1 the first stays closed, whatever is asked.
    """
    monkeypatch.setitem(schemes._OPTIONS, "always_consents", few)
    if not rule:
        monkeypatch.setattr(MaskedParameters, "binds_by_consent", False)
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    coordinator = Coordinator(simulation)
    for site in SEVEN:
        coordinator.start(site, 1)
    listed = SEVEN[:-1]
    agreed = consenting(coordinator, listed, listed)
    first = {site: coordinator.show(site, listed, agreed) for site in "ab"}
    assert (coordinator.unmask(listed, first).total is None) == (not few)
    unbind(simulation, "a")  # the colluder
    with closing(sqlite3.connect(tmp_path / "a-openings.sqlite")) as database, database:
        database.execute("DELETE FROM piece")
    again = {site: coordinator.start(site, 2).header for site in SEVEN}
    uploaded = tuple(site for site, header in again.items() if isinstance(header, Upload))
    assert uploaded == (("a", "g") if few and rule else tuple("acdefg"))
    if len(uploaded) < 6:
        return
    agreed = consenting(coordinator, uploaded, uploaded, attempt=2)
    second = {site: coordinator.show(site, uploaded, agreed, attempt=2) for site in uploaded}
    assert coordinator.unmask(uploaded, second, attempt=2).total is not None


def consenting(
    coordinator: Coordinator, sites: Sequence[str], listed: Sequence[str], attempt: int = 1
) -> list[Statement]:
    answers = [coordinator.show(site, listed, attempt=attempt) for site in sites]
    assert all(isinstance(each.header, Consent) for each in answers)
    return [each.statement for each in answers]
