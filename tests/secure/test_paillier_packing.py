"""Balanced slots: linear, exact, and honest about what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import CiphertextError
from privagg.secure.paillier_packing import MAX_SLOT_BITS, SlotPacking, slot_bits_for


@st.composite
def packings(draw: st.DrawFn) -> SlotPacking:
    return SlotPacking(
        length=draw(st.integers(1, 40)),
        slot_bits=draw(st.integers(2, MAX_SLOT_BITS)),
        slots=draw(st.integers(1, 20)),
    )


def by_hand(packing: SlotPacking, values: list[int]) -> list[int]:
    """The plaintexts from their definition."""
    return [
        sum(v << (packing.slot_bits * j) for j, v in enumerate(values[at : at + packing.slots]))
        for at in range(0, len(values), packing.slots)
    ]


@settings(max_examples=200, deadline=None)
@given(packings(), st.data())
def test_packing_is_its_definition_and_unpacks(packing: SlotPacking, data: st.DataObject) -> None:
    top = (1 << (packing.slot_bits - 1)) - 1
    value = st.one_of(st.integers(-top, top), st.sampled_from([-top, top, 0]))
    values = data.draw(st.lists(value, min_size=packing.length, max_size=packing.length))
    packed = packing.pack(np.array(values, dtype=np.int64))
    assert packed == by_hand(packing, values)
    assert packing.unpack(packed).tolist() == values


@settings(max_examples=100, deadline=None)
@given(packings(), st.integers(1, 5), st.integers(0, 2**32))
def test_sums_of_plaintexts_are_plaintexts_of_sums(
    packing: SlotPacking, addends: int, seed: int
) -> None:
    top = ((1 << (packing.slot_bits - 1)) - 1) // addends
    rng = np.random.default_rng(seed)
    values = rng.integers(-top, top, (addends, packing.length), dtype=np.int64, endpoint=True)
    sums = [sum(column) for column in zip(*(packing.pack(v) for v in values), strict=True)]
    assert packing.unpack(sums).tolist() == values.sum(axis=0).tolist()


@pytest.mark.parametrize("bound", [1, 2, 3, 2**21 - 1, 2**21, 2**59, 2**62 - 1])
def test_slots_recognise_sums_beyond_their_bound(bound: int) -> None:
    bits = slot_bits_for(bound)
    packing = SlotPacking(3, bits, 3)
    largest = (1 << (bits - 1)) - 1
    assert largest >= 2 * bound
    for value in (bound, bound + 1, largest, -largest):
        assert packing.unpack(by_hand(packing, [7, value, -7])).tolist() == [7, value, -7]


def test_plaintexts_beyond_their_slots_are_refused() -> None:
    packing = SlotPacking(4, 24, 4)
    reach = 1 << (24 * 4 - 1)
    for plaintext in (reach, -2 * reach, 1 << 200, -(1 << 200)):
        with pytest.raises(CiphertextError, match="outside its 4 slots"):
            packing.unpack([plaintext])


def test_spare_slots_must_stay_empty() -> None:
    packing = SlotPacking(5, 24, 4)
    assert packing.plaintexts == 2
    with pytest.raises(CiphertextError, match="unused slots"):
        packing.unpack([0, 1 << 24])


def test_values_that_do_not_fit_are_refused() -> None:
    packing = SlotPacking(2, 8, 4)
    for value in (128, -128, 2**62):
        with pytest.raises(ValueError, match="does not fit"):
            packing.pack(np.array([0, value], dtype=np.int64))
    with pytest.raises(ValueError, match="expected 2 values"):
        packing.pack(np.zeros(3, dtype=np.int64))
