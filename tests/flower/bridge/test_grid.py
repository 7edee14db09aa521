"""The server's door: one opened mean for a strategy, refusals by name, nothing else."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from privagg.errors import ConfigError
from privagg.flower.bridge.inprocess import Faults
from privagg.flower.bridge.mod import PrivateUpdates
from privagg.flower.bridge.records import frames_to_records, records_to_frames
from privagg.privacy.ledger import Entry, keeper, log
from privagg.protocol.frames import forget_headers
from privagg.protocol.job import RoundOutcome
from tests.flower.bridge.doors import NAMES, OPENER, Doors, initial_arrays

REMEMBERED: tuple[Any, ...] = (
    log._checked_head, Entry._remembered, keeper._opened, keeper._parsed, keeper._require_extends,
)  # fmt: skip
"""Small facts of frames, entries and checkpoints; the greatest number of each is fixed."""


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    return Doors(tmp_path, dropouts=1)


def strategy(**options: Any) -> FedAvg:
    return FedAvg(**{"fraction_evaluate": 0.0, "min_train_nodes": 4, **options})


def flat(arrays: ArrayRecord) -> np.ndarray:
    return np.concatenate([a.numpy().ravel().astype(np.float64) for a in arrays.values()])


def train_messages(doors: Doors, content: RecordDict | None = None) -> list[Message]:
    content = content or RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    return [Message(content, dst_node_id=doors.nodes[n], message_type="train") for n in NAMES]


@pytest.mark.parametrize("scheme_name", ["bfv", "ckks", "masked"])
def test_a_strategy_gets_the_opened_noised_mean(tmp_path: Path, scheme_name: str) -> None:
    doors = Doors(tmp_path, scheme_name=scheme_name, noise_multiplier=1, rounds=1)
    heard: list[RoundOutcome] = []
    grid = doors.private_grid(on_outcome=heard.append)
    result = strategy().start(grid, initial_arrays(), num_rounds=1)
    (outcome,) = heard
    assert outcome.outcome == "opened", outcome.reason
    assert outcome.update is not None
    moved = flat(initial_arrays()) + outcome.update
    assert np.array_equal(flat(result.arrays), moved.astype(np.float32).astype(np.float64))
    assert np.abs(outcome.update).max() > 1e-3


def test_the_servers_memory_does_not_grow_with_rounds(tmp_path: Path) -> None:
    """Models and updates of rounds that are over are let go, also where a site never answers."""
    size = 60_000
    doors = Doors(tmp_path, dimension=size, rounds=6, dropouts=1)
    app = ClientApp(mods=[PrivateUpdates(doors.party)])

    @app.train()
    def train(message: Message, context: Any) -> Message:
        return Message(message.content, reply_to=message)

    for node in doors.nodes.values():
        doors.grid.restart(node, app)
    grid = doors.private_grid()
    doors.grid.faults[doors.nodes["west"]] = Faults(silent=True)
    content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(size, np.float32))})})
    held: list[int] = []
    tracemalloc.start()
    try:
        for _ in range(6):
            grid.send_and_receive(train_messages(doors, content))
            forget_headers()  # of these and of what follows so many are kept and no more
            for remembered in REMEMBERED:
                remembered.cache_clear()
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert [outcome.outcome for outcome in grid.outcomes] == ["opened"] * 6
    assert held[-1] - held[1] < 8 * size, "less than one vector of float64 in four rounds"


def test_the_reply_carries_public_numbers_only(doors: Doors) -> None:
    (reply,) = doors.private_grid().send_and_receive(train_messages(doors))
    assert dict(reply.content["metrics"]) == {"num-examples": 10.0, "contributors": 4}
    assert set(reply.content) == {"arrays", "metrics"}


def test_a_site_that_is_silent_is_named_and_the_mean_is_the_others(doors: Doors) -> None:
    grid = doors.private_grid()
    doors.grid.faults[doors.nodes["south"]] = Faults(silent=True)
    reply, missing = grid.send_and_receive(train_messages(doors))
    assert reply.content["metrics"]["num-examples"] == 1 + 2 + 4
    assert missing.has_error()
    assert missing.metadata.src_node_id == doors.nodes["south"]
    assert grid.outcomes[0].survivors == ("north", "east", "west")


def test_an_answer_that_comes_twice_counts_once(doors: Doors) -> None:
    grid = doors.private_grid()
    doors.grid.faults[doors.nodes["east"]] = Faults(answer=lambda reply: [reply, reply])
    (reply,) = grid.send_and_receive(train_messages(doors))
    assert reply.content["metrics"]["contributors"] == 4
    grid.send_and_receive(train_messages(doors))
    assert "second answer" in grid.outcomes[1].refusals["east"]


def test_an_answer_after_the_deadline_is_refused_by_name(doors: Doors) -> None:
    grid = doors.private_grid()
    doors.grid.faults[doors.nodes["west"]] = Faults(pulls_late=10**6)
    grid.send_and_receive(train_messages(doors))
    assert "no answer within" in grid.outcomes[0].refusals["west"]
    doors.grid.faults[doors.nodes["west"]] = Faults()
    grid.send_and_receive(train_messages(doors))
    assert "too late" in grid.outcomes[1].refusals["west"]
    assert len(grid.outcomes[1].survivors) == 4


def test_a_site_that_is_away_from_the_start_drops_out(doors: Doors) -> None:
    grid = doors.private_grid()
    doors.grid.remove(doors.nodes["west"])
    assert len(list(grid.get_node_ids())) == 3
    strategy(min_train_nodes=3).start(grid, initial_arrays(), num_rounds=1)
    assert grid.outcomes[0].survivors == ("north", "east", "south")
    assert "west" in grid.outcomes[0].refusals


def test_a_round_that_stops_moves_nothing(doors: Doors) -> None:
    grid = doors.private_grid()
    for site in ("south", "west"):
        doors.grid.faults[doors.nodes[site]] = Faults(silent=True)
    result = strategy(min_available_nodes=4).start(grid, initial_arrays(), num_rounds=1)
    assert not result.train_metrics_clientapp
    assert len(result.arrays) == 0
    assert grid.outcomes[0].outcome == "stopped"
    assert [doors.charges(n) for n in ("north", "east")] == [1, 1]


def test_replays_and_hostile_bytes_are_refused_by_name(doors: Doors) -> None:
    kept: list[bytes] = []
    north, east = doors.nodes["north"], doors.nodes["east"]

    def keep(reply: Message) -> list[Message]:
        kept.append(records_to_frames(reply.content)[-1])
        return [reply]

    def replay(reply: Message) -> list[Message]:
        *rest, _ = records_to_frames(reply.content)
        return [Message(frames_to_records([*rest, kept[0]]), reply_to=_as_request(reply))]

    grid = doors.private_grid()
    doors.grid.faults[north] = Faults(answer=keep)
    grid.send_and_receive(train_messages(doors))
    doors.grid.faults[north] = Faults(answer=replay)
    grid.send_and_receive(train_messages(doors))
    outcome = grid.outcomes[1]
    assert outcome.survivors == ("east", "south", "west")
    assert outcome.refusals["north"].startswith("WrongRoundError")

    doors.grid.faults[north] = Faults()
    for answer in (_garbage, _cut, _of_another(doors, "west")):
        doors.grid.faults[east] = Faults(answer=answer)
        grid.send_and_receive(train_messages(doors))
        assert grid.outcomes[-1].survivors == ("north", "south", "west")
        assert grid.outcomes[-1].refusals["east"]


def _as_request(reply: Message) -> Message:
    back = Message(RecordDict(), dst_node_id=reply.metadata.src_node_id, message_type="train")
    back.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
    return back


def _garbage(reply: Message) -> list[Message]:
    return [
        Message(RecordDict({"privagg": ConfigRecord({"x": b"y"})}), reply_to=_as_request(reply))
    ]


def _cut(reply: Message) -> list[Message]:
    *rest, frame = records_to_frames(reply.content)
    return [Message(frames_to_records([*rest, frame[:-9]]), reply_to=_as_request(reply))]


def _of_another(doors: Doors, site: str) -> Any:
    def answer(reply: Message) -> list[Message]:
        *rest, frame = records_to_frames(reply.content)
        named = frame.replace(b'"sender":"east"', f'"sender":"{site}"'.encode())
        return [Message(frames_to_records([*rest, named]), reply_to=_as_request(reply))]

    return answer


def test_evaluation_is_dropped_unless_it_is_public(tmp_path: Path, doors: Doors) -> None:
    quiet = strategy(fraction_evaluate=1.0, min_evaluate_nodes=4)
    assert not quiet.start(
        doors.private_grid(), initial_arrays(), num_rounds=1
    ).evaluate_metrics_clientapp
    assert doors.counting.evaluated == 0

    (tmp_path / "public").mkdir()
    public = Doors(tmp_path / "public", evaluation="public")
    result = strategy(fraction_evaluate=1.0, min_evaluate_nodes=4).start(
        public.private_grid(evaluation="public"), initial_arrays(), num_rounds=1
    )
    assert result.evaluate_metrics_clientapp[1]["accuracy"] == pytest.approx(0.8)


def test_a_server_alone_cannot_open_the_clients_evaluation(doors: Doors) -> None:
    grid = doors.private_grid(evaluation="public")
    messages = [
        Message(RecordDict({"arrays": initial_arrays()}), doors.nodes[n], "evaluate") for n in NAMES
    ]
    assert all(reply.has_error() for reply in grid.send_and_receive(messages))
    assert doors.counting.evaluated == 0


def test_a_strategy_sees_the_sites_and_no_other_party(doors: Doors) -> None:
    assert set(doors.private_grid().get_node_ids()) == {doors.nodes[n] for n in NAMES}
    to_opener = Message(
        RecordDict({"arrays": initial_arrays()}), doors.nodes[OPENER], message_type="train"
    )
    with pytest.raises(ConfigError, match="has not proved"):
        doors.private_grid().send_and_receive([to_opener])


def test_what_makes_no_round_of_the_plan_is_refused_before_anything_is_sent(doors: Doors) -> None:
    grid = doors.private_grid()
    model = initial_arrays()
    counters = ArrayRecord({**model, "steps": Array(np.array([3]))})
    larger = ArrayRecord({**model, "more": Array(np.zeros(1, np.float32))})
    different = train_messages(doors)
    different[2].content = RecordDict({"arrays": model, "config": ConfigRecord({"lr": 0.5})})
    refused = {
        "asks 3 clients": train_messages(doors)[:3],
        "cannot be averaged|can be averaged": train_messages(doors, RecordDict({"a": counters})),
        "has 8 values": train_messages(doors, RecordDict({"a": larger})),
        "one model": train_messages(doors, RecordDict({"config": ConfigRecord()})),
        "different models or settings": different,
        "type query": [Message(RecordDict(), doors.nodes["north"], "query")],
    }
    for text, messages in refused.items():
        with pytest.raises(ConfigError, match=text):
            grid.send_and_receive(messages)
    with pytest.raises(ConfigError, match="whole rounds"):
        grid.push_messages(train_messages(doors))
    with pytest.raises(ConfigError, match="whole rounds"):
        grid.pull_messages(["1"])
    assert not list(grid.send_and_receive([]))
    assert not doors.counting.trained
    introduced = dict.fromkeys(doors.nodes.values(), 1)
    asked = introduced | {doors.nodes[OPENER]: 2}  # for the run's key
    assert {node: traffic.messages for node, traffic in doors.grid.traffic.items()} == asked


def test_a_strategy_cannot_ask_for_more_rounds_than_were_planned(tmp_path: Path) -> None:
    doors = Doors(tmp_path, rounds=1)
    grid = doors.private_grid()
    with pytest.raises(ConfigError, match="round 2"):
        strategy().start(grid, initial_arrays(), num_rounds=2)
    assert [doors.charges(n) for n in NAMES] == [1, 1, 1, 1]


def test_part_of_the_clients_can_be_asked(tmp_path: Path) -> None:
    doors = Doors(tmp_path, cohort_size=2)
    grid = doors.private_grid()
    strategy(fraction_train=0.5, min_train_nodes=2).start(grid, initial_arrays(), num_rounds=3)
    assert [len(outcome.survivors) for outcome in grid.outcomes] == [2, 2, 2]
    assert sum(doors.charges(n) for n in NAMES) == 6


def test_a_model_is_released_as_it_is_and_only_where_one_was_opened(doors: Doors) -> None:
    released: list[dict[str, np.ndarray]] = []
    grid = doors.private_grid(release=released.append)
    with pytest.raises(ConfigError, match="no round was opened"):
        grid.release(initial_arrays())
    result = strategy().start(grid, initial_arrays(), num_rounds=1)
    with pytest.raises(ConfigError, match="no model to release"):
        grid.release(ArrayRecord())
    grid.release(result.arrays)
    (tensors,) = released
    assert {n: a.tobytes() for n, a in tensors.items()} == {
        n: a.numpy().tobytes() for n, a in result.arrays.items()
    }
    with pytest.raises(ConfigError, match="records no model"):
        doors.private_grid().release(result.arrays)
