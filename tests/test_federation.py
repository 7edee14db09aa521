"""The whole way through the Python door: every mode and scheme, every refusal before spending."""

from __future__ import annotations

import copy
import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from privagg import Federation
from privagg.config.schema import parse_config
from privagg.errors import (
    ApprovalError,
    BudgetExceededError,
    ConfigError,
    DataError,
    ModelError,
    PlanError,
    SchemeError,
)
from privagg.party.local import local_folder
from privagg.party.open import ledger_here
from privagg.privacy.ledger import BudgetKey, Ledger
from privagg.privacy.randomness import DeterministicRandomness
from privagg.secure.plaintext import PlaintextScheme
from privagg.secure.scheme import Phase
from privagg.training.datasets import BREAST_CANCER_SCHEMA, BREAST_CANCER_SITES, write_breast_cancer
from tests.approvals import approved

BASE: dict[str, Any] = {
    "federation": {"name": "three-hospitals"},
    "privacy": {"epsilon": "2", "delta": "1e-5"},
    "training": {
        "rounds": 3,
        "sampling_rate": "0.3",
        "optimizer": {"kind": "sgd", "learning_rate": 2.0},
    },
    "secure": {"scheme": "plaintext", "custody": "authority"},
    "data": {"kind": "table", **BREAST_CANCER_SCHEMA.model_dump()},
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_breast_cancer(tmp_path_factory.mktemp("tables"))


def config(tables: dict[str, Path], **sections: dict[str, Any]) -> dict[str, Any]:
    values = copy.deepcopy(BASE)
    values["sites"] = [
        {"name": name, "data": str(tables[name]), "records": records}
        for name, records in BREAST_CANCER_SITES.items()
    ]
    values["evaluation"] = {"data": str(tables["public"]), "public": True}
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    if values["privacy"].get("mode") == "client":  # which samples no records
        values["training"] = {k: v for k, v in values["training"].items() if k != "sampling_rate"}
    return values


def federation(tables: dict[str, Path], folder: Path, **sections: dict[str, Any]) -> Federation:
    return Federation.from_dict(config(tables, **sections), base=folder)


def ready(tables: dict[str, Path], folder: Path, **sections: dict[str, Any]) -> Federation:
    """A federation whose owners have approved it."""
    return approved(federation(tables, folder, **sections))


MODES: list[dict[str, Any]] = [
    {"privacy": {"mode": "record-distributed"}},
    {"privacy": {"mode": "record-local"}, "training": {"local_steps": 2}},
    {"privacy": {"mode": "client", "unit": "site"}, "training": {"local_steps": 2}},
]


@pytest.mark.parametrize("sections", MODES, ids=lambda s: s["privacy"]["mode"])
@pytest.mark.parametrize("custody", ["authority", "sites"])
def test_every_mode_trains_charges_and_reports(
    tables: dict[str, Path], tmp_path: Path, sections: dict[str, Any], custody: str
) -> None:
    made = ready(tables, tmp_path, **sections, secure={"custody": custody})
    result = made.run()
    assert result.outcome == "finished", result.reason
    assert len(result.rounds) == 3
    # Noise for whole clients drowns what three of them say, so nothing is expected of that model.
    floor = 0.0 if sections["privacy"]["mode"] == "client" else 0.3
    assert floor < result.metrics["accuracy"] <= 1
    assert result.model is not None
    assert result.model.stat().st_size > 100
    assert result.report_json is not None
    report = json.loads(result.report_json.read_text())
    plan, apart = made.plan, made.setup.kept_apart(made.plan.names[0])
    assert result.report_html is not None
    page = result.report_html.read_text()
    assert ("the records beside it was tested at" in page) is (apart is not None)
    for site in report["sites"]:
        assert site["records_apart"] == ([apart.facts()] if apart else [])
        ledger = ledger_here(made.setup, site["name"])
        spending = ledger.spent(BudgetKey(site["dataset"], plan.unit.value))
        assert spending.event.terms == plan.total_committed(site["name"]).terms
        assert Decimal(site["epsilon_after_run"]) == spending.epsilon.upper
        assert spending.epsilon.upper <= Decimal(2)
        assert spending.epsilon.certified
        assert spending.epsilon.upper > Decimal("1.999")


def test_all_schemes_give_the_same_parameters_bit_by_bit(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    models = {}
    for scheme, secure in {
        "plaintext": {},
        "ckks": {},
        "bfv": {},
        "paillier": {"security_bits": 112, "options": {"modulus_bits": 2048}},
    }.items():
        made = ready(
            tables,
            tmp_path / scheme,
            privacy={"budget_epsilon": "Infinity"},
            secure={"scheme": scheme, **secure},
        )
        result = made.run(randomness=DeterministicRandomness(b"same"), run_id="one")
        assert result.outcome == "finished", result.reason
        assert result.model is not None
        models[scheme] = result.parameters.tobytes()
        spent = ledger_here(made.setup, "riverside").spent(BudgetKey("riverside", "record"))
        assert not spent.epsilon.upper.is_finite()
    assert len(set(models.values())) == 1


def test_a_run_predicts_and_a_second_that_would_overspend_is_refused_unspent(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    made = ready(tables, tmp_path)
    made_metrics = made.run().metrics
    lacking = tmp_path / "lacking.csv"
    lacking.write_text("mean texture\n1\n")
    before = ledger_here(made.setup, "riverside").checkpoint()
    again = federation(tables, tmp_path)
    assert again.setup.public_records is not None
    chances = again.predict(tables["public"])
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    _, outcomes = again.setup.public_records.gather(np.arange(len(chances)))
    right = float((chances.argmax(axis=1) == outcomes.numpy()).mean())
    assert right == made_metrics["accuracy"]
    with pytest.raises(DataError, match=r"'mean radius'.*declared but not in"):
        again.predict(lacking)
    with pytest.raises(BudgetExceededError, match="nothing was spent") as refused:
        again.run()
    said = str(refused.value)
    assert "of which earlier runs spent" in said
    assert "As good as nothing is left of it. Have the owner of the data approve" in said
    sites = "--site riverside --site hillcrest --site lakeview"
    assert f"privagg approve CONFIG {sites} --budget NEW" in said
    assert ledger_here(again.setup, "riverside").checkpoint() == before


def test_what_is_proposed_trains_and_predicts(tables: dict[str, Path], tmp_path: Path) -> None:
    values = config(tables, privacy={"colluders": 0})
    values["training"] = {}
    job = approved(Federation.from_dict(values, base=tmp_path))
    assert {one.key for one in job.config.proposed} >= {"training.rounds", "training.optimizer"}
    assert job.config.training.model.centred
    result = job.run()
    assert result.metrics["auc"] > 0.95
    public = pd.read_csv(tables["public"])
    chances = job.predict(tables["public"])
    truth = BREAST_CANCER_SCHEMA.target.read(public)
    assert roc_auc_score(truth, chances[:, 1]) == pytest.approx(result.metrics["auc"], abs=1e-6)


def test_a_budget_too_small_for_one_round_is_refused_before_any_key_or_charge(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    made = federation(tables, tmp_path, privacy={"budget_epsilon": "0.1"})
    with pytest.raises(BudgetExceededError, match="beyond its budget"):
        approved(made)
    assert not local_folder(made.setup.output, "lakeview").ledger.exists()
    with pytest.raises(ApprovalError, match="nothing was spent"):
        made.run()


def test_a_run_that_cannot_begin_leaves_no_key_behind(
    tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ready(tables, tmp_path)
    monkeypatch.setattr("privagg.run.open.CheckpointWatch", _fail)
    with pytest.raises(OSError, match="no space left"):
        made.run(run_id="stillborn")
    openings = local_folder(made.setup.output, made.setup.opener).openings
    with closing(sqlite3.connect(openings)) as database:
        rows = database.execute("SELECT run, secret FROM run_key").fetchall()
    assert rows == [("stillborn", None)]


def _fail(*_: object) -> None:
    raise OSError("no space left")


def test_weights_and_custody_stand_in_the_plan(tables: dict[str, Path], tmp_path: Path) -> None:
    made = federation(
        tables, tmp_path, privacy={"mode": "record-local"}, secure={"custody": "sites"}
    )
    assert [site.weight for site in made.plan.sites] == list(BREAST_CANCER_SITES.values())
    assert made.setup.opener == made.plan.names[0]
    assert made.plan.custody.value == "sites"


def test_bn_is_refused_by_name(tables: dict[str, Path], tmp_path: Path) -> None:
    made = federation(tables, tmp_path, training={"model": "tests.test_federation:batch_norm"})
    with pytest.raises(ApprovalError, match="nothing was imported"):
        _ = made.plan
    with pytest.raises(ModelError, match="BatchNorm1d.*GroupNorm"):
        approved(made)


def batch_norm(input_shape: tuple[int, ...], classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(input_shape[0], 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
    )


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"privacy": {"epsilonn": 1}}, ConfigError, "epsilonn"),
        ({"privacy": {"delta": 2}}, ConfigError, "privacy.delta"),
        ({"training": {"rounds": "many"}}, ConfigError, "training.rounds"),
        ({"secure": {"custody": "me"}}, ConfigError, "authority"),
        ({"evaluation": {"public": False}}, ConfigError, "evaluation.public"),
        ({"privacy": {"colluders": 3}}, PlanError, "honest"),
        ({"secure": {"scheme": "rot13"}}, ConfigError, "rot13"),
        ({"compression": {"bits": 1}}, ConfigError, "compression.bits"),
        ({"compression": {"keep": 0}}, ConfigError, "compression.keep"),
        ({"compression": {"keep": "1.5"}}, ConfigError, "compression.keep"),
        ({"compression": {"rounding": "up"}}, ConfigError, "compression.rounding"),
        ({"compression": {"mask": "top-k"}}, ConfigError, "top-k.*needs `keep` below 1"),
        ({"compression": {"mask": "own-top-k", "keep": "0.5"}}, ConfigError, "compression.mask"),
        ({"compression": {"sparsity": 2}}, ConfigError, "compression.sparsity"),
        (
            {"compression": {"bits": 8}, "privacy": {"sensitivity_grid": 128}},
            ConfigError,
            "compression.bits sets the grid",
        ),
        ({"compression": {"bits": 8}}, PlanError, "another sensitivity"),
        ({"compression": {"rotation": True}}, PlanError, "another sensitivity"),
        (
            {"compression": {"keep": "0.01", "mask": "top-k"}, "privacy": {"mode": "client"}},
            PlanError,
            "compression: .*at least 2",
        ),
        (
            {"compression": {"rounding": "truncate"}, "privacy": {"mode": "record-local"}},
            PlanError,
            "towards zero",
        ),
    ],
)
def test_bad_configuration_is_named(
    tables: dict[str, Path], tmp_path: Path, change: dict[str, Any], error: Any, text: str
) -> None:
    with pytest.raises((error, SchemeError), match=text):
        made = federation(tables, tmp_path, **change)
        _ = made.parameters


def test_a_scheme_whose_phases_no_round_drives_is_refused_before_anything_is_made(
    tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ready(tables, tmp_path)
    phases = (Phase.UPLOAD, Phase.CONSENT, Phase.OPEN)
    monkeypatch.setattr(PlaintextScheme, "phases", phases)
    with pytest.raises(SchemeError, match="'plaintext' declares the phases upload, consent, open"):
        federation(tables, tmp_path).run()
    assert not list(tmp_path.rglob("openings*"))  # not even a key was made
    paths = [local_folder(made.setup.output, site).ledger for site in made.setup.plan.names]
    entries = [entry.kind for path in paths for entry in Ledger.open(path).entries()]
    assert entries
    assert "charge" not in entries


def test_missing_column_and_unreadable_file_spend_nothing(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    short = tmp_path / "short.csv"
    short.write_text("a,b\n1,2\n")
    values = config(tables)
    values["sites"][0]["data"] = str(short)
    with pytest.raises(DataError, match="mean radius"):
        Federation.from_dict(values, base=tmp_path).run()
    values["sites"][0]["data"] = str(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match="nowhere.csv"):
        Federation.from_dict(values, base=tmp_path).run()
    assert not (tmp_path / "out").exists()


def test_a_public_table_of_one_class_is_refused_before_anything_is_spent(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    """Accuracy on it was 1 for a model that had learned nothing."""
    values = config(tables)
    values["data"]["target"] = {"name": "malignant", "positive": "== yes"}
    with pytest.raises(
        ConfigError, match="of the public table's 119 usable records none has another"
    ):
        federation = Federation.from_dict(values, base=tmp_path)
        federation.approve(who="tester", why="a test", accept_findings=True)
        federation.run()
    ledgers = (tmp_path / "out" / "ledgers").glob("*.sqlite")
    assert not any(entry.kind == "charge" for p in ledgers for entry in Ledger.open(p).entries())


def test_custody_has_no_default(tables: dict[str, Path]) -> None:
    values = config(tables)
    del values["secure"]["custody"]
    with pytest.raises(ConfigError, match="secure.custody"):
        parse_config(values)


def test_the_mean_is_the_sum_over_public_numbers(tables: dict[str, Path], tmp_path: Path) -> None:
    """Without noise the federation is one plain gradient step on the union of the tables."""
    made = ready(
        tables,
        tmp_path,
        privacy={"noise_multiplier": 0, "budget_epsilon": "Infinity", "clip_norm_l2": "1000"},
        training={"rounds": 1, "sampling_rate": 1, "optimizer": {"learning_rate": 1.0}},
    )
    result = made.run()
    x, y = zip(
        *(
            made.setup.records_of(site).gather(np.arange(len(made.setup.records_of(site))))
            for site in made.config.sites
        ),
        strict=True,
    )
    features = torch.cat(list(x)).double().numpy()
    labels = torch.cat(list(y)).double().numpy()
    residual = 0.5 - labels
    declared = sum(site.records for site in made.plan.sites)
    gradient = np.append(features.T @ residual, residual.sum()) / declared
    grid_step = 1000 / made.plan.sensitivity_grid
    np.testing.assert_allclose(result.parameters, -gradient, atol=grid_step)


class Rings(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Sixty public points in two rings, as any torch data set would hold them."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        angle, label = index * 0.7, index % 2
        radius = 0.3 + 0.6 * label
        return torch.tensor([radius * np.cos(angle), radius * np.sin(angle)]), label


def test_torch_data_sets_train_a_network(tmp_path: Path) -> None:
    values = copy.deepcopy(BASE)
    values["data"] = {"kind": "dataset", "shape": (2,), "classes": 2}
    values["training"] = {
        "model": {"kind": "mlp", "hidden": [8]},
        "rounds": 2,
        "local_steps": 3,
        "proximal_mu": 0.1,
        "optimizer": {"kind": "adam", "learning_rate": 0.05},
    }
    values["privacy"] = {"mode": "client", "epsilon": "5", "delta": "1e-5", "unit": "person"}
    values["sites"] = [
        {"name": f"phone-{i}", "data": "tests.test_federation:Rings", "records": 60}
        for i in range(4)
    ]
    values["evaluation"] = {"data": "tests.test_federation:Rings", "public": True}
    result = approved(Federation.from_dict(values, base=tmp_path)).run()
    assert result.outcome == "finished"
    assert len(result.parameters) == 8 * 2 + 8 + 8 + 1
    assert "accuracy" in result.metrics


def test_parquet_and_csv_sites_train_together(tables: dict[str, Path], tmp_path: Path) -> None:
    import pandas as pd

    parquet = tmp_path / "riverside.parquet"
    pd.read_csv(tables["riverside"]).to_parquet(parquet)
    values = config(tables, training={"rounds": 1})
    values["sites"][0]["data"] = str(parquet)
    made = Federation.from_dict(values, base=tmp_path)
    plain = federation(tables, tmp_path / "csv")
    site = made.config.sites[0]
    x, y = made.setup.records_of(site).gather(np.arange(220))
    same_x, same_y = plain.setup.records_of(plain.config.sites[0]).gather(np.arange(220))
    assert torch.equal(x, same_x)
    assert torch.equal(y, same_y)
    assert approved(made).run().outcome == "finished"


def test_noise_given_by_hand_keeps_the_limit_too(tables: dict[str, Path], tmp_path: Path) -> None:
    made = federation(tables, tmp_path, privacy={"noise_multiplier": "0.5"})
    with pytest.raises(PlanError, match="more than privacy.epsilon"):
        _ = made.plan


def test_another_unit_gets_no_fresh_budget_by_itself(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    ready(tables, tmp_path).run()
    made = federation(tables, tmp_path, privacy={"mode": "client"})
    with pytest.raises(ApprovalError, match="says something about the other too"):
        made.approve(who="tester", why="a test")
    with pytest.raises(ApprovalError, match="nothing was spent"):
        made.run()
