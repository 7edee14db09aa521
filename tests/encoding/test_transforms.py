"""Rotations are orthogonal and undo themselves; masks are shared, public and unbiased."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard as reference

from privagg.encoding.transforms import Mask, Rotation, hadamard, random_mask, top_mask
from privagg.errors import EncodingError


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_the_transform_is_the_hadamard_matrix(n: int) -> None:
    """Against scipy's matrix."""
    values = np.random.default_rng(n).normal(size=n)
    before = values.copy()
    assert np.allclose(hadamard(values), reference(n) @ values / np.sqrt(n), atol=1e-12)
    assert np.array_equal(values, before)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.binary(max_size=8))
def test_a_rotation_keeps_norms_and_comes_undone(dimension: int, seed: bytes) -> None:
    values = np.random.default_rng(dimension).normal(size=dimension)
    rotation = Rotation(dimension, seed)
    turned = rotation.apply(values)
    assert len(turned) == rotation.encoded_dimension
    assert dimension <= len(turned) < 2 * dimension or dimension == len(turned)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(values), rel=1e-12)
    assert np.allclose(rotation.undo(turned), values, atol=1e-12)
    assert np.array_equal(turned, Rotation(dimension, seed).apply(values))


def test_another_seed_is_another_rotation() -> None:
    values = np.ones(64)
    assert not np.allclose(Rotation(64, b"a").apply(values), Rotation(64, b"b").apply(values))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.data())
def test_masks_have_k_places_in_order_and_parties_agree(
    dimension: int, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(1, dimension))
    mask = random_mask(dimension, kept, seed=b"run", round_number=4)
    again = random_mask(dimension, kept, seed=b"run", round_number=4)
    assert np.array_equal(mask.indices, again.indices)
    assert len(set(mask.indices.tolist())) == kept == mask.encoded_dimension
    values = np.random.default_rng(kept).normal(size=dimension)
    sent = mask.apply(values)
    assert np.linalg.norm(sent) <= np.linalg.norm(values) * (1 + 1e-15)
    whole = mask.undo(sent)
    assert np.allclose(whole[mask.indices], values[mask.indices] * dimension / kept)
    assert np.count_nonzero(whole) <= kept


def test_random_masks_are_unbiased_over_rounds() -> None:
    """Each of 20 coordinates is kept in 5 of 20 rounds on average: 4,000 rounds, 6 deviations."""
    counts = np.zeros(20)
    for round_number in range(4000):
        counts[random_mask(20, 5, seed=b"s", round_number=round_number).indices] += 1
    deviation = np.sqrt(4000 * 0.25 * 0.75)
    assert np.abs(counts - 1000).max() < 6 * deviation


def test_the_largest_of_what_was_released_are_kept() -> None:
    mask = top_mask(np.array([0.1, -5.0, 2.0, 2.0, -2.0, 0.0]), 3)
    assert mask.indices.tolist() == [1, 2, 3]
    assert mask.decoded_factor == 1
    assert mask.undo(np.array([1.0, 2.0, 3.0])).tolist() == [0, 1, 2, 3, 0, 0]


def test_unusable_masks_are_refused() -> None:
    for indices in ([], [1, 1], [2, 1], [-1, 0], [0, 6]):
        with pytest.raises(EncodingError, match="mask"):
            Mask(6, np.array(indices, dtype=np.int64))
    for kept in (0, 7):
        with pytest.raises(EncodingError, match="keeps 1 to 6"):
            random_mask(6, kept, seed=b"", round_number=0)
        with pytest.raises(EncodingError, match="keeps 1 to 6"):
            top_mask(np.ones(6), kept)
    with pytest.raises(EncodingError, match="finite"):
        top_mask(np.array([1.0, np.nan]), 1)
    with pytest.raises(EncodingError, match="at least 1"):
        Rotation(0, b"")
