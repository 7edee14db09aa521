"""Ranges and categories asked with privacy, beside the tables' own, and what ranges are worth.

    python -m tests.benchmarks.facts --data ../shared/data --json out/facts.json

Every column of a table is asked about in one job, from its name and kind alone; its noise is that
of the plan which `privagg ask --for` would charge, drawn by the sites' own sampler. Rows of kind
`range` hold a proposed range against the 0.5 % and 99.5 % quantiles, rows of kind `categories`
count how many of those that 2 % of the records have are found. Rows of kind `auc` train a logistic
model by clipped gradient steps at epsilon 1, with the noise of one data holder, on inputs encoded
by the proposed sections, by the tables' own quantiles, and by ranges ten times as wide as proposed;
the figure is that of held-out records, averaged over draws that proposed any column.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from privagg import Federation
from privagg.config.facts import FactsSetup
from privagg.config.proposed import proposed
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.answers import Answer, answer_facts
from privagg.programs.facts.cells import spelt
from privagg.programs.sums_program import NoisySum
from privagg.training.draws import Draws
from privagg.training.measures import roc_auc
from privagg.training.table import TableSchema
from tests.benchmarks.synthetic_heart import gaussian_noise_multiplier
from tests.benchmarks.tables import show, write_json

ROOT = Path(__file__).resolve().parents[2]
EPSILONS = ("0.5", "1")
STEPS, RATE, TRAINING_EPSILON = 40, 4.0, 1.0
BILLS = tuple(f"{kind}_amt{month}" for kind in ("bill", "pay") for month in range(1, 7))


@dataclass(frozen=True)
class Study:
    """A table with its columns by kind.

    Attributes:
        name: of the table.
        sites: its files.
        test: the file of held-out records; empty where a third of all is held out.
        numbers: columns of numbers.
        categories: columns of categories.
        target: what is predicted.
        longest: bytes of a category, at most.
        delta: of the plan.
    """

    name: str
    sites: tuple[str, ...]
    test: str
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    target: dict[str, Any]
    longest: int = 2
    delta: str = "1e-5"

    def read(self, data: Path) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
        """Site -> its lines, and the held-out ones."""
        tables = {name: pd.read_csv(data / f"{name}.csv") for name in self.sites}
        if self.test:
            return tables, pd.read_csv(data / f"{self.test}.csv")
        draw = np.random.default_rng(0)
        held = {name: draw.random(len(table)) < 1 / 3 for name, table in tables.items()}
        kept = {name: table[~held[name]] for name, table in tables.items()}
        return kept, pd.concat([table[held[name]] for name, table in tables.items()])


STUDIES = (
    Study(
        "heart", ("cleveland", "hungarian", "switzerland", "va"), "",
        ("age", "trestbps", "chol", "thalach", "oldpeak"),
        ("sex", "cp", "fbs", "restecg", "exang"), {"name": "num", "positive": "> 0"},
        delta="1e-4",
    ),
    Study(
        "credit", ("bank_a", "bank_b", "bank_c"), "test",
        ("limit_bal", "age", *(f"pay_{month}" for month in (0, 2, 3, 4, 5, 6)), *BILLS),
        ("sex", "education", "marriage"), {"name": "default", "positive": "== 1"},
    ),
    Study(
        "adult", ("office_north", "office_east", "office_south"), "test",
        ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week"),
        ("workclass", "marital_status", "occupation", "relationship", "race", "sex"),
        {"name": "income", "positive": "== >50K"}, longest=24,
    ),
    Study(
        "survival", ("lung",), "",
        ("age", "ph.karno", "pat.karno", "meal.cal", "wt.loss"), ("sex", "ph.ecog"),
        {"name": "status", "positive": "== 1"}, delta="1e-3",
    ),
)  # fmt: skip


def federation(study: Study, tables: Mapping[str, pd.DataFrame], epsilon: str) -> Federation:
    """The federation that knows no more than the columns' names and kinds."""
    columns: list[dict[str, Any]] = [{"name": each, "kind": "number"} for each in study.numbers]
    columns += [
        {"name": each, "kind": "category", "longest": study.longest, "most": 16}
        for each in study.categories
    ]
    return Federation.from_dict(
        {
            "federation": {"name": study.name},
            "privacy": {"epsilon": 1, "delta": study.delta, "budget_epsilon": 9, "colluders": 0},
            "training": {"model": "logistic", "rounds": 1},
            "secure": {"scheme": "plaintext", "custody": "authority"},
            "data": {"target": study.target},
            "facts": {"epsilon": epsilon, "columns": columns},
            "sites": [
                {"name": name, "data": f"{name}.csv", "records": len(table)}
                for name, table in tables.items()
            ],
        }
    )


def asked(setup: FactsSetup, tables: Mapping[str, pd.DataFrame], draw: int) -> tuple[Answer, ...]:
    """The answers of one draw of the noise."""
    plan, program, secure = setup.plan, setup.sums, SystemRandomness()
    cells = [program.cells(table) for table in tables.values()]
    state, sums = program.begin(), list[NoisySum]()
    for number, terms in enumerate(plan.openings, 1):
        total = np.zeros(plan.upload_dimension, dtype=np.int64)
        for each in cells:
            for start in range(0, len(each), 200):
                rows = program.integers(number, state, each[start : start + 200])
                total[: terms.length] += rows.sum(axis=0)
        place = (f"draw-{draw}", number, 1)
        for name in plan.names:
            total[: terms.length] += Draws(secure, place, name, plan).noise(terms.length)
        sums.append(NoisySum.of(plan, number, total, plan.names))
        state = program.step(number, state, sums[-1])
    return program.answers(sums)


def schema_of(setup: FactsSetup, answers: tuple[Answer, ...], target: Any) -> TableSchema | None:
    """The declaration that the proposed sections make; None where no column is proposed."""
    facts = {
        "run": "draw", "epsilon": str(setup.cost), "delta": str(setup.plan.delta),
        "level": setup.sums.level, "answers": [answer_facts(answer) for answer in answers],
    }  # fmt: skip
    sections = tomllib.loads(proposed(facts, target_declared=True))
    if "data" not in sections:
        return None
    return TableSchema.model_validate({**sections["data"], "target": target})


def with_ranges(schema: TableSchema, ranges: Mapping[str, tuple[float, float]]) -> TableSchema:
    """The same declaration with other ranges."""
    features = [
        feature.model_copy(update={"range": ranges[feature.name]})
        if feature.name in ranges
        else feature
        for feature in schema.features
    ]
    return schema.model_copy(update={"features": tuple(features)})


def wide(schema: TableSchema) -> dict[str, tuple[float, float]]:
    """Ranges about the same middle, ten times as wide."""
    ends = {each.name: each.range for each in schema.features if hasattr(each, "range")}
    return {name: (5.5 * low - 4.5 * high, 5.5 * high - 4.5 * low) for name, (low, high) in
            ends.items()}  # fmt: skip


def trained(
    schema: TableSchema, train: pd.DataFrame, test: pd.DataFrame, delta: float, draw: int
) -> float:
    """AUC of a logistic model after clipped, noised gradient steps."""
    x, y = schema.encode(train)
    x = np.column_stack([x, np.ones(len(x))]).astype(np.float64)
    generator = np.random.default_rng(draw)
    noise = gaussian_noise_multiplier(TRAINING_EPSILON, delta) * np.sqrt(STEPS)
    weights = np.zeros(x.shape[1])
    lengths = np.linalg.norm(x, axis=1)
    for _ in range(STEPS):
        slope = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30))) - y
        slope /= np.maximum(1.0, np.abs(slope) * lengths)
        step = x.T @ slope + generator.normal(0, noise, len(weights))
        weights -= RATE * step / len(x)
    inputs, labels = schema.encode(test)
    scores = np.column_stack([inputs, np.ones(len(inputs))]) @ weights
    area = roc_auc(scores, labels == 1)
    assert area is not None
    return area


def of_one_draw(
    study: Study, setup: FactsSetup, tables: Mapping[str, pd.DataFrame], test: pd.DataFrame,
    draw: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The rows of one draw of the noise."""
    answers = asked(setup, tables, draw)
    whole = pd.concat(tables.values())
    ranges = dict[str, tuple[float, float]]()
    for answer in answers:
        name = str(answer.question["name"])
        if answer.question["kind"] == "category":
            yield {"kind": "categories", "column": name, **found_of(whole[name], answer, name)}
            continue
        values = pd.to_numeric(whole[name], errors="coerce").dropna()
        low, high = (float(values.quantile(q)) for q in (0.005, 0.995))
        ranges[name] = (low, high if high > low else low + 1)
        ends = {each.what: each.value for each in answer.figures}
        row = {"kind": "range", "column": name, "true_low": low, "true_high": high}
        if ends.get("low end") is None:
            yield {**row, "low": None, "high": None, "outside": None}
            continue
        outside = (values < ends["low end"]) | (values > ends["high end"])
        yield {**row, "low": ends["low end"], "high": ends["high end"], "outside": outside.mean()}
    schema = schema_of(setup, answers, study.target)
    if schema is None:
        return
    for name, one in {
        "proposed": schema,
        "quantiles": with_ranges(schema, ranges),
        "ten times too wide": with_ranges(schema, wide(schema)),
    }.items():
        area = trained(one, whole, test, float(study.delta), draw)
        yield {"kind": "auc", "column": name, "auc": area}


def found_of(column: pd.Series, answer: Answer, name: str) -> dict[str, Any]:
    """How many of the frequent categories were named, and how many that no record has."""
    texts = pd.Series([spelt(cell) for cell in column.dropna()])
    shares = texts.value_counts() / len(column)
    named = {each.group[name] for each in answer.figures if name in each.group}
    frequent = set(shares.index[shares >= 0.02])
    return {
        "found": len(named & frequent),
        "frequent": len(frequent),
        "made_up": len(named - set(shares.index)),
    }


def averaged(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row for all draws of the same; a range is that of the draws which proposed one."""
    keys = list(dict.fromkeys((row["kind"], row["column"]) for row in rows))
    for kind, column in keys:
        same = [row for row in rows if (row["kind"], row["column"]) == (kind, column)]
        figures = {
            name: [row[name] for row in same if row[name] is not None]
            for name in same[0]
            if name not in ("kind", "column")
        }
        means = {
            name: float(np.mean(values)) if values else None for name, values in figures.items()
        }
        extra = {"proposed": len(figures["low"]) / len(same)} if kind == "range" else {}
        yield {"kind": kind, "column": column, **means, **extra}


def rows(data: Path, draws: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each of some tables at every epsilon."""
    found = list[dict[str, Any]]()
    for study in track([each for each in STUDIES if each.name in names], "asking"):
        tables, test = study.read(data / study.name)
        for epsilon in EPSILONS:
            setup = federation(study, tables, epsilon).beside("facts")
            assert isinstance(setup, FactsSetup)
            own = list[dict[str, Any]]()
            for draw in range(draws):
                own += of_one_draw(study, setup, tables, test, draw)
            head = {"table": study.sites[0] if study.name == "survival" else study.name}
            head |= {"epsilon": float(epsilon), "delta": float(study.delta), "draws": draws}
            found += [{**head, **row} for row in averaged(own)]
    return found


def main() -> None:
    """Ask, compare, print, write."""
    parser = argparse.ArgumentParser(description="ranges and categories asked with privacy")
    data = os.environ.get("PRIVAGG_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=data, help="the folder of the tables' folders")
    parser.add_argument("--draws", type=int, default=5, help="of the noise, for each row")
    names = [study.name for study in STUDIES]
    parser.add_argument("--tables", nargs="+", choices=names, default=names)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = rows(options.data, options.draws, options.tables)
    head = {"table": "table", "ε": "epsilon"}
    by_kind = {kind: [row for row in found if row["kind"] == kind]
               for kind in ("range", "categories", "auc")}  # fmt: skip
    ends = {"0.5 %": "true_low", "99.5 %": "true_high", "low": "low", "high": "high"}
    columns = {**head, "column": "column", **ends, "outside": "outside", "proposed": "proposed"}
    show("proposed ranges beside the tables' own quantiles", columns, by_kind["range"])
    columns = {name: name for name in ("column", "found", "frequent", "made_up")}
    show("categories that 2 % of the records have", {**head, **columns}, by_kind["categories"])
    columns = {**head, "inputs encoded by": "column", "AUC": "auc"}
    show("a logistic model at ε = 1", columns, by_kind["auc"])
    write_json(options.json, found)


if __name__ == "__main__":
    main()
