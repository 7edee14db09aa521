"""Masked sums: who tries to read one site's upload, and the rule that stops it.

Where it is cheap a story is told twice: with the rule, and with the rule taken out, when the attack
succeeds. A second opened sum of a round is one: what two sums differ by is a single contribution.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from privagg.errors import CiphertextError, CohortError
from privagg.identity.keys import Identity
from privagg.kernels.packed_sums import PackedSum
from privagg.privacy.ledger import Ledger
from privagg.protocol.frames import Message, read_message
from privagg.protocol.key_statement import pack_cards, split_cards
from privagg.protocol.mask_holder import MaskHolder
from privagg.protocol.messages import (
    Consent,
    KeyStatement,
    Refusal,
    Release,
    ReleaseRequest,
    Statement,
    Upload,
)
from privagg.run.keying import key_of_run
from privagg.secure.masked import attachments as attached
from privagg.secure.masked import site as sites
from privagg.secure.masked.attachments import Attachments
from privagg.secure.masked.graph import Graph
from privagg.secure.masked.recovery import _Opening
from privagg.secure.masked.rule import Rule
from privagg.secure.masked.sharing import SEED_BYTES
from privagg.secure.masked.streams import add_masks
from tests.dishonest import Coordinator
from tests.secure.masked.worlds import World
from tests.simulator import ACCOUNTANT, Simulation

SEVEN = tuple("abcdefg")
WITHOUT_A, WITHOUT_G = SEVEN[1:], SEVEN[:-1]


def started(folder: Path, attempts: Sequence[int] = (1,)) -> Coordinator:
    """Seven sites, six of them at least in a sum, one may collude; all have uploaded."""
    simulation = Simulation(folder, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    coordinator = Coordinator(simulation)
    for attempt in attempts:
        for site in SEVEN:
            assert isinstance(coordinator.start(site, attempt).header, Upload)
    return coordinator


def said(answer: Message) -> str:
    assert isinstance(answer.header, Refusal)
    return answer.header.message


def consents(answers: dict[str, Message]) -> list[Statement]:
    return [each.statement for each in answers.values() if isinstance(each.header, Consent)]


def unbind(simulation: Simulation, site: str) -> None:
    """A colluder's, or a restored, store: it has forgotten which list the round is bound to."""
    store = simulation.folder / f"{site}-openings.sqlite"
    with closing(sqlite3.connect(store)) as database, database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            database.execute(f"DROP TRIGGER {name}")
        for table in ("opening", "agreed"):
            database.execute(f"DELETE FROM {table}")


@pytest.mark.parametrize("rule", [True, False])
def test_a_list_of_its_own_to_each_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """Half of the sites are shown one list, half another; nobody signs two."""
    coordinator = started(tmp_path)
    if not rule:
        monkeypatch.setattr(MaskHolder, "_check_consents", lambda *args: None)
    opened = []
    for listed, shown in ((WITHOUT_G, "abc"), (WITHOUT_A, "efg")):
        agreed = consents({site: coordinator.show(site, listed) for site in shown})
        assert len(agreed) == 3
        answers = {site: coordinator.show(site, listed, agreed) for site in shown}
        opened.append(coordinator.unmask(listed, answers).total)
        if rule:
            assert all("6 have to before anything" in said(each) for each in answers.values())
    assert [total is None for total in opened] == [rule, rule]


@pytest.mark.parametrize("rule", [True, False])
def test_the_full_list_to_some_and_another_to_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """Six consent to a list without g, and g alone is shown the full one, with a colluder."""
    if not rule:  # shares that colluders and one site have among them
        monkeypatch.setattr(Rule, "threshold", property(lambda self: self.colluders + 1))
    coordinator = started(tmp_path)
    agreed = consents({site: coordinator.show(site, WITHOUT_G) for site in WITHOUT_G})
    answers = {site: coordinator.show(site, WITHOUT_G, agreed) for site in WITHOUT_G}
    listed = coordinator.unmask(WITHOUT_G, answers).total
    assert listed is not None
    unbind(coordinator.simulation, "a")  # the colluder, at home
    full = {site: coordinator.show(site, SEVEN) for site in SEVEN}
    assert [site for site in SEVEN if isinstance(full[site].header, Release)] == ["a", "g"]
    assert "a second cohort of one round is never opened" in said(full["b"])
    found = coordinator.unmask(SEVEN, full)
    if rule:
        assert (found.total, found.wrong) == (None, {})
        assert "2 good shares of 3" in found.problem
    else:
        assert found.total is not None
        alone = coordinator.simulation.learners["g"].values
        np.testing.assert_array_equal(found.total - listed, alone)


@pytest.mark.parametrize("rule", [True, False])
def test_two_lists_and_a_restart_between_consent_and_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """Everybody consents to one list, is restarted, and is shown another."""
    coordinator = started(tmp_path)
    simulation = coordinator.simulation
    if not rule:
        for binds in ("_agree", "_bind"):
            monkeypatch.setattr(MaskHolder, binds, lambda *args: None)
        monkeypatch.setattr(MaskHolder, "_remember", lambda self, header, digest, answer: answer)
    lists, shown = (WITHOUT_G, WITHOUT_A), []
    for listed in lists:
        shown.append({site: coordinator.show(site, listed) for site in listed})
        for site in SEVEN:
            simulation.sites[site] = simulation.site(site)
    opened = []
    for listed, answers in zip(lists, shown, strict=True):
        agreed = consents(answers)
        released = {site: coordinator.show(site, listed, agreed) for site in listed}
        opened.append(coordinator.unmask(listed, released).total)
    assert opened[0] is not None
    if rule:
        assert opened[1] is None
        assert consents(shown[1]) == [shown[1]["g"].statement]
        assert "a second cohort of one round is never opened" in said(shown[1]["b"])
    else:
        first, second = (simulation.learners[name].values for name in "ag")
        np.testing.assert_array_equal(opened[0] - opened[1], first - second)


def test_a_restored_store_is_told_by_its_own_consent(tmp_path: Path) -> None:
    coordinator = started(tmp_path)
    earlier = coordinator.show("b", WITHOUT_G).statement
    unbind(coordinator.simulation, "b")
    agreed = consents({site: coordinator.show(site, WITHOUT_A) for site in WITHOUT_A})
    assert "restored from an older copy" in said(
        coordinator.show("b", WITHOUT_A, [*agreed, earlier])
    )


@pytest.mark.parametrize("rule", [True, False])
def test_an_attempt_asked_again_of_a_ledger_that_was_set_back(tmp_path: Path, rule: bool) -> None:
    """Its copy is of before the charge: two uploads of one attempt, two full lists, two sums."""
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    copies = {path: path.read_bytes() for path in tmp_path.glob("a.sqlite*")}
    coordinator = Coordinator(simulation)
    for name in SEVEN:
        assert isinstance(coordinator.start(name).header, Upload)
    first = dict(coordinator.uploads[1])
    for path, copy in copies.items():
        path.write_bytes(copy)
    key = simulation.identities["a"].key
    simulation.ledgers["a"] = Ledger.open(
        tmp_path / "a.sqlite", signing_key=key, accountant=ACCOUNTANT
    )
    simulation.sites["a"] = simulation.site("a")
    if not rule:
        with closing(sqlite3.connect(tmp_path / "a-openings.sqlite")) as database, database:
            database.execute("DELETE FROM piece")
    simulation.learners["a"].values = simulation.learners["a"].values + 9
    again = coordinator.start("a")
    if rule:
        assert "was set back to an older copy" in said(again)
        assert simulation.charges("a") == 0
        return
    second, coordinator.uploads[1] = coordinator.uploads[1], first
    opened = [coordinator.unmask(SEVEN, {n: coordinator.show(n, SEVEN) for n in "bcg"}).total]
    unbind(simulation, "g")  # the colluder, at home
    coordinator.uploads[1] = second
    opened.append(coordinator.unmask(SEVEN, {n: coordinator.show(n, SEVEN) for n in "deg"}).total)
    np.testing.assert_array_equal(opened[1] - opened[0], np.full(len(opened[0]), 9))


@pytest.mark.parametrize("rule", [True, False])
def test_an_attempt_asked_again(tmp_path: Path, rule: bool) -> None:
    """Of two attempts, three sites open the first and the other four the second."""
    coordinator = started(tmp_path, attempts=(1,))
    kept = {site: tmp_path / f"{site}-openings.sqlite" for site in "abc"}
    rows = {}
    for site, store in kept.items():
        with closing(sqlite3.connect(store)) as database:
            rows[site] = database.execute("SELECT * FROM piece").fetchall()
    for site in SEVEN:
        assert isinstance(coordinator.start(site, 2).header, Upload)
    for site, store in kept.items() if not rule else ():  # nothing of attempt 1 was erased
        with closing(sqlite3.connect(store)) as database, database:
            database.executemany("INSERT INTO piece VALUES (?, ?, ?, ?, ?, ?)", rows[site])
    first = {site: coordinator.show(site, SEVEN, attempt=1) for site in "abc"}
    second = {site: coordinator.show(site, SEVEN, attempt=2) for site in "defg"}
    assert coordinator.unmask(SEVEN, second, attempt=2).total is not None
    assert (coordinator.unmask(SEVEN, first, attempt=1).total is None) == rule
    if rule:
        assert "keeps no upload of round 1, attempt 1" in said(first["a"])


@pytest.mark.parametrize("rule", [True, False])
@pytest.mark.parametrize("lie", [{"model": 0.5}, {"learning_rate": 0.1}])
def test_each_site_is_started_from_a_model_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: dict[str, float], rule: bool
) -> None:
    """All but g start from what learns nothing, so that the sum of all is g's contribution alone.

    Source: Pasquini, Francati and Ateniese, "Eluding secure aggregation in federated learning via
    model inconsistency", CCS 2022.
    """
    if not rule:
        monkeypatch.setattr("privagg.protocol.site.start_digest", lambda *start: "00" * 32)
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    alone = simulation.learners["g"].values
    for name in WITHOUT_G:
        simulation.learners[name].values = np.zeros_like(alone)
    coordinator = Coordinator(simulation)
    for name in SEVEN:
        assert isinstance(coordinator.start(name, **(lie if name == "g" else {})).header, Upload)
    answers = {name: coordinator.show(name, SEVEN) for name in SEVEN}
    found = coordinator.unmask(SEVEN, answers).total
    if rule:
        assert all("different models or settings" in said(each) for each in answers.values())
        assert found is None
    else:
        np.testing.assert_array_equal(found, alone)


def test_a_site_that_says_it_started_elsewhere_is_left_out(tmp_path: Path) -> None:
    """Else nobody would open a list that it is on."""
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)

    def elsewhere(frame: bytes) -> bytes:
        message = read_message(frame, simulation.roster)
        if not isinstance(message.header, Upload):
            return frame
        header = message.header.model_copy(update={"start": "ab" * 32})
        return Message.sign(simulation.identities["b"], header, bytes(message.payload)).to_bytes()

    simulation.wire.answers["b"] = elsewhere
    outcome = simulation.round(1)
    assert outcome.survivors == tuple("acdefg")
    assert "'b' started from another model or other settings" in outcome.refusals["b"]


def test_unmasking_without_an_upload(tmp_path: Path) -> None:
    """Whoever is not in a sum opens none: not before it uploaded, nor for a list without it."""
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    coordinator = Coordinator(simulation)
    for site in WITHOUT_G:
        coordinator.start(site)
    listed = tuple(coordinator.uploads[1][site].statement for site in WITHOUT_G)
    request = ReleaseRequest(**coordinator.common, attempt=1, contributions=listed, consents=())
    assert isinstance(coordinator.ask("a", request).header, Consent)
    assert "keeps no upload" in said(coordinator.ask("g", request))
    coordinator.start("g")
    assert "is not on the list" in said(coordinator.ask("g", request))


@pytest.mark.parametrize("rule", [True, False])
def test_dropouts_chosen_to_cut_the_ring(monkeypatch: pytest.MonkeyPatch, rule: bool) -> None:
    """The aggregator names as dropouts the two sites on either side of two others.

    These have masks in common with each other and with the named alone, all of which are released.
    """
    world = World.of(Rule(11, 7, 1, 4, True))
    drawn, recovery = Graph(world.parameters.rule, world.occasion), world.recovery(world.names)
    part, gone = next(
        (pair, around)
        for pair in combinations(range(11), 2)
        for around in [{n for place in pair for n in drawn.neighbours[place]} - set(pair)]
        if len(around) == 4
    )
    listed = tuple(name for place, name in enumerate(world.names) if place not in gone)
    if rule:
        with pytest.raises(CohortError, match="0 of the listed sites could cut"):
            world.release(listed[0], listed, recovery)
        return
    monkeypatch.setattr("privagg.secure.masked.graph.fewest_that_cut", lambda *args: 9)
    taken = {drawn.place(name): recovery._taken[drawn.place(name)] for name in listed}
    opening = _Opening(drawn, taken)
    for name in listed:
        opening.take(drawn.place(name), world.release(name, listed, recovery))
    opening._pieces = {place: opening._pieces[place] for place in part}
    layout, two = world.parameters.layout, [world.names[place] for place in part]
    summed = PackedSum(layout)
    summed.add([world.mask(name).payload for name in two])
    lanes = summed.lanes()
    add_masks(lanes, opening.masks())
    np.testing.assert_array_equal(layout.unpack(layout.to_bytes(lanes)), world.sum_of(two))


@pytest.mark.parametrize("rule", [True, False])
def test_replayed_packets(monkeypatch: pytest.MonkeyPatch, rule: bool) -> None:
    """Packets of round 1, sent in round 2, would give shares of a late upload's own seed."""
    if not rule:
        monkeypatch.setattr(sites, "occasion_digest", lambda occasion: bytes(32))
    first = World.of(Rule.choose(7, 6, 1))
    second = replace(first, masked={}, number=2)
    listed, holder, late = first.names, first.names[0], first.names[6]
    packets = first.recovery(listed).packets(holder, listed)
    release = first.sites[holder].release(
        holder, first.joint, second.occasion, listed, packets, second.mask(holder).kept
    )
    dealt = Attachments.from_bytes(
        first.mask(late).attachments, 6, range(6), first.parameters.attachment_bytes
    )
    wanted = dealt.tags[0][: attached.TAG_BYTES]
    found = [attached.tag(release[at : at + SEED_BYTES]) for at in range(len(release))]
    assert (wanted not in found) == rule


def test_exchanged_cards(tmp_path: Path) -> None:
    """One site is shown others' cards exchanged, one of the coordinator's making, or one fewer."""
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    simulation.run = "run-2"
    coordinator = simulation.identities["coordinator"]
    key, gone = key_of_run(simulation.terms, "run-2", coordinator, simulation.wire)
    message = read_message(key.frame, simulation.roster)
    cards = [bytes(frame) for frame in split_cards(message.payload)]
    theirs = read_message(cards[1], simulation.roster)
    made = Message.sign(Identity.generate("b"), theirs.header, bytes([9]) + bytes(31)).to_bytes()
    fewer = simulation.terms.joint_key("run-2", {name: key.members[name] for name in WITHOUT_G})
    lies = message.header.model_copy(update={"key_id": fewer.key_id})
    for header, shown in (
        (message.header, [cards[1], cards[0], *cards[2:]]),
        (message.header, [cards[0], made, *cards[2:]]),
        (message.header, cards[:-1]),
        (lies, cards[:-1]),
    ):
        frame = Message.sign(coordinator, header, pack_cards(shown)).to_bytes()
        simulation.sites["a"].handle(frame)
    for name in SEVEN[1:]:
        simulation.sites[name].handle(key.frame)
    simulation.keys["run-2"] = key, gone
    outcome = simulation.round(1)
    assert outcome.survivors == SEVEN[1:]
    assert "this site took" in outcome.refusals["a"]  # the last: it is whole, and another key
    assert simulation.charges("a") == 0


@pytest.mark.parametrize("lie", ["all cards", "a's card", "an early day"])
def test_one_sites_card_stops_no_run(tmp_path: Path, lie: str) -> None:
    """It states what is no card, another site's, or a day that is soon over, and is left out."""
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    joint, own_until, stated = simulation.run_key.key, simulation.until, dict[str, Message]()

    def told(frame: bytes) -> bytes:
        message = read_message(frame, simulation.roster)
        if not isinstance(message.header, KeyStatement):
            return frame
        stated[message.header.sender] = message
        if message.header.sender == "a" or lie == "an early day":
            return frame
        card, key_id = joint.to_bytes(), joint.key_id
        if lie == "a's card":
            theirs = stated["a"]
            card, key_id = bytes(theirs.payload), theirs.header.key_id
        header = message.header.model_copy(update={"key_id": key_id})
        return Message.sign(simulation.identities["b"], header, card).to_bytes()

    honest = simulation.wire.handlers["b"]

    def early(frame: bytes) -> bytes:
        simulation.until = simulation.day if lie == "an early day" else own_until
        try:
            return honest(frame)
        finally:
            simulation.until = own_until

    simulation.wire.handlers["b"] = early
    simulation.wire.answers.update(a=told, b=told)
    simulation.begin("run-2")
    assert simulation.run_key.until == own_until
    simulation.day = "2026-11-28"
    outcome = simulation.round(1)
    assert outcome.survivors == tuple("acdefg")
    assert simulation.charges("b") == 0
    missing = "was erased when its last day" if lie == "an early day" else "do not hold the one"
    assert missing in outcome.refusals["b"]
    counts_as_none = "it has no card in this run: what 'b' states is no key"
    assert (counts_as_none in outcome.refusals["b"]) == (lie == "all cards")


@pytest.mark.parametrize("rule", [True, False])
def test_a_rogue_pair_seed(monkeypatch: pytest.MonkeyPatch, rule: bool) -> None:
    """A site masks with other seeds than its neighbours: the sum would be noise, by nobody."""
    if not rule:
        monkeypatch.setattr(attached, "commit", lambda seed: bytes(32))
    world = World.of(Rule.choose(7, 6, 1))
    with monkeypatch.context() as patch:
        patch.setattr(sites, "pair_seed", lambda root, occasion: bytes(32))
        world.mask(world.names[2])
    if rule:
        with pytest.raises(CiphertextError, match="'site002' and 'site000' commit to different"):
            world.recovery(world.names)
        return
    opened = world.open(world.names, world.names)
    assert opened.wrong == {}
    assert opened.total is None or (opened.total != world.sum_of(world.names)).any()


@pytest.mark.parametrize("rule", [True, False])
def test_a_wrong_share(monkeypatch: pytest.MonkeyPatch, rule: bool) -> None:
    """Without tags of shares an honest dealer would be blamed, and the sum stay closed."""
    if not rule:
        monkeypatch.setattr(attached, "tag", lambda share: bytes(attached.TAG_BYTES))
    world = World.of(Rule.choose(7, 6, 1))
    liar, listed, recovery = world.names[0], world.names, world.recovery(world.names)
    releases = {name: world.release(name, listed, recovery) for name in listed}
    spoiled = bytearray(releases[liar])
    spoiled[-1] ^= 1  # of its share of the last site's seed
    opened = recovery.unmask(world.total(listed), listed, {**releases, liar: bytes(spoiled)})
    assert set(opened.wrong) == {liar if rule else world.names[6]}
    assert (opened.total is None) != rule
    if opened.total is not None:
        np.testing.assert_array_equal(opened.total, world.sum_of(listed))
