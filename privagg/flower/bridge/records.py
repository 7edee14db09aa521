"""Frames in Flower's records and back.

A `RecordDict` that carries frames holds one `ConfigRecord`, and one `ArrayRecord` where a frame is
too large to stand in it:

    privagg         "version": 1, "sizes": [bytes of each frame], "<i>": a small frame's bytes
    privagg.chunks  "<i>.<j>": chunk j of the large frame i, an `Array` of uint8

Flower sends every chunk by itself, so a large frame never stands whole in one of its messages. What
arrives comes from another party: every size is checked against the chunks in hand before anything
is copied, and there is exactly one way to write given frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from privagg.errors import MessageError

VERSION = 1
HEAD, CHUNKS = "privagg", "privagg.chunks"

CHUNK_BYTES = 4 * 2**20
"""Size of every chunk of a large frame but its last."""

INLINE_BYTES = 2**18
"""A frame up to this size stands in the `ConfigRecord`: one object to send instead of three."""

MAX_FRAMES = 64
"""Frames in one record; an exchange needs a handful."""

_DTYPE, _STYPE = "uint8", "privagg.bytes"


def frames_to_records(frames: Sequence[bytes]) -> RecordDict:
    """Frames as the content of a Flower message.

    Args:
        frames: at most `MAX_FRAMES`, in order; may be empty.

    Raises:
        MessageError: too many frames.
    """
    if len(frames) > MAX_FRAMES:
        raise MessageError(f"{len(frames)} frames do not fit one record; send {MAX_FRAMES} at most")
    head = ConfigRecord({"version": VERSION, "sizes": [len(frame) for frame in frames]})
    chunks = ArrayRecord()
    for index, frame in enumerate(frames):
        if len(frame) <= INLINE_BYTES:
            head[str(index)] = bytes(frame)
            continue
        for number, start in enumerate(range(0, len(frame), CHUNK_BYTES)):
            chunks[f"{index}.{number}"] = _chunk(bytes(frame[start : start + CHUNK_BYTES]))
    content = RecordDict({HEAD: head})
    if chunks:
        content[CHUNKS] = chunks
    return content


def records_to_frames(
    content: RecordDict, *, max_bytes: int = 2**40, alone: bool = True
) -> list[bytes]:
    """The frames that a Flower message carries. Never trusts a size it has not checked.

    Args:
        content: of a message that arrived; not yet believed.
        max_bytes: most that all frames may hold together.
        alone: whether other records beside the frames are refused; an app that adds privagg to
            its own messages sends some.

    Raises:
        MessageError: names the first thing that is wrong.
    """
    sizes = _sizes(content, max_bytes)
    head, chunks = content[HEAD], content.get(CHUNKS, ArrayRecord())
    if not isinstance(chunks, ArrayRecord):
        raise MessageError(f"the record {CHUNKS!r} is a {type(chunks).__name__}, not chunks")
    if CHUNKS in content and not chunks:
        raise MessageError(f"the record {CHUNKS!r} is empty; it was emptied or added on the way")
    _check_names(content, sizes, alone=alone)
    return [
        _inline(head[str(index)], index, size)
        if size <= INLINE_BYTES
        else _joined(chunks, index, size)
        for index, size in enumerate(sizes)
    ]


def _chunk(data: bytes) -> Array:
    return Array(dtype=_DTYPE, shape=(len(data),), stype=_STYPE, data=data)


def _sizes(content: RecordDict, max_bytes: int) -> list[int]:
    head = content.get(HEAD)
    if not isinstance(head, ConfigRecord):
        raise MessageError(f"a message without the record {HEAD!r} carries no frames of privagg's")
    version, sizes = head.get("version"), head.get("sizes")
    if type(version) is not int or version != VERSION:
        raise MessageError(
            f"records of version {str(version)[:20]!r} are unknown here; this side reads {VERSION}"
        )
    if not isinstance(sizes, list) or len(sizes) > MAX_FRAMES:
        raise MessageError(f"the record {HEAD!r} names no list of up to {MAX_FRAMES} sizes")
    found = [size for size in sizes if type(size) is int and size >= 0]
    if len(found) != len(sizes):
        raise MessageError(f"the record {HEAD!r} names sizes that are no numbers of bytes")
    if sum(found) > max_bytes:
        raise MessageError(f"frames of {sum(found)} bytes exceed the {max_bytes} accepted here")
    return found


def _check_names(content: RecordDict, sizes: Sequence[int], *, alone: bool) -> None:
    """Exactly the entries that the sizes ask for, so that the same frames are the same records."""
    inline = {str(index) for index, size in enumerate(sizes) if size <= INLINE_BYTES}
    _same_names(HEAD, set(content[HEAD]), {"version", "sizes", *inline})
    # Counted first: a hostile size must not make this side write down a million names.
    wanted = sum(_chunk_count(size) for size in sizes)
    chunks: Collection[str] = content.get(CHUNKS, ())
    if len(chunks) != wanted:
        raise MessageError(f"{wanted} chunks were announced, {len(chunks)} came")
    _same_names(CHUNKS, set(chunks), set(_chunk_names(sizes)))
    others = set(content) - {HEAD, CHUNKS}
    if alone and others:
        raise MessageError(f"{len(others)} records besides {HEAD!r} came with the frames")


def _same_names(record: str, found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        different = sorted(found ^ wanted)[0]
        raise MessageError(f"the record {record!r} lacks or adds the entry {different[:40]!r}")


def _chunk_count(size: int) -> int:
    return -(-size // CHUNK_BYTES) if size > INLINE_BYTES else 0


def _chunk_names(sizes: Sequence[int]) -> Iterator[str]:
    for index, size in enumerate(sizes):
        yield from (f"{index}.{number}" for number in range(_chunk_count(size)))


def _inline(value: object, index: int, size: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != size:
        raise MessageError(f"frame {index} was announced with {size} bytes and came otherwise")
    return value


def _joined(chunks: ArrayRecord, index: int, size: int) -> bytes:
    parts = []
    for number in range(_chunk_count(size)):
        chunk, expected = chunks[f"{index}.{number}"], min(CHUNK_BYTES, size - number * CHUNK_BYTES)
        facts = (chunk.dtype, tuple(chunk.shape), chunk.stype, len(chunk.data))
        if facts != (_DTYPE, (expected,), _STYPE, expected):
            raise MessageError(
                f"chunk {number} of frame {index} holds {len(chunk.data)} bytes as "
                f"{chunk.dtype[:20]!r}; {expected} plain bytes were announced"
            )
        parts.append(chunk.data)
    return b"".join(parts)
