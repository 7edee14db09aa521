"""Multi-word plaintext coefficients, compiled; see `wide.py` for what each function means."""

from __future__ import annotations

import numpy as np
from numba import types

from privagg.kernels._jit import inline, kernel, multiply_wide

_ONE = np.uint64(1)
_ZERO = np.uint64(0)
_WORDS = types.Array(types.uint64, 2, "C")
_VALUES = types.Array(types.int64, 1, "C")
_U64 = types.Array(types.uint64, 1, "C")


@kernel(types.void(_WORDS, _VALUES, types.int64, types.int64, types.int64))
def pack_fields(words, values, fields, width, shift):  # type: ignore[no-untyped-def]
    """Write values + 2^(width-1) into bit fields; values beyond the end count as 0."""
    half = _ONE << np.uint64(width - 1)
    for i in range(words.shape[0]):
        for w in range(words.shape[1]):
            words[i, w] = _ZERO
        bit = shift
        for j in range(i * fields, (i + 1) * fields):
            value = half
            if j < len(values):
                value += np.uint64(values[j])
            word = bit >> 6
            offset = np.uint64(bit & 63)
            words[i, word] |= value << offset
            if offset + np.uint64(width) > np.uint64(64):
                words[i, word + 1] |= value >> (np.uint64(64) - offset)
            bit += width


@kernel(types.void(_VALUES, _WORDS, types.int64, types.int64, types.int64))
def unpack_fields(values, words, fields, width, shift):  # type: ignore[no-untyped-def]
    """Read bit fields minus 2^(width-1) until `values` is full."""
    half = _ONE << np.uint64(width - 1)
    mask = (half - _ONE) | half
    for i in range(words.shape[0]):
        bit = shift
        for j in range(i * fields, min((i + 1) * fields, len(values))):
            word = bit >> 6
            offset = np.uint64(bit & 63)
            value = words[i, word] >> offset
            if offset + np.uint64(width) > np.uint64(64):
                value |= words[i, word + 1] << (np.uint64(64) - offset)
            values[j] = np.int64((value & mask) - half)
            bit += width


@inline
def _times(x, factor, quotient, modulus):  # type: ignore[no-untyped-def]
    """x * factor mod modulus for any 64-bit x; quotient = floor(factor * 2^64 / modulus)."""
    high, _ = multiply_wide(x, quotient)
    rest = x * factor - high * modulus  # in [0, 2 * modulus), modulo 2^64
    return min(rest, rest - modulus)


@kernel(types.void(_WORDS, _WORDS, _U64, _U64, _WORDS, _WORDS, types.int64))
def add_lifted(residues, words, low, modulus, factor, quotient, bits):  # type: ignore[no-untyped-def]
    """Add floor(q * M / 2^bits) mod q_i to column i of every row; `low` is q mod 2^bits.

    q * M = 2^bits * floor + rest, and q is 0 modulo q_i, so floor = -rest / 2^bits modulo q_i.
    The rest takes the low words of a product; `factor` holds -2^(64 w) / 2^bits modulo q_i.
    """
    count = words.shape[1]
    rest = np.empty(count, np.uint64)
    top_bits = bits - 64 * (count - 1)
    top_mask = ~_ZERO if top_bits == 64 else (_ONE << np.uint64(top_bits)) - _ONE
    for i in range(words.shape[0]):
        for w in range(count):
            rest[w] = _ZERO
        for a in range(count):
            carry = _ZERO
            for b in range(count - a):
                high, value = multiply_wide(low[a], words[i, b])
                value += carry
                high += np.uint64(value < carry)
                value += rest[a + b]
                high += np.uint64(value < rest[a + b])
                rest[a + b] = value
                carry = high
        rest[count - 1] &= top_mask
        for row in range(residues.shape[0]):
            q = modulus[row]
            total = residues[row, i]
            for w in range(count):
                total += _times(rest[w], factor[row, w], quotient[row, w], q)
                total = min(total, total - q)
            residues[row, i] = total


@kernel(types.void(_WORDS, _WORDS, _U64, _U64, _U64))
def scale_rows(out, residues, modulus, factor, quotient):  # type: ignore[no-untyped-def]
    """out = residues * factor, row by row, each modulo its own modulus."""
    for row in range(residues.shape[0]):
        for i in range(residues.shape[1]):
            out[row, i] = _times(residues[row, i], factor[row], quotient[row], modulus[row])
