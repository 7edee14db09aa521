"""Tables in a few sums: how well private scorecards and trees tell fresh records apart.

    python -m tests.benchmarks.tabular --data ../shared/data --json out/tabular.json

Credit default over three banks, adult over three offices, and heart disease over four hospitals (as
FLamby splits them), each with its own test tables, taken as declared public. Nothing is chosen on
any: columns, ranges and orders are those of the tables' public descriptions, constants come from
synthetic tables (`synthetic_scorecard.py`, `synthetic_trees.py`), openings, bins and trees from
public facts.

`sites`: every draw goes through the sites' own half of the program, as `privagg ask` runs it:
integers, bounds, every site's share of the plan's noise from the operating system, all openings,
and the card that its file holds (points to one decimal). `engine`: whole askings in process under
CKKS, with charges, uploads and reports; beside them, for its processor time, credit's logistic
model in 40 rounds. The noise is sized against users of the result, or with one colluding site
allowed for. `value` is the mean over draws of the AUC (of heart, of the accuracy over hospitals),
`se` its standard error, `worst` the least, `seconds` processor time of a draw.

`auto`: what `[ask] program = "auto"` comes to, a scorecard by `sites` or a logistic model with
proposed settings, trained by the sites' half as `replay.py` does. `--pairs N` compares processor
times: after one of each that is not counted, N whole runs of credit's scorecard and of its logistic
model in 40 rounds take turns in one process, approved before, which reads the records of both; a
row has both medians and their ratio.

`peer`: InterpretML's DP-EBM and dp-xgboost on the same splits, all sites' rows in one place, each
in its own environment (`make tabular`); amounts come on the public log scale. `literature`:
FLamby's own table of heart disease, FedAvg and Opacus over the four hospitals.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from privagg import Federation
from privagg.config.asking import AskSetup
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.choosing import AUTO
from privagg.programs.questions.columns import Columns
from privagg.programs.scorecard.card import Card
from privagg.programs.sums import SumsLearner
from privagg.programs.sums_program import NoisySum, SumsProgram
from privagg.programs.trees.model import Trees
from privagg.training.data import load_table
from privagg.training.evaluate import evaluate
from privagg.training.features import NumericFeature
from privagg.training.measures import roc_auc
from privagg.training.table import TableSchema
from tests.benchmarks import credit, heart
from tests.benchmarks.defaults import ADULT, TABLES
from tests.benchmarks.replay import Replay, throwaway_folder
from tests.benchmarks.synthetic_heart import TRAIN_SIZES
from tests.benchmarks.synthetic_scorecard import CARD_HOLDERS, DELAYS
from tests.benchmarks.tables import Row, show, write_json

ROOT = Path(__file__).resolve().parents[2]
PEERS = {
    "interpret": ROOT / ".peers" / "interpret" / "bin" / "python",
    "dp-xgboost": ROOT / ".peers" / "dp-xgboost" / "bin" / "python",
}
EPSILONS = ("0.1", "0.5", "1", "4")

MODELS: Mapping[str, Callable[[Any], Card | Trees]] = {
    "scorecard": Card.read, "boosted-trees": Trees.read,
}  # fmt: skip
"""Program -> what reads its model."""


@dataclass(frozen=True)
class Study:
    """A table over sites, and what is public of it.

    Attributes:
        data: what is declared.
        sites: name -> records.
        settings: of the program; all else is chosen by public facts.
        delta: likewise.
        tests: test tables; figures are the mean over them.
        metric: `AUC`, or `accuracy` at threshold 0.5.
    """

    data: dict[str, Any]
    sites: Mapping[str, int]
    settings: dict[str, Any] = field(default_factory=dict)
    delta: str = "1e-5"
    tests: tuple[str, ...] = ("test.csv",)
    metric: str = "AUC"


STUDIES: Mapping[str, Study] = {
    "credit": Study(CARD_HOLDERS, TABLES["credit"]["sites"], {"ordered": DELAYS}),
    "adult": Study(
        {
            "features": [{"name": name, **facts} for name, facts in ADULT],
            "target": {"name": "income", "positive": "== >50K"},
        },
        TABLES["adult"]["sites"],
    ),
    "heart": Study(
        {"features": heart.features(), "target": {"name": "num", "positive": ">0"}},
        dict(zip(heart.HOSPITALS, TRAIN_SIZES, strict=True)),
        delta=heart.DELTA,
        tests=tuple(f"{name}-test.csv" for name in heart.HOSPITALS),
        metric="accuracy",
    ),
}


def federation(
    folder: Path, table: str, model: str, epsilon: str, colluders: int, scheme: str = "plaintext"
) -> Federation:
    """Sites that ask for a scorecard, or for trees.

    Args:
        folder: with the sites' tables.
        table: of `STUDIES`.
        model: of `MODELS`.
        epsilon: what the card may cost each data set.
        colluders: sites that the noise allows for.
        scheme: how sums are encrypted.
    """
    study = STUDIES[table]
    return Federation.from_dict(
        {
            "federation": {"name": table},
            "privacy": {
                "epsilon": 1, "delta": study.delta, "budget_epsilon": 10**6,
                "colluders": colluders,
            },
            "training": {"model": "logistic", "rounds": 1},
            "secure": {"scheme": scheme, "custody": "authority"},
            "data": study.data,
            "ask": {"epsilon": epsilon, "program": model, "settings": study.settings},
            "sites": [
                {"name": name, "data": f"{name}.csv", "records": records}
                for name, records in study.sites.items()
            ],
        },
        base=folder,
    )  # fmt: skip


class Asked:
    """A model of a table, ready to be drawn again and again.

    Args:
        folder: with the sites' tables, and `test.csv`.
        table, model, epsilon, colluders: as for `federation`.
    """

    def __init__(self, folder: Path, table: str, model: str, epsilon: str, colluders: int) -> None:
        made = federation(folder, table, model, epsilon, colluders)
        self.setup = AskSetup.of(made.setup)
        self.plan = self.setup.plan
        assert isinstance(self.setup.sums, SumsProgram)
        self.program, self.read = self.setup.sums, MODELS[model]
        self.records = {name: self.setup.lines_of(name) for name in self.plan.names}
        self.study, self._tests = STUDIES[table], list[tuple[Columns, Any]]()
        for name in self.study.tests:
            test = pd.read_csv(folder / name)
            positive = np.asarray(self.setup.schema.target.read(test)) == 1
            self._tests.append((Columns.read(test, self.setup.schema), positive))

    def drawn(self, draw: int) -> Card | Trees:
        """A model with noise of its own, by the sites' half of the program."""
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
        return self.read(self.program.model(sums))

    def figure(self, model: Card | Trees) -> float:
        """AUC or accuracy, the mean over test tables."""
        found = list[float]()
        for records, positive in self._tests:
            chance = model.predictions(records).reshape(len(records))
            right = float(((chance > 0.5) == positive).mean())
            found.append(right if self.study.metric == "accuracy" else
                         roc_auc(chance, positive) or 0.5)  # fmt: skip
        return float(np.mean(found))

    def row(self, path: str, areas: Sequence[float], seconds: float, sent: int | None) -> Row:
        """What some draws say.

        Args:
            path: `sites` or `engine`.
            areas: the figure of each draw.
            seconds: of processor time a draw.
            sent: bytes that all sites upload in a draw; None where nothing is encrypted.
        """
        found = np.asarray(areas)
        spread = float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else 0.0
        return {
            "table": self.setup.config.federation.name, "model": self.program.name, "path": path,
            "epsilon": float(self.setup.epsilon), "delta": float(self.study.delta),
            "colluders": self.setup.config.privacy.colluders, "metric": self.study.metric,
            "value": float(found.mean()), "se": spread, "worst": float(found.min()),
            "draws": len(found), "openings": self.plan.rounds,
            "values": sum(each.length for each in self.plan.openings), "bytes": sent,
            "seconds": seconds, "bins": self.program.asked["bins"],
            "chosen": "constants on synthetic tables, all else by public facts",
        }  # fmt: skip


def by_sites(folder: Path, table: str, model: str, epsilon: str, colluders: int, draws: int) -> Row:
    """A row of `sites`."""
    asked = Asked(folder, table, model, epsilon, colluders)
    start = time.process_time()
    areas = [asked.figure(asked.drawn(draw)) for draw in range(draws)]
    return asked.row("sites", areas, (time.process_time() - start) / draws, None)


def by_engine(folder: Path, table: str, model: str, colluders: int, draws: int) -> Row:
    """A row of `engine`, at epsilon 1."""
    asked, areas, sent = Asked(folder, table, model, "1", colluders), list[float](), 0
    seconds = 0.0
    for _ in range(draws):
        with tempfile.TemporaryDirectory() as place:
            for name in asked.plan.names:
                shutil.copy(folder / f"{name}.csv", place)
            made = federation(Path(place), table, model, "1", colluders, "ckks")
            made.approve(who="benchmark", why="benchmark", job="questions")
            start = time.process_time()
            result = made.ask()
            seconds += time.process_time() - start
            assert result.answers is not None
            areas.append(asked.figure(asked.read(json.loads(result.answers.read_bytes()))))
            sent = sum(sum(each.outcome.bytes_up.values()) for each in result.rounds)
    return asked.row("engine", areas, seconds / draws, sent)


def by_training(folder: Path) -> Row:
    """The logistic model of `credit.py` in 40 rounds at epsilon 1, as `privagg run` trains it."""
    facts = credit.configuration("record-distributed")
    facts["privacy"] |= {"epsilon": 1, "budget_epsilon": 10}
    with tempfile.TemporaryDirectory() as place:
        for name in credit.BANKS:
            shutil.copy(folder / f"{name}.csv", place)
        made = Federation.from_dict(facts, base=Path(place))
        made.approve(who="benchmark", why="benchmark")
        start = time.process_time()
        result = made.run()
        seconds = time.process_time() - start
    test = credit.test_records(made, folder)
    figures = evaluate(made.setup.fresh_model(), result.parameters, test).figures
    return {
        "table": "credit", "model": "logistic", "path": "engine", "epsilon": 1.0,
        "delta": float(credit.DELTA), "colluders": made.config.privacy.colluders, "metric": "AUC",
        "value": figures["auc"], "se": None, "worst": figures["auc"], "draws": 1,
        "openings": made.plan.rounds, "values": made.plan.rounds * made.plan.dimension,
        "bytes": sum(sum(each.outcome.bytes_up.values()) for each in result.rounds),
        "seconds": seconds, "chosen": "on synthetic card holders (synthetic_credit.py)",
    }  # fmt: skip


def by_proposals(folder: Path, table: str, epsilon: str, colluders: int, draws: int) -> Row:
    """A row of `auto` where it leaves the table to training: settings proposed, all else alike."""
    facts = federation(folder, table, AUTO, epsilon, colluders).config.model_dump(
        mode="json", exclude={"ask"}, exclude_unset=True
    )
    facts["training"] = {"model": "logistic"}
    facts["privacy"] |= {"epsilon": epsilon}
    made, study = Federation.from_dict(facts, base=folder), STUDIES[table]
    schema = made.config.data.table_schema  # type: ignore[union-attr]
    tests = [load_table(folder / name, schema, public=True) for name in study.tests]
    start = time.process_time()
    with throwaway_folder() as state:
        runs = [*Replay(made, state).draws(draws)]
    seconds, model, name = time.process_time() - start, made.setup.fresh_model(), study.metric
    found = np.array([
        np.mean([evaluate(model, run.parameters, each).figures[name.lower()] for each in tests])
        for run in runs
    ])  # fmt: skip
    return {
        "table": table, "model": "auto: logistic", "path": "sites", "epsilon": float(epsilon),
        "delta": float(study.delta), "colluders": colluders, "metric": name,
        "value": float(found.mean()), "se": float(found.std(ddof=1) / np.sqrt(draws)),
        "worst": float(found.min()), "draws": draws, "openings": made.plan.rounds,
        "values": made.plan.rounds * made.plan.dimension, "bytes": None,
        "seconds": seconds / draws, "chosen": "by public facts (privagg.programs.choosing)",
    }  # fmt: skip


def by_auto(folder: Path, table: str, epsilon: str, colluders: int, draws: int) -> Row:
    """A row of `auto`."""
    choice = federation(folder, table, AUTO, epsilon, colluders).config.choice
    assert choice is not None
    if choice.program is None:
        return by_proposals(folder, table, epsilon, colluders, draws)
    row = by_sites(folder, table, choice.program, epsilon, colluders, draws)
    return {**row, "model": f"auto: {choice.program}"}


def by_pairs(folder: Path, pairs: int) -> Row:
    """Processor time of credit's scorecard beside its logistic model's, whole runs in turns."""
    times = np.array([
        (by_engine(folder, "credit", "scorecard", 0, 1)["seconds"], by_training(folder)["seconds"])
        for _ in range(pairs + 1)
    ])[1:]  # fmt: skip
    card, logistic = np.median(times, axis=0).tolist()
    return {
        "table": "credit", "model": "scorecard / logistic", "path": "engine", "epsilon": 1.0,
        "metric": "ratio of processor times", "value": card / logistic, "draws": pairs,
        "seconds": card, "logistic_seconds": logistic,
    }  # fmt: skip


def for_peers(folder: Path, table: str, place: Path) -> list[dict[str, Any]]:
    """Write a table's rows as numbers: amounts on their public scale, categories as their places.

    Args:
        folder: with the tables.
        table: of `STUDIES`, with one test table.
        place: the file.

    Returns:
        What is public of each column: its range, or how many categories it has.
    """
    study = STUDIES[table]
    schema, facts = TableSchema.model_validate(study.data), list[dict[str, Any]]()
    train = pd.concat([pd.read_csv(folder / f"{name}.csv") for name in study.sites])
    found = list[Any]()
    for frame in (train, pd.read_csv(folder / study.tests[0])):
        records, columns = Columns.read(frame, schema), list[Any]()
        facts.clear()
        for each in schema.features:
            if isinstance(each, NumericFeature):
                columns.append(each.transformed(records.numbers(each.name)))
                ends = [float(each.transformed(np.float64(end))) for end in each.range]
                facts.append({"range": ends, "categories": 0})
            else:
                columns.append(records.codes(each.name).astype(np.float64))
                facts.append({"range": None, "categories": len(each.categories)})
        found += [np.stack(columns, axis=1), np.asarray(schema.target.read(frame))]
    np.savez(place, **dict(zip(("x", "y", "fresh", "truth"), found, strict=True)))
    return facts


def by_peers(folder: Path, table: str, epsilons: Sequence[str], draws: int) -> Iterator[Row]:
    """Rows of `peer`."""
    study = STUDIES[table]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "table.npz"
        columns = for_peers(folder, table, path)
        for name, python in PEERS.items():
            for epsilon in epsilons:
                request = {
                    "table": str(path), "columns": columns, "epsilon": float(epsilon),
                    "delta": float(study.delta), "seeds": list(range(draws)),
                }  # fmt: skip
                script = Path(__file__).with_name("peer_tables.py")
                told = subprocess.run(
                    [str(python), str(script), name], input=json.dumps(request) + "\n",
                    capture_output=True, text=True, check=True,
                ).stdout  # fmt: skip
                areas = np.array(json.loads(told))
                yield {
                    "table": table, "model": name, "path": "peer", "epsilon": float(epsilon),
                    "delta": float(study.delta) if name == "interpret" else 0.0, "colluders": 0,
                    "metric": "AUC", "value": float(areas.mean()), "worst": float(areas.min()),
                    "se": float(areas.std(ddof=1) / np.sqrt(len(areas))), "draws": len(areas),
                    "chosen": "its defaults, or fixed before any table was read",
                }  # fmt: skip


def by_literature(folder: Path) -> Iterator[Row]:
    """FLamby's figures of heart disease, as its authors measured them.

    Source: Ogier du Terrail et al. 2022, "FLamby: datasets and benchmarks for cross-silo federated
        learning in realistic healthcare settings", NeurIPS datasets and benchmarks.
    """
    table = pd.read_csv(folder / "flamby_dp_results.csv")
    there = table[table["d"].astype(float) == float(heart.DELTA)]
    for epsilon, own in there.groupby("e"):
        values = own["perf"].to_numpy()
        yield {
            "table": "heart", "model": "FLamby FedAvg and Opacus", "path": "literature",
            "epsilon": float(epsilon), "delta": float(heart.DELTA), "colluders": 0,
            "metric": "accuracy", "value": float(values.mean()), "worst": float(values.min()),
            "se": float(values.std(ddof=1) / np.sqrt(len(values))), "draws": len(values),
        }  # fmt: skip


def rows(args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """All rows, each as soon as it is there."""
    for table in args.tables:
        place = args.data / table
        if table == "heart":  # hospitals are split as FLamby does
            heart.write_split(place, folder)
            for name in heart.HOSPITALS:
                (folder / f"{name}-train.csv").rename(folder / f"{name}.csv")
            place = folder
        for model, colluders in product(args.models, args.colluders):
            for epsilon in args.epsilons:
                if model == AUTO:
                    yield by_auto(place, table, epsilon, colluders, args.draws)
                else:
                    yield by_sites(place, table, model, epsilon, colluders, args.draws)
            if args.whole and model != AUTO:
                yield by_engine(place, table, model, colluders, args.whole)
        if args.whole and table == "credit":
            yield by_training(place)
        if args.pairs and table == "credit":
            yield by_pairs(place, args.pairs)
        if args.peers and table != "heart":
            yield from by_peers(place, table, args.epsilons, args.peers)
        elif args.peers:
            yield from by_literature(args.data / table)


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    default = os.environ.get("PRIVAGG_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tables", nargs="+", choices=[*STUDIES], default=[*STUDIES])
    parser.add_argument("--models", nargs="*", choices=[*MODELS, AUTO], default=[*MODELS, AUTO])
    parser.add_argument("--epsilons", nargs="*", default=EPSILONS)
    parser.add_argument("--colluders", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--whole", type=int, default=1, help="askings through the whole engine")
    parser.add_argument("--pairs", type=int, default=0, help="whole runs whose times are compared")

    parser.add_argument("--peers", type=int, default=0, help="draws of each peer (make tabular)")
    args = parser.parse_args()
    found = list[Row]()
    with tempfile.TemporaryDirectory() as folder:
        for each in rows(args, Path(folder)):
            found.append(each)
            write_json(args.json, found)
    columns = ("table", "model", "path", "epsilon", "colluders", "metric", "value", "se", "worst",
               "draws", "openings", "values", "bytes", "seconds")  # fmt: skip
    show("Scorecards and trees on fresh records", {each: each for each in columns}, found)


if __name__ == "__main__":
    main()
