"""Survival by group: bounds by the contract, published figures, coverage, the log-rank test."""

from __future__ import annotations

import os
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from privagg.errors import ConfigError
from privagg.programs.answers import Figure
from privagg.programs.questions.columns import Columns
from privagg.programs.questions.lifetable import (
    LifeTable,
    chi_square_quantile,
    chi_square_tail,
    log_rank,
)
from privagg.programs.questions.program import Asked, Questions
from privagg.programs.questions.survival import Survival
from privagg.training.table import TableSchema
from tests.programs.contract import Case, ProgramContract

SCHEMA = TableSchema.model_validate(
    {
        "features": [
            {"name": "days", "range": (0, 1100)},
            {"name": "sex", "categories": (1, 2)},
            {"name": "hospital", "categories": ("a", "b", "c")},
        ],
        "target": {"name": "status", "positive": "== 1"},
    }
)
LUNG = Path(
    os.environ.get("PRIVAGG_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"),
    "survival/lung.csv",
)

EXTREMES = pd.DataFrame(
    {
        "days": [0, 110, 110.0000001, 1000, 1001, 1e300, -5, None, 500, "?", 1100, 329.99999],
        "sex": [1, 2, "1", 2, 1, 2, None, 1, 3, 2, 2, 1],
        "hospital": list("abcabcabcabc"),
        "status": [1, 0, 1, 1, 1, 0, 1, 1, 1, 1, None, "1"],
    }
)


def question(**changes: Any) -> Survival:
    facts = {"name": "survival", "time": "days", "event": "status", "until": 1000}
    return Survival.model_validate(facts | changes)


class TestSurvival(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        asked = Asked(
            data=SCHEMA,
            questions=(
                question(by="sex"),
                question(name="by hand", until=None, intervals=(30, 90.5, 365), share=Decimal(2)),
            ),
        )
        return Case(
            program=lambda: Questions(asked),
            openings=Questions(asked).openings(Decimal(0)),
            records=EXTREMES,
            take=lambda frame, places: Columns.read(frame.iloc[places], SCHEMA),
        )


def counts(asked: Survival, frame: pd.DataFrame) -> Any:
    return asked.values(SCHEMA, Columns.read(frame, SCHEMA)).sum(axis=0)


def told(asked: Survival, sums: Any, stddev: float, level: float = 0.95) -> dict[Any, Figure]:
    found = asked.read(SCHEMA, sums, stddev, level)
    return {(figure.what, *figure.group.values()): figure for figure in found}


def test_a_record_is_counted_where_it_was_seen_last() -> None:
    asked = question(intervals=(110, 500, 1000), until=None)
    frame = pd.DataFrame(
        {
            "days": [0, 110, 110.5, 500, 1000, 1000.5, 2000, None, 5],
            "sex": 1, "hospital": "a",
            "status": [1, 0, 1, 1, 0, 1, 0, 1, None],
        }
    )  # fmt: skip
    np.testing.assert_array_equal(counts(asked, frame), [1, 2, 0, 1, 0, 1, 2])


def test_without_noise_the_curve_is_the_life_table() -> None:
    """By hand: 10 at 0; 2 events and 2 censored, then 3 events; 3 are seen later."""
    sums = np.array([2.0, 3.0, 2.0, 0.0, 3.0])
    found = told(question(intervals=2), sums, 0.0)
    first, second = 1 - 2 / 9, (1 - 2 / 9) * (1 - 3 / 6)
    assert found["survival at 500",].value == pytest.approx(first)
    assert found["survival at 1000",].value == pytest.approx(second)
    greenwood = second * np.sqrt(2 / (9 * 7) + 3 / (6 * 3))
    interval = found["survival at 1000",].population
    assert interval.high - second == pytest.approx(1.959964 * greenwood, rel=1e-5)
    median = 500 + 500 * (first - 0.5) / (first - second)
    assert found["median survival",].value == pytest.approx(median)
    assert found["count",].value == 10


def test_lung_is_as_published() -> None:
    """R's `survdiff` and `survfit` on sex (survival 3.5): chi-square 10.3, medians 270 and 426."""
    if not LUNG.is_file():
        pytest.skip(f"no table {LUNG}; set PRIVAGG_DATA to the folder that has survival/")
    frame = pd.read_csv(LUNG).rename(columns={"time": "days"}).assign(hospital="a")
    asked = question(by="sex", until=1022, intervals=511)
    found = told(asked, counts(asked, frame), 0.0)
    assert found["log-rank chi-square",].value == pytest.approx(10.3, abs=0.1)
    assert found["log-rank p-value",].value == pytest.approx(0.00131, abs=1e-4)
    assert found["median survival", "1"].value == pytest.approx(270, abs=2)
    assert found["median survival", "2"].value == pytest.approx(426, abs=2)
    assert found["survival at 250", "1"].value == pytest.approx(0.5211, abs=0.01)


def drawn(draw: np.random.Generator, records: int, rate: float = 1 / 400) -> Any:
    """Counts of ten intervals of exponential times, censored evenly until day 1500."""
    time, end = draw.exponential(1 / rate, records), draw.uniform(0, 1500, records)
    place = np.minimum((np.minimum(time, end) / 100).astype(int), 10)
    cell = np.where(place == 10, 20, np.where(time <= end, place, 10 + place))
    return np.bincount(cell, minlength=21).astype(float)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(
    ("which", "stddev"), [("records", 3.0), ("population", 3.0), ("records", 25.0)]
)
def test_intervals_cover_as_often_as_they_say(level: float, which: str, stddev: float) -> None:
    """600 draws: of the noise on one table, or of tables of one population with noise.

    Where the noise decides how much is told at all, intervals must still hold as often.
    """
    asked, draw, times = question(), np.random.default_rng(7), 600
    kept = drawn(draw, 500)
    truth = {key: figure.raw for key, figure in told(asked, kept, 0.0).items()}
    if which == "population":
        truth = {(f"survival at {end}",): np.exp(-end / 400) for end in range(100, 1001, 100)}
        truth["median survival",] = 400 * np.log(2)
    hits = dict.fromkeys(truth, 0)
    for _ in range(times):
        exact = drawn(draw, 500) if which == "population" else kept
        found = told(asked, exact + draw.normal(0, stddev, 21), stddev, level)
        for key, value in truth.items():
            interval = getattr(found[key], which)
            hits[key] += interval.low <= value <= interval.high
    slack = 5 * np.sqrt(level * (1 - level) / times)
    for key, count in hits.items():
        assert count / times >= level - slack, key
    for end in (
        range(100, 501, 100) if stddev < 10 else ()
    ):  # later, where less is told, they are wider
        assert hits[f"survival at {end}",] / times <= level + slack + 0.01


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("stddev", [0.01, 4.0])
def test_groups_that_survive_alike_are_told_apart_as_often_as_the_test_says(
    groups: int, stddev: float
) -> None:
    draw, tails = np.random.default_rng(11), []
    for _ in range(600):
        rows = [drawn(draw, 250) + draw.normal(0, stddev, 21) for _ in range(groups)]
        test = log_rank([LifeTable.of(row, stddev) for row in rows])
        tails.append(1.0 if test is None else chi_square_tail(test.statistic, groups - 1))
    for size in (0.1, 0.05, 0.01):
        share = (np.array(tails) < size).mean()
        assert abs(share - size) <= 5 * np.sqrt(size * (1 - size) / 600)


def test_the_statistic_that_these_records_give_lies_in_its_interval() -> None:
    asked, draw, hits = question(by="hospital"), np.random.default_rng(3), 0
    rows = np.concatenate([drawn(draw, 300, rate) for rate in (1 / 300, 1 / 400, 1 / 500)])
    truth = told(asked, rows, 0.0)["log-rank chi-square",].value
    assert truth is not None
    for _ in range(200):
        found = told(asked, rows + draw.normal(0, 3.0, 63), 3.0, 0.9)
        interval = found["log-rank chi-square",].records
        hits += interval.low <= truth <= interval.high
    assert hits / 200 >= 0.9 - 5 * np.sqrt(0.09 / 200)


def test_a_told_curve_never_rises_and_stays_a_share() -> None:
    asked, draw = question(), np.random.default_rng(2)
    for _ in range(100):
        noised = drawn(draw, 80) + draw.normal(0, 3.0, 21)
        found = [f for f in asked.read(SCHEMA, noised, 3.0, 0.95) if "survival at" in f.what]
        values = [figure.value for figure in found if figure.value is not None]
        assert all(1 >= before >= after >= 0 for before, after in pairwise(values))
        assert all(0 <= f.records.low <= f.records.high <= 1 for f in found)
        assert values == [f.value for f in found][: len(values)]  # once hidden, always hidden


def test_where_the_noise_leaves_nothing_nothing_is_said() -> None:
    found = told(question(by="sex"), np.zeros(42), 50.0)
    assert found["survival at 100", "1"].value is None
    assert found["survival at 100", "1"].records == (0, 1)
    assert found["median survival", "2"].value is None
    assert found["median survival", "2"].records == (0, 1100)
    assert found["log-rank p-value",].value is None


def test_chi_square_is_scipys() -> None:
    from scipy.stats import chi2

    for freedom in (1, 2, 3, 4, 7, 60):
        for value in (0.0, 0.1, 1.0, 5.0, 30.0, 400.0):
            found = chi_square_tail(value, freedom)
            assert found == pytest.approx(chi2.sf(value, freedom), rel=1e-9, abs=1e-14)
        for level in (0.6, 0.9, 0.99):
            expected = chi2.ppf(level, freedom)
            assert chi_square_quantile(level, freedom) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"time": "weight"}, "'weight', which has no declared range.* days"),
        ({"event": "days"}, "'days', which has no declared categories.* sex, hospital"),
        ({"event_is": "dead"}, "'dead', which is no category of 'status', .* no, yes"),
        ({"by": "days"}, "'days', which has no declared categories"),
        ({"until": 1200}, "intervals from 0 to 1200.* 'days' is declared from 0 to 1100"),
    ],
)
def test_what_is_not_declared_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Questions(Asked(data=SCHEMA, questions=(question(**changes),)))


@pytest.mark.parametrize(
    ("intervals", "says"),
    [
        ((300, 100), r"in ascending order, got \[300.0, 100.0\]"),
        ((0, 100), "above 0"),
        ((), "ascending order"),
        ((100, 900), "end at 900 and `until` says 1000"),
        (0, "greater than or equal to 1"),
    ],
)
def test_intervals_that_do_not_ascend_are_refused(intervals: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        question(intervals=intervals)
