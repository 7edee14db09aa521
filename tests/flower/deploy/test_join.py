"""Joining: everybody's cards belong together, or the first thing that is wrong is named."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from privagg.errors import ConfigError, DeploymentError, UnknownPartyError
from privagg.flower.deploy.folder import add_approved
from privagg.flower.deploy.join import (
    join,
    make_party,
    registered_line,
    renew,
)
from privagg.party.certificates import days_left, read_certificate, verify_server
from privagg.party.node_keys import make_node_key, public_line
from privagg.protocol.names import COORDINATOR, KEY_HOLDER
from tests.flower.deploy.conftest import AGREEMENT, SUPERLINK, Parties, make

SECRETS = (
    "identity.pem",
    "flower/node.key",
    "flower/app.secret",
    "flower/ca.key",
    "flower/server.key",
)


def test_every_secret_is_its_owners_alone(parties: Parties) -> None:
    found = []
    for folder in parties.folders.values():
        root = folder.party.root
        for place in (root, folder.party.flower):
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
        for name in SECRETS:
            if (root / name).exists():
                found.append(name)
                assert stat.S_IMODE((root / name).stat().st_mode) == 0o600
    assert set(found) == set(SECRETS)


def test_nobody_but_the_coordinator_signs_certificates_and_it_has_no_node(parties: Parties) -> None:
    holders = {n for n, f in parties.folders.items() if f.authority_key.exists()}
    nodes = {n for n, f in parties.folders.items() if f.node_key.exists()}
    assert holders == {COORDINATOR}
    assert nodes == {KEY_HOLDER, "north", "south"}


def test_making_a_party_again_keeps_its_secrets(parties: Parties, tmp_path: Path) -> None:
    for name, folder in parties.folders.items():
        before = {f: f.read_bytes() for f in folder.party.root.rglob("*") if f.is_file()}
        again, card = make(tmp_path, name)
        assert {f: f.read_bytes() for f in folder.party.root.rglob("*") if f.is_file()} == before
        assert card == parties.cards[name]
        assert again == folder


def test_joining_pins_everybody(parties: Parties) -> None:
    codes = set()
    for name, folder in parties.folders.items():
        joined = join(folder, AGREEMENT, list(parties.cards.values()))
        codes.add(joined.fingerprint)
        pins = folder.party.pins()
        assert dict(pins.roster) == {n: c.identity for n, c in parties.cards.items()}
        verify_server(
            folder.authority.read_bytes(),
            parties.folders[COORDINATOR].server_certificate.read_bytes(),
            "superlink.example.org",
        )
        settings = folder.settings()
        assert settings.superlink == SUPERLINK
        expected = ("0.0.0.0", 9443) if name == COORDINATOR else ("127.0.0.1", 9094)
        assert (settings.listen, settings.port) == expected
    assert len(codes) == 1
    assert registered_line(parties.folders[COORDINATOR], "north") == parties.cards["north"].node_key


@pytest.mark.parametrize(
    ("party", "change", "said"),
    [
        ("south", {"configuration": "9" * 64}, "another configuration"),
        ("south", {"federation": "other"}, "another configuration"),
        ("south", {"plan_digest": "9" * 64, "privagg": "0.9"}, "another plan.*0.9"),
        ("south", {"node_key": None}, "not one of that role"),
        (COORDINATOR, {"authority": None}, "not one of that role"),
        (COORDINATOR, {"superlink": None}, "not one of that role"),
        ("north", {"identity": "9" * 64}, "not this folder's"),
    ],
)
def test_cards_that_do_not_belong_together_are_named(
    parties: Parties, party: str, change: dict[str, str | None], said: str
) -> None:
    cards = {**parties.cards, party: parties.cards[party].model_copy(update=change)}
    folder = parties.folders["north"]
    with pytest.raises(DeploymentError, match=said):
        join(folder, AGREEMENT, list(cards.values()))
    assert not folder.party.pins_file.exists()


def test_missing_doubled_and_foreign_cards_are_named(parties: Parties) -> None:
    folder, cards = parties.folders["north"], list(parties.cards.values())
    with pytest.raises(DeploymentError, match=r"missing: coordinator"):
        join(folder, AGREEMENT, cards[1:])
    other = parties.cards["south"].model_copy(update={"identity": "9" * 64})
    with pytest.raises(DeploymentError, match="two different cards of 'south'"):
        join(folder, AGREEMENT, [*cards, other])
    with pytest.raises(UnknownPartyError, match="mars"):
        join(folder, AGREEMENT, [*cards, other.model_copy(update={"party": "mars"})])
    for what in ("identity", "node_key"):
        value = getattr(parties.cards["south"], what)
        twin = parties.cards[KEY_HOLDER].model_copy(update={what: value})
        shared = {**parties.cards, KEY_HOLDER: twin}
        with pytest.raises(DeploymentError, match=f"same {what.replace('_', ' ')}"):
            join(folder, AGREEMENT, list(shared.values()))


def test_a_lost_node_comes_back_with_new_keys_only_where_that_was_agreed(
    parties: Parties, tmp_path: Path
) -> None:
    for folder in parties.folders.values():
        join(folder, AGREEMENT, list(parties.cards.values()))
    replaced, card = make(tmp_path / "new-machine", "south")
    cards = list({**parties.cards, "south": card}.values())
    for name in (COORDINATOR, "north"):
        folder = parties.folders[name]
        with pytest.raises(DeploymentError, match=r"south.*--replace"):
            join(folder, AGREEMENT, cards)
        assert folder.party.pins().roster["south"] == parties.cards["south"].identity
        assert join(folder, AGREEMENT, cards, replace=True).changed == ("south",)
        assert folder.party.pins().roster["south"] == card.identity
    assert join(replaced, AGREEMENT, cards).changed == ()
    assert registered_line(parties.folders[COORDINATOR], "south") == card.node_key


def test_another_node_key_of_a_known_party_is_a_change_too(parties: Parties) -> None:
    coordinator = parties.folders[COORDINATOR]
    join(coordinator, AGREEMENT, list(parties.cards.values()))
    card = parties.cards["south"].model_copy(update={"node_key": public_line(make_node_key())})
    cards = list({**parties.cards, "south": card}.values())
    with pytest.raises(DeploymentError, match="node key of south"):
        join(coordinator, AGREEMENT, cards)


def test_the_address_is_the_coordinators(tmp_path: Path) -> None:
    config = tmp_path / "federation.toml"
    config.touch()
    for name, superlink in ((COORDINATOR, None), ("north", SUPERLINK), (COORDINATOR, "nonsense")):
        with pytest.raises(DeploymentError, match="superlink|host:port"):
            make_party(tmp_path / name, name, AGREEMENT, config, superlink=superlink)
    with pytest.raises(UnknownPartyError, match="mars"):
        make_party(tmp_path / "mars", "mars", AGREEMENT, config)


def test_a_nodes_port_never_leaves_its_machine(parties: Parties) -> None:
    with pytest.raises(DeploymentError, match="never leaves"):
        join(parties.folders["north"], AGREEMENT, list(parties.cards.values()), listen="0.0.0.0")


def test_renewal_needs_nothing_new_at_the_nodes(parties: Parties) -> None:
    coordinator, north = parties.folders[COORDINATOR], parties.folders["north"]
    for folder in (coordinator, north):
        join(folder, AGREEMENT, list(parties.cards.values()))
    before, key = coordinator.server_certificate.read_bytes(), coordinator.server_key.read_bytes()
    renew(coordinator, days=30)
    after = coordinator.server_certificate.read_bytes()
    assert after != before
    assert coordinator.server_key.read_bytes() == key
    verify_server(north.authority.read_bytes(), after, "superlink.example.org")
    assert days_left(read_certificate(after)) == 29
    with pytest.raises(DeploymentError, match="renew at the coordinator"):
        renew(north)
    coordinator.authority_key.rename(coordinator.at("elsewhere"))
    with pytest.raises(DeploymentError, match="off line"):
        renew(coordinator)


def test_an_approval_names_an_app_and_a_reason(parties: Parties) -> None:
    folder = parties.folders["north"]
    for sha256, why in (("abc", "read it"), ("a" * 64, "  ")):
        with pytest.raises(ConfigError):
            add_approved(folder, sha256, why)
    add_approved(folder, "a" * 64, "Dr. Ito\nread it")
    assert folder.at("approved.txt").read_text() == f"{'a' * 64}  Dr. Ito read it\n"
