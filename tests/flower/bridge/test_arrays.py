"""Models as vectors and settings as JSON: exact both ways, and nothing believed about sizes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import DataError, EncodingError, MessageError
from privagg.flower.bridge.arrays import ArrayLayout, TrainRequest

SCALARS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
LISTS = st.lists(st.floats(allow_nan=False), max_size=4) | st.lists(st.binary(), max_size=4)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def record(shapes: dict[str, tuple[int, ...]], dtype: str = "float32") -> ArrayRecord:
    rng = np.random.default_rng(1)
    return ArrayRecord({n: Array(np.asarray(rng.normal(size=s), dtype)) for n, s in shapes.items()})


def request(arrays: ArrayRecord) -> TrainRequest:
    return TrainRequest.of(RecordDict({"arrays": arrays, "config": ConfigRecord({"lr": 0.1})}))


@settings(max_examples=50, deadline=None)
@given(
    shapes=st.dictionaries(st.text(min_size=1), SHAPES, min_size=1, max_size=4),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    config=st.dictionaries(st.text(), SCALARS | LISTS, max_size=5),
)
def test_what_a_strategy_sends_arrives_as_it_was(
    shapes: dict[str, tuple[int, ...]], dtype: str, config: dict[str, Any]
) -> None:
    arrays = record(shapes, dtype)
    sent = RecordDict({"model": arrays, "config": ConfigRecord(config)})
    made = TrainRequest.of(sent)
    vector = made.layout.vector(arrays)
    assert vector.dtype == np.float64
    facts = json.loads(json.dumps(made.settings()))
    read = TrainRequest.read(facts, dimension=len(vector))
    assert read == made
    assert read.content(vector) == sent


@settings(max_examples=50, deadline=None)
@given(
    types=st.lists(st.sampled_from(["float16", "float32", "float64"]), min_size=1, max_size=4),
    values=st.lists(st.floats(width=64), min_size=12, max_size=12),
)
def test_rounding_is_what_writing_and_reading_the_arrays_does(
    types: list[str], values: list[float]
) -> None:
    layout = ArrayLayout(tuple((f"w{i}", dtype, (3,)) for i, dtype in enumerate(types)))
    vector = np.array(values[: 3 * len(types)])
    assert layout.rounded(vector).tobytes() == layout.vector(layout.arrays(vector)).tobytes()
    with pytest.raises(EncodingError):
        layout.rounded(vector[1:])


def test_an_update_is_what_the_app_changed_whatever_else_it_answers() -> None:
    arrays = record({"b": (2, 2), "a": (3,)})
    made = request(arrays)
    start = made.layout.vector(arrays)
    moved = {n: Array(arrays[n].numpy().astype(np.float64) + 0.5) for n in ("a", "b")}
    answer = RecordDict({"other": ArrayRecord(moved), "m": MetricRecord({"age": 54.4})})
    assert np.array_equal(made.update(start, answer), np.full(7, 0.5))


def test_what_the_model_lost_in_its_type_is_no_update() -> None:
    arrays = record({"a": (3,)})
    made = request(arrays)
    unrounded = made.layout.vector(arrays) + 1e-12
    assert not made.update(unrounded, RecordDict({"arrays": arrays})).any()


@pytest.mark.parametrize(
    "answer",
    [
        RecordDict({}),
        RecordDict({"a": record({"w": (2,)}), "b": record({"w": (2,)})}),
        RecordDict({"a": record({"w": (3,)})}),
        RecordDict({"a": record({"v": (2,)})}),
        RecordDict({"a": ArrayRecord({"w": Array(np.array([1, 2]))})}),
        RecordDict({"a": ArrayRecord({"w": Array("float32", (2,), "numpy.ndarray", b"none")})}),
        RecordDict({"a": ArrayRecord({"w": Array("float32", (2,), "torch", b"")})}),
    ],
)
def test_an_answer_without_the_model_stays_with_the_client(answer: RecordDict) -> None:
    made = request(record({"w": (2,)}))
    with pytest.raises(DataError) as caught:
        made.update(np.zeros(2), answer)
    assert not caught.value.public


def test_counters_cannot_be_averaged() -> None:
    with pytest.raises(EncodingError, match="GroupNorm"):
        ArrayLayout.of(ArrayRecord({"num_batches_tracked": Array(np.array(3))}))


def test_only_one_model_and_settings_make_a_request() -> None:
    model = record({"w": (2,)})
    for extra in ({"more": model}, {"figures": MetricRecord({"n": 1})}):
        with pytest.raises(EncodingError, match="one model"):
            TrainRequest.of(RecordDict({"arrays": model, **extra}))


@pytest.mark.parametrize(
    "change",
    [
        {"layout": [["w", "float32", [3]]]},
        {"layout": [["w", "float32", [1]], ["w", "float32", [1]]]},
        {"layout": [["w", "int64", [2]]]},
        {"layout": [["w", "float32", [-1, -2]]]},
        {"layout": [["w", "float32", [2**39] * 40]]},
        {"layout": "w"},
        {"configs": {"c": {"x": {"pickle": "00"}}}},
        {"configs": {"c": {"x": {"float": "0x1", "bytes": ""}}}},
        {"configs": {"c": {"x": None}}},
        {"arrays": 3},
        {"surplus": 1},
    ],
)
def test_settings_that_lie_are_refused(change: dict[str, Any]) -> None:
    facts = {"arrays": "arrays", "layout": [["w", "float32", [2]]], "configs": {}}
    assert TrainRequest.read(facts, dimension=2).layout.dimension == 2
    with pytest.raises(MessageError):
        TrainRequest.read({**facts, **change}, dimension=2)
