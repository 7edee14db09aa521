"""The whole deployment as processes on loopback: TLS, node keys, four SuperNodes, a key holder.

One run of five rounds; in three of them a site misbehaves or dies. The same run in one process,
from which the same contributions are kept away, must end with the same model bytes and ledgers.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privagg import Federation
from privagg.audit.verify import Brought, verify_file
from privagg.deployment import parts
from privagg.deployment.layout import PartyFolder
from privagg.deployment.supervisor import Supervisor
from privagg.deployment.trial import Trial, up
from privagg.distributed.submitting import Apps, follow_run, submit_run
from privagg.identity import Roster
from privagg.messages import RoundStart, read_message
from privagg.privacy.ledger import Ledger
from privagg.privacy.randomness import DeterministicRandomness
from privagg.running.local import Run
from privagg.runtime.flower.transport import Patience
from privagg.transport import Reply, Transport
from tests.distributed.deterministic import note_of
from tests.distributed.heart import SEED, SITES, make_deployment, write_federation
from tests.distributed.story import story

START_SECONDS = 300.0
PATIENCE = Patience(answer_seconds=60.0, absent_seconds=120.0)


class Kept:
    """A transport in one process from which some contributions are kept away.

    Args:
        lost: (round, site) whose answer is lost.
        unheard: (round, site) that is never asked.
    """

    def __init__(self, inner: Transport, roster: Roster, lost: set[Any], unheard: set[Any]) -> None:
        self._inner, self._roster = inner, roster
        self._lost, self._unheard = lost, unheard

    def post(self, frames: Mapping[str, bytes]) -> None:
        self._inner.post(frames)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[Reply]:
        header = read_message(next(iter(requests.values())), self._roster).header
        starts = isinstance(header, RoundStart)
        asked = {
            party: frame
            for party, frame in requests.items()
            if not (starts and (header.round, party) in self._unheard)
        }
        for reply in self._inner.exchange(asked):
            gone = starts and (header.round, reply.party) in self._lost
            yield replace(reply, data=None, problem="kept away") if gone else reply


@contextmanager
def supervised(trial: Trial) -> Iterator[Supervisor]:
    """The deployment's processes, watched as `privagg deploy up` watches them."""
    over = threading.Event()
    with up(trial, lambda message: None, seconds=START_SECONDS) as supervisor:

        def watch() -> None:
            while not over.wait(0.5):
                supervisor.check()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield supervisor
        finally:
            over.set()
            watcher.join()


def kill_node_when_noted(supervisor: Supervisor, folder: PartyFolder) -> threading.Thread:
    """Kill a party's SuperNode as soon as its process says that it is in the middle of a round."""

    def kill() -> None:
        while not note_of(folder).exists():
            time.sleep(0.1)
        for running in supervisor.running:
            if running.part.name == "node" and folder.root in running.part.log.parents:
                os.killpg(running.process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.deployment
@pytest.mark.timeout(1500)
def test_a_deployment_survives_and_gives_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "RESIDENT", "tests.distributed.deterministic")
    generator = DeterministicRandomness(SEED).name
    config = write_federation(tmp_path, rounds=5)
    trial = make_deployment(config, tmp_path / "p")
    with supervised(trial) as supervisor:
        submitted = submit_run(
            trial.coordinator,
            patience=PATIENCE,
            apps=Apps(server="tests.distributed.serverapp:server_app"),
        )
        killer = kill_node_when_noted(supervisor, trial.parties["cleveland"].party)
        rounds: list[dict[str, Any]] = []
        result = follow_run(submitted, rounds.append)
        killer.join(1)
    assert (result["outcome"], result["missing"]) == ("finished", {}), result
    check_outcomes(rounds)
    report = json.loads(Path(result["report_json"]).read_text())
    assert report["generator"] == generator
    told = {r["round"]: {f["site"] for f in r["refusals"]} for r in report["rounds"]}
    assert told[2] == {"va"}
    assert told[3] == {"hungarian"}
    assert told[4] == {"cleveland"}
    assert verify_file(Path(result["bundle"]), Brought()).holds
    check_against_one_process(trial, config, submitted.run, rounds, Path(result["model"]))


def check_outcomes(rounds: list[dict[str, Any]]) -> None:
    """Every round opened with whoever behaved, and says who did not, and why."""
    assert [r["outcome"] for r in rounds] == ["opened"] * 5
    assert rounds[0]["exchanges"] == 2
    everybody = set(SITES)
    assert set(rounds[0]["survivors"]) == everybody
    assert set(rounds[1]["survivors"]) == everybody - {"va"}
    assert "WrongRoundError" in rounds[1]["refusals"]["va"]
    assert set(rounds[2]["survivors"]) == everybody - {"hungarian"}
    assert "MessageError" in rounds[2]["refusals"]["hungarian"]
    assert set(rounds[3]["survivors"]) == everybody - {"cleveland"}
    assert rounds[3]["refusals"]["cleveland"]
    assert set(rounds[4]["survivors"]) >= everybody - {"cleveland"}


def check_against_one_process(
    trial: Trial, config: Path, run: str, rounds: list[dict[str, Any]], model: Path
) -> None:
    """The same cohorts in one process: the same model bytes, the same entries in every ledger."""
    charged = {name: _charged_rounds(ledger_of(trial, name)) for name in SITES}
    missing = {(r["round"], n) for r in rounds for n in SITES if n not in r["survivors"]}
    unheard = {(number, name) for number, name in missing if number not in charged[name]}
    federation = Federation.from_toml(config)
    local = Run(federation, DeterministicRandomness(SEED), run)
    local.coordinator.transport = Kept(
        local.coordinator.transport, local.roster, missing - unheard, unheard
    )
    other = local.drive(None)
    assert other.model is not None
    assert other.model.read_bytes() == model.read_bytes()
    for name in SITES:
        assert story(ledger_of(trial, name)) == story(federation.open_ledger(name)), name


def _charged_rounds(ledger: Ledger) -> set[int]:
    entries = [entry.payload.to_json() for entry in ledger.entries() if entry.kind == "charge"]
    return {int(facts["round"]) for facts in entries}


def ledger_of(trial: Trial, name: str) -> Ledger:
    folder = trial.parties[name].party
    return Ledger.open(folder.ledger, signing_key=folder.identity().key)
