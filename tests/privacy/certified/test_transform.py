"""The moment transform's balls against integration in higher precision on the real axis."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import pytest
from flint import acb, arb

from privagg.errors import CertificationError
from privagg.privacy.certified import Mechanism
from privagg.privacy.certified.balls import (
    ball,
    error_square,
    lower_end,
    upper_end,
    working_precision,
)
from privagg.privacy.certified.mechanism import Direction
from privagg.privacy.certified.transform import (
    Line,
    TrapezoidGrid,
    _power_sums,
    gaussian_transform,
    subsampled_transform,
    sup_beyond,
)
from privagg.privacy.certified.window import Window

from . import reference

# rate, noise, order, spacing, direction, grid
CASES = [
    ("0.01", "1", 5.0, 3.0, Direction.REMOVE, TrapezoidGrid(-11.0, 0.25, 95, 1.5)),
    ("0.3", "4", 30.0, 8.0, Direction.REMOVE, TrapezoidGrid(-11.0, 0.3, 100, 4.0)),
    ("0.3", "4", 30.0, 8.0, Direction.ADD, TrapezoidGrid(-14.0, 0.25, 100, 2.0)),
    ("0.01", "1", 40.0, 9.0, Direction.ADD, TrapezoidGrid(-12.0, 0.04, 620, 0.4, 2.0)),
]


def holds(value: acb, expected: object) -> bool:
    """Whether a complex ball and an mpmath number (good to 20 digits) can be the same."""
    slack = Fraction(1, 10**18)
    for part, wanted in ((value.real, mpmath.re(expected)), (value.imag, mpmath.im(expected))):
        exact = Fraction(mpmath.nstr(wanted, 22, strip_zeros=False))
        low, high = lower_end(part), upper_end(part)
        if not low - slack <= exact <= high + slack:
            return False
    return True


@pytest.mark.parametrize(("rate", "noise", "order", "spacing", "direction", "grid"), CASES)
def test_transform_encloses_the_integral(
    rate: str, noise: str, order: float, spacing: float, direction: Direction, grid: TrapezoidGrid
) -> None:
    mechanism = Mechanism(Fraction(rate), Fraction(noise))
    with working_precision(128):
        line = Line(ball(order), ball(spacing), 2)
        result = subsampled_transform(mechanism, direction, Window(), line, grid)
        for k, value in enumerate(result.values):
            point = mpmath.mpc(order, k * spacing)
            add = direction is Direction.ADD
            expected = reference.transform(Fraction(rate), Fraction(noise), point, add=add)
            assert holds(value, expected)
            assert float(value.real.rad()) < 1e-6 * float(result.at_order)
        assert upper_end(result.at_order) >= lower_end(result.values[0].real)


@pytest.mark.parametrize(
    "window",
    [Window(high=6.0, blur=0.7), Window(low=1.0, high=6.0, blur=0.5), Window(low=2.0, blur=0.8)],
)
def test_windowed_transform_encloses_the_integral(window: Window) -> None:
    rate, noise = Fraction("0.02"), Fraction(2)
    with working_precision(128):
        line = Line(ball(6.0), ball(2.5), 1)
        grid = TrapezoidGrid(-11.0, 0.12, 220, 1.2)
        result = subsampled_transform(Mechanism(rate, noise), Direction.REMOVE, window, line, grid)
        cut = reference.window(window.low, window.high, window.blur)
        for k, value in enumerate(result.values):
            point = mpmath.mpc(6, 2.5 * k)
            assert holds(value, reference.transform(rate, noise, point, add=False, window=cut))


@pytest.mark.parametrize(
    ("rate", "grid", "order"),
    # The second order is so high that the bound by the rate is the better one.
    [
        ("0.02", TrapezoidGrid(-11.0, 0.12, 220, 1.2), 6.0),
        ("1e-3", TrapezoidGrid(-11.0, 0.12, 220, 1.2), 900.0),
    ],
)
@pytest.mark.parametrize(
    "window", [Window(), Window(high=2.0, blur=0.7), Window(low=2.0, blur=0.7)]
)
def test_windows_of_the_add_direction(
    rate: str, grid: TrapezoidGrid, order: float, window: Window
) -> None:
    mechanism = Mechanism(Fraction(rate), Fraction(2))
    cut = None if window.is_open else reference.window(window.low, window.high, window.blur)
    with working_precision(128):
        line = Line(ball(order), ball(order / 4), 1)
        result = subsampled_transform(mechanism, Direction.ADD, window, line, grid)
        for k, value in enumerate(result.values):
            point = mpmath.mpc(order, order / 4 * k)
            expected = reference.transform(Fraction(rate), Fraction(2), point, add=True, window=cut)
            assert holds(value, expected)
            assert float(value.real.rad()) < 1e-6 * float(result.at_order)


def test_gaussian_transform_is_the_limit_without_subsampling() -> None:
    with working_precision(128):
        values = gaussian_transform(Mechanism(1, 2), Line(ball(3.0), ball(1.5), 2)).values
        for k, value in enumerate(values):
            point = mpmath.mpc(3, 1.5 * k)
            assert holds(value, reference.transform(Fraction(1), Fraction(2), point, add=False))


@pytest.mark.parametrize(
    ("direction", "window"),
    [
        (Direction.REMOVE, Window()),
        (Direction.REMOVE, Window(high=7.0, blur=1.0)),
        (Direction.ADD, Window()),
        (Direction.ADD, Window(low=1.5, blur=0.8)),
    ],
)
def test_sup_beyond_bounds_the_transform(direction: Direction, window: Window) -> None:
    rate, noise, order = Fraction("0.05"), Fraction(2), 6.0
    grid = TrapezoidGrid(-11.0, 0.12, 200, 1.1)
    cut = None if window.is_open else (window.low, window.high, window.blur)
    with working_precision(128):
        bounds = []
        for cutoff in (5.0, 20.0, 80.0):
            mechanism = Mechanism(rate, noise)
            line = Line(ball(order), ball(1.0), 0)
            at_order = subsampled_transform(mechanism, direction, window, line, grid).at_order
            bound = sup_beyond(
                mechanism, direction, window, line.order, ball(cutoff), grid, at_order
            )
            bounds.append(float(bound))
            for theta in (cutoff, 1.3 * cutoff, 2.5 * cutoff):
                value = reference.transform_float(
                    rate, noise, complex(order, theta), add=direction is Direction.ADD, window=cut
                )
                assert abs(value) <= float(bound) * (1 + 1e-9)
    assert bounds[0] >= bounds[1] > bounds[2]


@pytest.mark.parametrize(
    "grid",
    [
        TrapezoidGrid(-11.0, 0.25, 95, 3.2),  # beyond the strip where log V is analytic
        TrapezoidGrid(-11.0, 4.0, 8, 1.5),  # so coarse that the error exceeds the value
        TrapezoidGrid(1.0, 0.25, 95, 1.5),  # the left tail is not a tail
        TrapezoidGrid(-11.0, 0.25, 0, 1.5),  # no node
        TrapezoidGrid(-11.0, 0.25, 95, 0.0),  # on the real axis nothing bounds the aliases
    ],
)
def test_grids_that_prove_nothing_are_refused(grid: TrapezoidGrid) -> None:
    with working_precision(128), pytest.raises(CertificationError):
        line = Line(ball(5.0), ball(3.0), 2)
        subsampled_transform(Mechanism("0.01", 1), Direction.REMOVE, Window(), line, grid)


def test_power_sums_are_the_plain_sums() -> None:
    with working_precision(128):
        weights = [acb("0.3"), acb("0.5", "0.1"), acb("0.2")]
        exponents = [acb("-0.01", "1.3"), acb("-0.2", "0.4"), acb(0, "-2.1")]
        values = _power_sums(weights, exponents, 37)
        assert len(values) == 38
        for k in (0, 1, 6, 7, 36, 37):
            terms = [w * (k * x).exp() for w, x in zip(weights, exponents, strict=True)]
            plain = sum(terms, acb(0))
            assert values[k].overlaps(plain)
            assert float((values[k] - plain).abs_upper()) < 1e-30


def test_error_square_holds_its_disc() -> None:
    with working_precision(64):
        radius = arb(1) / 3
        square = error_square(radius)
        for angle in range(8):
            assert square.contains(acb(0, math.pi * angle / 4).exp() * 0.33)
        assert upper_end(square.real) >= Fraction(1, 3)
