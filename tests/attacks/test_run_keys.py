"""Keys of runs: who may name one, how long it lives, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.errors import (
    ApprovalError,
    ConfigError,
    KeyErasedError,
    PrivaggError,
    SignatureError,
    UnknownPartyError,
    WrongRoundError,
)
from privagg.identity.keys import Identity, Roster
from privagg.party import open as folders
from privagg.party.cards import Card
from privagg.protocol.frames import Message, read_message
from privagg.protocol.key_holder import KeyHolder
from privagg.protocol.key_statement import FIRST
from privagg.protocol.key_store import MOST_LIVING
from privagg.protocol.messages import KeyRequest, KeyStatement, Opening, Refusal, RoundStart
from privagg.protocol.round import run_round
from privagg.run.journal import Journal
from privagg.run.keying import key_of_run
from tests.faults import Killed
from tests.simulator import DIMENSION, NAMES, Simulation

SCHEMES = ("bfv", "ckks")


def said(simulation: Simulation, answer: bytes) -> str:
    """A refusal as `reason: text`."""
    header = read_message(answer, simulation.roster).header
    assert isinstance(header, Refusal), header
    return f"{header.reason}: {header.message}"


def stated(simulation: Simulation, signer: str = "key-holder", **changes: Any) -> Message:
    """A statement of a fresh key, signed by whom the story says."""
    key = simulation.watched.generate_key(simulation.parameters).encryption_key
    facts: dict[str, Any] = {
        "run": simulation.run, "round": FIRST, "attempt": FIRST, "sender": signer,
        "plan_digest": simulation.plan.digest, "key_id": key.key_id, "until": simulation.until,
        "federation_digest": simulation.terms.federation_digest,
        "parameters_fingerprint": key.parameters.fingerprint, **changes,
    }  # fmt: skip
    header = KeyStatement.model_validate(facts)
    return Message.sign(simulation.identities[signer], header, key.to_bytes())


def start(simulation: Simulation, key_id: str, run: str = "") -> bytes:
    """The first round of a run, under a key that the coordinator names."""
    header = RoundStart(
        run=run or simulation.run, round=1, attempt=1, sender="coordinator",
        plan_digest=simulation.plan.digest, key_id=key_id, cohort=NAMES,
    )  # fmt: skip
    payload = np.zeros(DIMENSION).tobytes()
    return Message.sign(simulation.identities["coordinator"], header, payload).to_bytes()


def request(simulation: Simulation, run: str) -> bytes:
    """What a coordinator asks a key with."""
    header = KeyRequest(
        run=run, round=FIRST, attempt=FIRST, sender="coordinator",
        plan_digest=simulation.plan.digest, federation_digest=simulation.terms.federation_digest,
    )  # fmt: skip
    return Message.sign(simulation.identities["coordinator"], header).to_bytes()


def kinds(simulation: Simulation, name: str) -> list[str]:
    return [entry.kind for entry in simulation.ledgers[name].entries()]


# --- who may name a key ---------------------------------------------------------------------------


def test_a_second_key_of_a_run_is_refused_even_where_the_key_holder_signs_it(
    tmp_path: Path,
) -> None:
    """Under two keys a dishonest key holder could open one site's share by itself."""
    simulation = Simulation(tmp_path)
    second = stated(simulation)
    assert isinstance(second.header, KeyStatement)
    for name in NAMES:
        answer = said(simulation, simulation.sites[name].handle(second.to_bytes()))
        assert answer.startswith("key: run 'run-1' has key "), answer
        assert "a second statement" in answer
        refused = simulation.sites[name].handle(start(simulation, second.header.key_id))
        assert said(simulation, refused).startswith("key: the round uses key ")
        assert simulation.charges(name) == 0
        assert kinds(simulation, name).count("run-key") == 1
    assert simulation.round().outcome == "opened"


def test_a_restarted_site_still_takes_no_second_key(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    again = simulation.site("north")
    assert said(simulation, again.handle(stated(simulation).to_bytes())).startswith("key: run ")
    assert simulation.round().outcome == "opened"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"plan_digest": "ab" * 32}, "plan: the key that came is stated for run run-2, plan abab"),
        ({"federation_digest": "ab" * 32}, "plan: .* stated for federation abab"),
        ({"parameters_fingerprint": "ab" * 32}, "key: 'key-holder' states key .* parameters abab"),
        ({"key_id": "ab" * 32}, "key: 'key-holder' states key abab"),
        ({"round": 2}, "plan: the key that came is stated from round 2 on"),
    ],
)
def test_a_statement_of_something_else_gives_no_key(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    simulation = Simulation(tmp_path)
    simulation.run = "run-2"
    other = stated(simulation, **changes)
    with pytest.raises(AssertionError, match=f"^{reason}"):
        raise AssertionError(said(simulation, simulation.sites["north"].handle(other.to_bytes())))
    assert kinds(simulation, "north").count("run-key") == 1, "that of run-1, and no other"


def test_the_key_of_an_earlier_run_is_not_that_of_this_one(tmp_path: Path) -> None:
    """Replayed, it stays the earlier run's; the new run has none, so nothing is charged for it."""
    simulation = Simulation(tmp_path)
    old = simulation.run_key
    with pytest.raises(WrongRoundError, match="stated for run run-1"):
        simulation.terms.read(old.frame, "run-2")
    simulation.sites["north"].handle(old.frame)
    answer = simulation.sites["north"].handle(start(simulation, old.key_id, "run-2"))
    assert said(simulation, answer).startswith("key: no statement of the key of run 'run-2'")
    assert simulation.charges("north") == 0


def test_a_coordinator_cannot_put_its_own_key_in(tmp_path: Path) -> None:
    """Whoever holds the secret reads every upload, so the coordinator would rather make the key."""
    simulation = Simulation(tmp_path)
    simulation.run = "run-2"
    own = stated(simulation, "coordinator")
    with pytest.raises(UnknownPartyError, match="'coordinator' states a key"):
        simulation.terms.read(own.to_bytes(), "run-2")
    answer = said(simulation, simulation.sites["north"].handle(own.to_bytes()))
    assert "'coordinator' states a key" in answer
    liar = Identity("key-holder", simulation.identities["coordinator"].key)
    simulation.identities["key-holder"], honest = liar, simulation.identities["key-holder"]
    forged = stated(simulation)
    simulation.identities["key-holder"] = honest
    with pytest.raises(SignatureError):
        simulation.sites["north"].handle(forged.to_bytes())
    assert kinds(simulation, "north").count("run-key") == 1
    assert simulation.charges("north") == 0


def test_a_key_is_made_for_the_parties_that_the_key_holder_pins(tmp_path: Path) -> None:
    """A coordinator that shows sites another roster than the key holder gets no key for it."""
    simulation = Simulation(tmp_path)
    others = Roster({**simulation.roster.keys, "west": Identity.generate("west").public_hex})
    digest = others.federation_digest(coordinator="coordinator", opener="key-holder")
    header = read_message(request(simulation, "run-2"), simulation.roster).header
    frame = Message.sign(
        simulation.identities["coordinator"],
        header.model_copy(update={"federation_digest": digest}),
    ).to_bytes()
    answer = said(simulation, simulation.key_holder.handle(frame))
    assert "other identity keys, or other roles" in answer


def test_an_old_card_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    """Cards of version 1 pinned one key for all runs of a federation."""
    path = tmp_path / "north.card"
    card = {"version": 1, "party": "north", "key_id": "ab" * 32}
    path.write_text(json.dumps({"card": card, "signature": "00" * 64}))
    with pytest.raises(
        ConfigError, match=r"version 1, .* make its card anew: privagg deploy party"
    ):
        Card.read(path)


# --- how long a key lives -------------------------------------------------------------------------


def secret_of(simulation: Simulation) -> bytes:
    """The secret half alone, as the key holder's file would hold it."""
    key = simulation.key
    whole, public = key.to_bytes(), key.encryption_key.to_bytes()
    assert whole.startswith(public)
    return whole[len(public) :]


def on_disk(simulation: Simulation) -> bytes:
    return b"".join(path.read_bytes() for path in simulation.folder.glob("openings.sqlite*"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_key_goes_with_the_last_planned_round_and_opens_nothing_after(
    tmp_path: Path, scheme: str
) -> None:
    """Who steals the key holder's file afterwards, or forces it, opens no upload that was kept."""
    simulation = Simulation(tmp_path, scheme_name=scheme, rounds=2)
    first = simulation.round(1)
    requests = record(simulation)
    assert simulation.round(2).outcome == "opened"
    secret = secret_of(simulation)
    assert len(secret) > 4096
    left = on_disk(simulation)
    pieces = [secret[at : at + 64] for at in range(0, len(secret) - 64, 64)]
    assert not [piece for piece in pieces if any(piece) and piece in left]
    # Both results are resent as they were stored; a key, or another opening, there is none.
    assert first.outcome == "opened"
    assert isinstance(
        read_message(again(simulation, requests[-1]), simulation.roster).header, Opening
    )
    answer = said(simulation, simulation.key_holder.handle(request(simulation, "run-1")))
    assert answer.startswith("key-erased: the key of run 'run-1' was erased with the result of its")


def record(simulation: Simulation) -> list[bytes]:
    """What the key holder is asked from now on."""
    asked: list[bytes] = []

    def hear(frame: bytes) -> bytes:
        asked.append(frame)
        return simulation.key_holder.handle(frame)

    simulation.wire.handlers["key-holder"] = hear
    return asked


def again(simulation: Simulation, frame: bytes) -> bytes:
    simulation.key_holder = simulation.make_key_holder()
    return simulation.key_holder.handle(frame)


def test_a_round_kept_back_until_the_key_is_gone_stays_closed(tmp_path: Path) -> None:
    """The aggregator has the last round opened first, and then comes with the one before."""
    simulation = Simulation(tmp_path, rounds=2)
    simulation.wire.answers["key-holder"] = lambda _: None
    asked = record(simulation)
    late = simulation.round(1)
    assert late.opening_asked, "and the key holder opened it; the answer was lost"
    simulation.wire.answers.clear()
    assert simulation.round(2).outcome == "opened"
    stored = again(simulation, asked[-1])
    assert isinstance(read_message(stored, simulation.roster).header, Opening)


def test_a_round_that_was_never_asked_stays_closed_after_the_erase(tmp_path: Path) -> None:
    """An aggregator keeps a round's uploads back and comes with them when the run is over."""
    simulation = Simulation(tmp_path, rounds=2)
    kept_back: list[bytes] = []
    simulation.wire.handlers["key-holder"] = lambda frame: kept_back.append(frame) or b""
    assert simulation.round(1).opening_asked
    simulation.wire.handlers["key-holder"] = simulation.key_holder.handle
    assert simulation.round(2).outcome == "opened"
    assert said(simulation, again(simulation, kept_back[-1])).startswith("key-erased: ")


def test_a_run_gone_on_with_after_the_erase_stops_by_name(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, rounds=1)
    journal = Journal(tmp_path)
    coordinator = simulation.identities["coordinator"]

    def take_up() -> None:
        found = key_of_run(simulation.terms, "run-1", coordinator, simulation.wire, journal)
        simulation.keys["run-1"] = found

    take_up()
    assert simulation.round().outcome == "opened"
    take_up()
    with pytest.raises(KeyErasedError, match=r"run 'run-1' was erased .* Start a new run"):
        run_round(simulation.job, simulation.wire, np.zeros(DIMENSION), round_number=2)
    assert [simulation.charges(name) for name in NAMES] == [1, 1, 1, 1], "nobody was asked"
    with pytest.raises(KeyErasedError, match="states no key for run 'run-1'"):
        key_of_run(simulation.terms, "run-1", coordinator, simulation.wire)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_when_the_approval_ends_the_key_is_gone_whatever_was_opened(
    tmp_path: Path, scheme: str
) -> None:
    simulation = Simulation(tmp_path, scheme_name=scheme)
    simulation.until = "2026-12-24"
    simulation.begin("run-2")
    secret = secret_of(simulation)
    assert simulation.round(1).outcome == "opened"
    assert secret[:512] in on_disk(simulation)
    simulation.day = "2026-12-25"
    outcome = simulation.round(2)
    assert outcome.outcome == "stopped"
    assert "erased when its last day, 2026-12-24, was over" in outcome.reason
    pieces = [secret[at : at + 64] for at in range(0, len(secret) - 64, 64)]
    left = on_disk(simulation)
    assert not [piece for piece in pieces if any(piece) and piece in left]


def test_a_key_holder_that_only_starts_again_erases_what_has_ended(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, scheme_name="bfv")
    simulation.until = "2026-12-24"
    simulation.begin("run-2")
    simulation.day = "2026-12-25"
    simulation.make_key_holder()
    assert secret_of(simulation)[:512] not in on_disk(simulation)


def test_a_key_holder_that_stays_erases_though_nobody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(tmp_path, scheme_name="bfv")
    simulation.until = "2026-12-24"
    simulation.begin("run-2")
    there: list[bool] = []

    def sleep(_: float) -> None:
        there.append(secret_of(simulation)[:512] in on_disk(simulation))
        if len(there) == 3:
            raise Killed
        simulation.day = f"2026-12-{23 + len(there)}"

    monkeypatch.setattr(folders.time, "sleep", sleep)
    with pytest.raises(Killed):
        folders._erase_as_days_end(simulation.key_holder)
    assert there == [True, True, False]


def test_a_site_spends_nothing_on_a_run_whose_key_has_ended(tmp_path: Path) -> None:
    """Nothing would be opened: the site knows the last day by the key holder's own statement."""
    simulation = Simulation(tmp_path)
    simulation.day, simulation.until = "2020-01-01", "2020-01-02"
    simulation.begin("run-2")
    outcome = simulation.round()
    assert all("opens nothing of run 'run-2' after 2020-01-02" in why
               for why in outcome.refusals.values())  # fmt: skip
    assert [simulation.charges(name) for name in NAMES] == [0, 0, 0, 0]


def test_without_its_owners_approval_a_key_holder_makes_no_key(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)

    def withdrawn() -> str:
        raise ApprovalError("the owner of 'key-holder' has not approved plan")

    simulation.key_holder._until = withdrawn
    answer = said(simulation, simulation.key_holder.handle(request(simulation, "run-2")))
    assert answer.startswith("plan: the owner of 'key-holder' has not approved")
    assert simulation.round().outcome == "stopped", "and opens nothing of a run begun before"


def test_who_withdraws_the_approval_has_the_key_erased(tmp_path: Path) -> None:
    """It opened nothing any more, but lay in the file until the day that was once agreed on."""
    simulation = Simulation(tmp_path, scheme_name="bfv")
    assert simulation.round(1).outcome == "opened"
    secret = secret_of(simulation)
    assert secret[:512] in on_disk(simulation)
    approved = simulation.key_holder._until

    def withdrawn() -> str:
        raise ApprovalError("the owner of 'key-holder' has not approved plan")

    simulation.key_holder._until = withdrawn
    simulation.key_holder.erase_ended()
    assert secret[:512] not in on_disk(simulation)
    simulation.key_holder._until = approved
    answer = said(simulation, simulation.key_holder.handle(request(simulation, "run-1")))
    assert "was erased as no approval of its holder's owner was in force" in answer
    assert "opened" not in simulation.round(2).outcome
    simulation.begin("run-2")
    assert simulation.round(1).outcome == "opened", "a new approval is for new runs"


def test_a_key_that_another_job_of_the_party_erased_is_forgotten_here_too(tmp_path: Path) -> None:
    """One file of keys, a holder for each job: who came second kept the key in memory for good."""
    simulation = Simulation(tmp_path)
    assert simulation.round(1).outcome == "opened"
    here, other = simulation.key_holder, simulation.make_key_holder()
    here.erase_ended()
    assert here._loaded is not None
    other.erase(simulation.run)
    here.erase_ended()
    assert here._loaded is None


def test_keys_for_endless_runs_are_refused_until_some_are_gone(tmp_path: Path) -> None:
    """Each took a file's space for ever, and an entry in every site's ledger that costs nothing."""
    simulation = Simulation(tmp_path, rounds=1)
    ask = simulation.key_holder.handle
    for number in range(MOST_LIVING - 1):
        ask(request(simulation, f"endless-{number}"))
    made = len(simulation.watched.made)
    for number in range(3):
        answer = said(simulation, ask(request(simulation, f"more-{number}")))
        assert answer.startswith("cohort: 64 runs that never ended still have their keys")
    assert len(simulation.watched.made) == made, "no time is spent on it either"
    assert ask(request(simulation, "run-1")) == simulation.run_key.frame
    assert simulation.round().outcome == "opened", "the run that ends makes room"
    assert isinstance(
        read_message(ask(request(simulation, "more-0")), simulation.roster).header, KeyStatement
    )


def test_keys_that_two_processes_make_at_once_are_no_more_than_there_is_room_for(
    tmp_path: Path,
) -> None:
    simulation = Simulation(tmp_path)
    holders = [simulation.make_key_holder(), simulation.make_key_holder()]
    for number in range(MOST_LIVING - 2):
        holders[0].handle(request(simulation, f"endless-{number}"))
    make = holders[0]._make_key

    def late(*arguments: Any) -> None:
        holders[1].handle(request(simulation, "meanwhile"))
        make(*arguments)

    holders[0]._make_key = late  # type: ignore[method-assign]
    answer = said(simulation, holders[0].handle(request(simulation, "last")))
    assert "did not keep the key; nothing is stated" in answer
    assert sum(alive for *_, alive in rows(simulation)) == MOST_LIVING


# --- killed while it writes -----------------------------------------------------------------------


def killed_at(holder: KeyHolder, step: int, work: Callable[[], Any]) -> bool:
    """Do `work` in a child that is killed before statement `step` on the key holder's database.

    Returns:
        Whether the child was killed; else there were fewer statements.
    """
    child = os.fork()
    if child == 0:
        left = [step]

        def count(_: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        connect = holder._connect

        def watched() -> sqlite3.Connection:
            database = connect()
            database.set_trace_callback(count)
            return database

        holder._connect = holder._keys._connect = watched  # type: ignore[method-assign]
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def rows(simulation: Simulation) -> list[tuple[Any, ...]]:
    with sqlite3.connect(simulation.folder / "openings.sqlite") as database:
        return database.execute(
            "SELECT run, statement, secret IS NOT NULL FROM run_key ORDER BY run"
        ).fetchall()


def test_killed_at_any_write_a_run_has_no_key_or_the_one_that_is_stated(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    for step in range(100):
        run = f"kill-{step}"
        frame = request(simulation, run)
        holder = simulation.make_key_holder()
        killed = killed_at(holder, step, lambda h=holder, f=frame: h.handle(f))
        before = {row[0]: row for row in rows(simulation)}.get(run)
        answer = again(simulation, frame)
        after = {row[0]: row for row in rows(simulation)}[run]
        assert answer == after[1]
        assert before in (None, after), "a key that was made is the key that is stated"
        if not killed:
            break
    assert step > 2
    assert not killed


def test_killed_at_any_write_of_the_last_result_it_is_there_or_the_key_is(tmp_path: Path) -> None:
    """Never neither, so that no round is lost; never both, so that no key outlives its run."""
    simulation = Simulation(tmp_path, rounds=1)
    for step in range(100):
        simulation.begin(f"kill-{step}")
        asked: list[bytes] = []
        simulation.wire.handlers["key-holder"] = lambda frame, a=asked: a.append(frame) or b""
        simulation.round()
        simulation.wire.handlers["key-holder"] = lambda data: simulation.key_holder.handle(data)
        holder = simulation.make_key_holder()
        killed = killed_at(holder, step, lambda h=holder, f=asked[-1]: h.handle(f))
        with sqlite3.connect(simulation.folder / "openings.sqlite") as database:
            (stored,) = database.execute(
                "SELECT count(answer) FROM opening WHERE run = ?", (simulation.run,)
            ).fetchone()
        alive = {row[0]: row[2] for row in rows(simulation)}[simulation.run]
        assert bool(stored) != bool(alive)
        answer = again(simulation, asked[-1])
        assert isinstance(read_message(answer, simulation.roster).header, Opening)
        if not killed:
            break
    assert step > 4
    assert not killed


def test_sites_of_one_process_share_a_key_and_no_other_terms_take_it(tmp_path: Path) -> None:
    """It lies in memory once, and what one found good is good for nobody with other terms."""
    simulation = Simulation(tmp_path, scheme_name="bfv")
    message = read_message(simulation.run_key.frame, simulation.roster)
    taken = [simulation.terms.take(message, simulation.run) for _ in range(3)]
    assert all(one is taken[0] for one in taken)
    stranger = Roster.of(*(Identity.generate(name) for name in simulation.roster.keys))
    (tmp_path / "other").mkdir()
    other = Simulation(tmp_path / "other", scheme_name="bfv", delta=Decimal("1e-6")).plan
    for changes, refused in (
        ({"roster": stranger}, WrongRoundError),
        ({"coordinator": NAMES[0]}, WrongRoundError),
        ({"opener": NAMES[0]}, UnknownPartyError),
        ({"plan": other}, WrongRoundError),
    ):
        with pytest.raises(refused):
            replace(simulation.terms, **changes).take(message, simulation.run)
    with pytest.raises(WrongRoundError):
        simulation.terms.take(message, "run-2")
    forged = replace(message, payload=bytes(message.payload)[:-1] + b"x", payload_digest="0" * 64)
    with pytest.raises(PrivaggError):
        simulation.terms.take(forged, simulation.run)
