"""64-bit counters against Python's own integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.kernels.counters import CounterSum
from privagg.kernels.running_sum import Fault

counters = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(counters, min_size=5, max_size=5), min_size=1, max_size=6))
def test_sums_are_exact_modulo_2_64(vectors: list[list[int]]) -> None:
    running = CounterSum(5)
    inputs = [np.array(vector, dtype="<i8").tobytes() for vector in vectors]
    assert running.add(inputs) == [None] * len(vectors)
    wanted = [sum(column) % 2**64 for column in zip(*vectors, strict=True)]
    assert np.frombuffer(running.to_bytes(), "<u8").tolist() == wanted


@pytest.mark.parametrize("value", [101, -101, 2**63 - 1, -(2**63)])
def test_values_beyond_the_limit_are_named_and_not_added(value: int) -> None:
    length = 100_000  # several blocks
    running = CounterSum(length, limit=100)
    good = np.full(length, -100, dtype="<i8")
    bad = good.copy()
    bad[70_000] = value
    expected = Fault(70_000, value, 100)
    assert running.add([good.tobytes(), bad.tobytes(), good.tobytes()]) == [None, expected, None]
    assert np.frombuffer(running.to_bytes(), "<i8").tolist() == [-200] * length


def test_limits_grow_with_the_addends_of_a_partial_sum() -> None:
    running = CounterSum(1, limit=100)
    partial = np.array([300], dtype="<i8").tobytes()
    assert running.add([partial], limit_factor=3) == [None]
    assert running.add([partial], limit_factor=2) == [Fault(0, 300, 200)]


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="bytes instead of"):
        CounterSum(2).add([bytes(8)])
    with pytest.raises(ValueError, match="at least one"):
        CounterSum(0)
