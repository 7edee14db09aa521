"""Makes the four hospitals' training tables, and one table that is declared public.

    python examples/heart_disease/prepare.py ../shared/data/heart

From each hospital's file it keeps the patients without a gap in the columns that are used, and
gives every fifth or so, chosen by row number alone, to a held-out table. Whoever declares such a
table public publishes those patients' records: here they are public already (UCI, 1988).
"""

import argparse
from pathlib import Path

import pandas as pd

from privagg.training.datasets import split_rows

HERE = Path(__file__).resolve().parent
UNUSED = ["slope", "ca", "thal"]  # missing for most patients outside Cleveland
TRAINING_ROWS = {"cleveland": 240, "hungarian": 210, "switzerland": 36, "va": 104}


def prepare(source: Path, output: Path) -> None:
    """Writes <hospital>.csv and public.csv into `output`."""
    output.mkdir(parents=True, exist_ok=True)
    held_out = []
    for hospital, size in TRAINING_ROWS.items():
        table = pd.read_csv(source / f"{hospital}.csv").drop(columns=UNUSED).dropna()
        split = split_rows(len(table), {hospital: size}, name=f"heart/{hospital}")
        table.iloc[split.sites[hospital]].to_csv(output / f"{hospital}.csv", index=False)
        held_out.append(table.iloc[split.public])
    pd.concat(held_out).to_csv(output / "public.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="prepare the heart disease example")
    parser.add_argument("data", type=Path, help="folder with cleveland.csv and the other three")
    prepare(parser.parse_args().data, HERE / "out" / "data")
