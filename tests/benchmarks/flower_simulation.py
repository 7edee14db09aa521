"""Many clients through Flower's simulation engine, masked and BFV: clock, memory and disk a round.

    python -m tests.benchmarks.flower_simulation --clients 200 --rounds 10 --compared 3 \\
        --against ../earlier --json out/sim.json

Client-level DP on a model of a million parameters, every client with an identity and a ledger of
its own; under BFV the key holder is one more node. Clients run in ray's actors; Flower's state, its
Grid, the aggregator and the strategy share one process. Training is a stand-in (the model moved by
a client's own constant), so that the figures are those of everything else.

Each system is a process of its own, one after the other: masked, BFV, BFV of an earlier tree, by
that tree's own version of this file, and Flower's FedAvg without privagg, which is what Flower and
ray take of each of the others. They are watched from outside: clock and processor time
from the end of one round to the end of the next, the memory of all processes together (shared pages
once), and what lies on disk when a round has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import cache, lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.flower_rounds import TREE, family, memory
from tests.benchmarks.tables import show, write_json

PLAN = "plan.json"
ALONE = "alone"
"""Flower without privagg, in place of a scheme."""
OPENER, COORDINATOR, RUN = "key-holder", "coordinator", "measured"
PREFIX = "privagg-simulation-"
"""How the folder with what all parties keep is called."""
WATCH_SECONDS = 1.0


def name_of(index: int, clients: int) -> str:
    """The party behind a partition; the last one is the key holder."""
    return OPENER if index == clients else f"client-{index:04d}"


def prepare(folder: Path, clients: int, parameters: int, rounds: int, scheme: str = "bfv") -> None:
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
        custody="every-site" if scheme == "masked" else "authority",
        scheme=scheme,
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
    found = scheme(plan.scheme)
    needs = requirement_of(plan, security_bits=128, by_tail=found.by_tail)
    rule = {"minimum_survivors": plan.minimum_survivors, "colluders": plan.colluders}
    parameters = found.choose_parameters(needs, **(rule if found.every_site else {}))
    return plan, roster, found, parameters


def opener_of(scheme: Any) -> str:
    """Whose word counts on what was opened."""
    return COORDINATOR if scheme.every_site else OPENER


@lru_cache(maxsize=512)
def open_party(folder: Path, name: str) -> Any:
    """The seat of a client, or the key holder's handler; kept open by each of ray's actors."""
    from privagg.identity.keys import Identity
    from privagg.privacy.ledger import BudgetKey, CheckpointKeeper, Ledger
    from privagg.privacy.randomness import SystemRandomness
    from privagg.protocol.key_holder import KeyHolder
    from privagg.protocol.mask_holder import MaskHolder
    from privagg.protocol.peers import PeerCheckpoints
    from privagg.protocol.pins import Pins
    from privagg.protocol.site import Seat
    from privagg.secure.opening import key_generator
    from tests.approvals import FOR_EVER, approve_plan

    plan, roster, scheme, parameters = world(folder)
    identity = Identity.load_or_create(name, folder / f"{name}.pem")
    holding = {
        "identity": identity, "key_generator": key_generator(plan.scheme), "roster": roster,
        "parameters": parameters, "until": lambda: FOR_EVER, "aggregator": COORDINATOR,
        "store": folder / f"{name}-openings.sqlite",
    }  # fmt: skip
    if name == OPENER:
        kept = CheckpointKeeper.open(folder / "openings-checkpoints.sqlite")
        return KeyHolder(plan, checkpoints=PeerCheckpoints(kept, roster), **holding).handle
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
        opener=opener_of(scheme),
    )
    return Seat(
        identity=identity,
        pins=pins,
        plan=plan,
        scheme=scheme,
        parameters=parameters,
        ledger=ledger,
        randomness=SystemRandomness(),
        key_holder=MaskHolder(plan, opener=COORDINATOR, **holding) if scheme.every_site else None,
    )


def party_of(folder: Path, clients: int, context: Any) -> Any:
    """The party behind the partition of a node."""
    return open_party(folder, name_of(int(context.node_config["partition-id"]), clients))


def moved(message: Any, context: Any) -> Any:
    """A stand-in for training: the model moved by a client's own constant."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.app import Message as FlowerMessage

    step = np.float32(1e-4) * (int(context.node_config["partition-id"]) % 7)
    arrays = message.content["arrays"]
    model = ArrayRecord({name: Array(a.numpy() + step) for name, a in arrays.items()})
    content = RecordDict({"arrays": model})
    content["metrics"] = MetricRecord({"num-examples": 100})  # what FedAvg weighs by
    return FlowerMessage(content, reply_to=message)


def make_client_app(folder: Path, clients: int, *, private: bool = True) -> Any:
    """An app that moves the model by a constant, behind the mod.

    Of functions of this module, as an app is made: one made in here would be written out by value
    for every message.
    """
    from flwr.clientapp import ClientApp

    from privagg.flower.bridge.mod import PrivateUpdates

    party = partial(party_of, folder, clients)
    app = ClientApp(mods=[PrivateUpdates(party)] if private else [])
    app.train()(moved)
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
    opener = opener_of(scheme)
    terms = KeyTerms(roster, COORDINATOR, opener, plan, scheme, parameters)
    key, _ = key_of_run(terms, RUN, identity, transport)
    job = Job(
        run=RUN,
        plan=plan,
        scheme=scheme,
        key=key,
        identity=identity,
        roster=roster,
        opener=opener,
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


def make_bare_server_app(clients: int, parameters: int, rounds: int, out: Path) -> Any:
    """FedAvg on Flower's own Grid; writes figures after every round."""
    from flwr.app import Array, ArrayRecord, MetricRecord
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg

    app = ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        facts: dict[str, Any] = {"clients": clients, "parameters": parameters, "rounds": []}

        def note(server_round: int, arrays: Any) -> MetricRecord:
            if server_round:
                facts["rounds"].append({"upload_bytes": 4 * parameters})
                facts["rounds"][-1]["peak_megabytes"] = peak_megabytes()
                out.write_text(json.dumps(facts))
            return MetricRecord()

        model = ArrayRecord({"w": Array(np.zeros(parameters, np.float32))})
        FedAvg(fraction_evaluate=0.0, min_available_nodes=clients, min_train_nodes=clients).start(
            grid, model, num_rounds=rounds, evaluate_fn=note
        )

    return app


def peak_megabytes() -> int:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(
    clients: int, parameters: int, rounds: int, actors: int, scheme: str, out: Path
) -> None:
    """One federation, simulated in this process."""
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    from flwr.simulation import run_simulation

    with tempfile.TemporaryDirectory(prefix=PREFIX) as place:
        folder = Path(place)
        if scheme == ALONE:
            server = make_bare_server_app(clients, parameters, rounds, out)
        else:
            prepare(folder, clients, parameters, rounds, scheme)
            server = make_server_app(folder, clients, rounds, out)
        run_simulation(
            server,
            make_client_app(folder, clients, private=scheme != ALONE),
            num_supernodes=clients + (scheme not in ("masked", ALONE)),
            backend_config={
                "init_args": {"num_cpus": actors, "object_store_memory": 10**9},
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            },
        )


def disk_bytes(folder: Path) -> int:
    """What all parties keep, as the file system counts it."""
    found = 0
    for path in folder.glob(f"{PREFIX}*/**/*"):
        try:
            found += path.stat().st_blocks * 512
        except FileNotFoundError:  # a journal that SQLite took away meanwhile
            continue
    return found


def watched(command: list[str], tree: Path, folder: Path, out: Path) -> Iterator[dict[str, float]]:
    """Run a system; what is seen at the end of each of its rounds."""
    environment = os.environ | {"PYTHONPATH": str(tree), "TMPDIR": str(folder)}
    environment |= {"RAY_worker_niceness": "0"}  # else every other process goes before the clients
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        ended, most, spent, running = 0, 0.0, 0.0, True
        while running:
            running = process.poll() is None
            time.sleep(WATCH_SECONDS * running)
            most = max(most, sum(memory([process.pid]).values()))
            # After the last round the clients' processes end, and with them their time.
            spent = max(spent, sum(family([process.pid]).values()))
            try:
                seen = len(json.loads(out.read_text())["rounds"])
            except (FileNotFoundError, ValueError):  # not yet, or being written
                continue
            for _ in range(ended, seen):
                yield {
                    "at": time.monotonic(),
                    "processor": spent,
                    "memory_megabytes": most,
                    "disk_megabytes": disk_bytes(folder) / 1e6,
                }
            if seen > ended:
                ended, most = seen, 0.0
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {log.read_text()[-2000:]}")


def run_system(name: str, tree: Path, scheme: str, rounds: int, chosen: Any) -> dict[str, Any]:
    """One system, from its first round to its last."""
    folder = Path(tempfile.mkdtemp(prefix="sim", dir=chosen.folder))
    try:
        out = folder / "figures.json"
        options = {
            "--clients": chosen.clients, "--parameters": chosen.parameters, "--rounds": rounds,
            "--actors": chosen.actors, "--measure": out,
            **({"--scheme": scheme} if tree == TREE else {}),  # the earlier file knows BFV alone
        }  # fmt: skip
        words = [str(word) for pair in options.items() for word in pair]
        # Not as a script: ray's actors must find this module under its own name.
        code = f"from tests.benchmarks import flower_simulation as s; s.main({words!r})"
        marks = list(watched([sys.executable, "-c", code], tree, folder, out))
        found = json.loads(out.read_text())
    finally:
        shutil.rmtree(folder)
    for facts, mark in zip(found["rounds"], marks, strict=True):
        facts |= mark
    clock, processor = (
        statistics.median(later[what] - sooner[what] for sooner, later in pairwise(marks))
        for what in ("at", "processor")
    )
    return {"system": name, "scheme": scheme, "seconds": clock, "processor": processor, **found}


def report(rows: list[dict[str, Any]]) -> None:
    """Print a table of the systems, and of each what its rounds left."""

    def of_it(what: str) -> Any:
        return lambda row: f"{row[what]:.1f}; {rows[0][what] / row[what]:.2f}"

    def first_and_last(what: str) -> Any:
        return lambda row: f"{row['rounds'][0][what]:.0f}, {row['rounds'][-1][what]:.0f}"

    show(
        f"{rows[0]['clients']} clients, {rows[0]['parameters']:,} parameters",
        {
            "system": "system",
            "rounds": lambda row: f"{len(row['rounds'])}",
            "seconds a round; masked takes of it": of_it("seconds"),
            "processor seconds; masked": of_it("processor"),
            "upload, MB": lambda row: f"{row['rounds'][-1]['upload_bytes'] / 1e6:.2f}",
            "disk, MB, after the first, last": first_and_last("disk_megabytes"),
            "memory, MB, in the first, last": first_and_last("memory_megabytes"),
            "server's peak, MB": first_and_last("peak_megabytes"),
        },
        rows,
        "a round: the median from one round's end to the next one's",
    )


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure every system in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--parameters", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=10, help="the first is not in the medians")
    parser.add_argument("--compared", type=int, help="rounds of the systems beside masked")
    parser.add_argument("--actors", type=int, default=2, help="clients that run at once")
    parser.add_argument("--against", type=Path, help="an earlier tree of this project, with BFV")
    parser.add_argument(
        "--folder", type=Path, help="systems write below it; its path must be short"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scheme", default="bfv", help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.measure:
        measure(
            chosen.clients, chosen.parameters, chosen.rounds, chosen.actors, chosen.scheme,
            chosen.measure,
        )  # fmt: skip
        return []
    compared = chosen.compared or chosen.rounds
    systems = [("masked", TREE, "masked", chosen.rounds), ("BFV", TREE, "bfv", compared)]
    if chosen.against:
        systems.append(("BFV, earlier", chosen.against.resolve(), "bfv", compared))
    systems.append(("Flower alone", TREE, ALONE, compared))
    rows = []
    for system in systems:
        rows.append(run_system(*system, chosen))
        write_json(chosen.json, rows)
    report(rows)
    return rows


if __name__ == "__main__":
    main()
