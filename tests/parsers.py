"""Every parser of bytes that another party sends, with honest bytes to start from.

A parser takes bytes and answers with a value or with an error of the project's own tree: never with
another exception, and in a time and a memory that its input's length bounds.
"""

from __future__ import annotations

import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from privagg.audit.attestation import InTotoAttestation
from privagg.audit.bundle import ReportBundle
from privagg.audit.container import unpack
from privagg.audit.replayed import ReplayedLedger
from privagg.audit.statements import pack_statements, unpack_statements
from privagg.audit.untrusted import check_numbers
from privagg.config.schema import load_config
from privagg.errors import PlanError, PrivaggError
from privagg.flower.bridge.guard import check_app
from privagg.identity.keys import Identity, Roster
from privagg.party.cards import Card
from privagg.party.certificates import make_authority, read_certificate
from privagg.party.folder import PartyFile, PartyFolder, PinsFile
from privagg.privacy.accountants import CertifiedAccountant
from privagg.privacy.ledger.checkpoint import Checkpoint
from privagg.privacy.ledger.copies import Bundle
from privagg.privacy.ledger.entries import Entry
from privagg.privacy.plan import load_plan
from privagg.protocol.frames import Message, parse_header, read_message, read_statement
from privagg.protocol.key_statement import pack_cards, split_cards
from privagg.protocol.messages import Challenge, Statement
from privagg.report.model import Report
from privagg.secure.contributors import contributor_bitmap
from privagg.secure.masked.rule import Rule
from privagg.secure.opening import key_generator
from privagg.secure.registry import scheme
from privagg.secure.scheme import Parameters, Requirement
from privagg.secure.wire import EncryptedTensor
from tests.secure.masked.worlds import World

VECTOR = Path(__file__).parent / "vectors" / "bundle-649ed6a.privagg.zip"
TEMPLATE = Path(__file__).parent.parent / "privagg" / "cli" / "template.toml"
SECONDS_A_CALL = 5.0
BYTES_A_CALL, BYTES_A_BYTE = 48 * 2**20, 200
"""A call may take so much memory at once, and so much for each byte of its input."""
TRACED_EVERY = 10
"""One call in so many is run under Python's own account of memory, which is slow."""


@dataclass(frozen=True)
class Parser:
    """One parser of hostile bytes.

    Args:
        honest: bytes that it takes.
        parse: raises nothing but a `PrivaggError`.
    """

    honest: bytes
    parse: Callable[[bytes], object]


def _in_file(read: Callable[[Path], object], name: str = "file") -> Callable[[bytes], object]:
    place = Path(tempfile.mkdtemp(prefix="parsers-")) / name

    def parse(data: bytes) -> object:
        place.write_bytes(data)
        return read(place)

    return parse


def _messages() -> dict[str, Parser]:
    north = Identity.generate("north")
    roster = Roster.of(north)
    header = Challenge(
        run="r", round=1, attempt=1, sender="north", plan_digest="ab" * 32, nonce="cd" * 32
    )
    message = Message.sign(north, header, b"payload")
    tensor = EncryptedTensor(
        scheme="bfv", parameters_fingerprint="ab" * 32, length=4, packing="p",
        contributors=contributor_bitmap([0], 3), roster_size=3,
        payload=memoryview(bytes(32)),
    )  # fmt: skip

    def statement(data: bytes) -> object:
        told = replace_text(message.statement, data.decode("latin-1"))
        return read_statement(told, roster)

    return {
        "frame": Parser(message.to_bytes(), lambda data: read_message(data, roster)),
        "header": Parser(message.header_bytes, lambda data: parse_header(header.kind, data)),
        "statement": Parser(message.header_bytes, statement),
        "cards": Parser(pack_cards([message.to_bytes()] * 2), lambda data: list(split_cards(data))),
        "tensor": Parser(
            tensor.to_bytes(), lambda data: EncryptedTensor.from_bytes(data, max_bytes=2**30)
        ),
    }


def _masked() -> dict[str, Parser]:
    """What sites send whoever adds under masks, and what they are sent to release by."""
    world = World.of(Rule.choose(4, 3, 1), length=8)
    listed, name = world.names[:3], world.names[0]
    recovery, masked, facts = world.recovery(listed), world.mask(name), world.parameters.to_dict()
    release = world.release(name, listed, recovery)

    def unmask(data: bytes) -> object:
        return recovery.unmask(world.total(listed), listed, {name: data})

    def add(data: bytes) -> None:
        world.parameters.recovery(world.occasion).add(name, data)

    def packets(data: bytes) -> object:
        return world.sites[name].release(
            name, world.joint, world.occasion, listed, data, masked.kept
        )

    return {
        "masked payload": Parser(masked.payload, lambda d: world.parameters.fold().add(d)),
        "masked attachments": Parser(masked.attachments, add),
        "masked packets": Parser(recovery.packets(name, listed), packets),
        "masked release": Parser(release, unmask),
        "masked card": Parser(
            world.sites[name].encryption_key.to_bytes(),
            lambda data: scheme("masked").load_encryption_key(world.parameters, data),
        ),
        "masked parameters": Parser(
            json.dumps(facts).encode(),
            lambda data: scheme("masked").load_parameters(_as_json(data)),
        ),
    }


def _secure() -> dict[str, Parser]:
    """What sites, key holder and coordinator send each other inside a tensor, and public keys."""
    found = {}
    for name in ("plaintext", "bfv", "ckks", "paillier"):
        chosen = scheme(name)
        options = {"modulus_bits": 2048} if name == "paillier" else {}
        bits = 112 if name == "paillier" else 128
        wanted = Requirement(8, 100, 400, 4, security_bits=bits)
        key = key_generator(chosen.name).generate_key(chosen.choose_parameters(wanted, **options))
        parameters, public = key.encryption_key.parameters, key.encryption_key.to_bytes()
        payload = key.encryption_key.encrypt(np.arange(8))
        share = key.open_share(payload, 1)
        facts = json.dumps(parameters.to_dict()).encode()
        found |= {
            f"{name} payload": Parser(payload, lambda data, p=parameters: p.fold().add(data)),
            f"{name} public key": Parser(
                public,
                lambda data, c=chosen, p=parameters: c.load_encryption_key(p, data),
            ),
            f"{name} share": Parser(
                share, lambda data, c=chosen, p=parameters: c.combine(p, [data], 1)
            ),
            f"{name} parameters": Parser(
                facts, lambda data, c=chosen: c.load_parameters(_as_json(data))
            ),
        }
        if part := parameters.key_part(payload):
            found[f"{name} key part"] = Parser(part, lambda data, p=parameters: _add_part(p, data))
    return found


def _add_part(parameters: Parameters, data: bytes) -> None:
    fold = parameters.key_part_fold()
    assert fold is not None
    fold.add(data)


def _as_json(data: bytes) -> Any:
    """JSON as a bundle's reader lets it through; what is no JSON is somebody else's fault."""
    try:
        return json.loads(check_numbers(data, what="the input"))
    except (ValueError, RecursionError) as error:
        raise PlanError(f"not JSON: {error}") from error


def replace_text(statement: Statement, text: str) -> Statement:
    """The same statement about another header."""
    return statement.model_copy(update={"header": text})


def _statement() -> Statement:
    north = Identity.generate("north")
    header = Challenge(
        run="r", round=1, attempt=1, sender="north", plan_digest="ab" * 32, nonce="cd" * 32
    )
    return Message.sign(north, header, b"payload").statement


def _evidence() -> dict[str, Parser]:
    whole = VECTOR.read_bytes()
    files = unpack(whole)
    report = next(data for name, data in files.items() if name.endswith("report.json"))
    ledger = next(data for name, data in files.items() if name.startswith("ledgers/"))
    export = Bundle.parse(ledger)
    accountant = CertifiedAccountant()
    plan = json.dumps(json.loads(report)["plan"]).encode()
    return {
        "attestation": Parser(files["attestation.intoto.json"], InTotoAttestation.parse),
        "signed statements": Parser(
            pack_statements([_statement()]), lambda data: list(unpack_statements(data))
        ),
        "ledger replayed": Parser(
            ledger, lambda data: ReplayedLedger.parse(data, accountant, what="the ledger")
        ),
        "plan": Parser(plan, lambda data: load_plan(_as_json(data))),
        "evidence bundle": Parser(whole, ReportBundle.parse),
        "ledger's export": Parser(ledger, Bundle.parse),
        "ledger's entry": Parser(export.bodies[0], Entry.parse),
        "checkpoint": Parser(
            export.notes[-1].encode(),
            lambda data: Checkpoint.parse(data.decode("utf-8", "surrogateescape")),
        ),
        "report": Parser(report, Report.from_json),
    }


def _files() -> dict[str, Parser]:
    authority = make_authority("heart").certificate_pem
    folder = PartyFolder.create(
        Path(tempfile.mkdtemp(prefix="parsers-")) / "north", PartyFile(name="north")
    )
    honest = folder.party_file.read_bytes()

    def party(data: bytes) -> object:
        folder.party_file.write_bytes(data)
        return folder.party()

    north = Identity.generate("north")
    folder.pin(
        PinsFile(
            plan_digest="ab" * 32, configuration="cd" * 32,
            roster={"north": north.public_hex},
        )
    )  # fmt: skip

    def pins(data: bytes) -> object:
        folder.pins_file.write_bytes(data)
        return folder.pins()

    card = Card(
        federation="heart", configuration="ab" * 32, plan_digest="cd" * 32, privagg="0",
        party="north", identity=north.public_hex,
    )  # fmt: skip
    path = Path(tempfile.mkdtemp(prefix="parsers-")) / "north.card"
    card.write(path, north)
    return {
        "configuration": Parser(TEMPLATE.read_bytes(), _in_file(load_config, "x.toml")),
        "party.toml": Parser(honest, party),
        "pins.toml": Parser(folder.pins_file.read_bytes(), pins),
        "card": Parser(path.read_bytes(), _in_file(Card.read, "x.card")),
        "certificate": Parser(authority, read_certificate),
        "app": Parser(b"PK", lambda data: check_app(data, ())),
    }


def parsers() -> dict[str, Parser]:
    """Name -> parser, each with honest bytes."""
    return {**_messages(), **_secure(), **_masked(), **_evidence(), **_files()}


_PIECES = (
    b"", b"\x00", b"\xff" * 8, b"\n", b'"', b"[" * 5000, b'{"a":' * 3000, b"9" * 5000, b"1e999999",
    b"-1", b"NaN", b"null", b"\xed\xa0\x80", b"\\ud800", "\u2028".encode(), b"a=" + b"[" * 3000,
    (2**63).to_bytes(8, "little"), b"\n-----BEGIN CERTIFICATE-----\n", b"true", b"{}", b"..",
)  # fmt: skip
"""What parsers stumble over: put in the place of what stands there."""


def mutated(honest: bytes, draw: np.random.Generator) -> bytes:
    """Honest bytes after one to three changes: flips, cuts, doublings, stumbling stones."""
    data = bytearray(honest)
    for _ in range(draw.integers(1, 4)):
        at = int(draw.integers(0, len(data) + 1))
        upto = min(len(data), at + int(draw.integers(0, 40)))
        kind = draw.integers(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(draw.integers(8))
        elif kind == 1:
            data[at:upto] = draw.bytes(int(draw.integers(0, 20)))
        elif kind == 2:
            data[at:upto] = _PIECES[draw.integers(len(_PIECES))]
        elif kind == 3:
            del data[at:]
        else:
            data[at:at] = data[at:upto]
    return bytes(data)


def attack(parser: Parser, count: int, seed: int) -> list[str]:
    """Feeds `count` hostile inputs; returns what went wrong, in words with the input."""
    draw, found = np.random.default_rng(seed), []
    for number in range(count):
        data = mutated(parser.honest, draw) if number % 20 else draw.bytes(int(draw.integers(300)))
        traced = number % TRACED_EVERY == 0
        if traced:
            tracemalloc.start()
        started = time.process_time()
        try:
            parser.parse(data)
        except PrivaggError:
            pass
        except Exception as error:  # what the harness is for
            found.append(f"{type(error).__name__}: {str(error)[:200]} at {data[:80]!r}")
        if traced:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if peak > BYTES_A_CALL + BYTES_A_BYTE * len(data):
                found.append(f"{len(data)} bytes took {peak} bytes of memory: {data[:80]!r}")
        if time.process_time() - started > SECONDS_A_CALL:
            found.append(f"{len(data)} bytes took more than {SECONDS_A_CALL} s: {data[:80]!r}")
    return found
