"""Rounding rules keep the norm they state, are right on average, and add up across parties."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from math import exp, log, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from privagg.encoding.grid import Grid
from privagg.encoding.quantize import Rounding, UpdateEncoding, grid_for_bits, stochastic_round
from privagg.encoding.transforms import Rotation, random_mask
from privagg.errors import EncodingError
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
    beta=st.sampled_from([Fraction(1, 100), Fraction(3, 5), Fraction(9, 10)]),
    rotated=st.booleans(),
)
def test_the_norm_holds_with_any_coins(
    update: Array, steps: int, rounding: Rounding, word: int, beta: Fraction, rotated: bool
) -> None:
    rotation = Rotation(len(update), b"public") if rotated else None
    encoding = UpdateEncoding(Grid(1.0, steps), len(update), rounding, beta=beta, rotation=rotation)
    encoded = encoding.encode(update, OneWord(word))
    assert encoded.dtype == np.int64
    assert encoded.shape == (encoding.encoded_dimension,)
    total = sum(int(z) ** 2 for z in encoded)
    assert total <= encoding.norm_squared_bound <= encoding.sensitivity_grid**2
    if not np.isfinite(update).all() and not rotated:
        assert not encoded.any()


def test_stated_sensitivities_follow_the_literature() -> None:
    """Kairouz, Liu & Steinke 2021, conditional randomised rounding, with granularity 1."""
    steps, n = 100, 10_000
    grid = Grid(1.0, steps)
    assert UpdateEncoding(grid, n).sensitivity_grid == 100
    assert UpdateEncoding(grid, n, Rounding.NEAREST).sensitivity_grid == 150
    beta = Fraction(exp(-0.5)).limit_denominator(10**9)
    stochastic = UpdateEncoding(grid, n, Rounding.STOCHASTIC, beta=beta)
    expected = sqrt(100**2 + 10_000 / 4 + (100 + 50))
    assert stochastic.sensitivity_grid == int(expected) + 1
    tiny = UpdateEncoding(grid, 1, Rounding.STOCHASTIC, beta=beta)
    assert tiny.sensitivity_grid == 101  # S + sqrt(n), the other branch
    assert UpdateEncoding(Grid(1.0, 5), n, Rounding.NEAREST).sensitivity_grid == 10


@pytest.mark.parametrize("beta", [Fraction(1, 100), Fraction(3, 5)])
def test_draws_beyond_the_bound_are_no_more_frequent_than_beta(beta: Fraction) -> None:
    """2,000 draws; one-sided binomial test, false alarm 1e-6, seed fixed."""
    n, steps = 400, 30
    encoding = UpdateEncoding(Grid(1.0, steps), n, Rounding.STOCHASTIC, beta=beta)
    stream = COINS.stream("beta")
    update = np.full(n, steps / sqrt(n))  # full length, every fraction 1/2: the widest spread
    norms = np.array([int((stochastic_round(update, stream) ** 2).sum()) for _ in range(2000)])
    beyond = int((norms > encoding.norm_squared_bound).sum())
    assert stats.binom.sf(beyond - 1, 2000, float(beta)) > 1e-6


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
    mask = random_mask(37, kept, seed=b"m", round_number=1)
    rotation = Rotation(kept, b"r")
    grid = Grid(10.0, 2**20)
    encoding = UpdateEncoding(grid, 37, rounding, mask=mask, rotation=rotation)
    stream = COINS.stream("sum")
    total = np.sum([encoding.encode(update, stream) for update in updates], axis=0)
    mean = encoding.decode(total, len(updates))
    expected = np.zeros(37)
    expected[mask.indices] = updates.mean(axis=0)[mask.indices] * 37 / kept
    tolerance = 37 / kept * sqrt(encoding.encoded_dimension) / float(grid.scale)
    assert np.linalg.norm(mean - expected) <= tolerance * 1.001


def test_rotation_makes_few_bits_enough() -> None:
    """One spike over 2^14 coordinates in 8 bits: the finer grid costs a fraction of the noise."""
    n = 2**14
    plain = UpdateEncoding(grid_for_bits(1.0, bits=8), n, Rounding.STOCHASTIC)
    rotated = UpdateEncoding(
        grid_for_bits(1.0, bits=8, rotated_dimension=n),
        n,
        Rounding.STOCHASTIC,
        rotation=Rotation(n, b"seed"),
    )
    assert plain.bits <= rotated.bits == 8
    overhead = [e.sensitivity_grid / e.grid.sensitivity_grid for e in (plain, rotated)]
    assert overhead[0] > 1.1 > 1.01 > overhead[1]
    spike = np.zeros(n)
    spike[77] = 0.9
    encoded = rotated.encode(spike, COINS.stream("spike"))
    assert int(np.abs(encoded).max()) <= 127
    error = np.linalg.norm(rotated.decode(encoded) - spike)
    assert error <= sqrt(n) / float(rotated.grid.scale)


def test_the_clamp_after_a_rotation_binds_as_rarely_as_stated() -> None:
    """500 rotations of a spike and of a dense vector at p = 1 in 100: false alarm 1e-6."""
    n, p = 256, Decimal("0.01")
    grid = grid_for_bits(1.0, bits=12, rotated_dimension=n, clamp_probability=p)
    for update in (np.eye(1, n)[0], np.full(n, 1 / 16)):
        clamped = 0
        for seed in range(500):
            scaled = Rotation(n, seed.to_bytes(4, "big")).apply(update) * float(grid.scale)
            clamped += bool(np.abs(scaled).max() > grid.contribution_bound)
        assert stats.binom.sf(clamped - 1, 500, float(p)) > 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UpdateEncoding(Grid(1.0, 2**31), 4), "2\\^30"),
        (lambda: UpdateEncoding(Grid(1.0, 16), 4, beta=Fraction(0)), "beta"),
        (lambda: UpdateEncoding(Grid(1.0, 16), 4, beta=Fraction(1)), "beta"),
        (lambda: UpdateEncoding(Grid(1.0, 16), 0), "dimension"),
        (lambda: UpdateEncoding(Grid(1.0, 16), 4, rotation=Rotation(5, b"")), "rotation"),
        (
            lambda: UpdateEncoding(
                Grid(1.0, 16), 4, mask=random_mask(5, 2, seed=b"", round_number=0)
            ),
            "mask",
        ),
        (lambda: grid_for_bits(1.0, bits=1), "bits"),
        (lambda: grid_for_bits(1.0, bits=32), "bits"),
        (
            lambda: UpdateEncoding(Grid(1.0, 16), 4).encode(np.ones(5), COINS.stream()),
            "shape",
        ),
        (
            lambda: UpdateEncoding(Grid(1.0, 16), 4).decode(np.ones(5, dtype=np.int64)),
            "shape",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        make()


def test_giving_up_on_coins_is_rarer_than_any_delta() -> None:
    from privagg.encoding.quantize import _tries

    for beta in (Fraction(1, 1000), Fraction(3, 5), Fraction(9, 10)):
        assert _tries(beta) * log(float(beta)) <= -64 * log(2)
