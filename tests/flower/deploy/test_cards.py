"""Cards: what is signed is what is read; one code over all of them finds any that was swapped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import ConfigError, SignatureError
from privagg.identity.keys import Identity
from privagg.party.cards import (
    MAX_CARD_BYTES,
    Card,
    fingerprint,
    join_address,
    same_fingerprint,
    split_address,
)
from tests.flower.deploy.conftest import Parties

IDENTITY = Identity.generate("north")
CARD = Card(
    federation="trial",
    configuration="1" * 64,
    plan_digest="2" * 64,
    privagg="0.1.0",
    party="north",
    identity=IDENTITY.public_hex,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    CARD.write(tmp_path / "north.card", IDENTITY)
    return tmp_path / "north.card"


def test_a_card_is_read_as_it_was_written(path: Path) -> None:
    assert Card.read(path) == CARD


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("plan_digest", "4" * 64),
        ("privagg", "9"),
        ("identity", Identity.generate("north").public_hex),
    ],
    ids=["plan_digest", "privagg", "identity"],  # a fresh key is no name: workers must agree
)
def test_an_altered_card_is_refused(path: Path, field: str, value: str) -> None:
    signed = json.loads(path.read_text())
    signed["card"][field] = value
    path.write_text(json.dumps(signed))
    with pytest.raises(SignatureError, match="altered"):
        Card.read(path)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("party", "../north", "party"),
        ("version", 3, "version"),
        ("node_key", "ssh-ed25519 AAAA", "node_key"),
        ("authority", "nonsense", "authority"),
        ("superlink", "no port", "superlink"),
        ("superlink", "host:70000", "superlink"),
        ("surprise", "x", "surprise"),
    ],
)
def test_a_card_says_what_it_may_say_and_no_more(
    path: Path, field: str, value: object, said: str
) -> None:
    signed = json.loads(path.read_text())
    signed["card"][field] = value
    path.write_text(json.dumps(signed))
    with pytest.raises(ConfigError, match=said):
        Card.read(path)


@given(
    st.binary(max_size=300)
    | st.recursive(st.none(), st.lists).map(lambda v: json.dumps(v).encode())
)
@settings(max_examples=50, deadline=None)
def test_junk_is_no_card(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("junk") / "x.card"
    path.write_bytes(junk)
    with pytest.raises(ConfigError, match="card"):
        Card.read(path)


def test_a_huge_file_and_a_missing_one_are_named(tmp_path: Path) -> None:
    (tmp_path / "huge.card").write_bytes(b" " * (MAX_CARD_BYTES + 1))
    with pytest.raises(ConfigError, match="larger"):
        Card.read(tmp_path / "huge.card")
    with pytest.raises(ConfigError, match="cannot read"):
        Card.read(tmp_path / "absent.card")


def test_only_its_own_identity_signs_a_card(tmp_path: Path) -> None:
    for other in (Identity.generate("north"), Identity("south", IDENTITY.key)):
        with pytest.raises(ConfigError, match="own identity"):
            CARD.write(tmp_path / "x.card", other)


def test_the_fingerprint_depends_on_every_card_and_on_no_order(parties: Parties) -> None:
    cards = list(parties.cards.values())
    code = fingerprint(cards)
    assert len(code.split()) == 10
    assert fingerprint(reversed(cards)) == code
    assert same_fingerprint(code.upper().replace(" ", "-"), code)
    for place, card in enumerate(cards):
        swapped = card.model_copy(update={"identity": "0" * 64})
        other = fingerprint([*cards[:place], swapped, *cards[place + 1 :]])
        assert not same_fingerprint(other, code)
    assert not same_fingerprint(fingerprint(cards[1:]), code)


@pytest.mark.parametrize(
    ("text", "host", "port"), [("a.b:1", "a.b", 1), ("[::1]:65535", "::1", 65535)]
)
def test_addresses_go_both_ways(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)
    assert join_address(host, port) == text


@pytest.mark.parametrize("text", ["", "host", ":9092", "host:", "host:x", "host:0", "host:٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|outside"):
        split_address(text)
