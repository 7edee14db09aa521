"""Multi-word coefficients against Python's own integers, on every backend."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.kernels.residues import BACKENDS
from privagg.kernels.wide import FieldLayout, Lift, place_digit, scale_residues

backends = pytest.mark.parametrize("backend", BACKENDS)
PRIMES = (1152921504606830593, 281474976546817, 1099511480321)


def integers(words: np.ndarray) -> list[int]:
    return [sum(int(w) << (64 * j) for j, w in enumerate(row)) for row in words]


@backends
@settings(max_examples=60, deadline=None)
@given(
    fields=st.integers(1, 17),
    width=st.integers(1, 63),
    shift=st.integers(0, 5),
    addends=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_fields_add_up_through_packing(
    backend: str, fields: int, width: int, shift: int, addends: int, seed: int
) -> None:
    layout = FieldLayout(fields, width, shift)
    rng = np.random.default_rng(seed)
    length, rows = 3 * fields - fields // 2, 4
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    total = rng.integers(low, high, length, dtype=np.int64, endpoint=True)
    total[0], total[-1] = low, high
    parts = [rng.integers(low, high, length, dtype=np.int64, endpoint=True) // addends
             for _ in range(addends - 1)]  # fmt: skip
    last = total.copy()
    for part in parts:
        last -= part
    inside = (last >= low) & (last <= high)
    parts = [np.where(inside, part, 0) for part in parts]
    last = np.where(inside, last, total)
    packed = [layout.pack(part, rows, backend) for part in (*parts, last)]
    modulus = 1 << layout.bits
    summed = [sum(column) % modulus for column in zip(*map(integers, packed), strict=True)]
    words = np.array(
        [[(n >> (64 * w)) & (2**64 - 1) for w in range(layout.words)] for n in summed],
        dtype=np.uint64,
    )
    assert all(n % (1 << shift) == 0 for n in summed)
    assert layout.unpack(words, length, addends, backend).tolist() == total.tolist()


@backends
@settings(max_examples=60, deadline=None)
@given(bits=st.integers(1, 150), seed=st.integers(0, 2**32))
def test_lift_is_the_floor_of_the_scaled_message(backend: str, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = [int.from_bytes(rng.bytes(20), "little") % (1 << bits) for _ in range(6)]
    numbers += [0, (1 << bits) - 1]
    count = -(-bits // 64)
    words = np.array(
        [[(n >> (64 * w)) & (2**64 - 1) for w in range(count)] for n in numbers], dtype=np.uint64
    )
    residues = np.array([rng.integers(0, q, 8) for q in PRIMES], dtype=np.uint64)
    residues[:, 0] = [q - 1 for q in PRIMES]
    before = residues.copy()
    Lift(PRIMES, bits).add(residues, words, backend)
    modulus = math.prod(PRIMES)
    for i, number in enumerate(numbers):
        lifted = (modulus * number) >> bits
        for row, q in enumerate(PRIMES):
            assert int(residues[row, i]) == (int(before[row, i]) + lifted) % q


@backends
def test_scaling_rows(backend: str) -> None:
    rng = np.random.default_rng(6)
    residues = np.array([rng.integers(0, q, 8) for q in PRIMES * 2], dtype=np.uint64)
    for factor in (0, 1, 1 << 300, 12345678901234567890):
        scaled = scale_residues(residues, PRIMES, factor, backend)
        for row, q in enumerate(PRIMES * 2):
            assert scaled[row].tolist() == [int(x) * factor % q for x in residues[row]]


def test_digits_are_placed_across_words() -> None:
    words = np.zeros((1, 2), dtype=np.uint64)
    place_digit(words, np.array([0x1FF], dtype=np.uint64), 60)
    place_digit(words, np.array([3], dtype=np.uint64), 127)
    assert integers(words) == [(0x1FF << 60) | (1 << 127)]


def test_impossible_fields_are_refused() -> None:
    for fields, width, shift in ((0, 1, 0), (1, 0, 0), (1, 64, 0), (1, 1, -1)):
        with pytest.raises(ValueError, match="out of range"):
            FieldLayout(fields, width, shift)
