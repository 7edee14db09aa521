"""Residue kernels, compiled. Inputs are addresses: one signature serves any number of uploads.

A block of residues is unpacked into a buffer that stays in the first-level cache, checked, and only
then added, so that a bad block never touches the sum. Buffers are held and sized by the caller.
"""

from __future__ import annotations

import numpy as np
from numba import types

from privagg.kernels._jit import I64, ROWS, U8, U64, inline, kernel, load_u8, load_u64

_BLOCK = 1024  # residues; 8 KiB of sum and 8 KiB of input fit the first-level cache together
_TOP = np.uint64(63)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@inline
def _unpack(address, bits, start, length, careful, out):  # type: ignore[no-untyped-def]
    """Unpack `length` residues from residue `start` of the row at `address`.

    `careful` is how many trailing residues of the block are read byte by byte, because an
    eight-byte load there could run past the end of the payload.
    """
    if bits == 64:
        base = address + np.uint64(start * 8)
        for j in range(length):
            out[j] = load_u64(base + np.uint64(8 * j))
        return
    mask = (_ONE << np.uint64(bits)) - _ONE
    fast = length - careful
    narrow = bits <= 57  # 7 bits of offset and the value fit one load
    for group in range(0, fast, 8):
        base = address + np.uint64(((start + group) >> 3) * bits)
        for j in range(8):
            bit = j * bits
            at = base + np.uint64(bit >> 3)
            shift = np.uint64(bit & 7)
            value = load_u64(at) >> shift
            if not narrow and shift + np.uint64(bits) > np.uint64(64):
                value |= np.uint64(load_u8(at + np.uint64(8))) << (np.uint64(64) - shift)
            out[group + j] = value & mask
    for j in range(fast, length):
        bit = (start + j) * bits
        value = _ZERO
        filled = 0
        at = address + np.uint64(bit >> 3)
        shift = bit & 7
        while filled < bits + shift:
            byte = np.uint64(load_u8(at))
            if filled >= shift:
                value |= byte << np.uint64(filled - shift)
            else:
                value |= byte >> np.uint64(shift - filled)
            filled += 8
            at += _ONE
        out[j] = value & mask


@inline
def _outside(block, length, modulus):  # type: ignore[no-untyped-def]
    """Whether any residue of the block is not below the modulus (which is below 2^63)."""
    last = modulus - _ONE
    flags = _ZERO
    for j in range(length):
        flags |= (last - block[j]) | block[j]  # the top bit is set by value > last, or by value
    return (flags >> _TOP) != _ZERO


@inline
def _first_outside(block, length, modulus):  # type: ignore[no-untyped-def]
    for j in range(length):
        if block[j] >= modulus:
            return j
    return -1


@inline
def _careful(row, rows, stop, count, bits):  # type: ignore[no-untyped-def]
    """Trailing residues of a block that need byte-wise loads: those at the payload's very end."""
    if row == rows - 1 and stop == count and bits != 64:
        return min(64, count)
    return 0


@kernel(types.void(U64, U64, *ROWS, types.int64, types.int64, I64, U64))
def add(total, addresses, modulus, bits, count, source, target, first, last, fault, found):  # type: ignore[no-untyped-def]
    """Check and add rows first ... last-1 of every input; an input stops at its first bad block.

    fault[i] becomes the index of input i's first bad residue (or stays -1), found[i] its value.
    """
    block = np.empty(_BLOCK, np.uint64)
    rows = len(modulus)
    for row in range(first, last):
        for start in range(0, count[row], _BLOCK):
            length = min(_BLOCK, count[row] - start)
            careful = _careful(row, rows, start + length, count[row], bits[row])
            at = target[row] + start
            for i in range(len(addresses)):
                if fault[i] >= 0:
                    continue
                address = addresses[i] + np.uint64(source[row])
                _unpack(address, bits[row], start, length, careful, block)
                if _outside(block, length, modulus[row]):
                    j = _first_outside(block, length, modulus[row])
                    fault[i] = at + j
                    found[i] = block[j]
                    continue
                for j in range(length):
                    total[at + j] += block[j]


@kernel(types.void(U64, types.uint64, *ROWS, types.int64, types.int64))
def undo(total, address, modulus, bits, count, source, target, first, stop):  # type: ignore[no-untyped-def]
    """Subtract one input's residues from row `first` up to the block that holds residue `stop`."""
    block = np.empty(_BLOCK, np.uint64)
    rows = len(modulus)
    for row in range(first, rows):
        for start in range(0, count[row], _BLOCK):
            length = min(_BLOCK, count[row] - start)
            at = target[row] + start
            if at + length > stop:
                return
            careful = _careful(row, rows, start + length, count[row], bits[row])
            _unpack(address + np.uint64(source[row]), bits[row], start, length, careful, block)
            for j in range(length):
                total[at + j] -= block[j]


@kernel(types.void(U64, types.uint64, *ROWS, types.int64, types.int64, I64, U64))
def unpack(out, address, modulus, bits, count, source, target, first, last, fault, found):  # type: ignore[no-untyped-def]
    """Check rows first ... last-1 of one input and write them to `out` (unless it is empty)."""
    block = np.empty(_BLOCK, np.uint64)
    rows = len(modulus)
    for row in range(first, last):
        for start in range(0, count[row], _BLOCK):
            length = min(_BLOCK, count[row] - start)
            careful = _careful(row, rows, start + length, count[row], bits[row])
            at = target[row] + start
            _unpack(address + np.uint64(source[row]), bits[row], start, length, careful, block)
            if _outside(block, length, modulus[row]):
                j = _first_outside(block, length, modulus[row])
                fault[0] = at + j
                found[0] = block[j]
                return
            if len(out):
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
    for row in range(first, last):
        at = source[row]
        width = bits[row]
        held = _ZERO
        filled = 0
        for j in range(target[row], target[row] + count[row]):
            value = total[j]
            held |= value << np.uint64(filled)
            if filled + width >= 64:
                for k in range(8):
                    out[at + k] = np.uint8((held >> np.uint64(8 * k)) & np.uint64(255))
                at += 8
                used = 64 - filled
                held = value >> np.uint64(used) if used < 64 else _ZERO
                filled = filled + width - 64
            else:
                filled += width
        for k in range(filled >> 3):
            out[at + k] = np.uint8((held >> np.uint64(8 * k)) & np.uint64(255))
