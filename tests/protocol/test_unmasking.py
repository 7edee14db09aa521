"""Rounds whose sum the contributors open together: who may vanish when, kills, and who lies.

Nothing is stubbed: sites, ledgers, frames, cards, masks. The contributions are known integers, so
that an opened sum is right to the last bit or it is wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.digest import tree_digest
from privagg.errors import KeyErasedError, KeyMismatchError, SchemeError
from privagg.identity.keys import Identity, Roster
from privagg.protocol.aggregator import Aggregator
from privagg.protocol.frames import Message, read_message
from privagg.protocol.job import RoundOutcome
from privagg.protocol.key_statement import pack_cards, split_cards
from privagg.protocol.messages import (
    Consent,
    Header,
    KeyStatement,
    Release,
    ReleaseRequest,
    RoundStart,
    Upload,
)
from privagg.protocol.round import reopen_round, run_round
from privagg.protocol.unmasking import Unmasking
from privagg.run.keying import key_of_run
from privagg.secure.masked import recovery
from tests.faults import Killed
from tests.simulator import DIMENSION, NAMES, Simulation

SEVEN = tuple("abcdefg")
RULES = [(3, 0), (2, 2), (1, 1)]
"""Dropouts and colluders of a plan for seven sites."""


class Stages:
    """A wire on which a site vanishes before its upload, its consent or its release is heard."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation, self.gone = simulation, dict[str, int]()
        self.released: dict[tuple[str, int], set[str]] = {}
        for name, handler in list(simulation.wire.handlers.items()):
            simulation.wire.handlers[name] = self._heard(name, handler)
            simulation.wire.answers[name] = lambda frame: frame or None

    def _heard(self, name: str, handler: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        def handle(data: bytes) -> bytes:
            header = read_message(data, self.simulation.roster).header
            stage = {RoundStart: 0, ReleaseRequest: 1}.get(type(header), -1)
            if isinstance(header, ReleaseRequest) and (header.consents or self.full(header)):
                stage = 2
            if 0 <= self.gone.get(name, 9) <= stage:
                return b""
            answer = handler(data)
            said = read_message(answer, self.simulation.roster).header
            if isinstance(said, Release):
                self.released.setdefault((name, said.round), set()).add(said.list_digest)
            return answer

        return handle

    def full(self, header: ReleaseRequest) -> bool:
        return len(header.contributions) == len(self.simulation.names)


def masked(folder: Path, **facts: Any) -> Simulation:
    return Simulation(folder, scheme_name="masked", **facts)


def check(simulation: Simulation, outcome: RoundOutcome) -> bool:
    """Whether the sum was opened; then it is exactly that of the contributors."""
    if outcome.outcome == "stopped":
        assert outcome.reason
        assert outcome.update is None
        return False
    np.testing.assert_array_equal(outcome.update, simulation.expected_update(outcome.survivors))
    return True


def vanishings(most: int) -> Iterator[dict[str, int]]:
    for count in range(most + 1):
        for who in itertools.combinations(SEVEN, count):
            for stages in itertools.product(range(3), repeat=count):
                yield dict(zip(who, stages, strict=True))


def must_open(simulation: Simulation, gone: Mapping[str, int]) -> bool:
    """What the rule promises of a round in which these sites vanish."""
    n, m, c = len(SEVEN), simulation.plan.minimum_survivors, simulation.plan.colluders
    listed = [name for name in SEVEN if gone.get(name, 9) > 0]
    consenting = [name for name in listed if gone.get(name, 9) > 1]
    releasing = [name for name in listed if gone.get(name, 9) > 2]
    if len(listed) < m or (len(listed) < n and len(consenting) < m):
        return False
    return len(releasing) >= n - m + c + 1


def drive(simulation: Simulation, cases: Iterator[dict[str, int]]) -> int:
    """A round for each case; how many were opened."""
    stages, opened = Stages(simulation), 0
    for number, gone in enumerate(cases, start=1):
        stages.gone = gone
        outcome = simulation.round(number)
        assert check(simulation, outcome) == must_open(simulation, gone), (gone, outcome.reason)
        opened += outcome.outcome == "opened"
    assert all(len(lists) == 1 for lists in stages.released.values())
    return opened


SOME = (
    {},
    {"a": 0, "c": 1, "g": 2},
    {"b": 2, "d": 2, "e": 2},
    {"a": 1, "f": 1},
    {"c": 0, "d": 0, "e": 0},
)


@pytest.mark.parametrize(("dropouts", "colluders"), RULES)
def test_whoever_vanishes_at_whatever_stage_the_sum_is_right_or_the_round_stops(
    tmp_path: Path, dropouts: int, colluders: int
) -> None:
    simulation = masked(tmp_path, names=SEVEN, dropouts=dropouts, colluders=colluders)
    assert 1 <= drive(simulation, iter(SOME)) <= len(SOME)


@pytest.mark.nightly
@pytest.mark.timeout(36000)
@pytest.mark.parametrize(("dropouts", "colluders"), RULES)
def test_every_subset_of_three_at_every_stage(
    tmp_path: Path, dropouts: int, colluders: int
) -> None:
    simulation = masked(tmp_path, names=SEVEN, dropouts=dropouts, colluders=colluders, rounds=2000)
    assert drive(simulation, vanishings(3))


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    return masked(tmp_path, dropouts=1, colluders=0)


def test_with_nobody_missing_a_round_takes_two_exchanges_and_else_three(
    simulation: Simulation,
) -> None:
    simulation.round(1)  # which calls the roll
    assert simulation.round(2).exchanges == 2
    simulation.wire.answers["east"] = lambda frame: None
    outcome = simulation.round(3)
    assert (outcome.exchanges, outcome.refusals) == (3, {"east": "vanished"})
    kinds = {statement.kind for statement in outcome.statements}
    assert {Consent.kind, Release.kind} <= kinds


def test_all_that_travels_is_counted(simulation: Simulation) -> None:
    """Consents and releases come to more than one upload of five values."""
    sent = dict.fromkeys(NAMES, 0)

    def counting(name: str) -> Callable[[bytes], bytes]:
        def handle(data: bytes) -> bytes:
            sent[name] += len(data)
            return simulation.sites[name].handle(data)

        return handle

    simulation.wire.handlers = {name: counting(name) for name in NAMES}
    simulation.wire.answers["east"] = lambda frame: None
    outcome = simulation.round(1)
    came = {name: [len(frame) for frame in simulation.wire.seen[name]] for name in NAMES}
    assert outcome.bytes_down == sent
    assert outcome.bytes_up == {**{name: sum(sizes) for name, sizes in came.items()}, "east": 0}
    assert outcome.upload_bytes == {name: came[name][1] for name in outcome.survivors}
    assert outcome.bytes_up["north"] > 1.5 * outcome.upload_bytes["north"]


class KilledAt:
    """A journal whose coordinator is killed once the request is written."""

    def __init__(self) -> None:
        self.request = b""

    def begun(self, result: RoundOutcome) -> None: ...

    def asking(self, request: bytes) -> None:
        self.request = request
        raise Killed


def killed_round(simulation: Simulation) -> bytes:
    journal = KilledAt()
    with pytest.raises(Killed):
        run_round(
            simulation.job, simulation.wire, np.zeros(DIMENSION), round_number=1, journal=journal
        )
    return journal.request


def resumed(simulation: Simulation, request: bytes) -> RoundOutcome:
    return reopen_round(
        simulation.job, simulation.wire, np.zeros(DIMENSION), request=request, round_number=1,
        attempt=1, cohort=NAMES,
    )  # fmt: skip


@pytest.mark.parametrize("missing", [(), ("east",)])
def test_a_killed_coordinator_asks_for_the_same_list_and_adds_no_late_upload(
    simulation: Simulation, missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        simulation.wire.answers[name] = lambda frame: None
    for ledger in simulation.ledgers.values():  # the sites have all uploads still
        monkeypatch.setattr(ledger, "forget_uploads", lambda *_, **__: 0)
    request = killed_round(simulation)
    simulation.wire.answers.clear()
    outcomes = [resumed(simulation, request) for _ in range(2)]
    for outcome in outcomes:
        assert check(simulation, outcome)
        assert outcome.survivors == tuple(name for name in NAMES if name not in missing)
    again = simulation.round(1)  # another list of this round opens nothing
    assert (again.outcome == "opened") == (not missing), again.reason


@pytest.mark.parametrize("stage", ["upload", "consent", "release"])
def test_sites_that_are_restarted_between_any_two_messages_go_on(
    simulation: Simulation, stage: str
) -> None:
    kinds: dict[str, type[Header]] = {"upload": Upload, "consent": Consent, "release": Release}

    def restarted(name: str) -> Callable[[bytes], bytes]:
        def handle(data: bytes) -> bytes:
            answer = simulation.sites[name].handle(data)
            if isinstance(read_message(answer, simulation.roster).header, kinds[stage]):
                simulation.sites[name] = simulation.site(name)
                assert simulation.sites[name].handle(data) == answer
            return answer

        return handle

    simulation.wire.handlers = {name: restarted(name) for name in NAMES}
    simulation.wire.answers["west"] = lambda frame: None
    assert check(simulation, simulation.round())
    assert [simulation.charges(name) for name in NAMES] == [1, 1, 1, 1]


def answers_of(simulation: Simulation, name: str, forge: Callable[[Message], bytes]) -> None:
    """Have a site's releases forged by whoever holds its identity key."""

    def answer(frame: bytes) -> bytes:
        message = read_message(frame, simulation.roster)
        return forge(message) if isinstance(message.header, Release) else frame

    simulation.wire.answers[name] = answer


def test_a_wrong_share_and_a_false_list_are_told_by_name_and_the_sum_opens(
    simulation: Simulation,
) -> None:
    def wrong(message: Message) -> bytes:
        payload = bytes(message.payload)
        spoiled = payload[:1] + bytes(byte ^ 1 for byte in payload[1:33]) + payload[33:]
        identity = simulation.identities["east"]
        return Message.sign(identity, message.header, spoiled).to_bytes()

    def other_list(message: Message) -> bytes:
        header = message.header.model_copy(update={"list_digest": "ab" * 32})
        payload = bytes(message.payload)
        return Message.sign(simulation.identities["south"], header, payload).to_bytes()

    answers_of(simulation, "east", wrong)
    outcome = simulation.round(1)
    assert check(simulation, outcome)
    assert "another share than it was dealt" in outcome.refusals["east"]
    answers_of(simulation, "south", other_list)
    outcome = simulation.round(2)
    assert check(simulation, outcome)
    assert "signed another list" in outcome.refusals["south"]


def test_answers_larger_than_any_are_not_kept(simulation: Simulation) -> None:
    """Each would lie in the coordinator's memory until the round is over."""

    def padded(message: Message) -> bytes:
        payload = bytes(message.payload) + bytes(1 << 17)
        return Message.sign(simulation.identities["east"], message.header, payload).to_bytes()

    answers_of(simulation, "east", padded)
    outcome = simulation.round(1)
    assert check(simulation, outcome)
    assert "accepted here" in outcome.refusals["east"]


@pytest.mark.parametrize("rogue", ["north", "south", "west"])
def test_a_site_that_commits_to_other_seeds_is_told_and_the_round_goes_on_without_it(
    simulation: Simulation, rogue: str
) -> None:
    def forged(frame: bytes) -> bytes:
        message = read_message(frame, simulation.roster)
        if not isinstance(message.header, Upload):
            return frame
        body, size = bytes(message.payload), simulation.parameters.attachment_bytes
        tensor, attached = body[:-size], body[-size:]
        lies = attached[:32] + bytes(byte ^ 1 for byte in attached[32:128]) + attached[128:]
        header = message.header.model_copy(update={"key_part_digest": tree_digest(lies)})
        return Message.sign(simulation.identities[rogue], header, tensor + lies).to_bytes()

    simulation.wire.answers[rogue] = forged
    outcome = simulation.round(1)
    assert check(simulation, outcome)
    assert outcome.survivors == tuple(name for name in NAMES if name != rogue)
    told = outcome.refusals[rogue]
    assert ("more sites contradict" if rogue == "north" else "different seeds") in told
    assert [simulation.charges(name) for name in NAMES] == [1, 1, 1, 1]


def contradicting(simulation: Simulation, liar: str, *times: str | None, fits: bool = True) -> None:
    """Have a site commit to other seeds than these others do, each time that it is asked.

    Args:
        times: whom it contradicts the first time, the second, and so on; None where it is silent.
        fits: whether its payload is one that can be added.
    """
    size, left = simulation.parameters.attachment_bytes, list(times)
    others = [name for name in simulation.names if name != liar]

    def forged(frame: bytes) -> bytes | None:
        message = read_message(frame, simulation.roster)
        if not isinstance(message.header, Upload):
            return frame
        against = left.pop(0) if len(left) > 1 else left[0]
        if against is None:
            return None
        body = bytes(message.payload)
        tensor, attached = bytearray(body[:-size]), bytearray(body[-size:])
        for at in (32 * (1 + others.index(name)) for name in against):
            attached[at : at + 32] = bytes(byte ^ 1 for byte in attached[at : at + 32])
        tensor[-1] = tensor[-1] if fits else 255
        header = message.header.model_copy(update={"key_part_digest": tree_digest(attached)})
        signer = simulation.identities[liar]
        return Message.sign(signer, header, bytes(tensor + attached)).to_bytes()

    simulation.wire.answers[liar] = forged


@pytest.mark.parametrize("then", ["other", "silent"])
def test_no_more_are_left_out_where_liars_answer_otherwise_when_asked_again(
    tmp_path: Path, then: str
) -> None:
    """For a and b it is cheapest to leave d out, at first; then d is asked again."""
    simulation = masked(tmp_path, names=tuple("abcdefghijkl"), dropouts=3, colluders=3)
    contradicting(simulation, "a", "d", "e" if then == "other" else None)
    contradicting(simulation, "b", "d", "f" if then == "other" else None)
    contradicting(simulation, "c", "ef")
    outcome = simulation.round(1)
    assert check(simulation, outcome), outcome.reason
    assert outcome.survivors == tuple("defghijkl")
    said = "attached something else than when" if then == "other" else "vanished"
    assert said in outcome.refusals["a"]
    assert "with the fewest left out" in outcome.refusals["c"]


def test_nobody_is_left_out_for_an_upload_that_was_not_added(tmp_path: Path) -> None:
    simulation = masked(tmp_path, names=SEVEN, dropouts=1, colluders=1)
    contradicting(simulation, "a", "b", fits=False)
    outcome = simulation.round(1)
    assert check(simulation, outcome), outcome.reason
    assert outcome.survivors == SEVEN[1:]
    assert "outside its range" in outcome.refusals["a"]


@pytest.mark.parametrize("rule", [True, False])
def test_colluders_that_contradict_others_have_no_more_left_out_than_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """Two that upload first contradict two others each: too few for a conviction."""
    if not rule:
        monkeypatch.setattr(recovery, "fewest_to_leave_out", lambda against, failures: {*range(7)})
    simulation = masked(tmp_path, names=SEVEN, dropouts=2, colluders=2)
    contradicting(simulation, "a", "cd")
    contradicting(simulation, "b", "ef")
    outcome = simulation.round(1)
    assert check(simulation, outcome) == rule
    if rule:
        assert outcome.survivors == tuple("cdefg")
        assert {*outcome.refusals} == {"a", "b"}
        assert "with the fewest left out" in outcome.refusals["a"]
    else:
        assert "3 of 7 sites contributed" in outcome.reason
    assert [simulation.charges(name) for name in SEVEN] == [1] * 7


def test_a_site_opens_no_second_list_of_a_round(simulation: Simulation) -> None:
    simulation.wire.answers["east"] = lambda frame: None
    first = simulation.round(1, attempt=1)
    assert check(simulation, first)
    simulation.wire.answers.clear()
    second = simulation.round(1, attempt=2)
    assert second.outcome == "stopped"
    assert "is bound to a list of attempt 1" in second.refusals["north"]
    assert simulation.charges("north") == 1


def test_two_views_of_the_cards_stop_before_any_upload(simulation: Simulation) -> None:
    """The coordinator shows one site a list without another's card: two keys, nothing is spent."""
    simulation.run = "run-2"
    key, _ = key_of_run(
        simulation.terms, "run-2", simulation.identities["coordinator"], simulation.wire
    )
    message = read_message(key.frame, simulation.roster)
    frames = [bytes(frame) for frame in split_cards(message.payload)]
    others = {name: card for name, card in key.members.items() if name != "west"}
    lies = message.header.model_copy(
        update={"key_id": simulation.terms.joint_key("run-2", others).key_id}
    )
    identity = simulation.identities["coordinator"]
    for forged in (lies, message.header):
        shown = Message.sign(identity, forged, pack_cards(frames[:-1])).to_bytes()
        simulation.sites["north"].handle(shown)
    for name in NAMES[1:]:
        simulation.sites[name].handle(key.frame)
    simulation.keys["run-2"] = key, ""
    outcome = simulation.round(1)
    assert outcome.survivors == NAMES[1:]
    assert "this site took" in outcome.refusals["north"]
    assert simulation.charges("north") == 0


def test_a_site_joins_no_round_without_its_own_card(simulation: Simulation) -> None:
    simulation.wire.answers["west"] = lambda frame: None
    simulation.begin("run-2")
    assert tuple(simulation.run_key.members) == ("north", "east", "south")
    simulation.wire.answers.clear()
    outcome = simulation.round(1)
    assert check(simulation, outcome)
    assert outcome.survivors == ("north", "east", "south")
    assert "it has no card in this run: " in outcome.refusals["west"]
    assert "do not hold the one" in outcome.refusals["west"]
    assert simulation.charges("west") == 0


def test_a_card_under_another_signature_is_told_as_that(simulation: Simulation) -> None:
    """Whoever reads the round sees which site's card counted as none, and that it was signed so."""

    def forged(frame: bytes) -> bytes:
        message = read_message(frame, simulation.roster)
        if not isinstance(message.header, KeyStatement):
            return frame
        identity = Identity.generate("west")
        return Message.sign(identity, message.header, bytes(message.payload)).to_bytes()

    simulation.wire.answers["west"] = forged
    simulation.begin("run-2")
    outcome = simulation.round(1)
    assert outcome.survivors == ("north", "east", "south")
    assert "no card in this run: the answer of" in outcome.refusals["west"]
    assert "does not verify" in outcome.refusals["west"]
    assert not {"north", "east", "south"} & outcome.refusals.keys()


def test_many_cards_take_the_rosters_digest_once(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a card costs as much as there are parties, at every site."""
    made, digest = [], Roster.federation_digest

    def counted(roster: Roster, **roles: str) -> str:
        made.append(roster)
        return digest(roster, **roles)

    monkeypatch.setattr(Roster, "federation_digest", counted)
    key = simulation.terms.read(simulation.run_key.frame, "run-1")
    assert (len(key.cards), len(made)) == (len(NAMES), 1)


def test_too_few_cards_spend_nothing(simulation: Simulation) -> None:
    for name in ("west", "south"):
        simulation.wire.answers[name] = lambda frame: None
    with pytest.raises(KeyMismatchError, match="2 sites stated a key.*nothing was spent"):
        key_of_run(simulation.terms, "run-3", simulation.identities["coordinator"],
                   simulation.wire)  # fmt: skip


def test_a_custody_that_is_not_the_schemes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemeError, match="custody 'authority' is not that of scheme 'masked'"):
        masked(tmp_path, custody="authority")


def test_the_masking_key_goes_with_the_last_round(tmp_path: Path) -> None:
    simulation = masked(tmp_path, dropouts=1, colluders=0, rounds=1)
    request = killed_round(simulation)
    for _ in range(2):
        assert check(simulation, resumed(simulation, request))  # the second time stored releases
    with pytest.raises(KeyErasedError):
        simulation.sites["north"]._key_holder._key_of("run-1")


def test_partial_sums_carry_what_unmasks_them(simulation: Simulation) -> None:
    """An aggregator down a tree adds two uploads; the sum opens as if all had come alone."""
    other = Identity.generate("sub")
    simulation.roster = Roster({**simulation.roster.keys, "sub": other.public_hex})
    job, result = simulation.job, RoundOutcome(1, 1, NAMES)
    start = RoundStart(**job.heading(result), key_id=job.key_id, cohort=NAMES)
    model = np.zeros(DIMENSION, "<f8").tobytes()
    frame = Message.sign(job.identity, start, model).to_bytes()
    uploads = [simulation.sites[name].handle(frame) for name in NAMES]
    terms = job.terms(1, 1, NAMES)
    sub = Aggregator(terms, job.parameters, simulation.roster)
    top = Aggregator(
        replace(terms, aggregators=("sub",)), job.parameters, simulation.roster, None,
        job.recovery(result),
    )  # fmt: skip
    for upload in uploads[:2]:
        sub.receive(upload)
    for frame in (sub.partial_sum(other).to_bytes(), *uploads[2:]):
        top.receive(frame)
    unmasking = Unmasking(job, simulation.wire, result, top.open_request(job.identity).to_bytes())
    unmasking.agree()
    opened = job.scheme.combine(job.parameters, [bytes(unmasking.open().payload)], len(NAMES))
    expected = sum(simulation.learners[name].values for name in NAMES)
    assert opened.tolist() == np.asarray(expected).tolist()
