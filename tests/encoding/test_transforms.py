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
    mask = random_mask(dimension, kept, seed=b"run")
    again = random_mask(dimension, kept, seed=b"run")
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
        counts[random_mask(20, 5, seed=b"%d" % round_number).indices] += 1
    deviation = np.sqrt(4000 * 0.25 * 0.75)
    assert np.abs(counts - 1000).max() < 6 * deviation


def test_the_largest_of_what_was_released_are_kept_and_some_others() -> None:
    released = np.array([0.1, -5.0, 2.0, 2.0, -2.0, 0.0])
    mask = top_mask(released, 3, seed=b"r")
    assert {1, 2} < set(mask.indices.tolist())
    assert mask.factors[np.isin(mask.indices, [1, 2])].tolist() == [1, 1]
    assert mask.factors[~np.isin(mask.indices, [1, 2])].tolist() == [4]
    assert np.count_nonzero(mask.undo(np.ones(3))) == 3
    assert top_mask(released, 1, seed=b"r").indices.tolist() == [1]
    assert top_mask(released, 6, seed=b"r").factors.tolist() == [1] * 6


def test_masks_by_size_are_right_on_average_over_the_public_draw() -> None:
    """4,000 seeds, each of 12 coordinates within 6 standard errors of its value."""
    released, update = np.arange(12.0), np.linspace(-1, 1, 12)
    decoded = np.zeros(12)
    for seed in range(4000):
        mask = top_mask(released, 6, seed=seed.to_bytes(2, "big"))
        assert mask.encoded_dimension == 6
        decoded += mask.undo(mask.apply(update))
    assert decoded[9:] / 4000 == pytest.approx(update[9:])
    standard_error = np.abs(update[:9]) * np.sqrt((9 / 3 - 1) / 4000)
    assert (np.abs(decoded[:9] / 4000 - update[:9]) <= 6 * standard_error).all()


def test_unusable_masks_are_refused() -> None:
    for indices in ([], [1, 1], [2, 1], [-1, 0], [0, 6]):
        with pytest.raises(EncodingError, match="mask"):
            Mask(6, np.array(indices, dtype=np.int64), np.ones(len(indices)))
    for kept in (0, 7):
        with pytest.raises(EncodingError, match="keeps 1 to 6"):
            random_mask(6, kept, seed=b"")
        with pytest.raises(EncodingError, match="keeps 1 to 6"):
            top_mask(np.ones(6), kept, seed=b"")
    with pytest.raises(EncodingError, match="finite"):
        top_mask(np.array([1.0, np.nan]), 1, seed=b"")
    with pytest.raises(EncodingError, match="at least 1"):
        Rotation(0, b"")


def test_factors_below_one_or_of_another_length_are_refused() -> None:
    for factors in ([0.5, 1.0], [1.0], [np.nan, 1.0]):
        with pytest.raises(EncodingError, match="factor"):
            Mask(6, np.array([0, 1]), np.array(factors))
