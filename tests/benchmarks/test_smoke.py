"""The benchmarks' parts agree with each other, and one draw of each goes through."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privagg.config.schema import parse_config
from privagg.training.frozen import choose_trainable
from privagg.training.models import ParameterLayout
from privagg.training.table import TableSchema
from tests.benchmarks import (
    compression,
    contained,
    credit,
    defaults,
    heart,
    large,
    lora,
    propose,
    questions,
    survival,
    synthetic_credit,
    synthetic_heart,
)
from tests.benchmarks.replay import Replay, calibrated, over_draws
from tests.benchmarks.resnet import resnet50

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("PRIVAGG_DATA", ROOT.parent / "shared" / "data"))


def tables(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"no tables in {DATA / name}; set PRIVAGG_DATA to the folder that has {name}/")
    return DATA / name


def test_hearts_declaration_encodes_as_the_synthetic_study_did() -> None:
    columns = synthetic_heart.draw_federation(np.random.default_rng(5)).train[0][0]
    table = pd.DataFrame(columns).assign(num=0)
    data = heart.configuration("record-local", {"cleveland": 9})["data"]
    x, _ = TableSchema.model_validate(data).encode(table)
    studied = synthetic_heart.encode(columns, synthetic_heart.WEIGHTED)
    np.testing.assert_allclose(x, studied[:, :-1], rtol=1e-6)


def test_both_modes_take_the_studied_recipes() -> None:
    shared = heart.configuration("record-distributed", {"cleveland": 9})
    local = heart.configuration("record-local", {"cleveland": 9})
    assert shared["training"]["rounds"] == synthetic_heart.Recipe().rounds
    assert local["training"]["local_steps"] == synthetic_heart.LocalRecipe().local_steps
    assert shared["data"] == local["data"]


def test_credits_encoding_has_eighty_columns() -> None:
    table = synthetic_credit.draw_card_holders(np.random.default_rng(0), 50)
    x, y = synthetic_credit.encode(table, "log-categories")
    assert x.shape == (50, 81)
    assert set(np.unique(y)) <= {0.0, 1.0}
    assert np.abs(x).max() <= 1.25  # a bill of two million is log 2001 of log 501


def test_standard_error_against_numpy() -> None:
    values = np.random.default_rng(1).random(7)
    found = over_draws("accuracy", list(values))
    assert found["accuracy"] == pytest.approx(values.mean())
    assert found["accuracy_se"] == pytest.approx(values.std(ddof=1) / 7**0.5)
    assert over_draws("accuracy", [0.5])["accuracy_se"] == 0


def test_flambys_split_and_table() -> None:
    folder = tables("heart")
    sizes = [
        tuple(map(len, heart.split(heart.complete_rows(folder, name)))) for name in heart.HOSPITALS
    ]
    assert sizes == [(199, 104), (172, 89), (30, 16), (85, 45)]
    # The means that FLamby's file holds, to three decimals.
    theirs = {"0": 0.712, "0.1": 0.606, "1": 0.685, "5": 0.704, "10": 0.700}
    for epsilon, accuracy in theirs.items():
        assert round(heart.peer_accuracy(folder, Decimal(epsilon)), 3) == accuracy


def test_heart_noise_is_what_the_named_observer_pays_for(tmp_path: Path) -> None:
    counts = heart.write_split(tables("heart"), tmp_path)
    values = heart.configuration("record-distributed", counts)
    federation = calibrated(values, tmp_path, heart.MODEL_USERS, Decimal(1))
    (tmp_path / "state").mkdir()
    replay = Replay(federation, tmp_path / "state")
    users, sites = replay.guarantees(heart.MODEL_USERS, heart.ONE_COLLUDER)
    assert Decimal("0.9999") < users.epsilon <= 1 < sites.epsilon
    assert users.certified
    # The exact noise of one Gaussian mechanism, by Balle & Wang's formula, spread over the rounds.
    exact = synthetic_heart.gaussian_noise_multiplier(1, 1e-4) * federation.plan.rounds**0.5
    committed = float(federation.plan.noise_multiplier)
    assert committed * (4 / 3) ** 0.5 == pytest.approx(exact, rel=1e-5)
    draw = next(replay.draws(1))
    assert set(draw.epsilon_spent.values()) == {sites.epsilon}
    assert heart.TestSets(federation, tmp_path).accuracy(draw.parameters) > 0.7


def test_heart_rows_stand_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tables("heart")
    monkeypatch.setattr(heart, "JOBS", heart.JOBS[1:2])
    path = tmp_path / "rows.json"
    heart.main(["--data", str(folder), "--json", str(path), "--draws", "2", "--workers", "1"])
    rows = json.loads(path.read_text())
    assert [(r["epsilon"], r["observer"], r["colluding_sites"]) for r in rows] == [
        (1.0, "model-users", 0),
        (1.177, "sites", 1),
    ]
    for row in rows:
        assert row["delta"] == 1e-4
        assert row["peer_accuracy"] == pytest.approx(0.685, abs=5e-4)
        assert row["accuracy"] > 0.75
        assert row["draws"] == 2
        assert row["certified"] is True
        assert all(step["charged"] for step in row["data_dependent_steps"])


def test_a_row_of_the_compression_table_keeps_its_epsilon_and_learns() -> None:
    row = compression.measure("both", compression.ENCODINGS["8 bits, rotation, random-k half"], 1)
    assert (row["parameters"], row["sent"]) == (650, 512)
    assert 7.99 < row["epsilon"] <= 8
    assert row["accuracy"] > 0.8
    assert row["million_bytes_a_parameter"] < 3.2  # half of what stands without compression


def test_credit_federation_is_configured_for_three_banks() -> None:
    federation = calibrated(
        credit.configuration("record-distributed"), Path(), credit.MODEL_USERS, Decimal(1)
    )
    assert federation.plan.dimension == 81
    assert federation.plan.names == credit.BANKS
    event = federation.plan.observers("bank_a", 3)[0].event.repeated(federation.plan.rounds)
    assert federation.setup.accountant.epsilon(event, Decimal(credit.DELTA)).upper <= 1


@pytest.mark.parametrize("table", sorted(defaults.TABLES))
def test_the_defaults_are_left_to_proposals(table: str) -> None:
    config = parse_config(defaults.configuration(table, "1", 1))
    named = {one.key for one in config.proposed}
    assert {"training.rounds", "training.optimizer", "privacy.clip_norm_l2"} <= named


def test_the_search_chooses_what_lies_nearest_its_ceiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propose, "RECORDS", 300)
    monkeypatch.setattr(propose, "LEVELS", (0.05,))
    monkeypatch.setattr(propose, "KINDS", ((0.05, True, 6), (0.05, False, 6)))
    propose.main(["--worlds", "2", "--json", str(tmp_path / "rows.json")])
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["rounds"] == 6
    assert row["rate"] in propose.RATES
    assert row["clip"] in propose.CLIPS
    assert row["gap"] < 0.3


def test_flowers_overhead_is_measured_on_opened_rounds(tmp_path: Path) -> None:
    pytest.importorskip("flwr")
    from tests.benchmarks import flower_overhead

    path = tmp_path / "overhead.json"
    words = ["--clients", "3", "--parameters", "1000", "--rounds", "1", "--json", str(path)]
    found = flower_overhead.main(words)
    assert json.loads(path.read_text()) == found
    # A float32 model goes down as float64; an upload is a ciphertext.
    assert found["with"]["bytes_down"] > found["without"]["bytes_down"] >= 4000
    assert found["with"]["bytes_up"] > found["without"]["bytes_up"] >= 4000


def test_no_record_moves_a_sum_by_more_than_s_and_the_search_finds_what_leaks(
    tmp_path: Path,
) -> None:
    from tests.benchmarks import sensitivity

    path = tmp_path / "sensitivity.json"
    assert sensitivity.main(["--short", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())
    leaks = {row["model"]: row["ratio"] for row in rows if row["kind"] == "control"}
    assert leaks["rank rows, logistic"] >= 1.5
    assert leaks["layout, time first"] >= 40
    accepted = [row for row in rows if row["kind"] == "accepted"]
    assert {row["model"] for row in accepted} == set(sensitivity.SHORT)
    assert all(0 < row["ratio"] <= 1 for row in accepted)


def test_a_search_that_finds_no_leak_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of equal place leave nothing to find; the run says so by its exit code."""
    from tests.benchmarks import sensitivity

    def in_one_place(trainer: Any, grid: Any, records: Any) -> np.ndarray:
        return np.zeros(trainer.dimension, dtype=np.int64)

    monkeypatch.setattr(sensitivity, "rank_sum", in_one_place)
    monkeypatch.setattr(sensitivity, "subjects", lambda: [])
    assert sensitivity.main(["--short"]) == 1


def test_no_drawn_interval_misses_the_truth() -> None:
    rows = contained.measured(10)
    assert not any(row["missed"] for row in rows)
    assert len({row["method"] for row in rows} - {"trivial"}) >= 3


def test_questions_answers_are_as_near_as_their_intervals_say() -> None:
    study = questions.STUDIES[0]
    tables_there = study.read(tables("heart"))
    for asked in questions.questions(study, pd.concat(tables_there.values())):
        made = questions.federation(study, tables_there, asked.question, "3")
        error, coverage = questions.ours(
            made, tables_there, asked, draws=40, middle=study.number[1]
        )
        assert 0 < error < 5
        assert coverage > 0.6


def test_a_survival_curve_and_a_regression_go_through() -> None:
    study = survival.STUDIES[0]
    table = survival.read(tables("survival"), study)
    found = survival.curve(study, table, "1", draws=40)
    assert found["error"] < 0.035  # 0.02 over many draws
    assert found["coverage"] > 0.85
    regression = survival.regression(study, table, "1000", draws=1)
    assert abs(regression["c_index"] - regression["c_index_without_privacy"]) < 0.01


def test_the_large_model_has_the_parameters_that_are_said() -> None:
    model = resnet50((3, 64, 64), 1000)
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    choose_trainable(model, large.BLOCK_AND_HEAD)
    assert ParameterLayout.of(model).dimension == 6_511_592


@pytest.mark.nightly
def test_adapters_are_measured_beside_plain_ones() -> None:
    rows = lora.rows(seeds=1, steps=2, rounds=1)
    assert [row["way"] for row in rows] == ["private", "plain", "base"]
    assert all(0 < row["accuracy"] < 1 and row["trained"] == 2308 for row in rows)
    assert rows[0]["epsilon"] <= 8
