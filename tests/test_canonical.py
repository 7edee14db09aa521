"""Whatever is hashed, signed or compared as JSON keeps its bytes: each of its makers, pinned."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.audit.attestation import InTotoAttestation, Predicate
from privagg.audit.signed import fingerprint_of
from privagg.audit.statements import pack_statements, unpack_statements
from privagg.identity.keys import Identity, Roster
from privagg.party.cards import Card
from privagg.privacy.ledger import canonical
from privagg.protocol.frames import header_to_bytes
from privagg.protocol.messages import RoundClose, RoundStart, Statement
from privagg.secure.plaintext import PlaintextScheme
from privagg.secure.scheme import Requirement

FACTS: dict[str, Any] = {
    "über": {"b": 0.1, "a": [1, 2.5, -0.0, 1e-7, 1e22, None, True]},
    "Z": "né\u2028 \U0001f600 \"\\/\n\x7f",
    "a": {"é": 1 << 70, "": [[], {}]},
}  # fmt: skip
IDENTITY = Identity("Zürich", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
STATEMENT = Statement(kind=2, header='{"naïve":1}', payload_digest="ab" * 32, signature="cd" * 64)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_scheme_s_parameters_have_one_fingerprint_with_its_maker_and_its_auditor() -> None:
    requirement = Requirement(
        length=5, upload_bound=100, sum_bound=300, addends=3, security_bits=128
    )
    parameters = PlaintextScheme().choose_parameters(requirement)
    assert parameters.fingerprint == fingerprint_of(parameters.to_dict())
    assert parameters.fingerprint == (
        "94b27828609f056303836241b2dc7b498b55f3fe6932ba3ccd215ec58488bcc0"
    )


def test_text_beyond_ascii_floats_and_nested_keys_keep_their_spelling() -> None:
    assert fingerprint_of(FACTS) == (
        "85d27af50c70400d6396b5f8f15e347d7fda9204082e2eca7770cb3ad0af819e"
    )


def test_who_is_who_keeps_its_digest() -> None:
    roster = Roster({"Zürich": "11" * 32, "a": "22" * 32, "Ängelholm": "33" * 32})
    digest = roster.federation_digest(coordinator="coördinator", opener="\U0001f511")
    assert digest == ("98eb3d049c4e2130624b05643cb0d50e5f90b9a2e1bb69ea8de494d8eea9c3a4")


def test_headers_keep_their_bytes() -> None:
    start = RoundStart(
        run="run-1", round=2, attempt=1, sender="coordinator", plan_digest="ab" * 32,
        key_id="cd" * 32, cohort=("b", "a"), kept_sizes={"b": (3, 1), "a": ()},
        settings={"ß": [0.1, 1e-9, {"z": None, "y": "é"}], "lr": 1e22},
    )  # fmt: skip
    close = RoundClose(
        run="run-1", round=2, attempt=1, sender="coordinator", plan_digest="ab" * 32,
        outcome="stopped", survivors=(), reason="too few: 2 ≤ 3", opening=STATEMENT,
    )  # fmt: skip
    assert header_to_bytes(start).decode() == (
        '{"attempt":1,"cohort":["b","a"],"kept_sizes":{"a":[],"b":[3,1]},"key_id":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","plan_digest":"abababababababababababababababababababababababababababababababab","round":2,"run":"run-1","sender":"coordinator","settings":{"lr":1e+22,"\\u00df":[0.1,1e-09,{"y":"\\u00e9","z":null}]}}'
    )
    assert sha256(header_to_bytes(close)) == (
        "d364c3035bd15728271cd7216f09d6044f2312ebd3e3180b3403f32640489bf7"
    )


def test_statements_keep_their_lines() -> None:
    packed = pack_statements([STATEMENT, STATEMENT])
    assert sha256(gzip.decompress(packed)) == (
        "eddbbb6b560ffd1ca2f8e815a4271bd5574a0a4ee2d14d4e2f30be1dc91f7718"
    )
    assert list(unpack_statements(packed)) == [STATEMENT, STATEMENT]


def test_an_attestation_keeps_its_bytes_and_its_signature() -> None:
    predicate = Predicate(federation="Spitäler", run="r", plan_digest="ab" * 32, signer="Zürich")
    made = InTotoAttestation.sign(IDENTITY, {"b.json": b"{}", "ä.txt": b""}, predicate)
    assert sha256(made.payload) == (
        "1dcb17361b707e9fb3786382b6bd930d632cdbb5dc1d05d25a450e6d95703183"
    )
    assert sha256(made.to_bytes()) == (
        "327d2bdd306b4387aabca60d818c70a6a6c9f203cc98042610fb3ea156e8e1b1"
    )


def test_a_card_keeps_what_its_identity_key_signs() -> None:
    card = Card(
        federation="heart", configuration="12" * 32, plan_digest="34" * 32, privagg="1.0é",
        party="a", identity=IDENTITY.public_hex,
    )  # fmt: skip
    assert sha256(card.message) == (
        "1a3b632bde7e8912310d8f2429e046c1a0988069a3b0d37dbdc470082ce447a7"
    )


def test_an_entry_of_the_ledger_keeps_its_bytes() -> None:
    value = canonical.facts(FACTS | {"a": {"é": [1 << 60, ()]}})
    assert canonical.dumps(value).decode() == (
        '{"Z":"n\\u00e9\\u2028 \\ud83d\\ude00 \\"\\\\/\\n\\u007f","a":{"\\u00e9":[1152921504606846'
        '976,[]]},"\\u00fcber":{"a":[1,"2.5","0","0.0000001","10000000000000000000000",'
        'null,true],"b":"0.1"}}'
    )
    assert canonical.digest(value) == (
        "d711427a0812fcb5f9af89a6ac0681a5ec19f179f00be956e4934a7112c8a84f"
    )
