"""Whoever breaks the protocol is told by name, and honest sites are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from privagg.errors import CiphertextError, CohortError, KeyMismatchError, SchemeError
from privagg.secure.masked import attachments as attached
from privagg.secure.masked import site as sites
from privagg.secure.masked.parameters import JointKey, check_public
from privagg.secure.masked.rule import Rule
from privagg.secure.masked.sharing import SEED_BYTES
from privagg.secure.scheme import Recovery
from tests.secure.masked.worlds import World

RULE = Rule.choose(7, 5, 2)  # 5 shares open a seed


def released(world: World, listed: tuple[str, ...], recovery: Recovery) -> dict[str, bytes]:
    return {name: world.release(name, listed, recovery) for name in listed}


def spoiled(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture
def world() -> World:
    return World.of(RULE)


def test_a_wrong_share_is_told_and_the_sum_still_opens(world: World) -> None:
    listed, recovery = world.names[:6], world.recovery(world.names[:6])
    releases = released(world, listed, recovery)
    releases[listed[2]] = spoiled(releases[listed[2]], 5)  # within the first dealer's own share
    opened = recovery.unmask(world.total(listed), listed, releases)
    assert opened.wrong == {listed[2]: "it released another share than it was dealt"}
    assert opened.total is not None
    assert opened.total.tolist() == world.sum_of(listed).tolist()


def test_a_wrong_share_of_a_seed_with_a_missing_site_is_told(world: World) -> None:
    listed, recovery = world.names[:6], world.recovery(world.names[:6])
    releases = released(world, listed, recovery)
    releases[listed[0]] = spoiled(releases[listed[0]], len(releases[listed[0]]) - 1)
    opened = recovery.unmask(world.total(listed), listed, releases)
    assert opened.wrong == {listed[0]: "it released another share than it was dealt"}
    assert opened.total is not None
    assert opened.total.tolist() == world.sum_of(listed).tolist()


def test_too_many_wrong_shares_stop_the_round(world: World) -> None:
    listed, recovery = world.names, world.recovery(world.names)
    releases = released(world, listed, recovery)
    for name in listed[:3]:
        releases[name] = spoiled(releases[name], 5)
    opened = recovery.unmask(world.total(listed), listed, releases)
    assert opened.total is None
    assert set(opened.wrong) == set(listed[:3])
    assert "4 good shares of 5" in opened.problem


def test_a_dealer_that_seals_other_shares_than_it_tags_is_convicted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        real = sites.seal
        patch.setattr(sites, "seal", lambda key, piece, tags: real(key, spoiled(piece, 40), tags))
        world.mask(world.names[1])
    listed, recovery = world.names, world.recovery(world.names)
    opened = recovery.unmask(world.total(listed), listed, released(world, listed, recovery))
    assert opened.wrong == {world.names[1]: "it sealed other shares than it had tagged"}
    assert opened.total is None


@pytest.mark.parametrize("count", [2, 3])
def test_a_dealer_is_convicted_by_more_than_may_lie(world: World, count: int) -> None:
    """Of a dealer's packets some do not open; so many holders may just say so."""
    dealer, listed, recovery = world.names[1], world.names, world.recovery(world.names)
    for holder in [0, 2, 3][:count]:
        recovery._taken[1].sealed[holder] = bytes(len(recovery._taken[1].sealed[holder]))
    opened = recovery.unmask(world.total(listed), listed, released(world, listed, recovery))
    told = "it sealed shares that more sites cannot open than may collude"
    assert opened.wrong == ({dealer: told} if count > RULE.colluders else {})
    assert (opened.total is None) == (count > RULE.colluders)


def test_a_complaint_without_cause_convicts_its_author(world: World) -> None:
    listed, recovery = world.names, world.recovery(world.names)
    releases = released(world, listed, recovery)
    first = 1 + SEED_BYTES
    releases[listed[3]] = b"\2" + bytes(32) + releases[listed[3]][first:]
    opened = recovery.unmask(world.total(listed), listed, releases)
    assert opened.wrong == {listed[3]: "it complained of shares without cause"}
    assert opened.total is not None


def test_a_dealer_of_shares_of_another_seed_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        real = sites.deal

        def deal(seeds: Any, threshold: int, holders: int) -> Any:
            return real(seeds ^ np.uint8(1), threshold, holders)

        patch.setattr(sites, "deal", deal)
        world.mask(world.names[4])
    listed, recovery = world.names, world.recovery(world.names)
    opened = recovery.unmask(world.total(listed), listed, released(world, listed, recovery))
    assert opened.total is None
    assert set(opened.wrong) == {world.names[4]}
    assert world.names[4] in opened.problem


def test_a_rogue_pair_seed_is_told_before_anything_is_released(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sites, "pair_seed", lambda root, occasion: bytes(32))
        world.mask(world.names[2])
    with pytest.raises(CiphertextError, match=r"'site002' and 'site000' commit to different"):
        world.recovery(world.names)


def test_sites_that_were_shown_other_members_have_other_seeds(world: World) -> None:
    name, few = world.names[2], world.names[:6]
    other = replace(world.occasion, members=few)
    world.masked[name] = world.sites[name].mask(world.values[name], name, world.joint, other)
    with pytest.raises(CiphertextError, match="different seeds"):
        world.recovery(few)


def test_exchanged_cards_are_two_key_ids_and_masks_that_do_not_fit(world: World) -> None:
    first, second, third = world.names[:3]
    cards = dict(world.joint.cards)
    cards[first], cards[second] = cards[second], cards[first]
    other = JointKey(world.parameters, epoch="run", roster="who is who", cards=cards)
    assert other.key_id != world.joint.key_id
    with pytest.raises(KeyMismatchError, match="not that of the key held here"):
        world.sites[first].mask(world.values[first], first, other, world.occasion)
    world.masked[third] = world.sites[third].mask(world.values[third], third, other, world.occasion)
    with pytest.raises(CiphertextError, match="different seeds"):
        world.recovery(world.names)


@pytest.mark.parametrize("changed", ["epoch", "roster", "card", "order"])
def test_a_key_id_covers_epoch_roster_and_every_card_in_order(world: World, changed: str) -> None:
    facts: dict[str, Any] = {"epoch": "run", "roster": "who is who", "cards": world.joint.cards}
    if changed == "card":
        stranger = World.of(RULE).joint.cards[world.names[0]]
        facts["cards"] = {**world.joint.cards, world.names[0]: stranger}
    elif changed == "order":
        facts["cards"] = dict(reversed(world.joint.cards.items()))
    else:
        facts[changed] = "another"
    assert JointKey(world.parameters, **facts).key_id != world.joint.key_id


def test_packets_of_another_round_give_no_share(world: World) -> None:
    listed, earlier = world.names, world.recovery(world.names)
    later = World(world.parameters, world.sites, world.joint, world.values)
    occasion = replace(world.occasion, round=2)
    for name in later.names:
        later.masked[name] = later.sites[name].mask(later.values[name], name, later.joint, occasion)
    recovery = world.parameters.recovery(occasion)
    for name in later.names:
        recovery.add(name, later.masked[name].attachments)
    releases = {
        name: later.sites[name].release(
            name, later.joint, occasion, listed, earlier.packets(name, listed),
            later.masked[name].kept,
        )
        for name in listed
    }  # fmt: skip
    opened = recovery.unmask(later.total(listed), listed, releases)
    assert opened.total is None
    assert "1 good shares of 5" in opened.problem  # each site's own


def test_nothing_is_released_of_who_is_not_listed_nor_between_the_listed(world: World) -> None:
    """All 32-byte strings of all releases, against the shares that could be there."""
    listed, gone = world.names[:5], {5, 6}
    for name in world.names:
        world.mask(name)  # the two that are gone were late: their uploads are there
    recovery = world.recovery(world.names)
    releases = released(world, listed, recovery)
    for place, name in enumerate(listed):
        entries, at = releases[name], 0
        for dealer in range(5):
            assert entries[at] == 1
            tags = attached.Attachments.from_bytes(
                world.mask(listed[dealer]).attachments,
                dealer,
                [other for other in range(7) if other != dealer],
                world.parameters.attachment_bytes,
            ).tags[place]
            beside = [other for other in range(7) if other != dealer]
            wanted = [0, *(1 + beside.index(other) for other in gone)]
            for number in wanted:
                share = entries[at + 1 : at + 1 + SEED_BYTES]
                start = attached.TAG_BYTES * number
                assert attached.tag(share) == tags[start : start + attached.TAG_BYTES]
                at += SEED_BYTES
            at += 1
        assert len(entries) == at


@pytest.mark.parametrize("spoil", [lambda r: r[:-1], lambda r: r + b"\0", lambda r: b"\7" + r[1:],
                                   lambda r: b""])  # fmt: skip
def test_a_malformed_release_is_told(world: World, spoil: Any) -> None:
    listed, recovery = world.names, world.recovery(world.names)
    releases = released(world, listed, recovery)
    releases[listed[0]] = spoil(releases[listed[0]])
    opened = recovery.unmask(world.total(listed), listed, releases)
    assert "release" in opened.wrong[listed[0]]
    assert opened.total is not None


def test_attachments_are_checked(world: World) -> None:
    name = world.names[0]
    good = world.mask(name).attachments
    for bad in (good[:-1], good + b"\0", b""):
        with pytest.raises(CiphertextError, match="bytes instead of"):
            world.parameters.recovery(world.occasion).add(name, bad)
    recovery = world.recovery([name])
    with pytest.raises(CiphertextError, match="taken already"):
        recovery.add(name, good)
    with pytest.raises(CohortError, match="not asked"):
        recovery.add("stranger", good)
    few = World(world.parameters, world.sites, world.joint, world.values)
    occasion = replace(world.occasion, members=world.names[:6])
    short = few.sites[name].mask(few.values[name], name, few.joint, occasion).attachments
    assert len(short) == len(good)
    again = world.parameters.recovery(occasion)
    with pytest.raises(CiphertextError, match="not zero"):
        again.add(name, short[:-1] + b"\1")
    again.add(name, short)


def test_a_site_releases_for_no_list_that_it_is_not_on(world: World) -> None:
    recovery, name = world.recovery(world.names), world.names[6]
    listed = world.names[:6]
    with pytest.raises(CiphertextError, match="not on the list"):
        world.sites[name].release(
            name, world.joint, world.occasion, listed, b"", world.mask(name).kept
        )
    with pytest.raises(CohortError, match="at least 5"):
        world.release(world.names[0], world.names[:4], recovery)
    opened = recovery.unmask(
        world.total(listed),
        listed,
        {**released(world, listed, recovery), name: b"anything"},
    )
    assert opened.wrong == {name: "it released for a list that it is not on"}
    assert opened.total is not None


def test_keys_are_checked(world: World) -> None:
    for small in (bytes(32), b"\1" + bytes(31)):
        with pytest.raises(CiphertextError, match="small order"):
            check_public(small)
    with pytest.raises(CiphertextError, match="32 bytes"):
        check_public(bytes(31))
    few = dict(list(world.joint.cards.items())[:4])
    with pytest.raises(KeyMismatchError, match="4 sites stated a key"):
        JointKey(world.parameters, epoch="run", roster="r", cards=few)
    for key in (world.joint, world.sites[world.names[0]].encryption_key):
        with pytest.raises(SchemeError, match="MaskingKey"):
            key.encrypt(world.values[world.names[0]])
