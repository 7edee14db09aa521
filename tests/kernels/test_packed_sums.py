"""Packed sums against Python's own unbounded integers."""

from __future__ import annotations

import numpy as np
import pytest

from privagg.kernels.packed_sums import PackedLayout, PackedSum, add_stream

WIDTHS = (1, 2, 7, 22, 31, 32, 33, 40, 62, 63)
BACKENDS = ("numba", "numpy")


def integer_of(values: np.ndarray, layout: PackedLayout) -> int:
    """The packed integer by its definition."""
    whole = sum(int(value) << (layout.width * place) for place, value in enumerate(values))
    return whole % (1 << layout.bits)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_values_are_packed_as_one_integer_and_read_back(width: int, backend: str) -> None:
    rng, half = np.random.default_rng(width), 1 << (width - 1)
    for length in (1, 2, 3, 17, 100):
        layout = PackedLayout(length, width)
        values = rng.integers(-half, half, length)
        packed = layout.to_bytes(layout.pack(values, backend), backend)
        assert packed == integer_of(values, layout).to_bytes(layout.payload_bytes, "little")
        values[:2] = [-half, half - 1][:length]
        again = layout.to_bytes(layout.pack(values, backend), backend)
        assert layout.unpack(again, backend).tolist() == values.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [5, 22, 47])
def test_any_payloads_add_up_as_integers(width: int, backend: str) -> None:
    layout, rng = PackedLayout(37, width), np.random.default_rng(1)
    wholes = [int.from_bytes(rng.bytes(layout.payload_bytes), "little") for _ in range(9)]
    wholes = [whole % (1 << layout.bits) for whole in wholes]
    inputs = [whole.to_bytes(layout.payload_bytes, "little") for whole in wholes]
    total = PackedSum(layout, backend)
    odd = memoryview(b"x" + inputs[0])[1:]  # a payload may start anywhere in a message
    assert total.add([odd, *inputs[1:7]]) == [None] * 7
    assert total.add(inputs[7:]) == [None] * 2
    want = sum(wholes) % (1 << layout.bits)
    assert total.to_bytes() == want.to_bytes(layout.payload_bytes, "little")
    lanes = total.lanes()
    words = rng.integers(0, 1 << 32, layout.words, dtype=np.uint32)
    mask = int.from_bytes(words.astype("<u4").tobytes(), "little")
    for sign in (-1, -1, 1):
        add_stream(lanes, words, sign, backend)
    want = (sum(wholes) - mask) % (1 << layout.bits)
    assert layout.to_bytes(lanes, backend) == want.to_bytes(layout.payload_bytes, "little")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_beyond_its_range_moves_its_neighbour_by_one(backend: str) -> None:
    layout = PackedLayout(6, 8)
    values = np.array([3, 128, -7, -129, 20, 127])
    opened = layout.unpack(layout.to_bytes(layout.pack(values, backend), backend), backend)
    assert opened.tolist() == [3, -128, -6, 127, 19, 127]


def test_unused_top_bits_must_be_zero() -> None:
    layout = PackedLayout(3, 22)
    total = PackedSum(layout)
    faults = total.add([b"\xff" * layout.payload_bytes, bytes(layout.payload_bytes)])
    assert [fault is None for fault in faults] == [False, True]
    assert total.to_bytes() == bytes(layout.payload_bytes)
