"""Products of residues against Python's own whole numbers, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.kernels.lanes import MAX_DIGITS, RADIX_BITS, LaneModulus
from privagg.kernels.modular import BACKENDS, ModularProduct, default_modular_backend
from privagg.kernels.running_sum import Fault

backends = pytest.mark.parametrize("backend", BACKENDS)

# Moduli at the edges of digits and bytes: all ones, a lone top bit, around multiples of 27 bits.
EDGES = [
    (1 << bits) + offset
    for bits in (27, 54, 108, 189, 216, 512)
    for offset in (-1, 1, -(1 << 13) + 1)
]


def width_of(modulus: int) -> int:
    return -(-modulus.bit_length() // 8)


def payload(residues: list[int], modulus: int) -> bytes:
    return b"".join(r.to_bytes(width_of(modulus), "little") for r in residues)


def residues_of(data: bytes, modulus: int) -> list[int]:
    width = width_of(modulus)
    return [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data), width)]


def expected(uploads: list[list[int]], modulus: int) -> list[int]:
    product = [1] * len(uploads[0])
    for upload in uploads:
        product = [a * b % modulus for a, b in zip(product, upload, strict=True)]
    return product


def draw(rng: np.random.Generator, modulus: int, length: int) -> list[int]:
    size = width_of(modulus) + 8
    return [1 + int.from_bytes(rng.bytes(size), "little") % (modulus - 1) for _ in range(length)]


@backends
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_products_are_exact(backend: str, data: st.DataObject) -> None:
    bits = data.draw(st.integers(2, 700))
    modulus = data.draw(st.integers(1 << (bits - 1), (1 << bits) - 1)) | 1
    length = data.draw(st.integers(1, 18))
    residue = st.one_of(st.integers(1, modulus - 1), st.sampled_from([1, modulus - 1]))
    uploads = data.draw(
        st.lists(st.lists(residue, min_size=length, max_size=length), min_size=1, max_size=4)
    )
    product = ModularProduct(modulus, length, width_of(modulus), backend=backend)
    split = data.draw(st.integers(0, len(uploads)))
    payloads = [payload(upload, modulus) for upload in uploads]
    assert product.add(payloads[:split]) == [None] * split
    assert product.add(payloads[split:]) == [None] * (len(uploads) - split)
    assert residues_of(product.to_bytes(), modulus) == expected(uploads, modulus)


@backends
@pytest.mark.parametrize("modulus", EDGES)
def test_moduli_and_residues_at_the_edges(backend: str, modulus: int) -> None:
    uploads = [[modulus - 1, 1, modulus - 2, modulus // 2, (1 << 27) % modulus or 1]] * 6
    product = ModularProduct(modulus, 5, width_of(modulus), backend=backend)
    product.add([payload(upload, modulus) for upload in uploads])
    assert residues_of(product.to_bytes(), modulus) == expected(uploads, modulus)


@backends
def test_the_size_of_paillier_and_many_factors(backend: str) -> None:
    rng = np.random.default_rng(40)
    n = int.from_bytes(rng.bytes(256), "little") | 1 | 1 << 2047
    modulus, length = n * n, 43
    uploads = [draw(rng, modulus, length) for _ in range(3)]
    product = ModularProduct(modulus, length, width_of(modulus), divisor=n, backend=backend)
    for _ in range(9):
        product.add([payload(upload, modulus) for upload in uploads])
    assert residues_of(product.to_bytes(), modulus) == expected(uploads * 9, modulus)


def test_backends_give_the_same_bytes_and_faults() -> None:
    rng = np.random.default_rng(41)
    n = int.from_bytes(rng.bytes(128), "little") | 1 | 1 << 1023
    modulus, length = n * n, 29
    good = [payload(draw(rng, modulus, length), modulus) for _ in range(3)]
    spoiled = payload([*draw(rng, modulus, 17), 5 * n, *draw(rng, modulus, 11)], modulus)
    made = [ModularProduct(modulus, length, width_of(modulus), n, backend) for backend in BACKENDS]
    inputs = [good[0], spoiled, good[1], good[2]]
    faults = [product.add(inputs) for product in made]
    assert faults[0] == faults[1] == [None, Fault(17, 5 * n, modulus), None, None]
    assert made[0].to_bytes() == made[1].to_bytes()


@backends
def test_an_empty_product_is_one(backend: str) -> None:
    product = ModularProduct(1_000_003, 11, 3, backend=backend)
    assert residues_of(product.to_bytes(), 1_000_003) == [1] * 11
    product.add([payload([2] * 11, 1_000_003)])
    assert product.to_bytes() == product.to_bytes() == payload([2] * 11, 1_000_003)


@backends
@pytest.mark.parametrize("index", range(11))
def test_residues_out_of_range_are_named_and_not_multiplied(backend: str, index: int) -> None:
    n = (1 << 521) - 1
    modulus = n * n
    product = ModularProduct(modulus, 11, width_of(modulus), n, backend)
    good = [3 + j for j in range(11)]
    assert product.add([payload(good, modulus)]) == [None]
    before = product.to_bytes()
    top = (1 << (8 * width_of(modulus))) - 1
    for value in (0, modulus, modulus + 1, top, n, 2 * n, n * (n - 1), n << 500):
        bad = payload([*good[:index], value, *good[index + 1 :]], modulus)
        fault = Fault(index, value, modulus)
        assert product.add([bad]) == [fault]
        assert product.to_bytes() == before
    for value in (1, modulus - 1, n - 1, n + 1, 2 * n - 1, n * (n - 1) + 1, 1 << 1000):
        near = payload([*good[:index], value, *good[index + 1 :]], modulus)
        assert product.add([near]) == [None]


@backends
def test_the_first_of_several_faults_is_named(backend: str) -> None:
    n = (1 << 89) - 1
    modulus = n * n
    product = ModularProduct(modulus, 12, width_of(modulus), n, backend)
    residues = [7] * 12
    residues[9], residues[4], residues[6] = 0, n * 3, modulus
    assert product.add([payload(residues, modulus)]) == [Fault(4, 3 * n, modulus)]
    residues[4] = 7
    assert product.add([payload(residues, modulus)]) == [Fault(6, modulus, modulus)]


@backends
def test_good_inputs_survive_bad_neighbours(backend: str) -> None:
    modulus = (1 << 127) - 1
    product = ModularProduct(modulus, 9, width_of(modulus), backend=backend)
    good, bad = payload([5] * 9, modulus), payload([5] * 8 + [0], modulus)
    assert [f is None for f in product.add([bad, good, bad, good])] == [False, True, False, True]
    assert residues_of(product.to_bytes(), modulus) == [25] * 9


@backends
def test_any_buffer_at_any_address(backend: str) -> None:
    rng = np.random.default_rng(42)
    modulus = (1 << 255) - 19
    product = ModularProduct(modulus, 10, width_of(modulus), backend=backend)
    uploads = [draw(rng, modulus, 10) for _ in range(3)]
    for offset, upload in enumerate(uploads):
        raw = bytearray(offset + 1) + payload(upload, modulus)
        assert product.add([memoryview(raw)[offset + 1 :]]) == [None]
    assert residues_of(product.to_bytes(), modulus) == expected(uploads, modulus)


@backends
def test_wrong_sizes_are_refused_before_anything_is_multiplied(backend: str) -> None:
    product = ModularProduct(257, 4, 2, backend=backend)
    good = payload([2, 3, 4, 5], 257)
    for bad in (b"", good[:-1], good + b"\0"):
        with pytest.raises(ValueError, match="bytes"):
            product.add([good, bad])
    assert residues_of(product.to_bytes(), 257) == [1] * 4


@pytest.mark.parametrize(
    ("modulus", "length", "width", "divisor", "reason"),
    [
        (257, 0, 2, 1, "at least one residue"),
        (257, 1, 1, 1, "as many bytes"),
        (257, 1, 3, 1, "as many bytes"),
        (257, 1, 2, 16, "divisor"),
        (257, 1, 2, 15, "divisor"),
    ],
)
def test_impossible_shapes_are_refused(
    modulus: int, length: int, width: int, divisor: int, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        ModularProduct(modulus, length, width, divisor)


def test_lanes_take_odd_moduli_that_fit() -> None:
    with pytest.raises(ValueError, match="odd"):
        LaneModulus(256)
    with pytest.raises(ValueError, match="too large"):
        LaneModulus((1 << (RADIX_BITS * MAX_DIGITS)) + 1)
    with pytest.raises(ValueError, match="unknown kernel backend"):
        ModularProduct(257, 1, 2, backend="abacus")


def test_a_modulus_too_large_for_lanes_falls_back_to_whole_numbers() -> None:
    modulus = (1 << 16_000) + 1
    assert default_modular_backend(modulus) == "integers"
    product = ModularProduct(modulus, 1, width_of(modulus))
    product.add([payload([modulus - 1], modulus)] * 3)
    assert residues_of(product.to_bytes(), modulus) == [modulus - 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1 << 600))
def test_lane_moduli_keep_the_promise_of_no_overflow(half: int) -> None:
    lanes = LaneModulus(2 * half + 1)
    assert lanes.multiple % lanes.modulus == 0
    assert lanes.multiple % (1 << RADIX_BITS) == (1 << RADIX_BITS) - 1
    assert 4 * lanes.multiple <= 1 << (RADIX_BITS * lanes.digits)
    assert lanes.digits % 4 == 0


def test_the_largest_lanes_cannot_overflow_a_word() -> None:
    # Two products of digits enter a column for every digit, and a carry of the same size.
    assert 2 * MAX_DIGITS * ((1 << RADIX_BITS) - 1) ** 2 + (1 << 40) < 1 << 64


def test_the_largest_supported_modulus_of_all_ones_is_exact() -> None:
    bits = RADIX_BITS * (MAX_DIGITS - 8)
    modulus = (1 << bits) - 1
    assert default_modular_backend(modulus) == "numba"
    product = ModularProduct(modulus, 2, width_of(modulus), backend="numba")
    upload = [modulus - 1, modulus - (1 << 27)]
    product.add([payload(upload, modulus)] * 5)
    assert residues_of(product.to_bytes(), modulus) == expected([upload] * 5, modulus)
