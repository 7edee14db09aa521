"""Facts over Flower: asked before there is a plan to train by, then the same parties train."""

from __future__ import annotations

from pathlib import Path

import pytest

from privagg import Federation
from privagg.audit.verify import Brought, verify_file
from privagg.config.proposed import with_proposed
from privagg.errors import ApprovalError, CohortError, ConfigError, DeploymentError
from privagg.flower.deploy.join import Agreement
from privagg.flower.deploy.trial import Trial, make_trial
from privagg.party.standing import standing
from privagg.privacy.ledger.entries import Charge
from privagg.privacy.randomness import DeterministicRandomness
from privagg.run.local import Run
from tests.approvals import approved_trial
from tests.flower.conftest import World
from tests.flower.heart import SEED, SITES, write_federation
from tests.flower.test_lead import ledger_of

FACTS = """
[facts]
epsilon = 8

[[facts.columns]]
name = "age"
kind = "number"
"""
JOB = "facts"
pytestmark = pytest.mark.usefixtures("no_page")


def undeclared(folder: Path) -> Path:
    """A configuration whose columns nobody has declared; its target alone is."""
    folder.mkdir(exist_ok=True)
    config = write_federation(folder, rounds=1, scheme="plaintext")
    text = config.read_text()
    start, end = text.index("features = ["), text.index("[data.target]")
    config.write_text(text[:start] + text[end:] + FACTS)
    return config


def trial_of(config: Path, root: Path, *, replace: bool = False) -> Trial:
    agreement = Agreement.of(Federation.from_toml(config).setup, config)
    return make_trial(root, config, agreement, replace=replace)


def asked(folder: Path) -> World:
    """A deployment that agrees on nothing but what to ask, approved."""
    config = undeclared(folder)
    return World(approved_trial(trial_of(config, folder / "parties"), JOB), config)


def runs_charged(world: World, site: str) -> list[str]:
    entries = ledger_of(world, site).entries()
    found = [entry.payload.run for entry in entries if isinstance(entry.payload, Charge)]
    return list(dict.fromkeys(found))


def test_what_one_process_proposes_is_proposed_and_then_the_same_parties_train(
    tmp_path: Path,
) -> None:
    world = asked(tmp_path)
    result = world.lead("asked", job=JOB)
    assert (result.outcome, result.missing) == ("finished", {})
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds
    local = Federation.from_toml(undeclared(tmp_path / "local"))
    local.approve(who="t", why="a test", job=JOB, without_guarantee=True)
    alone = Run(local.beside(JOB), DeterministicRandomness(SEED), "asked").drive(None)
    assert result.answers is not None
    assert alone.answers is not None
    assert result.answers.read_bytes() == alone.answers.read_bytes()
    with pytest.raises(ConfigError, match="no column is declared yet"):
        world.lead("early")

    federation = Federation.from_toml(world.config)
    sections = federation.proposed(result)
    world.config.write_text(with_proposed(world.config.read_text(), sections))
    with pytest.raises(ConfigError, match="join again"):  # an agreed file is not exchanged silently
        world.lead("early")
    with pytest.raises(DeploymentError, match="the plan, the configuration"):
        trial_of(world.config, tmp_path / "parties")
    before = {name: one.party.identity().public_hex for name, one in world.trial.parties.items()}
    trial = trial_of(world.config, tmp_path / "parties", replace=True)
    after = {name: one.party.identity().public_hex for name, one in trial.parties.items()}
    assert after == before
    after_facts = World(approved_trial(trial), world.config)
    trained = after_facts.lead("trained")
    assert trained.outcome == "finished"
    assert trained.bundle is not None
    assert verify_file(trained.bundle, Brought()).holds
    assert runs_charged(after_facts, "va") == ["asked", "trained"]
    assert standing(trial.parties["va"].party).refusal == ""


def test_facts_that_nobody_approved_are_not_asked(tmp_path: Path) -> None:
    config = undeclared(tmp_path)
    world = World(trial_of(config, tmp_path / "parties"), config)
    assert "approved nothing" in standing(world.trial.parties["va"].party).refusal
    with pytest.raises((ApprovalError, CohortError), match="approv"):
        world.lead("asked", job=JOB)
    assert not any(runs_charged(world, name) for name in SITES)


def test_a_deployment_that_trains_is_not_asked_for_facts_it_does_not_name(tmp_path: Path) -> None:
    config = write_federation(tmp_path, rounds=1, scheme="plaintext")
    world = World(approved_trial(trial_of(config, tmp_path / "parties")), config)
    with pytest.raises(ConfigError, match="asks for no facts; write"):
        world.lead("asked", job=JOB)
    assert not any(runs_charged(world, name) for name in SITES)
