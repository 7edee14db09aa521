"""Rounding rules keep the norm they state, are right on average, and add up across parties."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from privagg.encoding.grid import Grid
from privagg.encoding.quantize import (
    STOCHASTIC_TRIES,
    UpdateEncoding,
    encode_released,
    stochastic_round,
)
from privagg.encoding.transforms import Rotation, Transform, random_mask
from privagg.errors import EncodingError
from privagg.privacy.plan.compression import Compression, Rounding
from privagg.privacy.randomness import DeterministicRandomness

Array = np.ndarray[Any, Any]
COINS = DeterministicRandomness(b"coins")
rules = st.sampled_from(Rounding)


class OneWord:
    """A stream that repeats one word: the unluckiest coins."""

    def __init__(self, word: int) -> None:
        self.word = word

    def bytes(self, n: int) -> bytes:
        return self.uint64(n // 8).astype("<u8").tobytes()

    def uint64(self, n: int) -> Array:
        return np.full(n, self.word, dtype=np.uint64)


@settings(max_examples=200, deadline=None)
@given(
    update=hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(width=64)),
    steps=st.sampled_from([2, 3, 10, 1000, 2**30]),
    rounding=rules,
    word=st.sampled_from([0, 2**63, 2**64 - 1]),
    rotated=st.booleans(),
)
def test_the_norm_holds_with_any_coins(
    update: Array, steps: int, rounding: Rounding, word: int, rotated: bool
) -> None:
    rotation = Rotation(len(update), b"public") if rotated else None
    transform = Transform(len(update), rotation=rotation)
    encoding = UpdateEncoding(Grid(1.0, steps), transform, rounding)
    encoded = encoding.encode(update, OneWord(word))
    assert encoded.dtype == np.int64
    assert encoded.shape == (transform.encoded_dimension,)
    total = sum(int(z) ** 2 for z in encoded)
    assert total <= encoding.norm_squared_bound <= encoding.sensitivity_grid**2
    if not np.isfinite(update).all() and not rotated:
        assert not encoded.any()


@settings(max_examples=100, deadline=None)
@given(
    update=hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(width=64)),
    steps=st.sampled_from([2, 10, 2**16, 2**30]),
)
def test_truncation_is_the_rule_of_records(update: Array, steps: int) -> None:
    grid, before = Grid(1.0, steps), update.tobytes()
    encoded = UpdateEncoding(grid, Transform(len(update)), Rounding.TRUNCATE).encode(
        update, OneWord(0)
    )
    assert np.array_equal(encoded, grid.clamp(grid.quantise_update(update)))
    assert update.tobytes() == before


def test_draws_beyond_the_bound_are_no_more_frequent_than_stated() -> None:
    """2,000 draws against e^(-1/2); one-sided binomial test, false alarm 1e-6, seed fixed."""
    n, steps = 400, 30
    encoding = UpdateEncoding(Grid(1.0, steps), Transform(n), Rounding.STOCHASTIC)
    stream = COINS.stream("beta")
    update = np.full(n, steps / sqrt(n))  # full length, every fraction 1/2: the widest spread
    norms = np.array([int((stochastic_round(update, stream) ** 2).sum()) for _ in range(2000)])
    beyond = int((norms > encoding.norm_squared_bound).sum())
    assert stats.binom.sf(beyond - 1, 2000, exp(-0.5)) > 1e-6


def test_repeated_draws_are_right_on_average_within_the_stated_bias() -> None:
    """400 encodings of the vector that rounding lengthens most often; the mean's standard error is
    added to the bound with a factor of 6."""
    n, steps, draws = 64, 4, 400
    encoding = UpdateEncoding(Grid(1.0, steps), Transform(n), Rounding.STOCHASTIC)
    update = np.full(n, 1 / sqrt(n))
    stream = COINS.stream("bias")
    mean = np.mean([encoding.encode(update, stream) for _ in range(draws)], axis=0)
    bias = float(np.linalg.norm(mean - update * steps))
    beta = exp(-0.5)
    assert bias <= beta / (1 - beta) * sqrt(n) + 6 * sqrt(n / 4 / draws)


def test_stochastic_rounding_is_right_on_average() -> None:
    """Mean of 20,000 draws within 5.5 standard errors in each of 8 values (false alarm 4e-7)."""
    values = np.array([0.0, 0.25, -0.25, 1.9, -3.5, 2.0, 1e-3, 12345.678])
    stream = COINS.stream("mean")
    draws = np.array([stochastic_round(values, stream) for _ in range(20_000)])
    assert (np.abs(draws - values) < 1).all()
    errors = np.sqrt((values - np.floor(values)) * (np.ceil(values) - values) / 20_000)
    assert (np.abs(draws.mean(axis=0) - values) <= 5.5 * errors).all()


def test_stochastic_rounding_is_exact_at_its_threshold() -> None:
    values = np.array([0.25, -0.25, 5.0, -1e-300])
    assert stochastic_round(values, OneWord(2**62 - 1)).tolist() == [1, -1, 5, 0]
    assert stochastic_round(values, OneWord(2**62)).tolist() == [0, 0, 5, 0]
    assert stochastic_round(values, OneWord(0)).tolist() == [1, -1, 5, 0]


@settings(max_examples=50, deadline=None)
@given(
    updates=hnp.arrays(
        np.float64, st.tuples(st.integers(1, 6), st.just(37)), elements=st.floats(-1, 1)
    ),
    rounding=rules,
    kept=st.integers(1, 37),
)
def test_sums_line_up_and_decode_to_the_mean(updates: Array, rounding: Rounding, kept: int) -> None:
    mask = random_mask(37, kept, seed=b"m")
    transform = Transform(37, mask, Rotation(kept, b"r"))
    grid = Grid(10.0, 2**20)
    encoding = UpdateEncoding(grid, transform, rounding)
    stream = COINS.stream("sum")
    total = np.sum([encoding.encode(update, stream) for update in updates], axis=0)
    mean = transform.undo(grid.decode(total, len(updates)))
    expected = np.zeros(37)
    expected[mask.indices] = updates.mean(axis=0)[mask.indices] * 37 / kept
    tolerance = 37 / kept * sqrt(transform.encoded_dimension) / float(grid.scale)
    assert np.linalg.norm(mean - expected) <= tolerance * 1.001


def test_rotation_makes_few_bits_enough() -> None:
    """One spike over 2^14 coordinates in 8 bits: the finer grid costs a fraction of the noise."""
    n = 2**14
    made = []
    for rotation in (None, Rotation(n, b"seed")):
        terms = Compression(bits=8, rounding=Rounding.STOCHASTIC, rotation=rotation is not None)
        grid = Grid(1.0, terms.finest_grid(n), 127)
        transform = Transform(n, rotation=rotation)
        made.append(UpdateEncoding(grid, transform, terms.rounding))
    overhead = [e.sensitivity_grid / e.grid.sensitivity_grid for e in made]
    assert overhead[0] > 1.1 > 1.01 > overhead[1]
    spike = np.zeros(n)
    spike[77] = 0.9
    rotated = made[1]
    encoded = rotated.encode(spike, COINS.stream("spike"))
    assert int(np.abs(encoded).max()) <= 127
    error = np.linalg.norm(rotated.transform.undo(rotated.grid.decode(encoded)) - spike)
    assert error <= sqrt(n) / float(rotated.grid.scale)


def test_the_clamp_after_a_rotation_binds_as_rarely_as_stated() -> None:
    """2,000 rotations of a spike and of a dense vector at 1 in a million: false alarm 2e-3."""
    n = 256
    terms = Compression(bits=12, rounding=Rounding.STOCHASTIC, rotation=True)
    scale, clamp = terms.finest_grid(n), terms.largest_coordinate
    assert clamp is not None
    assert scale > 2 * clamp
    for update in (np.eye(1, n)[0], np.full(n, 1 / 16)):
        for seed in range(1000):
            scaled = Rotation(n, seed.to_bytes(4, "big")).apply(update) * scale
            assert np.abs(scaled).max() <= clamp


@settings(max_examples=60, deadline=None)
@given(
    update=hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(width=64)),
    rounding=st.sampled_from([Rounding.NEAREST, Rounding.STOCHASTIC]),
    levels=st.sampled_from([3, 127, 2**20]),
    word=st.sampled_from([0, 2**63, 2**64 - 1]),
)
def test_a_private_update_is_rounded_within_its_clamp(
    update: Array, rounding: Rounding, levels: int, word: int
) -> None:
    grid = Grid(0.5, levels, levels)
    integers = encode_released(grid, update, rounding, OneWord(word))
    assert integers.dtype == np.int64
    assert np.abs(integers).max() <= levels
    inside = np.abs(update) <= 0.5
    near = np.abs(integers[inside] - update[inside] * 2 * levels)
    assert (near <= (0.5 if rounding is Rounding.NEAREST else 1)).all()
    assert (integers[np.isnan(update)] == 0).all()


def test_a_private_update_is_rounded_right_on_average() -> None:
    """Mean of 4,000 draws within 6 standard errors."""
    grid, update = Grid(1.0, 7, 7), np.array([0.1, -0.55, 0.999])
    stream = COINS.stream("public")
    draws = [encode_released(grid, update, Rounding.STOCHASTIC, stream) for _ in range(4000)]
    assert (np.abs(np.mean(draws, axis=0) - update * 7) <= 6 * 0.5 / sqrt(4000)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UpdateEncoding(Grid(1.0, 2**31), Transform(4)), "2\\^30"),
        (lambda: Transform(0), "dimension"),
        (lambda: Transform(4, rotation=Rotation(5, b"")), "rotation"),
        (lambda: Transform(4, random_mask(5, 2, seed=b"")), "mask"),
        (
            lambda: UpdateEncoding(Grid(1.0, 16), Transform(4)).encode(np.ones(5), COINS.stream()),
            "shape",
        ),
        (lambda: Transform(4).undo(np.ones(5)), "shape"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        make()


def test_giving_up_on_coins_is_rarer_than_any_delta() -> None:
    assert exp(-STOCHASTIC_TRIES / 2) < 2.0**-64
