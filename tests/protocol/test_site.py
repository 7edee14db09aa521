"""A site: each lie of a round's start or end is refused for its own reason, and spends nothing.

The liar here holds every other party's identity key, so that no signature gives it away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.errors import KeyMismatchError, WrongRoundError
from privagg.privacy.ledger import Checkpoint
from privagg.privacy.ledger.entries import Charge
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import (
    Acknowledgement,
    Opening,
    Presence,
    Refusal,
    RoundClose,
    Statement,
    Upload,
)
from tests.protocol.test_round import start_frame
from tests.simulator import DIMENSION, NAMES, Simulation

ELSEWHERE = "ab" * 32


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path, dropouts=1)


def refused(simulation: Simulation, frame: bytes, name: str = "north") -> str:
    """What a site says to a frame that it refuses, with the reason's word before it."""
    header = read_message(simulation.sites[name].handle(frame), simulation.roster).header
    assert isinstance(header, Refusal), header
    return f"{header.reason}: {header.message}"


# --- starts ---------------------------------------------------------------------------------------


def test_a_site_is_not_made_with_what_it_did_not_pin(simulation: Simulation) -> None:
    pins = simulation.sites["north"]._pins
    with pytest.raises(WrongRoundError, match="pinned plan"):
        simulation.site("north", pins=replace(pins, plan_digest=ELSEWHERE))
    other = simulation.plan.model_copy(update={"scheme": "ckks"})
    with pytest.raises(KeyMismatchError, match="the plan is for scheme 'ckks'"):
        simulation.site("north", plan=other, pins=replace(pins, plan_digest=other.digest))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sender": "east"}, "unavailable: 'east' does not coordinate"),
        ({"plan_digest": ELSEWHERE}, "plan: .* not the one this site pinned"),
        ({"key_id": ELSEWHERE}, "key: the round uses key"),
        ({"round": 21}, "plan: round 21 is beyond the plan's 20"),
        ({"cohort": NAMES[:3]}, "cohort: .* asks 4 different sites"),
        ({"cohort": NAMES[::-1]}, "cohort: .* asks 4 different sites"),
        ({"cohort": ("north", "north", *NAMES[2:])}, "cohort: .* asks 4 different sites"),
        ({"cohort": (*NAMES, "ghost")}, "cohort: .* asks 4 different sites"),
    ],
)
def test_a_start_that_lies_is_refused_uncharged(
    simulation: Simulation, changes: dict[str, object], reason: str
) -> None:
    said = refused(simulation, start_frame(simulation, **changes))
    with pytest.raises(AssertionError, match=f"^{reason}"):
        raise AssertionError(said)
    assert simulation.charges("north") == simulation.learners["north"].calls == 0


def test_only_who_is_asked_takes_part(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, kind=ClientPlan, cohort_size=3)
    frame = start_frame(simulation, cohort=NAMES[1:])
    assert "'north' is not in this round's cohort" in refused(simulation, frame)
    assert simulation.charges("north") == 0
    assert isinstance(
        read_message(simulation.sites["east"].handle(frame), simulation.roster).header, Upload
    )


@pytest.mark.parametrize("values", [DIMENSION - 1, DIMENSION + 1])
def test_a_model_of_another_size_is_refused_uncharged(simulation: Simulation, values: int) -> None:
    header = read_message(start_frame(simulation), simulation.roster).header
    payload = np.zeros(values, dtype="<f8").tobytes()
    frame = Message.sign(simulation.identities["coordinator"], header, payload).to_bytes()
    assert f"{8 * DIMENSION} were expected" in refused(simulation, frame)
    assert simulation.charges("north") == 0


def test_what_is_charged_counts_on_the_fewest_honest_shares(simulation: Simulation) -> None:
    simulation.sites["north"].handle(start_frame(simulation))
    (charge,) = [
        entry.payload
        for entry in simulation.ledgers["north"].entries()
        if isinstance(entry.payload, Charge)
    ]
    assert charge.event == simulation.plan.committed_event("north")
    honest = 2  # 4 sites less a dropout less a colluder
    assert charge.event == simulation.plan.event_of_shares("north", honest)


def test_sizes_that_no_proof_starts_from_cost_no_upload(simulation: Simulation) -> None:
    """After a rollback, say, or asked by a liar: whoever asked finds the proof missing."""
    start = start_frame(simulation, kept_sizes={"north": (0, 2, 10**6)})
    header = read_message(simulation.sites["north"].handle(start), simulation.roster).header
    assert isinstance(header, Upload), header
    assert [proof.since for proof in header.consistency] == [2]


def test_an_upload_that_an_earlier_version_stored_is_refused_by_name(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would read it; its attempt stays charged, and charged once."""
    site = simulation.sites["north"]
    frame = site.handle(start_frame(simulation))
    old = frame[:4] + b"\x03" + frame[5:]
    monkeypatch.setattr(site.ledger, "stored_upload", lambda *_: old)
    again = refused(simulation, start_frame(simulation))
    assert "version 3, where this side speaks 4: an earlier privagg made it" in again
    assert simulation.charges("north") == 1


def test_reproducible_noise_is_charged_as_none(simulation: Simulation) -> None:
    site = simulation.site("north", randomness=DeterministicRandomness(b"seed"))
    header = read_message(site.handle(start_frame(simulation)), simulation.roster).header
    assert isinstance(header, Refusal)
    assert header.reason == "budget"
    assert "to Infinity at delta" in header.message
    assert simulation.learners["north"].calls == 0


# --- ends -----------------------------------------------------------------------------------------


class Ends:
    """A round that every site took part in, about to be closed in one way or another."""

    def __init__(self, simulation: Simulation, cohort: tuple[str, ...] = NAMES) -> None:
        self.simulation = simulation
        self.names = cohort
        start = start_frame(simulation, cohort=cohort)
        self.uploads = {name: simulation.sites[name].handle(start) for name in cohort}
        self.place = {
            "run": "run-1", "round": 1, "attempt": 1, "plan_digest": simulation.plan.digest,
        }  # fmt: skip

    def opening(self, sender: str = "key-holder", **changes: object) -> Statement:
        facts: dict[str, Any] = {
            **self.place,
            "key_id": self.simulation.key.encryption_key.key_id,
            "request_sha256": ELSEWHERE,
            "contributors": self.names,
            **changes,
        }
        header = Opening(sender=sender, **facts)
        return Message.sign(self.simulation.identities[sender], header).statement

    def statement(self, name: str, **changes: object) -> Statement:
        """A site's signed upload, with another header if one is asked for."""
        message = read_message(self.uploads[name], self.simulation.roster)
        header = message.header.model_copy(update=changes)
        identity = self.simulation.identities[name]
        return Message.sign(identity, header, bytes(message.payload)).statement

    def presence(self, sender: str) -> Statement:
        """A party's signed word for this very round that is neither opening nor upload."""
        header = Presence(**self.place, sender=sender, nonce=ELSEWHERE, problem="")
        return Message.sign(self.simulation.identities[sender], header).statement

    def close(self, **changes: Any) -> bytes:
        survivors = changes.get("survivors", self.names)
        facts: dict[str, Any] = {
            **self.place,
            "outcome": "opened",
            "survivors": survivors,
            "reason": "",
            "opening": self.opening(contributors=survivors),
            "contributions": tuple(self.statement(name) for name in self.names),
            **changes,
        }
        header = RoundClose(sender="coordinator", **facts)
        return Message.sign(self.simulation.identities["coordinator"], header).to_bytes()


def read_upload(ends: Ends, name: str) -> Upload:
    header = read_message(ends.uploads[name], ends.simulation.roster).header
    assert isinstance(header, Upload)
    return header


def last_kind(simulation: Simulation, name: str = "north") -> str:
    return simulation.ledgers[name].entries()[-1].kind


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    simulation = Simulation(tmp_path_factory.mktemp("site"), dropouts=1)
    made = Ends(simulation)
    yield made
    # After all the lies, none of which was recorded, the truth is.
    assert last_kind(simulation) == "upload"
    header = read_message(simulation.sites["north"].handle(made.close()), simulation.roster).header
    assert isinstance(header, Acknowledgement)
    assert last_kind(simulation) == "realised"


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda e: {"opening": None}, "cohort: .* without its key holder's statement"),
        (lambda e: {"opening": e.presence("key-holder")}, ".*statement is for another round"),
        (lambda e: {"opening": e.opening(run="run-2")}, ".*statement is for another round"),
        (lambda e: {"opening": e.opening(round=2)}, ".*statement is for another round"),
        (lambda e: {"opening": e.opening(attempt=2)}, ".*statement is for another round"),
        (lambda e: {"opening": e.opening("coordinator")}, ".* is not one of 'key-holder'"),
        (lambda e: {"opening": e.opening("west")}, ".* is not one of 'key-holder'"),
        (lambda e: {"opening": e.opening(plan_digest=ELSEWHERE)}, ".* is not one of 'key-holder'"),
        (lambda e: {"opening": e.opening(key_id=ELSEWHERE)}, ".* is not one of 'key-holder'"),
        (
            lambda e: {"opening": e.opening(contributors=NAMES[:3])},
            "cohort: .* name different contributors",
        ),
        (
            lambda e: {"opening": e.opening(), "survivors": NAMES[:3]},
            "cohort: .* name different contributors",
        ),
        (lambda e: {"survivors": NAMES[::-1]}, "cohort: .* name different contributors"),
        (lambda e: {"survivors": (*NAMES, "ghost")}, "cohort: .* name different contributors"),
        (
            lambda e: {"survivors": NAMES[:2]},
            "cohort: north, east are not contributors of round 1",
        ),
        (
            lambda e: {"round": 2, "opening": e.opening(round=2)},
            "cohort: the opened sum names this site, which was charged for none of it",
        ),
    ],
)
def test_an_end_that_lies_is_not_recorded(ends: Ends, lie: Any, reason: str) -> None:
    said = refused(ends.simulation, ends.close(**lie(ends)))
    with pytest.raises(AssertionError, match=f"^{reason}"):
        raise AssertionError(said)
    assert last_kind(ends.simulation) == "upload"


def test_more_contributors_than_a_round_asks_are_none(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, kind=ClientPlan, cohort_size=3)
    ends = Ends(simulation, NAMES[:3])
    frame = ends.close(survivors=NAMES)
    assert "are not contributors of round 1 by this plan" in refused(simulation, frame)
    assert last_kind(simulation) == "upload"


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda e: [e.presence("east")], "not an upload of this round"),
        (lambda e: [e.statement("east", round=2)], "not an upload of this round"),
        (lambda e: [e.statement("east", attempt=2)], "not an upload of this round"),
        (lambda e: [], "statement of every survivor"),
        (lambda e: [e.statement("north"), e.statement("east")], "statement of every survivor"),
    ],
)
def test_what_proves_nothing_of_the_others_is_told_so_after_recording(
    simulation: Simulation, lie: Any, reason: str
) -> None:
    ends = Ends(simulation)
    statements = (ends.statement("north"), *lie(ends), *map(ends.statement, NAMES[2:]))
    assert reason in refused(simulation, ends.close(contributions=statements))
    assert last_kind(simulation) == "realised"
    assert simulation.ledgers["north"].distrusted() == {}


def test_a_contradiction_is_not_forgiven_where_the_honest_history_goes_on(
    simulation: Simulation,
) -> None:
    """What ends the wait for a missing proof ends no distrust of an owner who signed twice."""
    ends, own, east = Ends(simulation), simulation.ledgers["north"], simulation.ledgers["east"]
    simulation.sites["north"].handle(ends.close())
    shown = Checkpoint.parse(read_upload(ends, "east").checkpoint)
    fork = Checkpoint(shown.origin, shown.size, bytes(32)).sign(simulation.identities["east"].key)
    lie = {name: {"checkpoint": fork} if name == "east" else {} for name in NAMES}
    statements = tuple(ends.statement(name, **changes) for name, changes in lie.items())
    assert "ledger of 'east'" in refused(simulation, ends.close(contributions=statements))
    proof = east.consistency_proof(shown.size)
    own.keeper.keep(shown.origin, east.checkpoint(), verifier=east.verifier, proof=proof)
    assert own.keeper.heads([shown.origin]) == {shown.origin: (len(east),)}
    assert len(east) > shown.size
    assert set(own.distrusted()) == {"east"}


def test_a_proof_that_a_site_could_not_ask_for_costs_no_trust(tmp_path: Path) -> None:
    """In a round without it, nobody was told what it keeps; the next round that asks settles it."""
    simulation = Simulation(tmp_path, kind=ClientPlan, cohort_size=3)
    own, east = simulation.ledgers["north"], simulation.ledgers["east"]
    kept = Checkpoint.parse(east.checkpoint())
    own.keeper.keep(kept.origin, east.checkpoint(), verifier=east.verifier)
    ends = Ends(simulation, NAMES[1:])
    assert "a consistency proof from" in refused(simulation, ends.close())
    assert own.distrusted() == {}
    assert own.keeper.heads([kept.origin]) == {kept.origin: (kept.size,)}


def test_reproducible_noise_is_realised_as_none(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, budget="Infinity")
    simulation.sites["north"] = simulation.site(
        "north", randomness=DeterministicRandomness(b"seed")
    )
    ends = Ends(simulation)
    simulation.sites["north"].handle(ends.close())
    realised = simulation.ledgers["north"].entries()[-1].payload.to_json()
    (term,) = realised["event"]["terms"]
    assert term["mechanism"]["kind"] == "non-private"


def test_what_a_site_does_not_answer_is_named(ends: Ends) -> None:
    facts = {**ends.place, "key_id": ELSEWHERE, "request_sha256": ELSEWHERE, "contributors": NAMES}
    header = Opening.model_validate({**facts, "sender": "coordinator"})
    frame = Message.sign(ends.simulation.identities["coordinator"], header).to_bytes()
    assert "does not answer a Opening" in refused(ends.simulation, frame)
