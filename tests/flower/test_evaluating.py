"""Private evaluation over Flower: of the model whose bytes every owner approved, no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg import Federation
from privagg.audit.verify import Brought, verify_file
from privagg.errors import ApprovalError, CohortError, ConfigError
from privagg.privacy.ledger.entries import Charge
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.evaluation import Evaluation
from privagg.run.local import Run
from privagg.training.models import get_parameters
from privagg.training.saving import load_model, save_model
from tests.approvals import approved, approved_trial
from tests.flower.conftest import World
from tests.flower.heart import EVALUATION, SEED, SITES, make_deployment, write_federation
from tests.flower.test_lead import ledger_of

PRIVATE = """
[evaluation]
private = true
epsilon = 3
held_out = 0.3
"""
JOB = "evaluation"
pytestmark = pytest.mark.usefixtures("no_page")


def federation_in(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    config = write_federation(folder, rounds=1, scheme="plaintext")
    config.write_text(config.read_text().replace(EVALUATION, PRIVATE))
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, no_page: None) -> World:
    """A deployment that has trained and opened its model."""
    root = tmp_path_factory.mktemp("e")
    config = federation_in(root)
    world = World(make_deployment(config, root / "parties"), config)
    assert world.lead("trained").outcome == "finished"
    return world


def model_of(world: World) -> Path:
    return next(world.trial.coordinator.party.run_folder("trained").glob("*.safetensors"))


def other_model(world: World, path: Path) -> Path:
    """One of the same shape that no run released."""
    federation = Federation.from_toml(world.config)
    model = load_model(federation.setup.fresh_model(), model_of(world))
    save_model(model, get_parameters(model) + 1, path)
    return path


def charged(world: World, run: str) -> list[str]:
    def runs(site: str) -> list[str]:
        entries = ledger_of(world, site).entries()
        return [entry.payload.run for entry in entries if isinstance(entry.payload, Charge)]

    return [site for site in SITES if run in runs(site)]


def test_a_model_that_no_owner_approved_is_not_evaluated(made: World) -> None:
    for name, folder in made.trial.parties.items():
        folder.party.evaluated.unlink(missing_ok=True)
        if name == "coordinator":
            folder.party.evaluated.write_bytes(model_of(made).read_bytes())
    with pytest.raises(CohortError, match="is none of this party's"):
        made.lead("nowhere", job=JOB)
    for folder in made.trial.parties.values():
        folder.party.evaluated.write_bytes(model_of(made).read_bytes())
    with pytest.raises((ApprovalError, CohortError), match="approv"):
        made.lead("unapproved", job=JOB)
    assert not charged(made, "nowhere")
    assert not charged(made, "unapproved")


def evaluated(made: World, run: str) -> Path:
    """An evaluation that everybody approved; its answers."""
    approved_trial(made.trial, JOB, model_of(made))
    result = made.lead(run, job=JOB)
    assert (result.outcome, result.missing) == ("finished", {})
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds
    assert charged(made, run) == list(SITES)
    assert result.answers is not None
    return result.answers


def test_what_every_owner_approved_is_evaluated_and_charged(made: World) -> None:
    assert evaluated(made, "first").exists()


@pytest.mark.nightly
def test_the_same_figures_as_in_one_process(made: World, tmp_path: Path) -> None:
    answers = evaluated(made, "evaluated")
    local = approved(Federation.from_toml(federation_in(tmp_path / "local")))
    trained = Run(local.setup, DeterministicRandomness(SEED), "trained").drive(None)
    assert trained.model is not None
    assert trained.model.read_bytes() == model_of(made).read_bytes()
    local.approve(who="t", why="a test", job=JOB, without_guarantee=True, overlaps="a test")
    alone = Run(local.evaluating, DeterministicRandomness(SEED), "evaluated").drive(None)
    assert alone.answers is not None
    assert answers.read_bytes() == alone.answers.read_bytes()


def test_other_bytes_are_refused_by_name_before_any_charge(
    made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved_trial(made.trial, JOB, model_of(made))
    other = other_model(made, tmp_path / "other.safetensors")
    for name in SITES:
        made.trial.parties[name].party.evaluated.write_bytes(other.read_bytes())
    with pytest.raises(CohortError, match="evaluation of the model with SHA-256"):
        made.lead("other", job=JOB)
    made.trial.parties["va"].party.evaluated.write_bytes(b"no model at all")
    with pytest.raises(CohortError, match="none for evaluation"):
        made.lead("damaged", job=JOB)
    for name in SITES:
        made.trial.parties[name].party.evaluated.write_bytes(model_of(made).read_bytes())
    honest = Evaluation.begin

    def other_parameters(program: Evaluation) -> Any:
        return np.asarray(honest(program)) + 1

    monkeypatch.setattr(Evaluation, "begin", other_parameters)
    result = made.lead("lied", job=JOB)
    assert result.outcome == "stopped"
    refusals = result.rounds[-1].outcome.refusals
    assert all("brings a model whose parameters" in refusals[site] for site in SITES)
    assert not [run for run in ("other", "damaged", "lied") if charged(made, run)]


def test_the_coordinator_evaluates_only_what_a_run_released(made: World, tmp_path: Path) -> None:
    coordinator = made.trial.coordinator.party
    coordinator.evaluated.write_bytes(
        other_model(made, tmp_path / "other.safetensors").read_bytes()
    )
    with pytest.raises(ConfigError, match="only a model that was opened is evaluated"):
        made.lead("strange", job=JOB)
    coordinator.evaluated.write_bytes(model_of(made).read_bytes())
