"""Survival curves and Cox regressions with privacy beside the tables' own.

    python -m tests.benchmarks.survival --data ../shared/data --json out/survival.json

The records are dealt to three sites in turn and asked with no colluders, each question alone. The
plan is the one that `privagg ask` would charge; its sites' shares of the noise are drawn by the
sites' own sampler and added to the exact sums of the records' integers, round by round.

Kaplan-Meier: `error` is the root mean square, over the table's own event times until `until` and
over the draws, of the released curve less the exact Kaplan-Meier curve of all records. The released
curve is straight between the ends of the intervals, and stays where it was once no more is told.
`coverage` is how often the interval for these records, of 95 in 100 promised, holds the noiseless
answer at an interval's end.

Cox: `c_index` is of the released coefficients on the pooled table, its mean and standard deviation
over the draws, beside that of an exact Cox regression without privacy (by lifelines where it is
installed, else by the one below). `error` is the root mean square of the coefficients' deviations
from those, in standard errors of these.

Hazards: `c_index` likewise, on the pooled table, of models trained with privacy towards the time to
the event; whole runs, of round numbers of rounds, rate and intervals that were not searched for.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track

from privagg import Federation
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.answers import Answer
from privagg.programs.questions.columns import Columns
from privagg.programs.sums import bounded
from privagg.programs.sums_program import NoisySum
from privagg.training.draws import Draws
from tests.approvals import approved
from tests.benchmarks.tables import show, write_json

ROOT = Path(__file__).resolve().parents[2]
EPSILONS = ("0.1", "0.5", "1", "3", "10")
SITES = 3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """A table, and what is asked of it.

    Attributes:
        name: of the file.
        event: its column of events, 1 where there was one.
        until: where the curve ends.
        features: as a configuration declares them.
        on: of these, what the hazard is explained by.
    """

    name: str
    event: str
    until: int
    features: tuple[dict[str, Any], ...]
    on: tuple[str, ...]


STUDIES = (
    Study(
        "lung", "status", 1000,
        (
            {"name": "time", "range": [0, 1100]},
            {"name": "age", "range": [35, 85]},
            {"name": "sex", "categories": [1, 2]},
            {"name": "ph.ecog", "range": [0, 3]},
        ),
        ("age", "sex", "ph.ecog"),
    ),
    Study(
        "gbsg2", "cens", 2500,
        (
            {"name": "time", "range": [0, 3000]},
            {"name": "age", "range": [20, 80]},
            {"name": "horTh", "categories": ["no", "yes"]},
            {"name": "tgrade", "categories": ["I", "II", "III"]},
            {"name": "log nodes", "range": [0, 4]},
            {"name": "log progrec", "range": [0, 8]},
        ),
        ("age", "horTh", "tgrade", "log nodes", "log progrec"),
    ),
)  # fmt: skip


def read(folder: Path, study: Study) -> pd.DataFrame:
    """The table, with the logarithms that its declaration names."""
    table = pd.read_csv(folder / f"{study.name}.csv")
    for name in ("nodes", "progrec"):
        found = {"nodes": "pnodes", "progrec": "progrec"}[name]
        if found in table:
            table[f"log {name}"] = np.log1p(table[found])
    return table


def federation(study: Study, table: pd.DataFrame, question: Any, epsilon: str) -> Federation:
    """The declared federation that asks one question."""
    return Federation.from_dict(
        {
            "federation": {"name": study.name},
            "privacy": {
                "mode": "record-distributed", "epsilon": 1, "delta": "1e-5",
                "budget_epsilon": 100, "colluders": 0,
            },
            "training": {"model": "logistic", "rounds": 1, "sampling_rate": 1},
            "secure": {"scheme": "plaintext", "custody": "authority"},
            "data": {
                "features": list(study.features),
                "target": {"name": study.event, "positive": "== 1"},
            },
            "ask": {"epsilon": epsilon, "level": 0.95},
            "questions": [
                {
                    "name": "q", "time": "time", "event": study.event, "until": study.until,
                    **question,
                }
            ],
            "sites": [
                {"name": f"site-{i}", "data": f"{i}.csv", "records": len(table[i::SITES])}
                for i in range(SITES)
            ],
        }
    )  # fmt: skip


def answers(made: Federation, table: pd.DataFrame, draws: int) -> Iterator[Answer]:
    """What is answered without noise, then with the plan's noise, drawn again and again."""
    setup, secure = made.asking, SystemRandomness()
    plan, program = setup.plan, setup.sums
    columns = Columns.read(table, setup.schema)
    for draw in range(draws + 1):
        state, sums = program.begin(), list[NoisySum]()
        for number in range(1, plan.rounds + 1):
            terms, place = plan.openings[number - 1], (f"draw-{draw}", number, 1)
            total = bounded(program.integers(number, state, columns), len(columns), terms).sum(0)
            for name in plan.names if draw else ():
                total = total + Draws(secure, place, name, plan).noise(len(total))
            sums.append(NoisySum.of(plan, number, total, plan.names))
            state = program.step(number, state, sums[-1])
        yield program.answers(sums)[0]


def kaplan_meier(time: Floats, event: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The event times and the exact curve after each."""
    times = np.unique(time[event])
    at_risk = np.array([(time >= each).sum() for each in times])
    events = np.array([((time == each) & event).sum() for each in times])
    return times, np.cumprod(1 - events / at_risk)


def curve(study: Study, table: pd.DataFrame, epsilon: str, draws: int) -> dict[str, Any]:
    """One row on the Kaplan-Meier curve of all records."""
    made = federation(study, table, {"kind": "survival"}, epsilon)
    times, exact = kaplan_meier(table.time.to_numpy(float), table[study.event].to_numpy() == 1)
    shown, off, held = times <= study.until, list[Floats](), list[bool]()
    noiseless: list[float] = []
    for answer in answers(made, table, draws):
        figures = [figure for figure in answer.figures if figure.what.startswith("survival at ")]
        ends = [0.0, *(float(figure.what.removeprefix("survival at ")) for figure in figures)]
        heights = [1.0]
        for figure in figures:
            heights.append(heights[-1] if figure.value is None else figure.value)
        if not noiseless:
            noiseless = [figure.raw for figure in figures]
            continue
        off.append(np.interp(times[shown], ends, heights) - exact[shown])
        pairs = zip(figures, noiseless, strict=True)
        held += [f.records.low <= truth <= f.records.high for f, truth in pairs]
    noise = "laplace" if made.asking.plan.openings[0].moves else "gaussian"
    error = float(np.sqrt(np.mean(np.square(off))))
    return {
        "table": study.name, "question": "kaplan-meier", "epsilon": epsilon, "delta": "1e-5",
        "noise": noise, "error": error, "coverage": float(np.mean(held)),
    }  # fmt: skip


def matrix(study: Study, table: pd.DataFrame) -> tuple[list[str], Floats]:
    """The terms of the regression, named as answers name them, and their values."""
    names, found = list[str](), []
    for feature in study.features:
        if feature["name"] not in study.on:
            continue
        column = table[feature["name"]]
        if "range" in feature:
            names.append(feature["name"])
            found.append(column.clip(*feature["range"]).to_numpy(float))
        for label in feature.get("categories", ())[1:]:
            names.append(f"{feature['name']}: {label}")
            found.append((column == label).to_numpy(float))
    return names, np.stack(found, axis=1)


def exact_cox(time: Floats, event: npt.NDArray[np.bool_], x: Floats) -> tuple[Floats, Floats]:
    """Coefficients and standard errors without privacy, ties as Breslow has them."""
    try:
        from lifelines import CoxPHFitter
    except ImportError:
        return _newton(time, event, x)
    frame = pd.DataFrame(x).assign(time=time, event=event)
    fitted = CoxPHFitter().fit(frame, "time", "event")
    return fitted.params_.to_numpy(), fitted.standard_errors_.to_numpy()


def _newton(time: Floats, event: npt.NDArray[np.bool_], x: Floats) -> tuple[Floats, Floats]:
    order = np.argsort(-time, kind="stable")
    time, event, x = time[order], event[order], x[order] - x.mean(axis=0)
    last = np.searchsorted(-time, -time, side="right") - 1
    coefficients = np.zeros(x.shape[1])
    for _ in range(30):
        risk = np.exp(x @ coefficients)
        zeroth = np.cumsum(risk)[last]
        mean = np.cumsum(risk[:, None] * x, axis=0)[last] / zeroth[:, None]
        outer = risk[:, None, None] * x[:, :, None] * x[:, None, :]
        second = np.cumsum(outer, axis=0)[last] / zeroth[:, None, None]
        information = (second - mean[:, :, None] * mean[:, None, :])[event].sum(axis=0)
        score = (x - mean)[event].sum(axis=0)
        coefficients = coefficients + np.linalg.solve(information, score)
    return coefficients, np.sqrt(np.diag(np.linalg.inv(information)))


def concordance(time: Floats, event: npt.NDArray[np.bool_], risk: Floats) -> float:
    """Harrell's: of pairs of which one is known to have been first, how often its risk is more."""
    first = event[:, None] & (time[:, None] < time)
    more = (risk[:, None] > risk) + 0.5 * (risk[:, None] == risk)
    return float((first * more).sum() / first.sum())


def regression(study: Study, table: pd.DataFrame, epsilon: str, draws: int) -> dict[str, Any]:
    """One row on a Cox regression."""
    table = table.dropna(subset=[*study.on])
    time, event = table.time.to_numpy(float), table[study.event].to_numpy() == 1
    names, x = matrix(study, table)
    exact, errors = exact_cox(time, event, x)
    made = federation(study, table, {"kind": "cox", "on": list(study.on)}, epsilon)
    found, indices = list[Floats](), list[float]()
    for answer in list(answers(made, table, draws))[1:]:
        told = {
            figure.group["term"]: figure.value or 0.0
            for figure in answer.figures
            if figure.what.endswith("coefficient")
        }
        found.append(np.array([told[name] for name in names]))
        indices.append(concordance(time, event, x @ found[-1]))
    return {
        "table": study.name, "question": "cox", "epsilon": epsilon, "delta": "1e-5",
        "noise": "gaussian", "error": float(np.sqrt(np.mean(((found - exact) / errors) ** 2))),
        "c_index": float(np.mean(indices)), "c_index_deviation": float(np.std(indices)),
        "c_index_without_privacy": concordance(time, event, x @ exact),
    }  # fmt: skip


ROUNDS = 30


def hazards(study: Study, table: pd.DataFrame, epsilon: str, draws: int) -> dict[str, Any]:
    """One row on models of hazards, each trained in a run of its own."""
    table = table.dropna(subset=[*study.on])
    time, event = table.time.to_numpy(float), table[study.event].to_numpy() == 1
    _, x = matrix(study, table)
    exact, _ = exact_cox(time, event, x)
    time, event = np.minimum(time, study.until), event & (time <= study.until)
    found = list[float]()
    for _ in range(draws):
        with tempfile.TemporaryDirectory(prefix="survival-") as name:
            found.append(_trained(study, table, epsilon, Path(name)))
    return {
        "table": study.name, "question": "hazards", "epsilon": epsilon, "delta": "1e-5",
        "noise": "gaussian", "draws": draws,
        "c_index": float(np.mean(found)), "c_index_deviation": float(np.std(found)),
        "c_index_without_privacy": concordance(time, event, x @ exact),
    }  # fmt: skip


def _trained(study: Study, table: pd.DataFrame, epsilon: str, folder: Path) -> float:
    """The C-index on all records of one model."""
    for i in range(SITES):
        table[i::SITES].to_csv(folder / f"{i}.csv", index=False)
    table.to_csv(folder / "all.csv", index=False)
    values = {
        "federation": {"name": study.name, "output": str(folder / "out")},
        "privacy": {"epsilon": epsilon, "delta": "1e-5", "colluders": 0},
        "training": {
            "model": "logistic", "rounds": ROUNDS, "sampling_rate": 1,
            "optimizer": {"kind": "momentum", "learning_rate": 0.5, "average_from": ROUNDS // 2},
        },
        "secure": {"scheme": "plaintext", "custody": "authority"},
        "data": {
            "features": [each for each in study.features if each["name"] in study.on],
            "target": {
                "kind": "time-to-event", "name": "survival", "time": "time", "event": study.event,
                "event_is": "== 1", "until": study.until,
            },
        },
        "sites": [
            {"name": f"site-{i}", "data": f"{i}.csv", "records": len(table[i::SITES])}
            for i in range(SITES)
        ],
        "evaluation": {"data": "all.csv", "public": True},
    }  # fmt: skip
    made = approved(Federation.from_dict(values, base=folder))
    return float(made.run().metrics["c_index"])


def rows(data: Path, draws: int, epsilons: Sequence[str]) -> list[dict[str, Any]]:
    """Every row of the table."""
    found = []
    for study in STUDIES:
        table = read(data / "survival", study)
        for epsilon in track(epsilons, study.name):
            found.append(curve(study, table, epsilon, draws))
            found.append(regression(study, table, epsilon, max(1, draws // 4)))
            found.append(hazards(study, table, epsilon, max(1, draws // 20)))
    return sorted(found, key=lambda row: str(row["question"]), reverse=True)


def main() -> None:
    """Ask, compare, print, write."""
    parser = argparse.ArgumentParser(description="survival with privacy beside the tables' own")
    data = os.environ.get("PRIVAGG_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=data, help="the folder of the tables' folders")
    parser.add_argument(
        "--draws",
        type=int,
        default=200,
        help="of the noise; a quarter for Cox, 1 in 20 for hazards",
    )
    parser.add_argument("--epsilons", nargs="+", default=EPSILONS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = rows(options.data, options.draws, options.epsilons)
    columns = {name: name for name in ("table", "question", "noise", "error", "coverage")}
    columns |= {"ε": "epsilon", "C-index": "c_index", "± of a draw": "c_index_deviation"}
    show(
        "survival curves and Cox regressions of three sites",
        {**columns, "C-index without privacy": "c_index_without_privacy"},
        found,
    )
    write_json(options.json, found)


if __name__ == "__main__":
    main()
