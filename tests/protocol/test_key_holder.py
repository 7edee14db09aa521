"""The key holder: each lie of a request is refused for its own reason, and a round opens once.

The liar here holds every other party's identity key, so that no signature gives it away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from privagg.errors import CiphertextError
from privagg.protocol.aggregator import Aggregator
from privagg.protocol.frames import Message, read_message
from privagg.protocol.key_holder import DOES_NOT_OPEN, KeyHolder
from privagg.protocol.messages import (
    Challenge,
    Opening,
    OpenRequest,
    Presence,
    Refusal,
    Statement,
    Upload,
)
from privagg.secure.contributors import bitmap_of
from privagg.secure.opening import DecryptionKey
from privagg.secure.wire import EncryptedTensor
from tests.faults import Killed
from tests.protocol.test_round import start_frame
from tests.simulator import NAMES, Simulation, opened_rounds

ELSEWHERE = "ab" * 32


class Requests:
    """One honest request, and what becomes of it when parts are changed and signed anew."""

    def __init__(self, simulation: Simulation, *, number: int = 1) -> None:
        self.simulation = simulation
        start = start_frame(simulation, round=number)
        self.frames = [simulation.sites[n].handle(start) for n in NAMES]
        job = simulation.job
        made = Aggregator(job.terms(number, 1, NAMES), job.parameters, simulation.roster)
        for frame in self.frames:
            made.receive(frame)
        self.honest = made.open_request(simulation.identities["coordinator"])
        assert isinstance(self.honest.header, OpenRequest)
        self.header = self.honest.header

    def upload(self, place: int, **changes: object) -> Message:
        """A site's upload with another header."""
        message = read_message(self.frames[place], self.simulation.roster)
        header = message.header.model_copy(update=changes)
        identity = self.simulation.identities[NAMES[place]]
        return Message.sign(identity, header, bytes(message.payload))

    def statements(self, **changes: object) -> tuple[Statement, ...]:
        return tuple(self.upload(place, **changes).statement for place in range(len(NAMES)))

    def request(self, payload: bytes = b"", **changes: object) -> bytes:
        header = self.header.model_copy(update=changes)
        identity = self.simulation.identities["coordinator"]
        return Message.sign(identity, header, payload or bytes(self.honest.payload)).to_bytes()

    def relabelled(self, **changes: Any) -> bytes:
        """The sum with other labels; the rest of the request stays."""
        view = memoryview(bytes(self.honest.payload))
        tensor = EncryptedTensor.from_bytes(view[: self.header.tensor_bytes], max_bytes=len(view))
        data = replace(tensor, **changes).to_bytes()
        return data + bytes(view[self.header.tensor_bytes :])

    def other_round(self, **changes: object) -> bytes:
        """Everybody signs the same other facts."""
        return self.request(contributions=self.statements(**changes), **changes)

    def presence(self) -> Statement:
        """A site's signed word for this very round that is no contribution."""
        facts = self.header.model_dump(include={"run", "round", "attempt", "plan_digest"})
        header = Presence(**facts, sender="north", nonce=ELSEWHERE, problem="")
        return Message.sign(self.simulation.identities["north"], header).statement


def refused(simulation: Simulation, frame: bytes, holder: KeyHolder | None = None) -> str:
    answer = (holder or simulation.key_holder).handle(frame)
    header = read_message(answer, simulation.roster).header
    assert isinstance(header, Refusal), header
    return f"{header.reason}: {header.message}"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Requests]:
    simulation = Simulation(tmp_path_factory.mktemp("holder"), dropouts=1)
    requests = Requests(simulation)
    yield requests
    # None of the lies used the round up: what is honest is opened still.
    answer = simulation.key_holder.handle(requests.request())
    assert isinstance(read_message(answer, simulation.roster).header, Opening)


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda r: r.other_round(plan_digest=ELSEWHERE), "plan: .* opens under"),
        (lambda r: r.other_round(round=21), "plan: round 21 is beyond the plan's 20"),
        (lambda r: r.other_round(key_id=ELSEWHERE), "key: .* that of run run-1 is"),
        (
            lambda r: r.request(contributions=r.statements(plan_digest=ELSEWHERE)),
            "plan: the contribution of 'north' is signed for",
        ),
        (lambda r: r.request(contributions=r.statements(run="run-2")), "plan: .* signed for"),
        (lambda r: r.request(contributions=r.statements(round=2)), "plan: .* signed for"),
        (lambda r: r.request(contributions=r.statements(attempt=2)), "plan: .* signed for"),
        (
            lambda r: r.request(contributions=r.statements(key_id=ELSEWHERE)),
            "key: 'north' encrypted under another key",
        ),
        (
            lambda r: r.request(contributions=(r.presence(), *r.statements()[1:])),
            "cohort: a Presence is not a contribution",
        ),
        (
            lambda r: r.request(
                contributions=(*r.statements()[:3], r.upload(3, start=ELSEWHERE).statement)
            ),
            "cohort: 'north' and 'west' started from different models or settings",
        ),
        (lambda r: r.request(contributions=r.statements()[::-1]), "cohort: .* in roster order"),
        (
            lambda r: r.request(contributions=(r.statements()[0], *r.statements())),
            "cohort: .* different sites",
        ),
        (lambda r: r.request(contributions=r.statements()[:2]), "cohort: .* opens 3 to 4"),
        (
            lambda r: r.request(contributions=r.statements()[:3]),
            "cohort: the sum's contributor set differs",
        ),
        (
            lambda r: r.request(r.relabelled(contributors=bitmap_of(NAMES[:3], NAMES))),
            "cohort: the sum's contributor set differs",
        ),
        (lambda r: r.request(tensor_bytes=r.header.tensor_bytes - 1), "cohort: .* do not add up"),
        (lambda r: r.request(bytes(r.honest.payload) + b"x"), "cohort: .* do not add up"),
        (
            lambda r: r.request(r.relabelled(parameters_fingerprint=ELSEWHERE)),
            "key: the sum is labelled with other parameters",
        ),
    ],
)
def test_each_lie_is_refused_for_what_it_is(asked: Requests, lie: Any, reason: str) -> None:
    with pytest.raises(AssertionError, match=f"^{reason}"):
        raise AssertionError(refused(asked.simulation, lie(asked)))


def test_more_contributions_than_a_round_has_are_never_opened(asked: Requests) -> None:
    holder = asked.simulation.make_key_holder()
    plan = asked.simulation.plan
    asks = ("digest", "names", "minimum_survivors", "rounds", "strict", "epochs")
    fewer = SimpleNamespace(**{name: getattr(plan, name) for name in asks}, addends=3)
    fewer.in_round = lambda number: fewer
    holder._plan = fewer
    assert "opens 3 to 3 together" in refused(asked.simulation, asked.request(), holder)


def test_a_challenge_under_another_plan_gets_no_proof(asked: Requests) -> None:
    facts = {"run": "run-1", "round": 1, "attempt": 1, "sender": "coordinator"}
    header = Challenge(**facts, plan_digest=ELSEWHERE, nonce=ELSEWHERE)
    frame = Message.sign(asked.simulation.identities["coordinator"], header).to_bytes()
    assert "opens under" in refused(asked.simulation, frame)


def strictly(tmp_path: Path) -> Requests:
    return Requests(Simulation(tmp_path, strict=True))


def test_strict_mode_needs_every_upload_and_each_the_one_that_was_signed(tmp_path: Path) -> None:
    asked = strictly(tmp_path)
    sizes, payload = asked.header.upload_bytes, bytes(asked.honest.payload)
    fewer = asked.request(payload[: -sizes[-1]], upload_bytes=sizes[:-1])
    assert "needs all 4 uploads, got 3" in refused(asked.simulation, fewer)
    other = asked.upload(3, generator="another").to_bytes()
    changed = asked.request(payload[: -sizes[-1]] + other, upload_bytes=(*sizes[:-1], len(other)))
    assert "not the one its statement names" in refused(asked.simulation, changed)
    answer = asked.simulation.key_holder.handle(asked.request())
    assert isinstance(read_message(answer, asked.simulation.roster).header, Opening)


@pytest.mark.parametrize(
    ("strict", "reason"),
    [
        (False, "passed on a key part that 'north' did not sign"),
        (True, "is not the one its statement names"),
    ],
)
def test_a_sum_moved_under_another_rounds_request_is_refused(
    tmp_path: Path, strict: bool, reason: str
) -> None:
    """Nothing in a sum says of which round it is: what its contributors signed does."""
    simulation = Simulation(tmp_path, scheme_name="bfv", strict=strict)
    first, second = (Requests(simulation, number=number) for number in (1, 2))
    moved = second.request(bytes(first.honest.payload), upload_bytes=first.header.upload_bytes)
    assert reason in refused(simulation, moved)
    answer = simulation.key_holder.handle(second.request())
    assert isinstance(read_message(answer, simulation.roster).header, Opening)


# --- once, whatever happens -----------------------------------------------------------------------


class WatchedKey(DecryptionKey):
    """The true key, with something that happens whenever it is used."""

    def __init__(self, key: DecryptionKey, *happenings: Any) -> None:
        self.key, self.encryption_key = key, key.encryption_key
        self.happenings = list(happenings)
        self.uses = 0

    def to_bytes(self) -> bytes:
        return self.key.to_bytes()

    def open_share(self, payload: Any, count: int) -> bytes:
        self.uses += 1
        if self.happenings:
            self.happenings.pop(0)()
        return self.key.open_share(payload, count)


@pytest.fixture
def fresh(tmp_path: Path) -> Requests:
    return Requests(Simulation(tmp_path, dropouts=1))


def another(asked: Requests) -> bytes:
    """A second cohort of the same round: a sum without the last site."""
    simulation = asked.simulation
    job = simulation.job
    made = Aggregator(job.terms(1, 1, NAMES), job.parameters, simulation.roster)
    for frame in asked.frames[:3]:
        made.receive(frame)
    return made.open_request(simulation.identities["coordinator"]).to_bytes()


def holder_with(asked: Requests, *happenings: Any) -> tuple[KeyHolder, WatchedKey]:
    holder = asked.simulation.make_key_holder()
    key = WatchedKey(asked.simulation.key, *happenings)
    holder._loaded = asked.simulation.run, key
    return holder, key


def fail() -> None:
    raise CiphertextError("coordinate 3 is 17 beyond the bound")


def die() -> None:
    raise Killed


def test_an_answer_is_stored_and_the_key_is_used_once(fresh: Requests) -> None:
    holder, key = holder_with(fresh)
    answers = {holder.handle(fresh.request()) for _ in range(3)}
    assert len(answers) == key.uses == 1
    assert opened_rounds(fresh.simulation.folder / "openings.sqlite") == [("run-1", 1, 1)]


def test_a_round_is_bound_before_the_key_is_used(fresh: Requests) -> None:
    """Killed while it decrypts, it may have shown the sum to somebody: no other is opened."""
    holder, _ = holder_with(fresh, die)
    with pytest.raises(Killed):
        holder.handle(fresh.request())
    restarted, key = holder_with(fresh)
    assert "second cohort" in refused(fresh.simulation, another(fresh), restarted)
    assert key.uses == 0
    answer = restarted.handle(fresh.request())
    assert isinstance(read_message(answer, fresh.simulation.roster).header, Opening)


def test_a_failed_decryption_is_the_rounds_answer_and_says_nothing(fresh: Requests) -> None:
    holder, key = holder_with(fresh, fail)
    said = refused(fresh.simulation, fresh.request(), holder)
    assert said == f"cohort: {DOES_NOT_OPEN}"
    assert refused(fresh.simulation, fresh.request(), holder) == said
    assert "second cohort" in refused(fresh.simulation, another(fresh), holder)
    assert key.uses == 1


def test_of_finished_rounds_the_binding_is_kept_and_no_answer(tmp_path: Path) -> None:
    simulation, asked = Simulation(tmp_path, dropouts=1), dict[int, bytes]()

    def listening(data: bytes) -> bytes:
        header = read_message(data, simulation.roster).header
        if isinstance(header, OpenRequest):
            asked[header.round] = data
        return simulation.key_holder.handle(data)

    simulation.wire.handlers["key-holder"] = listening
    outcomes = [simulation.round(number) for number in (1, 2)]
    assert simulation.key_holder.handle(asked[2]) == simulation.wire.seen["key-holder"][-1]
    message = read_message(asked[1], simulation.roster)
    other = Message.sign(simulation.identities["coordinator"], message.header, b"other").to_bytes()
    for again in (simulation.key_holder, simulation.make_key_holder()):
        assert "kept no more" in refused(simulation, asked[1], again)
        assert "second cohort" in refused(simulation, other, again)
    assert [outcome.outcome for outcome in outcomes] == ["opened", "opened"]
    store = tmp_path / "openings.sqlite"
    assert opened_rounds(store) == [("run-1", 1, 1), ("run-1", 2, 1)]
    with closing(sqlite3.connect(store)) as database:
        for change in ("answer = x'00'", "answer = NULL", "request_sha256 = ''"):
            with pytest.raises(sqlite3.IntegrityError, match="only forgotten"):
                database.execute(f"UPDATE opening SET {change} WHERE round = 1")


def test_a_store_of_before_forgets_too(tmp_path: Path) -> None:
    """Its database refuses any change of an answer."""
    simulation = Simulation(tmp_path, dropouts=1)
    with closing(sqlite3.connect(tmp_path / "openings.sqlite")) as database, database:
        database.execute("DROP TRIGGER opening_is_kept_or_forgotten")
        database.execute(
            "CREATE TRIGGER opening_is_kept BEFORE UPDATE ON opening WHEN OLD.answer IS NOT NULL "
            "BEGIN SELECT RAISE(ABORT, 'openings are never changed'); END"
        )
    simulation.key_holder = simulation.make_key_holder()
    assert [simulation.round(number).outcome for number in (1, 2)] == ["opened", "opened"]


class RacingMemory:
    """Checkpoints that are looked at while another process answers."""

    def __init__(self, memory: Any, happening: Any) -> None:
        self.memory, self.happening = memory, happening

    def report_kept_sizes(self, run: str, sites: Sequence[str]) -> dict[str, int]:
        told: dict[str, int] = self.memory.report_kept_sizes(run, sites)
        return told

    def require(self, uploads: Sequence[Upload]) -> None:
        self.memory.require(uploads)
        self.happening()


@pytest.mark.parametrize("rival", ["same", "other"])
def test_of_two_processes_at_once_one_opens(fresh: Requests, rival: str) -> None:
    """The other answers between this one's first look at its store and its binding."""
    first = fresh.request() if rival == "same" else another(fresh)
    answers: list[bytes] = []
    slow, key = holder_with(fresh)
    fast = fresh.simulation.make_key_holder()
    slow._checkpoints = RacingMemory(slow._checkpoints, lambda: answers.append(fast.handle(first)))
    answer = slow.handle(fresh.request())
    assert isinstance(read_message(answers[0], fresh.simulation.roster).header, Opening)
    assert key.uses == 0
    if rival == "same":
        assert answer == answers[0]
    else:
        header = read_message(answer, fresh.simulation.roster).header
        assert isinstance(header, Refusal)
        assert "second cohort" in header.message


def test_of_two_processes_that_decrypt_the_same_the_first_answer_stands(fresh: Requests) -> None:
    answers: list[bytes] = []
    fast = fresh.simulation.make_key_holder()
    slow, _ = holder_with(fresh, lambda: answers.append(fast.handle(fresh.request())))
    assert slow.handle(fresh.request()) == answers[0]
