"""Integer Laplace noise: the shares make exactly the law that is stated, and are drawn from it."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx
from scipy import stats

from privagg.errors import NoiseError
from privagg.privacy.laplace_law import LaplaceLaw
from privagg.privacy.laplace_noise import IntegerLaplace, cumulative_thresholds, laplace_table
from privagg.privacy.noise_table import MAGNITUDE_BITS
from privagg.privacy.randomness import DeterministicRandomness, SystemRandomness

FALSE_ALARM = 1e-6
LAWS = [
    (Fraction(1), Fraction(1, 3)),
    (Fraction(1), Fraction(1)),
    (Fraction(1, 2), Fraction(1, 50)),
    (Fraction(10), Fraction(1, 2)),
    (Fraction(10), Fraction(7, 3)),
    (Fraction(33, 10), Fraction(12)),
]


def floats(law: LaplaceLaw, count: int) -> np.ndarray[Any, Any]:
    with ctx.workprec(192):
        masses, _ = law.masses(count)
    return np.array([float(mass) for mass in masses])


def both_sides(masses: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.concatenate([masses[:0:-1], masses])


@pytest.mark.parametrize(("scale", "shape"), LAWS)
def test_masses_are_those_of_a_difference_of_negative_binomials(
    scale: Fraction, shape: Fraction
) -> None:
    """Against scipy's negative binomial, added up term by term."""
    count = math.ceil(140 * scale)
    ours = floats(LaplaceLaw(scale, shape), count)
    j = np.arange(count + math.ceil(200 * scale))
    single = stats.nbinom.pmf(j, float(shape), -math.expm1(-1 / float(scale)))
    for k in (0, 1, 2, 5, count // 9):
        assert ours[k] == pytest.approx(float(single[: len(j) - k] @ single[k:]), rel=1e-11)


@pytest.mark.parametrize(("scale", "shape"), LAWS)
def test_the_law_has_its_characteristic_function(scale: Fraction, shape: Fraction) -> None:
    ours = floats(LaplaceLaw(scale, shape), math.ceil(140 * scale))
    a, k = math.exp(-1 / float(scale)), np.arange(1, len(ours))
    for theta in (0.0, 0.1, 1.0, math.pi):
        ours_here = ours[0] + 2 * float(np.cos(theta * k) @ ours[1:])
        theirs = ((1 - a) ** 2 / (1 - 2 * a * math.cos(theta) + a * a)) ** float(shape)
        assert ours_here == pytest.approx(theirs, abs=1e-13)


@pytest.mark.parametrize("shares", [2, 3, 7])
def test_shares_make_the_two_sided_geometric_law(shares: int) -> None:
    scale = Fraction(3)
    one = both_sides(floats(LaplaceLaw(scale, Fraction(1, shares)), 250))
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    a, k = math.exp(-1 / 3), np.arange(-200, 201)
    middle = len(total) // 2
    assert total[middle - 200 : middle + 201] == pytest.approx(
        (1 - a) / (1 + a) * a ** np.abs(k), abs=1e-15
    )


@pytest.mark.parametrize(("scale", "shape"), LAWS)
def test_what_is_left_out_and_every_mass_are_enclosed(scale: Fraction, shape: Fraction) -> None:
    """A short list and a long one hold the same numbers, and the short one's rest is bounded."""
    law = LaplaceLaw(scale, shape)
    near, far = math.ceil(20 * scale) + 30, math.ceil(150 * scale) + 30
    with ctx.workprec(160):
        short, beyond = law.masses(near)
    with ctx.workprec(256):
        long, nothing = law.masses(far)
        rest = 2 * sum(long[near + 1 :], arb(0))
        assert all(one.overlaps(other) for one, other in zip(short, long, strict=False))
        assert rest < beyond.upper()
        assert nothing < arb(10) ** -50


def test_below_shape_1_ratios_rise_to_the_decay_and_above_they_fall_to_it() -> None:
    """What the largest loss and the tails rest on."""
    with ctx.workprec(192):
        a = LaplaceLaw(Fraction(5), Fraction(1)).decay
        rising = LaplaceLaw(Fraction(5), Fraction(1, 4)).ratios(80)
        falling = LaplaceLaw(Fraction(5), Fraction(9, 4)).ratios(80)
        assert all(one < two < a for one, two in pairwise(rising))
        assert all(one > two > a for one, two in pairwise(falling))


def test_thresholds_of_a_single_share_are_the_floor_of_their_closed_form() -> None:
    """With one share P(|R| <= m) = 1 - 2 a^(m + 1) / (1 + a)."""
    noise = IntegerLaplace(Fraction(7, 2), 1)
    found = cumulative_thresholds(noise)
    assert len(found) == noise.bound
    with ctx.workprec(400):
        a = (-1 / (arb(7) / 2)).exp()
        for m in (0, 1, 2, 17, 200, noise.bound - 1):
            exact = (1 - 2 * a ** (m + 1) / (1 + a)) * arb(2) ** MAGNITUDE_BITS
            assert found[m] == int(exact.floor().unique_fmpz())


def test_thresholds_do_not_depend_on_the_precision_they_were_found_with() -> None:
    noise = IntegerLaplace(Fraction(2), 5)
    with ctx.workprec(400):
        masses, _ = noise.law.masses(800)
        reached = -masses[0]
        for m, threshold in enumerate(cumulative_thresholds(noise)):
            reached += 2 * masses[m]
            assert threshold == int((reached * arb(2) ** MAGNITUDE_BITS).floor().unique_fmpz())


@pytest.mark.parametrize(("scale", "shares"), [(Fraction(1), 3), (Fraction(1024), 2)])
def test_the_tables_distance_is_within_its_bound(scale: Fraction, shares: int) -> None:
    noise = IntegerLaplace(scale, shares)
    with ctx.workprec(256):
        _, beyond = noise.law.masses(noise.bound)
        assert beyond < arb(2) ** -127
    one = noise.total_distance(dimension=1, shares=1)
    assert Decimal(2) ** -128 < one < Decimal(2) ** -110
    many = noise.total_distance(dimension=10, shares=3, rounds=2)
    assert 60 * one * Decimal("0.999") < many < 60 * one * Decimal("1.001")


def p_value(values: np.ndarray[Any, Any], law: np.ndarray[Any, Any]) -> float:
    """Chi-square of magnitudes against P(|R| = m), rare ones taken together."""
    expected = len(values) * np.append(law[0], 2 * law[1:])
    keep = int(np.argmax(expected < 20))
    observed = np.bincount(np.minimum(np.abs(values), keep), minlength=keep + 1)
    cells = np.append(expected[:keep], len(values) - expected[:keep].sum())
    return float(stats.chisquare(observed, cells).pvalue)


@pytest.mark.parametrize(
    ("scale", "shares"),
    [(Fraction(1, 2), 2), (Fraction(1), 3), (Fraction(10), 1), (Fraction(40), 6)],
)
def test_samples_follow_the_law_of_a_share_and_sums_that_of_the_whole(
    scale: Fraction, shares: int
) -> None:
    noise, source = IntegerLaplace(scale, shares), DeterministicRandomness(b"laplace")
    drawn = [noise.sample(source.stream("share", i), 100_000) for i in range(shares)]
    count = math.ceil(80 * scale)
    assert p_value(drawn[0], floats(noise.law, count)) > FALSE_ALARM
    whole = floats(LaplaceLaw(scale, Fraction(1)), count)
    assert p_value(sum(drawn[1:], drawn[0]), whole) > FALSE_ALARM
    signs = np.sign(drawn[0])
    assert abs(signs.sum()) < 5 * math.sqrt(np.abs(signs).sum())
    assert np.abs(drawn[0]).max() <= noise.bound
    assert drawn[0].std() == pytest.approx(float(noise.stddev_grid), rel=0.05)


def test_a_site_draws_ten_thousand_integers_from_the_systems_generator() -> None:
    noise = IntegerLaplace(Fraction(30), 3)
    drawn = noise.sample(SystemRandomness().stream(), 10_000)
    assert drawn.dtype == np.int64
    assert drawn.shape == (10_000,)
    assert laplace_table(noise) is laplace_table(IntegerLaplace(Fraction(30), 3))


@pytest.mark.parametrize(
    ("scale", "shares"), [(Fraction(1, 33), 1), (Fraction(1025), 1), (Fraction(3), 0)]
)
def test_noise_outside_the_table_is_refused(scale: Fraction, shares: int) -> None:
    with pytest.raises(NoiseError):
        IntegerLaplace(scale, shares)
