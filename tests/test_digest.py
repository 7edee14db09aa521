"""The tree digest, against BLAKE2b written down from RFC 7693 and the BLAKE2 paper's tree mode."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg import digest
from privagg.digest import LEAF_BYTES, tree_digest

IV = (
    0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
)  # fmt: skip
SIGMA = (
    "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8",
    "905724afe1bc683d", "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a",
    "6fe9b308c2d714a5", "a2847615fb9e3cd0",
)  # fmt: skip
MASK = (1 << 64) - 1
CPYTHON_EXAMPLE = "3ad2a9b37c6070e374c7a8c508fe20ca86b6ed54e286e93a0318e95e881db5aa"


def compress(
    h: list[int], block: bytes, counted: int, is_last: bool, is_last_node: bool
) -> list[int]:
    """RFC 7693, section 3.2; the second finalisation word marks the last node of a level."""
    m = struct.unpack("<16Q", block)
    v = [*h, *IV]
    v[12] ^= counted
    v[14] ^= MASK * is_last
    v[15] ^= MASK * (is_last and is_last_node)
    lanes = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
             (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]  # fmt: skip
    for turn in range(12):
        s = [int(c, 16) for c in SIGMA[turn % 10]]
        for i, (a, b, c, d) in enumerate(lanes):
            for x, (r, t) in ((m[s[2 * i]], (32, 24)), (m[s[2 * i + 1]], (16, 63))):
                v[a] = (v[a] + v[b] + x) & MASK
                w = v[d] ^ v[a]
                v[d] = (w >> r | w << (64 - r)) & MASK
                v[c] = (v[c] + v[d]) & MASK
                w = v[b] ^ v[c]
                v[b] = (w >> t | w << (64 - t)) & MASK
    return [h[i] ^ v[i] ^ v[i + 8] for i in range(8)]


def node(data: bytes, size: int, tree: tuple[int, ...], person: bytes, last_node: bool) -> bytes:
    """One node. tree: fan-out, depth, leaf length, node offset, node depth, inner length."""
    fanout, depth, leaf, offset, level, inner = tree
    block = struct.pack("<BBBBIQBB14x16x16s", size, 0, fanout, depth, leaf, offset, level, inner,
                        person)  # fmt: skip
    h = [a ^ b for a, b in zip(IV, struct.unpack("<8Q", block), strict=True)]
    pieces = [data[i : i + 128] for i in range(0, len(data), 128)] or [b""]
    done = 0
    for i, piece in enumerate(pieces):
        done += len(piece)
        last = i == len(pieces) - 1
        h = compress(h, piece.ljust(128, b"\0"), done, last, last_node)
    return struct.pack("<8Q", *h)[:size]


def reference(data: bytes, leaf: int) -> str:
    """The digest as its docstring defines it."""
    pieces = [data[i : i + leaf] for i in range(0, len(data), leaf)] or [b""]
    leaves = [
        node(piece, 32, (0, 2, leaf, i, 0, 32), b"privagg/payload", i == len(pieces) - 1)
        for i, piece in enumerate(pieces)
    ]
    return node(b"".join(leaves), 32, (0, 2, leaf, 0, 1, 32), b"privagg/payload", True).hex()


def test_the_reference_gives_cpythons_documented_tree_digest() -> None:
    data = bytes(6000)
    leaves = [
        node(data[4096 * i : 4096 * (i + 1)], 64, (2, 2, 4096, i, 0, 64), b"", i == 1)
        for i in (0, 1)
    ]
    assert node(b"".join(leaves), 32, (2, 2, 4096, 0, 1, 64), b"", True).hex() == CPYTHON_EXAMPLE


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 1000])
def test_digest_is_the_paper_s_tree(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "LEAF_BYTES", 256)
    data = bytes(i * 7 % 251 for i in range(size))
    assert tree_digest(data) == reference(data, 256)


def test_any_number_of_threads_gives_one_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * (5 * LEAF_BYTES // 256) + b"tail"
    found = set()
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("PRIVAGG_THREADS", threads)
        found.add(tree_digest(data))
        found.add(tree_digest(memoryview(bytearray(data))))
    assert len(found) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=6), st.integers(0, 5))
def test_leaves_do_not_stand_in_for_each_other_or_the_root(kinds: list[int], cut: int) -> None:
    # Whole leaves of two kinds: another order, another number, or the leaves' own digests differ.
    whole = b"".join(bytes([kind]) * LEAF_BYTES for kind in kinds)
    others = [
        whole[::-1] if kinds != kinds[::-1] else whole + b"\0",
        whole[:-1],
        whole + bytes([kinds[-1]]) * LEAF_BYTES,
        whole[: cut * LEAF_BYTES],
    ]
    mine = tree_digest(whole)
    assert all((tree_digest(other) == mine) == (other == whole) for other in others)
