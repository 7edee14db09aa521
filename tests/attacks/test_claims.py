"""What a party merely says: a round that did not stop, checkpoints that nobody keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.audit import Methods, Verdict
from privagg.audit.claims import Claim
from privagg.identity.keys import Roster
from privagg.privacy.ledger import CheckpointKeeper
from privagg.privacy.ledger.keeper import MAX_BRANCHES
from privagg.protocol.checkpoints import CheckpointWatch
from privagg.protocol.closing import MAX_CLAIM, STOPPED_BY_CLAIM
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import MAX_PROOFS, Acknowledgement, Refusal, RoundClose
from tests.audit.conftest import Evidence, bundle_of
from tests.report.worlds import World, distributed
from tests.simulator import NAMES, Simulation

LIBEL = "the records of north are forged; " * 60


def false_stop(simulation: Simulation, reason: str = LIBEL) -> bytes:
    """The coordinator tells that round 1 stopped, whatever became of it."""
    header = RoundClose(
        run=simulation.run,
        round=1,
        attempt=1,
        sender="coordinator",
        plan_digest=simulation.plan.digest,
        outcome="stopped",
        survivors=(),
        reason=reason[:2048],
        opening=None,
    )
    return Message.sign(simulation.identities["coordinator"], header).to_bytes()


def lie_to_north(simulation: Simulation, *, first: bool) -> None:
    """North is told that the round stopped, before (or after) it is told the truth."""
    handle = simulation.wire.handlers["north"]

    def told(frame: bytes) -> bytes:
        if not isinstance(read_message(frame, simulation.roster).header, RoundClose):
            return handle(frame)
        frames = [false_stop(simulation), frame] if first else [frame, false_stop(simulation)]
        return [handle(each) for each in frames][-1]

    simulation.wire.handlers["north"] = told


def test_the_key_holders_statement_overrides_a_false_stop(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    lie_to_north(simulation, first=True)
    assert simulation.round().outcome == "opened"
    answer = read_message(simulation.wire.posted["north"], simulation.roster).header
    assert isinstance(answer, Acknowledgement)
    kinds = [entry.kind for entry in simulation.ledgers["north"].entries()]
    assert kinds[-2:] == ["aborted", "realised"]
    assert simulation.charges("north") == 1


def test_what_was_opened_is_not_stopped_afterwards(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    lie_to_north(simulation, first=False)
    assert simulation.round().outcome == "opened"
    assert isinstance(
        read_message(simulation.wire.posted["north"], simulation.roster).header, Refusal
    )
    assert simulation.ledgers["north"].entries()[-1].kind == "realised"


def test_a_site_signs_the_coordinators_words_as_a_quotation_only(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    lie_to_north(simulation, first=True)
    simulation.round()
    aborted = simulation.ledgers["north"].entry_about("aborted", (simulation.run, 1, 1))
    assert aborted is not None
    said = aborted.payload.to_json()
    assert said["reason"] == STOPPED_BY_CLAIM
    assert said["facts"] == {"claimed_by": "coordinator", "claim": LIBEL[:MAX_CLAIM]}


def test_a_second_story_of_the_stop_changes_nothing(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    for name in ("east", "west"):
        simulation.wire.answers[name] = lambda frame: None
    assert simulation.round().outcome == "stopped"
    before = len(simulation.ledgers["north"])
    answer = simulation.sites["north"].handle(false_stop(simulation))
    assert isinstance(read_message(answer, simulation.roster).header, Acknowledgement)
    assert len(simulation.ledgers["north"]) == before


class ToldOtherwise(World):
    """Leuven's ledger calls round 2 stopped, which the key holder opened with its share in it."""

    facts_of_stop: ClassVar[dict[str, str]] = {}

    def _realise(self, name: str, place: dict[str, Any], survivors: list[str]) -> None:
        if (name, place["round"]) != ("leuven", 2):
            super()._realise(name, place, survivors)
            return
        stop = {**place, "reason": STOPPED_BY_CLAIM, "facts": self.facts_of_stop}
        self.sites[name].record("aborted", stop)


def of_stops(world: World, methods: Methods) -> Claim:
    """What `verify` makes of the stop."""
    made = Evidence(world, bundle_of(world), methods).verify()
    (claim,) = [c for c in made.claims if c.subject == "attempts that this ledger calls stopped"]
    assert claim.section == "leuven"
    return claim


@pytest.mark.parametrize("told_by", ["coordinator", ""])
def test_a_signed_opening_contradicts_the_stop_in_a_sites_ledger(
    tmp_path: Path, methods: Methods, told_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leuven was lied to, or lies: either way the round was opened and its charge stands."""
    facts = {"claimed_by": told_by, "claim": "too few answers"} if told_by else {}
    monkeypatch.setattr(ToldOtherwise, "facts_of_stop", facts)
    world = ToldOtherwise(tmp_path, distributed(rounds=3)).play()
    claim = of_stops(world, methods)
    assert claim.verdict is Verdict.CONTRADICTED
    assert "key-holder signed its opening" in claim.note
    assert ("coordinator, or leuven" in claim.note) == bool(told_by)
    leuven = world.report().sites[2]
    assert leuven.epsilon_after_run == world.report().sites[0].epsilon_after_run


def test_without_the_signed_opening_nobody_is_called_a_liar(
    tmp_path: Path, methods: Methods
) -> None:
    world = ToldOtherwise(tmp_path, distributed(rounds=3))
    world.open = lambda number, survivors, attempt=1: None  # type: ignore[method-assign]
    claim = of_stops(world.play(), methods)
    assert claim.verdict is Verdict.UNDECIDED
    assert "that key-holder signed" in claim.settle


@pytest.mark.parametrize("liars", [2, 20, 60])
def test_made_up_checkpoints_evict_no_honest_partys(tmp_path: Path, liars: int) -> None:
    """Each liar names as many sizes as it may, all larger than what the honest party keeps."""
    watch = CheckpointWatch(CheckpointKeeper.open(tmp_path / "kept.db"), Roster({}))
    names = [f"site-{number}" for number in range(liars + 1)]
    for place, name in enumerate(names[1:]):
        start = 1000 + place * MAX_BRANCHES
        watch.record_kept_sizes(name, {"site-0": tuple(range(start, start + MAX_BRANCHES))})
    watch.record_kept_sizes("honest", {"site-0": (17,)})
    watch.record_kept_sizes("key-holder", {"site-0": (11,)})
    asked = watch.asked((*names, "honest"), "key-holder")["site-0"]
    assert {17, 11} <= set(asked)
    assert len(asked) <= MAX_PROOFS


@settings(max_examples=60, deadline=None)
@given(
    honest=st.sets(st.integers(1, 50), min_size=1, max_size=MAX_BRANCHES),
    lies=st.lists(
        st.sets(st.integers(1, 10**6), min_size=1, max_size=MAX_BRANCHES), max_size=MAX_PROOFS - 2
    ),
)
def test_an_honest_party_always_has_one_of_its_own_asked(
    tmp_path_factory: pytest.TempPathFactory, honest: set[int], lies: list[set[int]]
) -> None:
    kept = tmp_path_factory.mktemp("kept") / "kept.db"
    watch = CheckpointWatch(CheckpointKeeper.open(kept), Roster({}))
    watch.record_kept_sizes("honest", {NAMES[0]: tuple(sorted(honest))})
    for place, sizes in enumerate(lies):
        watch.record_kept_sizes(f"liar-{place}", {NAMES[0]: tuple(sorted(sizes))})
    cohort = (NAMES[0], "honest", *(f"liar-{place}" for place in range(len(lies))))
    asked = watch.asked(cohort, "key-holder")[NAMES[0]]
    assert honest & set(asked)
    assert len(asked) <= MAX_PROOFS
