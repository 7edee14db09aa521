"""Products of residues modulo a large number, compiled; eight numbers side by side.

A "group" is eight numbers as uint64 (digits + 4, 8): digit j of number l at [j, l], below 2^27, the
last four rows zero. Arrays are aligned to 64 bytes and held by the caller. Scalar loops here touch
each number a few times; the multiplications in `_montgomery_rows` are what takes the time.
"""

from __future__ import annotations

import numpy as np
from numba import types

from privagg.kernels._jit import U8, U64, inline, kernel, load_u8, load_u64
from privagg.kernels._montgomery_rows import (
    LANES,
    RADIX_BITS,
    ROWS,
    carry_digits,
    multiply_rows,
    reduce_rows,
)

_ZERO = np.uint64(0)
_DIGIT = np.uint64((1 << RADIX_BITS) - 1)
_TWO_DIGITS = np.uint64((1 << (2 * RADIX_BITS)) - 1)
_ROW_BYTES = np.uint64(8 * LANES)
_BELOW = 1.0 - 2.0**-40  # keeps an estimated quotient from passing the true one

GROUP = types.Array(types.uint64, 2, "C")
GROUPS = types.Array(types.uint64, 3, "C")
DIGITS = types.Array(types.uint32, 1, "C")
TABLE = types.Array(types.uint32, 3, "C")
CHOICES = types.Array(types.uint16, 2, "C")
NUMBERS = types.Array(types.int64, 1, "C")
INT = types.int64
WORD = types.uint64


@inline
def _multiply(out, left, right, modulus, total):  # type: ignore[no-untyped-def]
    """out := left * right / R mod K for a group; `out` may be `left` or `right`."""
    digits = np.uint64(len(total) - ROWS)
    total[:, :] = _ZERO
    total_at, left_at = np.uint64(total.ctypes.data), np.uint64(left.ctypes.data)
    right_at, modulus_at = np.uint64(right.ctypes.data), np.uint64(modulus.ctypes.data)
    for i in range(0, digits, ROWS):
        multiply_rows(total_at, left_at, right_at + _ROW_BYTES * np.uint64(i), modulus_at, digits)
    carry_digits(total_at, np.uint64(out.ctypes.data), digits)


@inline
def _unpack(address, width, count, out):  # type: ignore[no-untyped-def]
    """Read `count` little-endian numbers of `width` bytes each; lanes beyond become 1."""
    digits = len(out) - ROWS
    whole = min(digits, max(0, (width - 8) * 8 // RADIX_BITS + 1))  # digits in a whole load
    for j in range(whole):
        bit = RADIX_BITS * j
        at, shift = bit >> 3, np.uint64(bit & 7)
        for lane in range(count):
            out[j, lane] = (load_u64(address, lane * width + at) >> shift) & _DIGIT
    for lane in range(count):
        for j in range(whole, digits):  # never read past the number: it may be the payload's last
            bit = RADIX_BITS * j
            word = _ZERO
            for k in range(bit >> 3, min((bit >> 3) + 8, width)):
                word |= load_u8(address, lane * width + k) << np.uint64(8 * (k - (bit >> 3)))
            out[j, lane] = (word >> np.uint64(bit & 7)) & _DIGIT
    for lane in range(count, LANES):
        for j in range(digits):
            out[j, lane] = _ZERO
        out[0, lane] = np.uint64(1)


@inline
def _outside(group, lane, bound):  # type: ignore[no-untyped-def]
    """Whether a number is zero or not below the number whose digits are `bound`."""
    digits = len(group) - ROWS
    for j in range(digits - 1, -1, -1):
        limit = np.uint64(bound[j]) if j < len(bound) else _ZERO
        if group[j, lane] != limit:
            if group[j, lane] > limit:
                return True
            break
        if j == 0:
            return True
    first_used = 0
    while first_used < digits and group[first_used, lane] == _ZERO:
        first_used += 1
    return first_used == digits


@inline
def _top(number, length, below):  # type: ignore[no-untyped-def]
    value = 0.0
    for j in range(length - 1, below - 1, -1):
        value = value * 134217728.0 + float(number[j])
    return value


@inline
def _canonical(group, lane, bound, number):  # type: ignore[no-untyped-def]
    """number := a lane's number modulo the number whose digits are `bound`; both exact.

    The leading digits give the quotient in floating point, a hair too small; what is left is below
    twice the bound.
    """
    digits = len(group) - ROWS
    used = len(bound)
    for j in range(digits):
        number[j] = np.int64(group[j, lane])
    below = max(used - 4, 0)
    quotient = np.int64(_top(number, digits, below) / _top(bound, used, below) * _BELOW)
    while True:
        borrow = np.int64(0)
        for j in range(digits):
            limit = bound[j] if j < used else np.int64(0)
            rest = number[j] - quotient * limit + borrow
            number[j] = rest & np.int64(_DIGIT)
            borrow = rest >> RADIX_BITS
        for j in range(digits - 1, -1, -1):
            limit = bound[j] if j < used else np.int64(0)
            if number[j] < limit:
                return
            if number[j] > limit:
                break
        quotient = np.int64(1)


@inline
def _pack(number, out, start, width):  # type: ignore[no-untyped-def]
    held = _ZERO
    filled = 0
    at = 0
    for j in range(len(number)):
        held |= np.uint64(number[j]) << np.uint64(filled)
        filled += RADIX_BITS
        while filled >= 8 and at < width:
            out[start + at] = np.uint8(held & np.uint64(255))
            held >>= np.uint64(8)
            filled -= 8
            at += 1
    while at < width:
        out[start + at] = np.uint8(held & np.uint64(255))
        held >>= np.uint64(8)
        at += 1


@inline
def _divisible(group, lane_total, divisor_multiple, divisor, inverse, number, lanes):  # type: ignore[no-untyped-def]
    """The first lane whose number is a multiple of the divisor, or -1.

    Reduces in place, `lane_total` being a copy: what is left above the cleared digits is the number
    divided by a power of two modulo the divisor, so it is zero modulo the divisor for a multiple.
    """
    digits = len(divisor_multiple) - ROWS
    shared = min(len(group), len(lane_total))  # the group's last rows are zero
    lane_total[:shared] = group[:shared]
    lane_total[shared:] = _ZERO
    modulus_at = np.uint64(divisor_multiple.ctypes.data)
    base = np.uint64(lane_total.ctypes.data)
    for _ in range(0, digits, ROWS):
        reduce_rows(base, base, base, modulus_at, np.uint64(digits))
        base += _ROW_BYTES * np.uint64(ROWS)
    left = len(lane_total) - ROWS - digits
    rest = lane_total[digits:]
    carry_digits(np.uint64(rest.ctypes.data), np.uint64(rest.ctypes.data), np.uint64(left + ROWS))
    for lane in range(lanes):
        # A multiple z * divisor here has z < 2^28 or so, and z is read off the lowest two digits.
        low = rest[0, lane] | rest[1, lane] << np.uint64(RADIX_BITS)
        if (low * inverse & _TWO_DIGITS) >> np.uint64(30):
            continue
        _canonical(rest, lane, divisor, number[:left])
        any_bit = np.int64(0)
        for j in range(left):
            any_bit |= number[j]
        if any_bit == 0:
            return lane
    return -1


@inline
def _gather(entries, chosen, starts, out):  # type: ignore[no-untyped-def]
    """Put the chosen table entries side by side; lanes beyond them repeat the first."""
    digits = entries.shape[1]
    for lane in range(LANES):
        starts[lane] = np.int64(chosen[lane if lane < len(chosen) else 0]) * digits
    flat = entries.reshape(-1)
    for j in range(digits):
        for lane in range(LANES):
            out[j, lane] = flat[starts[lane] + j]


@kernel(INT(types.uint64, INT, INT, INT, NUMBERS, DIGITS, NUMBERS, WORD, GROUP, GROUP, NUMBERS))
def check(  # type: ignore[no-untyped-def]
    address, width, first, last, modulus, divisor_multiple, divisor, inverse, group, total, number
):
    """The first of the numbers first ... last-1 outside [1, modulus), or divisible; -1 if none.

    `divisor_multiple` is the divisor's K, `inverse` the divisor's inverse modulo 2^54. An empty
    `divisor` skips the divisibility check.
    """
    for start in range(first, last, LANES):
        count = min(LANES, last - start)
        _unpack(address + np.uint64(start * width), width, count, group)
        bad = count
        for lane in range(count):
            if _outside(group, lane, modulus):
                bad = lane
                break
        if len(divisor):
            shared = _divisible(group, total, divisor_multiple, divisor, inverse, number, bad)
            if shared >= 0:
                bad = shared
        if bad < count:
            return start + bad
    return -1


@kernel(types.void(GROUPS, INT, INT, INT, U64, INT, DIGITS, GROUP, GROUP))
def multiply(state, length, first, last, addresses, width, modulus, right, total):  # type: ignore[no-untyped-def]
    """Multiply groups first ... last-1 of the running product by those of every input."""
    for g in range(first, last):
        count = min(LANES, length - g * LANES)
        for i in range(len(addresses)):
            _unpack(addresses[i] + np.uint64(g * LANES * width), width, count, right)
            _multiply(state[g], state[g], right, modulus, total)


@kernel(types.void(GROUPS, INT, INT, INT, GROUP, U8, INT, DIGITS, NUMBERS, GROUP, GROUP, NUMBERS))
def finish(state, length, first, last, factor, out, width, multiple, modulus, group, total, number):  # type: ignore[no-untyped-def]
    """Write groups first ... last-1, each times `factor` / R, reduced, as little-endian numbers."""
    for g in range(first, last):
        _multiply(group, state[g], factor, multiple, total)
        for lane in range(min(LANES, length - g * LANES)):
            _canonical(group, lane, modulus, number)
            _pack(number, out, (g * LANES + lane) * width, width)


@kernel(types.void(TABLE, GROUPS, GROUP, INT, INT, DIGITS, GROUP, GROUP, GROUP))
def tabulate(table, bases, one, first, last, modulus, base, power, total):  # type: ignore[no-untyped-def]
    """Powers 0, 1, 2, ... of the bases in groups first ... last-1, one window of the table each."""
    windows, entries, digits = table.shape
    for g in range(first, last):
        base[:, :] = bases[g]
        power[:, :] = one
        for e in range(entries):
            for lane in range(min(LANES, windows - g * LANES)):
                for j in range(digits):
                    table[g * LANES + lane, e, j] = np.uint32(power[j, lane])
            _multiply(power, power, base, modulus, total)


@kernel(
    types.void(
        U8, types.uint64, INT, INT, INT, CHOICES, TABLE, DIGITS, NUMBERS, GROUP, GROUP, GROUP,
        NUMBERS,
    )
)  # fmt: skip
def choose(  # type: ignore[no-untyped-def]
    out, starts, width, first, last, choices, table, multiple, modulus, group, right, total, number
):
    """Write start times the chosen entry of every window, for the numbers first ... last-1."""
    windows = len(table)
    starts_in_row = np.zeros(LANES, np.int64)
    for start in range(first, last, LANES):
        count = min(LANES, last - start)
        _unpack(starts + np.uint64(start * width), width, count, group)
        for w in range(windows):
            _gather(table[w], choices[start : start + count, w], starts_in_row, right)
            _multiply(group, group, right, multiple, total)
        for lane in range(count):
            _canonical(group, lane, modulus, number)
            _pack(number, out, (start + lane) * width, width)
