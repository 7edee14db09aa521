"""Amounts on real tables: errors on the public test rows, with privacy and without.

    python -m tests.benchmarks.targets --data ../shared/data --json out/targets.json

Adult's weekly hours by squared loss beside least squares, credit's limit by gamma loss beside a
gamma regression: scikit-learn's, without privacy, on the pooled rows in the same encoding. Every
row has the error of naming the mean. Clip, rounds and rate are round numbers that were not searched
for. Record level, distributed noise, no colluders, delta 1e-5, all records in every round.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import GammaRegressor, LinearRegression

from privagg import Federation
from privagg.config.data import TableData
from privagg.training.measures import amount_figures
from tests.approvals import approved
from tests.benchmarks.tables import show, write_json

EPSILONS = ("1", "0.1")
ROUNDS = 30


def number(name: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    """A column of numbers with its public range."""
    return {"name": name, "range": [low, high], **more}


def choice(name: str, *categories: Any) -> dict[str, Any]:
    """A column of public categories."""
    return {"name": name, "categories": [*categories]}


def amount(name: str, low: float, high: float) -> dict[str, Any]:
    """A column of Taiwanese dollars."""
    return number(name, low, high, transform="signed-log", log_unit=1000)


@dataclass(frozen=True)
class Study:
    """A table, and the amount that is predicted of it.

    Attributes:
        name: folder of the table.
        sites: its files.
        records: declared of each.
        features, target: as a configuration has them.
        peer: scikit-learn's model without privacy.
    """

    name: str
    sites: tuple[str, ...]
    records: int
    features: tuple[dict[str, Any], ...]
    target: dict[str, Any]
    peer: Any


STUDIES = (
    Study(
        "adult",
        ("office_north", "office_east", "office_south"),
        10_854,
        (
            number("age", 17, 90),
            number("education_num", 1, 16),
            choice("sex", "Female", "Male"),
            choice("workclass", "Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov",
                   "Local-gov", "State-gov", "Without-pay", "Never-worked"),
            choice("marital_status", "Married-civ-spouse", "Divorced", "Never-married",
                   "Separated", "Widowed", "Married-spouse-absent", "Married-AF-spouse"),
            choice("relationship", "Wife", "Own-child", "Husband", "Not-in-family",
                   "Other-relative", "Unmarried"),
        ),
        {"kind": "regression", "name": "hours_per_week", "range": [0, 80], "loss": "squared"},
        LinearRegression(),
    ),
    Study(
        "credit",
        ("bank_a", "bank_b", "bank_c"),
        8_000,
        (
            number("age", 18, 80),
            choice("sex", 1, 2),
            choice("education", 1, 2, 3, 4),
            choice("marriage", 1, 2, 3),
            number("pay_0", -2, 8),
            amount("bill_amt1", -100_000, 1_000_000),
            amount("pay_amt1", 0, 1_000_000),
            amount("pay_amt2", 0, 1_000_000),
        ),
        {"kind": "regression", "name": "limit_bal", "range": [10_000, 1_000_000],
         "loss": "gamma", "typical": 100_000},
        GammaRegressor(alpha=0, max_iter=1000),
    ),
)  # fmt: skip


def federation(study: Study, data: Path, output: Path, epsilon: str | None) -> Federation:
    """The federation as a file would have it; without privacy where epsilon is None."""
    privacy = {"epsilon": epsilon or "1", "delta": "1e-5", "budget_epsilon": "Infinity",
               "colluders": 0, **({} if epsilon else {"noise_multiplier": 0})}  # fmt: skip
    optimizer = {"kind": "momentum", "learning_rate": 0.2, "average_from": ROUNDS // 2}
    values = {
        "federation": {"name": study.name, "output": str(output)},
        "privacy": privacy,
        "training": {"rounds": ROUNDS, "physical_batch": 1024, "optimizer": optimizer},
        "secure": {"scheme": "plaintext", "custody": "authority"},
        "data": {"features": [*study.features], "target": study.target},
        "sites": [
            {"name": name, "data": f"{name}.csv", "records": study.records} for name in study.sites
        ],
        "evaluation": {"data": "test.csv", "public": True},
    }
    return Federation.from_dict(values, base=data / study.name)


def rows_of(study: Study, data: Path, draws: int) -> Iterator[dict[str, Any]]:
    """The rows of one table."""
    yield _row(study, "scikit-learn, pooled", None, [_pooled(study, data)], 0.0)
    for epsilon in (None, *EPSILONS):
        found, start = [], time.process_time()
        for _ in range(draws if epsilon else 1):
            with tempfile.TemporaryDirectory(prefix="targets-") as folder:
                made = approved(federation(study, data, Path(folder), epsilon))
                found.append(dict(made.run().metrics))
        seconds = (time.process_time() - start) / len(found)
        yield _row(study, "privagg", epsilon, found, seconds)


def _pooled(study: Study, data: Path) -> dict[str, float]:
    declared = federation(study, data, Path("out"), None).config.data
    assert isinstance(declared, TableData)
    schema = declared.table_schema
    low, high = study.target["range"]

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        frame = pd.read_csv(data / study.name / f"{name}.csv")
        x, _ = schema.encode(frame)
        return x, frame[study.target["name"]].clip(low, high).to_numpy(np.float64)

    parts = [read(name) for name in study.sites]
    x, y = (np.concatenate(each) for each in zip(*parts, strict=True))
    tested, amounts = read("test")
    guess = study.peer.fit(x, y / high).predict(tested) * high
    return amount_figures(np.clip(guess, low, high), amounts)


def _row(
    study: Study, what: str, epsilon: str | None, found: list[dict[str, float]], seconds: float
) -> dict[str, Any]:
    mean = {name: float(np.mean([each[name] for each in found]))
            for name in ("rmse", "base_rmse", "mae", "base_mae", "r2")}  # fmt: skip
    return {
        "table": study.name,
        "target": study.target["name"],
        "loss": study.target["loss"],
        "what": what,
        "epsilon": epsilon,
        "draws": len(found),
        **mean,
        "rmse_deviation": float(np.std([each["rmse"] for each in found])),
        "processor_seconds": seconds,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    asked = parser.parse_args()
    rows = [row for study in STUDIES for row in rows_of(study, asked.data.absolute(), asked.draws)]
    columns = {
        "table": "table", "amount": "target", "loss": "loss", "what": "what",
        "ε": lambda row: row["epsilon"] or "none", "RMSE": "rmse", "of the mean": "base_rmse",
        "MAE": "mae", "of the mean ": "base_mae", "R²": "r2", "± RMSE": "rmse_deviation",
    }  # fmt: skip
    show("Amounts on the public test rows", columns, rows)
    write_json(asked.json, rows)


if __name__ == "__main__":
    main()
