"""Puts the three banks' tables and the public test table where the configuration expects them.

python examples/credit_default/prepare.py ../shared/data/credit
"""

import argparse
import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent
TABLES = ("bank_a.csv", "bank_b.csv", "bank_c.csv", "test.csv")


def prepare(source: Path, output: Path) -> None:
    """Copies the tables into `output`."""
    output.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        shutil.copyfile(source / name, output / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="prepare the credit default example")
    parser.add_argument("data", type=Path, help="folder with bank_a.csv, bank_b.csv, ...")
    prepare(parser.parse_args().data, HERE / "out" / "data")
