"""A model's file by itself: it reads tables, refuses others', and goes out as ONNX unchanged."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from safetensors.torch import save_file

from privagg.errors import ConfigError, DataError, ModelError
from privagg.programs.questions.columns import Columns
from privagg.programs.scorecard.card import Card
from privagg.programs.scorecard.cards import Cards
from privagg.programs.scorecard.onnx import onnx_of as onnx_of_card
from privagg.programs.scorecard.sql import sql_of_cards
from privagg.programs.trees.model import Trees
from privagg.programs.trees.onnx import onnx_of as onnx_of_trees
from privagg.training.declared import ModelSpec, TableSource
from privagg.training.modelcard import ModelCard, header_text
from privagg.training.models import ParameterLayout, build_model
from privagg.training.onnxmodel import onnx_of
from privagg.training.predicting import fitting, predict_frame, read_model
from privagg.training.saving import read_tensors, save_model
from privagg.training.table import TableSchema
from tests.commands import call
from tests.programs.test_scorecard import (
    CLASSES,
    EXTREMES,
    FRESH,
    TRAINED,
    card,
    of_classes,
    run,
    scorecard,
    table,
)
from tests.programs.test_trees import run as grow
from tests.programs.test_trees import trees as boosted_trees
from tests.programs.test_trees import widened

FEATURES: list[dict[str, Any]] = [
    {"name": "age", "range": (20, 80), "not_measured": (-1, -9), "indicator": True},
    {"name": "paid", "range": (-50, 10_000), "transform": "signed-log", "log_unit": 10.0,
     "missing": 30, "scale": 1.5},
    {"name": "since", "range": (0, 50), "since": "2000-01-01", "date_unit": "years"},
    {"name": "delay", "categories": (-1, 0, 1, 2.5), "drop_first": True},
    {"name": "town", "categories": ("a.b (c)", " Ärger", "über|x", "st[1]-\\d")},
    {"name": "exact", "categories": ("x", "X")},
]  # fmt: skip
TARGETS: Mapping[str, dict[str, Any]] = {
    "two": {"name": "late", "positive": "== 1"},
    "three": {"name": "late", "classes": ("no", "some", "all")},
    "amount": {"name": "late", "kind": "regression", "range": (-5, 20)},
    "labels": {"name": "late", "kind": "multi-label", "labels": ("p", "q"), "positive": 1},
}

# Missing, not measured, on the ends, out of range, in other letters, never declared.
EDGES = pd.DataFrame(
    {
        "age": [20, 80, None, 1e300, -1, -9, "x", 19.999, 1e-300, np.inf],
        "paid": [0, 10_000, None, -1e-300, -50, -51, 1e308, 9.5, "y", 100],
        "since": [None, "2000-01-01", "1999-12-31", "2049-06-05", "2100-01-01", "2001-02-03 07:30",
                  "x", "2020-02-29", "2000-01-01", "2010-10-10"],
        "delay": [-1, 2.5, None, 7, "1", 0, True, 2, "-1.0", "z"],
        "town": ["a.b (c)", "axb (c)", None, "A.B (C)", " a.b (c)\u00a0", "ÄRGER", "ärger\t",
                 "ÜBER|X", "ST[1]-\\D", "st1-5"],
        "exact": ["x", "X", " x", "X ", None, "y", "xx", "", "x\n", "X"],
    }
)  # fmt: skip


def schema_of(target: str, features: Any = FEATURES) -> TableSchema:
    return TableSchema.model_validate({"features": features, "target": TARGETS[target]})


def written(folder: Path, schema: TableSchema, spec: ModelSpec) -> Path:
    """A model's file with parameters drawn here."""
    model = build_model(spec, (schema.width,), schema.target)
    size = ParameterLayout.of(model).dimension
    values = np.random.default_rng(5).normal(0, 0.7, size)
    facts = ModelCard.facts(spec, (schema.width,), TableSource(schema), schema.target, "ab" * 32)
    path = folder / "model.safetensors"
    save_model(model, values, path, {"privagg": header_text(facts)})
    return path


def cells(schema: TableSchema, frame: pd.DataFrame) -> dict[str, Any]:
    """A table as an ONNX runtime takes it."""
    found: dict[str, Any] = {}
    for feature in schema.features:
        column = frame[feature.name]
        if hasattr(feature, "range"):
            found[feature.name] = feature.numbers(column)[:, None]
        elif all(isinstance(each, str) for each in feature.categories):
            texts = ["" if pd.isna(each) else str(each) for each in column]
            found[feature.name] = np.array(texts, dtype=object)[:, None]
        else:
            found[feature.name] = pd.to_numeric(column, "coerce").to_numpy(np.float64)[:, None]
    return found


def outputs(data: bytes, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """What ONNX Runtime and ONNX's own reference say, by output."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    reference = ReferenceEvaluator(onnx.load_from_string(data))
    return [dict(zip(names, each.run(names, inputs), strict=True)) for each in (session, reference)]


SPECS = (ModelSpec(), ModelSpec(centred=True), ModelSpec(kind="mlp", hidden=(5, 3)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("spec", SPECS, ids=("logistic", "centred", "mlp"))
def test_a_model_predicts_from_its_file_and_as_onnx(
    spec: ModelSpec, target: str, tmp_path: Path
) -> None:
    schema = schema_of(target)
    described, model = read_model(written(tmp_path, schema, spec))
    assert described.table_schema == schema
    assert described.plan_digest == "ab" * 32
    ours = predict_frame(model, schema, EDGES).reshape(len(EDGES), -1)
    assert len(schema.target.prediction_names) == ours.shape[1]
    data = onnx_of(described, model)
    for found in outputs(data, cells(schema, EDGES)):
        np.testing.assert_allclose(found["predictions"], ours, rtol=2e-6, atol=2e-6)
    told = {each.key: each.value for each in onnx.load_from_string(data).metadata_props}
    assert json.loads(told["privagg"])["plan_digest"] == "ab" * 32


CARDS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "pairs": {"pairs": (("age", "town"), ("delay", "paid")), "pair_bins": 3},
    "points": {"scaling": {"points": 1.0, "odds": 2.0, "double": 50.0, "of": "yes"}},
}


@pytest.mark.parametrize("settings", CARDS)
def test_a_cards_onnx_gives_its_points(settings: str) -> None:
    program = scorecard(**CARDS[settings])
    made = card(program, run(program, table(2000, 4)))
    frame = pd.concat([EDGES[["age", "paid", "delay", "town"]], table(200, 5)], ignore_index=True)
    edges = {edge for block in made.blocks for each in block.edges for edge in each or ()}
    more = pd.DataFrame({"age": sorted(edges), "paid": sorted(edges), "delay": 1, "town": "B "})
    compare(made, pd.concat([frame, more], ignore_index=True))


def test_an_amounts_card_goes_out_too() -> None:
    facts = {"name": "cost", "kind": "regression", "range": (10, 50)}
    schema = TableSchema.model_validate({"features": FEATURES[:2], "target": facts})
    program = scorecard(schema, ordered=())
    frame = table(1000, 6).assign(cost=np.linspace(0, 60, 1000))
    made = card(program, run(program, frame))
    compare(made, EDGES[["age", "paid"]])


def test_cards_of_classes_go_out_together() -> None:
    """ONNX gives the points of each to the last bit; SQLite reads the SQL as privagg the table."""
    program = scorecard(CLASSES, bins=4)
    made = Cards.read(program.model(run(program, of_classes(1500, 1)[0], "1")))
    frame = of_classes(400, 2)[0]
    records = Columns.read(frame, made.data, target=False)
    points, ours = made.points(records), made.predictions(records)
    for found in outputs(onnx_of_card(made), cells(made.data, frame)):
        np.testing.assert_array_equal(found["points"], points)
        np.testing.assert_allclose(found["predictions"], ours, rtol=1e-12)
    numbers = frame.assign(
        **{name: pd.to_numeric(frame[name]) for name in ("age", "paid", "delay")}
    )
    with closing(sqlite3.connect(":memory:")) as database:
        numbers.to_sql("people", database, index=False)
        told = database.execute(f"SELECT {sql_of_cards(made)} FROM people")
        assert [each[0] for each in told.description] == [
            f"points {each.label}" for each in made.cards
        ]
        np.testing.assert_allclose(told.fetchall(), points, atol=1e-9)


@pytest.mark.parametrize("kind", ["two", "three", "amount", "huber", "time"])
def test_trees_onnx_predicts_as_they_do(kind: str) -> None:
    """Leaves are the same; their sums and exponentials are rounded in another order."""
    program = boosted_trees(kind, together=4)
    made = Trees.read(program.model(grow(program, widened(TRAINED.iloc[:600]))))
    frame = widened(pd.concat([EXTREMES, FRESH.iloc[:200]], ignore_index=True))
    ours = made.predictions(Columns.read(frame, made.data, target=False))
    for found in outputs(onnx_of_trees(made), cells(made.data, frame)):
        np.testing.assert_allclose(found["predictions"], ours, rtol=1e-12, atol=1e-15)


def compare(made: Card, frame: pd.DataFrame) -> None:
    """Points are equal to the last bit, predictions to float64's rounding of an exponential."""
    records = Columns.read(frame, made.data, target=False)
    for found in outputs(onnx_of_card(made), cells(made.data, frame)):
        np.testing.assert_array_equal(found["points"][:, 0], made.points(records))
        ours = made.predictions(records)
        np.testing.assert_allclose(found["predictions"][:, 0], ours, rtol=1e-12)


def test_mixed_categories_and_other_predictions_are_refused(tmp_path: Path) -> None:
    mixed = schema_of("two", [{"name": "ward", "categories": ("1", "x")}])
    with pytest.raises(ConfigError, match="'ward' has categories that are numbers beside some"):
        onnx_of(*read_model(written(tmp_path, mixed, ModelSpec())))
    counts = {**TARGETS["amount"], "range": (0, 9), "loss": "poisson"}
    schema = TableSchema.model_validate({"features": FEATURES, "target": counts})
    with pytest.raises(ConfigError, match="no ONNX form"):
        onnx_of(*read_model(written(tmp_path, schema, ModelSpec())))


def test_a_file_that_contradicts_itself_is_refused_and_runs_no_code(tmp_path: Path) -> None:
    path = written(tmp_path, schema_of("two"), ModelSpec(kind="mlp", hidden=(3,)))
    tensors, header = read_tensors(path)
    facts = json.loads(header["privagg"])

    def changed(error: type[Exception], says: str, **other: Any) -> None:
        save_file(tensors, path, {"privagg": header_text({**facts, **other})})
        with pytest.raises(error, match=says):
            read_model(path)

    own = {"kind": "tests.training.no_module:model"}
    changed(ConfigError, "code that no file may have run", model=own)
    changed(ModelError, "names no model|are not those", model={**facts["model"], "hidden": [-3]})
    changed(ModelError, "names no model", model={**facts["model"], "hidden": [2**40, 2**40]})
    changed(ModelError, "are not those", model={**facts["model"], "hidden": [2**20, 2**20]})
    changed(ModelError, "are not those", model={"kind": "logistic"})
    changed(ConfigError, "contradicts itself", shape=[3])
    changed(ConfigError, "come from no table", inputs=None)
    changed(ConfigError, "does not say which columns", format="privagg-model/9")
    for text in ("[", "[[" * 5000, "null", "3"):
        save_file(tensors, path, {"privagg": text})
        with pytest.raises(ConfigError, match=r"model\.safetensors"):
            read_model(path)
    wide = {name: each.to(torch.float64) for name, each in tensors.items()}
    save_file(wide, path, header)
    with pytest.raises(ModelError, match="in its shape and type"):
        read_model(path)


def test_a_table_of_other_columns_is_refused_by_the_column(tmp_path: Path) -> None:
    features = [FEATURES[0], {"name": "town", "categories": ("a", "b")}]
    source = TableSource(schema_of("two", features))
    good = pd.DataFrame({"age": [30, "x", None, 5, 9], "town": ["a", "b", "c", "d", "e"]})
    path = tmp_path / "new.csv"

    def lying(**columns: Any) -> Path:
        good.assign(**columns).to_csv(path, index=False)
        return path

    _, found = fitting(source, lying())
    assert {each.column for each in found} == {"age", "town"}
    with pytest.raises(DataError, match="'age' of .* holds something else.*'2020-01-01'"):
        fitting(source, lying(age="2020-01-01"))
    with pytest.raises(DataError, match="'town' of .* holds something else.*declared are 'a', 'b'"):
        fitting(source, lying(town="Berlin"))
    fitting(source, lying(town=None))
    good[["age"]].to_csv(path, index=False)
    with pytest.raises(DataError, match="'town' declared but not in"):
        fitting(source, path)


def test_export_and_predict_need_the_models_file_alone(tmp_path: Path) -> None:
    schema = schema_of("three", FEATURES[:2])
    path = written(tmp_path, schema, ModelSpec())
    EDGES[["age", "paid"]].to_csv(tmp_path / "new.csv", index=False)
    told = call("predict", path, "new.csv", where=tmp_path)
    assert told.code == 0, told.err
    first, *rest = told.out.splitlines()
    assert first == "chance_no,chance_some,chance_all"
    assert len(rest) == len(EDGES)
    assert "'age'" in told.err
    assert "'paid'" in told.err
    assert call("export", path, "--format", "onnx", where=tmp_path).code == 0
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"))
    refused = call("export", path, "--format", "sql", where=tmp_path)
    assert refused.code == 2
    assert "only scorecards" in " ".join(refused.err.split())
