"""What a round costs over Flower: the demo deployed, the same of an earlier tree, Flower alone.

    python -m tests.benchmarks.flower_rounds --rounds 10 --against ../earlier --json out/rounds.json

Each system is started as its users start it, with every party as processes on this machine, and all
run in turn. "Flower alone" is a plain Flower app with the same tables and a model of the same size
in Flower's default isolation: no privagg, no encryption, no key holder, no TLS. Its round is one
exchange; a round of privagg is one with the sites and one with the key holder.

Processor time is that of all of a system's processes, those that have ended included, from the end
of one round to the end of the next.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from privagg.cli.demo import write_demo
from privagg.flower.lead import ROUNDS_NAME, read_lines
from tests.benchmarks.tables import show, write_json

TREE = Path(__file__).resolve().parents[2]
SITES = ("riverside", "hillcrest", "lakeview")
START_SECONDS, ROUND_SECONDS, IDLE_SECONDS = 300.0, 300.0, 10.0
TICKS = os.sysconf("SC_CLK_TCK")


def family(roots: Sequence[int]) -> dict[int, float]:
    """Process -> processor seconds of it and of its children that ended, for all descendants."""
    parents, spent = dict[int, int](), dict[int, float]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            facts = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(facts[1])
        spent[int(path.parent.name)] = sum(map(int, facts[11:15])) / TICKS
    found, more = set[int](), set(roots)
    while more:
        found |= more
        more = {pid for pid, parent in parents.items() if parent in more} - found
    return {pid: spent[pid] for pid in found if pid in spent}


def memory(roots: Sequence[int]) -> dict[str, float]:
    """What runs -> its share of memory in MB, summed over all processes that run it."""
    found: dict[str, float] = {}
    for pid in family(roots):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        name = " ".join(word for word in words[1:4] if word not in ("-m", "") and "--" not in word)
        share = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        found[name[-60:]] = found.get(name[-60:], 0.0) + share / 1000
    return found


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with all that it starts, until the end of the body."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            cwd=log.parent,  # else Python would prefer this tree's modules to another's
            env=dict(environment),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            for pid in family([process.pid]):
                os.kill(pid, signal.SIGKILL)


@dataclass
class System:
    """A federation whose processes run.

    Args:
        name: in the table.
        roots: the processes that all others descend from.
        command: starts a run of it.
        environment: of that command.
        log: what it prints goes there.
        finished: all rounds that ended so far, those of the newest run last.
    """

    name: str
    roots: Sequence[int]
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    finished: Callable[[], list[dict[str, Any]]]
    found: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, value: float) -> None:
        """Keep a measurement."""
        self.found.setdefault(what, []).append(value)

    def run(self, rounds: int) -> None:
        """One run: the time and processor time of each of its rounds but the first."""
        before = sum(family(self.roots).values())
        time.sleep(IDLE_SECONDS)
        idle = sum(family(self.roots).values()) - before
        self.note("processor seconds an idle minute", idle * 60 / IDLE_SECONDS)
        seen, marks = len(self.finished()), list[tuple[float, float]]()
        with started(self.command, self.environment, self.log) as process:
            until = time.monotonic() + ROUND_SECONDS
            while len(marks) < rounds:
                if len(self.finished()) - seen > len(marks):
                    spent = sum(family([*self.roots, process.pid]).values())
                    marks.append((time.monotonic(), spent))
                    until = marks[-1][0] + ROUND_SECONDS
                if time.monotonic() > until or process.poll():
                    raise SystemExit(f"{self.name}: no round within {ROUND_SECONDS:.0f} seconds")
                time.sleep(0.05)
            process.wait(ROUND_SECONDS)
        for (then, less), (now, more) in pairwise(marks):
            self.note("seconds a round", now - then)
            self.note("processor seconds a round", more - less)
        for facts in self.finished()[-rounds:]:
            if "seconds" in facts:
                self.note("seconds until opened", facts["seconds"]["open"])

    def row(self) -> dict[str, Any]:
        """Medians, what was measured, and memory now."""
        middle = {what: statistics.median(values) for what, values in self.found.items()}
        return {"system": self.name, **middle, "all": self.found, "memory": memory(self.roots)}


@contextmanager
def privagg(name: str, tree: Path, folder: Path, rounds: int) -> Iterator[System]:
    """The demo as a trial deployment of a tree of this project."""
    config, trial = write_demo(folder), folder / "trial"
    text = config.read_text()
    for old, new in (
        ("rounds = 40", f"rounds = {rounds}"),
        ("average_from = 10", "average_from = 2"),
        ("budget_epsilon = 3 ", "budget_epsilon = 100 "),
    ):
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-c", "from privagg.cli import main; main()"]
    prepare = (
        ["deploy", "trial", str(config), str(trial)],
        ["approve", str(config), "--all-sites", "--deployment", str(trial), "--yes"],
    )
    for arguments in prepare:
        command = [*call, *arguments]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    log = folder / "up.log"

    def finished() -> list[dict[str, Any]]:
        files = sorted(
            trial.glob(f"coordinator/out/*/{ROUNDS_NAME}"), key=lambda f: f.stat().st_mtime
        )
        return [facts for file in files for facts in read_lines(file, 0)]

    with started([*call, "deploy", "up", str(trial)], environment, log) as up:
        wait_until(lambda: "ready: the SuperLink" in log.read_text(), log)
        run = [*call, "run", str(config), "--runtime", "flower", "--deployment", str(trial)]
        yield System(name, [up.pid], run, environment, folder / "run.log", finished)


CLIENT = """\
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    table = np.loadtxt(context.node_config["table"], delimiter=",", skiprows=1)
    x, y = np.c_[table[:, :-1] / 100, np.ones(len(table))], table[:, -1]
    w, = message.content["arrays"].to_numpy_ndarrays()
    w = w - 0.1 * x.T @ (1 / (1 + np.exp(-x @ w)) - y) / len(y)
    content = RecordDict({"arrays": ArrayRecord([w]), "m": MetricRecord({"num-examples": len(y)})})
    return Message(content, reply_to=message)
"""
SERVER = """\
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    def note(number, arrays):
        if number:
            with open(context.run_config["marks"], "a") as file:
                file.write("{}\\n")

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    first = ArrayRecord([np.zeros(31)])
    rounds = int(context.run_config["rounds"])
    strategy.start(grid, first, num_rounds=rounds, evaluate_fn=note)
"""
MANIFEST = """\
[project]
name = "plain"
version = "1.0.0"
description = "logistic regression"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "plain"

[tool.flwr.app.components]
serverapp = "plain.server:app"
clientapp = "plain.client:app"

[tool.flwr.app.config]
"""


@contextmanager
def flower(tables: Path, folder: Path, rounds: int) -> Iterator[System]:
    """A plain Flower app over the same tables, as Flower's own documentation starts it."""
    (folder / "app" / "plain").mkdir(parents=True)
    (folder / "home").mkdir()
    marks = folder / "marks"
    marks.touch()
    for name, text in {"__init__": "", "client": CLIENT, "server": SERVER}.items():
        (folder / "app" / "plain" / f"{name}.py").write_text(text)
    chosen = f"rounds = {rounds}\nmarks = {json.dumps(str(marks))}\n"
    (folder / "app" / "pyproject.toml").write_text(MANIFEST + chosen)
    link, *ports = free_ports(1 + len(SITES))
    connection = f'[superlink.here]\naddress = "127.0.0.1:{link}"\ninsecure = true\n'
    (folder / "home" / "config.toml").write_text(connection)
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "FLWR_HOME": str(folder / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    quiet = "--disable-runtime-dependency-installation"
    with ExitStack() as stack:

        def start(name: str, *command: str, ready: str) -> int:
            log = folder / f"{name}.log"
            process = stack.enter_context(started(command, environment, log))
            wait_until(lambda: ready in log.read_text(), log)
            return process.pid

        superlink = [str(programs / "flower-superlink"), "--insecure", "--host", "127.0.0.1"]
        superlink += ["--port", str(link), "--database", str(folder / "state.sqlite"), quiet]
        pids = [start("superlink", *superlink, ready="startup complete")]
        for site, port in zip(SITES, ports, strict=True):
            node = [str(programs / "flower-supernode"), "--insecure", "--port", str(port)]
            node += ["--superlink", f"127.0.0.1:{link}"]
            node += ["--node-config", f"table={json.dumps(str(tables / f'{site}.csv'))}"]
            pids.append(start(site, *node, ready="SuperNode ID:"))
        run = [str(programs / "flwr"), "run", str(folder / "app"), "here", "--stream"]
        yield System(
            "Flower alone", pids, run, environment, folder / "run.log", lambda: read_lines(marks, 0)
        )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in found]


def wait_until(there: Callable[[], bool], log: Path) -> None:
    """Wait for a process to say that it works."""
    until = time.monotonic() + START_SECONDS
    while not there():
        if time.monotonic() > until:
            raise SystemExit(f"not ready within {START_SECONDS:.0f} seconds: {log.read_text()}")
        time.sleep(0.1)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="what a round costs over Flower")
    parser.add_argument("--rounds", type=int, default=10, help="of a run; the first is not counted")
    parser.add_argument("--turns", type=int, default=3, help="runs of each system, in turn")
    parser.add_argument("--against", type=Path, help="an earlier tree of this project")
    parser.add_argument("--folder", type=Path, help="keep what the systems write here")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without what was started
    with ExitStack() as stack:
        folder = chosen.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="rounds-"))
        )
        trees = {"privagg": TREE, **({"earlier": chosen.against} if chosen.against else {})}
        systems = [
            stack.enter_context(privagg(name, tree.resolve(), folder / name, chosen.rounds))
            for name, tree in trees.items()
        ]
        tables = folder / "privagg" / "data"
        systems.append(stack.enter_context(flower(tables, folder / "flower", chosen.rounds)))
        for _ in range(chosen.turns):
            for system in systems:
                system.run(chosen.rounds)
                print(f"{system.name}: {system.found}", flush=True)
        rows = [system.row() for system in systems]
    measured = [what for what in rows[0] if what not in ("system", "all", "memory")]
    show(
        "a round over Flower, medians",
        {
            "system": "system",
            **{what: what for what in measured},
            "memory, MB": lambda row: f"{sum(row['memory'].values()):.0f}",
        },
        rows,
    )
    write_json(chosen.json, rows)
    return rows


if __name__ == "__main__":
    main()
