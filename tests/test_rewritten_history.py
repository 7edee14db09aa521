"""A ledger's owner signs a whole new history: coordinator, key holder and every site find it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.privacy.accountants import RdpAccountant
from privagg.privacy.ledger import BudgetKey, CheckpointKeeper, Ledger
from privagg.privacy.ledger.ledger import ORIGIN_PREFIX
from privagg.protocol.checkpoints import CheckpointWatch
from privagg.protocol.frames import Message, read_message
from privagg.protocol.job import RoundOutcome
from privagg.protocol.messages import OpenRequest, Refusal, RoundClose, RoundStart, Upload
from privagg.protocol.peers import PeerCheckpoints
from privagg.protocol.round import run_round
from privagg.run.evidence import collect_ledgers
from tests.approvals import approve_plan
from tests.faults import Killed
from tests.simulator import DIMENSION, NAMES, Simulation, opened_rounds


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    """One honest round has gone by, so everybody keeps something of everybody."""
    made = Simulation(tmp_path, dropouts=1)
    assert made.round(1).survivors == NAMES
    return made


def rewrite(simulation: Simulation, name: str, *, entries: int) -> None:
    """The owner of a ledger writes its history anew and signs it with the true key."""
    ledger = Ledger.create(
        simulation.folder / f"{name}-rewritten.sqlite",
        name,
        signing_key=simulation.identities[name].key,
    )
    for _ in range(entries - 1):
        approve_plan(ledger, BudgetKey(name, "record"), simulation.plan.digest, Decimal(1000))
    simulation.wire.handlers[name] = simulation.site(name, ledger=ledger).handle
    simulation.wire.post({name: simulation.run_key.frame})


class BlindWatch(CheckpointWatch):
    """A coordinator that asks for proofs, as the sites insist, and looks at none."""

    def keep(self, uploads: Sequence[Upload], *, since: Mapping[str, tuple[int, ...]]) -> None:
        pass


class MuteWatch(BlindWatch):
    """A coordinator that does not even ask."""

    def asked(self, cohort: Sequence[str], opener: str) -> dict[str, tuple[int, ...]]:
        return {}


class BlindMemory(PeerCheckpoints):
    """A key holder that believes what it is shown."""

    def require(self, uploads: Sequence[Upload]) -> None:
        pass


class Killing:
    """A coordinator that is killed once every upload is there and none is opened."""

    def begun(self, result: RoundOutcome) -> None:
        pass

    def asking(self, request: bytes) -> None:
        raise Killed


def blind(simulation: Simulation, kind: type[CheckpointWatch] = BlindWatch) -> None:
    simulation.watch = kind(simulation.keeper, simulation.roster)


def blind_key_holder(simulation: Simulation) -> None:
    memory = BlindMemory(simulation.keeper, simulation.roster)
    simulation.key_holder._checkpoints = memory


@pytest.mark.parametrize("entries", [2, 40])
@pytest.mark.parametrize("run", ["run-1", "run-2"])
def test_the_coordinator_finds_it(simulation: Simulation, run: str, entries: int) -> None:
    rewrite(simulation, "east", entries=entries)
    simulation.begin(run)
    outcome = simulation.round(2)
    assert outcome.survivors == ("north", "south", "west")
    refused = outcome.refusals["east"]
    assert refused.startswith("Ledger"), refused
    assert "privagg.ledger/east" in refused or "not proved" in refused


@pytest.mark.parametrize("run", ["run-1", "run-2"])
def test_the_key_holder_finds_it_and_opens_nothing(simulation: Simulation, run: str) -> None:
    rewrite(simulation, "east", entries=40)
    simulation.begin(run)
    blind(simulation)
    outcome = simulation.round(2)
    assert outcome.outcome == "stopped"
    assert "'key-holder' refuses to open: the ledger of 'east'" in outcome.reason
    opened = opened_rounds(simulation.folder / "openings.sqlite")
    assert [place[:2] for place in opened] == [("run-1", 1)]


@pytest.mark.parametrize("entries", [6, 10, 40])
def test_a_history_rewritten_from_before_what_others_let_go_is_found(
    simulation: Simulation, entries: int
) -> None:
    """Sites and key holder keep one head of east by then, and nothing of the round before it."""
    for number in (2, 3):
        assert simulation.round(number).survivors == NAMES
    keepers = [simulation.ledgers[name].keeper for name in ("north", "south", "west")]
    holder = CheckpointKeeper.read(simulation.folder / "key-holder-kept.sqlite")
    for keeper in (*keepers, holder):
        assert len(keeper.all(ORIGIN_PREFIX + "east")) == 1
    rewrite(simulation, "east", entries=entries)
    blind(simulation)
    outcome = simulation.round(4)
    assert "'key-holder' refuses to open: the ledger of 'east'" in outcome.reason
    blind_key_holder(simulation)
    assert simulation.round(5).survivors == NAMES
    outcome = simulation.round(6)
    for name in ("north", "south", "west"):
        assert f"{name!r} takes part in no round with 'east'" in outcome.refusals[name]


def test_a_restarted_key_holder_remembers(simulation: Simulation) -> None:
    rewrite(simulation, "east", entries=40)
    blind(simulation)
    simulation.key_holder = simulation.make_key_holder()
    assert "the ledger of 'east'" in simulation.round(2).reason


def test_the_other_sites_find_it_and_go_no_further_with_it(simulation: Simulation) -> None:
    rewrite(simulation, "east", entries=40)
    simulation.begin("run-2")
    blind(simulation)
    blind_key_holder(simulation)
    assert simulation.round(1).survivors == NAMES
    answer = read_message(simulation.wire.posted["north"], simulation.roster).header
    assert isinstance(answer, Refusal)
    assert answer.reason == "ledger"
    assert "the ledger of 'east'" in answer.message
    charges = simulation.charges("north")
    for name in ("north", "south", "west"):  # processes come and go
        simulation.wire.handlers[name] = simulation.site(name).handle
    outcome = simulation.round(2)
    for name in ("north", "south", "west"):
        assert f"{name!r} takes part in no round with 'east'" in outcome.refusals[name]
    assert outcome.outcome == "stopped"
    assert simulation.charges("north") == charges
    simulation.ledgers["north"].verify()
    realised = [e for e in simulation.ledgers["north"].entries() if e.kind == "realised"]
    assert len(realised) == 2


def test_sites_refuse_a_round_that_asks_for_no_proofs(simulation: Simulation) -> None:
    blind(simulation, MuteWatch)
    outcome = simulation.round(2)
    assert outcome.outcome == "stopped"
    assert "does not ask 'east' to prove" in outcome.refusals["north"]
    assert simulation.charges("north") == 1


def test_a_close_without_the_survivors_statements_is_refused(simulation: Simulation) -> None:
    closes: list[bytes] = []
    honest = simulation.wire.handlers["north"]

    def without_statements(data: bytes) -> bytes:
        header = read_message(data, simulation.roster).header
        if not isinstance(header, RoundClose):
            return honest(data)
        cut = header.model_copy(update={"contributions": header.contributions[:-1]})
        closes.append(honest(Message.sign(simulation.identities["coordinator"], cut).to_bytes()))
        return closes[-1]

    simulation.wire.handlers["north"] = without_statements
    assert simulation.round(2).outcome == "opened"
    answer = read_message(closes[0], simulation.roster).header
    assert isinstance(answer, Refusal)
    assert "statement of every survivor" in answer.message
    assert [e.kind for e in simulation.ledgers["north"].entries()][-1] == "realised"


def test_closes_that_are_sent_again_accuse_nobody(simulation: Simulation) -> None:
    """Whoever replays one needs no key; by then, later checkpoints speak for what it shows."""
    closes: list[tuple[str, bytes]] = []

    def recording(name: str, honest: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        def handle(data: bytes) -> bytes:
            if isinstance(read_message(data, simulation.roster).header, RoundClose):
                closes.append((name, data))
            return honest(data)

        return handle

    honest = {name: simulation.wire.handlers[name] for name in NAMES}
    simulation.wire.handlers |= {name: recording(name, each) for name, each in honest.items()}
    for number in (2, 3, 4):
        assert simulation.round(number).survivors == NAMES
    before = {name: len(simulation.ledgers[name]) for name in NAMES}
    assert len(closes) == 3 * len(NAMES)
    for name, data in closes:
        answer = read_message(honest[name](data), simulation.roster).header
        assert not isinstance(answer, Refusal), answer.message
    assert [simulation.ledgers[name].distrusted() for name in NAMES] == [{}] * len(NAMES)
    assert {name: len(simulation.ledgers[name]) for name in NAMES} == before
    assert simulation.round(5).survivors == NAMES


def test_an_upload_without_the_proof_that_was_asked_for_is_distrusted(
    simulation: Simulation,
) -> None:
    """Coordinator and site together leave the proof out: the others stop all the same."""
    honest = simulation.wire.handlers["east"]

    def without_proofs(data: bytes) -> bytes:
        message = read_message(honest(data), simulation.roster)
        header: Any = message.header
        if isinstance(header, Upload):
            header = header.model_copy(update={"consistency": ()})
        payload = bytes(message.payload)
        return Message.sign(simulation.identities["east"], header, payload).to_bytes()

    simulation.wire.handlers["east"] = without_proofs
    blind(simulation)
    blind_key_holder(simulation)
    assert simulation.round(2).survivors == NAMES
    assert "no round with 'east'" in simulation.round(3).refusals["north"]


def test_runs_side_by_side_each_prove_what_they_were_asked(simulation: Simulation) -> None:
    first = simulation.watch
    simulation.begin("run-2")
    second = simulation.watch
    for number in (2, 3):
        for run, watch in (("run-1", first), ("run-2", second)):
            simulation.run, simulation.watch = run, watch
            assert simulation.round(number).survivors == NAMES


def test_a_site_that_missed_rounds_comes_back(simulation: Simulation) -> None:
    simulation.wire.answers["east"] = lambda frame: None
    assert "east" not in simulation.round(2).survivors
    del simulation.wire.answers["east"]
    assert simulation.round(3).survivors == NAMES
    simulation.begin("run-2")
    assert simulation.round(1).survivors == NAMES


def test_a_site_that_comes_back_to_a_resumed_round_waits_for_its_peers_proofs(
    simulation: Simulation,
) -> None:
    """The peers' uploads were stored before it asked: a missing proof is no contradiction."""
    east = simulation.wire.handlers["east"]
    simulation.wire.handlers["east"] = lambda frame: b""
    simulation.wire.answers["east"] = lambda frame: None
    assert simulation.round(2).survivors == ("north", "south", "west")

    with pytest.raises(Killed):
        run_round(
            simulation.job, simulation.wire, np.zeros(DIMENSION), round_number=3, journal=Killing()
        )
    simulation.wire.handlers["east"] = east
    del simulation.wire.answers["east"]
    simulation.begin(simulation.run)
    assert simulation.round(3).survivors == NAMES

    charges = simulation.charges("east")
    waited = [simulation.round(number) for number in (4, 5)]
    assert all(outcome.survivors == ("north", "south", "west") for outcome in waited)
    assert "takes part in no round with 'north'" in waited[0].refusals["east"]
    assert simulation.charges("east") == charges
    assert simulation.round(6).survivors == NAMES
    assert simulation.ledgers["east"].distrusted() == {}


def test_a_site_restarted_between_overlapping_rounds_accuses_nobody(
    simulation: Simulation,
) -> None:
    """It remembers what it had asked of each upload, and keeps what that is proved from."""
    honest = simulation.wire.handlers["key-holder"]

    def overlapping(data: bytes) -> bytes:
        if isinstance(read_message(data, simulation.roster).header, OpenRequest):
            simulation.wire.handlers["key-holder"] = honest
            first = simulation.watch
            simulation.begin("run-2")
            assert simulation.round(1).survivors == NAMES
            simulation.run, simulation.watch = "run-1", first
            simulation.wire.handlers["north"] = simulation.site("north").handle
        return honest(data)

    simulation.wire.handlers["key-holder"] = overlapping
    assert simulation.round(2).survivors == NAMES
    assert simulation.ledgers["north"].distrusted() == {}
    assert simulation.round(3).survivors == NAMES
    assert simulation.ledgers["north"].distrusted() == {}


@pytest.mark.parametrize("entries", [2, 40])
def test_another_history_is_not_taken_for_the_report(simulation: Simulation, entries: int) -> None:
    """Whoever has shown one history in the rounds cannot export another when they are over."""
    rewrite(simulation, "east", entries=entries)
    found, problems = collect_ledgers(
        simulation.job, simulation.wire, round_number=1, begun=1, accountant=RdpAccountant()
    )
    assert sorted(found) == ["north", "south", "west"]
    assert "rolled back" in problems["east"] or "forked" in problems["east"]


def branch(simulation: Simulation, name: str, *, more: int) -> Ledger:
    """The owner goes on from a copy of its ledger as it is, whatever the ledger itself does."""
    path = simulation.folder / f"{name}-branch.sqlite"
    simulation.ledgers[name].backup(path)
    ledger = Ledger.open(path, signing_key=simulation.identities[name].key)
    for _ in range(more):
        approve_plan(ledger, BudgetKey(name, "record"), simulation.plan.digest, Decimal(1000))
    return ledger


def split(simulation: Simulation) -> None:
    """Rounds of two runs overlap, and east shows each of them a history without the other.

    While east is asked for round 2 of run-1, a whole round of run-2 goes by.
    """
    inner = simulation.site("east", ledger=branch(simulation, "east", more=20))
    first, honest = simulation.watch, simulation.wire.handlers["east"]

    def overlapping(data: bytes) -> bytes:
        if isinstance(read_message(data, simulation.roster).header, RoundStart):
            simulation.wire.handlers["east"] = honest
            simulation.begin("run-2")
            assert simulation.round(1).survivors == NAMES
            simulation.run, simulation.watch = "run-1", first
            simulation.wire.handlers["east"] = inner.handle
        return inner.handle(data)

    simulation.wire.handlers["east"] = overlapping
    assert simulation.round(2).survivors == NAMES  # nobody can know yet


def test_the_coordinator_finds_a_ledger_split_between_two_runs(simulation: Simulation) -> None:
    split(simulation)
    outcome = simulation.round(3)
    assert outcome.survivors == ("north", "south", "west")
    assert "is not proved to extend the tree of" in outcome.refusals["east"]


def test_the_key_holder_finds_a_ledger_split_between_two_runs(simulation: Simulation) -> None:
    split(simulation)
    blind(simulation)
    assert "'key-holder' refuses to open: the ledger of 'east'" in simulation.round(3).reason


def test_the_sites_find_a_ledger_split_between_two_runs(simulation: Simulation) -> None:
    split(simulation)
    blind(simulation)
    blind_key_holder(simulation)
    simulation.round(3)
    assert "no round with 'east'" in simulation.round(4).refusals["north"]


def test_what_was_shown_without_proof_is_not_forgotten(simulation: Simulation) -> None:
    """A round on a branch that is then left: the ledger that goes on never charged for it."""
    honest = simulation.wire.handlers["east"]
    site = simulation.site("east", ledger=branch(simulation, "east", more=20))

    def without_proofs(data: bytes) -> bytes:
        message = read_message(site.handle(data), simulation.roster)
        header: Any = message.header
        if isinstance(header, Upload):
            header = header.model_copy(update={"consistency": ()})
        payload = bytes(message.payload)
        return Message.sign(simulation.identities["east"], header, payload).to_bytes()

    simulation.wire.handlers["east"] = without_proofs
    blind(simulation)
    blind_key_holder(simulation)
    for colluding in ("south", "west"):
        simulation.sites[colluding]._closing.require_asked = lambda start: None  # type: ignore[method-assign]
    assert simulation.round(2).survivors == NAMES
    for _ in range(40):
        approve_plan(
            simulation.ledgers["east"], BudgetKey("east", "record"), simulation.plan.digest,
            Decimal(1000),
        )  # fmt: skip
    simulation.wire.handlers["east"] = honest
    for number in (3, 4, 5):
        outcome = simulation.round(number)
        assert outcome.survivors == ("east", "south", "west")
        assert "no round with 'east'" in outcome.refusals["north"]
