"""The grid never lets a contribution out of its norm, and no record feels its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privagg.encoding.grid import LARGEST_SENSITIVITY_GRID, Grid
from privagg.errors import EncodingError

Array = np.ndarray[Any, Any]

shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
any_rows = st.one_of(
    hnp.arrays(np.float64, shapes, elements=st.floats(width=64)),
    hnp.arrays(np.float32, shapes, elements=st.floats(width=32)),
    hnp.arrays(np.float64, shapes, elements=st.floats(-3, 3)),
)
grids = st.builds(
    Grid,
    clip_norm_l2=st.one_of(
        st.floats(1e-6, 1e6), st.decimals("0.001", "1000", places=3), st.just(1e-100)
    ),
    sensitivity_grid=st.one_of(st.integers(2, 2**31), st.sampled_from([2, 2**16, 2**31])),
    contribution_bound=st.integers(1, 2**62),
)


def exact_square_sums(rows: Array) -> list[int]:
    return [sum(int(z) ** 2 for z in row) for row in rows]


@settings(max_examples=200, deadline=None)
@given(grids, any_rows)
def test_no_row_ever_exceeds_the_sensitivity(grid: Grid, rows: Array) -> None:
    quantised = grid.quantise_records(rows)
    assert quantised.dtype == np.int64
    assert quantised.shape == rows.shape
    assert max(exact_square_sums(quantised)) <= grid.sensitivity_grid**2


@settings(max_examples=60, deadline=None)
@given(grids, any_rows)
def test_each_value_is_the_clipped_one_truncated_towards_zero(grid: Grid, rows: Array) -> None:
    """Against exact rational arithmetic, up to one grid unit and the stated relative error."""
    quantised = grid.quantise_records(rows)
    for row, integers in zip(rows, quantised, strict=True):
        if not np.isfinite(row).all():
            assert not integers.any()
            continue
        exact = [Fraction(float(x)) for x in row]
        norm_squared = sum(x * x for x in exact)
        clip_squared = Fraction(grid.clip_norm_l2) ** 2
        shrink = Fraction(1)
        if norm_squared > clip_squared:
            digits = 2**1500  # a rational square root of so many digits
            ratio = clip_squared / norm_squared
            shrink = Fraction(isqrt(int(ratio * digits * digits)), digits)
        for x, z in zip(exact, integers, strict=True):
            ideal = x * shrink * grid.scale
            assert int(z) * ideal >= 0  # same side of zero
            slack = abs(ideal) * Fraction(1, 2**39)
            assert abs(int(z)) <= abs(ideal) + slack
            assert abs(int(z)) >= abs(ideal) - slack - 1


@settings(max_examples=100, deadline=None)
@given(grids, any_rows, st.data())
def test_a_row_is_quantised_alike_in_every_batch(
    grid: Grid, rows: Array, data: st.DataObject
) -> None:
    whole = grid.quantise_records(rows)
    order = data.draw(st.permutations(range(len(rows))))
    picked = order[: data.draw(st.integers(1, len(rows)))]
    assert np.array_equal(grid.quantise_records(rows[picked]), whole[picked])
    fortran = np.asfortranarray(rows)
    assert np.array_equal(grid.quantise_records(fortran), whole)
    for row, expected in zip(rows, whole, strict=True):
        assert np.array_equal(grid.quantise_update(row), expected)


@pytest.mark.parametrize("dimension", [1, 7, 14, 1000, 131_071, 200_001])
def test_wide_rows_too_are_independent_of_their_batch(dimension: int) -> None:
    generator = np.random.default_rng(dimension)
    rows = generator.normal(size=(5, dimension)).astype(np.float32)
    grid = Grid(0.7, 2**20, 2**40)
    whole = grid.quantise_records(rows)
    strided = np.zeros((5, 2 * dimension), dtype=np.float32)
    strided[:, ::2] = rows
    for batch in (rows[::-1], strided[::-1, ::2]):
        assert np.array_equal(grid.quantise_records(batch)[::-1], whole)
    assert all(np.array_equal(grid.quantise_records(rows[i : i + 1])[0], whole[i]) for i in (0, 4))


@pytest.mark.parametrize(("batch", "dimension"), [(0, 3), (1, 1), (50, 14), (3, 100_001)])
def test_the_sum_is_the_sum_of_the_rows_and_moves_by_one_rows_worth(
    batch: int, dimension: int
) -> None:
    rows = np.random.default_rng(batch).normal(size=(batch, dimension))
    grid = Grid(1.0, 2**12, 2**40)
    total = grid.sum_records(rows)
    assert np.array_equal(total, grid.quantise_records(rows).sum(axis=0))
    if batch:
        without = grid.sum_records(rows[1:])
        assert exact_square_sums((total - without)[np.newaxis])[0] <= grid.sensitivity_grid**2


def test_clipping_in_float32_would_have_exceeded_the_norm() -> None:
    """The check is not idle: rows whose float32 clip overshoots are brought inside."""
    rows = np.random.default_rng(5).normal(size=(200, 64)).astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    clipped = rows * (np.float32(1) / norms)
    assert (np.linalg.norm(clipped.astype(np.float64), axis=1) > 1).any()
    grid = Grid(1.0, 2**31, 2**40)
    assert max(exact_square_sums(grid.quantise_records(clipped))) <= 2**62


def test_a_row_that_floats_take_to_have_norm_c_is_shrunk() -> None:
    """|(S, 1)| is S to the last bit of a float, but S^2 + 1 > S^2."""
    side = 2**31
    row = np.array([float(side), 1.0])
    assert float(np.sqrt(row[0] ** 2 + row[1] ** 2)) == side
    assert Grid(float(side), side).quantise_update(row).tolist() == [side - 1, 0]
    row = np.array([float(side - 1), 65535.0])  # S^2 - 2S + 1 + 65535^2 = S^2 - 131070
    assert Grid(float(side), side).quantise_update(row).tolist() == [side - 1, 65535]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_contributes_zero_and_harms_no_other(bad: float) -> None:
    grid = Grid(1.0, 2**10, 2**20)
    rows = np.full((3, 5), 0.25)
    expected = grid.quantise_records(rows)
    rows[1, 2] = bad
    quantised = grid.quantise_records(rows)
    assert not quantised[1].any()
    assert np.array_equal(quantised[[0, 2]], expected[[0, 2]])
    assert not grid.quantise_update(np.array([1.0, bad])).any()


def test_rows_whose_squares_overflow_are_clipped_not_dropped() -> None:
    grid = Grid(1.0, 1000, 2**20)
    rows = np.array([[3e200, -4e200], [1.7e308, 0], [9.5e153, 9.5e153], [5e-324, 0]])
    integers = grid.quantise_records(rows)
    assert np.abs(integers - [[600, -800], [1000, 0], [707, 707], [0, 0]]).max() <= 1
    assert not integers[3].any()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 2**62),
    hnp.arrays(np.int64, 6, elements=st.integers(-(2**62), 2**62)),
    hnp.arrays(np.int64, 6, elements=st.integers(-(2**62), 2**62)),
)
def test_the_clamp_is_monotone_idempotent_and_moves_nothing_apart(
    bound: int, one: Array, other: Array
) -> None:
    grid = Grid(1.0, 2, bound)
    first, second = grid.clamp(one), grid.clamp(other)
    assert max(abs(int(z)) for z in first) <= bound
    assert np.array_equal(grid.clamp(first), first)
    for a, b, x, y in zip(one, other, first, second, strict=True):
        assert abs(int(x) - int(y)) <= abs(int(a) - int(b))
        assert (int(x) <= int(y)) or (int(a) > int(b))


def test_public_values_are_rounded_to_the_nearest_and_stay_finite() -> None:
    grid = Grid(Decimal("0.5"), 1000, 4000)  # 2,000 grid units in one model unit
    values = np.array([0.00026, -0.00026, 0.1, np.nan, np.inf, -np.inf, 1e300, -7.0])
    assert grid.round_public(values).tolist() == [1, -1, 200, 0, 4000, -4000, 4000, -4000]
    widest = Grid(1.0, 2**31, 2**62)
    assert widest.round_public(np.array([1e300, -np.inf])).tolist() == [2**62, -(2**62)]


@settings(max_examples=60, deadline=None)
@given(grids, st.fractions(Fraction(1, 1000), 1000))
def test_decoding_undoes_the_scale_and_divides(grid: Grid, divisor: Fraction) -> None:
    total = np.array([0, 1, -grid.sensitivity_grid, 2**50], dtype=np.int64)
    for got, z in zip(grid.decode(total, divisor), total, strict=True):
        exact = Fraction(int(z)) / (grid.scale * divisor)
        assert abs(Fraction(float(got)) - exact) <= abs(exact) * Fraction(1, 2**51)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grid(0.0, 16), "clip_norm_l2"),
        (lambda: Grid(float("nan"), 16), "clip_norm_l2"),
        (lambda: Grid(float("inf"), 16), "clip_norm_l2"),
        (lambda: Grid(1.0, 1), "sensitivity_grid"),
        (lambda: Grid(1.0, LARGEST_SENSITIVITY_GRID + 1), "sensitivity_grid"),
        (lambda: Grid(1.0, 16, 0), "contribution_bound"),
        (lambda: Grid(1.0, 16, 2**62 + 1), "contribution_bound"),
        (lambda: Grid(1.0, 16).quantise_records(np.ones((2, 2), dtype=np.int64)), "float32"),
        (lambda: Grid(1.0, 16).quantise_records(np.ones(2)), "shape"),
        (lambda: Grid(1.0, 16).sum_records(np.ones((2, 0))), "shape"),
        (lambda: Grid(1.0, 16).quantise_update(np.ones((2, 2))), "shape"),
        (lambda: Grid(1.0, 16).decode(np.ones(2, dtype=np.int64), 0), "divisor"),
        (lambda: Grid(1.0, 16).decode(np.ones(2, dtype=np.int64), float("nan")), "divisor"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        make()
