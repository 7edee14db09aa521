"""Residue kernels, compiled. Inputs are addresses: one signature serves any number of uploads.

Four inputs are checked and added in one pass over a block of the sum that stays in the first-level
cache. The check is folded into one word of flags a block; only where it is raised are the block's
inputs looked at one by one, and a bad one is subtracted again, which is exact in 64-bit words.
Buffers are held and sized by the caller.
"""

from __future__ import annotations

import numpy as np
from numba import types

from privagg.kernels._jit import I64, ROWS, U8, U64, inline, kernel, load_u8, load_u64, store_u64
from privagg.kernels._packed_numba import (
    NARROW_BITS,
    OVERREAD_BYTES,
    add_packed_1,
    add_packed_4,
    add_wide_1,
    add_wide_4,
)

_BLOCK = 2048  # residues; with four inputs a block's words stay within a core's own caches
_TAIL = 64  # residues near a payload's end that are read byte by byte: 16 bytes or more
_ONE = np.uint64(1)
_ZERO = np.uint64(0)
_TOP = np.uint64(63)


@inline
def _flagged(flags):  # type: ignore[no-untyped-def]
    return (flags >> _TOP) != _ZERO


@inline
def _add_words_4(total, a, b, c, d, last, length):  # type: ignore[no-untyped-def]
    """Add four rows of 64-bit residues; the top bit of the result is set by any beyond `last`.

    last < 2^63, so v > last sets the top bit of last - v, or v has it itself.
    """
    flags = _ZERO
    for j in range(0, 8 * length, 8):
        va, vb, vc, vd = load_u64(a, j), load_u64(b, j), load_u64(c, j), load_u64(d, j)
        flags |= (last - va) | (last - vb) | (last - vc) | (last - vd) | va | vb | vc | vd
        store_u64(total, j, load_u64(total, j) + ((va + vb) + (vc + vd)))
    return flags


@inline
def _add_words_1(total, a, last, length):  # type: ignore[no-untyped-def]
    flags = _ZERO
    for j in range(0, 8 * length, 8):
        va = load_u64(a, j)
        flags |= (last - va) | va
        store_u64(total, j, load_u64(total, j) + va)
    return flags


@inline
def _add_4(total, a, b, c, d, last, length, bits):  # type: ignore[no-untyped-def]
    """Add four inputs' blocks; returns their flags."""
    if bits == 64:
        return _add_words_4(total, a, b, c, d, last, length)
    if bits <= NARROW_BITS:
        return add_packed_4(total, (a, b, c, d), length >> 3, bits, last)
    return add_wide_4(total, (a, b, c, d), length >> 3, bits, last)


@inline
def _unpack_fast(address, bits, length, out):  # type: ignore[no-untyped-def]
    """Unpack `length` residues; reads up to nine bytes past their last bit."""
    if bits == 64:
        for j in range(length):
            out[j] = load_u64(address, 8 * j)
        return
    mask = (_ONE << np.uint64(bits)) - _ONE
    for group in range(length >> 3):
        for j in range(8):
            bit = j * bits
            at = group * bits + (bit >> 3)
            shift = np.uint64(bit & 7)
            value = load_u64(address, at) >> shift
            if bits > NARROW_BITS and shift + np.uint64(bits) > np.uint64(64):
                value |= load_u8(address, at + 8) << (np.uint64(64) - shift)
            out[8 * group + j] = value & mask


@inline
def _unpack(address, bits, length, careful, out):  # type: ignore[no-untyped-def]
    """Unpack `length` residues; where `careful`, byte by byte, so that none beyond them is read."""
    if not careful:
        _unpack_fast(address, bits, length, out)
        return
    mask = (_ONE << np.uint64(bits)) - _ONE
    for j in range(length):
        at = (j * bits) >> 3
        shift = (j * bits) & 7
        value = load_u8(address, at) >> np.uint64(shift)
        filled = 8 - shift
        while filled < bits:
            at += 1
            value |= load_u8(address, at) << np.uint64(filled)
            filled += 8
        out[j] = value & mask


@inline
def _block(row, start, bits, count, source):  # type: ignore[no-untyped-def]
    """Residues of the block that starts here, and whether it must be read byte by byte.

    Fast reads run past a block's end by `OVERREAD_BYTES` at most; `_TAIL` residues near the end of
    the payload become a block of their own. Whole words are never read past.
    """
    length = min(_BLOCK, count[row] - start)
    if bits[row] == 64:
        return length, False
    last = len(count) - 1
    payload_end = source[last] + ((count[last] * bits[last]) >> 3)
    if source[row] + (((start + length) * bits[row]) >> 3) + OVERREAD_BYTES <= payload_end:
        return length, False
    if length > _TAIL:
        return length - _TAIL, False
    return length, True


@inline
def _first_outside(block, length, modulus):  # type: ignore[no-untyped-def]
    for j in range(length):
        if block[j] >= modulus:
            return j
    return -1


@inline
def _add_block(total, address, bits, length, careful, last, block):  # type: ignore[no-untyped-def]
    """Add one input's block by the quickest way that suits it; returns its flags."""
    if not careful:
        if bits == 64:
            return _add_words_1(total, address, last, length)
        if bits <= NARROW_BITS:
            return add_packed_1(total, (address,), length >> 3, bits, last)
        return add_wide_1(total, (address,), length >> 3, bits, last)
    _unpack(address, bits, length, careful, block)
    flags = _ZERO
    for j in range(length):
        flags |= (last - block[j]) | block[j]
        store_u64(total, 8 * j, load_u64(total, 8 * j) + block[j])
    return flags


@inline
def _take_back_if_bad(total, address, bits, length, careful, modulus, block):  # type: ignore[no-untyped-def]
    """Where a block that was added holds a bad residue, subtract it again and return its place."""
    _unpack(address, bits, length, careful, block)
    place = _first_outside(block, length, modulus)
    if place >= 0:
        for j in range(length):
            store_u64(total, 8 * j, load_u64(total, 8 * j) - block[j])
    return place


@kernel(types.void(U64, U64, *ROWS, types.int64, types.int64, I64, U64))
def add(total, addresses, modulus, bits, count, source, target, first, last, fault, found):  # type: ignore[no-untyped-def]
    """Check and add rows first ... last-1 of every input; an input stops at its first bad block.

    fault[i] becomes the index of input i's first bad residue (or stays -1), found[i] its value.
    """
    block = np.empty(_BLOCK, np.uint64)
    inputs = len(addresses)
    base = np.uint64(total.ctypes.data)
    for row in range(first, last):
        width, top = bits[row], modulus[row] - _ONE
        start, length = 0, 0
        while start + length < count[row]:
            start += length
            length, careful = _block(row, start, bits, count, source)
            here = base + np.uint64(8 * (target[row] + start))
            offset = np.uint64(source[row] + ((start * width) >> 3))
            i = 0
            while i < inputs:
                together = 1
                four = not careful and i + 4 <= inputs
                if four and max(fault[i], fault[i + 1], fault[i + 2], fault[i + 3]) < 0:
                    together = 4
                    a, b = addresses[i] + offset, addresses[i + 1] + offset
                    c, d = addresses[i + 2] + offset, addresses[i + 3] + offset
                    flags = _add_4(here, a, b, c, d, top, length, width)
                elif fault[i] >= 0:
                    i += 1
                    continue
                else:
                    flags = _add_block(
                        here, addresses[i] + offset, width, length, careful, top, block
                    )
                if _flagged(flags):
                    for k in range(i, i + together):
                        place = _take_back_if_bad(
                            here, addresses[k] + offset, width, length, careful, modulus[row], block
                        )
                        if place >= 0:
                            fault[k] = target[row] + start + place
                            found[k] = block[place]
                i += together


@kernel(types.void(U64, types.uint64, *ROWS, types.int64, types.int64))
def undo(total, address, modulus, bits, count, source, target, first, stop):  # type: ignore[no-untyped-def]
    """Subtract one input's residues from row `first` up to the block that holds residue `stop`."""
    block = np.empty(_BLOCK, np.uint64)
    for row in range(first, len(modulus)):
        start, length = 0, 0
        while start + length < count[row]:
            start += length
            length, careful = _block(row, start, bits, count, source)
            at = target[row] + start
            if at + length > stop:
                return
            offset = np.uint64(source[row] + ((start * bits[row]) >> 3))
            _unpack(address + offset, bits[row], length, careful, block)
            for j in range(length):
                total[at + j] -= block[j]


@kernel(types.void(U64, types.uint64, *ROWS, types.int64, types.int64, I64, U64))
def unpack(out, address, modulus, bits, count, source, target, first, last, fault, found):  # type: ignore[no-untyped-def]
    """Check rows first ... last-1 of one input and write them to `out`."""
    block = np.empty(_BLOCK, np.uint64)
    for row in range(first, last):
        top = modulus[row] - _ONE
        start, length = 0, 0
        while start + length < count[row]:
            start += length
            length, careful = _block(row, start, bits, count, source)
            at = target[row] + start
            offset = np.uint64(source[row] + ((start * bits[row]) >> 3))
            _unpack(address + offset, bits[row], length, careful, block)
            flags = _ZERO
            for j in range(length):
                flags |= (top - block[j]) | block[j]
            if _flagged(flags):
                place = _first_outside(block, length, modulus[row])
                fault[0] = at + place
                found[0] = block[place]
                return
            for j in range(length):
                out[at + j] = block[j]


@kernel(types.void(U64, *ROWS, types.int64, types.int64, types.int64))
def reduce(total, modulus, bits, count, source, target, first, last, steps):  # type: ignore[no-untyped-def]
    """Bring rows first ... last-1 of the sum below their moduli, by a cascade of subtractions.

    Words must lie below 2^(steps+1) * q, and 2^steps * q within a word. min(x, x - m) on unsigned
    words subtracts m exactly where x >= m, without a branch; halving m from 2^steps * q down to q
    leaves x below q.
    """
    for row in range(first, last):
        q = modulus[row]
        for start in range(target[row], target[row] + count[row], _BLOCK):
            stop = min(start + _BLOCK, target[row] + count[row])
            for step in range(steps, -1, -1):
                m = q << np.uint64(step)
                for j in range(start, stop):
                    total[j] = min(total[j], total[j] - m)


@kernel(types.void(U8, U64, *ROWS, types.int64, types.int64))
def pack(out, total, modulus, bits, count, source, target, first, last):  # type: ignore[no-untyped-def]
    """Write rows first ... last-1 of a reduced sum in the form of an input."""
    base = np.uint64(out.ctypes.data)
    for row in range(first, last):
        at = source[row]
        width = bits[row]
        held = _ZERO
        filled = 0
        for j in range(target[row], target[row] + count[row]):
            value = total[j]
            held |= value << np.uint64(filled)
            if filled + width >= 64:
                store_u64(base, at, held)
                at += 8
                used = 64 - filled
                held = value >> np.uint64(used) if used < 64 else _ZERO
                filled = filled + width - 64
            else:
                filled += width
        for k in range(filled >> 3):
            out[at + k] = np.uint8((held >> np.uint64(8 * k)) & np.uint64(255))
