"""Credit default over three banks with a logistic model: AUC under record-level DP.

    python -m tests.benchmarks.credit --data ../shared/data/credit --json out/credit.json

UCI "Default of Credit Card Clients" (Yeh, CC BY 4.0) as FATE's homogeneous examples split it: three
banks with 8,000 card holders each and 6,000 for the test. Every run goes through the whole
encrypted path; each row names the observer it holds against.

Two references without privacy stand beside: scikit-learn's logistic regression on the pooled banks
with the raw columns standardised (that standardising fits to the data, so it would have to be
charged), and the same regression on our public encoding. The second is above the first because
categories of payment status and logarithms of amounts suit a linear model better than the raw
numbers. What privacy itself costs is the distance to the last row, the same forty steps without
noise; the rest of the way to the second reference is what a solver run to the end would still find.

Hyperparameters come from synthetic card holders (`synthetic_credit.py`) and are the same in every
row. The test table is taken as declared public; AUC on private test records would be a release.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from privagg import Federation
from privagg.config.data import TableData
from privagg.training.data import Records, load_table
from privagg.training.evaluate import evaluate
from privagg.training.measures import roc_auc
from tests.benchmarks.replay import (
    Replay,
    calibrated,
    in_parallel,
    over_draws,
    privacy_facts,
    throwaway_folder,
)
from tests.benchmarks.synthetic_credit import Recipe, declarations
from tests.benchmarks.tables import Column, Row, show, write_json

BANKS = ("bank_a", "bank_b", "bank_c")
RECORDS = 8_000  # at each bank; public
DELTA = "1e-5"
EPSILONS = ("0.1", "1", "10")
WITHOUT_DP = Decimal(0)

MODEL_USERS, ONE_COLLUDER = ("model-users", 0), ("sites", 1)
EVERYBODY = ("aggregator+key-holder", 0)

JOBS = (
    *(("record-distributed", Decimal(epsilon)) for epsilon in EPSILONS),
    ("record-local", Decimal(1)),
    ("record-distributed", WITHOUT_DP),
)


@dataclass(frozen=True)
class Job:
    """One mode at one epsilon (0: no noise), and where its data lies."""

    mode: str
    epsilon: Decimal
    draws: int
    data: Path

    @property
    def observers(self) -> list[tuple[str, int]]:
        """Whom the noise is calibrated against, then others who see the same runs."""
        if self.mode == "record-local":
            return [EVERYBODY]
        return [MODEL_USERS, ONE_COLLUDER] if self.epsilon else [MODEL_USERS]


def configuration(mode: str) -> dict[str, Any]:
    """A whole configuration but for the noise.

    With one local step a round and server momentum, both modes walk the same way: they differ in
    how much noise the opened mean carries.
    """
    recipe = Recipe()
    training: dict[str, Any] = {"rounds": recipe.rounds, "physical_batch": 2_000}
    optimizer = {"kind": "momentum", "momentum": recipe.momentum}
    if mode == "record-distributed":
        optimizer["learning_rate"] = recipe.learning_rate
    else:
        training |= {"local_steps": 1, "local_learning_rate": recipe.learning_rate}
    return {
        "federation": {"name": "credit"},
        "privacy": {"mode": mode, "delta": DELTA, "clip_norm_l2": str(recipe.clip_norm_l2)},
        "training": {**training, "optimizer": optimizer},
        "secure": {"scheme": "ckks", "custody": "authority"},
        "data": {
            "features": declarations(recipe.encoding),
            "target": {"name": "default", "positive": "== 1"},
        },
        "sites": [{"name": name, "data": f"{name}.csv", "records": RECORDS} for name in BANKS],
    }


def test_records(federation: Federation, folder: Path) -> Records:
    """The test table, declared public for the benchmark."""
    data = federation.config.data
    assert isinstance(data, TableData)
    return load_table(folder / "test.csv", data.table_schema, public=True)


def measure(job: Job) -> list[Row]:
    """The rows of one job: one set of runs, as each of its observers sees them."""
    federation = calibrated(configuration(job.mode), job.data, job.observers[0], job.epsilon)
    tests, model = test_records(federation, job.data), federation.setup.fresh_model()
    start = time.perf_counter()
    with throwaway_folder() as state:
        replay = Replay(federation, state)
        runs = list(replay.draws(job.draws))
        guarantees = replay.guarantees(*job.observers)
    seconds = time.perf_counter() - start
    figures = [evaluate(model, run.parameters, tests) for run in runs]
    facts = {
        **over_draws("accuracy", [each.figures["accuracy"] for each in figures]),
        **over_draws("auc", [each.figures.get("auc", 0.5) for each in figures]),
        "seconds_per_draw": seconds / job.draws,
        "bytes_up_per_draw": runs[0].bytes_up,
        "ledger_epsilon_spent": {k: str(v) for k, v in runs[0].epsilon_spent.items()},
        "data_dependent_steps": [
            "each round: clipped per-record gradients, summed and noised (charged before training)"
        ],
        "test_table": "taken as declared public; its AUC is not charged",
        "hyperparameters": _hyperparameters(federation, job.mode),
    }
    first = {"benchmark": "credit", "mode": job.mode}
    return [{**first, **privacy_facts(found, federation), **facts} for found in guarantees]


def pooled_references(folder: Path) -> dict[str, float]:
    """AUC of scikit-learn's logistic regression on the pooled banks, without any privacy.

    Returns:
        `raw`: on the raw columns, standardised by the data's own means and deviations;
        `encoded`: on our public encoding.
    """
    pooled = pd.concat([pd.read_csv(folder / f"{name}.csv") for name in BANKS])
    test = pd.read_csv(folder / "test.csv")
    raw = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000))
    names = [name for name in pooled.columns if name != "default"]
    found = {"raw": _auc_of(raw, pooled[names], pooled["default"], test[names], test["default"])}
    data = TableData.model_validate(configuration("record-distributed")["data"])
    x, y = data.table_schema.encode(pooled)
    fresh, truth = data.table_schema.encode(test)
    found["encoded"] = _auc_of(LogisticRegression(max_iter=2_000), x, y, fresh, truth)
    return found


def _auc_of(model: Any, x: Any, y: Any, fresh: Any, truth: Any) -> float:
    scores = model.fit(x, y).decision_function(fresh)
    return roc_auc(scores, np.asarray(truth) == 1) or 0.5


def _hyperparameters(federation: Federation, mode: str) -> dict[str, Any]:
    recipe = Recipe()
    return {
        "source": "tests/benchmarks/synthetic_credit.py (synthetic card holders), the same in "
        "every row",
        "model": federation.config.training.model.kind,
        "parameters": federation.plan.dimension,
        "rounds": recipe.rounds,
        "clip_norm_l2": recipe.clip_norm_l2,
        "learning_rate": recipe.learning_rate,
        "server_momentum": recipe.momentum,
        "rate_taken_at": "server" if mode == "record-distributed" else "sites",
        "features": declarations(recipe.encoding),
    }


def main(arguments: list[str] | None = None) -> None:
    """Prints AUC over epsilon beside the references without privacy and writes the rows."""
    parser = argparse.ArgumentParser(description="credit default over three banks, with DP")
    parser.add_argument("--data", type=Path, required=True, help="folder of the credit tables")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--draws", type=int, default=5, help="noise draws of every row")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--quick", action="store_true", help="1 draw, to see that it runs")
    options = parser.parse_args(arguments)
    draws = 1 if options.quick else options.draws
    start = time.perf_counter()
    # Without noise every draw is the same.
    jobs = [
        Job(
            mode,
            eps,
            draws if eps else 1,
            options.data.resolve(),
        )
        for mode, eps in JOBS
    ]
    references = pooled_references(options.data)
    rows = [
        {**row, "peer_auc": references["raw"], "pooled_encoded_auc": references["encoded"]}
        for found in in_parallel(measure, jobs, options.workers)
        for row in found
    ]
    _show(rows, references, time.perf_counter() - start)
    write_json(options.json, rows)


def _show(rows: Sequence[Row], references: dict[str, float], seconds: float) -> None:
    columns: dict[str, Column] = {
        "mode": "mode",
        "holds against": lambda row: row["observer"] if row["epsilon"] else "nobody",
        "colluding sites": "colluding_sites",
        "epsilon": lambda row: f"{row['epsilon']:g}" if row["epsilon"] else "without DP",
        "AUC": lambda row: f"{row['auc']:.4f} ± {row['auc_se']:.4f}",
        "accuracy": "accuracy",
        "draws": "draws",
    }
    caption = (
        f"± is the standard error over noise draws. Pooled without privacy (scikit-learn): AUC "
        f"{references['raw']:.3f} on standardised raw columns, {references['encoded']:.3f} on our "
        f"public encoding; the encoding explains the difference. {seconds:.0f} s in all."
    )
    show(f"Credit default over three banks, delta = {DELTA}", columns, rows, caption)


if __name__ == "__main__":
    main()
