"""What privagg adds to a Flower app: time and bytes, the same app with and without it in one run.

    python -m tests.benchmarks.flower_overhead --parameters 1000000 --clients 4 --json out/o.json

Both runs go through Flower's protobuf messages on an in-process Grid, one client after the other,
so times are those of one machine doing everybody's work. Training is a stand-in that costs nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from privagg.flower.bridge.inprocess import InProcessGrid
from privagg.flower.bridge.transport import Patience
from tests.benchmarks.flower_simulation import make_client_app, open_door, prepare


def plain_app() -> ClientApp:
    """The same stand-in without privagg."""
    app = ClientApp()

    @app.train()
    def train(message: Any, context: Any) -> Any:
        step = np.float32(1e-4) * (int(context.node_config["partition-id"]) % 7)
        arrays = message.content["arrays"]
        moved = ArrayRecord({name: Array(a.numpy() + step) for name, a in arrays.items()})
        content = RecordDict({"arrays": moved, "m": MetricRecord({"num-examples": 1})})
        return FlowerMessage(content, reply_to=message)

    return app


def drive(grid: Any, traffic: InProcessGrid, clients: int, parameters: int, rounds: int) -> Any:
    """Run FedAvg; seconds a round, bytes a client and round."""
    model = ArrayRecord({"w": Array(np.zeros(parameters, np.float32))})
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=clients, min_train_nodes=clients)
    before = [(t.bytes_down, t.bytes_up) for t in traffic.traffic.values()]
    start, processor = time.perf_counter(), time.process_time()
    strategy.start(grid, model, num_rounds=rounds)
    seconds = (time.perf_counter() - start) / rounds
    processor_seconds = (time.process_time() - processor) / rounds
    after = [(t.bytes_down, t.bytes_up) for t in traffic.traffic.values()][:clients]
    down, up = (
        sum(new[i] - old[i] for new, old in zip(after, before, strict=False)) / clients / rounds
        for i in (0, 1)
    )
    return {
        "seconds_a_round": seconds,
        "processor_seconds_a_round": processor_seconds,
        "bytes_down": down,
        "bytes_up": up,
    }


def measure(clients: int, parameters: int, rounds: int) -> dict[str, Any]:
    """Both, one after the other."""
    nodes = {i + 1: {"partition-id": i} for i in range(clients + 1)}
    alone = InProcessGrid(dict.fromkeys(range(1, clients + 1), plain_app()), node_configs=nodes)
    found = {"without": drive(alone, alone, clients, parameters, rounds)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, clients, parameters, rounds)
        app = make_client_app(folder, clients)
        grid = InProcessGrid(dict.fromkeys(nodes, app), node_configs=nodes)
        private = open_door(folder, grid, Patience(poll_seconds=0.001), lambda outcome: None)
        found["with"] = drive(private, grid, clients, parameters, rounds)
        opened = [outcome.outcome for outcome in private.outcomes]
        assert opened == ["opened"] * rounds
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="what privagg adds to a Flower app")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--parameters", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    logging.getLogger("flwr").setLevel(logging.ERROR)  # its banners would hide the table
    found = measure(chosen.clients, chosen.parameters, chosen.rounds)
    print(
        f"{chosen.clients} clients, {chosen.parameters:,} parameters, BFV, {chosen.rounds} rounds"
    )
    for name, facts in found.items():
        print(
            f"{name:>8} privagg: {facts['seconds_a_round']:.2f} s a round by the clock, "
            f"{facts['processor_seconds_a_round']:.2f} of the processor; a client's "
            f"{facts['bytes_down'] / 1e6:.2f} MB down, {facts['bytes_up'] / 1e6:.2f} MB up"
        )
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
