"""Writes the same kind of patients in three ways: plain CSV, a German spreadsheet, a database.

python examples/real_files/prepare.py
"""

import csv
import sqlite3
from datetime import date, timedelta
from pathlib import Path

from privagg.training.datasets import write_breast_cancer

HERE = Path(__file__).resolve().parent
COLUMNS = ("mean radius", "mean texture", "mean concave points", "worst area", "malignant")
LAKEVIEW = """\
name = "lakeview"

[database]
url = "sqlite:///../../data/lakeview.sqlite"
query = '''
SELECT radius AS "mean radius", texture AS "mean texture", points AS "mean concave points",
       area AS "worst area", malignant, day AS examined
FROM visits
'''
"""
GERMAN = ("Radius", "Textur", "Einbuchtungen", "größte Fläche", "Befund", "Untersuchung")


def prepare(output: Path) -> None:
    """Writes the clinics' tables, and what the clinic with a database says of its own."""
    tables = {name: read(path) for name, path in write_breast_cancer(output / "whole").items()}
    for name in ("riverside", "public"):
        with (output / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([[*COLUMNS, "examined"], *tables[name]])
    write_german(output / "hillcrest.csv", tables["hillcrest"])
    write_database(output / "lakeview.sqlite", tables["lakeview"])
    party = output.parent / "parties" / "lakeview" / "party.toml"
    party.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    party.write_text(LAKEVIEW)


def read(path: Path) -> list[list[str]]:
    """The columns that the example uses, with invented days of examination."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    days = (date(1990, 1, 1) + timedelta(days=7 * number) for number in range(len(rows)))
    return [
        [*(row[name] for name in COLUMNS), str(day)] for row, day in zip(rows, days, strict=True)
    ]


def write_german(path: Path, rows: list[list[str]]) -> None:
    """As a spreadsheet with German settings saves it: semicolons, decimal commas, Latin-1."""
    with path.open("w", newline="", encoding="latin-1") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(GERMAN)
        for *numbers, malignant, day in rows:
            found = "bösartig" if malignant == "1" else "gutartig"
            year, month, of_month = day.split("-")
            cells = [number.replace(".", ",") for number in numbers]
            writer.writerow([*cells, found, f"{of_month}.{month}.{year}"])


def write_database(path: Path, rows: list[list[str]]) -> None:
    """A table of a database; SQLite here, any that SQLAlchemy knows elsewhere."""
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE visits (radius, texture, points, area, malignant, day)")
        connection.executemany("INSERT INTO visits VALUES (?, ?, ?, ?, ?, ?)", rows)


if __name__ == "__main__":
    prepare(HERE / "out" / "data")
