"""Powers of a fixed base against Python's own pow, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.kernels.fixed_base import MAX_WINDOW_BITS, FixedBase, best_window_bits
from privagg.kernels.modular import BACKENDS

backends = pytest.mark.parametrize("backend", BACKENDS)
MODULUS = (1 << 607) - 1
WIDTH = 76


def numbers(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + WIDTH], "little") for at in range(0, len(data), WIDTH)]


def exponent(digits: list[int], window_bits: int) -> int:
    return sum(digit << (window_bits * j) for j, digit in enumerate(digits))


@backends
@pytest.mark.parametrize(("window_bits", "exponent_bits"), [(1, 5), (3, 40), (5, 300), (8, 64)])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_powers_are_exact(backend: str, window_bits: int, exponent_bits: int, count: int) -> None:
    rng = np.random.default_rng(50)
    base = int.from_bytes(rng.bytes(WIDTH), "little") % MODULUS
    table = FixedBase(
        base, MODULUS, WIDTH, exponent_bits=exponent_bits, window_bits=window_bits, backend=backend
    )
    assert table.windows * window_bits >= exponent_bits
    digits = rng.integers(0, 1 << window_bits, (count, table.windows)).astype(np.uint16)
    starts = [int.from_bytes(rng.bytes(WIDTH), "little") % MODULUS for _ in range(count)]
    data = b"".join(start.to_bytes(WIDTH, "little") for start in starts)
    assert numbers(table.multiply_powers(data, digits)) == [
        start * pow(base, exponent(row, window_bits), MODULUS) % MODULUS
        for start, row in zip(starts, digits.tolist(), strict=True)
    ]


@backends
def test_extreme_digits_and_starts(backend: str) -> None:
    table = FixedBase(MODULUS - 1, MODULUS, WIDTH, exponent_bits=12, window_bits=4, backend=backend)
    digits = np.array([[0, 0, 0], [15, 15, 15], [1, 0, 0], [0, 0, 8]], dtype=np.uint16)
    starts = [1, MODULUS - 1, 0, MODULUS - 1]
    data = b"".join(start.to_bytes(WIDTH, "little") for start in starts)
    assert numbers(table.multiply_powers(data, digits)) == [1, 1, 0, MODULUS - 1]
    assert table.multiply_powers(b"", np.zeros((0, 3), np.uint16)) == b""


@backends
def test_wrong_shapes_are_refused(backend: str) -> None:
    table = FixedBase(3, MODULUS, WIDTH, exponent_bits=12, window_bits=4, backend=backend)
    one = (1).to_bytes(WIDTH, "little")
    with pytest.raises(ValueError, match="uint16"):
        table.multiply_powers(one, np.zeros((1, 2), np.uint16))
    with pytest.raises(ValueError, match="uint16"):
        table.multiply_powers(one, np.zeros((1, 3), np.int64))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bytes of starts"):
        table.multiply_powers(one, np.zeros((2, 3), np.uint16))
    with pytest.raises(ValueError, match="exceeds 4 bits"):
        table.multiply_powers(one, np.array([[0, 16, 0]], np.uint16))


def test_impossible_tables_are_refused() -> None:
    for base, width in ((0, WIDTH), (MODULUS, WIDTH), (3, WIDTH - 1), (3, WIDTH + 1)):
        with pytest.raises(ValueError, match="expected a base"):
            FixedBase(base, MODULUS, width, exponent_bits=8, window_bits=4)
    for bits in (0, MAX_WINDOW_BITS + 1):
        with pytest.raises(ValueError, match="windows of"):
            FixedBase(3, MODULUS, WIDTH, exponent_bits=8, window_bits=bits)
    with pytest.raises(ValueError, match="unknown kernel backend"):
        FixedBase(3, MODULUS, WIDTH, exponent_bits=8, window_bits=4, backend="abacus")


@settings(max_examples=50, deadline=None)
@given(st.integers(8, 4096), st.integers(1, 10**7), st.sampled_from([4096, 6144, 15_360]))
def test_tables_grow_with_use_and_stay_within_their_memory(
    exponent_bits: int, powers: int, modulus_bits: int
) -> None:
    bits = best_window_bits(exponent_bits, powers, modulus_bits)
    more = best_window_bits(exponent_bits, 10 * powers, modulus_bits)
    assert 1 <= bits <= more <= MAX_WINDOW_BITS
    digits = -(-modulus_bits // 27) + 4
    assert 4 * digits * (-(-exponent_bits // more) << more) < 128 << 20
