"""What is hashed and signed: one byte string for one JSON value, one digest for a large payload.

JSON whose bytes are hashed, signed or compared is written in one spelling, `canonical_json`.

A payload is hashed with BLAKE2b in its own tree mode. The bytes are cut into leaves of one
mebibyte, hashed side by side in threads (hashlib releases the GIL), and the root hashes the leaves'
digests in order. Leaves and root are BLAKE2b-256 with the parameter block of BLAKE2's tree mode
(Aumasson, Neves, Wilcox-O'Hearn and Winnerlein, "BLAKE2", 2013, sections 2.5 and 2.10): unlimited
fan-out, depth 2, inner length 32, and a personalisation that separates this use from every other.
BLAKE2b is the fastest hash of hashlib on processors without instructions for SHA-2, and close to
the fastest on others.

Two byte strings with one digest give a collision of BLAKE2b-256 (2^128 work for a generic attack).
For equal roots mean equal lists of leaf digests, or a collision at the root; equal lists have one
number of leaves, and then either all leaves are equal byte for byte, length of the last one
included (BLAKE2 counts the bytes it hashed), or some leaf collides. A leaf never stands in for the
root, nor for a leaf at another place: depth and place are in the parameter block, from which the
compression function starts. Bertoni, Daemen, Peeters and Van Assche ("Sufficient conditions for
sound tree and sequential hashing modes", 2014) treat such trees in general.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from privagg.threads import run_split, threads_for

DIGEST_BYTES = 32
LEAF_BYTES = 1 << 20
_PERSON = b"privagg/payload"


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
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


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
        64 hexadecimal digits; the same whatever the number of threads.
    """
    view = memoryview(data).cast("B")
    count = max(1, -(-view.nbytes // LEAF_BYTES))  # nothing at all is one empty leaf
    leaves = [b""] * count

    def hash_leaves(_: int, first: int, last: int) -> None:
        for place in range(first, last):
            leaf = view[place * LEAF_BYTES : (place + 1) * LEAF_BYTES]
            leaves[place] = _node(leaf, depth=0, place=place, last=place == count - 1)

    run_split(hash_leaves, count, threads_for(view.nbytes))
    return _node(b"".join(leaves), depth=1, place=0, last=True).hex()


def _node(data: bytes | memoryview, *, depth: int, place: int, last: bool) -> bytes:
    return hashlib.blake2b(
        data,
        digest_size=DIGEST_BYTES,
        person=_PERSON,
        fanout=0,
        depth=2,
        leaf_size=LEAF_BYTES,
        node_offset=place,
        node_depth=depth,
        inner_size=DIGEST_BYTES,
        last_node=last,
    ).digest()
