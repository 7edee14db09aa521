"""Flower's Grid as a transport: who is believed, how long is waited, what is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from privagg.errors import AppRefusedError
from privagg.flower.bridge import transport
from privagg.flower.bridge.apps import make_client_app
from privagg.flower.bridge.directory import Directory
from privagg.flower.bridge.inprocess import Faults, InProcessGrid, Traffic
from privagg.flower.bridge.records import frames_to_records
from privagg.flower.bridge.transport import FlowerTransport, Patience
from privagg.identity.keys import Identity, Roster
from privagg.protocol.frames import Message as SignedMessage
from privagg.protocol.frames import read_message
from privagg.protocol.job import RoundOutcome
from privagg.protocol.messages import Challenge, Presence
from privagg.protocol.round import run_round
from privagg.protocol.transport import Handler
from tests.simulator import DIMENSION, NAMES, Simulation

PARTIES = (*NAMES, "key-holder")


class FakeTime:
    """Time that passes only by sleeping."""

    now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Network:
    """The simulator's parties behind nodes 1 to 5."""

    def __init__(self, folder: Path) -> None:
        self.simulation = Simulation(folder, dropouts=1)
        self.grid = InProcessGrid(
            {node: self.app(name) for node, name in enumerate(PARTIES, start=1)}
        )
        self.time = FakeTime()
        self.transport = self.coordinator()

    def app(self, name: str) -> Callable[..., Message]:
        return make_client_app(lambda context: self.simulation.wire.handlers[name])

    def add_node(self, node: int, app: Callable[..., Message]) -> None:
        self.grid._apps[node] = app
        self.grid.contexts[node] = self.grid.contexts[1]
        self.grid.traffic[node] = Traffic()

    def coordinator(self) -> FlowerTransport:
        simulation = self.simulation
        return FlowerTransport(
            self.grid,
            Directory(
                simulation.identities["coordinator"],
                simulation.roster,
                "run-1",
                simulation.plan.digest,
            ),
            patience=Patience(answer_seconds=10, absent_seconds=5, poll_seconds=1),
            clock=self.time.clock,
            sleep=self.time.sleep,
        )

    def meet(self, parties: tuple[str, ...] = PARTIES) -> dict[str, str]:
        problems = self.transport.meet(parties)
        for party, presence in self.transport.directory.presences.items():
            self.simulation.watch.record_kept_sizes(party, presence.kept_sizes)
        return problems

    def round(self, number: int = 1) -> RoundOutcome:
        return run_round(
            self.simulation.job, self.transport, np.zeros(DIMENSION), round_number=number
        )


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


def test_a_round_costs_two_exchanges_and_closes_ride_along(network: Network) -> None:
    assert network.meet(PARTIES) == {}
    assert network.transport.directory.nodes == dict(zip(PARTIES, range(1, 6), strict=True))
    for number in (1, 2):
        outcome = network.round(number)
        assert outcome.outcome == "opened", outcome.reason
        assert outcome.exchanges == 2
        np.testing.assert_array_equal(outcome.update, network.simulation.expected_update(NAMES))
    kinds = [entry.kind for entry in network.simulation.ledgers["north"].entries()]
    assert kinds.count("realised") == 1
    assert network.transport.exchanges == 5


def test_nodes_are_met_within_the_first_exchange_too(network: Network) -> None:
    assert network.round().survivors == NAMES


def test_a_node_without_the_pinned_key_is_refused_by_name(network: Network) -> None:
    simulation = network.simulation
    forger = Identity.generate("east")
    simulation.wire.handlers["east"] = simulation.site("east", identity=forger).handle
    problems = network.meet(PARTIES)
    assert list(problems) == ["east"]
    assert "node 2: SignatureError: the signature on a message from 'east'" in problems["east"]
    outcome = network.round()
    assert outcome.survivors == ("north", "south", "west")
    assert "SignatureError" in outcome.refusals["east"]
    assert simulation.charges("east") == 0


def claims_to_be(identity: Identity, roster: Roster) -> Handler:
    def answer(frame: bytes) -> bytes:
        asked = read_message(frame, roster).header
        assert isinstance(asked, Challenge)
        facts = {**asked.model_dump(), "sender": identity.name, "problem": ""}
        return SignedMessage.sign(identity, Presence.model_validate(facts)).to_bytes()

    return answer


def test_strangers_are_refused_by_name(network: Network) -> None:
    simulation, directory = network.simulation, network.transport.directory
    for node, identity in (
        (8, Identity.generate("mallory")),
        (9, simulation.identities["coordinator"]),
    ):
        handler = claims_to_be(identity, simulation.roster)
        network.add_node(node, make_client_app(lambda context, h=handler: h))  # type: ignore[misc]
    problems = network.meet((*PARTIES, "nobody"))
    assert problems == {"nobody": directory.absence("nobody")}
    assert "nobody called 'mallory' is on the roster" in directory.strangers[8]
    assert "claims to be the coordinator" in directory.strangers[9]


def test_a_party_may_come_back_as_another_node(network: Network) -> None:
    network.round(1)
    network.add_node(7, network.grid._apps.pop(1))
    assert network.round(2).survivors == NAMES
    assert network.transport.directory.nodes["north"] == 7


def test_a_late_answer_is_refused_by_name_in_the_next_round(network: Network) -> None:
    network.grid.faults[1] = Faults(pulls_late=12)
    network.meet(PARTIES[1:])
    network.grid.faults[1] = Faults()
    network.meet(("north",))
    network.grid.faults[1] = Faults(pulls_late=10)
    first = network.round(1)
    assert first.survivors == ("east", "south", "west")
    assert first.refusals == {"north": "no answer within 10 seconds"}
    network.grid.faults[1] = Faults()
    second = network.round(2)
    assert second.survivors == NAMES
    assert "too late; it was refused" in second.refusals["north"]
    assert network.simulation.charges("north") == 2


def test_a_node_whose_answer_nobody_waited_for_is_asked_again(network: Network) -> None:
    network.grid.faults[1] = Faults(pulls_late=12)
    frame = network.transport.directory.challenge(5)
    network.transport.directory.ask_anew()
    first = next(iter(network.transport.exchange({"key-holder": frame})))
    assert first.party == "key-holder"
    network.grid.faults[1] = Faults()
    assert network.meet(PARTIES) == {}


def test_a_second_answer_is_refused_by_name(network: Network) -> None:
    network.meet(PARTIES)
    network.grid.faults[3] = Faults(answer=lambda reply: [reply, reply])
    outcome = network.round()
    assert outcome.survivors == NAMES
    assert "second answer" in outcome.refusals["south"]


def hostile(reply: Message, kind: str) -> Message:
    if kind == "no frames":
        reply.content = RecordDict({"x": ConfigRecord({"a": 1})})
    elif kind == "noise":
        reply.content = frames_to_records([b"\x00" * 1000])
    elif kind == "too many frames":
        reply.content = frames_to_records([b"a", b"b"])
    elif kind == "a lie about sizes":
        reply.content["privagg"]["sizes"] = [2**60]
    return reply


@pytest.mark.parametrize("kind", ["no frames", "noise", "too many frames", "a lie about sizes"])
def test_hostile_bytes_cost_only_their_sender(network: Network, kind: str) -> None:
    network.meet(PARTIES)
    network.grid.faults[4] = Faults(answer=lambda reply: [hostile(reply, kind)])
    outcome = network.round()
    assert outcome.survivors == ("north", "east", "south")
    assert "MessageError" in outcome.refusals["west"]


def test_a_replayed_upload_is_refused_by_the_aggregator(network: Network) -> None:
    network.meet(PARTIES)
    kept: list[bytes] = []
    honest = network.simulation.wire.handlers["west"]

    def replay(frame: bytes) -> bytes:
        kept.append(honest(frame))
        return kept[0]

    network.simulation.wire.handlers["west"] = replay
    network.round(1)
    outcome = network.round(2)
    assert outcome.survivors == ("north", "east", "south")
    assert "WrongRoundError" in outcome.refusals["west"]


def test_what_an_app_raises_leaves_only_its_kind(network: Network) -> None:
    network.meet(PARTIES)

    def fails(frame: bytes) -> bytes:
        raise KeyError("patient 4711")

    network.simulation.wire.handlers["west"] = fails
    outcome = network.round()
    assert outcome.refusals == {"west": "failed: KeyError"}


def test_a_node_whose_owner_did_not_approve_the_app_is_told_so(network: Network) -> None:
    network.meet(PARTIES)

    def guarded(message: Message, context: object) -> Message:
        raise AppRefusedError("the app brings files of its own (secret.py)")

    network.grid._apps[2] = guarded
    outcome = network.round()
    (reason,) = outcome.refusals.values()
    assert reason.startswith("its owner has not approved the app's code")
    assert "secret" not in reason


def test_nobody_waits_for_the_whole_deadline_where_a_node_is_gone(network: Network) -> None:
    network.meet(PARTIES)
    del network.grid._apps[2]
    outcome = network.round()
    assert outcome.survivors == ("north", "south", "west")
    assert outcome.refusals == {"east": "no node of 'east' is connected"}
    assert network.time.now < 10


@pytest.fixture
def simulated(network: Network, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The network's Grid as Flower's simulation engine's, with room for two requests; how many it
    held after each one that it took."""
    held: list[int] = []
    push = network.grid.push_messages

    def counted(messages: Iterable[Message]) -> list[str]:
        taken = list(push(messages))
        held.append(len(network.grid._pending))
        return taken

    monkeypatch.setattr(network.grid, "push_messages", counted)
    monkeypatch.setattr(transport, "InMemoryGrid", InProcessGrid)
    monkeypatch.setattr(transport, "SIMULATED_PER_CORE", 2)
    monkeypatch.setattr(transport.os, "cpu_count", lambda: 1)
    return held


def test_the_simulation_engine_never_holds_a_whole_cohort(
    network: Network, simulated: list[int]
) -> None:
    assert network.meet() == {}
    outcome = network.round()
    assert outcome.survivors == NAMES
    assert max(simulated) == 2


def test_clients_that_take_long_in_a_simulation_hold_up_nobody(
    network: Network, simulated: list[int]
) -> None:
    assert network.meet() == {}
    network.transport.patience = Patience(answer_seconds=40, absent_seconds=5, poll_seconds=1)
    slow = NAMES[:2]
    for name in slow:
        network.grid.faults[network.transport.directory.nodes[name]] = Faults(pulls_late=12)
    replies = list(network.transport.exchange(dict.fromkeys(NAMES, b"")))
    assert {reply.party for reply in replies[: len(NAMES) - 2]} == {*NAMES} - {*slow}
    assert {reply.party for reply in replies} == {*NAMES}


def test_a_grid_that_fails_while_reading_costs_only_that_party(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.meet(PARTIES)
    pull = network.grid.pull_messages

    def choke(identifiers: list[str]) -> list[Message]:
        found = list(pull(identifiers))
        if found and found[0].metadata.src_node_id == 2:
            raise ValueError("Unexpected set of `children`")
        return found

    monkeypatch.setattr(network.grid, "pull_messages", choke)
    outcome = network.round()
    assert outcome.survivors == ("north", "south", "west")
    assert outcome.refusals == {"east": "Flower could not read the answer (ValueError)"}
