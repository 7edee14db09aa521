"""The Flower example as its README has it, between real processes: and its coordinator is killed.

The strategy's second round is under way when the coordinator's app goes down; the run is resumed by
`privagg run --resume`. In one process, with the same randomness and nobody killed, the app must
end with the same model bytes, and every site is charged once a round in both.
"""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from privagg.flower.app_runs import AppArchive, submit_app
from privagg.flower.deploy import processes as parts
from privagg.flower.deploy.trial import Trial
from privagg.party import open as opening
from privagg.party.folder import PartyFolder
from privagg.protocol.names import COORDINATOR
from tests.commands import call
from tests.flower.deterministic_app import known
from tests.flower.test_deployment import ledger_of, supervised
from tests.test_flower_heart import EXAMPLE, Hospitals, short_configuration


@pytest.mark.deployment
@pytest.mark.timeout(900)
def test_the_example_runs_as_its_guide_says_and_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home := tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLE.parents[1]))  # where `tests` is, for RESIDENT
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "RESIDENT", "tests.flower.deterministic_app")
    trial = make_trial_by_commands()
    with supervised(trial) as deployment:
        archive = AppArchive.at(Path("app"))
        begun = submit_app(trial.coordinator, archive, settings="num-server-rounds=2")
        note = deployment.wait_held_back("hungarian")
        deployment.kill(COORDINATOR, "apps")
        note.unlink()
        code, out, err = call(
            "run", "app/flower_heart.toml", "--runtime", "flower", "--deployment", "trial",
            "--run-config", "num-server-rounds=2", "--resume", begun.run, "--json",
        )  # fmt: skip
    assert code == 0, err
    *rounds, result = [json.loads(line) for line in out.splitlines()]
    assert [line["round"] for line in rounds] == [2]
    assert (result["run"], result["outcome"], result["missing"]) == (begun.run, "finished", {})
    charges = [[e.kind for e in ledger_of(trial, name).entries()] for name in sites(trial)]
    assert [kinds.count("charge") for kinds in charges] == [2] * 4
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert Path(result["model"]).read_bytes() == undisturbed(tmp_path, begun.run, monkeypatch)


def make_trial_by_commands() -> Trial:
    """The guide's commands before `up`; the deterministic source is charged as what it is."""
    shutil.copytree(EXAMPLE, "app", ignore=shutil.ignore_patterns("out", "__pycache__"))
    config = Path("app/flower_heart.toml")
    config.write_text(short_configuration(budget="inf"))
    runpy.run_path("app/prepare.py")["prepare"](Path("app/out/data"))
    for words in (
        ("deploy", "trial", config, "trial"),
        ("approve", config, "--all-sites", "--deployment", "trial", "--without-guarantee", "-y"),
        ("deploy", "approve", "trial", "app", "--why", "read for the test"),
    ):
        code, _, err = call(*words)
        assert code == 0, err
    return Trial.at(Path("trial").resolve())


def sites(trial: Trial) -> list[str]:
    return [name for name in trial.parties if name not in (COORDINATOR, "key-holder")]


def undisturbed(folder: Path, run: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The model of the same run in one process."""
    plain = opening.open_node

    def open_known(party: PartyFolder) -> object:
        return known(plain(party))

    monkeypatch.setattr(opening, "open_node", open_known)
    monkeypatch.setattr("privagg.flower.strategy_run.new_run_id", lambda setup: run)
    (folder / "undisturbed").mkdir()
    hospitals = Hospitals(folder / "undisturbed", monkeypatch, budget="inf")
    hospitals.run(steps=20)
    assert hospitals.charges() == [2] * 4
    return (hospitals.output / "model.safetensors").read_bytes()
