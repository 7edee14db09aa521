"""The client's door: what leaves a client through Flower, and when its app runs at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.serverapp.strategy import FedAvg

from privagg.errors import CohortError
from privagg.flower.bridge import mod
from privagg.flower.bridge.inprocess import Faults
from privagg.flower.bridge.mod import FAILED, PrivateUpdates
from privagg.flower.bridge.records import frames_to_records, records_to_frames
from privagg.privacy.ledger import ChargeRequest
from privagg.privacy.plan import SiteTerms
from privagg.protocol.frames import Message as Frame
from privagg.protocol.frames import read_message
from privagg.protocol.messages import RoundStart
from tests.flower.bridge.doors import NAMES, Doors, initial_arrays

SECRET = "record 17 of Mrs Smith"


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    return Doors(tmp_path, dropouts=1)


def run(doors: Doors, rounds: int = 1) -> Any:
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4)
    return strategy.start(doors.private_grid(), initial_arrays(), num_rounds=rounds)


def ask(doors: Doors, kind: str, content: RecordDict | None = None, site: str = "north") -> Message:
    """One message straight to a node, as whoever holds the SuperLink could send it."""
    content = content or RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    message = Message(content, dst_node_id=doors.nodes[site], message_type=kind)
    return next(iter(doors.grid.send_and_receive([message])))


def listen(doors: Doors) -> list[bytes]:
    """Everything that leaves the clients from now on, as bytes."""
    heard: list[bytes] = []

    def note(reply: Message) -> list[Message]:
        heard.append(message_to_proto(reply).SerializeToString())
        return [reply]

    for node in doors.nodes.values():
        doors.grid.faults[node] = Faults(answer=note)
    return heard


def test_an_app_trains_once_a_round_and_is_charged_once(doors: Doors) -> None:
    run(doors, rounds=2)
    assert sorted(doors.counting.trained) == sorted([*NAMES, *NAMES])
    assert [doors.charges(name) for name in NAMES] == [2, 2, 2, 2]


def test_figures_and_models_never_leave_in_the_clear(tmp_path: Path) -> None:
    doors = Doors(tmp_path, scheme_name="bfv")
    heard = listen(doors)
    run(doors)
    assert heard  # introductions, uploads, an opening
    assert not [b for b in heard if b"mean-age" in b or b"num-examples" in b or b"metrics" in b]


@pytest.mark.parametrize("kind", ["train", "train.other", "evaluate", "query", "evaluate.other"])
def test_the_door_is_closed_unless_it_is_opened(doors: Doors, kind: str) -> None:
    """Whatever is not a round of privagg's runs nothing and tells nothing."""
    reply = ask(doors, kind)
    assert reply.has_error()
    assert reply.error.reason.startswith("MessageError: ")
    assert not doors.counting.trained
    assert not doors.counting.evaluated


def test_public_evaluation_passes_metrics_and_nothing_else(tmp_path: Path) -> None:
    doors = Doors(tmp_path, evaluation="public")
    reply = ask(doors, "evaluate")
    assert list(reply.content) == ["metrics"]
    assert doors.counting.evaluated == 1
    assert ask(doors, "query").has_error()
    assert ask(doors, "train").has_error()


@pytest.mark.parametrize("error", [ValueError(SECRET), KeyError(SECRET), AssertionError(SECRET)])
def test_no_exception_of_the_app_leaves_the_client(doors: Doors, error: Exception) -> None:
    heard = listen(doors)

    def fail() -> None:
        if doors.counting.trained[-1] == "east":
            raise error

    doors.counting.fail = fail
    grid = doors.private_grid()
    FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4).start(
        grid, initial_arrays(), num_rounds=1
    )
    (outcome,) = grid.outcomes
    assert outcome.survivors == ("north", "south", "west")
    assert list(outcome.refusals) == ["east"]
    assert not [data for data in heard if b"Smith" in data or type(error).__name__.encode() in data]
    assert doors.charges("east") == 1


def test_no_exception_of_a_public_evaluation_leaves_the_client(tmp_path: Path) -> None:
    doors = Doors(tmp_path, evaluation="public")

    def failing(message: Message, context: Context) -> Message:
        raise ValueError(SECRET)

    reply = PrivateUpdates(doors.party, evaluation="public")(
        Message(RecordDict(), dst_node_id=1, message_type="evaluate"),
        doors.grid.contexts[11],
        failing,
    )
    assert reply.error.reason == FAILED


def test_the_apps_own_error_reply_leaves_as_nothing(doors: Doors) -> None:
    heard = listen(doors)
    message = start(doors)

    def app(message: Message, context: Context) -> Message:
        from flwr.app import Error

        return Message(Error(99, SECRET), reply_to=message)

    reply = PrivateUpdates(doors.party)(message, doors.grid.contexts[11], app)
    assert b"Smith" not in message_to_proto(reply).SerializeToString()
    (frame,) = records_to_frames(reply.content)
    assert read_message(frame, doors.roster).header.kind == 3  # a refusal
    assert not heard


def test_an_overspent_client_never_trains(tmp_path: Path) -> None:
    equal = [SiteTerms(name=name, records=40) for name in NAMES]
    doors = Doors(tmp_path, noise_multiplier=2, dropouts=1, budget="5", sites=equal)
    grid = doors.private_grid()
    spend(doors, "south")
    FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4).start(
        grid, initial_arrays(), num_rounds=1
    )
    assert sorted(doors.counting.trained) == ["east", "north", "west"]
    assert "above the budget" in grid.outcomes[0].refusals["south"]


def spend(doors: Doors, site: str) -> None:
    """Another job uses up most of a site's budget."""
    event = doors.plan.total_committed(site)
    place = {"run": "other", "round": 1, "attempt": 1}
    digest = doors.plan.digest
    doors.ledgers[site].charge(
        ChargeRequest(**place, dataset=site, unit="site", event=event, plan_digest=digest)
    )


def test_a_job_that_a_budget_has_no_room_for_does_not_begin(tmp_path: Path) -> None:
    doors = Doors(tmp_path, noise_multiplier=2, dropouts=1, budget="0.01")
    with pytest.raises(CohortError, match="beyond its budget"):
        run(doors)
    assert not doors.counting.trained
    assert [doors.charges(name) for name in NAMES] == [0, 0, 0, 0]


def start(doors: Doors, **changes: Any) -> Message:
    """A round's start, as the coordinator would sign it."""
    layout = [["weight", "float32", [2, 3]], ["bias", "float32", [1]]]
    settings = {"arrays": "arrays", "layout": layout, "configs": {"config": {}}}
    facts: dict[str, Any] = {
        "run": "run-1",
        "round": 1,
        "attempt": 1,
        "sender": "coordinator",
        "plan_digest": doors.plan.digest,
        "key_id": doors.told(),
        "cohort": NAMES,
        "settings": settings,
        **changes,
    }
    header = RoundStart.model_validate(facts)
    payload = np.zeros(7, dtype="<f8").tobytes()
    frame = Frame.sign(doors.identities[header.sender], header, payload).to_bytes()
    return Message(frames_to_records([frame]), dst_node_id=11, message_type="train")


def answer(doors: Doors, message: Message) -> Message:
    return next(iter(doors.grid.send_and_receive([message])))


def test_a_resend_is_the_same_bytes_and_trains_nothing(doors: Doors) -> None:
    first, again = (answer(doors, start(doors)) for _ in range(2))
    assert records_to_frames(first.content) == records_to_frames(again.content)
    assert doors.counting.trained == ["north"]
    assert doors.charges("north") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {}},
        {"settings": {"arrays": "a", "layout": [["w", "float32", [8]]], "configs": {}}},
        {"sender": "east"},
        {"plan_digest": "0" * 64},
        {"round": 6},
    ],
)
def test_what_is_no_round_of_the_plan_is_refused_uncharged(
    doors: Doors, changes: dict[str, Any]
) -> None:
    reply = answer(doors, start(doors, **changes))
    if not reply.has_error():
        (frame,) = records_to_frames(reply.content)
        assert read_message(frame, doors.roster).header.kind == 3
    assert doors.charges("north") == 0
    assert not doors.counting.trained


@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: b"",
        lambda frame: frame[:-1],
        lambda frame: b"PVAG" * 9,
        lambda frame: frame[1:],
    ],
)
def test_hostile_bytes_get_a_named_error(doors: Doors, damage: Callable[[bytes], bytes]) -> None:
    message = start(doors)
    message.content = frames_to_records(
        [damage(frame) for frame in records_to_frames(message.content)]
    )
    reply = answer(doors, message)
    assert reply.error.reason.startswith("MessageError: ")
    assert not doors.counting.trained


def test_a_forged_start_trains_nothing(doors: Doors) -> None:
    message = start(doors)
    (frame,) = records_to_frames(message.content)
    forged = frame[:-64] + bytes(64)
    message.content = frames_to_records([forged])
    assert answer(doors, message).error.reason.startswith("SignatureError: ")
    assert not doors.counting.trained


def test_an_answers_metadata_are_not_the_apps_to_choose(doors: Doors) -> None:
    def app(message: Message, context: Context) -> Message:
        message.metadata.group_id = SECRET
        message.metadata.ttl = 54.4
        arrays = message.content["arrays"]
        reply = Message(RecordDict({"arrays": arrays}), reply_to=message)
        reply.metadata.group_id = SECRET
        return reply

    reply = PrivateUpdates(doors.party)(start(doors), doors.grid.contexts[11], app)
    assert reply.has_content()
    assert reply.metadata.group_id == ""
    assert reply.metadata.ttl != 54.4


def test_an_answer_can_be_held_until_a_fixed_time(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    class Clock:
        times: Iterable[float] = iter([100.0, 103.0, 200.0, 290.0, 300.0, 301.0])

        def monotonic(self) -> float:
            return next(iter(self.times))

        def sleep(self, seconds: float) -> None:
            slept.append(seconds)

    monkeypatch.setattr(mod, "time", Clock())
    held = PrivateUpdates(doors.party, answer_after_seconds=60)
    app = doors.counting.app
    for kind in ("train", "train", "query"):
        message = Message(RecordDict(), dst_node_id=11, message_type=kind)
        held(message, doors.grid.contexts[11], app)
    assert slept == [57.0]
