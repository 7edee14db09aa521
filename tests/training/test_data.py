"""Reading tables, image sets and torch data sets."""

import gzip
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from privagg.errors import ConfigError, DataError
from privagg.privacy.plan import ClientPlan, DistributedPlan, SiteTerms
from privagg.training.csvfile import MISSING
from privagg.training.data import (
    ChosenRecords,
    DatasetRecords,
    Records,
    TensorRecords,
    in_rows,
    load_table,
    targets_of,
)
from privagg.training.datasets import (
    BREAST_CANCER_SCHEMA,
    BREAST_CANCER_SITES,
    DIGITS_CLASSES,
    DIGITS_CLIENTS,
    DIGITS_SHAPE,
    DIGITS_VALUE_RANGE,
    split_rows,
    write_breast_cancer,
    write_digits,
)
from privagg.training.declared import DatasetSource, ImageSource, TableSource
from privagg.training.features import CategoricalFeature, NumericFeature
from privagg.training.images import load_images
from privagg.training.inspection import check_count, check_items, check_labels
from privagg.training.loading import load_records
from privagg.training.reading import read_frame
from privagg.training.table import TableSchema
from privagg.training.targets import Target

PUBLIC: dict[str, Any] = {
    "clip_norm_l2": Decimal(1),
    "delta": Decimal("1e-5"),
    "scheme": "plaintext",
    "custody": "authority",
}
SCHEMA = TableSchema(
    features=(
        NumericFeature(name="v", range=(0, 10)),
        CategoricalFeature(name="c", categories=("1", "2")),
    ),
    target=Target(name="t", positive=">0"),
)


def test_csv_and_parquet_encode_alike(tmp_path: Path) -> None:
    table = pd.DataFrame({"v": [0.0, None, 10.0], "c": [1, 2, None], "t": [1, 0, 1], "other": "x"})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.astype({"c": "Int64"}).to_parquet(tmp_path / "t.parquet")
    expected = [[-1, 1, 0], [0, 0, 1], [1, 0, 0]]
    for name in ("t.csv", "t.parquet"):
        records = load_table(tmp_path / name, SCHEMA)
        np.testing.assert_array_equal(records.x.numpy(), expected)
        assert records.y.tolist() == [1, 0, 1]
        assert not records.public


def test_a_gap_elsewhere_does_not_change_how_a_cell_reads(tmp_path: Path) -> None:
    """Type inference over a whole column would turn `1` into `1.0` where another cell is empty."""
    (tmp_path / "whole.csv").write_text("v,c,t\n1,1,1\n2,2,0\n")
    (tmp_path / "gap.csv").write_text("v,c,t\n1,1,1\nword,,0\n")
    whole, gap = (load_table(tmp_path / f"{name}.csv", SCHEMA) for name in ("whole", "gap"))
    assert torch.equal(whole.x[0], gap.x[0])


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("surplus", [["9"], ["", "9"], ["9"] * 5])
def test_a_record_with_surplus_cells_moves_no_other_record(
    tmp_path: Path, place: int, surplus: list[str]
) -> None:
    """Pandas would take the first column for an index where the first record has a cell more."""
    rows = [["1", "1", "1"], ["2", "2", "0"]]
    (tmp_path / "without.csv").write_text(_csv(rows))
    rows.insert(place, ["3", "1", "1", *surplus])
    (tmp_path / "with.csv").write_text(_csv(rows))
    without, with_ = (load_table(tmp_path / f"{n}.csv", SCHEMA) for n in ("without", "with"))
    assert torch.equal(with_.x, without.x)
    assert torch.equal(with_.y, without.y)
    frame = read_frame(tmp_path / "with.csv")  # the owner still sees it, as a record without values
    assert frame.isna().to_numpy()[place].all()
    assert not frame.drop(index=place).isna().to_numpy().any()


def test_csv_records_of_every_length_are_read_by_the_header(tmp_path: Path) -> None:
    text = '\ufeffv,c,t,\n1,1,1,,,\n\n2\n"3","a ""b"",c", 0,x\r\n   \nNA,null,1'
    (tmp_path / "t.csv").write_bytes(text.encode())
    frame = read_frame(tmp_path / "t.csv")
    assert list(frame.columns) == ["v", "c", "t", ""]
    assert frame.to_numpy().tolist() == [
        ["1", "1", "1", None],
        ["2", None, None, None],
        ["3", 'a "b",c', "0", "x"],
        [None, None, None, None],
        [None, None, "1", None],
    ]


def test_the_texts_for_missing_are_those_that_pandas_documents() -> None:
    table = pd.read_csv(StringIO("v\n" + "".join(f'"{text}"\n' for text in sorted(MISSING))))
    assert table["v"].isna().all()
    assert len(MISSING) == 19


def test_a_header_with_an_open_quotation_mark_is_named(tmp_path: Path) -> None:
    (tmp_path / "open.csv").write_text('v,"c,t\n1,1,1\n')
    with pytest.raises(DataError, match=r"open\.csv.*opens a quotation mark"):
        load_table(tmp_path / "open.csv", SCHEMA)


def _csv(rows: list[list[str]]) -> str:
    return "".join(",".join(row) + "\n" for row in [["v", "c", "t"], *rows])


@pytest.mark.parametrize("name", ["absent.csv", "absent.parquet"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"no file .*{name}"):
        read_frame(tmp_path / name)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "bytes.csv").write_bytes(b"a,\xff\xfe\n1,1\n")
    (tmp_path / "table.xlsx").write_bytes(b"PK")
    (tmp_path / "short.csv.gz").write_bytes(gzip.compress(b"v,c,t\n1,1,1\n" * 99)[:-9])
    (tmp_path / "none.csv.gz").write_bytes(b"v,c,t\n1,1,1\n")
    damaged = bytearray(gzip.compress(bytes(range(48, 58)) * 99))
    damaged[10] ^= 6  # the kind of the first block: there is no such kind
    (tmp_path / "damaged.csv.gz").write_bytes(damaged)
    csv_names = ("empty.csv", "bytes.csv", "short.csv.gz", "none.csv.gz", "damaged.csv.gz")
    for name in ("bad.parquet", *csv_names):
        with pytest.raises(DataError, match=name):
            read_frame(tmp_path / name)
    with pytest.raises(ConfigError, match=r"use a \.csv or \.parquet"):
        read_frame(tmp_path / "table.xlsx")


@pytest.mark.parametrize("name", ["twice.csv", "twice.csv.gz"])
def test_a_column_named_twice_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """Pandas would call the second `v` `v.1`, and nobody would learn which one was meant."""
    lines = "\n v, c,v,t,c,,\n1,1,2,0,3,,\n"
    data = lines.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(DataError, match=r"^column\(s\) 'c', 'v' appear more than once"):
        load_table(tmp_path / name, SCHEMA)
    (tmp_path / "once.csv").write_text("v,v.1,t,c,,\n1,1,0,1,,\n")
    assert list(read_frame(tmp_path / "once.csv").columns[:4]) == ["v", "v.1", "t", "c"]


def save_images(folder: Path, images: np.ndarray, labels: np.ndarray) -> tuple[Path, Path]:
    np.save(folder / "i.npy", images)
    np.save(folder / "l.npy", labels)
    return folder / "i.npy", folder / "l.npy"


@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 1, 2, 3), (4, 2, 3, 1), (4, 6)])
def test_image_layouts(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.arange(24, dtype=np.uint8)
    paths = save_images(tmp_path, pixels.reshape(shape), np.array([0, 1, 2, 1]))
    records = load_images(*paths, value_range=(0, 23), shape=(1, 2, 3), classes=3)
    np.testing.assert_allclose(records.x.numpy().reshape(-1), pixels / 23, atol=1e-7)
    assert records.input_shape == (1, 2, 3)


def test_pixels_clamp_and_strange_labels_drop_out(tmp_path: Path) -> None:
    images = np.array([[[np.nan, np.inf]], [[-5.0, 300.0]], [[0.0, 255.0]]])
    paths = save_images(tmp_path, images, np.array([0, 1, 7]))
    records = load_images(*paths, value_range=(0, 255), shape=(1, 1, 2), classes=2)
    np.testing.assert_array_equal(records.x.numpy().reshape(2, 2), [[0, 1], [0, 1]])
    assert records.y.tolist() == [0, 1]


def test_labels_that_count_from_one_are_mapped_by_declaration(tmp_path: Path) -> None:
    paths = save_images(tmp_path, np.zeros((4, 1, 2)), np.array([1, 2, 3, 0], dtype=np.uint8))
    facts: dict[str, Any] = {"value_range": (0, 1), "shape": (1, 1, 2), "classes": 3}
    assert load_images(*paths, **facts, first_label=1).y.tolist() == [0, 1, 2]
    assert load_images(*paths, **facts).y.tolist() == [1, 2, 0]
    dataset = TensorDataset(torch.zeros(4, 2), torch.tensor([1, 2, 3, 0]))
    read = DatasetRecords(dataset, input_shape=(2,), classes=3, first_label=1)
    assert targets_of(read).tolist() == [0, 1, 2]
    assert read.left_out == 1


def test_an_owner_is_told_of_labels_that_count_from_one() -> None:
    (found,) = check_labels(np.array([1, 2, 3, 3]), 3, 0)
    assert (found.severity, found.count) == ("error", 2)
    assert "2 labels are none of 0 to 2 (for example 3)" in found.message
    assert "declare first_label = 1" in found.message
    assert check_labels(np.array([1, 2, 3, 3]), 3, 1) == []
    (found,) = check_labels(np.array([0, 1, 2, 7]), 3, 0)
    assert (found.severity, found.count) == ("warning", 1)
    (found, _) = check_items(1, np.array([1, 1]), DatasetSource((2,), 2))[::-1]
    assert "first_label = 1" in found.message


def test_a_wrong_count_is_told_by_what_it_does_to_averages() -> None:
    sites = (SiteTerms(name="a", records=100), SiteTerms(name="b", records=100))
    terms: dict[str, Any] = {
        "sites": sites,
        "dimension": 3,
        "rounds": 2,
        "noise_multiplier": Decimal(2),
    }
    per_record = DistributedPlan(**PUBLIC, **terms, sampling_rate=Decimal("0.5"))
    assert check_count(100, 100, per_record) == []
    (few,) = check_count(60, 100, per_record)
    assert few.severity == "warning"
    assert "0.60 times as long as it should, as if 40 more records were here" in few.message
    assert check_count(99, 100, per_record)[0].severity == "note"
    assert check_count(101, 100, per_record)[0].severity == "error"
    (client,) = check_count(60, 100, ClientPlan(**PUBLIC, **terms))
    assert (client.severity, "counts by its weight" in client.message) == ("note", True)


def test_colour_images_with_channels_last(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    paths = save_images(tmp_path, images, np.zeros(5, dtype=np.int64))
    records = load_images(*paths, value_range=(0, 255), shape=(3, 4, 6), classes=2)
    np.testing.assert_allclose(records.x[2, 1].numpy(), images[2, :, :, 1] / 255, atol=1e-7)


def test_unusable_image_files(tmp_path: Path) -> None:
    good, labels = save_images(tmp_path, np.zeros((2, 3, 3)), np.array([0, 1, 1]))
    facts = {"value_range": (0, 1), "shape": (1, 3, 3), "classes": 2}
    with pytest.raises(DataError, match="one label for each"):
        load_images(good, labels, **facts)
    np.save(tmp_path / "object.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"object\.npy.*numpy\.save"):
        load_images(tmp_path / "object.npy", labels, **facts)
    (tmp_path / "torn.npy").write_bytes(good.read_bytes()[:100])
    with pytest.raises(DataError, match="torn"):
        load_images(tmp_path / "torn.npy", labels, **facts)
    np.save(labels, np.array([0, 1]))
    with pytest.raises(DataError, match=r"declared \(1, 4, 4\)"):
        load_images(good, labels, value_range=(0, 1), shape=(1, 4, 4), classes=2)
    with pytest.raises(ConfigError, match="low < high"):
        load_images(good, labels, value_range=(1, 1), shape=(1, 3, 3), classes=2)


class Squares(Dataset):
    """A data set with whole numbers as inputs."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([index, index**2]), index % 2


def make_squares() -> Squares:
    return Squares()


def test_data_sets_and_their_tensors_agree() -> None:
    read = DatasetRecords(Squares())
    memory = TensorRecords.of(np.array([[i, i**2] for i in range(5)]), np.arange(5) % 2)
    assert isinstance(read, Records)
    assert isinstance(memory, Records)
    assert read.input_shape == memory.input_shape == (2,)
    for indices in (np.array([3, 0]), np.array([], dtype=np.int64)):
        for left, right in zip(read.gather(indices), memory.gather(indices), strict=True):
            assert torch.equal(left, right)
            assert left.dtype == right.dtype


class Faulty(Dataset):
    """Items of every unusable kind among three good ones, in a buffer that is used again."""

    def __init__(self, first: object = (torch.zeros(2), 1)) -> None:
        self.fails = False
        self.buffer = torch.zeros(2)
        self.items = [
            first,
            (torch.full((2,), 1.0), 0),
            (torch.zeros(3), 0),
            (torch.zeros(2), 0, "extra"),
            (torch.zeros(2), "one"),
            (torch.zeros(2), 0.5),
            (torch.zeros(2), float("nan")),
            (torch.zeros(2), -1),
            (torch.zeros(2), 2**70),
            ("text", 0),
            None,
            torch.zeros(2, 2),
            (np.full(2, 2.0), np.int64(5)),
        ]

    def __len__(self) -> int:
        return len(self.items) + 1

    def __getitem__(self, index: int) -> object:
        if self.fails or index == len(self.items):
            raise RuntimeError("patient Smith")
        item = self.items[index]
        if index == 1:
            return self.buffer.copy_(item[0]), item[1]
        self.buffer.zero_()
        return item


def test_unusable_items_drop_out_one_by_one_and_nothing_is_read_in_a_round() -> None:
    dataset = Faulty()
    records = DatasetRecords(dataset, input_shape=(2,))
    dataset.fails = True
    x, y = records.gather(np.arange(len(records)))
    assert x.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert y.tolist() == [1, 0, 5]
    assert records.left_out == 11
    dataset.fails = False
    assert len(DatasetRecords(dataset, input_shape=(2,), classes=2)) == 2


def test_a_first_item_of_another_shape_removes_nobody_else() -> None:
    records = DatasetRecords(Faulty((torch.zeros(4), 0)), input_shape=(2,))
    assert records.gather(np.arange(2))[1].tolist() == [0, 5]


def test_a_data_set_of_failing_items_is_refused_without_their_words() -> None:
    dataset = Faulty()
    dataset.fails = True
    with pytest.raises(DataError, match="no item of Faulty") as caught:
        DatasetRecords(dataset)
    assert "Smith" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


class Stream(IterableDataset):
    """No random access."""

    def __iter__(self):
        yield torch.zeros(2), 0


def test_data_sets_without_random_access_or_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="map-style"):
        DatasetRecords(Stream())
    with pytest.raises(DataError, match="pair"):
        DatasetRecords(TensorDataset(torch.zeros(3, 2)))
    with pytest.raises(DataError, match="empty"):
        DatasetRecords(TensorDataset(torch.zeros(0, 2), torch.zeros(0)))


def test_records_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(DataError, match="belong"):
        TensorRecords.of(np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(DataError, match="float32"):
        TensorRecords(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))


def test_records_from_each_source(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("v,c,t\n1,1,1\n")
    assert len(load_records(TableSource(SCHEMA), tmp_path, "t.csv", public=True)) == 1
    save_images(tmp_path, np.zeros((2, 1, 1)), np.array([0, 1]))
    images = ImageSource((1, 1, 1), (0, 1), 2)
    assert load_records(images, tmp_path, "i.npy", "l.npy", public=True).public
    with pytest.raises(ConfigError, match="labels"):
        load_records(images, tmp_path, "i.npy")
    factory = f"{__name__}:make_squares"
    assert len(load_records(DatasetSource((2,)), tmp_path, factory)) == 5
    with pytest.raises(DataError, match="no item"):
        load_records(DatasetSource((3,)), tmp_path, factory)
    for wrong in ("no.such.module:x", f"{__name__}:absent", "plain"):
        with pytest.raises(ConfigError, match="importable"):
            load_records(DatasetSource((2,)), tmp_path, wrong)


def test_split_is_a_partition_and_stays_the_same() -> None:
    split = split_rows(20, {"a": 9, "b": 6}, name="x")
    everyone = np.concatenate([*split.sites.values(), split.public])
    assert sorted(everyone.tolist()) == list(range(20))
    # Known answer: the order of SHA-256("x/<row>"), as the sha256sum program gives it.
    assert split.public.tolist() == [8, 9, 11, 16, 18]


def test_breast_cancer_hospitals(tmp_path: Path) -> None:
    paths = write_breast_cancer(tmp_path)
    for name, size in {**BREAST_CANCER_SITES, "public": 119}.items():
        records = load_table(paths[name], BREAST_CANCER_SCHEMA)
        assert len(records) == size
        assert records.input_shape == (30,)
        assert 0.25 < float(records.y.float().mean()) < 0.5  # 37 % are malignant overall
        assert bool((records.x.abs() < 1).float().mean() > 0.98)  # the ranges fit


def test_digits_clients(tmp_path: Path) -> None:
    paths = write_digits(tmp_path)
    for name, size in {**DIGITS_CLIENTS, "public": 297}.items():
        records = load_images(
            *paths[name],
            value_range=DIGITS_VALUE_RANGE,
            shape=DIGITS_SHAPE,
            classes=DIGITS_CLASSES,
        )
        assert len(records) == size
        assert records.input_shape == (1, 8, 8)
        assert 0 <= float(records.x.min()) < float(records.x.max()) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("v;c;t\r\n1,5;1;1\r\n".encode("utf-8-sig"), "separated by ';'"),
        (b"v\tc\tt\n1.5\t1\t1\n", r"separated by '\\t'"),
        ("v,c,t,Größe\n1,1,1,ü\n".encode("latin-1"), "not UTF-8"),
        (b"v,t\n1,1\n", "'c' declared but not in .*table.csv"),
    ],
)
def test_what_a_spreadsheet_exports_is_read_or_refused_with_the_way_out(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        load_table(path, SCHEMA)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("v,c,t\r\n5,1,1\r\n".encode("utf-8-sig"))
    np.testing.assert_array_equal(load_table(path, SCHEMA).x.numpy(), [[0, 1, 0]])


@pytest.mark.parametrize("places", [[3, -1, 0, 3, -1], [-1, -1], [2, 1]])
def test_rows_without_a_record_are_zeros_and_no_record_is_changed(places: list[int]) -> None:
    held = TensorRecords.of(np.arange(1, 13).reshape(4, 3), [1, 2, 3, 4])
    held.x[3, 1] = np.nan
    before = held.x.clone()
    for records in (held, ChosenRecords(held, np.arange(4))):
        x, y = in_rows(records, np.array(places))
        for row, place in enumerate(places):
            expected = held.x[place] if place >= 0 else torch.zeros(3)
            assert torch.equal(x[row].nan_to_num(-7), expected.nan_to_num(-7))
            assert y[row] == (held.y[place] if place >= 0 else 0)
    assert torch.equal(held.x.nan_to_num(-7), before.nan_to_num(-7))
