"""Masks: uniform integers as large as a payload, made from seeds, added to lanes or taken off.

A mask is the key stream of AES-256 in counter mode (NIST SP 800-38A, section 6.5) under a seed
that is used for it alone, from counter 0: 32-bit words, little-endian, modulo 2^(width n). It is
made piece by piece, so that lanes stay in a core's cache while all masks are added to them.

Security: AES-256 as a pseudorandom permutation. A stream of 2^31 blocks at most (`MAX_LENGTH`
values of 63 bits) differs from a uniform one by at most 2^62 / 2^129 (the switching lemma).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privagg.kernels.packed_sums import Lanes, add_stream
from privagg.kernels.residues import default_backend
from privagg.threads import run_split, threads_for

_BLOCK_WORDS = 4  # of 16 bytes, the cipher's block
_PIECE = 1 << 15  # words; 128 KiB of stream and 256 KiB of lanes stay in the second-level cache
_ZEROS = bytes(4 * _PIECE)


def add_masks(lanes: Lanes, masks: Sequence[tuple[bytes, int]]) -> None:
    """Add masks to lanes, in place, in as many threads as the work is worth.

    Args:
        lanes: int64 (words,).
        masks: seeds of 32 bytes, each with the sign (+1 or -1) that its mask gets.
    """
    blocks = -(-lanes.size // _BLOCK_WORDS)

    def work(_: int, first: int, last: int) -> None:
        _add_part(lanes[_BLOCK_WORDS * first : _BLOCK_WORDS * last], masks, first)

    run_split(work, blocks, threads_for(4 * lanes.size * len(masks)))


def _add_part(lanes: Lanes, masks: Sequence[tuple[bytes, int]], first_block: int) -> None:
    """Add the part of every mask that begins at a block."""
    counter = modes.CTR(first_block.to_bytes(16, "big"))
    streams = [Cipher(algorithms.AES256(seed), counter).encryptor() for seed, _ in masks]
    out = np.empty(4 * min(_PIECE, lanes.size) + 16, dtype=np.uint8)
    words, into, backend = out[:-16].view("<u4"), out.data, default_backend()
    for start in range(0, lanes.size, _PIECE):
        piece = lanes[start : start + _PIECE]
        zeros, part = memoryview(_ZEROS)[: 4 * piece.size], words[: piece.size]
        for stream, (_, sign) in zip(streams, masks, strict=True):
            stream.update_into(zeros, into)
            add_stream(piece, part, sign, backend)
