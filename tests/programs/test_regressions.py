"""Covariances and regressions: bounds, the figures of others' code, coverage, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor

from privagg.errors import ConfigError
from privagg.programs.answers import Figure, deviations
from privagg.programs.questions.asked import Covariance, Linear, Logistic, Poisson
from privagg.programs.questions.columns import Columns
from privagg.programs.questions.program import Asked, Questions
from privagg.programs.questions.question import Found, Question
from privagg.training.table import TableSchema
from tests.programs.contract import Case, ProgramContract

SCHEMA = TableSchema.model_validate(
    {
        "features": [
            {"name": "age", "range": (20, 80)},
            {"name": "bmi", "range": (15, 45)},
            {"name": "visits", "range": (0, 12)},
            {"name": "ward", "categories": ("a", "b", "c")},
            {"name": "sex", "categories": ("f", "m")},
        ],
        "target": {"name": "ill", "positive": "== 1"},
    }
)
ON = ("age", "bmi", "ward")
SHORT = (
    Covariance(name="covariance", of=("age", "bmi")),
    Linear(name="linear", of="bmi", on=("age", "sex"), base={"sex": "m"}),
    Logistic(name="logistic", of="ill", on=("age", "sex"), rounds=2, share=Decimal(3)),
    Poisson(name="poisson", of="visits", on=("age", "sex"), rounds=2, largest_rate=9),
)
EXTREMES = pd.DataFrame(
    {
        "age": [80, 20, 50, None, -1e300, 1e300, 1 / 3, 79.999999999999, "?", 80, float("inf")],
        "bmi": [45, 15, 45, 30, None, 1e300, 44.999999999999, 1 / 3, 20, -1e300, 30],
        "visits": [12, 0, 12, 1, 2, None, 1e-300, 11.999999999999, 3, 0, 1],
        "ward": ["a", "c", None, "b", " B ", "zz", "a", "a", "c", "b", "a"],
        "sex": ["f", "m", "M", None, "f", "f", "m", "m", "f", "f", "?"],
        "ill": [1, 0, None, 1, "1", 1, 0, 1, 1, 0, 1],
    }
)


class TestRegressions(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        questions = Questions(Asked(data=SCHEMA, questions=SHORT))
        states = (questions.begin(), np.array([0.3, -0.2, 0.1, 1e308, -1e308, 1.1]))
        return Case(
            program=lambda: Questions(Asked(data=SCHEMA, questions=SHORT)),
            openings=questions.openings(Decimal(0)),
            records=EXTREMES,
            take=lambda frame, places: Columns.read(frame.iloc[places], SCHEMA),
            states=states,
        )


# --- what a record adds --------------------------------------------------------------------------

UNIT = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
COEFFICIENT = st.one_of(st.floats(-6, 6), st.floats())
QUESTIONS: tuple[Question, ...] = (
    Covariance(name="c", of=("age", "bmi", "visits")),
    Linear(name="l", of="bmi", on=("age", "ward", "sex")),
    Logistic(name="g", of="ill", on=("age", "bmi", "ward", "sex")),
    *(
        Poisson(name="p", of="visits", on=("age", "ward"), largest_rate=rate)
        for rate in (None, 0.01, 3.0, 500.0)
    ),
)


def record(units: list[float], codes: list[int]) -> Columns:
    ends = [(20, 80), (15, 45), (0, 12)]
    numbers = {
        name: np.array([low + unit * (high - low)]).clip(low, high)
        for name, unit, (low, high) in zip(("age", "bmi", "visits"), units, ends, strict=True)
    }
    return Columns(
        numbers, {n: np.array([c]) for n, c in zip(("ward", "sex", "ill"), codes, strict=True)}, 1
    )


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.kind)
@settings(max_examples=80, deadline=None)
@given(
    units=st.lists(UNIT, min_size=3, max_size=3),
    codes=st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)),
    state=st.lists(COEFFICIENT, min_size=6, max_size=6),
)
def test_no_record_is_longer_than_one_at_any_state(
    question: Question, units: list[float], codes: tuple[int, ...], state: list[float]
) -> None:
    own = np.array(state)[: question.state_length(SCHEMA, 1)]
    (row,) = question.rows(SCHEMA, 1, own, record(units, list(codes)))
    assert np.isfinite(row).all()
    assert np.sqrt((row**2).sum()) <= 1 + 1e-12


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.kind)
def test_the_stated_norm_is_met(question: Question) -> None:
    """Of all corners and predictors the longest row is as long as stated: no noise for nothing."""
    longest, width = 0.0, question.state_length(SCHEMA, 1)
    for corner in np.ndindex(2, 2, 2):
        for predictor in np.linspace(-9, 9, 73) if width else [0.0]:
            state = np.zeros(width)
            state[:1] = predictor
            for ill in (0, 1):
                one = record([float(unit) for unit in corner], [1, 1, ill])
                longest = max(longest, float(np.linalg.norm(question.rows(SCHEMA, 1, state, one))))
    assert longest >= (0.89 if question.kind == "poisson" else 0.9999)


@pytest.mark.parametrize("question", QUESTIONS[:4], ids=lambda question: question.kind)
def test_a_row_has_the_same_bits_in_any_batch(question: Question) -> None:
    """Vector kernels and matrix products may round by a value's place."""
    draw = np.random.default_rng(8)
    columns = Columns.read(table(1000, draw), SCHEMA)
    state = draw.normal(0, 2, question.state_length(SCHEMA, 1))
    together = question.rows(SCHEMA, 1, state, columns)
    for size in (1, 3, 17, 256):
        some = range(0, 200 if size == 1 else 1000, size)
        apart = [question.rows(SCHEMA, 1, state, columns[at : at + size]) for at in some]
        np.testing.assert_array_equal(np.concatenate(apart), together[: sum(map(len, apart))])


# --- figures without noise -----------------------------------------------------------------------


def table(count: int, draw: np.random.Generator) -> pd.DataFrame:
    """Records of a population whose coefficients are `TRUE`; a few lack something."""
    age = draw.uniform(25, 75, count)
    ward = draw.choice(["a", "b", "c"], count)
    bmi = 24 + 0.1 * age + 2.0 * (ward == "b") + draw.normal(0, 2.5, count)
    middle = -1.5 + 0.03 * age + 0.7 * (ward == "c")
    ill = draw.random(count) < 1 / (1 + np.exp(-middle))
    visits = draw.poisson(np.exp(-0.5 + 0.015 * age - 0.4 * (ward == "b"))).clip(0, 12)
    frame = pd.DataFrame(
        {"age": age, "bmi": bmi, "visits": visits, "ward": ward, "ill": ill.astype(int)}
    )
    return frame.assign(sex=draw.choice(["f", "m"], count))


TRUE = {
    "linear": {"age": 0.1, "ward: b": 2.0, "ward: c": 0.0},
    "logistic": {"age": 0.03, "ward: b": 0.0, "ward: c": 0.7},
    "poisson": {"age": 0.015, "ward: b": -0.4, "ward: c": 0.0},
}
ASKED: dict[str, Any] = {
    "linear": Linear(name="q", of="bmi", on=("age", "ward")),
    "logistic": Logistic(name="q", of="ill", on=("age", "ward")),
    "poisson": Poisson(name="q", of="visits", on=("age", "ward")),
}


def opened(
    question: Question, columns: Columns, stddev: float, draw: np.random.Generator
) -> list[Found]:
    """What its rounds open of some records, each with noise as an even part of the budget has."""
    state, found = question.begin(SCHEMA), []
    stddev *= sqrt(question.round_count)
    for number in range(1, question.round_count + 1):
        total = question.rows(SCHEMA, number, state, columns).sum(axis=0)
        found.append(Found(total + draw.normal(0, stddev, len(total)), stddev))
        if number < question.round_count:
            state = question.step(SCHEMA, number, state, found[-1])
    return found


def terms(figures: tuple[Figure, ...], what: str = "coefficient") -> dict[str, Figure]:
    return {each.group["term"]: each for each in figures if each.what == what}


def deviation(figure: Figure) -> float:
    return (figure.population.high - figure.population.low) / (2 * deviations(0.95))


@pytest.mark.parametrize("kind", ["linear", "logistic", "poisson"])
def test_without_noise_regressions_are_those_of_scikit_learn(kind: str) -> None:
    """Coefficients, and the standard errors of textbooks beside them."""
    frame = table(4000, np.random.default_rng(1))
    gaps = frame.astype({"age": object, "ward": object})
    extra = gaps.head(50).assign(age=None)
    columns = Columns.read(pd.concat([gaps, extra, extra.assign(age=30, ward="?")]), SCHEMA)
    question = ASKED[kind]
    figures = question.answer(SCHEMA, opened(question, columns, 0.0, np.random.default_rng()), 0.95)
    x = np.column_stack([frame.age, frame.ward == "b", frame.ward == "c"]).astype(float)
    straight: Any = {
        "linear": LinearRegression(),
        "logistic": LogisticRegression(C=inf, tol=1e-10, max_iter=10_000, solver="newton-cholesky"),
        "poisson": PoissonRegressor(alpha=0, tol=1e-10, max_iter=10_000, solver="newton-cholesky"),
    }[kind]
    y = frame[question.of].to_numpy()
    straight.fit(x, y)
    mean = straight.predict_proba(x)[:, 1] if kind == "logistic" else straight.predict(x)
    weight = {"linear": 1 / np.mean((y - mean) ** 2), "logistic": mean * (1 - mean)}.get(kind, mean)
    own = np.column_stack([np.ones(len(x)), x])
    errors = np.sqrt(np.diag(np.linalg.inv(own.T @ (own * np.reshape(weight, (-1, 1))))))
    expected = [np.ravel(straight.intercept_)[0], *np.ravel(straight.coef_)]
    assert figures[0].value == pytest.approx(4000, rel=1e-6)
    found = terms(figures)
    assert [*found] == ["intercept", "age", "ward: b", "ward: c"]
    for figure, value, error in zip(found.values(), expected, errors, strict=True):
        assert figure.value == pytest.approx(value, rel=1e-4, abs=1e-6)
        assert figure.errors is not None
        assert figure.errors.population == pytest.approx(error, rel=2e-3)
        assert deviation(figure) == pytest.approx(error, rel=2e-3)
    if kind == "linear":
        assert figures[-1].what == "residual variance"
        assert figures[-1].value == pytest.approx(np.mean((y - mean) ** 2), rel=2e-3)
    else:
        ratio = terms(figures, "odds ratio" if kind == "logistic" else "rate ratio")
        assert ratio["age"].value == pytest.approx(np.exp(expected[1]), rel=1e-6)
        assert [*ratio] == ["age", "ward: b", "ward: c"]


def test_without_noise_covariances_are_those_of_numpy() -> None:
    frame, of = table(3000, np.random.default_rng(2)), ("age", "bmi", "visits")
    question = Covariance(name="c", of=of)
    columns = Columns.read(frame, SCHEMA)
    figures = question.answer(SCHEMA, opened(question, columns, 0.0, np.random.default_rng()), 0.95)
    covariance, correlation = np.cov(frame[[*of]].T, ddof=0), np.corrcoef(frame[[*of]].T)
    expected = {"variance": covariance, "covariance": covariance, "correlation": correlation}
    told = {"count": 0, "variance": 0, "covariance": 0, "correlation": 0}
    for figure in figures:
        told[figure.what] += 1
        if figure.what in expected:
            i = of.index(figure.group["of"])
            j = of.index(figure.group.get("with", figure.group["of"]))
            assert figure.value == pytest.approx(expected[figure.what][i, j], rel=1e-6, abs=1e-9)
    assert told == {"count": 1, "variance": 3, "covariance": 3, "correlation": 3}


# --- intervals -----------------------------------------------------------------------------------

LEVELS = (0.9, 0.95, 0.99)
Key = Callable[[Figure], Any]


def covered(
    question: Question, population: Callable[[Any], Columns], stddev: float,
    key: Key, truth: dict[Any, float], draws: int,
) -> None:  # fmt: skip
    """Fresh records and noise each time: what they say without noise, and the truth, are inside."""
    draw = np.random.default_rng(7)
    inside = {
        (level, which, each): 0
        for level in LEVELS for which in ("records", "population") for each in truth
    }  # fmt: skip
    for _ in range(draws):
        columns = population(draw)
        exact = question.answer(SCHEMA, opened(question, columns, 0.0, draw), 0.95)
        said = {key(figure): figure.raw for figure in exact}
        found = opened(question, columns, stddev, draw)
        for level in LEVELS:
            for figure in question.answer(SCHEMA, found, level):
                if (each := key(figure)) in truth:
                    for which, value in (("records", said[each]), ("population", truth[each])):
                        ends = getattr(figure, which)
                        inside[level, which, each] += ends.low <= value <= ends.high
    for (level, *which), count in inside.items():
        slack = 4.5 * sqrt(level * (1 - level) / draws)
        assert level - slack <= count / draws <= level + slack + 0.02, (level, which)


@pytest.mark.parametrize("times", [1, pytest.param(8, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    ("kind", "stddev", "draws"), [("linear", 1.0, 150), ("logistic", 0.7, 80), ("poisson", 0.5, 80)]
)
def test_intervals_of_coefficients_cover_as_often_as_they_say(
    kind: str, stddev: float, draws: int, times: int
) -> None:
    """With noise about as large as sampling."""

    def population(draw: Any) -> Columns:
        frame = table(int(draw.poisson(2000)), draw)
        codes = {"ward": frame.ward.map({"a": 0, "b": 1, "c": 2}), "ill": frame.ill}
        numbers = {name: frame[name].to_numpy(dtype=float) for name in ("age", "bmi", "visits")}
        return Columns(numbers, {n: c.to_numpy() for n, c in codes.items()}, len(frame))

    def key(figure: Figure) -> Any:
        return figure.group.get("term") if figure.what == "coefficient" else None

    covered(ASKED[kind], population, stddev, key, TRUE[kind], times * draws)


def test_intervals_of_covariances_cover_as_often_as_they_say() -> None:
    """Of jointly normal columns, as they assume."""

    def population(draw: Any) -> Columns:
        count = int(draw.poisson(2500))
        first, second = draw.normal(size=(2, count))
        numbers = {"age": 50 + 6 * first, "bmi": 30 + 1.5 * first + 2 * second}
        return Columns(numbers, {}, count)

    truth = {("covariance", "age"): 9.0, ("correlation", "age"): 0.6, ("variance", "bmi"): 6.25}
    question = Covariance(name="c", of=("age", "bmi"))
    covered(
        question, population, 3.0,
        lambda figure: (figure.what, figure.group.get("of")), truth, draws=150,
    )  # fmt: skip


# --- where the noise hides something -------------------------------------------------------------


def test_a_ridge_is_told_where_columns_cannot_be_told_apart() -> None:
    """Of two columns that are the same, the sum of the coefficients is right."""
    draw = np.random.default_rng(3)
    age = draw.uniform(25, 75, 3000)
    columns = Columns({"age": age, "bmi": 15 + (age - 20) / 2, "visits": age / 10}, {}, 3000)
    question = Linear(name="q", of="visits", on=("age", "bmi"))
    for stddev in (0.0, 2.0):
        figures = question.answer(SCHEMA, opened(question, columns, stddev, draw), 0.95)
        found = {f.group["term"]: f for f in figures if f.what == "penalised coefficient"}
        assert [f.what for f in figures[:2]] == ["count", "penalty"]
        assert figures[1].value > 0
        slope = found["age"].value + found["bmi"].value / 2
        assert slope == pytest.approx(0.1, abs=1e-4 if not stddev else 0.02)
        for figure in found.values():  # nobody can say what each has
            assert (figure.records, figure.population) == ((-inf, inf), (-inf, inf))


def test_a_ridge_leaves_intervals_to_the_coefficients_that_it_does_not_draw() -> None:
    """A category of five people among 4,000 is hidden by the noise, the age is not."""
    draw, frame = np.random.default_rng(9), table(4000, np.random.default_rng(10))
    frame.loc[frame.ward == "b", "ward"] = "a"
    frame.loc[:4, "ward"] = "b"
    columns, question = Columns.read(frame, SCHEMA), ASKED["logistic"]
    exact = terms(question.answer(SCHEMA, opened(question, columns, 0.0, draw), 0.95))
    figures = question.answer(SCHEMA, opened(question, columns, 3.0, draw), 0.95)
    found = terms(figures, "penalised coefficient")
    assert figures[1].what == "penalty"
    assert found["age"].records.low <= exact["age"].raw <= found["age"].records.high
    assert isfinite(found["ward: c"].population.high)
    assert found["ward: b"].population.high == terms(figures, "odds ratio")["ward: b"].records.high
    assert found["ward: b"].errors is None


@pytest.mark.parametrize("question", [*ASKED.values(), SHORT[0]], ids=lambda each: each.kind)
def test_of_too_few_records_nothing_is_said(question: Question) -> None:
    draw = np.random.default_rng(4)
    for columns in (Columns.read(table(40, draw), SCHEMA), Columns.read(EXTREMES[2:5], SCHEMA)):
        figures = question.answer(SCHEMA, opened(question, columns, 30.0, draw), 0.95)
        assert figures[0].what == "count"
        assert {figure.value for figure in figures[1:]} == {None}
        assert all(figure.records == (-inf, inf) for figure in figures[1:])


def test_steps_that_have_not_come_to_their_end_give_no_interval() -> None:
    """Two groups that the age tells apart: the coefficient grows with every step."""
    age = np.repeat([30.0, 70.0], 1000)
    columns = Columns({"age": age}, {"ill": np.repeat([0, 1], 1000)}, 2000)
    question = Logistic(name="q", of="ill", on=("age",), rounds=3)
    found = opened(question, columns, 0.0, np.random.default_rng())
    for figure in question.answer(SCHEMA, found, 0.95)[1:]:
        assert figure.value is not None
        assert isfinite(figure.value)
        assert figure.records.high == figure.population.high == inf


def test_an_asking_that_was_cut_short_is_answered_from_what_was_opened() -> None:
    columns = Columns.read(table(4000, np.random.default_rng(5)), SCHEMA)
    question = ASKED["logistic"]
    found = opened(question, columns, 0.1, np.random.default_rng(6))
    whole = terms(question.answer(SCHEMA, found, 0.95))["age"]
    short = terms(question.answer(SCHEMA, found[:2], 0.95))["age"]
    assert short.value == pytest.approx(whole.value, rel=0.05)
    assert short.records.high - short.records.low > 1.2 * (whole.records.high - whole.records.low)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (Covariance(name="x", of=("age", "ward")), "'ward', which has no declared range"),
        (Linear(name="x", of="ward", on=("age",)), "'ward', which has no declared range"),
        (Linear(name="x", of="age", on=("town",)), "'town', which has no declared categories"),
        (Linear(name="x", of="age", on=("sex",), base={"sex": "z"}), "compared with 'z'.* f, m;"),
        (Linear(name="x", of="age", on=("sex",), base={"ward": "a"}), "base category.* 'ward'"),
        (Linear(name="x", of="age", on=("bmi",), base={"bmi": "a"}), "base category.* 'bmi'"),
        (Logistic(name="x", of="age", on=("bmi",)), "'age', which has no declared categories"),
        (Logistic(name="x", of="ward", on=("bmi",)), "`event` is one of.* a, b, c; got None"),
        (Logistic(name="x", of="ill", on=("bmi",), event="1"), "are no, yes; got '1'"),
        (Poisson(name="x", of="ill", on=("bmi",)), "'ill', which has no declared range"),
        (Poisson(name="x", of="visits", on=("bmi",), largest_rate=1e10), "between 0.001 and 1e9"),
    ],
)
def test_a_regression_over_what_is_not_declared_is_refused(question: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=f"{told}.*Nothing was spent"):
        Questions(Asked(data=SCHEMA, questions=(question,)))


def test_ranges_and_terms_that_no_answer_comes_from_are_refused() -> None:
    def schema(*features: dict[str, Any]) -> TableSchema:
        return TableSchema.model_validate(
            {"features": features, "target": {"name": "ill", "positive": "== 1"}}
        )

    narrow = schema({"name": "x", "range": (0, 1e-60)}, {"name": "y", "range": (-3, 3)})
    many = schema({"name": "x", "range": (0, 1)}, {"name": "c", "categories": tuple(range(300))})
    only = schema({"name": "x", "range": (0, 1)}, {"name": "c", "categories": ("a",)})
    for data, question, told in (
        (narrow, Linear(name="q", of="y", on=("x",)), "too narrow"),
        (narrow, Poisson(name="q", of="y", on=("x",)), "too narrow"),
        (schema({"name": "y", "range": (-3, 3)}, {"name": "z", "range": (0, 1)}),
         Poisson(name="q", of="y", on=("z",)), r"counts of 'y' .* range \[-3, 3\]"),
        (many, Linear(name="q", of="x", on=("c",)), "300 terms.* at most 200"),
        (only, Linear(name="q", of="x", on=("c",)), "one of at least two"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"{told}.*Nothing was spent"):
            Questions(Asked(data=data, questions=(question,)))


def test_settings_that_contradict_each_other_are_refused() -> None:
    for wrong, told in (
        ({"kind": "covariance", "of": ["age", "age"]}, "lists a column twice"),
        ({"kind": "covariance", "of": ["age"]}, "at least 2"),
        ({"kind": "linear", "of": "age", "on": ["bmi", "bmi"]}, "each column once"),
        ({"kind": "logistic", "of": "ill", "on": ["ill"]}, "never the outcome 'ill'"),
        ({"kind": "logistic", "of": "ill", "on": ["age"], "rounds": 1}, "greater than or equal"),
        ({"kind": "poisson", "of": "visits", "on": ["age"], "largest_rate": 0}, "greater than 0"),
        ({"kind": "linear", "of": "age", "on": ["bmi"], "rounds": 3}, "Extra inputs"),
    ):
        with pytest.raises(ValidationError, match=told):
            Asked.model_validate({"data": SCHEMA, "questions": [{"name": "q", **wrong}]})
