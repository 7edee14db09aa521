"""The Flower example whole: its two apps, four hospitals and a key holder, from their folders."""

from __future__ import annotations

import hashlib
import importlib
import json
import runpy
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Context, RecordDict
from safetensors.numpy import load_file

from privagg import Federation
from privagg.audit.verify import Brought, verify_file
from privagg.errors import ConfigError, ResumeError
from privagg.flower import resident
from privagg.flower.bridge.inprocess import InProcessGrid
from privagg.flower.bridge.transport import FlowerTransport
from privagg.flower.deploy.join import Agreement
from privagg.flower.deploy.trial import make_trial
from privagg.flower.strategy_run import StrategyRun
from privagg.privacy.ledger import Ledger
from privagg.protocol.transport import Reply
from tests.approvals import approved_trial
from tests.faults import Killed

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "flower_heart"


def short_configuration(rounds: int = 2, budget: str = "16") -> str:
    """The example's, of fewer rounds, or with another budget."""
    text = (EXAMPLE / "flower_heart.toml").read_text()
    text = text.replace("rounds = 5", f"rounds = {rounds}")
    return text.replace("budget_epsilon = 16", f"budget_epsilon = {budget}")


class Hospitals:
    """The example's parties in folders of their own, its apps, and made-up tables."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, rounds: int = 2, budget: str = "16"
    ) -> None:
        config = folder / "flower_heart.toml"
        config.write_text(short_configuration(rounds, budget))
        federation = Federation.from_toml(config)
        self.plan = federation.plan
        agreement = Agreement.of(federation.setup, config)
        self.trial = make_trial(folder / "parties", config, agreement)
        approved_trial(self.trial)
        monkeypatch.syspath_prepend(str(EXAMPLE))
        monkeypatch.setenv("PRIVAGG_PARTY", str(self.trial.coordinator.party.root))
        self.client = importlib.import_module("flower_heart.client_app").app
        self.server = importlib.import_module("flower_heart.server_app").app
        runpy.run_path(str(EXAMPLE / "prepare.py"))["prepare"](folder / "out" / "data")
        folders = (self.trial.parties[name].party.root for name in agreement.nodes)
        self.nodes = {n: {"party-folder": str(root)} for n, root in enumerate(folders, start=1)}

    def run(self, resume: str = "", steps: int = 5) -> None:
        settings = {
            "num-server-rounds": self.plan.rounds,
            "learning-rate": 0.5,
            "local-steps": steps,
            "resume": resume,
        }
        clients = dict.fromkeys(self.nodes, self.client)
        grid = InProcessGrid(clients, node_configs=self.nodes, run_config=settings)
        self.server(grid, Context(1, 0, {}, RecordDict(), settings))

    @property
    def output(self) -> Path:
        (found,) = (self.trial.coordinator.party.root / "out").iterdir()
        return found

    def charges(self) -> list[int]:
        folders = (self.trial.parties[name].party for name in self.plan.names)
        ledgers = [Ledger.open(f.ledger, signing_key=f.identity().key) for f in folders]
        return [[entry.kind for entry in ledger.entries()].count("charge") for ledger in ledgers]


@pytest.fixture
def hospitals(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hospitals]:
    with tempfile.TemporaryDirectory(prefix="hospitals-") as short:  # parties listen on sockets
        yield Hospitals(Path(short), monkeypatch)


def require_whole_story(hospitals: Hospitals) -> None:
    """One report of all rounds at every site, which names the model that lies beside it."""
    output = hospitals.output
    report = json.loads((output / "report.json").read_text())
    assert report["outcome"] == "finished"
    assert [r["outcome"] for r in report["rounds"]] == ["opened"] * hospitals.plan.rounds
    assert {s["name"] for s in report["sites"]} == set(hospitals.plan.names)
    model = output / report["model"]["file"]
    assert set(load_file(model)) == {"weight", "bias"}
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert report["model"]["sha256"] == digest
    bundle = output / "bundle.privagg.zip"
    assert verify_file(bundle, Brought(model_sha256=digest)).holds
    assert not verify_file(bundle, Brought(model_sha256="0" * 64)).holds
    result = json.loads((output / "result.json").read_text())
    assert (result["outcome"], result["missing"]) == ("finished", {})
    assert result["model"] == str(model)
    assert hospitals.charges() == [hospitals.plan.rounds] * 4


def test_the_flower_heart_app_runs_from_its_parties_folders(hospitals: Hospitals) -> None:
    hospitals.run()
    require_whole_story(hospitals)
    lines = (hospitals.output / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["outcome"] for line in lines] == ["opened", "opened"]


def test_the_flower_heart_app_goes_on_where_it_was_killed(
    hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, made = FlowerTransport.exchange, []

    def fragile(self: FlowerTransport, requests: Any) -> list[Reply]:
        replies = list(exchange(self, requests))
        made.append(requests)
        if len(made) == 4:  # the opening of round 2 was answered, and nobody here read it
            raise Killed
        return replies

    with monkeypatch.context() as patched:
        patched.setattr(FlowerTransport, "exchange", fragile)
        with pytest.raises(Killed):
            hospitals.run()
    run = hospitals.output.name
    assert json.loads((hospitals.output / "result.json").read_text())["outcome"] == "failed"
    with pytest.raises(ResumeError, match="no run 'other'"):
        hospitals.run(resume="other")
    hospitals.run(resume=run)
    require_whole_story(hospitals)
    kinds = [entry.kind for entry in coordinators_ledger(hospitals).entries()]
    assert [kinds.count(k) for k in ("run-started", "released", "run-finished")] == [1, 1, 1]
    hospitals.run(resume=run)  # it only asks for the ledgers again
    require_whole_story(hospitals)
    assert [entry.kind for entry in coordinators_ledger(hospitals).entries()] == kinds
    with pytest.raises(ResumeError, match="released its model already"):
        StrategyRun(hospitals.trial.coordinator.party, run).release({"w": np.zeros(10)})
    require_whole_story(hospitals)


def serve_from_own_processes(hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every party answers at its socket, and the app's side may not open one itself."""
    for name in (*hospitals.plan.names, "key-holder"):
        folder, ready = hospitals.trial.parties[name].party, threading.Event()
        party = resident.open_resident(folder)
        threading.Thread(
            target=resident.serve, args=(folder, party, ready.set), daemon=True
        ).start()
        assert ready.wait(120)
    monkeypatch.delattr("privagg.party.open.open_node")


def test_the_app_trains_for_parties_in_processes_of_their_own(
    hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_from_own_processes(hospitals, monkeypatch)
    hospitals.run()
    require_whole_story(hospitals)


def test_of_an_app_that_fails_nobody_else_hears_why(
    hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise ValueError("patient 4711")

    serve_from_own_processes(hospitals, monkeypatch)
    monkeypatch.setattr("flower_heart.client_app.load_table", fail)
    with pytest.raises(ConfigError, match="no round was opened"):
        hospitals.run()
    assert hospitals.charges() == [2] * 4
    told = [p.read_bytes() for p in hospitals.trial.root.rglob("*") if p.is_file()]
    assert not [data for data in told if b"patient 4711" in data]


def test_a_party_whose_table_is_missing_does_not_start(hospitals: Hospitals) -> None:
    (hospitals.trial.root.parent / "out" / "data" / "cleveland.csv").unlink()
    with pytest.raises(ConfigError, match="there is no .*cleveland.csv"):
        resident.open_resident(hospitals.trial.parties["cleveland"].party)


def coordinators_ledger(hospitals: Hospitals) -> Ledger:
    folder = hospitals.trial.coordinator.party
    return Ledger.open(folder.ledger, signing_key=folder.identity().key)
