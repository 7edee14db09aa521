"""One line of a table that is made to change what other lines say."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from privagg.training.csvfile import MAX_LINE_BYTES
from privagg.training.data import load_table
from privagg.training.features import CategoricalFeature, NumericFeature
from privagg.training.inspection import check_table
from privagg.training.reading import read_frame
from privagg.training.table import TableSchema
from privagg.training.targets import Target

SCHEMA = TableSchema(
    features=(
        NumericFeature(name="age", range=(0, 120)),
        NumericFeature(name="income", range=(0, 1e6), transform="signed-log"),
        CategoricalFeature(name="ward", categories=("a", "b", "2020-01-01 00:00:00")),
    ),
    target=Target(name="ill", positive=">0"),
)
HEADER = b"age,income,ward,ill\n"
OTHERS = [b"%d,%d,%s,%d\n" % (i % 99, 37 * i, b"ab"[i % 2 : i % 2 + 1], i % 2) for i in range(40)]


def test_one_open_quotation_mark_no_longer_swallows_ten_thousand_records(tmp_path: Path) -> None:
    """Of 10,001 records one remained: the first cell held all that followed it."""
    path = tmp_path / "t.csv"
    path.write_bytes(HEADER + b'50,1,"a,1\n' + b"60,2,b,0\n" * 10_000)
    assert load_table(path, SCHEMA).y.tolist() == [0] * 10_000
    told = [finding.message for finding in check_table(SCHEMA, read_frame(path))]
    assert any("1 line (2) is no record" in message for message in told)


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
@settings(max_examples=150, deadline=None)
@given(
    line=st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")),
    place=st.integers(0, len(OTHERS)),
)
@example(line=b'"', place=0)
@example(line=b'1,"a""', place=3)
@example(line=b"1,2,a,1\r1,2,a,1\r", place=3)
@example(line=b"1,2,a,1\x0b\x0c\x1c\x1d\x1e\xc2\x85\xe2\x80\xa8\xe2\x80\xa9", place=3)
@example(line=b"\x00" * 9, place=1)
@example(line=b"\xff\xfe,\xed\xa0\x80", place=2)
@example(line=b"\x1eend of the line\x1e", place=2)
@example(line=b"1" * 140_000 + b",2,a,1", place=2)
@example(line=b"," * (MAX_LINE_BYTES + 5), place=2)
@example(line=b'"' * MAX_LINE_BYTES, place=2)
@example(line=b"nan,inf,1e999,-0.0", place=40)
@example(line=b"True,FALSE,A,true", place=1)
@example(line=b"yes,no,B,Yes", place=0)
def test_whatever_bytes_one_line_holds_the_others_are_the_same_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, ending: str, line: bytes, place: int
) -> None:
    folder = tmp_path_factory.mktemp("csv")

    def read(*lines: bytes) -> list[tuple[bytes, int]]:
        data = HEADER + b"".join(lines)
        path = folder / f"t.{ending}"
        path.write_bytes(gzip.compress(data, 1) if ending.endswith("gz") else data)
        records = load_table(path, SCHEMA)
        return [(x.numpy().tobytes(), int(y)) for x, y in zip(records.x, records.y, strict=True)]

    without = read(*OTHERS)
    with_ = read(*OTHERS[:place], line + b"\n", *OTHERS[place:])
    assert len(without) == len(OTHERS)
    assert with_[:place] == without[:place]
    assert with_[len(with_) - len(OTHERS) + place :] == without[place:]
    assert len(with_) - len(without) in (0, 1)


def test_a_parquet_record_with_hours_does_not_respell_everybody_elses_dates(
    tmp_path: Path,
) -> None:
    """A column of dates was spelt `2020-01-01` until one record had an hour."""
    day = pd.Timestamp("2020-01-01")
    table = {"age": [1, 2], "income": [1, 2], "ward": [day, day], "ill": [1, 0]}
    frame = pd.DataFrame(table)
    frame.to_parquet(tmp_path / "without.parquet")
    more = {"age": 3.5, "income": None, "ward": pd.Timestamp("2020-01-01 07:00"), "ill": 1}
    pd.concat([frame, pd.DataFrame([more])]).to_parquet(tmp_path / "with.parquet")
    without, with_ = (load_table(tmp_path / f"{n}.parquet", SCHEMA) for n in ("without", "with"))
    assert torch.equal(with_.x[:2], without.x)
    assert without.x[0, -1] == 1


def test_a_cells_place_in_its_column_does_not_change_its_last_bit() -> None:
    """Vector kernels treat the last few values of an array by other code than the first."""
    feature = SCHEMA.features[1]
    values = np.random.default_rng(5).uniform(0, 1e6, 67)
    alone = [feature.encode(pd.Series([value]))[0] for value in values]
    for start in range(17):
        assert np.array_equal(feature.encode(pd.Series(values[start:])), alone[start:])
