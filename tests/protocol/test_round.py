"""Attack and accident stories on whole rounds: what is opened, what is spent, what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import Any, ClassVar

import numpy as np
import pytest

from privagg.errors import MessageError, PrivaggError, SchemeError
from privagg.identity.keys import Identity
from privagg.privacy.ledger import BudgetKey, Bundle, Checkpoint, Ledger
from privagg.privacy.ledger.replay import HISTORY_UNVERIFIABLE
from privagg.protocol.aggregator import Aggregator
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import (
    Challenge,
    LedgerExport,
    LedgerRequest,
    Opening,
    OpenRequest,
    Presence,
    Refusal,
    RoundClose,
    RoundStart,
    Upload,
)
from privagg.protocol.round import PHASES, reopen_round
from privagg.protocol.transport import Reply
from privagg.secure.plaintext import PlaintextScheme
from privagg.secure.scheme import Phase
from privagg.secure.wire import EncryptedTensor
from tests.faults import Killed
from tests.simulator import DIMENSION, NAMES, KnownLearner, Simulation, opened_rounds


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path, dropouts=1)


def start_frame(simulation: Simulation, *, sender: str = "coordinator", **changes: object) -> bytes:
    facts: dict[str, object] = {
        "run": "run-1",
        "round": 1,
        "attempt": 1,
        "sender": sender,
        "plan_digest": simulation.plan.digest,
        "key_id": simulation.key.encryption_key.key_id,
        "cohort": NAMES,
        **changes,
    }
    payload = np.zeros(DIMENSION, dtype="<f8").tobytes()
    header = RoundStart.model_validate(facts)
    return Message.sign(simulation.identities[sender], header, payload).to_bytes()


def refusal(simulation: Simulation, frame: bytes) -> Refusal:
    header = read_message(frame, simulation.roster).header
    assert isinstance(header, Refusal)
    return header


@pytest.mark.parametrize("scheme_name", ["plaintext", "ckks"])
def test_an_honest_round_opens_exactly_the_sum(tmp_path: Path, scheme_name: str) -> None:
    simulation = Simulation(tmp_path, scheme_name=scheme_name)
    outcome = simulation.round()
    assert outcome.outcome == "opened", outcome.reason
    assert outcome.update is not None
    np.testing.assert_array_equal(outcome.update, simulation.expected_update(NAMES))
    for name in NAMES:
        assert simulation.charges(name) == 1
        kinds = [entry.kind for entry in simulation.ledgers[name].entries()]
        assert kinds[-4:] == ["charge", "consumed", "upload", "realised"]


class Toy(PlaintextScheme):
    """A scheme that declares what a test says."""

    def __init__(self, *phases: Phase) -> None:
        self.phases = phases


@pytest.mark.parametrize(
    "phases",
    [
        (Phase.UPLOAD, Phase.CONSENT, Phase.OPEN),
        (Phase.CONSENT, Phase.UPLOAD, Phase.RELEASE),
        (Phase.UPLOAD, Phase.RELEASE),
        (Phase.OPEN, Phase.UPLOAD),
        (Phase.UPLOAD, Phase.UPLOAD, Phase.OPEN),
        (Phase.UPLOAD,),
        (),
    ],
)
def test_phases_that_a_round_does_not_drive_are_refused_before_any_charge(
    simulation: Simulation, phases: tuple[Phase, ...]
) -> None:
    simulation.scheme = Toy(*phases)
    declared = ", ".join(phase.value for phase in phases) or "none"
    with pytest.raises(SchemeError, match=f"'plaintext' declares the phases {declared}; .*open"):
        simulation.round()
    assert [simulation.charges(name) for name in NAMES] == [0, 0, 0, 0]
    assert not any(learner.calls for learner in simulation.learners.values())


def test_a_round_drives_the_declared_phases_in_order(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = []

    def noted(phase: Phase) -> Any:
        def drive(state: Any) -> None:
            driven.append((phase, state.aggregator is None, state.opening is None))
            PHASES[phase](state)

        return drive

    monkeypatch.setattr("privagg.protocol.round.PHASES", {each: noted(each) for each in PHASES})
    assert simulation.round().outcome == "opened"
    assert driven == [(Phase.UPLOAD, True, True), (Phase.OPEN, False, True)]


def test_no_more_uploads_are_held_at_once_than_are_added_together(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many sites there are: what came is added before the next upload is asked for."""
    monkeypatch.setattr("privagg.protocol.round.TOGETHER", 3)
    held: list[int] = []
    exchange = simulation.wire.exchange

    def counted(requests: Mapping[str, bytes]) -> Iterator[Reply]:
        for reply in exchange(requests):
            held.append(len(Aggregators.made[-1].contributors) if Aggregators.made else 0)
            yield reply

    class Aggregators(Aggregator):
        made: ClassVar[list[Aggregator]] = []

        def __init__(self, *facts: Any) -> None:
            super().__init__(*facts)
            self.made.append(self)

    monkeypatch.setattr("privagg.protocol.round.Aggregator", Aggregators)
    monkeypatch.setattr(simulation.wire, "exchange", counted)
    assert simulation.round().survivors == NAMES
    assert held[-5:-1] == [0, 0, 0, 3]  # as each upload comes; the last reply is the opening


def test_a_vanished_site_is_charged_and_the_round_goes_on(simulation: Simulation) -> None:
    simulation.wire.answers["east"] = lambda frame: None
    outcome = simulation.round()
    assert outcome.survivors == ("north", "south", "west")
    assert outcome.update is not None
    np.testing.assert_array_equal(outcome.update, simulation.expected_update(outcome.survivors))
    assert simulation.charges("east") == 1
    assert outcome.refusals == {"east": "vanished"}


def test_too_few_survivors_stop_the_round_before_opening(simulation: Simulation) -> None:
    for name in ("east", "west"):
        simulation.wire.answers[name] = lambda frame: None
    outcome = simulation.round()
    assert outcome.outcome == "stopped"
    assert "2 of 4" in outcome.reason
    assert outcome.update is None
    assert opened_rounds(simulation.folder / "openings.sqlite") == []
    assert [simulation.charges(name) for name in NAMES] == [1, 1, 1, 1]
    assert simulation.ledgers["north"].entries()[-1].kind == "aborted"


def test_a_resend_is_the_same_bytes_and_free(simulation: Simulation) -> None:
    site = simulation.sites["north"]
    first = site.handle(start_frame(simulation))
    again = site.handle(start_frame(simulation))
    restarted = simulation.site("north").handle(start_frame(simulation))
    assert first == again == restarted
    assert simulation.learners["north"].calls == 1
    assert simulation.charges("north") == 1


def test_a_new_attempt_is_a_new_charge(simulation: Simulation) -> None:
    site = simulation.sites["north"]
    site.handle(start_frame(simulation))
    site.handle(start_frame(simulation, attempt=2))
    assert simulation.charges("north") == 2
    assert simulation.learners["north"].calls == 2


class DyingLearner:
    """Does not come to an end: the process is killed, or something in it fails."""

    def __init__(self, end: BaseException) -> None:
        self.end = end

    def contribution(self, *_: object) -> np.ndarray:
        raise self.end


def test_a_site_killed_while_it_trained_trains_anew_under_the_same_charge(
    simulation: Simulation,
) -> None:
    dying = simulation.site("north", learner=DyingLearner(Killed()))
    with pytest.raises(Killed):
        dying.handle(start_frame(simulation))
    assert simulation.ledgers["north"].verify() == [HISTORY_UNVERIFIABLE]
    first = simulation.sites["north"].handle(start_frame(simulation))
    assert read_message(first, simulation.roster).header.kind == Upload.kind
    assert simulation.sites["north"].handle(start_frame(simulation)) == first
    kinds = [entry.kind for entry in simulation.ledgers["north"].entries()]
    assert [kinds.count(kind) for kind in ("charge", "consumed", "upload")] == [1, 1, 1]
    assert simulation.charges("north") == 1
    assert simulation.learners["north"].calls == 1


def test_what_is_trained_twice_leaves_once(simulation: Simulation) -> None:
    """Two processes of one site, both asked: the second one's upload is neither stored nor sent."""
    answers: list[bytes] = []

    class Slow(KnownLearner):
        def contribution(self, *arguments: Any) -> np.ndarray:
            answers.append(simulation.sites["north"].handle(start_frame(simulation)))
            return super().contribution(*arguments)

    slow = simulation.site("north", learner=Slow(simulation.learners["north"].values + 1))
    assert refusal(simulation, slow.handle(start_frame(simulation))).reason == "unavailable"
    assert slow.handle(start_frame(simulation)) == answers[0]


def test_an_attempt_is_spent_where_training_failed(simulation: Simulation) -> None:
    failing = simulation.site("north", learner=DyingLearner(ValueError("a record's own fault")))
    assert refusal(simulation, failing.handle(start_frame(simulation))).reason == "unavailable"
    answer = simulation.sites["north"].handle(start_frame(simulation))
    assert refusal(simulation, answer).reason == "spent-attempt"
    assert simulation.learners["north"].calls == 0
    assert simulation.charges("north") == 1


def test_a_copy_restored_does_not_train_anew(simulation: Simulation) -> None:
    """The ledger that it was copied from may have sent its upload since."""
    dying = simulation.site("north", learner=DyingLearner(Killed()))
    with pytest.raises(Killed):
        dying.handle(start_frame(simulation))
    copy = simulation.folder / "copy.sqlite"
    simulation.ledgers["north"].backup(copy)
    restored = Ledger.open(copy, signing_key=simulation.identities["north"].key)
    simulation.wire.handlers["north"] = simulation.site("north", ledger=restored).handle
    simulation.wire.post({"north": simulation.run_key.frame})
    answer = simulation.wire.handlers["north"](start_frame(simulation))
    assert refusal(simulation, answer).reason == "spent-attempt"


def test_an_overspent_site_never_trains(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, budget="0.05")
    outcome = simulation.round()
    assert outcome.outcome == "stopped"
    assert all("budget" in text for text in outcome.refusals.values())
    assert all(learner.calls == 0 for learner in simulation.learners.values())
    assert all(simulation.charges(name) == 0 for name in NAMES)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"plan_digest": "00" * 32}, "plan"),
        ({"key_id": "00" * 32}, "key"),
        ({"round": 21}, "plan"),
        ({"cohort": ("north", "east", "south")}, "cohort"),
        ({"cohort": ("west", "south", "east", "north")}, "cohort"),
        ({"cohort": ("north", "north", "south", "west")}, "cohort"),
        ({"sender": "east"}, "unavailable"),
    ],
)
def test_a_site_refuses_before_it_charges(
    simulation: Simulation, changes: dict[str, object], reason: str
) -> None:
    answer = simulation.sites["north"].handle(start_frame(simulation, **changes))
    assert refusal(simulation, answer).reason == reason
    assert simulation.charges("north") == 0
    assert simulation.learners["north"].calls == 0


def test_a_model_that_is_not_finite_is_refused_uncharged(simulation: Simulation) -> None:
    frame = read_message(start_frame(simulation), simulation.roster)
    payload = np.array([np.nan] * DIMENSION, dtype="<f8").tobytes()
    bad = Message.sign(simulation.identities["coordinator"], frame.header, payload).to_bytes()
    assert "finite" in refusal(simulation, simulation.sites["north"].handle(bad)).message
    assert simulation.charges("north") == 0


# --- the aggregator faces a liar ------------------------------------------------------------------


def forge(simulation: Simulation, frame: bytes, *, who: str, **changes: object) -> bytes:
    message = read_message(frame, simulation.roster)
    header = message.header.model_copy(update=changes)
    return Message.sign(simulation.identities[who], header, bytes(message.payload)).to_bytes()


def flip_payload(frame: bytes) -> bytes:
    changed = bytearray(frame)
    changed[-80] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("lie", "named"),
    [
        (lambda s, f: f[: len(f) // 2], "MessageError"),
        (lambda s, f: flip_payload(f), "SignatureError"),
        (lambda s, f: s.wire.seen["north"][-1], "UnknownPartyError"),
        (lambda s, f: forge(s, f, who="east", round=2), "WrongRoundError"),
        (lambda s, f: forge(s, f, who="east", key_id="00" * 32), "KeyMismatchError"),
        (lambda s, f: forge(s, f, who="east", attempt=9), "WrongRoundError"),
        (lambda s, f: b"", "MessageError"),
        (lambda s, f: f + b"x", "MessageError"),
    ],
)
def test_a_bad_upload_is_named_and_the_others_still_add_up(  # type: ignore[no-untyped-def]
    simulation: Simulation, lie, named: str
) -> None:
    simulation.wire.answers["east"] = lambda frame: lie(simulation, frame)
    outcome = simulation.round()
    assert outcome.survivors == ("north", "south", "west")
    assert outcome.refusals["east"].startswith(named)
    assert outcome.update is not None
    np.testing.assert_array_equal(outcome.update, simulation.expected_update(outcome.survivors))


def test_a_replayed_upload_of_an_earlier_round_is_refused(simulation: Simulation) -> None:
    simulation.round(1)
    old = simulation.wire.seen["east"][0]
    simulation.wire.answers["east"] = lambda frame: old
    outcome = simulation.round(2)
    assert "east" not in outcome.survivors
    assert "WrongRoundError" in outcome.refusals["east"]


# --- the key holder faces a curious aggregator ----------------------------------------------------


def request_of(simulation: Simulation, names: tuple[str, ...]) -> Message:
    """A request whose sum holds exactly these sites' uploads, properly labelled."""
    from privagg.protocol.aggregator import Aggregator

    job = simulation.job
    terms = job.terms(1, 1, NAMES)
    lax = type(terms)(**{**terms.__dict__, "minimum_survivors": 1})
    aggregator = Aggregator(lax, job.parameters, simulation.roster)
    for name in names:
        aggregator.receive(simulation.sites[name].handle(start_frame(simulation)))
    return aggregator.open_request(simulation.identities["coordinator"])


def answer(simulation: Simulation, request: Message) -> Message:
    frame = simulation.key_holder.handle(request.to_bytes())
    return read_message(frame, simulation.roster)


def test_the_key_holder_opens_one_cohort_a_round_also_after_a_restart(
    simulation: Simulation,
) -> None:
    whole, part = request_of(simulation, NAMES), request_of(simulation, NAMES[:3])
    first = simulation.key_holder.handle(whole.to_bytes())
    assert isinstance(read_message(first, simulation.roster).header, Opening)
    simulation.key_holder = simulation.make_key_holder()
    assert simulation.key_holder.handle(whole.to_bytes()) == first
    refused = answer(simulation, part).header
    assert isinstance(refused, Refusal)
    assert "second cohort" in refused.message


@pytest.mark.parametrize(("round_number", "attempt"), [(2, 1), (1, 2)])
def test_another_rounds_request_in_the_journal_resumes_nothing(
    simulation: Simulation, round_number: int, attempt: int
) -> None:
    """A file restored or altered: its stored answer would be stepped along a second time."""
    request = request_of(simulation, NAMES).to_bytes()
    with pytest.raises(MessageError, match="holds another request than that of round"):
        reopen_round(
            simulation.job, simulation.wire, np.zeros(DIMENSION), request=request,
            round_number=round_number, attempt=attempt, cohort=NAMES,
        )  # fmt: skip


def test_requests_that_race_open_one_cohort(simulation: Simulation) -> None:
    frames = [request_of(simulation, names).to_bytes() for names in (NAMES, NAMES[:3])]
    holders = [simulation.make_key_holder() for _ in range(8)]  # processes on one store
    start = Barrier(len(holders))

    def ask(number: int) -> bytes:
        start.wait()
        return holders[number].handle(frames[number % 2])

    with ThreadPoolExecutor(len(holders)) as pool:
        answers = list(pool.map(ask, range(len(holders))))
    headers = [read_message(data, simulation.roster).header for data in answers]
    opened = [header.contributors for header in headers if isinstance(header, Opening)]
    assert len(opened) == 4
    assert len(set(opened)) == 1


def test_the_key_holder_refuses_too_small_a_cohort(simulation: Simulation) -> None:
    refused = answer(simulation, request_of(simulation, ("north",))).header
    assert isinstance(refused, Refusal)
    assert "3 to 4" in refused.message


def test_the_key_holder_refuses_unsigned_and_relabelled_contributions(
    simulation: Simulation,
) -> None:
    request = request_of(simulation, NAMES)
    header = request.header
    assert isinstance(header, OpenRequest)
    coordinator = simulation.identities["coordinator"]
    statements = header.contributions
    unsigned = statements[0].model_copy(update={"signature": "00" * 64})
    twice = (statements[0], statements[0], *statements[2:])
    other_round = statements[0].model_copy(
        update={"header": statements[0].header.replace('"round":1', '"round":2')}
    )
    for contributions in (
        (unsigned, *statements[1:]),
        twice,
        (other_round, *statements[1:]),
        statements[::-1],
        statements[:3],
    ):
        lie = header.model_copy(update={"contributions": contributions})
        refused = answer(simulation, Message.sign(coordinator, lie, bytes(request.payload)))
        assert isinstance(refused.header, Refusal), contributions
    assert isinstance(answer(simulation, request).header, Opening)


def test_only_the_aggregator_may_ask(simulation: Simulation) -> None:
    request = request_of(simulation, NAMES)
    lie = request.header.model_copy(update={"sender": "north"})
    asked = Message.sign(simulation.identities["north"], lie, bytes(request.payload))
    assert isinstance(answer(simulation, asked).header, Refusal)
    with pytest.raises(PrivaggError):
        simulation.key_holder.handle(
            Message.sign(
                Identity.generate("coordinator"), request.header, bytes(request.payload)
            ).to_bytes()
        )


def test_strict_mode_catches_an_aggregator_that_adds_something_else(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, strict=True)
    request = request_of(simulation, NAMES)
    header = request.header
    assert isinstance(header, OpenRequest)
    assert len(header.upload_bytes) == 4
    payload = bytearray(request.payload)
    upload = read_message(
        payload[header.tensor_bytes : header.tensor_bytes + header.upload_bytes[0]],
        simulation.roster,
    )
    single = EncryptedTensor.from_bytes(upload.payload, max_bytes=10**6).payload
    payload[header.tensor_bytes - len(single) : header.tensor_bytes] = single
    coordinator = simulation.identities["coordinator"]
    refused = answer(simulation, Message.sign(coordinator, header, bytes(payload))).header
    assert isinstance(refused, Refusal)
    assert "not the sum of the uploads" in refused.message
    assert isinstance(answer(simulation, request).header, Opening)
    outcome = simulation.round(2)
    assert outcome.outcome == "opened", outcome.reason


def test_without_strict_mode_the_aggregator_is_believed_as_the_guarantee_says(
    simulation: Simulation,
) -> None:
    rows = simulation.plan.observers("north", 4)
    assert all(
        any("adds honestly" in text for text in row.assumptions)
        for row in rows
        if row.name == "model-users" and simulation.plan.scheme != "plaintext"
    )


def test_the_uploads_carry_what_an_auditor_keeps(simulation: Simulation) -> None:
    frame = simulation.sites["north"].handle(start_frame(simulation))
    header = read_message(frame, simulation.roster).header
    assert isinstance(header, Upload)
    assert header.generator.startswith("os-csprng")
    assert header.checkpoint.startswith("privagg.ledger/north\n")
    (charge,) = (e for e in simulation.ledgers["north"].entries() if e.kind == "charge")
    assert header.receipt_hash == charge.hash().hex()
    assert Checkpoint.parse(header.checkpoint).size == charge.index + 1


def test_a_site_that_contributed_nothing_realised_nothing(simulation: Simulation) -> None:
    simulation.wire.answers["east"] = lambda frame: None
    simulation.round()
    east = simulation.ledgers["east"].entries()[-1].payload.to_json()
    north = simulation.ledgers["north"].entries()[-1].payload.to_json()
    assert east["facts"]["contributed"] is False
    assert east["event"]["terms"] == []
    (term,) = north["event"]["terms"]
    share = simulation.plan.event_of_shares("north", 3).terms[0].mechanism.noise_multiplier
    assert term["mechanism"]["noise_multiplier"] == str(share)


def test_a_ledger_that_was_rolled_back_is_refused_as_a_contributor(
    simulation: Simulation,
) -> None:
    """The owner restores yesterday's file and signs on: budget regained, but not unseen."""
    simulation.round(1)
    copy = simulation.folder / "yesterday.sqlite"
    simulation.ledgers["east"].backup(copy)
    simulation.round(2)
    assert simulation.watch.kept_sizes(NAMES)["east"][0] > 0
    rolled_back = Ledger.open(copy, signing_key=simulation.identities["east"].key)
    simulation.wire.handlers["east"] = simulation.site("east", ledger=rolled_back).handle
    simulation.begin("run-2")
    outcome = simulation.round(3)
    assert "east" not in outcome.survivors
    assert outcome.refusals["east"].startswith("Ledger")
    assert outcome.outcome == "opened"


def test_honest_ledgers_extend_what_was_kept(simulation: Simulation) -> None:
    sizes = []
    for number in (1, 2, 3):
        assert simulation.round(number).survivors == NAMES
        sizes.append(simulation.watch.kept_sizes(NAMES)["north"])
    assert sizes == sorted(set(sizes))


# --- found by attacking it ------------------------------------------------------------------------


def close_frame(simulation: Simulation, opener: str, survivors: tuple[str, ...]) -> bytes:
    place = {"run": "run-1", "round": 1, "attempt": 1, "plan_digest": simulation.plan.digest}
    opening = Opening(
        **place,
        sender=opener,
        key_id=simulation.key.encryption_key.key_id,
        request_sha256="00" * 32,
        contributors=survivors,
    )
    statement = Message.sign(simulation.identities[opener], opening).statement
    close = RoundClose(
        **place,
        sender="coordinator",
        outcome="opened",
        survivors=survivors,
        reason="",
        opening=statement,
    )
    return Message.sign(simulation.identities["coordinator"], close).to_bytes()


@pytest.mark.parametrize(
    ("opener", "survivors"),
    [
        ("coordinator", NAMES),
        ("key-holder", (*NAMES, "ghost")),
        ("key-holder", ("north",)),
        ("key-holder", NAMES[::-1]),
    ],
)
def test_the_coordinator_cannot_write_a_realised_event(
    simulation: Simulation, opener: str, survivors: tuple[str, ...]
) -> None:
    site = simulation.sites["north"]
    site.handle(start_frame(simulation))
    refusal(simulation, site.handle(close_frame(simulation, opener, survivors)))
    assert simulation.ledgers["north"].entries()[-1].kind == "upload"


def test_a_stop_is_recorded_only_where_something_was_open(simulation: Simulation) -> None:
    site = simulation.sites["north"]
    stop = RoundClose(
        run="run-1",
        round=1,
        attempt=1,
        sender="coordinator",
        plan_digest=simulation.plan.digest,
        outcome="stopped",
        survivors=(),
        reason="because",
        opening=None,
    )
    frame = Message.sign(simulation.identities["coordinator"], stop).to_bytes()
    refusal(simulation, site.handle(frame))
    simulation.round(1)
    refusal(simulation, site.handle(frame))
    assert simulation.ledgers["north"].entries()[-1].kind == "realised"


def test_a_lost_opening_is_asked_for_again_and_found(simulation: Simulation) -> None:
    lost = iter([None, None])
    simulation.wire.answers["key-holder"] = lambda frame: next(lost, frame)
    outcome = simulation.round()
    assert outcome.outcome == "opened", outcome.reason
    assert outcome.opening_asked
    assert len(set(simulation.wire.seen["key-holder"][1:])) == 1
    assert [simulation.charges(name) for name in NAMES] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("signer", "changes"),
    [
        ("key-holder", {"request_sha256": "00" * 32}),
        ("key-holder", {"run": "run-2"}),
        ("key-holder", {"round": 2}),
        ("key-holder", {"attempt": 2}),
        ("key-holder", {"contributors": NAMES[:3]}),
        ("west", {"sender": "west"}),
    ],
)
def test_an_opening_of_another_request_is_not_taken(
    simulation: Simulation, signer: str, changes: dict[str, object]
) -> None:
    def elsewhere(frame: bytes) -> bytes:
        header = read_message(frame, simulation.roster).header
        if not isinstance(header, Opening):
            return frame
        return forge(simulation, frame, who=signer, **changes)

    simulation.wire.answers["key-holder"] = elsewhere
    outcome = simulation.round()
    assert outcome.outcome == "stopped"
    assert "answered another request" in outcome.reason
    assert outcome.opening_asked
    assert outcome.update is None


def test_what_the_key_holder_bound_survives_a_power_loss(simulation: Simulation) -> None:
    """With a rollback journal only EXTRA syncs the folder in which deleting it is the commit."""
    with closing(simulation.key_holder._connect()) as database:
        (journal,) = database.execute("PRAGMA journal_mode").fetchone()
        (synchronous,) = database.execute("PRAGMA synchronous").fetchone()
    assert (journal, synchronous) == ("delete", 3)


@pytest.mark.parametrize("size", [0, 2**53, 2**63, 10**19 - 1])
def test_a_checkpoint_that_no_ledger_has_stops_its_site_alone(
    simulation: Simulation, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one site signs must not keep coordinator, key holder or others from answering."""
    east = simulation.identities["east"]

    def absurd(frame: bytes) -> bytes:
        message = read_message(frame, simulation.roster)
        note = Checkpoint("privagg.ledger/east", size, bytes(32)).sign(east.key)
        header = message.header.model_copy(update={"checkpoint": note})
        return Message.sign(east, header, bytes(message.payload)).to_bytes()

    simulation.wire.answers["east"] = absurd
    outcome = simulation.round(1)
    assert outcome.survivors == ("north", "south", "west")
    assert outcome.refusals["east"].startswith("LedgerTamperedError")
    with monkeypatch.context() as blind:
        blind.setattr(simulation.watch, "keep", lambda uploads, since: None)
        assert "'key-holder' refuses to open: the ledger of 'east'" in simulation.round(2).reason
    assert simulation.round(3).survivors == ("north", "south", "west")


def test_the_key_holder_is_no_oracle_that_can_be_asked_twice(tmp_path: Path) -> None:
    """A request that decrypts to nonsense uses the round up, and every refusal reads the same."""
    simulation = Simulation(tmp_path, scheme_name="bfv")
    honest = request_of(simulation, NAMES)
    payload = bytearray(honest.payload)
    header = honest.header
    assert isinstance(header, OpenRequest)
    # A residue of c0, where nothing but the aggregator's honesty stands: the sum opens to nonsense.
    payload[header.tensor_bytes - simulation.job.parameters.payload_bytes] ^= 1
    coordinator = simulation.identities["coordinator"]
    first = answer(simulation, Message.sign(coordinator, header, bytes(payload))).header
    if isinstance(first, Refusal):
        assert "range" in first.message
    second = answer(simulation, honest).header
    assert isinstance(second, Refusal)
    assert "second cohort" in second.message


def test_training_that_fails_tells_nobody_why(simulation: Simulation) -> None:
    class Failing:
        def contribution(self, *_: object) -> np.ndarray:
            raise ValueError("patient 4711 has no scan")

    frame = simulation.site("north", learner=Failing()).handle(start_frame(simulation))
    assert "4711" not in refusal(simulation, frame).message


def test_a_strict_key_holder_sees_single_uploads_and_its_row_says_so(tmp_path: Path) -> None:
    rows = {
        (row.name, row.colluding_sites): row
        for row in Simulation(tmp_path, strict=True, scheme_name="ckks").plan.observers("north", 4)
    }
    assert rows["key-holder", 0].event == rows["aggregator+key-holder", 0].event


def challenge(simulation: Simulation, *, number: int = 1, sender: str = "coordinator") -> bytes:
    header = Challenge(
        run="run-1", round=number, attempt=1, sender=sender,
        plan_digest=simulation.plan.digest, nonce="5a" * 32,
    )  # fmt: skip
    return Message.sign(simulation.identities[sender], header).to_bytes()


def test_every_party_proves_who_it_is_to_the_coordinator_only(simulation: Simulation) -> None:
    for name, handler in simulation.wire.handlers.items():
        header = read_message(handler(challenge(simulation)), simulation.roster).header
        assert isinstance(header, Presence)
        assert (header.sender, header.nonce, header.problem) == (name, "5a" * 32, "")
        refusal(simulation, handler(challenge(simulation, sender="west")))


def test_a_site_says_before_round_1_that_its_budget_is_too_small(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, budget="0.5")
    header = read_message(
        simulation.sites["north"].handle(challenge(simulation)), simulation.roster
    ).header
    assert isinstance(header, Presence)
    assert "beyond its budget of 0.5" in header.problem
    later = simulation.sites["north"].handle(challenge(simulation, number=2))
    assert read_message(later, simulation.roster).header.problem == ""  # type: ignore[attr-defined]
    assert simulation.charges("north") == 0


def ask_for_ledger(simulation: Simulation, name: str) -> Message:
    header = LedgerRequest(
        run="run-1", round=1, attempt=1, sender="coordinator", plan_digest=simulation.plan.digest
    )
    frame = Message.sign(simulation.identities["coordinator"], header).to_bytes()
    return read_message(simulation.sites[name].handle(frame), simulation.roster)


def test_a_job_that_is_charged_already_fits_its_budget(tmp_path: Path) -> None:
    """Where only a ledger is missing still, the whole job is not held against the budget again."""
    (tmp_path / "costs").mkdir()
    costs = Simulation(tmp_path / "costs", rounds=1)
    costs.round()
    spent = costs.ledgers["north"].spent(BudgetKey("north", "record")).epsilon.upper
    simulation = Simulation(tmp_path, rounds=1, budget=str(spent))
    simulation.round()
    ask_for_ledger(simulation, "north")  # after which no upload is stored any more
    header = read_message(
        simulation.sites["north"].handle(challenge(simulation)), simulation.roster
    ).header
    assert isinstance(header, Presence)
    assert header.problem == ""
    other = Challenge(**{**header.model_dump(include={"round", "attempt", "plan_digest"}),
                         "run": "run-10", "sender": "coordinator", "nonce": "5a" * 32})  # fmt: skip
    frame = Message.sign(simulation.identities["coordinator"], other).to_bytes()
    asked = read_message(simulation.sites["north"].handle(frame), simulation.roster).header
    assert isinstance(asked, Presence)
    assert "beyond its budget" in asked.problem


def test_a_site_exports_its_ledger_and_frees_its_uploads(simulation: Simulation) -> None:
    simulation.round()
    message = ask_for_ledger(simulation, "north")
    assert isinstance(message.header, LedgerExport)
    export = Bundle.parse(bytes(message.payload))
    assert export.replay().owner == "north"
    assert len(export.bodies) == len(simulation.ledgers["north"].entries())
    assert simulation.ledgers["north"].stored_upload("run-1", 1, 1) is None
    header = LedgerRequest(
        run="run-1", round=1, attempt=1, sender="west", plan_digest=simulation.plan.digest
    )
    stranger = Message.sign(simulation.identities["west"], header)
    refusal(simulation, simulation.sites["north"].handle(stranger.to_bytes()))
