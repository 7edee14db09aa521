"""Frames: exactly one byte string each, nothing trusted before it is checked."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import MessageError, PrivaggError, SignatureError, UnknownPartyError
from privagg.identity.keys import Identity, Roster
from privagg.protocol.frames import (
    Message,
    forget_headers,
    header_to_bytes,
    parse_header,
    read_message,
    read_statement,
)
from privagg.protocol.messages import Acknowledgement, RoundStart

ALICE, BOB = Identity.generate("alice"), Identity.generate("bob")
ROSTER = Roster.of(ALICE, BOB)
PLACE = {"run": "r-1", "round": 3, "attempt": 1, "plan_digest": "ab" * 32}


def start(payload: bytes = b"model") -> Message:
    header = RoundStart(**PLACE, sender="alice", key_id="cd" * 32, cohort=("bob",))
    return Message.sign(ALICE, header, payload)


def test_round_trip_is_the_same_bytes() -> None:
    frame = start().to_bytes()
    message = read_message(frame, ROSTER)
    assert bytes(message.payload) == b"model"
    assert message.to_bytes() == frame


def test_settings_travel_signed_and_unchanged() -> None:
    settings = {"rate": {"float": "0x1.8p-3"}, "keys": ["a", 2, None, True], "text": "é\u2028"}
    header = RoundStart(
        **PLACE, sender="alice", key_id="cd" * 32, cohort=("bob",), settings=settings
    )
    read = read_message(Message.sign(ALICE, header).to_bytes(), ROSTER).header
    assert isinstance(read, RoundStart)
    assert read.settings == settings
    assert read == header


def test_a_header_is_read_once_and_its_kind_counts() -> None:
    header = Acknowledgement(**PLACE, sender="alice", kept_sizes={"bob": (3,)})
    text = header_to_bytes(header)
    forget_headers()
    first = parse_header(Acknowledgement.kind, text)
    assert parse_header(Acknowledgement.kind, bytes(bytearray(text))) is first
    with pytest.raises(MessageError, match="not a RoundStart header"):
        parse_header(RoundStart.kind, text)
    text = start().header_bytes  # holds settings, which an app is given
    assert parse_header(RoundStart.kind, text) is not parse_header(RoundStart.kind, text)


def test_a_statement_stands_without_its_payload() -> None:
    message = start(b"x" * 1000)
    assert read_statement(message.statement, ROSTER) == message.header
    forged = message.statement.model_copy(update={"payload_digest": "00" * 32})
    with pytest.raises(SignatureError):
        read_statement(forged, ROSTER)


def test_what_earlier_frames_signed_is_verified_as_a_statement_alone() -> None:
    message = start()
    signed = f"privagg/message/2/{message.header.kind}\0{message.statement.header}\0" + "ab" * 32
    signature = ALICE.sign(signed.encode()).hex()
    earlier = {"payload_digest": "ab" * 32, "signature": signature}
    statement = message.statement.model_copy(update=earlier)
    assert read_statement(statement, ROSTER) == message.header
    frame = message.to_bytes()
    with pytest.raises(MessageError, match="an earlier privagg made it"):
        read_message(frame[:4] + b"\3" + frame[5:-64] + bytes.fromhex(signature), ROSTER)


def test_a_signature_has_one_statement() -> None:
    header = start().header.model_copy(update={"settings": {"note": "why?"}})
    statement = Message.sign(ALICE, header).statement
    assert read_statement(statement, ROSTER) == header
    other = statement.model_copy(update={"header": statement.header.replace("?", "\u00bf")})
    with pytest.raises(MessageError):
        read_statement(other, ROSTER)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda f: f[:10], MessageError),
        (lambda f: f[:-1], MessageError),
        (lambda f: f + b"\0", MessageError),
        (lambda f: b"EVIL" + f[4:], MessageError),
        (lambda f: f[:4] + b"\1" + f[5:], MessageError),
        (lambda f: f[:5] + b"\x63" + f[6:], MessageError),
        (lambda f: f[:6] + struct.pack("<I", 2**31) + f[10:], MessageError),
        (lambda f: f[:10] + struct.pack("<Q", 100 * 2**30) + f[18:], MessageError),
        (lambda f: f[:-1] + bytes([f[-1] ^ 1]), SignatureError),
        (lambda f: f.replace(b"model", b"medel"), SignatureError),
        (lambda f: f.replace(b'"round":3', b'"round":4'), SignatureError),
        (lambda f: f.replace(b'"alice"', b'"mally"'), UnknownPartyError),
        (lambda f: f.replace(b'"alice"', b'"\\u0061li"'), MessageError),
    ],
)
def test_changed_frames_are_refused_by_name(change, error) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error):
        read_message(change(start().to_bytes()), ROSTER)


def test_nobody_signs_for_somebody_else() -> None:
    with pytest.raises(MessageError, match="cannot sign as"):
        Message.sign(BOB, start().header)
    stolen = Message.sign(
        Identity("alice", BOB.key), RoundStart(**PLACE, sender="alice", key_id="0" * 64, cohort=())
    )
    with pytest.raises(SignatureError):
        read_message(stolen.to_bytes(), ROSTER)


def test_oversized_frames_are_refused_unread() -> None:
    with pytest.raises(MessageError, match="exceeds"):
        read_message(start().to_bytes(), ROSTER, max_bytes=100)


def test_only_the_canonical_header_is_accepted() -> None:
    header = Acknowledgement(**PLACE, sender="alice")
    text = header_to_bytes(header)
    assert parse_header(Acknowledgement.kind, text) == header
    for other in (text.replace(b",", b", "), text.replace(b'"round":3', b'"round":3.0')):
        with pytest.raises(MessageError):
            parse_header(Acknowledgement.kind, other)


def test_a_signature_of_one_kind_is_no_signature_of_another() -> None:
    frame = bytearray(Message.sign(ALICE, Acknowledgement(**PLACE, sender="alice")).to_bytes())
    frame[5] = RoundStart.kind
    with pytest.raises(MessageError):
        read_message(frame, ROSTER)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_bytes_never_pass(data: st.DataObject) -> None:
    frame = bytearray(start().to_bytes())
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PrivaggError):
        read_message(frame, ROSTER)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_noise_never_passes_nor_crashes(noise: bytes) -> None:
    for frame in (noise, b"PVAG\2\1" + noise):
        with pytest.raises(PrivaggError):
            read_message(frame, ROSTER)
