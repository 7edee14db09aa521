"""Private evaluation: how far the opened area under the ROC curve lies from the records' own.

    python -m tests.benchmarks.private_evaluation --data ../shared/data/credit --json out/area.json

Three banks train the example's model on credit's own tables, with a fifth of the records held out.
Then it is evaluated at ε = 0.5, with one colluding bank allowed for:

`test rows`: the 6,000 rows of the test set, dealt to the banks in turn. Each draw goes through the
sites' own half of the program: scores, integers, shares of the noise, both rounds.

`whole engine`: the records that the banks hold out themselves, by `federation.evaluate`, with
charges, uploads and a report for each draw.

`error` is the standard deviation of the opened area less the records' own, `bias` its mean,
`stated` the deviation that the interval for these records states, `coverage` how often that
interval holds the records' own area, of 95 in 100 promised.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from privagg import Federation
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.answers import Figure, deviations
from privagg.programs.evaluation.held import HeldRecords
from privagg.programs.evaluation.scoring import model_outputs
from privagg.programs.sums import SumsLearner
from privagg.programs.sums_program import NoisySum
from privagg.training.data import load_table
from privagg.training.measures import roc_auc
from tests.benchmarks.tables import show, write_json

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "credit_default" / "credit_default.toml"
BANKS = ("bank_a", "bank_b", "bank_c")
EPSILON, AREA = "0.5", "area under the ROC curve"


def federation_in(folder: Path, data: Path, rounds: int) -> Federation:
    """The example's three banks with a fifth of their records held out."""
    facts = tomllib.loads(EXAMPLE.read_text(), parse_float=Decimal)
    for site in facts["sites"]:
        shutil.copy(data / f"{site['name']}.csv", folder)
        site["data"] = f"{site['name']}.csv"
    facts["evaluation"] = {"private": True, "epsilon": Decimal(EPSILON)}
    facts["secure"]["scheme"] = "plaintext"
    facts["privacy"]["budget_epsilon"] = Decimal(10**6)
    facts["training"]["rounds"] = rounds
    federation = Federation.from_dict(facts, base=folder)
    for job in ("training", "evaluation"):
        federation.approve(who="benchmark", why="benchmark", job=job)
        if job == "training":
            federation.run()
    return federation


def own_area(made: Federation, some: Sequence[HeldRecords]) -> float:
    """What the model's own scores give, without noise and without bins."""
    setup = made.evaluating
    content, parameters = setup.sums.content, setup.sums.begin()
    inputs = np.concatenate([one.inputs for one in some])
    outputs = model_outputs(content.model, content.data.target, parameters, inputs, setup.code)
    area = roc_auc(outputs[:, 0], np.concatenate([one.targets for one in some]) == 1)
    assert area is not None
    return area


def by_the_sites(made: Federation, some: Sequence[HeldRecords], draw: int) -> Figure:
    """Both rounds as the sites would add to them, noise and all."""
    setup = made.evaluating
    plan, program = setup.plan, setup.sums
    state, sums = program.begin(), list[NoisySum]()
    for number in range(1, plan.rounds + 1):
        total = sum(
            SumsLearner(plan, name, program, one).contribution(
                state, SystemRandomness(), (f"draw-{draw}", number, 1)
            )
            for name, one in zip(plan.names, some, strict=True)
        )
        sums.append(NoisySum.of(plan, number, np.asarray(total), plan.names))
        state = program.step(number, state, sums[-1])
    first, *_ = program.answers(sums)
    return next(figure for figure in first.figures if figure.what == AREA)


def by_the_engine(made: Federation) -> tuple[float, float, float]:
    """The opened area, and the ends of its interval, of a whole evaluation."""
    result = made.evaluate()
    assert result.answers is not None
    first, *_ = json.loads(result.answers.read_bytes())["answers"]
    figure = next(each for each in first["figures"] if each["what"] == AREA)
    return figure["raw"], figure["records"]["low"], figure["records"]["high"]


def row(where: str, records: int, area: float, found: Sequence[tuple[float, float, float]]) -> Any:
    """What many opened areas say of their error."""
    raw, low, high = np.asarray(found).T
    off, draws = raw - area, len(raw)
    return {
        "table": "credit", "records": where, "count": records, "epsilon": float(EPSILON),
        "delta": 1e-5, "draws": draws, "area": area, "error": float(off.std(ddof=1)),
        "bias": float(off.mean()), "standard_error": float(off.std(ddof=1) / np.sqrt(draws)),
        "stated": float(np.mean(high - low) / 2 / deviations(0.95)),
        "coverage": float(np.mean((low <= area) & (area <= high))),
    }  # fmt: skip


def measured(folder: Path, data: Path, draws: int, whole: int, rounds: int) -> list[Any]:
    """Both rows.

    Args:
        folder: where the federation's files go.
        data: the tables' folder.
        draws: of the test rows.
        whole: evaluations through the whole engine.
        rounds: of training.
    """
    made = federation_in(folder, data, rounds)
    test = load_table(data / "test.csv", made.evaluating.schema)
    x, y = test.x.numpy(), test.y.numpy()
    dealt = [HeldRecords(i, x[i::3], y[i::3], {}) for i in range(3)]
    rows = [
        row("test rows", len(x), own_area(made, dealt), [
            (figure.raw, *figure.records)
            for draw in track(range(draws), "test rows")
            for figure in [by_the_sites(made, dealt, draw)]
        ])
    ]  # fmt: skip
    held = [made.evaluating.lines_of(name) for name in BANKS]
    count = sum(map(len, held))
    found = [by_the_engine(made) for _ in track(range(whole), "whole engine")]
    return [*rows, row("whole engine", count, own_area(made, held), found)]


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    default = os.environ.get("PRIVAGG_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default) / "credit")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--whole", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder), args.data, args.draws, args.whole, args.rounds)
    columns = ("records", "count", "draws", "area", "error", "bias", "standard_error", "stated",
               "coverage")  # fmt: skip
    show(
        f"Area under the ROC curve at ε = {EPSILON}",
        {name: lambda row, name=name: f"{row[name]:.4f}" if isinstance(row[name], float)
         else str(row[name]) for name in columns},
        rows,
    )  # fmt: skip
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
