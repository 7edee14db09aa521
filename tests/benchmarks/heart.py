"""FLamby's heart disease task: four hospitals, record-level DP, FLamby's own table beside ours.

    python -m tests.benchmarks.heart --data ../shared/data/heart --json out/heart.json

Same split, same metric: per hospital scikit-learn's `train_test_split` with FLamby's arguments and
seed, accuracy at threshold 0.5 averaged over the four hospitals' test sets (du Terrail et al.,
"FLamby", NeurIPS 2022 data sets track). Theirs is FedAvg with Opacus at every hospital; its epsilon
holds against the server. Ours comes in two modes, both through the whole encrypted path: noise
shared out among the hospitals, whose rows name the observer they hold against, and all noise at
each hospital (`record-local`), which holds against the server too.

Hyperparameters are one set for all rows of a mode, chosen on synthetic patients
(`synthetic_heart.py`); features are scaled by public ranges. What the training reads from data, and
how it is charged, is listed in every row. The test sets are taken as declared public, as FLamby
takes them: in production, accuracy on private test records would be a release of its own and would
have to be charged.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from privagg import Federation
from privagg.config.data import TableData
from privagg.training.data import TensorRecords, load_table
from privagg.training.evaluate import evaluate
from tests.benchmarks.replay import (
    FloatVector,
    Replay,
    Watcher,
    calibrated,
    in_parallel,
    over_draws,
    privacy_facts,
    throwaway_folder,
)
from tests.benchmarks.synthetic_heart import LEVELS, RANGES, WEIGHTED, LocalRecipe, Recipe
from tests.benchmarks.tables import Column, Row, show, write_json

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
DROPPED = ["slope", "ca", "thal"]
SPLIT_SEED = 43
DELTA = "1e-4"
EPSILONS = ("0.1", "1", "5", "10")
WITHOUT_DP = Decimal(0)

MODEL_USERS, ONE_COLLUDER = ("model-users", 0), ("sites", 1)
EVERYBODY = ("aggregator+key-holder", 0)

# Mode, epsilon (0: no noise), and the observers: the noise is calibrated against the first, and the
# others see the same runs. The last two rows with noise pay for one colluding hospital in full.
JOBS: tuple[tuple[str, Decimal, tuple[Watcher, ...]], ...] = (
    *(("record-distributed", Decimal(e), (MODEL_USERS, ONE_COLLUDER)) for e in EPSILONS),
    *(("record-local", Decimal(e), (EVERYBODY,)) for e in EPSILONS),
    *(("record-distributed", Decimal(e), (ONE_COLLUDER,)) for e in EPSILONS[:2]),
    ("record-distributed", WITHOUT_DP, (MODEL_USERS,)),
)

DATA_DEPENDENT_STEPS = (
    {
        "step": "clipped per-record gradients, summed over the hospital and noised",
        "charged": "before every round, to every hospital's ledger",
    },
)
PROTOCOL = (
    "as FLamby has it, the same for both and outside of what either charges: complete rows only, "
    "stratified split with random_state 43, training rows of each hospital as declared record "
    "counts, accuracy on the four test sets, which are taken as declared public"
)


def complete_rows(folder: Path, hospital: str) -> pd.DataFrame:
    """One hospital's patients without a gap in the columns that FLamby keeps."""
    return pd.read_csv(folder / f"{hospital}.csv").drop(columns=DROPPED).dropna()


def split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """FLamby's training and test rows: 66 to 34, stratified where each class has over two rows."""
    label = frame["num"] > 0
    enough = min(label.sum(), (~label).sum()) > 2
    train, test = train_test_split(
        frame,
        train_size=0.66,
        test_size=0.34,
        shuffle=True,
        stratify=label if enough else None,
        random_state=SPLIT_SEED,
    )
    return train, test


def write_split(folder: Path, output: Path) -> dict[str, int]:
    """Writes <hospital>-train.csv and <hospital>-test.csv.

    Returns:
        Training rows of each hospital: the record counts that a federation would declare.
    """
    counts = {}
    for hospital in HOSPITALS:
        train, test = split(complete_rows(folder, hospital))
        train.to_csv(output / f"{hospital}-train.csv", index=False)
        test.to_csv(output / f"{hospital}-test.csv", index=False)
        counts[hospital] = len(train)
    return counts


def features() -> list[dict[str, Any]]:
    """The declaration every hospital encodes by: public ranges, categories and scales."""
    numeric = [
        {"name": name, "range": list(RANGES[name]), "scale": WEIGHTED[name]} for name in RANGES
    ]
    categorical = [
        {"name": name, "categories": list(levels), "drop_first": True, "scale": WEIGHTED[name]}
        for name, levels in LEVELS.items()
    ]
    return numeric + categorical


def configuration(mode: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """A whole configuration but for the noise; both modes take six steps on all records."""
    training: dict[str, Any] = {"physical_batch": max(counts.values())}
    if mode == "record-distributed":
        recipe = Recipe()
        training |= {"rounds": recipe.rounds}
        training |= {"optimizer": {"kind": "sgd", "learning_rate": recipe.learning_rate}}
        clip = recipe.clip_norm_l2
    else:
        local = LocalRecipe()
        training |= {"rounds": local.rounds, "local_steps": local.local_steps}
        training |= {"local_learning_rate": local.learning_rate}
        clip = local.clip_norm_l2
    return {
        "federation": {"name": "heart"},
        "privacy": {"mode": mode, "delta": DELTA, "clip_norm_l2": str(clip)},
        "training": training,
        "secure": {"scheme": "ckks", "custody": "authority"},
        "data": {"features": features(), "target": {"name": "num", "positive": ">0"}},
        "sites": [
            {"name": name, "data": f"{name}-train.csv", "records": count}
            for name, count in counts.items()
        ],
    }


class TestSets:
    """The four test sets, declared public for the comparison."""

    def __init__(self, federation: Federation, folder: Path) -> None:
        data = federation.config.data
        assert isinstance(data, TableData)
        self._model = federation.setup.fresh_model()
        self._sets: list[TensorRecords] = [
            load_table(folder / f"{name}-test.csv", data.table_schema, public=True)
            for name in HOSPITALS
        ]

    def accuracy(self, parameters: FloatVector) -> float:
        """Mean over the hospitals of the accuracy at threshold 0.5."""
        found = [evaluate(self._model, parameters, each).figures["accuracy"] for each in self._sets]
        return float(np.mean(found))


def peer_accuracy(folder: Path, epsilon: Decimal) -> float:
    """FLamby's mean over its seeds at this epsilon and our delta; epsilon 0 is without DP."""
    table = pd.read_csv(folder / "flamby_dp_results.csv")
    if epsilon == WITHOUT_DP:
        chosen = table["e"].isna()
    else:
        chosen = np.isclose(table["e"], float(epsilon)) & np.isclose(table["d"], float(DELTA))
    return float(table.loc[chosen, "perf"].mean())


@dataclass(frozen=True)
class Job:
    """One mode at one epsilon (0: no noise), and where its data lies."""

    mode: str
    epsilon: Decimal
    observers: tuple[Watcher, ...]
    draws: int
    data: Path
    split: Path
    counts: dict[str, int]


def measure(job: Job) -> list[Row]:
    """The rows of one job: one set of runs, as each of its observers sees them."""
    values = configuration(job.mode, job.counts)
    federation = calibrated(values, job.split, job.observers[0], job.epsilon)
    tests = TestSets(federation, job.split)
    start = time.perf_counter()
    with throwaway_folder() as state:
        replay = Replay(federation, state)
        runs = list(replay.draws(job.draws))
        guarantees = replay.guarantees(*job.observers)
    seconds = time.perf_counter() - start
    facts = {
        **over_draws("accuracy", [tests.accuracy(run.parameters) for run in runs]),
        "peer_accuracy": peer_accuracy(job.data, job.epsilon),
        "peer_epsilon": float(job.epsilon) if job.epsilon else None,
        "seconds_per_draw": seconds / job.draws,
        "bytes_up_per_draw": runs[0].bytes_up,
        "ledger_epsilon_spent": {k: str(v) for k, v in runs[0].epsilon_spent.items()},
        "data_dependent_steps": list(DATA_DEPENDENT_STEPS),
        "protocol": PROTOCOL,
        "hyperparameters": _hyperparameters(federation),
    }
    first = {"benchmark": "heart", "mode": job.mode}
    return [{**first, **privacy_facts(found, federation), **facts} for found in guarantees]


def _hyperparameters(federation: Federation) -> dict[str, Any]:
    plan, training = federation.plan, federation.config.training
    return {
        "source": "tests/benchmarks/synthetic_heart.py (synthetic patients), the same at every "
        "epsilon of a mode",
        "model": training.model.kind,
        "rounds": plan.rounds,
        "local_steps": training.local_steps,
        "sampling_rate": float(training.sampling_rate),
        "clip_norm_l2": float(plan.clip_norm_l2),
        "server_learning_rate": training.optimizer.learning_rate,
        "local_learning_rate": training.local_learning_rate
        if plan.mode == "record-local"
        else None,
        "features": features(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Prints FLamby's table beside ours and writes the rows."""
    parser = argparse.ArgumentParser(description="heart disease over four hospitals, with DP")
    parser.add_argument("--data", type=Path, required=True, help="folder of the heart tables")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--draws", type=int, default=100, help="noise draws of every row")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--quick", action="store_true", help="3 draws, to see that it runs")
    options = parser.parse_args(arguments)
    draws = 3 if options.quick else options.draws
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = write_split(options.data, folder)
        # Without noise every draw is the same.
        jobs = [
            Job(mode, eps, observers, draws if eps else 1, options.data, folder, counts)
            for mode, eps, observers in JOBS
        ]
        rows = [row for found in in_parallel(measure, jobs, options.workers) for row in found]
    _show(rows, time.perf_counter() - start)
    write_json(options.json, rows)


def _show(rows: Sequence[Row], seconds: float) -> None:
    columns: dict[str, Column] = {
        "mode": "mode",
        "holds against": lambda row: row["observer"] if row["epsilon"] else "nobody",
        "colluding sites": "colluding_sites",
        "epsilon": lambda row: f"{row['epsilon']:g}" if row["epsilon"] else "without DP",
        "FLamby": "peer_accuracy",
        "ours": lambda row: f"{row['accuracy']:.4f} ± {row['accuracy_se']:.4f}",
        "draws": "draws",
    }
    show(
        f"Heart disease, accuracy over four hospitals, delta = {DELTA}",
        columns,
        rows,
        f"± is the standard error over noise draws on the fixed split. {seconds:.0f} s in all.",
    )


if __name__ == "__main__":
    main()
