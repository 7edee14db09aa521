"""The Grid without a network: Flower's own strategies run on it, and its faults are the wire's."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from privagg.flower.bridge.inprocess import Faults, InProcessGrid


def app(message: Message, context: Context) -> Message:
    """Adds its own number to every weight."""
    step = float(context.node_config["step"])
    arrays = message.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    moved = {name: Array(array.numpy() + step) for name, array in arrays.items()}
    metrics = MetricRecord({"num-examples": 1, "server-round": context.run_config["rounds"]})
    return Message(RecordDict({"arrays": ArrayRecord(moved), "m": metrics}), reply_to=message)


def failing(message: Message, context: Context) -> Message:
    raise ValueError("record 17 of Mrs Smith")


@pytest.fixture
def grid() -> InProcessGrid:
    return InProcessGrid(
        dict.fromkeys((1, 2, 3), app),
        node_configs={node: {"step": node} for node in (1, 2, 3)},
        run_config={"rounds": 2},
    )


def message(node_id: int) -> Message:
    content = RecordDict({"arrays": start(), "config": ConfigRecord()})
    return Message(content, dst_node_id=node_id, message_type="train")


def start() -> ArrayRecord:
    return ArrayRecord({"w": Array(np.zeros((2, 3), np.float32))})


def test_flowers_own_strategy_runs_on_it(grid: InProcessGrid) -> None:
    result = FedAvg(fraction_evaluate=0.0).start(grid, start(), num_rounds=2)
    assert np.array_equal(result.arrays["w"].numpy(), np.full((2, 3), 4.0))
    assert all(t.messages == 2 and t.bytes_up > 24 for t in grid.traffic.values())


def test_a_silent_node_gives_nothing_and_never_runs(grid: InProcessGrid) -> None:
    grid.faults[2] = Faults(silent=True)
    replies = list(grid.send_and_receive([message(1), message(2)]))
    assert [reply.metadata.src_node_id for reply in replies] == [1]
    assert grid.traffic[2].bytes_up == 0


def test_answers_come_late_twice_or_altered(grid: InProcessGrid) -> None:
    grid.faults[1] = Faults(pulls_late=2)
    grid.faults[2] = Faults(answer=lambda reply: [reply, reply])
    identifiers = list(grid.push_messages([message(1), message(2)]))
    pulls = [[m.metadata.src_node_id for m in grid.pull_messages(identifiers)] for _ in range(4)]
    assert pulls == [[2, 2], [], [1], []]


def test_a_pull_runs_only_so_many_apps() -> None:
    grid = InProcessGrid(
        dict.fromkeys(range(1, 5), app),
        node_configs={node: {"step": 1} for node in range(1, 5)},
        run_config={"rounds": 1},
        at_once=1,
    )
    identifiers = list(grid.push_messages([message(node) for node in range(1, 5)]))
    assert [len(list(grid.pull_messages(identifiers))) for _ in range(5)] == [1, 1, 1, 1, 0]


def test_an_exceptions_text_leaves_the_node_as_flower_would_let_it(grid: InProcessGrid) -> None:
    grid.restart(3, failing)
    reply = next(iter(grid.send_and_receive([message(3)])))
    assert reply.error.reason == "<class 'ValueError'>:<'record 17 of Mrs Smith'>"


def test_an_unknown_node_is_an_error_not_a_silence(grid: InProcessGrid) -> None:
    assert next(iter(grid.send_and_receive([message(9)]))).has_error()
