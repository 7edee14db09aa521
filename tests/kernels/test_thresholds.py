"""Look-ups count thresholds as plain bisection does, compiled and not."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import pytest

from privagg.kernels.thresholds import WORTH_COMPILING, Thresholds

BORDER = 1 << 47
"""A cell of the guide."""

TABLES = {
    "none": [],
    "one a cell, at borders and beside": [0, BORDER, 2 * BORDER - 1, 3 * BORDER + 1],
    "crowded": [5, BORDER + 7, *range(9 * BORDER, 9 * BORDER + 40), 2**63 - 1],
    "equal": [3 * BORDER, 3 * BORDER, 3 * BORDER, 2**63 - 2, 2**63 - 2],
    "crowded throughout": sorted(int(x) for x in np.random.default_rng(4).integers(0, 2**63, 9000)),
}


@pytest.mark.parametrize("name", TABLES)
def test_both_backends_count_as_bisection_does(name: str) -> None:
    """Around every threshold and cell border, and at random; the places that equal one too."""
    high, random = TABLES[name], np.random.default_rng(5)
    near = {h + step for h in [*high, 0, BORDER, 2**63 - 1] for step in (-1, 0, 1)}
    drawn = (int(x) for x in random.integers(0, 2**63, WORTH_COMPILING))
    upper = [u for u in (*sorted(near), *drawn) if 0 <= u < 2**63]
    signs = random.integers(0, 2, len(upper))
    words = np.array([2 * u + int(s) for u, s in zip(upper, signs, strict=True)], dtype=np.uint64)
    counts = np.array([bisect_left(high, u) for u in upper])
    equal = np.flatnonzero(np.isin(np.array(upper, np.uint64), np.array(high, np.uint64)))
    table = Thresholds(high)
    for backend in ("numba", "numpy", None):
        values, undecided = table.look_up(words, backend)
        assert np.array_equal(values, np.where(signs == 1, -counts, counts))
        assert np.array_equal(undecided, equal)
