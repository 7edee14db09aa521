"""Makes the four hospitals' tables: with made-up patients, or from the real ones.

    python examples/flower_heart/prepare.py                        made-up patients
    python examples/flower_heart/prepare.py ../shared/data/heart   UCI Heart Disease (1988)

Each hospital gets its own CSV file in `out/data`, with the columns that the app reads.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

OUTPUT = Path(__file__).resolve().parent / "out" / "data"
PATIENTS = {"cleveland": 240, "hungarian": 210, "switzerland": 36, "va": 104}
COLUMNS = ["age", "trestbps", "chol", "thalach", "oldpeak", "cp", "sex", "fbs", "exang", "num"]


def made_up(count: int, draw: np.random.Generator) -> pd.DataFrame:
    """Patients whose disease follows age and chest pain; a few have a gap."""
    table = pd.DataFrame(
        {
            "age": draw.integers(30, 80, count),
            "trestbps": draw.integers(90, 180, count),
            "chol": draw.integers(100, 400, count).astype(float),
            "thalach": draw.integers(80, 200, count),
            "oldpeak": draw.uniform(-1, 4, count).round(1),
            "cp": draw.integers(1, 5, count),
            **{name: draw.integers(0, 2, count) for name in ("sex", "fbs", "exang")},
        }
    )
    slope = 0.08 * (table["age"] - 55) + 0.9 * (table["cp"] - 2.5)
    table["num"] = (draw.random(count) < 1 / (1 + np.exp(-slope))).astype(int)
    table.loc[draw.random(count) < 0.05, "chol"] = np.nan
    return table


def prepare(output: Path, source: Path | None = None) -> None:
    """Writes <hospital>.csv of all four hospitals.

    Args:
        output: the folder for them.
        source: the folder of the real tables; patients are made up where it is None.
    """
    output.mkdir(parents=True, exist_ok=True)
    for seed, (hospital, count) in enumerate(PATIENTS.items()):
        if source is None:
            table = made_up(count, np.random.default_rng(seed))
        else:
            table = pd.read_csv(source / f"{hospital}.csv")
        table[COLUMNS].to_csv(output / f"{hospital}.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="prepare the tables of the Flower heart example")
    parser.add_argument("data", type=Path, nargs="?", help="folder with the real tables")
    prepare(OUTPUT, parser.parse_args().data)
