"""Questions over Flower: every party answers them by the plan that its own configuration gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from privagg import Federation
from privagg.audit.verify import Brought, verify_file
from privagg.errors import ApprovalError, CohortError, ResumeError
from privagg.privacy.ledger.entries import Charge
from privagg.privacy.randomness import DeterministicRandomness
from privagg.run.listing import runs_at
from privagg.run.local import Run
from tests.approvals import approved, approved_trial
from tests.faults import Fragile, Killed
from tests.flower.conftest import World
from tests.flower.heart import SEED, SITES, make_deployment, write_federation
from tests.flower.test_lead import ledger_of

ASKED = """
[ask]
epsilon = 3

[[questions]]
name = "patients"
kind = "count"
by = ["cp"]

[[questions]]
name = "age"
kind = "mean"
of = "age"
"""
JOB = "questions"
pytestmark = pytest.mark.usefixtures("no_page")


@pytest.fixture
def asking(tmp_path: Path) -> World:
    """A deployment whose questions are approved beside its training."""
    config = write_federation(tmp_path, rounds=1, scheme="plaintext")
    config.write_text(config.read_text() + ASKED)
    trial = make_deployment(config, tmp_path / "parties")
    return World(approved_trial(trial, JOB), config)


def charges(world: World, site: str) -> list[Charge]:
    entries = ledger_of(world, site).entries()
    return [entry.payload for entry in entries if isinstance(entry.payload, Charge)]


def test_the_same_answers_as_in_one_process_and_training_goes_on_beside(
    asking: World, tmp_path: Path
) -> None:
    result = asking.lead("asked", job=JOB)
    assert (result.outcome, result.missing) == ("finished", {})
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds
    local = Federation.from_toml(write_local(tmp_path / "local"))
    approved(local).approve(
        who="t", why="a test", job=JOB, without_guarantee=True, overlaps="a test"
    )
    alone = Run(local.asking, DeterministicRandomness(SEED), "asked").drive(None)
    assert result.answers is not None
    assert alone.answers is not None
    assert result.answers.read_bytes() == alone.answers.read_bytes()
    trained = asking.lead("trained")
    assert trained.outcome == "finished"
    assert trained.bundle is not None
    assert verify_file(trained.bundle, Brought()).holds
    assert [charge.run for charge in charges(asking, "va")] == ["asked", "trained"]
    listed = {row.name: row.program for row in runs_at(asking.trial.coordinator.party.root)}
    assert listed == {"asked": "questions", "trained": ""}


def write_local(folder: Path) -> Path:
    folder.mkdir()
    config = write_federation(folder, rounds=1, scheme="plaintext")
    config.write_text(config.read_text() + ASKED)
    return config


@pytest.mark.parametrize(("lives", "before"), [(1, True), (1, False), (2, True), (2, False)])
def test_a_killed_coordinator_asks_nothing_twice(asking: World, lives: int, before: bool) -> None:
    with pytest.raises(Killed):
        asking.lead("cut", Fragile(asking.transport("cut", JOB), lives, before=before), job=JOB)
    with pytest.raises((ResumeError, CohortError)):
        asking.lead("cut")  # as training
    result = asking.lead("cut", job=JOB)
    assert (result.outcome, result.missing) == ("finished", {})
    assert result.answers is not None
    for name in SITES:
        assert len(charges(asking, name)) == 1


def test_sites_that_approved_only_the_training_are_not_asked(tmp_path: Path) -> None:
    config = write_federation(tmp_path, rounds=1, scheme="plaintext")
    config.write_text(config.read_text() + ASKED)
    world = World(make_deployment(config, tmp_path / "parties"), config)
    with pytest.raises((ApprovalError, CohortError), match="approv"):
        world.lead("asked", job=JOB)
    assert not any(charges(world, name) for name in SITES)
