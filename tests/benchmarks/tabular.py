"""Tables in a few sums: how well private scorecards tell fresh records apart.

    python -m tests.benchmarks.tabular --data ../shared/data --json out/tabular.json

Credit default over three banks and adult over three offices, each with its own test table, taken as
declared public. Nothing is chosen on either: columns, ranges and orders are those of the tables'
public descriptions, the constants of the scorecard come from synthetic tables
(`synthetic_scorecard.py`), openings and bins from public facts by the plan.

`sites`: every draw goes through the sites' own half of the program, as `privagg ask` runs it:
integers, bounds, every site's share of the plan's noise from the operating system, all openings,
and the card that its file holds (points to one decimal). `engine`: whole askings in process under
CKKS, with charges, uploads and reports. `noise`: against users of the result, or with one colluding
site allowed for. `value` is the mean AUC over draws, `se` its standard error, `worst` the least.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from privagg import Federation
from privagg.config.asking import AskSetup
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.questions.columns import Columns
from privagg.programs.scorecard import Scorecard
from privagg.programs.scorecard.card import Card
from privagg.programs.sums import SumsLearner
from privagg.programs.sums_program import NoisySum
from privagg.training.measures import roc_auc
from tests.benchmarks.defaults import ADULT, TABLES
from tests.benchmarks.synthetic_scorecard import CARD_HOLDERS, DELAYS
from tests.benchmarks.tables import Row, show, write_json

ROOT = Path(__file__).resolve().parents[2]
DELTA = "1e-5"
EPSILONS = ("0.1", "0.5", "1", "4")

CARDS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "credit": (CARD_HOLDERS, {"ordered": DELAYS}),
    "adult": (
        {
            "features": [{"name": name, **facts} for name, facts in ADULT],
            "target": {"name": "income", "positive": "== >50K"},
        },
        {},
    ),
}
"""What is declared, and the program's settings; all else is chosen by public facts."""


def federation(
    folder: Path, table: str, epsilon: str, colluders: int, scheme: str = "plaintext"
) -> Federation:
    """Three sites that ask for a scorecard.

    Args:
        folder: with the sites' tables.
        table: of `CARDS`.
        epsilon: what the card may cost each data set.
        colluders: sites that the noise allows for.
        scheme: how sums are encrypted.
    """
    data, settings = CARDS[table]
    return Federation.from_dict(
        {
            "federation": {"name": table},
            "privacy": {
                "epsilon": 1, "delta": DELTA, "budget_epsilon": 10**6, "colluders": colluders,
            },
            "training": {"model": "logistic", "rounds": 1},
            "secure": {"scheme": scheme, "custody": "authority"},
            "data": data,
            "ask": {"epsilon": epsilon, "program": "scorecard", "settings": settings},
            "sites": [
                {"name": name, "data": f"{name}.csv", "records": records}
                for name, records in TABLES[table]["sites"].items()
            ],
        },
        base=folder,
    )  # fmt: skip


class Asked:
    """A scorecard of a table, ready to be drawn again and again.

    Args:
        folder: with the sites' tables, and `test.csv`.
        table, epsilon, colluders: as for `federation`.
    """

    def __init__(self, folder: Path, table: str, epsilon: str, colluders: int) -> None:
        made = federation(folder, table, epsilon, colluders)
        self.setup = AskSetup.of(made.setup)
        self.plan = self.setup.plan
        assert isinstance(self.setup.sums, Scorecard)
        self.program = self.setup.sums
        self.records = {name: self.setup.lines_of(name) for name in self.plan.names}
        test = pd.read_csv(folder / "test.csv")
        self.fresh = Columns.read(test, self.setup.schema)
        self.positive = np.asarray(self.setup.schema.target.read(test)) == 1

    def card(self, draw: int) -> Card:
        """A card with noise of its own, by the sites' half of the program."""
        state, sums = self.program.begin(), list[NoisySum]()
        for number in range(1, self.plan.rounds + 1):
            total = sum(
                SumsLearner(self.plan, name, self.program, records).contribution(
                    state, SystemRandomness(), (f"draw-{draw}", number, 1)
                )
                for name, records in self.records.items()
            )
            sums.append(NoisySum.of(self.plan, number, np.asarray(total), self.plan.names))
            state = self.program.step(number, state, sums[-1])
        return Card.read(self.program.model(sums))

    def area(self, card: Card) -> float:
        """AUC on the test table."""
        return roc_auc(card.predictions(self.fresh), self.positive) or 0.5

    def row(self, path: str, areas: Sequence[float], seconds: float, sent: int | None) -> Row:
        """What some draws say.

        Args:
            path: `sites` or `engine`.
            areas: AUC of each draw.
            seconds: of processor time a draw.
            sent: bytes that all sites upload in a draw; None where nothing is encrypted.
        """
        found = np.asarray(areas)
        spread = float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else 0.0
        return {
            "table": self.setup.config.federation.name, "model": "scorecard", "path": path,
            "epsilon": float(self.setup.epsilon), "delta": float(DELTA),
            "colluders": self.setup.config.privacy.colluders, "metric": "AUC",
            "value": float(found.mean()), "se": spread, "worst": float(found.min()),
            "draws": len(found), "openings": self.plan.rounds,
            "values": sum(each.length for each in self.plan.openings), "bytes": sent,
            "seconds": seconds, "bins": self.program.content.bins,
            "chosen": "constants on synthetic tables, openings and bins by public facts",
        }  # fmt: skip


def by_sites(folder: Path, table: str, epsilon: str, colluders: int, draws: int) -> Row:
    """A row of `sites`."""
    asked = Asked(folder, table, epsilon, colluders)
    start = time.process_time()
    areas = [asked.area(asked.card(draw)) for draw in range(draws)]
    return asked.row("sites", areas, (time.process_time() - start) / draws, None)


def by_engine(folder: Path, table: str, colluders: int, draws: int) -> Row:
    """A row of `engine`, at epsilon 1."""
    asked, areas, sent = Asked(folder, table, "1", colluders), list[float](), 0
    start = time.process_time()
    for _ in range(draws):
        with tempfile.TemporaryDirectory() as place:
            for name in asked.plan.names:
                shutil.copy(folder / f"{name}.csv", place)
            made = federation(Path(place), table, "1", colluders, "ckks")
            made.approve(who="benchmark", why="benchmark", job="questions")
            result = made.ask()
            assert result.answers is not None
            areas.append(asked.area(Card.read(json.loads(result.answers.read_bytes()))))
            sent = sum(sum(each.outcome.bytes_up.values()) for each in result.rounds)
    return asked.row("engine", areas, (time.process_time() - start) / draws, sent)


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """All rows, each as soon as it is there."""
    for table in args.tables:
        for epsilon in args.epsilons:
            for colluders in (0, 1):
                yield by_sites(args.data / table, table, epsilon, colluders, args.draws)
        for colluders in (0, 1):
            if args.whole:
                yield by_engine(args.data / table, table, colluders, args.whole)


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    default = os.environ.get("PRIVAGG_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tables", nargs="+", choices=[*CARDS], default=[*CARDS])
    parser.add_argument("--epsilons", nargs="+", default=EPSILONS)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--whole", type=int, default=1, help="askings through the whole engine")
    args = parser.parse_args()
    found = list[Row]()
    for each in rows(args):
        found.append(each)
        write_json(args.json, found)
    columns = ("table", "model", "path", "epsilon", "colluders", "value", "se", "worst", "draws",
               "openings", "values", "bytes", "seconds")  # fmt: skip
    show(f"AUC on fresh records, delta = {DELTA}", {each: each for each in columns}, found)


if __name__ == "__main__":
    main()
