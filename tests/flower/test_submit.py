"""A run submitted and followed: judged by what its coordinator wrote, never by Flower's word."""

from __future__ import annotations

import io
import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from privagg.cli.app import app
from privagg.errors import ConfigError, DeploymentError, PrivaggError
from privagg.flower import submit as submitting
from privagg.flower.bridge.guard import check_app
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.superlink import RunState
from privagg.flower.lead import RESULT_NAME, ROUNDS_NAME, report_of
from privagg.flower.submit import Submitted, follow_run, submit_run, write_app
from privagg.party.folder import PartyFile, PartyFolder
from tests.flower.heart import write_federation

ROUND: dict[str, Any] = {
    "round": 1, "attempt": 1, "outcome": "opened", "reason": "", "cohort": ["a", "b"],
    "survivors": ["a"], "refusals": {"b": "gone"}, "metrics": {"accuracy": 0.5},
    "bytes_up": {"a": 7}, "bytes_down": {"a": 8}, "upload_bytes": {"a": 6},
    "exchanges": 2, "seconds": {"add": 0.1},
    "opening_asked": True, "committed": {"a": "0.25", "b": "Infinity"},
}  # fmt: skip


@pytest.fixture
def submitted(tmp_path: Path) -> Submitted:
    party = PartyFolder.create(tmp_path / "coordinator", PartyFile(name="coordinator"))
    party.run_folder("run-1").mkdir(parents=True)
    return Submitted(FlowerFolder(party), "run-1", 42)


def test_the_app_brings_no_code_and_is_let_in_at_every_node(tmp_path: Path) -> None:
    folder = write_app(tmp_path / "app")
    assert [path.name for path in folder.iterdir()] == ["pyproject.toml"]
    text = (folder / "pyproject.toml").read_text()
    assert tomllib.loads(text)["project"]["dependencies"] == []
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("pyproject.toml", text)
    assert len(check_app(archive.getvalue(), ())) == 64


def test_rounds_are_told_as_they_come_and_the_result_is_the_coordinators(
    submitted: Submitted,
) -> None:
    output = submitted.folder.party.run_folder("run-1")
    line = json.dumps(ROUND)
    steps = iter(
        [
            lambda: (output / ROUNDS_NAME).write_text(f"{line}\n{line[:20]}"),
            lambda: (output / ROUNDS_NAME).write_text(f"{line}\n{line}\n"),
            lambda: (output / RESULT_NAME).write_text('{"outcome": "stopped"}'),
        ]
    )
    told: list[dict[str, Any]] = []
    result = follow_run(submitted, told.append, sleep=lambda seconds: next(steps)())
    assert result == {"outcome": "stopped"}
    assert told == [ROUND, ROUND]
    report = report_of(told[0])
    assert report.outcome.survivors == ("a",)
    assert report.outcome.refusals == {"b": "gone"}


def test_a_dead_coordinator_is_no_success_whatever_flower_says(
    submitted: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = RunState(42, "finished:completed", "", "privagg/privagg-run")
    monkeypatch.setattr(submitting, "state_of", lambda folder, run: state)
    with pytest.raises(DeploymentError, match=r"wrote no result.*--resume run-1"):
        follow_run(submitted, sleep=lambda seconds: None)


def test_only_a_run_that_was_begun_can_be_resumed(submitted: Submitted) -> None:
    with pytest.raises(ConfigError, match="no run 'run-2' to resume"):
        submit_run(submitted.folder, resume="run-2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--runtime", "moon"], "local or flower"),
        (["--deployment", "x"], "belongs to --runtime flower"),
        (["--app", "x"], "belong to --runtime flower"),
        (["--resume", "x"], "there is no run 'x' to go on with"),
        (["--runtime", "flower", "--deployment", "nowhere"], "holds no trial"),
    ],
)
def test_the_command_line_refuses_what_cannot_be(
    tmp_path: Path, options: list[str], words: str
) -> None:
    config = write_federation(tmp_path, scheme="plaintext")
    result = CliRunner().invoke(app, ["run", str(config), *options])
    assert isinstance(result.exception, PrivaggError)
    assert words in str(result.exception)
