"""Flower's own strategies behind privagg's doors: the mean they get, and what a client keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy

from privagg.flower.bridge.inprocess import InProcessGrid
from tests.flower.bridge.doors import NAMES, CountingApp, Doors, initial_arrays

STRATEGIES: dict[str, tuple[type[Strategy], dict[str, Any]]] = {
    "FedAvg": (FedAvg, {}),
    "FedAdam": (FedAdam, {"eta": 0.05}),
    "FedYogi": (FedYogi, {"eta": 0.05}),
    "FedAdagrad": (FedAdagrad, {"eta": 0.05}),
    "FedAvgM": (FedAvgM, {"server_momentum": 0.5}),
    "FedProx": (FedProx, {"proximal_mu": 0.3}),
}


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    return Doors(tmp_path)


def make(name: str) -> Strategy:
    kind, options = STRATEGIES[name]
    return kind(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4, **options)


def flat(arrays: ArrayRecord) -> np.ndarray:
    return np.concatenate([a.numpy().ravel().astype(np.float64) for a in arrays.values()])


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_moves_as_without_privagg(doors: Doors, name: str) -> None:
    """Without noise, on a fine grid: the same models as Flower alone gives with these weights."""
    private = make(name).start(doors.private_grid(), initial_arrays(), num_rounds=3)
    alone = CountingApp([WeightOf])
    nodes = {doors.nodes[n]: alone.app for n in NAMES}
    grid = InProcessGrid(nodes, node_configs={doors.nodes[n]: {"party": n} for n in NAMES})
    plain = make(name).start(grid, initial_arrays(), num_rounds=3)
    resolution = 2.0 / 2**24
    assert np.abs(flat(private.arrays) - flat(plain.arrays)).max() < 100 * resolution
    assert np.abs(flat(private.arrays) - flat(initial_arrays())).max() > 0.01
    assert [m["contributors"] for m in private.train_metrics_clientapp.values()] == [4, 4, 4]


def WeightOf(message: Message, context: Any, call_next: Any) -> Message:  # noqa: N802
    """Gives Flower alone the public weights that the plan has."""
    reply = call_next(message, context)
    reply.content["metrics"]["num-examples"] = NAMES.index(str(context.node_config["party"])) + 1
    return reply
