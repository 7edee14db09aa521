"""Records that do not fit memory: the same bits as in memory, and memory that does not grow."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset

from privagg.encoding.grid import Grid
from privagg.errors import DataError
from privagg.privacy.randomness import DeterministicRandomness
from privagg.training import data, reading
from privagg.training.data import (
    ChosenRecords,
    DatasetRecords,
    Records,
    TensorRecords,
    kept_by,
    targets_of,
)
from privagg.training.declared import DatasetSource, ImageSource, TableSource
from privagg.training.dpsgd import DpSgd
from privagg.training.evaluate import evaluate
from privagg.training.features import CategoricalFeature, NumericFeature
from privagg.training.heldout import HeldOut
from privagg.training.images import MappedImages, load_images
from privagg.training.known import record_bytes
from privagg.training.loading import load_records
from privagg.training.models import build_model
from privagg.training.reading import declared, declared_sample
from privagg.training.spooled import SpooledRecords
from privagg.training.table import TableSchema
from privagg.training.targets import Target

COUNT, SHAPE = 300, (1, 5, 4)
SCHEMA = TableSchema(
    features=(
        NumericFeature(name="age", range=(0, 90), missing=40.0, indicator=True),
        CategoricalFeature(name="ward", categories=("a", "b", "7")),
    ),
    target=Target(name="outcome", positive="== 1"),
)


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(data, "CHUNK", 64)
    monkeypatch.setattr(reading, "LARGE_TABLE_BYTES", 1000)
    monkeypatch.setattr(reading, "PART_ROWS", 37)


def write_images(folder: Path, count: int = COUNT) -> tuple[Path, Path]:
    rng = np.random.default_rng(1)
    pixels = rng.uniform(-20, 300, (count, *SHAPE[1:])).astype(np.float32)
    pixels[::11, 0, 0] = np.nan
    np.save(folder / "images.npy", pixels)
    np.save(folder / "labels.npy", rng.integers(0, 4, count))  # 3 is no class: it drops out
    return folder / "images.npy", folder / "labels.npy"


class Items(Dataset[Any]):
    """Every tenth is unusable; how often each was read is counted."""

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.reads += 1
        if index % 10 == 3:
            raise KeyError(index)
        return np.sin(index + np.arange(20.0)).reshape(SHAPE), index % 3


def write_table(folder: Path) -> Path:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "extra": "x",
            "age": pd.array(rng.integers(-5, 99, COUNT), "Int64"),
            "ward": rng.choice(["a", "B", "7", "?"], COUNT),
            "outcome": rng.choice([0.0, 1.0, np.nan], COUNT),
        },
        index=pd.RangeIndex(5, 5 + 2 * COUNT, 2),
    )
    frame.loc[frame.index[::9], "age"] = pd.NA
    frame.to_parquet(folder / "table.parquet", row_group_size=50)
    return folder / "table.parquet"


def images(folder: Path) -> Records:
    facts: dict[str, Any] = {"value_range": (0, 255), "shape": SHAPE, "classes": 3}
    return load_images(*write_images(folder), **facts, public=True)


def items(folder: Path) -> Records:
    return DatasetRecords(Items(), input_shape=SHAPE, classes=3, public=True)


def table(folder: Path) -> Records:
    return load_records(TableSource(SCHEMA), folder, write_table(folder).name, public=True)


SOURCES = {"images": (images, MappedImages), "items": (items, DatasetRecords),
           "table": (table, SpooledRecords)}  # fmt: skip


def whole(records: Records) -> tuple[torch.Tensor, torch.Tensor]:
    return records.gather(np.arange(len(records)))


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_read_when_needed_is_what_would_lie_in_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    make, kind = SOURCES[name]
    held = TensorRecords(*whole(make(tmp_path)), public=True)
    request.getfixturevalue("small_memory")
    lazy = make(tmp_path)
    assert isinstance(lazy, kind)
    assert (len(lazy), lazy.input_shape, lazy.public) == (len(held), held.input_shape, True)
    assert 100 < len(lazy) < COUNT
    order = np.random.default_rng(3).permutation(len(held))[:90]
    for chosen in (order, order[:0], np.array([5, 5, 0])):
        for found, expected in zip(lazy.gather(chosen), held.gather(chosen), strict=True):
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)
    np.testing.assert_array_equal(targets_of(lazy), held.y.numpy())
    rule = HeldOut(share=Decimal("0.3"), key="k")
    left, expected_left = kept_by(rule, lazy, ()), kept_by(rule, held, ())
    assert isinstance(left, ChosenRecords)
    assert 0 < len(left) < len(lazy)
    assert all(map(torch.equal, whole(left), whole(expected_left)))
    sums, figures = [], []
    for records in (lazy, held):
        model = build_model("logistic", held.input_shape, 3)
        trainer = DpSgd(model, records, Grid(1, 2**16), physical_batch=64, engine="exact")
        parameters = np.sin(np.arange(trainer.dimension))
        mask = np.arange(len(records)) % 3 > 0
        sums.append(trainer.gradient_sum(parameters, mask, DeterministicRandomness(1).stream("s")))
        figures.append(evaluate(build_model("logistic", held.input_shape, 3), parameters, records))
    assert sums[0].any()
    np.testing.assert_array_equal(*sums)
    assert figures[0] == figures[1]


@pytest.mark.parametrize("name", SOURCES)
def test_records_are_recognised_whichever_way_they_are_read(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make, _ = SOURCES[name]
    source, file = {
        "images": (ImageSource(SHAPE, (0, 255), 3), "images.npy"),
        "items": (DatasetSource(SHAPE, 3), ""),
        "table": (TableSource(SCHEMA), "table.parquet"),
    }[name]
    before = list(record_bytes(source, tmp_path, file, make(tmp_path)))
    request.getfixturevalue("small_memory")
    assert list(record_bytes(source, tmp_path, file, make(tmp_path))) == before
    assert len(before) > 200


def test_of_a_large_table_evenly_spaced_records_are_looked_at(
    tmp_path: Path, small_memory: None
) -> None:
    source, path = TableSource(SCHEMA), write_table(tmp_path)
    found, step = declared_sample(source, path)
    assert (step, len(found)) == (8, 38)
    every = declared(source, path).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, every.iloc[::8].reset_index(drop=True))


def test_a_file_that_changes_ends_the_round_and_no_record_counts_as_zero(
    tmp_path: Path, small_memory: None
) -> None:
    records = images(tmp_path)
    trainer = DpSgd(build_model("logistic", SHAPE, 3), records, Grid(1, 2**16), engine="exact")
    places = np.arange(trainer.slot_count) % len(records)
    assert trainer.slotted_sum(np.zeros(trainer.dimension), places).any()
    for change in (lambda path: os.truncate(path, 200), Path.unlink):
        change(tmp_path / "images.npy")
        with pytest.raises(DataError, match=r"images\.npy was changed"):
            trainer.slotted_sum(np.zeros(trainer.dimension), places)


def test_an_item_that_fails_when_it_is_read_again_counts_as_zero_alone(
    small_memory: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    records = DatasetRecords(Items(), input_shape=SHAPE, classes=3)
    classes = targets_of(records)
    trainer = DpSgd(
        build_model("logistic", SHAPE, 3), records, Grid(1, 2**16), batches=1, engine="exact"
    )
    places = np.full(trainer.slot_count, -1)
    places[:9] = np.arange(9)
    start = np.zeros(trainer.dimension)
    without = trainer.slotted_sum(start, np.where(places == 4, -1, places))
    usual = Items.__getitem__
    monkeypatch.setattr(Items, "__getitem__", lambda s, i: None if i == 5 else usual(s, i))
    np.testing.assert_array_equal(trainer.slotted_sum(start, places), without)
    assert without.any()
    assert not caplog.records  # nobody looked for it record by record, which takes time
    np.testing.assert_array_equal(targets_of(records), classes)
    assert len(kept_by(HeldOut(share=Decimal("0.2"), key="k"), records)) > len(records) / 2


def test_a_large_data_set_is_looked_at_once_and_then_read_as_needed(small_memory: None) -> None:
    found = Items()
    records = DatasetRecords(found, input_shape=SHAPE, classes=3)
    assert found.reads == COUNT
    records.gather(np.arange(7))
    assert found.reads == COUNT + 7


_PEAK = """
import sys, threading, time
from pathlib import Path
import numpy as np
import pandas as pd
import torch
from privagg.encoding.grid import Grid
from privagg.privacy.randomness import DeterministicRandomness
from privagg.training import data, reading
from tests.training.test_streaming import load_large

data.IN_MEMORY_BYTES = reading.LARGE_TABLE_BYTES = 2**20
kind, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith("RssAnon"))

peak = [0]
def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.001)

threading.Thread(target=watch, daemon=True).start()
load_large(kind, folder, count)
print(max(peak[0], anonymous()))
"""


class Made(Dataset[Any]):
    """As many items as one likes, none of them kept."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((64,), index % 7.0), index % 2


def load_large(kind: str, folder: Path, count: int) -> None:
    """Opens records of one kind and trains a step on them, as a site does."""
    if kind == "images":
        facts: dict[str, Any] = {"value_range": (0, 255), "shape": (1, 16, 16), "classes": 2}
        records: Records = load_images(folder / "x.npy", folder / "y.npy", **facts)
    elif kind == "items":
        records = DatasetRecords(Made(count), input_shape=(64,), classes=2)
    else:
        records = load_records(TableSource(WIDE), folder, "wide.parquet")
    records = kept_by(HeldOut(share=Decimal("0.1"), key="k"), records, ())
    model = build_model("logistic", records.input_shape, 2)
    trainer = DpSgd(model, records, Grid(1, 2**16), physical_batch=64, batches=4, engine="exact")
    mask = np.zeros(len(records), dtype=bool)
    mask[:: len(mask) // 200] = True
    stream = DeterministicRandomness(1).stream("s")
    assert trainer.gradient_sum(np.zeros(trainer.dimension), mask, stream).any()


WIDE = TableSchema(
    features=tuple(NumericFeature(name=f"c{i}", range=(0, 1)) for i in range(24)),
    target=Target(name="y", positive="== 1"),
)


def write_large(kind: str, folder: Path, count: int) -> None:
    if kind == "images":
        pixels = np.lib.format.open_memmap(
            folder / "x.npy", mode="w+", dtype=np.float32, shape=(count, 16, 16)
        )
        pixels[:] = np.arange(256, dtype=np.float32).reshape(16, 16)
        np.save(folder / "y.npy", np.arange(count) % 2)
    elif kind == "table":
        made = np.random.default_rng(1).uniform(0, 1, (count, 24)).astype(np.float32)
        frame = pd.DataFrame(made, columns=[f"c{i}" for i in range(24)])
        frame["y"] = np.arange(count) % 2
        frame.to_parquet(folder / "wide.parquet", row_group_size=20_000)


@pytest.mark.parametrize("kind", ["images", "items", "table"])
def test_few_records_are_looked_at_together(
    kind: str, tmp_path: Path, small_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held at once is bounded by a chunk and a batch, not by how many there are."""
    asked: list[int] = []

    def counting(usual: Any) -> Any:
        def gather(self: Any, indices: np.ndarray) -> Any:
            asked.append(len(indices))
            return usual(self, indices)

        return gather

    for source in (MappedImages, DatasetRecords, SpooledRecords):
        monkeypatch.setattr(source, "gather", counting(source.gather))
    write_large(kind, tmp_path, 2000)
    load_large(kind, tmp_path, 2000)
    assert max(asked) <= 64
    assert sum(asked) > 2 * 1700  # held out or not, and whether the model takes them


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process's memory")
@pytest.mark.parametrize(
    ("kind", "few", "number_bytes"),
    [("images", 20_000, 1024), ("items", 50_000, 256), ("table", 200_000, 96)],
)
def test_memory_does_not_grow_with_the_number_of_records(
    kind: str, few: int, number_bytes: int, tmp_path: Path
) -> None:
    """Three times as many records: a fourth at most of what they would take, for bookkeeping."""
    peaks = []
    for count in (few, 3 * few):
        write_large(kind, tmp_path, count)
        found = subprocess.run(
            [sys.executable, "-c", _PEAK, kind, str(tmp_path), str(count)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        peaks.append(1024 * int(found.stdout))
    more = 2 * few * number_bytes
    assert peaks[1] - peaks[0] < 0.25 * more, [peak / 2**20 for peak in peaks]
