"""Many clients through Flower's simulation engine: time a round, and the aggregator's memory.

    python -m tests.benchmarks.flower_simulation --clients 20 200 --rounds 10 --json out/sim.json

Client-level DP on a model of a million parameters, BFV, every client with an identity and a ledger
of its own, the key holder as one more node. Clients run in ray's actors; Flower's state, its Grid,
the aggregator and the strategy share one process, whose peak memory is measured. Each number of
clients is measured in a process of its own. Training is a stand-in (the model moved by a client's
own constant), so that the figures are those of everything else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

PLAN = "plan.json"
OPENER, COORDINATOR, RUN = "key-holder", "coordinator", "measured"


def name_of(index: int, clients: int) -> str:
    """The party behind a partition; the last one is the key holder."""
    return OPENER if index == clients else f"client-{index:04d}"


def prepare(folder: Path, clients: int, parameters: int, rounds: int) -> None:
    """Identities and plan of a federation of so many clients."""
    from privagg.identity.keys import Identity, Roster
    from privagg.privacy.plan import ClientPlan, SiteTerms

    names = [name_of(index, clients) for index in range(clients)]
    plan = ClientPlan(
        sites=tuple(SiteTerms(name=name, records=100) for name in names),
        dimension=parameters,
        rounds=rounds,
        clip_norm_l2=Decimal(1),
        sensitivity_grid=2**16,
        noise_multiplier=Decimal(1),
        delta=Decimal("1e-6"),
        dropouts=clients // 20,
        colluders=clients // 20,
        protects_unit="person",
        custody="authority",
        scheme="bfv",
    )
    keys = {n: Identity.load_or_create(n, folder / f"{n}.pem") for n in (*names, COORDINATOR)}
    keys[OPENER] = Identity.load_or_create(OPENER, folder / f"{OPENER}.pem")
    (folder / PLAN).write_text(plan.canonical_json)
    (folder / "roster.json").write_text(json.dumps(dict(Roster.of(*keys.values()).keys)))


@cache
def world(folder: Path) -> Any:
    """Plan, roster, scheme and its parameters, once in a process."""
    from privagg.config.plan import requirement_of
    from privagg.identity.keys import Roster
    from privagg.privacy.plan import load_plan
    from privagg.secure.registry import scheme

    plan = load_plan(json.loads((folder / PLAN).read_text()))
    roster = Roster(json.loads((folder / "roster.json").read_text()))
    found = scheme("bfv")
    parameters = found.choose_parameters(requirement_of(plan, security_bits=128))
    return plan, roster, found, parameters


def open_party(folder: Path, name: str) -> Any:
    """The seat of a client, or the key holder's handler."""
    from privagg.identity.keys import Identity
    from privagg.privacy.ledger import BudgetKey, CheckpointKeeper, Ledger
    from privagg.privacy.randomness import SystemRandomness
    from privagg.protocol.key_holder import KeyHolder
    from privagg.protocol.peers import PeerCheckpoints
    from privagg.protocol.site import Pins, Seat
    from privagg.secure.opening import key_generator
    from tests.approvals import FOR_EVER, approve_plan

    plan, roster, scheme, parameters = world(folder)
    identity = Identity.load_or_create(name, folder / f"{name}.pem")
    if name == OPENER:
        kept = CheckpointKeeper.open(folder / "openings-checkpoints.sqlite")
        return KeyHolder(
            plan, identity=identity, key_generator=key_generator(plan.scheme),
            parameters=parameters, until=lambda: FOR_EVER, roster=roster, aggregator=COORDINATOR,
            store=folder / "openings.sqlite", checkpoints=PeerCheckpoints(kept, roster),
        ).handle  # fmt: skip
    path = folder / f"{name}.sqlite"
    if path.exists():
        ledger = Ledger.open(path, signing_key=identity.key)
    else:
        ledger = Ledger.create(path, name, signing_key=identity.key)
        unit = BudgetKey(name, plan.unit.value)
        approve_plan(ledger, unit, plan.digest, Decimal(100), plan.delta)
    pins = Pins(
        roster=roster,
        coordinator=COORDINATOR,
        plan_digest=plan.digest,
        opener=OPENER,
    )
    return Seat(
        identity=identity,
        pins=pins,
        plan=plan,
        scheme=scheme,
        parameters=parameters,
        ledger=ledger,
        randomness=SystemRandomness(),
    )


def make_client_app(folder: Path, clients: int) -> Any:
    """An app that moves the model by a constant, behind the mod."""
    from flwr.app import Array, ArrayRecord, RecordDict
    from flwr.app import Message as FlowerMessage
    from flwr.clientapp import ClientApp

    from privagg.flower.bridge.mod import PrivateUpdates

    def party_of(context: Any) -> Any:
        return open_party(folder, name_of(int(context.node_config["partition-id"]), clients))

    app = ClientApp(mods=[PrivateUpdates(party_of)])

    @app.train()
    def train(message: Any, context: Any) -> Any:
        step = np.float32(1e-4) * (int(context.node_config["partition-id"]) % 7)
        arrays = message.content["arrays"]
        moved = ArrayRecord({name: Array(a.numpy() + step) for name, a in arrays.items()})
        return FlowerMessage(RecordDict({"arrays": moved}), reply_to=message)

    return app


def answers(folder: Path, job: Any, transport: Any, told: Any) -> Any:
    """What answers a strategy, as `private_grid` makes it: the journal of rounds included."""
    from privagg.privacy.ledger import Ledger
    from privagg.protocol.statements import StatementStore
    from privagg.run.journal import Journal
    from privagg.run.record import RunRecorder
    from privagg.run.replay import ReplayedRounds
    from privagg.run.rounds import RoundRunner

    path = folder / "record.sqlite"
    ledger = Ledger.create(path, COORDINATOR, signing_key=job.identity.key)
    journal = Journal(folder)
    journal.keep_for_replay()
    record = RunRecorder(ledger, job.run, StatementStore.beside(folder))
    rounds = RoundRunner(job, transport, record, journal=journal, attempts=1)
    return ReplayedRounds(rounds, told)


def open_door(folder: Path, grid: Any, patience: Any, told: Any) -> Any:
    """The strategy's Grid as a coordinator opens it, all introductions made."""
    from privagg.flower.bridge.directory import Directory
    from privagg.flower.bridge.grid import PrivateGrid
    from privagg.flower.bridge.transport import FlowerTransport
    from privagg.identity.keys import Identity
    from privagg.privacy.ledger import CheckpointKeeper
    from privagg.protocol.checkpoints import CheckpointWatch
    from privagg.protocol.job import Job
    from privagg.protocol.key_statement import KeyTerms
    from privagg.run.keying import key_of_run

    plan, roster, scheme, parameters = world(folder)
    identity = Identity.load_or_create(COORDINATOR, folder / f"{COORDINATOR}.pem")
    directory = Directory(identity, roster, RUN, plan.digest)
    transport = FlowerTransport(grid, directory, patience=patience, message_type="train")
    terms = KeyTerms(roster, COORDINATOR, OPENER, plan.digest, scheme, parameters)
    key, _ = key_of_run(terms, RUN, identity, transport)
    job = Job(
        run=RUN,
        plan=plan,
        scheme=scheme,
        key=key,
        identity=identity,
        roster=roster,
        opener=OPENER,
        watch=CheckpointWatch(CheckpointKeeper.open(folder / "kept.sqlite"), roster),
    )
    private = PrivateGrid(grid, job, transport, answers(folder, job, transport, told))
    assert len(list(private.get_node_ids())) == plan.addends
    return private


def make_server_app(folder: Path, clients: int, rounds: int, out: Path) -> Any:
    """FedAvg on a PrivateGrid; writes figures after every round."""
    from flwr.app import Array, ArrayRecord
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg

    from privagg.flower.bridge.transport import Patience
    from privagg.protocol.job import RoundOutcome

    app = ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        plan, *_ = world(folder)
        facts: dict[str, Any] = {"clients": clients, "parameters": plan.dimension, "rounds": []}
        facts["megabytes_before"] = peak_megabytes()
        start = time.perf_counter()

        def note(outcome: RoundOutcome) -> None:
            facts["rounds"].append(
                {
                    "outcome": outcome.outcome,
                    "survivors": len(outcome.survivors),
                    "seconds": round(outcome.seconds["round"], 2),
                    "add_seconds": round(outcome.seconds.get("add", 0), 2),
                    "upload_bytes": max(outcome.bytes_up.values(), default=0),
                    "peak_megabytes": peak_megabytes(),
                }
            )
            out.write_text(json.dumps(facts))

        patience = Patience(answer_seconds=3600, absent_seconds=1800, poll_seconds=0.1)
        private = open_door(folder, grid, patience, note)
        facts["meeting_seconds"] = round(time.perf_counter() - start, 2)
        model = ArrayRecord({"w": Array(np.zeros(plan.dimension, np.float32))})
        FedAvg(fraction_evaluate=0.0, min_available_nodes=clients, min_train_nodes=clients).start(
            private, model, num_rounds=rounds
        )

    return app


def peak_megabytes() -> int:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(clients: int, parameters: int, rounds: int, actors: int, out: Path) -> None:
    """One federation, simulated in this process."""
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    from flwr.simulation import run_simulation

    with tempfile.TemporaryDirectory(prefix="privagg-simulation-") as place:
        folder = Path(place)
        prepare(folder, clients, parameters, rounds)
        run_simulation(
            make_server_app(folder, clients, rounds, out),
            make_client_app(folder, clients),
            num_supernodes=clients + 1,
            backend_config={
                "init_args": {"num_cpus": actors, "object_store_memory": 10**9},
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            },
        )


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure every number of clients in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--parameters", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--actors", type=int, default=2, help="clients that run at once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.measure:
        measure(chosen.clients[0], chosen.parameters, chosen.rounds, chosen.actors, chosen.measure)
        return []
    found = []
    for clients in chosen.clients:
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "figures.json"
            options = {
                "--clients": clients,
                "--parameters": chosen.parameters,
                "--rounds": chosen.rounds,
                "--actors": chosen.actors,
                "--measure": out,
            }
            words = [str(word) for pair in options.items() for word in pair]
            # Not as a script: ray's actors must find this module under its own name.
            code = f"from tests.benchmarks import flower_simulation as s; s.main({words!r})"
            subprocess.run([sys.executable, "-c", code], check=True)
            found.append(json.loads(out.read_text()))
    for facts in found:
        rounds = facts["rounds"]
        seconds = sorted(r["seconds"] for r in rounds)[len(rounds) // 2]
        last = rounds[-1]
        print(
            f"{facts['clients']:4d} clients, {facts['parameters']:,} parameters, {len(rounds)} "
            f"rounds: {seconds:.1f} s a round (median), adding {last['add_seconds']:.1f} s; upload "
            f"{last['upload_bytes'] / 1e6:.2f} MB; the rounds add "
            f"{last['peak_megabytes'] - facts['megabytes_before']} MB to the server (peak "
            f"{last['peak_megabytes']} MB, key generation and ray included)"
        )
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
