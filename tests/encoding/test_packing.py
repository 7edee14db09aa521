"""Packing commutes with addition, up to and including the bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.encoding.packing import Packing
from privagg.errors import CapacityError


@settings(max_examples=80, deadline=None)
@given(
    length=st.integers(1, 20),
    bound_bits=st.integers(1, 14),
    addends=st.integers(1, 6),
    per_word=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_values_sharing_a_word_add_up(
    length: int, bound_bits: int, addends: int, per_word: int, seed: int
) -> None:
    upload = 1 << bound_bits
    rule = Packing(length, upload, upload * addends, addends, per_word=per_word)
    rng = np.random.default_rng(seed)
    values = rng.choice([-upload, upload, 0, 1 - upload], (addends, length)).astype(np.int64)
    words = [rule.pack(value) for value in values]
    assert all(np.abs(word).max() <= rule.word_bound for word in words)
    total = np.sum(words, axis=0)
    assert np.abs(total).max() <= rule.word_sum_bound
    assert total.shape == (rule.words,)
    assert rule.unpack(total).tolist() == values.sum(axis=0).tolist()


@settings(max_examples=80, deadline=None)
@given(
    bits=st.integers(2, 60),
    addends=st.integers(1, 4),
    limbs=st.integers(2, 8),
    seed=st.integers(0, 2**32),
)
def test_values_spread_over_limbs_add_up(bits: int, addends: int, limbs: int, seed: int) -> None:
    upload = (1 << bits) - 1
    bound = min(upload * addends, (1 << 62) - 1)
    rule = Packing(7, upload, bound, addends, limbs=limbs, limb_bits=-(-(bits + 1) // limbs))
    rng = np.random.default_rng(seed)
    values = rng.integers(-upload, upload, (addends, 7), dtype=np.int64, endpoint=True)
    values[:, 0], values[:, 1] = upload, -upload
    values //= addends if upload * addends > bound else 1
    words = [rule.pack(value) for value in values]
    assert all(np.abs(word).max() <= rule.word_bound for word in words)
    assert rule.unpack(np.sum(words, axis=0)).tolist() == values.sum(axis=0).tolist()


def test_words_that_do_not_fit_are_refused() -> None:
    Packing(1, 1 << 30, (1 << 30) - 1, 1, per_word=2)
    with pytest.raises(CapacityError, match="62 bits"):
        Packing(1, 1 << 31, 1 << 31, 1, per_word=2)
    with pytest.raises(CapacityError, match="not both"):
        Packing(1, 1, 1, 1, per_word=2, limbs=2, limb_bits=3)
    with pytest.raises(CapacityError, match="base"):
        Packing(1, 1, 1, 1, limbs=2)
