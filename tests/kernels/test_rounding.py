"""One pass over memory against torch's several, and against Python's integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from privagg.kernels import rounding
from privagg.training import dense
from privagg.training.ghost import integers

pytestmark = pytest.mark.skipif(not integers.is_compiled(), reason="numba is not installed")

WILD = (0.0, -0.0, 1e-45, 1e-38, 0.5, 1.5, 2.0**40, 2.0**40 + 2.0**17, 3e38, math.inf, math.nan)


def drawn(count: int, *shape: int) -> np.ndarray:
    """Ordinary, very small, very large and hostile records, float32."""
    rng = np.random.default_rng(count)
    sizes = 10.0 ** rng.uniform(-30, 30, (count, *(1,) * len(shape)))
    sizes[: count // 2] = 10.0 ** rng.uniform(-2, 2)
    values = (rng.standard_normal((count, *shape)) * sizes).astype(np.float32)
    for place, value in enumerate(WILD):
        values[3 * place].flat[place % values[0].size] = value
        values[3 * place + 1] = value
    return values


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(1, 784), (5, 7), (1, 1)])
def test_integers_are_those_of_torch_and_squares_those_of_python(
    shape: tuple[int, ...], threads: int
) -> None:
    values = drawn(400, *shape)
    scale = 10.0 ** np.random.default_rng(1).uniform(-3, 3, 400)
    found = np.empty_like(values)
    told = rounding.rounded(values, scale, found, threads)
    expected = integers.scaled(torch.from_numpy(values), torch.from_numpy(scale)).round_()
    assert np.array_equal(found, expected.numpy(), equal_nan=True)
    known = 0
    for row, square in zip(found.reshape(400, -1), told.squares.tolist(), strict=True):
        if not np.isfinite(row).all():
            assert not math.isfinite(square)
            continue
        true = sum(int(v) ** 2 for v in row.tolist())
        assert square == true or (square >= integers.EXACT64 and true >= integers.EXACT64)
        known += 0 < true < integers.EXACT64
    assert known > 50
    ordinary = values[100:140]
    part = rounding.rounded(ordinary, scale[100:140], np.empty_like(ordinary), threads)
    columns = integers.scaled(torch.from_numpy(ordinary), torch.from_numpy(scale[100:140])).round_()
    np.testing.assert_allclose(part.columns, columns.double().square().sum((0, 1)), rtol=1e-5)


@pytest.mark.parametrize("given", [True, False])
def test_a_record_is_brought_to_its_norm_whoever_is_beside_it(given: bool) -> None:
    values = drawn(300, 1, 33)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.square(values.astype(np.float64)).sum((1, 2)))
        expected = np.minimum(181.0 / np.where(norms == 0, 1e-300, norms), 2.0**64)
    found = np.empty_like(values)
    scale, told = rounding.normalised(values, norms if given else None, 181.0, 2.0**64, found)
    usual = np.isfinite(norms)
    np.testing.assert_allclose(scale[usual], expected[usual].astype(np.float32), rtol=2e-7)
    assert not np.isfinite(told.squares[~usual]).any()
    by_scale = np.empty_like(values)
    rounding.rounded(values, scale, by_scale)
    assert np.array_equal(found, by_scale, equal_nan=True)
    for order in (np.arange(300)[::-1], np.arange(7, 90)):
        again = np.empty_like(values[order])
        some = rounding.normalised(
            values[order], norms[order] if given else None, 181.0, 2.0**64, again, 2
        )
        assert np.array_equal(again, found[order], equal_nan=True)
        assert np.array_equal(some[1].squares, told.squares[order], equal_nan=True)


@pytest.mark.parametrize("bits", [20, 21])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_blocks_are_those_of_torch_bit_for_bit(bits: int, kind: type) -> None:
    values = torch.from_numpy(drawn(200, 129).astype(kind))
    passed, several = dense.whole(values, bits), dense._whole(values, bits)
    assert 20 < int(passed.usable.sum()) < 200
    for one, other in zip(passed, several, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
