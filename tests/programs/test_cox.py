"""Cox regression: the bound searched for its worst case, published figures, coverage."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from privagg.errors import ConfigError
from privagg.programs.answers import Figure
from privagg.programs.questions.columns import Columns
from privagg.programs.questions.cox import Cox
from privagg.programs.questions.program import Asked, Questions
from privagg.programs.questions.question import Found
from privagg.training.table import TableSchema
from tests.programs.contract import Case, ProgramContract
from tests.programs.test_survival import LUNG

SCHEMA = TableSchema.model_validate(
    {
        "features": [
            {"name": "days", "range": (0, 1100)},
            {"name": "age", "range": (35, 85)},
            {"name": "sex", "categories": (1, 2)},
            {"name": "ward", "categories": ("a", "b", "c")},
        ],
        "target": {"name": "status", "positive": "== 1"},
    }
)

EXTREMES = pd.DataFrame(
    {
        "days": [0, 1000, 1000, 1e9, 130, 1100, 999.99, None, 400, 1, 60, 1000],
        "age": [35, 85, 35, 85, 60, 85, 85, 50, None, 1e300, -5, 85],
        "sex": [2, 2, 2, 2, 1, 2, 2, 2, 1, 3, "2", 1],
        "ward": ["a", "c", "c", "c", "b", "b", "c", "a", "a", "b", None, "c"],
        "status": [1, 1, 0, 1, 1, 0, "1", 1, 1, 1, 1, None],
    }
)


def question(**changes: Any) -> Cox:
    facts = {
        "name": "hazards", "time": "days", "event": "status", "until": 1000, "on": ("age", "sex"),
    }  # fmt: skip
    return Cox.model_validate(facts | changes)


def state(asked: Cox, hazards: Any, coefficients: Any) -> Any:
    return np.concatenate([hazards, np.full(len(hazards), 10.0), coefficients])


class TestCox(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        asked = Asked(data=SCHEMA, questions=(question(on=("age", "sex", "ward")),))
        met = state(asked.questions[0], np.full(8, -2.1), [0, 0.1, 0.3, 0.2, -0.4])
        wild = state(asked.questions[0], np.linspace(-9, 9, 8), [1e9, -1e300, 3, 0, 7])
        return Case(
            program=lambda: Questions(asked),
            openings=Questions(asked).openings(Decimal(0)),
            records=EXTREMES,
            take=lambda frame, places: Columns.read(frame.iloc[places], SCHEMA),
            states=(np.zeros(21), met, wild),
        )


@pytest.mark.parametrize("largest_hazard", [0.25, 0.6, 1.0, 2.0, 5.0])
def test_no_record_and_no_state_reach_beyond_the_bound(largest_hazard: float) -> None:
    """States are climbed towards longer rows; the longest comes close to the bound."""
    asked = question(largest_hazard=largest_hazard, intervals=3)
    ages, days = (35, 60, 85), (0.0, 100.0, 333.0, 600.0, 667.0, 1000.0, 1100.0)
    every = [(d, a, s, e) for d in days for a in ages for s in (1, 2) for e in (0, 1)]
    frame = pd.DataFrame(every, columns=["days", "age", "sex", "status"]).assign(ward="a")
    records, draw = Columns.read(frame, SCHEMA), np.random.default_rng(1)

    def longest(found: Any) -> float:
        rows = asked.rows(SCHEMA, 2, found, records)
        return float((rows**2).sum(axis=1).max())

    best = 0.0
    for start in range(12):
        now = state(asked, draw.normal(-2, 3, 3), draw.normal(0, 1, 3))
        if start == 0:  # all hazard of the cap in the first interval, the event in the second
            now = state(asked, [np.log(largest_hazard) - 1e-9, -40, -40], np.zeros(3))
        reached = longest(now)
        for _ in range(40):
            tried = now + draw.normal(0, draw.choice([0.01, 0.3, 3.0]), len(now))
            if (length := longest(tried)) >= reached:
                now, reached = tried, length
        best = max(best, reached)
    assert 0.999 <= best <= 1.0


def opened_of(asked: Cox, columns: Columns, stddev: float, seed: int = 0) -> list[Found]:
    draw, now, opened = np.random.default_rng(seed), asked.begin(SCHEMA), []
    for number in range(1, asked.round_count + 1):
        total = asked.rows(SCHEMA, number, now, columns).sum(axis=0)
        opened.append(Found(total + stddev * draw.normal(0, 1, len(total)), stddev))
        now = asked.step(SCHEMA, number, now, opened[-1])
    return opened


def told(asked: Cox, opened: list[Found], level: float = 0.95) -> dict[tuple[str, ...], Figure]:
    found = asked.answer(SCHEMA, opened, level)
    return {(figure.what, *figure.group.values()): figure for figure in found}


def test_lung_is_as_published() -> None:
    """R's `coxph(Surv(time, status) ~ age + sex, lung)`: 0.017045 (0.009223), -0.513 (0.167)."""
    if not LUNG.is_file():
        pytest.skip(f"no table {LUNG}; set PRIVAGG_DATA to the folder that has survival/")
    frame = pd.read_csv(LUNG).rename(columns={"time": "days"}).assign(ward="a")
    asked = question(until=1022, intervals=200, largest_hazard=10, rounds=8)
    found = told(asked, opened_of(asked, Columns.read(frame, SCHEMA), 1e-6))
    age, sex = found["coefficient", "age"], found["coefficient", "sex: 2"]
    assert age.value == pytest.approx(0.017045, abs=0.0007)
    assert sex.value == pytest.approx(-0.513219, abs=0.015)
    assert (sex.population.high - sex.population.low) / 3.92 == pytest.approx(0.167458, rel=0.03)
    assert found["hazard ratio", "sex: 2"].value == pytest.approx(np.exp(sex.value))
    assert found["count", "yes"].value == pytest.approx(165, abs=0.1)


def drawn(draw: np.random.Generator, records: int) -> Columns:
    """Times with hazard ratios of exp(0.02 a year) and exp(-0.5) for sex 2, a rising baseline."""
    age, sex = draw.uniform(35, 85, records), draw.integers(0, 2, records)
    risk = np.exp(0.02 * (age - 60) - 0.5 * sex)
    time = 600 * (draw.exponential(1, records) / risk) ** (1 / 1.3)
    end = draw.uniform(100, 1500, records)
    days = np.clip(np.minimum(time, end), 0, 1100)
    codes = {"sex": sex, "ward": 0 * sex, "status": (time <= end).astype(np.int64)}
    return Columns({"age": age, "days": days}, codes, records)


@pytest.mark.parametrize("which", ["records", "population"])
def test_intervals_cover_as_often_as_they_say(which: str) -> None:
    """150 draws: of the noise on one table, or of tables of one population with noise."""
    asked, draw, times = question(), np.random.default_rng(5), 150
    kept = drawn(draw, 900)
    exact = told(asked, opened_of(asked, kept, 1e-6))
    truth = {("coefficient", "age"): 0.02, ("coefficient", "sex: 2"): -0.5}
    if which == "records":
        truth = {key: exact[key].raw for key in truth}
    hits = {(key, level): 0 for key in truth for level in (0.9, 0.95, 0.99)}
    for seed in range(times):
        columns = drawn(draw, 900) if which == "population" else kept
        opened = opened_of(asked, columns, 1.0, seed)
        for level in (0.9, 0.95, 0.99):
            found = told(asked, opened, level)
            for key, value in truth.items():
                interval = getattr(found[key], which)
                hits[key, level] += interval.low <= value <= interval.high
    for (key, level), count in hits.items():
        slack = 5 * np.sqrt(level * (1 - level) / times)
        assert level - slack <= count / times, (key, level)


def test_a_stopped_record_adds_no_more() -> None:
    """Whoever met the largest hazard before its event counts as followed until then."""
    asked = question(intervals=2, on=("sex",))
    frame = pd.DataFrame({"days": [400, 900], "age": 50, "sex": 1, "ward": "a", "status": 1})
    now = state(asked, np.log([0.9, 0.3]), np.zeros(2))
    scales = asked.scales(asked.design(SCHEMA))
    rows = asked.rows(SCHEMA, 2, now, Columns.read(frame, SCHEMA))
    # Until 400: 0.72, then the event. Until 900: 0.9, then 0.1 of 0.24, and no event any more.
    np.testing.assert_allclose(rows[:, 2] / scales.score, [1 - 0.72, -1.0])
    np.testing.assert_allclose(rows[:, 4:] / scales.baseline, [[0.28, 0], [-0.9, -0.1]], atol=1e-12)


def test_where_the_noise_leaves_nothing_nothing_is_said() -> None:
    columns = drawn(np.random.default_rng(1), 40)
    found = told(question(), opened_of(question(), columns, 50.0))
    assert found["hazard ratio", "age"].value is None
    assert ("coefficient", "intercept") not in found
    cut = question().answer(SCHEMA, [Found(np.full(17, 40.0), 1.0)], 0.95)
    assert [figure.value for figure in cut if "ratio" in figure.what] == [None, None]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"on": ("weight",)}, "'weight', which has no declared"),
        ({"on": ("sex",), "base": {"sex": "3"}}, "'3', and declared are 1, 2"),
        ({"event_is": "dead"}, "'dead', which is no category of 'status'"),
        ({"time": "ward"}, "'ward', which has no declared range"),
    ],
)
def test_what_is_not_declared_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Questions(Asked(data=SCHEMA, questions=(question(**changes),)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"on": ("age", "days")}, "neither 'days' nor 'status'"),
        ({"on": ("age", "age")}, "each column once"),
        ({"on": ()}, "at least 1"),
        ({"rounds": 1}, "greater than or equal to 2"),
        ({"largest_hazard": 0}, "greater than or equal to 0.25"),
        ({"intervals": (200, 100)}, "ascending"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        question(**changes)
