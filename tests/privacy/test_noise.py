"""The sampler draws the law it claims, and refuses what is not proved."""

from __future__ import annotations

import math
from bisect import bisect_right
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privagg.errors import NoiseError
from privagg.privacy.noise import IntegerGaussian, compose, total_distance
from privagg.privacy.noise_bounds import sum_distance
from privagg.privacy.noise_table import cumulative_thresholds, gaussian_table
from privagg.privacy.randomness import DeterministicRandomness, SystemRandomness

FALSE_ALARM = 1e-6
"""Of each statistical test here, over seeds; the seeds are fixed, so a pass stays a pass."""

exact_stddevs = st.one_of(
    st.integers(16, 2**40),
    st.decimals("16", "4096", places=3),
    st.fractions(16, 2**40, max_denominator=1024),
)


class Scripted:
    """A stream that hands out given words and refuses to give more."""

    def __init__(self, *words: int) -> None:
        self.words = list(words)

    def bytes(self, n: int) -> bytes:
        return self.uint64(n // 8).astype("<u8").tobytes()

    def uint64(self, n: int) -> np.ndarray[Any, Any]:
        taken, self.words = self.words[:n], self.words[n:]
        assert len(taken) == n, "more randomness was asked for than the draw needs"
        return np.array(taken, dtype=np.uint64)


def look_up(stddev: Fraction, full: int, sign: int) -> int:
    """The table's value for a 127-bit integer and a sign bit, with its low half at hand."""
    upper, lower = full >> 64, full % 2**64
    table = gaussian_table(stddev)
    words = np.array([upper << 1 | sign], dtype=np.uint64)
    return int(table.lookup(words, Scripted(lower))[0])


@pytest.mark.parametrize("stddev", [Fraction(16), Fraction(1000)])
def test_every_threshold_separates_two_values_to_the_last_bit(stddev: Fraction) -> None:
    thresholds = cumulative_thresholds(stddev)
    for m in range(0, len(thresholds), max(1, len(thresholds) // 400)):
        for full in (thresholds[m] - 1, thresholds[m]):
            magnitude = bisect_right(thresholds, full)
            assert look_up(stddev, full, 0) == magnitude
            assert look_up(stddev, full, 1) == -magnitude
        assert (
            bisect_right(thresholds, thresholds[m] - 1)
            <= m
            < bisect_right(thresholds, thresholds[m])
        )


@pytest.mark.parametrize("stddev", [Fraction(16), Fraction(100, 3), Fraction(1024)])
def test_fast_look_ups_agree_with_bisection_of_the_exact_table(stddev: Fraction) -> None:
    """Uniform words, and words crowded into the tail and around cell borders."""
    thresholds = cumulative_thresholds(stddev)
    generator = np.random.default_rng(7)
    uniform = generator.integers(0, 2**63, size=3000, dtype=np.uint64)
    tail = np.uint64(2**63) - (np.float64(2) ** generator.uniform(0, 62, 2000)).astype(np.uint64)
    borders = generator.integers(0, 2**16, size=500, dtype=np.uint64) << np.uint64(47)
    upper = np.concatenate([uniform, tail, borders, borders[1:] - np.uint64(1)])
    stream = DeterministicRandomness(1).stream()
    found = gaussian_table(stddev).lookup(upper << np.uint64(1), stream)
    certain = {t >> 64 for t in thresholds}
    for u, value in zip(upper, found, strict=True):
        if int(u) not in certain:
            assert value == bisect_right(thresholds, int(u) << 64)


def test_the_last_value_is_the_bound_and_the_first_is_zero() -> None:
    noise = IntegerGaussian(16)
    assert noise.bound == 208
    assert noise.sample(Scripted(2**64 - 1, 2**64 - 1), 1).tolist() == [-208]
    assert noise.sample(Scripted(2**64 - 2, 2**64 - 1), 1).tolist() == [208]
    assert noise.sample(Scripted(0), 1).tolist() == [0]


def test_a_composed_draw_is_its_digits_highest_first() -> None:
    noise = IntegerGaussian(5000)
    parts = noise.composition
    assert (parts.radix, parts.levels) == (5, 2)
    high, low = 0x9D2C_5680_1234_5678, 0x1F12_3BB5_8888_0001
    table = gaussian_table(parts.base_stddev)
    digits = table.lookup(np.array([high, low], dtype=np.uint64), Scripted())
    assert noise.sample(Scripted(high, low), 1).tolist() == [int(5 * digits[0] + digits[1])]
    largest = noise.sample(Scripted(2**64 - 2, 2**64 - 1, 2**64 - 2, 2**64 - 1), 1)
    assert largest.tolist() == [noise.bound]


def equal_cells(stddev: float, cells: int) -> np.ndarray[Any, Any]:
    """Integer borders of about equally likely cells of a Gaussian."""
    return np.unique(np.rint(stddev * stats.norm.ppf(np.arange(1, cells) / cells)))


def chi_square(values: np.ndarray[Any, Any], stddev: float, cells: int) -> float:
    """p-value against round(N(0, stddev^2)), by cells that end at an integer and a half."""
    borders = equal_cells(stddev, cells) + 0.5
    observed = np.histogram(values, [-np.inf, *borders, np.inf])[0]
    law = np.diff(stats.norm.cdf([-np.inf, *borders, np.inf], scale=stddev))
    return float(stats.chisquare(observed, len(values) * law).pvalue)


@pytest.mark.parametrize("stddev", [16, Fraction(100, 3), 1000])
def test_samples_follow_the_rounded_gaussian_value_by_value(stddev: Fraction | int) -> None:
    values = IntegerGaussian(stddev).sample(DeterministicRandomness(b"law").stream(), 400_000)
    middle = int(2 * stddev)
    observed = np.histogram(values, [-np.inf, *np.arange(-middle, middle + 1), np.inf])[0]
    edges = np.array([-np.inf, *np.arange(-middle, middle + 1), np.inf]) - 0.5
    law = np.diff(stats.norm.cdf(edges, scale=float(stddev)))
    keep = 400_000 * law > 5
    merged = np.append(observed[keep], observed[~keep].sum())
    expected = 400_000 * np.append(law[keep], law[~keep].sum())
    merged, expected = (merged[:-1], expected[:-1]) if expected[-1] == 0 else (merged, expected)
    assert stats.chisquare(merged, expected).pvalue > FALSE_ALARM


@pytest.mark.parametrize("stddev", [16, 5000, 2**20, 2**33 + 1])
def test_samples_of_every_width_follow_their_gaussian(stddev: int) -> None:
    values = IntegerGaussian(stddev).sample(DeterministicRandomness(b"wide").stream(), 200_000)
    spread = math.hypot(stddev, stddev / 60)  # the independent noise is far below the bins
    assert chi_square(values, stddev, 100) > FALSE_ALARM
    assert abs(values.std() / stddev - 1) < 5 / math.sqrt(2 * 200_000) + (spread / stddev - 1)


@pytest.mark.parametrize("stddev", [5000, 100_000, 2**20])
def test_digits_leave_no_trace_in_composed_noise(stddev: int) -> None:
    """A wide Gaussian is uniform modulo its radix; a join that is too coarse would show here."""
    noise = IntegerGaussian(stddev)
    values = noise.sample(DeterministicRandomness(b"digits").stream(), 200_000)
    for modulus in (noise.composition.radix, noise.composition.radix + 1):
        counts = np.bincount(values % modulus, minlength=modulus)
        assert stats.chisquare(counts).pvalue > FALSE_ALARM


@pytest.mark.parametrize(("stddev", "shares"), [(16, 2), (20, 5), (Fraction(33, 2), 64)])
def test_sums_of_shares_follow_one_rounded_gaussian(stddev: Fraction | int, shares: int) -> None:
    """Against round(N(0, h sigma^2) + U_1 + ...): the uniform parts widen it by (h - 1) / 12."""
    source = DeterministicRandomness(b"shares")
    noise = IntegerGaussian(stddev)
    size = 200_000
    total = sum(noise.sample(source.stream("site", site), size) for site in range(shares))
    variance = shares * float(stddev) ** 2
    widened = math.sqrt(variance + (shares - 1) / 12)
    assert chi_square(np.asarray(total), widened, 60) > FALSE_ALARM
    exact = variance + shares / 12
    deviation = exact * math.sqrt(2 / size)
    assert abs(float(np.var(total)) - exact) < 5 * deviation


def test_neighbouring_values_of_one_stream_are_uncorrelated_and_streams_independent() -> None:
    noise = IntegerGaussian(100)
    source = DeterministicRandomness(b"independence")
    one, other = (noise.sample(source.stream(i), 100_000) for i in range(2))
    limit = stats.norm.isf(FALSE_ALARM / 2) / math.sqrt(100_000)
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < limit
    assert abs(np.corrcoef(one, other)[0, 1]) < limit


def test_blocks_join_without_repeating_and_sizes_are_met() -> None:
    noise = IntegerGaussian(1000)
    source = DeterministicRandomness(3)
    long = noise.sample(source.stream("x"), 100_000)
    assert long.dtype == np.int64
    assert np.array_equal(noise.sample(source.stream("x"), 40_000)[:32_768], long[:32_768])
    assert not np.array_equal(long[:32_768], long[32_768:65_536])
    assert noise.sample(SystemRandomness().stream(), 0).shape == (0,)
    secret = SystemRandomness()
    assert not np.array_equal(noise.sample(secret.stream(), 50), noise.sample(secret.stream(), 50))


@settings(max_examples=100, deadline=None)
@given(exact_stddevs)
def test_a_composition_is_wide_enough_tight_and_meets_the_proofs_condition(
    stddev: Fraction | Decimal | int,
) -> None:
    noise = IntegerGaussian(stddev)
    parts, asked = noise.composition, Fraction(stddev) ** 2
    assert asked <= parts.variance <= asked * (1 + Fraction(1, 2**38))
    assert parts.levels == 1 or parts.base_stddev >= 4 * parts.radix >= 8
    assert Fraction(noise.bound) ** 2 >= 13**2 * asked
    assert noise.bound < 2**46
    assert 0 < noise.distance < Decimal(2) ** -100


@settings(max_examples=30, deadline=None)
@given(exact_stddevs, st.integers(1, 10**7), st.integers(1, 500), st.integers(1, 10**4))
def test_the_total_distance_grows_with_every_count_and_covers_its_parts(
    stddev: Fraction | Decimal | int, dimension: int, shares: int, rounds: int
) -> None:
    def total(**changed: int) -> Decimal:
        counts = {"dimension": dimension, "shares": shares, "rounds": rounds, **changed}
        return total_distance(stddev_grid=stddev, **counts)

    whole = total()
    parts = IntegerGaussian(stddev).composition
    aliases = sum_distance(variance=parts.variance, reach=parts.reach, shares=shares)
    samples = IntegerGaussian(stddev).distance * dimension * shares * rounds
    assert whole * Decimal("1.00001") >= samples
    assert Fraction(whole) >= dimension * aliases
    assert total(dimension=dimension + dimension) > whole
    assert total(shares=2 * shares) > whole
    assert total(rounds=2 * rounds) > whole
    assert rounds * total(rounds=1) * Decimal("1.00001") >= whole


def test_a_large_job_costs_far_less_than_any_delta() -> None:
    """64 sites, ten thousand rounds, 25.6 million parameters: still below 1e-20."""
    job = total_distance(stddev_grid=2**16, dimension=25_600_000, shares=64, rounds=10_000)
    assert job < Decimal("1E-20")


@pytest.mark.parametrize(
    "stddev",
    [
        0,
        15,
        Decimal("15.999"),
        Fraction(-20),
        2**40 + 1,
        Decimal("NaN"),
        Decimal("inf"),
        True,
        20.0,
    ],
)
def test_a_width_outside_the_proof_is_refused(stddev: Any) -> None:
    with pytest.raises(NoiseError, match="stddev_grid"):
        IntegerGaussian(stddev)
    with pytest.raises(NoiseError, match="stddev_grid"):
        total_distance(stddev_grid=stddev, dimension=1, shares=1)


@pytest.mark.parametrize("name", ["dimension", "shares", "rounds"])
def test_a_count_below_one_is_refused(name: str) -> None:
    counts = {"dimension": 1, "shares": 1, "rounds": 1, name: 0}
    with pytest.raises(NoiseError, match=name):
        total_distance(stddev_grid=20, **counts)


def test_equal_widths_are_equal_noise() -> None:
    assert IntegerGaussian(20) == IntegerGaussian(Decimal("20.0")) == IntegerGaussian(Fraction(20))
    assert compose(Fraction(20)).levels == 1


@settings(max_examples=60, deadline=None)
@given(exact_stddevs, st.integers(1, 2000), st.integers(1, 10**9))
def test_a_sums_noise_keeps_to_its_tail_but_for_2_to_the_minus_64(
    stddev: Any, shares: int, draws: int
) -> None:
    """Against scipy's normal tail, what moves a share off its Gaussian taken to the full."""
    noise = IntegerGaussian(stddev)
    tail, parts = noise.sum_tail(shares, draws), noise.composition
    assert tail <= shares * noise.bound
    width = math.sqrt(float(shares * parts.variance))
    beyond = (tail - float(shares * parts.reach)) / width
    if tail < shares * noise.bound:
        chance = draws * 2 * math.exp(stats.norm.logsf(beyond))
        chance += draws * shares * float(noise.distance)
        assert chance < 2.0**-64
    assert tail <= noise.sum_tail(shares + 1, draws) + width
    assert tail <= noise.sum_tail(shares, 2 * draws)


def test_64_shares_keep_to_three_bits_less_than_their_worst_case() -> None:
    noise = IntegerGaussian(100)
    assert 64 * noise.bound == 83_200
    assert noise.sum_tail(64, 10**8) == 9_116
    with pytest.raises(NoiseError, match="shares"):
        noise.sum_tail(0, 1)
