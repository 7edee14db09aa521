"""Every parser of bytes that another party sends, with honest bytes to start from.

A parser takes bytes and answers with a value or with an error of the project's own tree: never with
another exception, and in a time that its input's length bounds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from privagg.audit.bundle import ReportBundle
from privagg.audit.container import unpack
from privagg.config import load_config
from privagg.deployment.cards import Card
from privagg.deployment.certificates import make_authority, read_certificate
from privagg.deployment.layout import PartyFile, PartyFolder
from privagg.errors import PrivaggError
from privagg.identity import Identity, Roster
from privagg.messages import Challenge, Message, read_message
from privagg.messages.frames import parse_header, read_statement
from privagg.messages.kinds import Statement
from privagg.privacy.ledger.bundle import Bundle
from privagg.privacy.ledger.checkpoint import Checkpoint
from privagg.privacy.ledger.entries import Entry
from privagg.report.model import Report
from privagg.runtime.flower.guard import check_app
from privagg.secure.contributors import contributor_bitmap
from privagg.secure.wire import EncryptedTensor

VECTOR = Path(__file__).parent / "vectors" / "bundle-649ed6a.privagg.zip"
TEMPLATE = Path(__file__).parent.parent / "privagg" / "cli" / "template.toml"
SECONDS_A_CALL = 5.0


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
        scheme="bfv", parameters_fingerprint="ab" * 32, key_id="cd" * 32, length=4, packing="p",
        run="r", round=1, attempt=1, contributors=contributor_bitmap([0], 3), roster_size=3,
        payload=memoryview(bytes(32)),
    )  # fmt: skip

    def statement(data: bytes) -> object:
        told = replace_text(message.statement, data.decode("latin-1"))
        return read_statement(told, roster)

    return {
        "frame": Parser(message.to_bytes(), lambda data: read_message(data, roster)),
        "header": Parser(message.header_bytes, lambda data: parse_header(header.kind, data)),
        "statement": Parser(message.header_bytes, statement),
        "tensor": Parser(
            tensor.to_bytes(), lambda data: EncryptedTensor.from_bytes(data, max_bytes=2**30)
        ),
    }


def replace_text(statement: Statement, text: str) -> Statement:
    """The same statement about another header."""
    return statement.model_copy(update={"header": text})


def _evidence() -> dict[str, Parser]:
    whole = VECTOR.read_bytes()
    files = unpack(whole)
    report = next(data for name, data in files.items() if name.endswith("report.json"))
    ledger = next(data for name, data in files.items() if name.startswith("ledgers/"))
    export = Bundle.parse(ledger)
    return {
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
    card = Card(
        federation="heart", configuration="ab" * 32, plan_digest="cd" * 32, privagg="0",
        party="north", identity=north.public_hex,
    )  # fmt: skip
    path = Path(tempfile.mkdtemp(prefix="parsers-")) / "north.card"
    card.write(path, north)
    return {
        "configuration": Parser(TEMPLATE.read_bytes(), _in_file(load_config, "x.toml")),
        "party.toml": Parser(honest, party),
        "card": Parser(path.read_bytes(), _in_file(Card.read, "x.card")),
        "certificate": Parser(authority, read_certificate),
        "app": Parser(b"PK", lambda data: check_app(data, ())),
    }


def parsers() -> dict[str, Parser]:
    """Name -> parser, each with honest bytes."""
    return {**_messages(), **_evidence(), **_files()}


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
        started = time.process_time()
        try:
            parser.parse(data)
        except PrivaggError:
            pass
        except Exception as error:  # what the harness is for
            found.append(f"{type(error).__name__}: {str(error)[:200]} at {data[:80]!r}")
        if time.process_time() - started > SECONDS_A_CALL:
            found.append(f"{len(data)} bytes took more than {SECONDS_A_CALL} s: {data[:80]!r}")
    return found
