"""Sums of one large packed integer, compiled: 32-bit words in signed 64-bit lanes.

A lane holds far more than a word, so that words are added and subtracted side by side without a
carry between them; carries run through the lanes once, at the end. Nothing is unpacked on the way.
"""

from __future__ import annotations

import numpy as np
from numba import types

from privagg.kernels._jit import I64, U64, kernel, load_u32

_U32 = types.Array(types.uint32, 1, "C")
_LOW = np.int64(0xFFFFFFFF)
_WORD = np.int64(32)
_BLOCK = 4096  # lanes; with their words they stay within the first-level cache


@kernel(types.void(I64, U64, types.int64, types.int64))
def add_words(lanes, addresses, first, last):  # type: ignore[no-untyped-def]
    """lanes[first:last] += the words of every input, block by block."""
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        number = 0
        while number + 4 <= addresses.size:
            a, b = addresses[number], addresses[number + 1]
            c, d = addresses[number + 2], addresses[number + 3]
            for i in range(start, stop):
                at = 4 * i
                pair = load_u32(a, at) + load_u32(b, at)
                lanes[i] += pair + (load_u32(c, at) + load_u32(d, at))
            number += 4
        while number < addresses.size:
            a = addresses[number]
            for i in range(start, stop):
                lanes[i] += load_u32(a, 4 * i)
            number += 1


@kernel(types.void(I64, _U32))
def add_stream(lanes, words):  # type: ignore[no-untyped-def]
    """lanes += words."""
    for i in range(lanes.size):
        lanes[i] += np.int64(words[i])


@kernel(types.void(I64, _U32))
def subtract_stream(lanes, words):  # type: ignore[no-untyped-def]
    """lanes -= words."""
    for i in range(lanes.size):
        lanes[i] -= np.int64(words[i])


@kernel(types.void(I64, _U32))
def carry(lanes, words):  # type: ignore[no-untyped-def]
    """words = lanes modulo 2^(32 words), with every carry and borrow."""
    over = np.int64(0)
    for i in range(lanes.size):
        total = lanes[i] + over
        words[i] = np.uint32(total & _LOW)
        over = total >> _WORD


@kernel(types.void(I64, I64, types.int64))
def pack(lanes, values, width):  # type: ignore[no-untyped-def]
    """lanes = words of the sum of values[j] 2^(width j); a negative value borrows from above.

    A value beyond 32 bits takes a whole word and a rest, so that no shifted part leaves 64 bits.
    """
    rest, filled, at = np.int64(0), np.int64(0), 0
    wide = width > 32
    step = width - 32 if wide else width
    for j in range(values.size):
        value = values[j]
        if wide:
            rest += (value & _LOW) << filled
            lanes[at] = rest & _LOW
            rest >>= _WORD
            at += 1
            value >>= _WORD
        rest += value << filled
        filled += step
        if filled >= 32:
            lanes[at] = rest & _LOW
            rest >>= _WORD
            at += 1
            filled -= 32
    if at < lanes.size:
        lanes[at] = rest & _LOW


@kernel(types.void(I64, _U32, types.int64))
def unpack(values, words, width):  # type: ignore[no-untyped-def]
    """values[j] = signed digit j of the words to base 2^width; what one borrowed is given back."""
    wide = width > 32
    step = width - 32 if wide else width
    mask = (np.uint64(1) << np.uint64(step)) - np.uint64(1)
    word = np.uint64(0xFFFFFFFF)
    half, base = np.uint64(1) << np.uint64(width - 1), np.uint64(1) << np.uint64(width)
    rest, filled, at, borrowed = np.uint64(0), np.int64(0), 0, np.uint64(0)
    for j in range(values.size):
        low = np.uint64(0)
        if wide:
            rest |= np.uint64(words[at]) << np.uint64(filled)
            at += 1
            low = rest & word
            rest >>= np.uint64(32)
        if filled < step:
            rest |= np.uint64(words[at]) << np.uint64(filled)
            at += 1
            filled += 32
        high = rest & mask
        rest >>= np.uint64(step)
        filled -= step
        digit = borrowed + ((high << np.uint64(32)) | low if wide else high)
        borrowed = np.uint64(digit >= half)
        values[j] = np.int64(digit - borrowed * base)
