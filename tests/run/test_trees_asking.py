"""Boosted trees from their configuration to predictions: asked, verified, read by anybody."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from privagg.audit import Brought, verify_file
from tests.commands import Answer, call
from tests.programs.test_scorecard import table
from tests.programs.test_trees import widened
from tests.run.test_scorecard_asking import CONFIG as CARD

CONFIG = CARD.replace('program = "scorecard"', 'program = "boosted-trees"').replace(
    'settings = { ordered = ["delay"], monotone = { age = "falling" } }',
    'settings = { ordered = ["delay"], trees = 12, depth = 4, together = 4 }',
)
CLASSES = 'target = { name = "grade", kind = "multiclass", classes = ["low", "mid", "high"] }'
SURVIVAL = """target = { name = "end", kind = "time-to-event", time = "months", event = "died", \
event_is = 1, until = 60, intervals = [12, 24, 60] }"""


def asked_in(folder: Path, config: str) -> Answer:
    (folder / "my.toml").write_text(config)
    widened(table(3000, 1), 1).to_csv(folder / "north.csv", index=False)
    widened(table(2000, 2), 2).to_csv(folder / "south.csv", index=False)
    table(50, 3).drop(columns="late").to_csv(folder / "new.csv", index=False)
    words = ("approve", "my.toml", "--all-sites", "--job", "questions", "--yes")
    assert call(*words, "--who", "T", "--why", "trees", where=folder).code == 0
    return call("ask", "my.toml", where=folder)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A folder in which trees were asked for, and what the command printed."""
    folder = tmp_path_factory.mktemp("lenders")
    return folder, asked_in(folder, CONFIG)


def test_they_are_asked_and_anybody_recomputes_them(asked: tuple[Path, Answer]) -> None:
    folder, told = asked
    assert told.code == 0
    assert "trees 12; depth 4; together 4" in " ".join(told.out.split())
    (bundle,) = folder.glob("out/runs/*/bundle.privagg.zip")
    found = verify_file(bundle, Brought())
    assert found.holds
    assert "answers follow from the opened sum" in {claim.subject for claim in found.claims}
    page = next(folder.glob("out/runs/*/report.html")).read_text()
    assert all(f"<h3>{name}</h3>" in page for name in ("age", "paid", "delay", "town"))
    assert page.count("<figure ") >= 6  # an effect for each, importance, reliability


def test_they_predict_and_say_where_they_are_from(asked: tuple[Path, Answer]) -> None:
    folder, _ = asked
    found = call("predict", "out/answers.json", "new.csv", where=folder)
    assert found.code == 0
    first, *rest = csv.reader(io.StringIO(found.out))
    assert first == ["chance"]
    assert len(rest) == 50
    assert len({row[0] for row in rest}) > 10
    made = json.loads((folder / "out/answers.json").read_bytes())
    assert made["model"]["plan_digest"] == made["plan_digest"]
    refused = call("export", "out/answers.json", "--format", "sql", where=folder)
    assert refused.code == 2
    assert "only scorecards are written as SQL" in " ".join((refused.out + refused.err).split())


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (CLASSES, ["chance_low", "chance_mid", "chance_high"]),
        (SURVIVAL, ["no_event_until_12", "no_event_until_24", "no_event_until_60"]),
    ],
)
def test_more_classes_and_times_go_the_same_way(
    tmp_path: Path, target: str, names: list[str]
) -> None:
    config = CONFIG.replace('target = { name = "late", positive = "== 1" }', target)
    assert asked_in(tmp_path, config).code == 0
    found = call("predict", "out/answers.json", "new.csv", where=tmp_path)
    assert found.code == 0
    first, *rest = csv.reader(io.StringIO(found.out))
    assert first == names
    assert all(0 <= float(each) <= 1 for row in rest for each in row)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('ordered = ["delay"]', 'ordered = ["age"]', "declared with categories"),
        ("together = 4", "together = 5", "cannot be opened 5 at a time"),
        ('positive = "== 1"', 'kind = "regression", range = [0, 9], loss = "poisson"', "poisson"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_spent(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    (tmp_path / "my.toml").write_text(CONFIG.replace(old, new))
    found = call("check", "my.toml", where=tmp_path)
    assert found.code == 2
    assert says in " ".join((found.out + found.err).split())
