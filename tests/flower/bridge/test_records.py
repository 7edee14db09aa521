"""Frames in Flower's records: the same bytes back, one way to write them, a name for every lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import MessageError
from privagg.flower.bridge import records
from privagg.flower.bridge.records import (
    CHUNK_BYTES,
    CHUNKS,
    HEAD,
    INLINE_BYTES,
    MAX_FRAMES,
    frames_to_records,
    records_to_frames,
)

LARGE = bytes(range(256)) * (INLINE_BYTES // 256 + 1)


@settings(max_examples=40, deadline=None)
@given(frames=st.lists(st.binary(max_size=70), max_size=6))
def test_frames_survive_the_way(frames: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "INLINE_BYTES", 8)
        patch.setattr(records, "CHUNK_BYTES", 16)
        content = frames_to_records(frames)
        assert records_to_frames(content) == frames
        largest = [len(a.data) for r in content.array_records.values() for a in r.values()]
        assert max(largest, default=0) <= 16


def test_a_large_frame_travels_in_chunks_through_flowers_own_serialisation() -> None:
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

    frame = bytes(CHUNK_BYTES) + b"the rest"
    content = frames_to_records([b"small", frame])
    assert sorted(content[CHUNKS]) == ["1.0", "1.1"]
    assert records_to_frames(recorddict_from_proto(recorddict_to_proto(content))) == [
        b"small",
        frame,
    ]


def head(content: RecordDict, **changes: Any) -> None:
    for name, value in changes.items():
        content[HEAD][name] = value


def set_chunk(content: RecordDict, **facts: Any) -> None:
    given = {"dtype": "uint8", "shape": (len(LARGE),), "stype": "privagg.bytes", "data": LARGE}
    content[CHUNKS]["1.0"] = Array(**{**given, **facts})


LIES: dict[str, tuple[Callable[[RecordDict], Any], str]] = {
    "no head": (lambda c: c.pop(HEAD), "carries no frames"),
    "head of another type": (
        lambda c: (c.pop(HEAD), c.update({HEAD: MetricRecord({"a": 1})})),
        "carries no frames",
    ),
    "another version": (lambda c: head(c, version=2), "version '2'"),
    "a version that is true": (lambda c: head(c, version=True), "version 'True'"),
    "no list of sizes": (lambda c: head(c, sizes=3), "no list"),
    "too many sizes": (lambda c: head(c, sizes=[0] * (MAX_FRAMES + 1)), "no list"),
    "a negative size": (lambda c: head(c, sizes=[-5, len(LARGE)]), "no numbers of bytes"),
    "sizes as text": (lambda c: head(c, sizes=["5", "6"]), "no numbers of bytes"),
    "a small frame cut short": (lambda c: head(c, **{"0": b"smal"}), "frame 0"),
    "a small frame as text": (lambda c: head(c, **{"0": "small"}), "frame 0"),
    "a small frame missing": (lambda c: c[HEAD].pop("0"), "entry '0'"),
    "a stray entry": (lambda c: head(c, extra=b"1"), "entry 'extra'"),
    "a huge size": (lambda c: head(c, sizes=[5, 2**39]), "131072 chunks were announced, 1 came"),
    "an impossible size": (lambda c: head(c, sizes=[5, 2**62]), "exceed"),
    "no chunks": (lambda c: c.pop(CHUNKS), "0 came"),
    "chunks of another type": (
        lambda c: (c.pop(CHUNKS), c.update({CHUNKS: ConfigRecord({"1.0": b""})})),
        "not chunks",
    ),
    "a chunk under another name": (
        lambda c: c[CHUNKS].update({"1.7": c[CHUNKS].pop("1.0")}),
        "entry '1.",
    ),
    "a chunk cut short": (lambda c: set_chunk(c, data=LARGE[:-1]), "chunk 0 of frame 1"),
    "a chunk of floats": (lambda c: set_chunk(c, dtype="float64"), "'float64'"),
    "a chunk of another shape": (lambda c: set_chunk(c, shape=(1, len(LARGE))), "chunk 0"),
    "a chunk as a pickle": (lambda c: set_chunk(c, stype="pickle"), "chunk 0 of frame 1"),
    "a stray record": (lambda c: c.update({"more": ArrayRecord()}), "1 records besides"),
}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_in_a_record_gets_a_named_error(lie: str) -> None:
    spoil, words = LIES[lie]
    content = frames_to_records([b"small", LARGE])
    spoil(content)
    with pytest.raises(MessageError, match=words):
        records_to_frames(content)


def test_an_empty_record_of_chunks_is_a_lie_too() -> None:
    content = frames_to_records([b"small"])
    content[CHUNKS] = ArrayRecord()
    with pytest.raises(MessageError, match="is empty"):
        records_to_frames(content)


def test_limits_and_company() -> None:
    content = frames_to_records([b"12345"])
    with pytest.raises(MessageError, match="exceed the 4 accepted"):
        records_to_frames(content, max_bytes=4)
    content["app"] = ConfigRecord({"round": 1})
    assert records_to_frames(content, alone=False) == [b"12345"]
    with pytest.raises(MessageError, match="64 at most"):
        frames_to_records([b""] * (MAX_FRAMES + 1))
