"""A scorecard from its configuration to predictions: asked, verified, read by whoever holds it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from privagg.audit import Brought, verify_file
from privagg.config.asking import AskSetup
from tests.commands import Answer, call
from tests.programs.test_scorecard import of_classes, table

CONFIG = """\
[federation]
name = "lenders"

[privacy]
epsilon = 2
delta = 1e-4
colluders = 0

[training]
model = "logistic"
rounds = 1

[ask]
epsilon = 2
program = "scorecard"
settings = { ordered = ["delay"], monotone = { age = "falling" } }

[secure]
scheme = "plaintext"
custody = "authority"

[data]
target = { name = "late", positive = "== 1" }
features = [
  { name = "age", range = [20, 80] },
  { name = "paid", range = [0, 10_000], transform = "signed-log", log_unit = 10 },
  { name = "delay", categories = [-1, 0, 1, 2] },
  { name = "town", categories = ["a", "b"] },
]

[[sites]]
name = "north"
data = "north.csv"
records = 3000

[[sites]]
name = "south"
data = "south.csv"
records = 2000
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A folder in which a scorecard was asked for, and what the command printed."""
    folder = tmp_path_factory.mktemp("lenders")
    (folder / "my.toml").write_text(CONFIG)
    table(3000, 1).to_csv(folder / "north.csv", index=False)
    table(2000, 2).to_csv(folder / "south.csv", index=False)
    table(50, 3).drop(columns="late").to_csv(folder / "new.csv", index=False)
    words = ("approve", "my.toml", "--all-sites", "--job", "questions", "--yes")
    assert call(*words, "--who", "T", "--why", "a card", where=folder).code == 0
    return folder, call("ask", "my.toml", where=folder)


def test_check_says_what_public_facts_chose(asked: tuple[Path, Answer]) -> None:
    _, told = asked
    assert told.code == 0
    assert "openings 8; bins 16" in " ".join(told.out.split())
    assert "importance (column = delay)" in told.out


def test_a_stranger_recomputes_the_points(asked: tuple[Path, Answer]) -> None:
    folder, _ = asked
    (bundle,) = folder.glob("out/runs/*/bundle.privagg.zip")
    found = verify_file(bundle, Brought())
    assert found.holds
    assert "answers follow from the opened sum" in {claim.subject for claim in found.claims}
    page = next(folder.glob("out/runs/*/report.html")).read_text()
    assert all(f"<h3>{name}</h3>" in page for name in ("age", "paid", "delay", "town"))
    assert page.count("<figure ") >= 6  # a shape for each, importance, reliability


def test_the_card_predicts_and_says_where_it_is_from(asked: tuple[Path, Answer]) -> None:
    folder, _ = asked
    found = call("predict", "out/answers.json", "new.csv", "--reasons", "2", where=folder)
    assert found.code == 0
    first, *rest = csv.reader(io.StringIO(found.out))
    assert first == ["points", "chance", "reason_1", "lacks_1", "reason_2", "lacks_2"]
    assert len(rest) == 50
    by_points = sorted(rest, key=lambda row: float(row[0]))
    assert float(by_points[0][1]) > float(by_points[-1][1])
    made = json.loads((folder / "out/answers.json").read_bytes())
    assert made["model"]["plan_digest"] == made["plan_digest"]
    assert made["model"]["run"] == made["run"]
    assert call("export", "out/answers.json", "--format", "sql", where=folder).code == 0
    assert (folder / "out/answers.sql").read_text().startswith("ROUND(")
    assert call("export", "out/answers.json", "--format", "onnx", where=folder).code == 0
    assert (folder / "out/answers.onnx").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("predict", "no.json", "new.csv"), "cannot read the model no.json"),
        (("predict", "my.toml", "new.csv"), "cannot read the model my.toml"),
        (("predict", "out/answers.json"), "Missing argument 'DATA'"),
        (("predict", "out/answers.json", "no.csv"), "no file"),
        (("predict", "out/model.safetensors", "new.csv"), "cannot read the model"),
        (("export", "new.csv", "--format", "sql"), "cannot read the model new.csv"),
    ],
)
def test_what_cannot_be_predicted_is_refused_by_name(
    asked: tuple[Path, Answer], words: tuple[str, ...], says: str
) -> None:
    found = call(*words, where=asked[0])
    assert found.code == 2
    assert says in " ".join((found.out + found.err).split())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('ordered = ["delay"]', 'ordered = ["age"]', "declared with categories"),
        ("monotone = {", "monoton = {", "monoton"),
        ('positive = "== 1"', 'classes = ["0", "1", "2"]', "monotone is for two"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_spent(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    (tmp_path / "my.toml").write_text(CONFIG.replace(old, new))
    found = call("check", "my.toml", where=tmp_path)
    assert found.code == 2
    assert says in " ".join((found.out + found.err).split())


def test_the_plan_is_the_same_whenever_it_is_made(asked: tuple[Path, Answer]) -> None:
    from privagg import Federation

    setups = [AskSetup.of(Federation.from_toml(asked[0] / "my.toml").setup) for _ in range(2)]
    assert setups[0].plan.digest == setups[1].plan.digest


def test_several_classes_go_the_whole_way(tmp_path: Path) -> None:
    """Asked through the engine, recomputed by a stranger, read by `predict`."""
    config = CONFIG.replace('positive = "== 1"', 'classes = ["0", "1", "2"]')
    settings = 'settings = { openings = 1, ordered = ["delay"] }'
    config = config.replace(
        'settings = { ordered = ["delay"], monotone = { age = "falling" } }', settings
    )
    (tmp_path / "my.toml").write_text(config)
    of_classes(3000, 1)[0].to_csv(tmp_path / "north.csv", index=False)
    of_classes(2000, 2)[0].to_csv(tmp_path / "south.csv", index=False)
    of_classes(20, 3)[0].drop(columns="late").to_csv(tmp_path / "new.csv", index=False)
    words = ("approve", "my.toml", "--all-sites", "--job", "questions", "--yes")
    assert call(*words, "--who", "T", "--why", "cards", where=tmp_path).code == 0
    told = call("ask", "my.toml", where=tmp_path)
    assert "importance (column = delay)" in told.out
    (bundle,) = tmp_path.glob("out/runs/*/bundle.privagg.zip")
    assert verify_file(bundle, Brought()).holds
    rows = [*csv.DictReader(io.StringIO(
        call("predict", "out/answers.json", "new.csv", where=tmp_path).out))]  # fmt: skip
    assert len(rows) == 20
    for row in rows:
        chances = {label: float(row[f"chance_{label}"]) for label in "012"}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert chances[row["class"]] == max(chances.values())
    assert call("export", "out/answers.json", "--format", "sql", where=tmp_path).code == 0
    written = (tmp_path / "out/answers.sql").read_text()
    assert [f'AS "points {label}"' in written for label in "0123"] == [True, True, True, False]
