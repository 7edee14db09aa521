"""Tree digests: BLAKE3 as in its paper, BLAKE2b as in RFC 7693 and in its paper's tree mode."""

from __future__ import annotations

import struct

import pytest

from privagg import digest
from privagg.digest import is_digest_of, tree_digest

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


def earlier(data: bytes, leaf: int) -> str:
    """The digest that frames up to version 3 were signed over."""
    pieces = [data[i : i + leaf] for i in range(0, len(data), leaf)] or [b""]
    leaves = [
        node(piece, 32, (0, 2, leaf, i, 0, 32), b"privagg/payload", i == len(pieces) - 1)
        for i, piece in enumerate(pieces)
    ]
    return node(b"".join(leaves), 32, (0, 2, leaf, 0, 1, 32), b"privagg/payload", True).hex()


IV3 = tuple(word >> 32 for word in IV)  # BLAKE3's are those of SHA-256: the upper halves
PERMUTED = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64
WORD = (1 << 32) - 1
LANES3 = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
          (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]  # fmt: skip


def compress3(
    key: tuple[int, ...], block: bytes, counter: int, flags: int, size: int
) -> tuple[int, ...]:
    """BLAKE3, section 2.2: the first eight words of a compression."""
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = [*key, *IV3[:4], counter & WORD, counter >> 32, size, flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(LANES3):
            for x, (r, t) in ((m[2 * i], (16, 12)), (m[2 * i + 1], (8, 7))):
                v[a] = (v[a] + v[b] + x) & WORD
                w = v[d] ^ v[a]
                v[d] = (w >> r | w << (32 - r)) & WORD
                v[c] = (v[c] + v[d]) & WORD
                w = v[b] ^ v[c]
                v[b] = (w >> t | w << (32 - t)) & WORD
        m = [m[i] for i in PERMUTED]
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def blake3_of(
    data: bytes, key: tuple[int, ...], mode: int, place: int = 0, root: int = ROOT
) -> tuple[int, ...]:
    """Section 2.1: a chunk of 1,024 bytes, or a parent over the largest power of two of them."""
    if len(data) > 1024:
        left = 1024 << ((len(data) - 1) // 1024).bit_length() - 1
        words = (
            *blake3_of(data[:left], key, mode, place, 0),
            *blake3_of(data[left:], key, mode, place + left // 1024, 0),
        )
        return compress3(key, struct.pack("<16I", *words), 0, mode | PARENT | root, 64)
    blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
    value = key
    for i, block in enumerate(blocks):
        last = i == len(blocks) - 1
        flags = mode | CHUNK_START * (i == 0) | (CHUNK_END | root) * last
        value = compress3(value, block, place, flags, len(block))
    return value


def derived(context: bytes, data: bytes) -> str:
    """Section 2.3: key derivation mode."""
    key = blake3_of(context, IV3, CONTEXT)
    return struct.pack("<8I", *blake3_of(data, key, MATERIAL)).hex()


def test_the_reference_gives_the_papers_hash_of_nothing() -> None:
    empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert struct.pack("<8I", *blake3_of(b"", IV3, 0)).hex() == empty


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 5121])
def test_a_payloads_digest_is_blake3_with_a_context_of_its_own(size: int) -> None:
    data = bytes(i * 7 % 251 for i in range(size))
    want = derived(b"privagg 2026-11-28 digest of a payload", data)
    assert tree_digest(data) == want
    assert tree_digest(memoryview(bytearray(data))) == want
    assert is_digest_of(data, want)
    assert not is_digest_of(data + b"\0", want)


def test_the_reference_gives_cpythons_documented_tree_digest() -> None:
    data = bytes(6000)
    leaves = [
        node(data[4096 * i : 4096 * (i + 1)], 64, (2, 2, 4096, i, 0, 64), b"", i == 1)
        for i in (0, 1)
    ]
    assert node(b"".join(leaves), 32, (2, 2, 4096, 0, 1, 64), b"", True).hex() == CPYTHON_EXAMPLE


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 1000])
def test_what_earlier_frames_signed_is_still_held_against_their_digest(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_LEAF_BYTES", 256)
    data = bytes(i * 7 % 251 for i in range(size))
    signed = earlier(data, 256)
    assert is_digest_of(data, signed)
    assert not is_digest_of(data + b"\0", signed)
    assert signed != tree_digest(data)


def test_leaves_of_earlier_frames_have_a_mebibyte() -> None:
    data = bytes(range(256)) * (1 << 12) + b"tail"
    signed = "710098f9a43b3fd51287a520ba7383f6b23deb903f73b447c3e9d4ac44bdfd1f"
    assert is_digest_of(data, signed)  # as frames of version 3 had it
