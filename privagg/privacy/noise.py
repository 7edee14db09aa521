"""Integer noise that keeps the Gaussian mechanism's guarantee, and its distance from the ideal.

For an integer x and R = round(N), N ~ N(0, sigma^2), x + R = round(x + N): releasing x + R is a
post-processing of the Gaussian mechanism, and its accounting applies as it stands. Sums of
independent shares behave the same but for a provable speck, and noise too wide for one table is
put together in a positional system, R_0 + b R_1 + b^2 R_2 ..., again but for a speck. The specks,
the rounding of the table and its cut tail add up to a total-variation distance that a plan puts
into its event; an accountant folds it in as delta(eps) + (1 + e^eps) * distance.

Source: derived in `proofs/integer-noise.md`. Related: Kairouz, Liu & Steinke 2021 (discrete
Gaussian and its sums), Agarwal, Kairouz & Liu 2021 (Skellam); the rounded Gaussian needs neither's
own accounting.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property, lru_cache
from math import ceil, isqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from privagg.errors import NoiseError
from privagg.privacy.noise_bounds import (
    decimal_above,
    join_distance,
    sum_distance,
    table_distance,
)
from privagg.privacy.noise_table import gaussian_table, table_bound
from privagg.privacy.randomness import ByteStream

SMALLEST_STDDEV_GRID = 16
"""Least standard deviation of a share in grid units; below it the aliases are not negligible."""

LARGEST_STDDEV_GRID = 2**40
"""Greatest standard deviation, so that every value fits 64 bits with room for sums."""

LARGEST_TABLE_STDDEV = 1024
"""Wider noise is composed of tables: a wider table would outgrow the processor's caches."""

_BLOCK = 1 << 15
_BASE_DENOMINATOR = 2**32

Exact = Fraction | Decimal | int
"""A number that is exactly what it says; a binary float is not accepted."""


class IntegerNoise(Protocol):
    """One share of symmetric integer noise, whatever its law."""

    @property
    def stddev_grid(self) -> Fraction:
        """Standard deviation of a share in grid units."""

    @property
    def bound(self) -> int:
        """Largest magnitude that `sample` can return, in grid units."""

    def sample(self, stream: ByteStream, size: int) -> NDArray[np.int64]:
        """Draw `size` independent values.

        Args:
            stream: secret randomness.
            size: number of values, at least 0.

        Returns:
            Grid units, shape (size,), int64.
        """


@dataclass(frozen=True)
class Composition:
    """Noise as R_0 + b R_1 + ... + b^(levels-1) R_(levels-1), all R_i from one table.

    Args:
        base_stddev: standard deviation of every R_i in grid units.
        radix: b; 1 where there is a single level.
        levels: number of R_i.
    """

    base_stddev: Fraction
    radix: int
    levels: int

    @property
    def variance(self) -> Fraction:
        """Variance of the Gaussian that the composition stands for, in grid units squared."""
        return self.base_stddev**2 * _geometric(self.radix**2, self.levels)

    @property
    def reach(self) -> Fraction:
        """How far rounding and the independent noise can move it: (1 + b + b^2 + ...) / 2."""
        return Fraction(_geometric(self.radix, self.levels), 2)

    @property
    def bound(self) -> int:
        """Largest magnitude it can return, in grid units."""
        return table_bound(self.base_stddev) * _geometric(self.radix, self.levels)


@lru_cache(maxsize=256)
def compose(stddev_grid: Fraction) -> Composition:
    """The fewest levels that stand for a Gaussian of at least this standard deviation.

    Guarantees variance >= stddev_grid^2 (above it by a relative 2^-38 at most) and, with more than
    one level, base_stddev >= 4 * radix, which the proof needs.
    """
    if stddev_grid <= LARGEST_TABLE_STDDEV:
        return Composition(stddev_grid, radix=1, levels=1)
    levels = 2
    while (composition := _with_levels(stddev_grid, levels)) is None:
        levels += 1
    return composition


def _with_levels(stddev_grid: Fraction, levels: int) -> Composition | None:
    """The composition of so many levels with the smallest radix that suffices, if there is one."""
    for radix in range(2, LARGEST_TABLE_STDDEV // 4 + 1):
        weight = _geometric(radix**2, levels)
        if weight * LARGEST_TABLE_STDDEV**2 < stddev_grid**2:
            continue
        # Rounding the root up, never down, keeps the variance at or above the one asked for.
        square = stddev_grid**2 * _BASE_DENOMINATOR**2 / weight
        base_stddev = Fraction(isqrt(ceil(square)) + 1, _BASE_DENOMINATOR)
        return Composition(base_stddev, radix, levels) if base_stddev >= 4 * radix else None
    return None


def _geometric(ratio: int, terms: int) -> int:
    """1 + ratio + ratio^2 + ..., so many terms."""
    return sum(int(ratio**i) for i in range(terms))


@dataclass(frozen=True)
class IntegerGaussian:
    """One share of noise: R = round(N(0, stddev^2) + independent noise), stddev >= stddev_grid.

    Up to `stddev_grid` 1024 there is no independent noise: R is the rounded Gaussian itself.
    Adding R to an integer is a randomised post-processing of adding the Gaussian, up to `distance`.

    Args:
        stddev_grid: standard deviation in grid units, exact, from 16 to 2^40.

    Raises:
        NoiseError: the standard deviation is outside the range in which the guarantee is proved,
            or a binary float.
    """

    stddev_grid: Fraction

    def __init__(self, stddev_grid: Exact) -> None:
        object.__setattr__(self, "stddev_grid", _checked(stddev_grid))

    @cached_property
    def composition(self) -> Composition:
        """How the noise is put together."""
        return compose(self.stddev_grid)

    @property
    def bound(self) -> int:
        """Largest magnitude that `sample` can return, in grid units."""
        return self.composition.bound

    def sum_tail(self, shares: int, draws: int) -> int:
        """What the noise of no sum passes in magnitude, in any of many draws, but for 2^-64.

        Never more than every share at its `bound`; the argument is in `proofs/capacity.md`.

        Args:
            shares: in a sum, at most.
            draws: coordinates of all sums together.
        """
        _at_least_one(shares=shares, draws=draws)
        parts, worst = self.composition, shares * self.bound
        if draws * shares * _sample_distance(parts) > Fraction(1, 2**65):
            return worst
        bits = (2 * draws).bit_length() + 65  # 2 draws exp(-x^2 / 2) <= 2^-65
        square = Fraction(2 * bits * 693_148, 10**6) * shares * parts.variance  # ln 2 < 0.693148
        return min(worst, isqrt(ceil(square)) + 1 + ceil(shares * parts.reach))

    @cached_property
    def distance(self) -> Decimal:
        """Upper bound of one sample's total-variation distance from the ideal, below 2^-100."""
        return decimal_above(_sample_distance(self.composition))

    def sample(self, stream: ByteStream, size: int) -> NDArray[np.int64]:
        """Draw `size` independent values.

        Args:
            stream: secret randomness; about 8 bytes a value and level are used.
            size: number of values, at least 0.

        Returns:
            Grid units, shape (size,), int64, at most `bound` in magnitude. The time taken depends
            on the values (see `privagg.privacy.noise_table`).
        """
        parts = self.composition
        table = gaussian_table(parts.base_stddev)
        noise = np.empty(size, dtype=np.int64)
        for start in range(0, size, _BLOCK):
            block = noise[start : start + _BLOCK]
            block[:] = table.lookup(stream.uint64(len(block)), stream)
            for _ in range(parts.levels - 1):  # Horner's rule, the highest digit first
                block *= parts.radix
                block += table.lookup(stream.uint64(len(block)), stream)
        return noise


def total_distance(*, stddev_grid: Exact, dimension: int, shares: int, rounds: int = 1) -> Decimal:
    """Everything a plan folds into delta for the integer noise of its rounds.

    The noise that the released sums of `rounds` rounds carry is, jointly and whatever the earlier
    rounds showed, within this total-variation distance of a post-processing of Gaussian mechanisms
    with variance shares * stddev_grid^2 a round. It grows with every argument but the first, so
    the largest number of shares that any round may see bounds them all.

    Args:
        stddev_grid: standard deviation of each share in grid units.
        dimension: coordinates of a contribution.
        shares: shares that the guarantee counts on, at most.
        rounds: rounds released.

    Returns:
        rounds * dimension * (shares * distance of a sample + aliases of the sum), rounded up.

    Raises:
        NoiseError: the standard deviation is out of range, or a count is below 1.
    """
    _at_least_one(dimension=dimension, shares=shares, rounds=rounds)
    parts = compose(_checked(stddev_grid))
    coordinate = shares * _sample_distance(parts) + _sum_distance(parts, shares)
    return decimal_above(rounds * dimension * coordinate)


@lru_cache(maxsize=256)
def _sample_distance(parts: Composition) -> Fraction:
    """Distance of one composed sample: its tables, and the joins between them."""
    distance = parts.levels * table_distance(parts.base_stddev)
    if parts.levels > 1:
        base_variance = parts.base_stddev**2
        distance += (parts.levels - 1) * join_distance(
            low=base_variance,
            high=base_variance,
            radix=parts.radix,
            variance=parts.variance,
            reach=parts.reach,
        )
    return distance


@lru_cache(maxsize=1024)
def _sum_distance(parts: Composition, shares: int) -> Fraction:
    """Distance between a sum of ideal shares of this composition and one rounded Gaussian."""
    return sum_distance(variance=parts.variance, reach=parts.reach, shares=shares)


def _checked(stddev_grid: Exact) -> Fraction:
    """The standard deviation as a fraction within the proved range."""
    if isinstance(stddev_grid, bool) or not isinstance(stddev_grid, Fraction | Decimal | int):
        raise NoiseError(
            f"stddev_grid must be an int, Decimal or Fraction, got {stddev_grid!r}; "
            "a binary float is not the number that was written"
        )
    if isinstance(stddev_grid, Decimal) and not stddev_grid.is_finite():
        raise NoiseError(f"stddev_grid must be finite, got {stddev_grid}")
    stddev = Fraction(stddev_grid)
    if stddev < SMALLEST_STDDEV_GRID:
        raise NoiseError(
            f"stddev_grid is {float(stddev):.6g} grid units a share; below {SMALLEST_STDDEV_GRID} "
            "its sums are not proved to be Gaussian; use a finer grid or fewer shares"
        )
    if stddev > LARGEST_STDDEV_GRID:
        raise NoiseError(
            f"stddev_grid is {Decimal(int(stddev)):.6g} grid units a share, above 2^40; use a "
            "coarser grid"
        )
    return stddev


def _at_least_one(**counts: int) -> None:
    """Refuse counts below 1 by name."""
    for name, count in counts.items():
        if count < 1:
            raise NoiseError(f"{name} must be at least 1, got {count}")
