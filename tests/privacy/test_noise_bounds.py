"""The proved distances hold against exact laws computed apart, and are not vacuous."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.privacy import noise_table
from privagg.privacy.noise_bounds import (
    decimal_above,
    join_distance,
    sum_distance,
    table_distance,
)
from privagg.privacy.noise_table import (
    MAGNITUDE_BITS,
    TAIL_STDDEVS,
    cumulative_thresholds,
    table_bound,
)
from tests.privacy.gaussians import (
    convolve,
    number,
    rounded_gaussian,
    variation,
    widened_gaussian,
)


@pytest.mark.parametrize("stddev", [Fraction(16), Fraction(100, 3), Fraction(1024)])
def test_thresholds_are_the_floor_of_the_exact_cumulative_law(stddev: Fraction) -> None:
    """Against mpmath in 60 digits, where the distance to the next integer decides the floor."""
    thresholds = cumulative_thresholds(stddev)
    assert len(thresholds) == table_bound(stddev)
    with mp.workdps(60):
        for m in range(0, len(thresholds), max(1, len(thresholds) // 150)):
            exact = mp.erf((2 * m + 1) / (2 * number(stddev) * mp.sqrt(2))) * 2**MAGNITUDE_BITS
            assert thresholds[m] <= exact < thresholds[m] + 1


@pytest.mark.parametrize("bits", [8, 120, 500])
def test_a_floor_that_a_precision_leaves_open_is_decided_by_a_higher_one(
    monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    thresholds = cumulative_thresholds(Fraction(65, 4))
    monkeypatch.setattr(noise_table, "_FIRST_BITS", bits)
    assert cumulative_thresholds(Fraction(65, 4)) == thresholds


@pytest.mark.parametrize("stddev", [Fraction(16), Fraction(65, 4), Fraction(64)])
def test_the_tables_exact_distance_is_within_its_bound(stddev: Fraction) -> None:
    with mp.workdps(80):
        bound = table_bound(stddev)
        reached = [0, *cumulative_thresholds(stddev), 2**MAGNITUDE_BITS]
        table = [mp.mpf(b - a) / 2**MAGNITUDE_BITS for a, b in pairwise(reached)]
        reach = 25 * int(stddev)
        law = rounded_gaussian(stddev**2, reach)[reach:]
        ideal = [law[0], *(2 * p for p in law[1:])]
        table += [mp.mpf(0)] * (reach - bound)
        actual = variation(table, ideal)
        assert actual <= number(table_distance(stddev))
        assert number(table_distance(stddev)) <= 8 * actual


def test_the_tail_constant_is_above_the_tail() -> None:
    with mp.workdps(40):
        tail = mp.erfc(TAIL_STDDEVS / mp.sqrt(2))
        assert tail <= mp.mpf(2) ** -125 <= 3 * tail


@pytest.mark.parametrize(("stddev", "radix"), [(8, 2), (4, 4), (4, 3), (3, 7)])
def test_a_joins_exact_distance_is_within_its_bound(stddev: int, radix: int) -> None:
    """R_0 + b R_1 against round(N + b U) in 130 digits; the exponent is right, not only above."""
    with mp.workdps(130):
        variance = stddev**2 * (1 + radix**2)
        base = rounded_gaussian(stddev**2, 24 * stddev)
        composed = convolve(base, base, radix)
        reach = (len(composed) - 1) // 2
        half = [widened_gaussian(mp.mpf(variance), radix, k) for k in range(reach + 1)]
        actual = variation(composed, [*half[:0:-1], *half])
        proved = join_distance(
            low=Fraction(stddev**2),
            high=Fraction(stddev**2),
            radix=radix,
            variance=Fraction(variance),
            reach=Fraction(1 + radix, 2),
        )
        assert actual <= number(proved) <= actual * mp.mpf(10) ** 5


def test_a_join_too_coarse_for_its_base_is_far_from_gaussian() -> None:
    """Why the radix is at most a quarter of the base: at base 3 and radix 30 it shows."""
    with mp.workdps(30):
        base = rounded_gaussian(9, 40)
        composed = convolve(base, base, 30)
        reach = (len(composed) - 1) // 2
        half = [widened_gaussian(mp.mpf(9 * 901), 30, k) for k in range(reach + 1)]
        assert variation(composed, [*half[:0:-1], *half]) > mp.mpf("0.01")


@pytest.mark.parametrize("variance", [Fraction(1), Fraction(9, 4), Fraction(16)])
def test_two_shares_exact_distance_is_within_its_bound(variance: Fraction) -> None:
    """Against round(N(0, 2 v) + U), at widths where the aliases can be seen."""
    with mp.workdps(100):
        share = rounded_gaussian(variance, int(20 * mp.sqrt(number(variance))) + 2)
        total = convolve(share, share)
        ideal = [widened_gaussian(2 * number(variance), 1, k) for k in range(len(share))]
        actual = variation(total, [*ideal[:0:-1], *ideal])
        proved = sum_distance(variance=variance, reach=Fraction(1, 2), shares=2)
        assert actual <= number(proved) <= actual * mp.mpf(10) ** 5


@pytest.mark.parametrize("variance", [Fraction(1), Fraction(9, 4)])
def test_three_shares_exact_distance_is_within_its_bound(variance: Fraction) -> None:
    """Against round(N(0, 3 v) + U_1 + U_2); the third share makes the aliases smaller still."""
    with mp.workdps(35):
        share = rounded_gaussian(variance, int(13 * mp.sqrt(number(variance))) + 2)
        total = convolve(convolve(share, share), share)

        def ideal(k: int) -> mp.mpf:
            law = [widened_gaussian(3 * number(variance), 1, k + u) for u in nodes]
            return mp.fdot(weights, law)

        nodes, weights = gauss_legendre(24)
        half = [ideal(k) for k in range((len(total) + 1) // 2)]
        actual = variation(total, [*half[:0:-1], *half])
        proved = sum_distance(variance=variance, reach=Fraction(1, 2), shares=3)
        assert mp.mpf(10) ** -30 < actual <= number(proved)


def gauss_legendre(order: int) -> tuple[list[mp.mpf], list[mp.mpf]]:
    """Nodes and weights on [-1/2, 1/2], refined to the working precision."""
    starts, _ = np.polynomial.legendre.leggauss(order)
    nodes = [mp.findroot(lambda x: mp.legendre(order, x), float(x)) for x in starts]
    slopes = [mp.diff(lambda x: mp.legendre(order, x), x) for x in nodes]
    weights = [1 / ((1 - x * x) * s * s) for x, s in zip(nodes, slopes, strict=True)]
    return [x / 2 for x in nodes], weights


def test_the_bound_of_a_sum_at_the_least_width_is_below_ten_to_the_minus_nine_hundred() -> None:
    half = Fraction(1, 2)
    assert sum_distance(variance=Fraction(256), reach=half, shares=1) == 0
    for shares in (2, 1000, 10**9):
        proved = sum_distance(variance=Fraction(256), reach=half, shares=shares)
        assert 0 < proved < Fraction(1, 10**900)


@settings(max_examples=150, deadline=None)
@given(st.fractions(min_value=Fraction(1, 10**40), max_value=10**9))
def test_a_reported_distance_lies_just_above_the_exact_one(value: Fraction) -> None:
    reported = Fraction(decimal_above(value))
    assert value <= reported <= value * (1 + Fraction(1, 10**5))


def test_a_distance_of_nothing_is_nothing_and_a_tiny_one_is_not() -> None:
    assert decimal_above(Fraction(0)) == 0
    assert decimal_above(Fraction(1, 10**2000)) == Decimal("1E-1000")
