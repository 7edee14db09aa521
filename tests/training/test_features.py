"""The encoding is a function of one record and public facts."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from privagg.errors import DataError
from privagg.training.data import load_table
from privagg.training.features import (
    CategoricalFeature,
    NumericFeature,
    numeric_values,
)
from privagg.training.inspection import check_table
from privagg.training.table import TableSchema
from privagg.training.targets import Target

AGE = NumericFeature(name="age", range=(20, 90))
CHOL = NumericFeature(name="chol", range=(0, 600), not_measured=(0,), indicator=True)
DEBT = NumericFeature(name="debt", range=(-(np.e**2 - 1), np.e**2 - 1), transform="signed-log")
CP = CategoricalFeature(name="cp", categories=(1, 2, 3, 4), drop_first=True)
SEX = CategoricalFeature(name="sex", categories=("f", "m"))
SCHEMA = TableSchema(features=(AGE, CHOL, DEBT, CP, SEX), target=Target(name="num", positive=">0"))


def frame(**columns: list[object]) -> pd.DataFrame:
    base: dict[str, list[object]] = {
        "age": ["55"],
        "chol": ["300"],
        "debt": ["0"],
        "cp": ["1"],
        "sex": ["f"],
        "num": ["0"],
    }
    rows = max((len(values) for values in columns.values()), default=1)
    return pd.DataFrame({k: columns.get(k, v * rows) for k, v in base.items()}, dtype=object)


def encode(**columns: list[object]) -> np.ndarray:
    return SCHEMA.encode(frame(**columns))[0]


def test_golden_row() -> None:
    table = frame(age=["90"], chol=["150"], debt=[str(np.e - 1)], cp=["3"], sex=["m"], num=["2"])
    x, y = SCHEMA.encode(table)
    # (90-20)/70 -> 1; 150/600 -> -0.5; log1p(e-1) = 1 of 2 -> 0.5; cp 3 of (2, 3, 4); sex m.
    np.testing.assert_allclose(x, [[1, -0.5, 0, 0.5, 0, 1, 0, 0, 1]], atol=1e-7)
    assert x.dtype == np.float32
    assert y.tolist() == [1]
    assert y.dtype == np.int64
    assert SCHEMA.columns == (
        *("age", "chol", "chol=missing", "debt", "cp=2", "cp=3", "cp=4", "sex=f", "sex=m"),
    )
    assert SCHEMA.width == x.shape[1]


def test_values_clamp_to_the_public_range() -> None:
    np.testing.assert_array_equal(encode(age=["-1e300", "1e300", "20", "90"])[:, 0], [-1, 1, -1, 1])


def test_missing_values_take_the_public_fill_never_the_datas_own() -> None:
    filled = NumericFeature(name="age", range=(0, 10), missing=7.5)
    column = pd.Series(["10", None, "word", "inf", "nan"], dtype=object)
    np.testing.assert_allclose(filled.encode(column)[:, 0], [1, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(encode(age=[None, "90"])[:, 0], [0, 1])


def test_scale_stretches_every_column_of_a_feature() -> None:
    oldpeak = NumericFeature(name="p", range=(-1, 3), scale=5, missing=0, indicator=True)
    column = pd.Series(["-9", "1", "3", None], dtype=object)
    np.testing.assert_allclose(oldpeak.encode(column), [[-5, 0], [0, 0], [5, 0], [-2.5, 5]])
    pain = CategoricalFeature(name="cp", categories=(1, 2, 3), drop_first=True, scale=4)
    column = pd.Series(["1", "2", "3", "9"], dtype=object)
    np.testing.assert_array_equal(pain.encode(column), [[0, 0], [4, 0], [0, 4], [0, 0]])


def test_log_unit_is_where_the_logarithm_begins() -> None:
    # log1p(1000/1000) of log1p(3000/1000): half of the way from zero to the end, log 2 of log 4.
    paid = NumericFeature(name="a", range=(-3000, 3000), transform="signed-log", log_unit=1000)
    column = pd.Series(["-1000", "0", "1000", "3000"], dtype=object)
    np.testing.assert_allclose(paid.encode(column)[:, 0], [-0.5, 0, 0.5, 1], atol=1e-15)


def test_codes_for_not_measured_fill_and_indicate() -> None:
    np.testing.assert_array_equal(encode(chol=["0", None, "600"])[:, 1:3], [[0, 1], [0, 1], [1, 0]])


def test_unknown_category_encodes_to_zero() -> None:
    assert not encode(cp=["9"])[:, 4:7].any()
    assert not encode(sex=["x"])[:, 7:].any()


@pytest.mark.parametrize("cell", ["3", "3.0", " 3 ", 3, 3.0])
def test_numeric_categories_match_as_numbers(cell: object) -> None:
    np.testing.assert_array_equal(encode(cp=[cell])[0, 4:7], [0, 1, 0])


@settings(max_examples=60, deadline=None)
@given(
    mine=st.sampled_from(["1", "2.0", "x", None, "4", "TRUE", "F"]),
    others=st.lists(
        st.sampled_from(["1", "2", "9", "x", None, "nan", "1e999", "True", "f"]), max_size=6
    ),
)
def test_a_records_row_does_not_depend_on_other_records(mine: object, others: list[object]) -> None:
    cells = [mine, *others]
    together = encode(age=cells, cp=cells, sex=cells, debt=cells, chol=cells)
    alone = encode(age=[mine], cp=[mine], sex=[mine], debt=[mine], chol=[mine])
    np.testing.assert_array_equal(together[0], alone[0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.floats(allow_nan=True, allow_infinity=True) | st.none() | st.text(max_size=3),
        min_size=1,
        max_size=8,
    )
)
def test_every_encoded_value_is_finite_and_within_one(cells: list[object]) -> None:
    x = encode(age=cells, debt=cells, chol=cells)
    assert np.isfinite(x).all()
    assert np.abs(x).max() <= 1


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["1", "2", None], dtype="category"),
        pd.Series([1, 2, None], dtype="category"),
        pd.Series([1, 2, None], dtype="Int64"),
        pd.Series([1, 2, None], dtype="float64"),
        pd.Series(["1", " 2.0", "two"], dtype="string"),
        pd.Series([Decimal(1), 2, [2]], dtype=object),
        pd.Series([True, "2", pd.Timestamp(2)], dtype=object),
        pd.Series([1, 2, 10**400], dtype=object),
    ],
)
def test_columns_of_every_kind_read_cell_by_cell(column: pd.Series) -> None:
    feature = NumericFeature(name="a", range=(0, 2), missing=0.5)
    np.testing.assert_array_equal(feature.encode(column)[:, 0], [0, 1, -0.5])
    categories = CategoricalFeature(name="a", categories=("1", 2))
    np.testing.assert_array_equal(categories.encode(column), [[1, 0], [0, 1], [0, 0]])
    assert Target(name="a", positive=">1").encode(column).tolist() == [0, 1, -1]


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "timedelta64[ns]"])
def test_times_are_no_numbers(dtype: str) -> None:
    assert np.isnan(numeric_values(pd.Series([1, 2], dtype=dtype))).all()


def test_large_whole_numbers_read_the_same_beside_a_fraction() -> None:
    odd = str(2**62 + 2**9 + 1)
    alone = numeric_values(pd.Series([odd], dtype=object))
    beside = numeric_values(pd.Series([odd, "0.5"], dtype=object))
    assert alone[0] == beside[0] == float(odd)


def test_records_with_gaps_drop_out_one_by_one_where_declared() -> None:
    strict = SCHEMA.model_copy(update={"drop_missing": True})
    table = frame(age=["30", None, "50", "60"], chol=["0", "1", "2", "3"], cp=["1", "1", None, "9"])
    x, _ = strict.encode(table)
    # The code for 'not measured' and an unknown category are values, not gaps.
    np.testing.assert_allclose(x[:, 0], [2 * 10 / 70 - 1, 2 * 40 / 70 - 1], atol=1e-7)
    assert len(SCHEMA.encode(table)[0]) == 4


@pytest.mark.parametrize(
    ("target", "cells", "expected"),
    [
        (Target(name="t", positive=">0"), ["0", "2", "-1"], [0, 1, 0]),
        (Target(name="t", positive="<= 3"), ["3", "3.5"], [1, 0]),
        (Target(name="t", positive="== >50K"), ["<=50K", ">50K"], [0, 1]),
        (Target(name="t", positive="!=0"), ["0", "0.0", "5"], [0, 0, 1]),
        (Target(name="t", positive=1), ["1.0", "0"], [1, 0]),
        (Target(name="t", positive=("yes", "maybe")), ["yes", "no", "maybe"], [1, 0, 1]),
        (Target(name="t", classes=("benign", "malignant")), ["malignant", "benign"], [1, 0]),
        (Target(name="t", kind="multiclass", classes=(5, "b", 7)), ["b", "7.0", "5"], [1, 2, 0]),
        (Target(name="t", positive=True), ["True", "FALSE", "true", "1", "0"], [1, 0, 1, 1, 0]),
        (Target(name="t", positive="== True"), ["TRUE", "False", True, 0], [1, 0, 1, 0]),
        (Target(name="t", positive=">0"), ["True", "False"], [1, 0]),
        (Target(name="t", classes=(False, True)), ["true", "false", "1.0", "?"], [1, 0, 1, -1]),
        (Target(name="t", positive="== yes"), ["Yes", "no", " YES "], [1, 0, 1]),
        (Target(name="t", positive="!= No"), ["Yes", "no", "NO"], [1, 0, 0]),
        (Target(name="t", classes=("m", "M")), ["m", "M"], [0, 1]),
    ],
)
def test_target_rules(target: Target, cells: list[object], expected: list[int]) -> None:
    assert target.encode(pd.Series(cells, dtype=object)).tolist() == expected


def test_a_boolean_is_one_thing_in_csv_in_parquet_and_as_a_number(tmp_path: Path) -> None:
    flag = NumericFeature(name="flag", range=(0, 1))
    schema = TableSchema(
        features=(flag, CategoricalFeature(name="kind", categories=(True, False))),
        target=Target(name="ill", positive=True),
    )
    pd.DataFrame({name: [True, False] for name in ("flag", "kind", "ill")}).to_parquet(
        tmp_path / "t.parquet"
    )
    read = []
    for number, (yes, no) in enumerate((("True", "False"), ("TRUE", "false"), ("1", "0.0"))):
        path = tmp_path / f"{number}.csv"
        path.write_text(f"flag,kind,ill\n{yes},{yes},{yes}\n{no},{no},{no}\n")
        read.append(load_table(path, schema))
    for records in read:
        assert records.x.tolist() == [[1, 1, 0], [-1, 0, 1]]
        assert records.y.tolist() == [1, 0]
    assert torch.equal(load_table(tmp_path / "t.parquet", schema).x, read[0].x)


def test_capital_letters_count_only_where_the_declaration_tells_categories_apart_by_them() -> None:
    cells = pd.Series(["Former", "former", "NO"], dtype=object)
    same = CategoricalFeature(name="s", categories=("no", "former"))
    assert same.encode(cells).tolist() == [[0, 1], [0, 1], [1, 0]]
    apart = CategoricalFeature(name="s", categories=("no", "former", "Former"), drop_first=True)
    assert apart.encode(cells).tolist() == [[0, 1], [1, 0], [0, 0]]


def test_more_than_two_classes_are_a_multiclass_target() -> None:
    target = Target(name="t", classes=("mild", "moderate", "severe"))
    assert (target.kind, target.class_count) == ("multiclass", 3)
    assert target == Target(name="t", kind="multiclass", classes=("mild", "moderate", "severe"))
    with pytest.raises(ValidationError, match="kind = 'multiclass' or leave `kind` out"):
        Target(name="t", kind="binary", classes=("mild", "moderate", "severe"))


def test_records_without_a_class_drop_out() -> None:
    _, y = SCHEMA.encode(frame(num=["0", None, "word", "3"]))
    assert y.tolist() == [0, 1]


def test_a_site_with_one_class_or_no_record_goes_on() -> None:
    assert SCHEMA.encode(frame(num=["1", "2"]))[1].tolist() == [1, 1]
    x, y = SCHEMA.encode(frame(num=[None]))
    assert x.shape == (0, SCHEMA.width)
    assert len(y) == 0


def test_missing_column_is_named_with_what_there_is() -> None:
    with pytest.raises(DataError, match=r"'chol', 'cp'.*age, debt"):
        SCHEMA.encode(frame().drop(columns=["chol", "cp"]))
    assert DataError.public is False


def test_repeated_column_is_refused() -> None:
    table = frame()
    with pytest.raises(DataError, match=r"'age'.*more than once"):
        SCHEMA.encode(pd.concat([table, table[["age"]]], axis=1))


@pytest.mark.parametrize(
    "facts",
    [
        {"name": "a", "range": (2, 2)},
        {"name": "a", "range": (0, float("inf"))},
        {"name": "a", "range": (0, 1), "scaling": 3},
        {"name": "a", "range": (0, 1), "scale": 0},
        {"name": "a", "range": (0, 1), "log_unit": 1000},
        {"name": "a", "range": (0, 1), "transform": "signed-log", "log_unit": -1},
    ],
)
def test_numeric_declarations_that_make_no_sense(facts: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NumericFeature.model_validate(facts)


def test_other_declarations_that_make_no_sense() -> None:
    with pytest.raises(ValidationError, match="differ"):
        CategoricalFeature(name="a", categories=(1, "1.0"))
    with pytest.raises(ValidationError, match="only category"):
        CategoricalFeature(name="a", categories=(1,), drop_first=True)
    with pytest.raises(ValidationError, match="more than once: age"):
        TableSchema(features=(AGE, AGE), target=Target(name="t", positive=1))
    with pytest.raises(ValidationError, match="both a feature and the target"):
        TableSchema(features=(AGE,), target=Target(name="age", positive=1))
    with pytest.raises(ValidationError, match="needs a number"):
        Target(name="t", positive=">50K")
    with pytest.raises(ValidationError, match="either"):
        Target(name="t")
    with pytest.raises(ValidationError, match="at least 3"):
        Target(name="t", kind="multiclass", classes=(0, 1))


def test_declarations_survive_json() -> None:
    assert TableSchema.model_validate_json(SCHEMA.model_dump_json()) == SCHEMA
    assert TableSchema.model_validate(SCHEMA.model_dump(mode="json")) == SCHEMA


def test_owner_learns_what_will_happen_to_the_table() -> None:
    table = frame(
        age=["19", "95", "many", None], cp=["1", "9", "2", None], num=["1", "1", "?", "2"]
    )
    found = {(f.column, f.severity, f.count) for f in check_table(SCHEMA, table)}
    assert ("age", "warning", 2) in found  # outside the range
    assert ("age", "warning", 1) in found  # not a number
    assert ("age", "note", 1) in found  # missing
    assert ("cp", "warning", 1) in found  # unknown category
    assert ("num", "warning", 1) in found  # no class
    assert ("num", "error", 3) in found  # one class only
    assert ("", "warning", 1) in found  # one record drops out


def test_owner_is_told_where_a_column_is_of_another_kind() -> None:
    table = frame(age=["old", "young"], cp=["a", "b"], num=["?", "?"])
    errors = {f.column for f in check_table(SCHEMA, table) if f.severity == "error"}
    assert errors == {"age", "cp", "num", ""}


def test_a_column_wholly_outside_its_range_and_a_decimal_comma_are_named() -> None:
    schema = TableSchema(
        features=(NumericFeature(name="age", range=(0, 1)), NumericFeature(name="w", range=(0, 9))),
        target=Target(name="t", positive=">0"),
    )
    table = pd.DataFrame({"age": ["40", "50"], "w": ["1,5", "2"], "t": ["1", "0"]})
    found = {f.column: f for f in check_table(schema, table)}
    assert found["age"].severity == "warning"  # a site may lack what the others measure
    assert "none inside" in found["age"].message
    assert found["w"].severity == "warning"
    assert "1 cell is no number" in found["w"].message
    assert "decimal points" in found["w"].message
