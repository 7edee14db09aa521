"""A run submitted to a deployment's SuperLink and followed to its end, from the coordinator.

Flower is told which of our apps to start, and nothing else. How the run ended is read from
what the coordinator wrote down; Flower's own word counts only where it says that the app died.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privagg.config.setup import TRAINING
from privagg.errors import ConfigError, DeploymentError
from privagg.flower.bridge.transport import Patience
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.superlink import state_of, submit
from privagg.flower.lead import RESULT_NAME, ROUNDS_NAME, read_lines
from privagg.party.open import open_federation
from privagg.run.local import new_run_id

SERVER_APP, CLIENT_APP = (
    "privagg.flower.apps:server_app",
    "privagg.flower.apps:client_app",
)
POLL_SECONDS = 1.0
STATUS_POLLS = 30
"""Polls of our own files between two questions to Flower, each of which starts a process."""

_MANIFEST = """\
[project]
name = "privagg-run"
version = "1.0.0"
description = "A run of privagg; brings no code, names what every party installed itself"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "privagg"

[tool.flwr.app.components]
serverapp = {server}
clientapp = {client}

[tool.flwr.app.config]
run = ""
job = ""
answer-seconds = 600.0
absent-seconds = 60.0
"""


@dataclass(frozen=True)
class Apps:
    """Which apps Flower is to start.

    Args:
        server: `module:attribute` at the coordinator.
        client: `module:attribute` at every other party.
    """

    server: str = SERVER_APP
    client: str = CLIENT_APP


def write_app(folder: Path, apps: Apps | None = None) -> Path:
    """Write the Flower app that stands for a run: one file, no code.

    Args:
        folder: is made where it does not exist.
        apps: which apps to name; ours by default.
    """
    named = apps or Apps()
    folder.mkdir(parents=True, exist_ok=True)
    text = _MANIFEST.format(server=json.dumps(named.server), client=json.dumps(named.client))
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Submitted:
    """A run under way.

    Args:
        folder: the coordinator's.
        run: our identifier.
        flower_run: Flower's number.
        reported: attempts that were reported before, where a run is resumed.
    """

    folder: FlowerFolder
    run: str
    flower_run: int
    reported: int = 0


def submit_run(
    folder: FlowerFolder,
    *,
    resume: str | None = None,
    patience: Patience | None = None,
    apps: Apps | None = None,
    job: str = TRAINING,
) -> Submitted:
    """Submit a run to the SuperLink of a deployment.

    Args:
        folder: the coordinator's, whose SuperLink is running.
        resume: identifier of a run to resume; a fresh one by default.
        patience: how long the coordinator waits for the parties.
        apps: which apps to name; ours by default.
        job: which of the configuration's jobs.

    Raises:
        ConfigError: there is no run to resume, or the configuration has no such job.
        DeploymentError: the SuperLink cannot be reached, or refuses the app.
    """
    if resume is not None and not (folder.party.run_folder(resume) / "state.json").exists():
        raise ConfigError(f"there is no run {resume!r} to resume in {folder.party.output}")
    run = resume or new_run_id(open_federation(folder.party, job))
    (folder.party.run_folder(run) / RESULT_NAME).unlink(missing_ok=True)
    reported = len(read_lines(folder.party.run_folder(run) / ROUNDS_NAME, 0))
    waits = patience or Patience()
    settings: dict[str, str | int | float] = {
        "run": run,
        "job": job,
        "answer-seconds": float(waits.answer_seconds),
        "absent-seconds": float(waits.absent_seconds),
    }
    with tempfile.TemporaryDirectory(prefix="privagg-app-") as place:
        number = submit(folder, write_app(Path(place) / "app", apps), settings)
    return Submitted(folder, run, number, reported)


def follow_run(
    submitted: Submitted,
    on_round: Callable[[dict[str, Any]], None] | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Wait until a run has ended, reporting each round; how it ended, as the coordinator wrote it.

    Args:
        submitted: the run.
        on_round: called with the facts of each attempt at a round.
        sleep: lets seconds pass.

    Raises:
        DeploymentError: Flower says that the run is over, but the coordinator wrote no result.
    """
    output = submitted.folder.party.run_folder(submitted.run)
    seen, polls, over = submitted.reported, 0, ""
    while True:
        for facts in read_lines(output / ROUNDS_NAME, seen):
            seen += 1
            if on_round is not None:
                on_round(facts)
        if (output / RESULT_NAME).exists():
            found: dict[str, Any] = json.loads((output / RESULT_NAME).read_bytes())
            return found
        if over:
            raise DeploymentError(
                f"Flower ended run {submitted.flower_run} ({over}) and the coordinator wrote no "
                f"result; see {submitted.folder.logs}. Resume with: --resume {submitted.run}"
            )
        polls += 1
        if polls % STATUS_POLLS == 0:
            state = state_of(submitted.folder, submitted.flower_run)
            over = f"{state.status} {state.details}".strip() if state.over else ""
        sleep(POLL_SECONDS)
