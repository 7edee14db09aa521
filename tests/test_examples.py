"""Every example: its committed settings make a sound plan, and a shortened run goes through."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privagg import Federation, Ledger, RunResult
from privagg.config.plan import build_plan
from privagg.config.schema import load_config
from privagg.party.open import ledger_here
from privagg.party.personal import HomeRule
from privagg.privacy.plan import ClientPlan, DistributedPlan, LocalPlan, TrainingPlan
from privagg.training.data import load_table
from tests.approvals import approved

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
DATA = Path(os.environ.get("PRIVAGG_DATA", ROOT.parent / "shared" / "data"))

CONFIGURATIONS = sorted(p for p in EXAMPLES.glob("*/*.toml") if p.name != "pyproject.toml")


def workspace(name: str, tmp_path: Path, *, rounds: int) -> Path:
    """A copy of one example without its outputs, its configurations cut to so many rounds."""
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("out", "__pycache__"))
    for path in folder.glob("*.toml"):
        text, found = re.subn(r"(?m)^rounds = \d+$", f"rounds = {rounds}", path.read_text())
        assert found == 1
        path.write_text(text)
    return folder


def source(name: str) -> Path:
    """The user's own tables, or a skip that says what is missing."""
    if not (DATA / name).is_dir():
        pytest.skip(f"no tables in {DATA / name}; set PRIVAGG_DATA to the folder that has {name}/")
    return DATA / name


def prepare(folder: Path, data: Path) -> None:
    """The example's own preparation, into the copy."""
    function: Callable[[Path, Path], None] = runpy.run_path(str(folder / "prepare.py"))["prepare"]
    function(data, folder / "out" / "data")


def assert_whole(federation: Federation, result: RunResult) -> None:
    """All rounds opened, every ledger charged with exactly the plan, and the files are there."""
    plan = federation.plan
    assert result.outcome == "finished", result.reason
    rosters = [plan.in_round(number).names for number in range(1, plan.rounds + 1)]
    assert [r.outcome.survivors for r in result.rounds] == rosters
    assert np.isfinite(result.parameters).all()
    assert np.abs(result.parameters).max() > 0
    assert 0 < result.metrics["accuracy"] <= 1
    for name in plan.names:
        with_key = ledger_here(federation.setup, name)
        assert isinstance(with_key, Ledger)
        spent = with_key.spent(federation.setup.budget_key(name)).epsilon.upper
        planned = federation.setup.accountant.epsilon(plan.total_committed(name), plan.delta).upper
        assert Decimal(0) < spent == planned <= federation.config.privacy.epsilon
    for file in (result.model, result.report_json, result.report_html):
        assert file is not None
        assert file.stat().st_size > 0


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_committed_settings_cost_what_they_say(path: Path) -> None:
    federation = Federation.from_toml(path)
    if not federation.declared:  # what to declare is asked first
        facts = federation.beside("facts")
        assert facts.epsilon * Decimal("0.999") < facts.cost <= facts.epsilon
        return
    plan, privacy = _plan(federation), federation.config.privacy
    uppers = [
        federation.setup.accountant.epsilon(plan.total_committed(name), plan.delta).upper
        for name in plan.names
    ]
    assert privacy.epsilon * Decimal("0.999") < max(uppers) <= privacy.epsilon
    assert plan.changes or privacy.epsilon * Decimal("0.999") < min(uppers)
    assert privacy.delta * max(site.records for site in plan.sites) < 1


def _plan(federation: Federation) -> TrainingPlan:
    """What it costs does not depend on how large a model is that nobody has built yet."""
    if not federation.setup.names_code:
        return federation.plan
    return build_plan(federation.config, dimension=9, accountant=federation.setup.accountant)


def test_the_examples_cover_modes_custodies_and_schemes() -> None:
    configs = [load_config(path) for path in CONFIGURATIONS]
    assert {c.privacy.mode for c in configs} == {
        "record-distributed",
        "record-local",
        "client",
    }
    assert {c.secure.custody.value for c in configs} == {"authority", "sites", "every-site"}
    assert {c.secure.scheme for c in configs} == {"ckks", "bfv", "paillier", "masked"}
    assert {c.training.optimizer.kind for c in configs} >= {"sgd", "adam", "momentum"}
    assert any(c.training.proximal_mu > 0 for c in configs)


def test_questions_before_training_from_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace("ask_first", tmp_path, rounds=2)
    made = runpy.run_path(str(folder / "ask.py"))
    asked, trained = made["asked"], made["result"]
    assert asked.outcome == trained.outcome == "finished"
    assert (asked.model, trained.answers) == (None, None)
    assert "radius mean yes" in capsys.readouterr().out
    assert (folder / "out" / "answers.json").read_bytes() == asked.answers.read_bytes()


def test_columns_are_declared_by_what_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace("unknown_columns", tmp_path, rounds=2)
    made = runpy.run_path(str(folder / "ask.py"))
    asked, trained = made["asked"], made["result"]
    assert asked.outcome == trained.outcome == "finished"
    assert 0 < trained.metrics["accuracy"] <= 1
    assert "[[data.features]]" in capsys.readouterr().out
    declared = load_config(folder / "out" / "declared.toml").data
    assert declared.target.name == "malignant"
    assert load_config(folder / "unknown_columns.toml").facts is not None


def test_evaluation_on_held_out_patients_from_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace("private_evaluation", tmp_path, rounds=2)
    made = runpy.run_path(str(folder / "evaluate.py"))
    trained, evaluated = made["result"], made["evaluated"]
    assert trained.outcome == evaluated.outcome == "finished"
    assert (trained.metrics, evaluated.model) == ({}, None)
    assert "area under the ROC curve: " in capsys.readouterr().out


def test_hazards_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = workspace("hazards", tmp_path, rounds=2)
    made = runpy.run_path(str(folder / "train.py"))
    assert made["result"].outcome == made["evaluated"].outcome == "finished"
    told = capsys.readouterr().out
    assert "C-index between intervals: " in told
    assert "alive at 70 years of age, new treatment: " in told


def test_survival_curves_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = workspace("time_to_event", tmp_path, rounds=2)
    asked = runpy.run_path(str(folder / "ask.py"))["asked"]
    assert asked.outcome == "finished"
    assert "log-rank p-value: " in capsys.readouterr().out
    assert "Dark: for these records." in asked.report_html.read_text()


def test_regressions_from_python(tmp_path: Path) -> None:
    """Every coefficient is within six standard errors of the one that its table was drawn with."""
    folder = workspace("regressions", tmp_path, rounds=2)
    told = runpy.run_path(str(folder / "ask.py"))["told"]
    assert len(told) == 3 * 4
    for name, (value, error, drawn) in told.items():
        assert abs(value - drawn) < 6 * error, name


def test_breast_cancer_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = workspace("breast_cancer", tmp_path, rounds=2)
    names = runpy.run_path(str(folder / "federation.py"))
    assert isinstance(names["federation"].plan, DistributedPlan)
    assert_whole(names["federation"], names["result"])
    assert str(names["result"].report_html) in capsys.readouterr().out
    assert (folder / "out" / "report.html").is_file()


def test_three_ways_to_write_a_table(tmp_path: Path) -> None:
    """The spreadsheet and the database hold the records that plain files of them hold."""
    folder = workspace("real_files", tmp_path, rounds=2)
    runpy.run_path(str(folder / "prepare.py"))["prepare"](folder / "out" / "data")
    federation = Federation.from_toml(folder / "real_files.toml")
    schema = federation.config.data.table_schema
    examined = [f for f in schema.features if f.name != "examined"]
    plain = schema.model_copy(update={"features": tuple(examined)})
    for site in federation.config.sites:
        records = federation.setup.records_of(site)
        whole = load_table(folder / "out" / "data" / "whole" / f"{site.name}.csv", plain)
        assert torch.equal(records.x[:, :-1], whole.x)
        assert torch.equal(records.y, whole.y)
        assert len(torch.unique(records.x[:, -1])) == site.records  # a day for each
    assert_whole(federation, approved(federation).run())
    kept = [path for path in (folder / "out").rglob("*") if path.is_file()]
    for path in kept:
        if path.name not in ("party.toml", "lakeview.sqlite"):
            assert b"FROM visits" not in path.read_bytes(), path


def test_heart_disease_over_four_hospitals(tmp_path: Path) -> None:
    data = source("heart")
    folder = workspace("heart_disease", tmp_path, rounds=2)
    prepare(folder, data)
    federation = Federation.from_toml(folder / "heart_disease.toml")
    assert isinstance(federation.plan, LocalPlan)
    for site in federation.config.sites:
        assert len(federation.setup.records_of(site)) == site.records
    assert federation.setup.public_records is not None
    assert len(federation.setup.public_records) == 150
    assert_whole(federation, approved(federation).run())


def test_credit_default_over_three_banks(tmp_path: Path) -> None:
    data = source("credit")
    folder = workspace("credit_default", tmp_path, rounds=2)
    prepare(folder, data)
    federation = Federation.from_toml(folder / "credit_default.toml")
    result = approved(federation).run()
    assert_whole(federation, result)
    assert "auc" in result.metrics


def test_plants_that_join_and_leave(tmp_path: Path) -> None:
    folder = workspace("sensors", tmp_path, rounds=3)
    runpy.run_path(str(folder / "prepare.py"))["prepare"](folder / "out" / "data")
    path = folder / "sensors.toml"
    path.write_text(re.sub(r"_round = [58]", "_round = 2", path.read_text()))
    federation = Federation.from_toml(path)
    result = approved(federation).run()
    assert_whole(federation, result)
    assert [len(each.outcome.survivors) for each in result.rounds] == [3, 4, 3]


def test_peoples_devices(tmp_path: Path) -> None:
    folder = workspace("devices", tmp_path, rounds=2)
    runpy.run_path(str(folder / "prepare.py"))["prepare"](folder / "out" / "data")
    labels = [np.load(path) for path in sorted((folder / "out" / "data").glob("*-labels.npy"))]
    for form in labels[:-1]:  # each begins as a form does, and none holds the next one's beginning
        thrice = np.tile(np.arange(10), 3).tolist()
        assert len(set(form[:10])) >= 9
        assert thrice not in [form[at : at + 30].tolist() for at in range(1, len(form))]
    federation = Federation.from_toml(folder / "devices.toml")
    result = approved(federation).run()
    assert_whole(federation, result)
    own = federation.personalise("device-04", rule=HomeRule(steps=20, held_out=0.3))
    assert own.personal["loss"] < own.opened["loss"]


def test_three_clients_with_image_files(tmp_path: Path) -> None:
    folder = workspace("digits_images", tmp_path, rounds=2)
    runpy.run_path(str(folder / "prepare.py"), run_name="__main__")
    federation = Federation.from_toml(folder / "digits_images.toml")
    assert isinstance(federation.plan, LocalPlan)
    result = approved(federation).run()
    assert_whole(federation, result)
    assert result.parameters.size == 64 * 32 + 32 + 32 * 10 + 10


def test_people_as_clients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = workspace("digits_images", tmp_path, rounds=2)
    main: Callable[..., Federation] = runpy.run_path(str(folder / "by_person.py"))["main"]
    federation = main(people=6, rounds=1)
    assert isinstance(federation.plan, ClientPlan)
    assert federation.plan.unit.value == "person"
    assert "finished" in capsys.readouterr().out
    spent = ledger_here(federation.setup, "person-005").spent(
        federation.setup.budget_key("person-005")
    )
    assert Decimal(0) < spent.epsilon.upper <= 8


def test_by_person_counts_on_the_hundred_people_it_names() -> None:
    module = runpy.run_path(str(EXAMPLES / "digits_images" / "by_person.py"))
    sites = [{"name": f"p{i}", "records": 15, "data": "-", "labels": "-"} for i in range(100)]
    plan = Federation.from_dict(module["configuration"](sites, 8)).plan
    assert plan.minimum_survivors == 95
    assert plan.delta * 100 < 1


def test_a_tree_of_aggregators(capsys: pytest.CaptureFixture[str]) -> None:
    main: Callable[[], np.ndarray] = runpy.run_path(str(EXAMPLES / "aggregator_tree" / "tree.py"))[
        "main"
    ]
    assert main().tolist() == [1 + 2 + 3 + 4 + 5] * 1000
    assert "north: 3 uploads in one frame" in capsys.readouterr().out


def test_the_first_hours_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace("ask_first", tmp_path, rounds=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = json.loads((EXAMPLES / "first_hour.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)  # every reader makes their own
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            code = compile("".join(cell["source"]), f"first_hour.ipynb, cell {number}", "exec")
            exec(code, names)
    assert names["asked"].outcome == names["trained"].outcome == "finished"
    assert names["found"].holds
    assert names["again"] > 0
