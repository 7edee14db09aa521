"""Questions: bounds by the contract, answers against pandas, coverage of both intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy.stats import norm

from privagg.errors import ConfigError
from privagg.privacy.plan import SiteTerms, SumsPlan
from privagg.programs.answers import Answer, Figure
from privagg.programs.questions.asked import Count, Mean, Missing, Quantiles
from privagg.programs.questions.columns import Columns
from privagg.programs.questions.moments import _moments
from privagg.programs.questions.program import (
    MOST_NUMBERS,
    SENSITIVITY_GRID,
    Asked,
    Questions,
)
from privagg.programs.questions.quantiles import quantile_figures
from privagg.programs.questions.question import OTHER
from privagg.programs.registry import program_of
from privagg.programs.sums_program import NoisySum
from privagg.training.table import TableSchema
from tests.programs.contract import Case, ProgramContract

SCHEMA = TableSchema.model_validate(
    {
        "features": [
            {"name": "age", "range": (20, 80)},
            {"name": "ward", "categories": ("a", "b", "c")},
            {"name": "sex", "categories": ("f", "m")},
        ],
        "target": {"name": "ill", "positive": "== 1"},
    }
)
ALL = (
    Count(name="patients"),
    Count(name="by ward and illness", by=("ward", "ill"), share=Decimal(2)),
    Mean(name="age", of="age", by="sex", share=Decimal(3)),
    Quantiles(name="ages", of="age", bins=12),
    Missing(name="gaps", of=("age", "ward", "ill")),
)


@pytest.mark.parametrize("ends", [(-1e308, 1e308), (0.0, 1e160), (-1e200, 0.0)])
def test_a_range_whose_answers_no_float_holds_is_refused_before_anything_is_charged(
    ends: tuple[float, float],
) -> None:
    """It was asked and charged, and then the answers could not be computed."""
    schema = TableSchema.model_validate(
        {"features": [{"name": "age", "range": ends}], "target": {"name": "ill", "positive": 1}}
    )
    for question in (Mean(name="m", of="age"), Quantiles(name="q", of="age")):
        with pytest.raises(ConfigError, match="too wide for its answers"):
            Questions(Asked(data=schema, questions=(question,)))


def table(count: int, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    age = np.round(draw.normal(52, 13, count), 1).astype(object)
    age[draw.random(count) < 0.05] = None
    return pd.DataFrame(
        {
            "age": age,
            "ward": draw.choice(["a", "b", "c", "x", None], count, p=[0.5, 0.2, 0.2, 0.05, 0.05]),
            "sex": draw.choice(["f", "m"], count),
            "ill": draw.choice([0, 1], count, p=[0.7, 0.3]),
        }
    )


EXTREMES = pd.DataFrame(
    {
        "age": [20, 80, 50, None, -1e300, 1e300, 1 / 3, 79.999999999999, "?", 20.0000001],
        "ward": ["a", "c", None, "b", " B ", "zz", "a", "a", "c", "b"],
        "sex": ["f", "m", "M", None, "f", "f", "m", "m", "f", "?"],
        "ill": [1, 0, None, 1, "1", "x", 0, 1, 1, 0],
    }
)


class TestQuestions(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        questions = Questions(Asked(data=SCHEMA, questions=ALL))

        def take(frame: pd.DataFrame, places: list[int]) -> Columns:
            return Columns.read(frame.iloc[places], SCHEMA)

        return Case(
            program=lambda: Questions(Asked(data=SCHEMA, questions=ALL)),
            openings=questions.openings(Decimal(0)),
            records=EXTREMES,
            take=take,
        )


def plan_of(questions: Questions, multiplier: str) -> SumsPlan:
    return SumsPlan.model_validate(
        {
            "sites": (SiteTerms(name="n", records=9000), SiteTerms(name="s", records=9000)),
            "openings": questions.openings(Decimal(multiplier)), "delta": "1e-6",
            "colluders": 0, "custody": "authority", "scheme": "bfv",
            "recipe": questions.recipe,
        }
    )  # fmt: skip


def exact_total(questions: Questions, frame: pd.DataFrame) -> Any:
    return questions.integers(1, np.zeros(0), Columns.read(frame, SCHEMA)).sum(axis=0)


def answers(
    questions: Questions, plan: SumsPlan, total: Any, names: Sequence[str]
) -> tuple[Answer, ...]:
    return questions.answers([NoisySum.of(plan, 1, total, names)])


def figures(answers: Sequence[Any]) -> dict[tuple[str, ...], Figure]:
    return {
        (answer.question["name"], figure.what, *figure.group.values()): figure
        for answer in answers
        for figure in answer.figures
    }


def test_without_noise_the_answers_are_those_of_pandas() -> None:
    frame, questions = table(5000), Questions(Asked(data=SCHEMA, questions=ALL))
    found = figures(
        answers(questions, plan_of(questions, "0"), exact_total(questions, frame), "ns")
    )
    near = {"rel": 1e-5, "abs": 0.02}
    assert found["patients", "count"].value == pytest.approx(5000, **near)
    cells = "by ward and illness", "count"
    ill_in_b = ((frame.ward == "b") & (frame.ill == 1)).sum()
    assert found[*cells, "b", "yes"].value == pytest.approx(ill_in_b, **near)
    other = (~frame.ward.isin(["a", "b", "c"]) & (frame.ill == 0)).sum()
    assert found[*cells, OTHER, "no"].value == pytest.approx(other, **near)
    assert found["gaps", "count", "age"].value == pytest.approx(frame.age.isna().sum(), **near)
    ages = pd.to_numeric(frame.age).clip(20, 80)
    for sex in ("f", "m"):
        of_sex = ages[frame.sex == sex].dropna()
        assert found["age", "count", sex].value == pytest.approx(len(of_sex), **near)
        assert found["age", "sum", sex].value == pytest.approx(of_sex.sum(), rel=1e-4)
        assert found["age", "mean", sex].value == pytest.approx(of_sex.mean(), rel=1e-4)
        assert found["age", "variance", sex].value == pytest.approx(of_sex.var(ddof=0), rel=1e-3)
    for q in (0.25, 0.5, 0.75):
        value = found["ages", f"quantile {q:g}"].value
        assert value == pytest.approx(ages.quantile(q), abs=5.0 / 2)  # half a bin


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_intervals_for_these_records_cover_as_often_as_they_say(level: float) -> None:
    """2,000 draws of the noise on one table: the noiseless answer is inside."""
    frame = table(3000, seed=3)
    questions = Questions(Asked(data=SCHEMA, questions=ALL, level=level))
    plan, exact = plan_of(questions, "30"), exact_total(questions, frame)
    truth = figures(answers(questions, plan_of(questions, "0"), exact, "ns"))
    inside = _inside(questions, plan, lambda draw: exact, truth, "records", draws=2000)
    around_truth = figures(answers(questions, plan, exact, "ns"))
    for key, share in inside.items():
        slack = 4 * np.sqrt(level * (1 - level) / 2000)
        assert share >= level - slack, key
        # A group of nobody has no mean, and an interval that ends where its figure can be no longer
        # holds it more often.
        middle = sum(around_truth[key].records) / 2
        told_always = middle == pytest.approx(truth[key].raw, rel=1e-6) and OTHER not in key
        if "quantile" not in key[1] and told_always:  # whose ends are bin edges, so they are wide
            assert share <= level + slack + 0.01, key


def test_no_interval_leaves_where_its_figure_can_be() -> None:
    questions = Questions(Asked(data=SCHEMA, questions=ALL))
    plan, exact = plan_of(questions, "60"), exact_total(questions, table(400, seed=4))
    draw, limits = np.random.default_rng(6), {"mean": (20, 80), "variance": (0, 900)}
    for _ in range(50):
        noise = draw.normal(0, _deviation(plan), len(exact)).round().astype(np.int64)
        for (_, what, *_), figure in figures(answers(questions, plan, exact + noise, "ns")).items():
            low, high = limits.get(what, (0 if what == "count" else -np.inf, np.inf))
            if figure.value is not None:
                for interval in (figure.records, figure.population):
                    assert low <= interval.low <= interval.high <= high


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_intervals_for_the_population_cover_as_often_as_they_say(level: float) -> None:
    """1,000 tables of one population, with noise: the population's mean and median are inside."""
    asked = (Mean(name="age", of="age"), Quantiles(name="ages", of="age", bins=240))
    questions = Questions(Asked(data=SCHEMA, questions=asked, level=level))
    plan = plan_of(questions, "20")
    hits = dict.fromkeys(["mean", "quantile 0.5"], 0)
    draw = np.random.default_rng(8)
    for _ in range(1000):
        ages = draw.uniform(25, 75, draw.poisson(800))
        columns = Columns({"age": ages}, {}, len(ages))
        total = questions.integers(1, np.zeros(0), columns).sum(axis=0)
        noise = draw.normal(0, _deviation(plan), len(total)).round().astype(np.int64)
        found = figures(answers(questions, plan, total + noise, "ns"))
        for (_, what), figure in found.items():
            if what in hits:
                hits[what] += figure.population.low <= 50 <= figure.population.high
    slack = 4 * np.sqrt(level * (1 - level) / 1000)
    assert level - slack <= hits["mean"] / 1000 <= level + slack + 0.01
    assert hits["quantile 0.5"] / 1000 >= level - slack


def _deviation(plan: SumsPlan) -> float:
    noise = plan.in_round(1).noise
    assert noise is not None
    return float(noise.stddev_grid) * np.sqrt(2)


def _inside(
    questions: Questions, plan: SumsPlan, total: Any, truth: Any, which: str, draws: int
) -> dict[tuple[str, ...], float]:
    draw, hits = np.random.default_rng(5), dict.fromkeys(truth, 0)
    for _ in range(draws):
        exact = total(draw)
        noise = draw.normal(0, _deviation(plan), len(exact)).round().astype(np.int64)
        for key, figure in figures(answers(questions, plan, exact + noise, "ns")).items():
            interval = getattr(figure, which)
            hits[key] += interval.low <= truth[key].raw <= interval.high
    return {key: count / draws for key, count in hits.items()}


def test_a_variance_that_the_noise_hides_leaves_no_interval_too_short() -> None:
    """Samples of 100 of a mean of 0.2, under so much noise that many variances come out below 0;
    of some 250 such tries fewer than 200 hits at 90 % have a probability below 10^-6."""
    draw, hits, tries = np.random.default_rng(8), 0, 0
    for _ in range(600):
        u = np.clip(draw.normal(0.2, 0.3, 100), -1, 1)
        p = (1 + u) / 2
        exact = np.array([((1 - p) ** 2).sum(), (2 * p * (1 - p)).sum(), (p * p).sum()])
        opened = exact + draw.normal(0, 12, 3)
        found = {f.what: f for f in _moments(opened, 12.0, {}, (-1.0, 1.0), 0.9)}
        if found["variance"].value is None or found["variance"].raw > 0:
            continue
        assert found["variance"].value == 0
        for each in found.values():
            assert each.population.low <= each.records.low < each.records.high
            assert each.records.high <= each.population.high
        total = found["sum"]  # without limits: wider by what sampling does
        assert total.population.low < total.records.low - 1
        tries += 1
        hits += found["mean"].population.low <= 0.2 <= found["mean"].population.high
    assert tries >= 150
    assert hits >= 0.8 * tries, (hits, tries)


@pytest.mark.parametrize(("records", "epsilon"), [(228, "0.1"), (920, "0.1"), (10**5, "0.5")])
def test_bins_are_as_many_as_noise_and_width_together_leave_least(
    records: int, epsilon: str
) -> None:
    """Against other numbers of bins, of a bell curve whose middle is anywhere in a bin."""
    chosen = Quantiles(name="q", of="age").fitted(records, Fraction(epsilon)).bins
    assert chosen is not None
    assert Quantiles(name="q", of="age", bins=9).fitted(records, Fraction(epsilon)).bins == 9
    draw, stddev = np.random.default_rng(1), math.sqrt(2) / float(epsilon)

    def error(bins: int) -> float:
        edges, off = np.linspace(0, 1, bins + 1), []
        for middle in draw.uniform(0.35, 0.65, 300):
            shares = np.diff(norm.cdf(edges, middle, 0.15))
            noise = draw.laplace(0, stddev / math.sqrt(2), bins)
            (found,) = quantile_figures(edges, records * shares + noise, stddev, (0.5,), 0.95)
            off.append(found.raw - middle)
        return float(np.sqrt(np.mean(np.square(off))))

    least = min(map(error, (4, 6, 9, 14, 24, 48, 96, 192)))
    assert error(chosen) <= 1.5 * least + 0.002


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_an_interval_of_a_quantile_holds_it_whatever_lies_between_the_records(level: float) -> None:
    """All but half of them at one end: the noise of every bin between may seem to cross first."""
    counts = np.zeros(64)
    counts[0], counts[-1] = 50_200.0, 50_000.0
    draw, inside, draws = np.random.default_rng(2), 0, 2000
    for _ in range(draws):
        sums = counts + draw.normal(0, 30.0, len(counts))
        (found,) = quantile_figures(np.arange(65.0), sums, 30.0, (0.5,), level)
        inside += found.records.low <= 0.5 <= found.records.high
    assert inside / draws >= level - 5 * math.sqrt(level * (1 - level) / draws)


def test_shares_split_the_budget_as_they_say() -> None:
    """A question with four times another's share has half of its noise."""
    asked = (Count(name="one"), Count(name="four", share=Decimal(4)))
    questions = Questions(Asked(data=SCHEMA, questions=asked))
    plan = plan_of(questions, "10")
    one, four = answers(questions, plan, np.zeros(2, np.int64), "ns")
    widths = [a.figures[0].records.high - a.figures[0].records.low for a in (one, four)]
    assert widths[0] == pytest.approx(2 * widths[1], rel=1e-5)
    alone = Questions(Asked(data=SCHEMA, questions=asked[:1]))
    (single,) = answers(alone, plan_of(alone, "10"), np.zeros(1, np.int64), "ns")
    width = single.figures[0].records.high - single.figures[0].records.low
    assert widths[0] == pytest.approx(width * np.sqrt(5), rel=1e-5)


def test_where_the_noise_leaves_nothing_nothing_is_said() -> None:
    questions = Questions(Asked(data=SCHEMA, questions=ALL))
    plan = plan_of(questions, "500")
    nothing = np.zeros(plan.upload_dimension, np.int64)
    found = figures(answers(questions, plan, nothing, "ns"))
    assert found["age", "mean", "f"].value is None
    assert found["ages", "quantile 0.5"].value is None
    assert found["ages", "quantile 0.5"].records == (20, 80)
    assert found["patients", "count"].value == 0


def test_a_plan_pins_what_is_asked_and_gives_it_back() -> None:
    questions = Questions(Asked(data=SCHEMA, questions=ALL))
    again = program_of(plan_of(questions, "1").recipe)
    assert again.asked == questions.asked
    assert again.openings(Decimal(1)) == questions.openings(Decimal(1))
    for wrong in ({}, {"program": "other"}, {"program": "questions", "asked": 3}):
        with pytest.raises(ValueError, match="recipe|valid"):
            program_of(wrong)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (Count(name="x", by=("age",)), "'age', which has no declared categories.* ward, sex"),
        (Mean(name="x", of="ward"), "'ward', which has no declared range.* age"),
        (Mean(name="x", of="age", by="town"), "'town', which has no declared categories"),
        (Quantiles(name="x", of="weight"), "'weight', which has no declared range"),
        (Missing(name="x", of=("age", "weight")), "'weight', which has no declared categories"),
    ],
)
def test_a_question_over_what_is_not_declared_is_refused(question: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Questions(Asked(data=SCHEMA, questions=(question,)))


def test_questions_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="two questions have one name: x"):
        Asked(data=SCHEMA, questions=(Count(name="x"), Missing(name="x", of=("age",))))
    with pytest.raises(ValidationError, match="in ascending order"):
        Quantiles(name="x", of="age", at=(0.5, 0.25))
    tiny = (Count(name="big", share=Decimal(1000)), Count(name="tiny", share=Decimal("1e-9")))
    with pytest.raises(ConfigError, match="share 1E-9 of question 'tiny' is too small"):
        Questions(Asked(data=SCHEMA, questions=tiny))
    many = tuple(Quantiles(name=f"q{i}", of="age", bins=4096) for i in range(17))
    Questions(Asked(data=SCHEMA, questions=many[:16]))
    with pytest.raises(ConfigError, match="69632 cells together, at most 65536 fit one opening"):
        Questions(Asked(data=SCHEMA, questions=many))
    assert SENSITIVITY_GRID**2 * MOST_NUMBERS < 2**63


def test_a_cross_table_of_more_cells_than_memory_is_refused_at_once() -> None:
    many = tuple(f"c{i}" for i in range(2000))
    features = [{"name": name, "categories": many} for name in "xyz"]
    schema = TableSchema.model_validate(
        {"features": features, "target": {"name": "ill", "positive": "== 1"}}
    )
    with pytest.raises(ConfigError, match="8012006001 cells together"):
        Questions(Asked(data=schema, questions=(Count(name="all", by=("x", "y", "z")),)))


def test_a_table_without_lines_adds_nothing_and_stops_nothing() -> None:
    """A query may find no record; that it did is no reason to say so."""
    asked = Questions(Asked(data=SCHEMA, questions=ALL))
    nobody = Columns.read(table(3).iloc[:0], SCHEMA)
    (opening,) = asked.openings(Decimal(1))
    assert asked.integers(1, asked.begin(), nobody).shape == (0, opening.length)
    found = NoisySum(np.zeros(opening.length, np.int64), 0.0, ("north",))
    values = [figure.value for answer in asked.answers([found]) for figure in answer.figures]
    assert not any(value is not None and np.isnan(value) for value in values)
