"""What the proposed settings reach on real tables: AUC of a logistic model, nothing chosen on them.

    python -m tests.benchmarks.defaults --data ../shared/data --json out/defaults.json

Credit default (UCI, Yeh, CC BY 4.0) over three banks and Adult (UCI, Becker, CC BY 4.0) over three
offices. Each configuration declares columns, sites, epsilon and colluders, and leaves `rounds` out:
rounds, rate, clip and the rest are `privagg.config.proposal`'s, which come from synthetic tables
(`propose.py`). Columns are declared from the tables' public descriptions. Every run goes through
the whole encrypted path; the test table is taken as declared public.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from privagg import Federation
from privagg.config.data import TableData
from privagg.training.data import load_table
from privagg.training.evaluate import evaluate
from privagg.training.measures import roc_auc
from tests.benchmarks.replay import Replay, in_parallel, over_draws, throwaway_folder
from tests.benchmarks.synthetic_credit import declarations
from tests.benchmarks.tables import Row, show, write_json

DELTA = "1e-5"
EPSILONS = ("0.1", "0.5", "1")

ADULT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("age", {"range": [17, 90]}),
    ("workclass", {"categories": [
        "Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov",
        "Without-pay", "Never-worked"]}),
    ("education", {"categories": [
        "Bachelors", "Some-college", "11th", "HS-grad", "Prof-school", "Assoc-acdm", "Assoc-voc",
        "9th", "7th-8th", "12th", "Masters", "1st-4th", "10th", "Doctorate", "5th-6th",
        "Preschool"]}),
    ("marital_status", {"categories": [
        "Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed",
        "Married-spouse-absent", "Married-AF-spouse"]}),
    ("occupation", {"categories": [
        "Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial",
        "Prof-specialty", "Handlers-cleaners", "Machine-op-inspct", "Adm-clerical",
        "Farming-fishing", "Transport-moving", "Priv-house-serv", "Protective-serv",
        "Armed-Forces"]}),
    ("relationship", {"categories": [
        "Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried"]}),
    ("race", {"categories": [
        "White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"]}),
    ("sex", {"categories": ["Female", "Male"], "drop_first": True}),
    ("capital_gain", {"range": [0, 100_000], "transform": "signed-log"}),
    ("capital_loss", {"range": [0, 5_000], "transform": "signed-log"}),
    ("hours_per_week", {"range": [1, 99]}),
)  # fmt: skip
"""Columns as the data set's own description lists them; `education_num` says `education` again,
`fnlwgt` is a weight, and of `native_country` the description names 41 that hardly anybody has."""

TABLES: Mapping[str, dict[str, Any]] = {
    "credit": {
        "data": {
            "features": declarations("log-categories"),
            "target": {"name": "default", "positive": "== 1"},
        },
        "sites": {"bank_a": 8_000, "bank_b": 8_000, "bank_c": 8_000},
    },
    "adult": {
        "data": {
            "features": [{"name": name, **facts} for name, facts in ADULT],
            "target": {"name": "income", "positive": "== >50K"},
        },
        "sites": {"office_north": 10_854, "office_east": 10_854, "office_south": 10_853},
    },
}


@dataclass(frozen=True)
class Job:
    """One table at one epsilon, against so many colluding sites."""

    table: str
    epsilon: str
    colluders: int
    draws: int
    data: Path


def configuration(table: str, epsilon: str, colluders: int) -> dict[str, Any]:
    """A whole configuration but for what is proposed."""
    facts = TABLES[table]
    return {
        "federation": {"name": table},
        "privacy": {"epsilon": epsilon, "delta": DELTA, "colluders": colluders},
        "training": {"model": "logistic"},
        "secure": {"scheme": "ckks", "custody": "authority"},
        "data": facts["data"],
        "sites": [
            {"name": name, "data": f"{name}.csv", "records": records}
            for name, records in facts["sites"].items()
        ],
    }


def measure(job: Job) -> Row:
    """The row of one job: AUC over draws of the noise."""
    folder = job.data / job.table
    federation = Federation.from_dict(
        configuration(job.table, job.epsilon, job.colluders), base=folder
    )
    data = federation.config.data
    assert isinstance(data, TableData)
    tests = load_table(folder / "test.csv", data.table_schema, public=True)
    with throwaway_folder() as state:
        runs = list(Replay(federation, state).draws(job.draws))
    model = federation.setup.fresh_model()
    areas = [evaluate(model, run.parameters, tests).figures.get("auc", 0.5) for run in runs]
    spread = float(np.std(areas, ddof=1)) if len(areas) > 1 else 0.0
    training = federation.config.training
    return {
        "benchmark": "defaults", "table": job.table, "epsilon": float(job.epsilon),
        "delta": float(DELTA), "colluders": job.colluders, **over_draws("auc", areas),
        "auc_sd": spread, "auc_least": min(areas),
        "noise_multiplier": str(federation.plan.noise_multiplier),
        "parameters": federation.plan.dimension,
        "rounds": training.rounds, "clip_norm_l2": str(federation.plan.clip_norm_l2),
        "learning_rate": training.optimizer.learning_rate,
        "centred": training.model.centred,
        "pooled_without_privacy": pooled(job.table, job.data),
        "test_table": "taken as declared public; its AUC is not charged",
        "hyperparameters": "privagg.config.proposal, from synthetic tables alone (propose.py)",
    }  # fmt: skip


def pooled(table: str, data: Path) -> float:
    """AUC of scikit-learn's logistic regression on the pooled sites, encoded alike, no privacy."""
    facts = TABLES[table]
    schema = TableData.model_validate(facts["data"]).table_schema
    sites = [pd.read_csv(data / table / f"{name}.csv") for name in facts["sites"]]
    x, y = schema.encode(pd.concat(sites, ignore_index=True))
    fresh, truth = schema.encode(pd.read_csv(data / table / "test.csv"))
    scores = LogisticRegression(max_iter=2_000).fit(x, y).decision_function(fresh)
    return roc_auc(scores, np.asarray(truth) == 1) or 0.5


def main(arguments: list[str] | None = None) -> None:
    """Prints AUC by table, epsilon and colluders beside no privacy, and writes the rows."""
    parser = argparse.ArgumentParser(description="AUC of the proposed settings on real tables")
    parser.add_argument("--data", type=Path, required=True, help="folder with credit/ and adult/")
    parser.add_argument("--tables", nargs="+", choices=sorted(TABLES), default=sorted(TABLES))
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--draws", type=int, default=5, help="noise draws of every row")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    jobs = [
        Job(*which, options.draws, options.data.resolve())
        for which in itertools.product(options.tables, EPSILONS, (0, 1))
    ]
    rows = list(in_parallel(measure, jobs, options.workers))
    columns: dict[str, Any] = {
        "table": "table",
        "epsilon": lambda row: f"{row['epsilon']:g}",
        "colluders": "colluders",
        "AUC": lambda row: f"{row['auc']:.4f} ± {row['auc_sd']:.4f}",
        "without privacy": "pooled_without_privacy",
        "rounds": "rounds",
        "clip": "clip_norm_l2",
        "rate": "learning_rate",
        "draws": "draws",
    }
    caption = "± is the standard deviation over noise draws."
    show(f"Proposed settings, delta = {DELTA}", columns, rows, caption)
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
