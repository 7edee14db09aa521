"""Questions to federated tables beside OpenDP's central answers at the same epsilon.

    python -m tests.benchmarks.questions --data ../shared/data --json out/questions.json

Each question is asked alone, of public declarations, with no colluders: so it has the whole of
epsilon, and the noise of the sum is what a table in one place would need. The plan is the one that
`privagg ask` would charge; its sites' shares of the noise are drawn by the sites' own sampler and
added to the exact sum of the records' integers. OpenDP has the pooled values in one process, at
pure epsilon (we pay delta besides), and does not know the number of records either.

OpenDP picks a quantile from 65 candidates that are evenly spaced over the declared range; our bins
are as many as are chosen for the table and epsilon.

`error` is the root mean square over the draws, of counts over the cells too, against the table's
own value, and where nothing is told that of the middle of the declared range; `coverage` is how
often the interval for these records holds it, of 95 in 100 promised.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from privagg import Federation
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.sums import IntMatrix, bounded
from privagg.programs.sums_program import NoisySum
from privagg.training.draws import Draws
from tests.benchmarks.tables import show, write_json

ROOT = Path(__file__).resolve().parents[2]
PEER = ROOT / ".peers" / "opendp" / "bin" / "python"
EPSILONS = ("0.1", "0.5", "1", "3")
CANDIDATES = 64
"""Steps between the candidates that OpenDP picks a quantile from."""


@dataclass(frozen=True)
class Study:
    """A table with what is asked of it.

    Attributes:
        name: of the table.
        sites: its files.
        number: a column of numbers, its declared range with it.
        category: a column of categories, these with it.
        delta: of the plan.
    """

    name: str
    sites: tuple[str, ...]
    number: tuple[str, float, float]
    category: tuple[str, tuple[Any, ...]]
    delta: str = "1e-5"

    def read(self, data: Path) -> dict[str, pd.DataFrame]:
        """Site -> its lines; a file that is one for several institutions is dealt to three."""
        if len(self.sites) > 1:
            return {name: pd.read_csv(data / f"{name}.csv") for name in self.sites}
        whole = pd.read_csv(data / f"{self.sites[0]}.csv")
        return {f"site{i}": whole.iloc[i::3] for i in range(3)}


STUDIES = (
    Study(
        "heart", ("cleveland", "hungarian", "switzerland", "va"), ("age", 20, 90),
        ("cp", (1, 2, 3, 4)), "1e-4",
    ),
    Study("credit", ("bank_a", "bank_b", "bank_c"), ("age", 18, 100), ("education", (1, 2, 3, 4))),
    Study(
        "adult", ("office_north", "office_east", "office_south"), ("hours_per_week", 0, 100),
        ("race", ("White", "Black", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other")),
    ),
    Study("lung", ("lung",), ("age", 30, 90), ("sex", (1, 2)), "1e-3"),
)  # fmt: skip


def federation(
    study: Study, tables: dict[str, pd.DataFrame], question: Any, epsilon: str
) -> Federation:
    """The declared federation that asks one question."""
    (number, low, high), (category, labels) = study.number, study.category
    target = {"name": category, "classes": [*labels]}
    return Federation.from_dict(
        {
            "federation": {"name": study.name},
            "privacy": {
                "mode": "record-distributed", "epsilon": 1, "delta": study.delta,
                "budget_epsilon": 100, "colluders": 0,
            },
            "training": {"model": "logistic", "rounds": 1, "sampling_rate": 1},
            "secure": {"scheme": "plaintext", "custody": "authority"},
            "data": {"features": [{"name": number, "range": [low, high]}], "target": target},
            "ask": {"epsilon": epsilon, "level": 0.95},
            "questions": [question],
            "sites": [
                {"name": name, "data": f"{name}.csv", "records": len(table)}
                for name, table in tables.items()
            ],
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One question with the table's own answer, and what OpenDP is asked.

    Attributes:
        what: of the row.
        question: as a configuration has it.
        truth: of each of its figures.
        of: which figures are compared.
        peer: the request, but for epsilon and draws.
    """

    what: str
    question: dict[str, Any]
    truth: Sequence[float]
    of: str
    peer: dict[str, Any]


def questions(study: Study, whole: pd.DataFrame) -> Iterator[Asked]:
    """What is asked of a table, the answers by pandas."""
    (number, low, high), (category, labels) = study.number, study.category
    values = pd.to_numeric(whole[number], errors="coerce").dropna().clip(low, high)
    texts = [str(value) for value in whole[category]]
    cells = [sum(text == str(label) for text in texts) for label in labels]
    every = {"kind": "count", "values": texts, "categories": []}
    yield Asked("count", {"name": "q", "kind": "count"}, [len(whole)], "count", every)
    yield Asked(
        f"count by {category}", {"name": "q", "kind": "count", "by": [category]},
        [*cells, len(whole) - sum(cells)], "count",
        {"kind": "count", "values": texts, "categories": [str(label) for label in labels]},
    )  # fmt: skip
    pooled = {"values": values.astype(float).tolist(), "low": float(low), "high": float(high)}
    yield Asked(
        f"mean of {number}", {"name": "q", "kind": "mean", "of": number}, [values.mean()],
        "mean", {"kind": "mean", **pooled},
    )  # fmt: skip
    candidates = np.linspace(low, high, CANDIDATES + 1).tolist()
    yield Asked(
        f"median of {number}",
        {"name": "q", "kind": "quantiles", "of": number, "at": [0.5]},
        [values.median()], "quantile 0.5",
        {"kind": "quantile", "values": pooled["values"], "candidates": candidates, "at": 0.5},
    )  # fmt: skip


def ours(
    made: Federation, tables: dict[str, pd.DataFrame], asked: Asked, draws: int, middle: float
) -> tuple[float, float]:
    """Error, and how often the interval for these records holds the table's own value.

    Args:
        made: the federation that asks.
        tables: its sites'.
        asked: the question.
        draws: of the noise.
        middle: guessed where the noise leaves nothing to say.
    """
    setup = made.asking
    plan, program, schema = setup.plan, setup.sums, setup.schema
    exact = sum(
        bounded(_integers(setup, table), len(table), plan.openings[0]).sum(axis=0)
        for table in tables.values()
    )
    squares, held, secure = list[float](), list[bool](), SystemRandomness()
    for draw in range(draws):
        place = (f"draw-{draw}", 1, 1)
        noise = sum(Draws(secure, place, name, plan).noise(len(exact)) for name in plan.names)
        (answer,) = program.answers([NoisySum.of(plan, 1, exact + noise, plan.names)])
        figures = [figure for figure in answer.figures if figure.what == asked.of]
        assert len(figures) == len(asked.truth), schema
        for figure, truth in zip(figures, asked.truth, strict=True):
            value = middle if figure.value is None else figure.value
            squares.append((value - truth) ** 2)
            held.append(figure.records.low <= truth <= figure.records.high)
    return float(np.sqrt(np.mean(squares))), float(np.mean(held))


def _integers(setup: Any, table: pd.DataFrame) -> IntMatrix:
    from privagg.programs.questions.columns import Columns

    columns = Columns.read(table, setup.schema)
    found: IntMatrix = setup.sums.integers(1, setup.sums.begin(), columns)
    return found


def theirs(ask: Callable[[dict[str, Any]], Any], asked: Asked, epsilon: str, draws: int) -> float:
    """OpenDP's error."""
    answers = ask({**asked.peer, "epsilon": float(epsilon), "draws": draws})
    off = np.asarray(answers, dtype=float) - np.asarray(asked.truth, dtype=float)
    return float(np.sqrt(np.mean(off**2)))


class OpenDP:
    """OpenDP's process."""

    def __init__(self, python: Path) -> None:
        path = Path(__file__).with_name("peer_opendp.py")
        self._process = subprocess.Popen(
            [str(python), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, request: dict[str, Any]) -> Any:
        """Its answers to one request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def rows(data: Path, python: Path, draws: int, epsilons: Sequence[str]) -> list[dict[str, Any]]:
    """Every table's questions at every epsilon."""
    peer, found = OpenDP(python), list[dict[str, Any]]()
    for study in track(STUDIES, "asking"):
        folder = "survival" if study.name == "lung" else study.name
        tables = study.read(data / folder)
        for asked in questions(study, pd.concat(tables.values())):
            for epsilon in epsilons:
                made = federation(study, tables, asked.question, epsilon)
                middle = (study.number[1] + study.number[2]) / 2
                error, coverage = ours(made, tables, asked, draws, middle)
                other = theirs(peer, asked, epsilon, min(draws, 100))
                found.append(
                    {
                        "table": study.name, "question": asked.what, "epsilon": float(epsilon),
                        "delta": float(study.delta), "error": error, "peer_error": other,
                        "ratio": error / other if other else None, "coverage": coverage,
                        "draws": draws,
                    }
                )  # fmt: skip
    peer.close()
    return found


def main() -> None:
    """Ask, compare, print, write."""
    parser = argparse.ArgumentParser(description="questions beside OpenDP's central answers")
    data = os.environ.get("PRIVAGG_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=data, help="the folder of the tables' folders")
    parser.add_argument("--peer", type=Path, default=PEER, help="python with opendp (make peers)")
    parser.add_argument("--draws", type=int, default=400, help="of the noise, for each row")
    parser.add_argument("--epsilons", nargs="+", default=EPSILONS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = rows(options.data, options.peer, options.draws, options.epsilons)
    columns = {name: name for name in ("table", "question")}
    columns |= {"ε": "epsilon", "our error": "error", "OpenDP's": "peer_error"}
    show(
        "questions to several institutions, and to one table in one place",
        {**columns, "ratio": "ratio", "coverage of 95 %": "coverage"},
        found,
    )
    write_json(options.json, found)


if __name__ == "__main__":
    main()
