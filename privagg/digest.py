"""What is hashed and signed: one byte string for one JSON value, one digest for a large payload.

JSON whose bytes are hashed, signed or compared is written in one spelling, `canonical_json`.

A payload is hashed with BLAKE3 (O'Connor, Aumasson, Neves and Wilcox-O'Hearn, "BLAKE3: one
function, fast everywhere", 2020), a tree of chunks of a kilobyte that a processor hashes side by
side in its vector registers. It is used in its key derivation mode, whose context separates this
use from every other. Two byte strings with one digest take 2^128 work for a generic attack (section
5.1.2). On one core with AVX-512 it hashes 6.5 GB a second; SHA-256 in the same core's hardware 1.8,
BLAKE2b 0.95. A sum under masks is added at some 10.

Frames up to version 3 were hashed with BLAKE2b in its own tree mode. What was signed over such a
digest is still held against it (`is_digest_of`): leaves of one mebibyte, unlimited fan-out, depth
2, inner length 32 (Aumasson, Neves, Wilcox-O'Hearn and Winnerlein, "BLAKE2", 2013, sections 2.5 and
2.10).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from blake3 import blake3

_CONTEXT = "privagg 2026-11-28 digest of a payload"
_LEAF_BYTES = 1 << 20
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: keys sorted by code point, no spaces, ASCII, no newline.

    Everything outside ASCII is escaped, beyond the Basic Multilingual Plane as a surrogate pair.
    Floats are Python's shortest that read back as the same float (`1e-07`, not RFC 8785's `1e-7`);
    the ledger takes none, so that a stranger need not know this. Lines of a file add
    their own newline. Not-a-number is written as `NaN`, which is no JSON: whoever
    takes floats from strangers refuses it first.

    Args:
        value: dictionaries with string keys, lists, strings, integers, floats, booleans and None.

    Raises:
        TypeError: anything else.
    """
    return _CANONICAL.encode(value).encode("ascii")


def json_digest(value: Any, *, domain: bytes = b"") -> str:
    """SHA-256, 64 hexadecimal digits, over a value's `canonical_json`.

    Args:
        value: as `canonical_json` takes it.
        domain: stands before it and separates this use from every other.
    """
    return hashlib.sha256(domain + canonical_json(value)).hexdigest()


def tree_digest(data: bytes | bytearray | memoryview) -> str:
    """The tree digest of a payload, read where it lies.

    Args:
        data: contiguous bytes, any number of them.

    Returns:
        64 hexadecimal digits.
    """
    return blake3(data, derive_key_context=_CONTEXT).hexdigest()


def is_digest_of(data: bytes | bytearray | memoryview, digest: str) -> bool:
    """Whether somebody signed this payload: by its tree digest, or by that of earlier frames.

    Args:
        data: as for `tree_digest`.
        digest: 64 hexadecimal digits, from a statement of any version.
    """
    return digest in (tree_digest(data), _earlier_digest(data))


def _earlier_digest(data: bytes | bytearray | memoryview) -> str:
    view = memoryview(data).cast("B")
    starts = range(0, max(1, view.nbytes), _LEAF_BYTES)  # nothing at all is one empty leaf
    leaves = [
        _node(view[start : start + _LEAF_BYTES], depth=0, place=place, last=start == starts[-1])
        for place, start in enumerate(starts)
    ]
    return _node(b"".join(leaves), depth=1, place=0, last=True).hex()


def _node(data: bytes | memoryview, *, depth: int, place: int, last: bool) -> bytes:
    return hashlib.blake2b(
        data,
        digest_size=32,
        person=b"privagg/payload",
        fanout=0,
        depth=2,
        leaf_size=_LEAF_BYTES,
        node_offset=place,
        node_depth=depth,
        inner_size=32,
        last_node=last,
    ).digest()
