"""Encrypted tensors on the wire: one byte string a value, hostile bytes refused by name."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from privagg.errors import MessageError
from privagg.secure.wire import (
    EncryptedTensor,
    contributor_bitmap,
)

MAX = 1 << 20
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
texts = st.text(min_size=1, max_size=40).filter(lambda t: _encodable(t))


def _encodable(text: str) -> bool:
    try:
        return len(text.encode()) <= 255
    except UnicodeEncodeError:
        return False


@st.composite
def tensors(draw: st.DrawFn) -> EncryptedTensor:
    roster = draw(st.integers(1, 70))
    members = draw(st.sets(st.integers(0, roster - 1), min_size=1))
    return EncryptedTensor(
        scheme=draw(texts),
        parameters_fingerprint=draw(digests),
        length=draw(st.integers(1, 2**63 - 1)),
        packing=draw(texts),
        contributors=contributor_bitmap(sorted(members), roster),
        roster_size=roster,
        payload=memoryview(draw(st.binary(max_size=200))),
    )


def example(**changes: object) -> EncryptedTensor:
    base = EncryptedTensor("ckks", "ab" * 32, 5, "slots", b"\x05", 4, memoryview(b"payload"))
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(tensors())
def test_tensors_survive_their_bytes(tensor: EncryptedTensor) -> None:
    data = tensor.to_bytes()
    again = EncryptedTensor.from_bytes(data, max_bytes=len(data))
    assert again == tensor
    assert again.to_bytes() == data
    assert again.addends == len(again.members) == tensor.addends
    assert contributor_bitmap(again.members, again.roster_size) == tensor.contributors
    assert (len(data) - tensor.payload.nbytes) % 64 == 0


def test_the_payload_is_a_view_and_not_a_copy() -> None:
    data = example().to_bytes()
    payload = EncryptedTensor.from_bytes(data, max_bytes=MAX).payload
    assert payload.obj is data
    assert payload.readonly


@settings(max_examples=300, deadline=None)
@given(tensors(), st.data())
def test_every_accepted_byte_string_is_the_one_its_value_has(
    tensor: EncryptedTensor, data: st.DataObject
) -> None:
    spoiled = bytearray(tensor.to_bytes())
    header = len(spoiled) - tensor.payload.nbytes
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, header - 1))
        spoiled[at] = data.draw(st.integers(0, 255))
    assume(bytes(spoiled) != tensor.to_bytes())
    try:
        read = EncryptedTensor.from_bytes(bytes(spoiled), max_bytes=MAX)
    except MessageError:
        return
    assert read.to_bytes() == bytes(spoiled)
    assert read != tensor


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_refused_by_name(data: bytes) -> None:
    for head in (b"", b"PAET\x02\x00"):
        with pytest.raises(MessageError):
            EncryptedTensor.from_bytes(head + data, max_bytes=MAX)


@pytest.mark.parametrize("cut", [0, 1, 41, 42, 100, 127, 128, 134])
def test_truncated_tensors_are_refused(cut: int) -> None:
    data = example().to_bytes()
    assert len(data) == 128 + 7
    with pytest.raises(MessageError, match=r"header|payload length"):
        EncryptedTensor.from_bytes(data[:cut], max_bytes=MAX)


@pytest.mark.parametrize(
    ("offset", "form", "value", "reason"),
    [
        (0, "<4s", b"PAEX", "version"),
        (4, "<H", 1, "version"),
        (6, "<I", 2**32 - 64, "header length"),
        (6, "<I", 192, "header length"),
        (10, "<Q", 100 * 10**9, "payload length"),
        (10, "<Q", 6, "payload length"),
        (18, "<Q", 0, "length"),
        (18, "<Q", 2**64 - 1, "length"),
        (26, "<I", 2**32 - 1, "roster size"),
        (26, "<I", 0, "roster size"),
        (26, "<I", 2, "beyond the roster"),
        (32, "<H", 1, "padding"),
        (127, "<B", 1, "padding"),
    ],
)
def test_every_lying_field_is_named(offset: int, form: str, value: object, reason: str) -> None:
    data = bytearray(example().to_bytes())
    struct.pack_into(form, data, offset, value)
    with pytest.raises(MessageError, match=reason):
        EncryptedTensor.from_bytes(data, max_bytes=MAX)


def test_more_bytes_than_expected_are_refused_first() -> None:
    data = example().to_bytes()
    with pytest.raises(MessageError, match="above the 100 expected"):
        EncryptedTensor.from_bytes(data, max_bytes=100)
    with pytest.raises(MessageError, match="payload length"):
        EncryptedTensor.from_bytes(data + b"\0", max_bytes=MAX)


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters_fingerprint": "AB" * 32},
        {"length": 0},
        {"scheme": ""},
        {"packing": "x" * 256},
        {"contributors": b"\x00"},
        {"contributors": b"\x10"},
        {"contributors": b"\x01\x00"},
        {"roster_size": 0},
    ],
)
def test_impossible_tensors_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        example(**changes)


def test_contributor_sets_with_strangers_are_refused() -> None:
    for members in ([4], [-1], [0, 0], []):
        with pytest.raises(MessageError):
            contributor_bitmap(members, 4)
