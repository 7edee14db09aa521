"""Questions under integer Laplace noise: when it is taken, what it costs, what intervals cover."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from math import log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from privagg.config.asking import AskSetup
from privagg.config.schema import Config
from privagg.config.setup import Setup
from privagg.errors import ConfigError
from privagg.privacy.laplace_law import LaplaceLaw
from privagg.privacy.laplace_noise import IntegerLaplace
from privagg.privacy.plan import SiteTerms, SumsPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.questions.asked import Count, Mean, Missing, Quantiles
from privagg.programs.questions.columns import Columns
from privagg.programs.questions.program import LARGEST_MOVES, Asked, Questions, whole_parts
from privagg.programs.sums_program import NoisySum
from tests.programs.contract import Case, ProgramContract
from tests.programs.test_questions import EXTREMES, SCHEMA, figures, table

CELLS = (
    Count(name="patients"),
    Count(name="by ward", by=("ward",), share=Decimal(2)),
    Quantiles(name="ages", of="age", bins=12),
    Missing(name="gaps", of=("age", "ward", "ill"), share=Decimal(3)),
)


def asked(*questions: Any, **changes: Any) -> Questions:
    return Questions(
        Asked.model_validate(
            {"data": SCHEMA, "questions": questions or CELLS, "noise": "laplace"} | changes
        )
    )


def plan_of(questions: Questions, epsilon: str, sites: int = 2, dropouts: int = 0) -> SumsPlan:
    return SumsPlan.model_validate(
        {
            "sites": [SiteTerms(name=f"s{i}", records=9000) for i in range(sites)],
            "openings": questions.openings(1 / Decimal(epsilon)), "delta": "1e-6",
            "colluders": 0, "dropouts": dropouts, "custody": "authority", "scheme": "bfv",
            "recipe": questions.recipe,
        }
    )  # fmt: skip


class TestLaplaceQuestions(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        return Case(
            program=asked,
            openings=asked().openings(Decimal(0)),
            records=EXTREMES,
            take=lambda frame, places: Columns.read(frame.iloc[places], SCHEMA),
        )


def test_a_record_moves_one_integer_of_each_question_by_its_part() -> None:
    questions = asked()
    (terms,) = questions.openings(Decimal(10))
    assert (terms.moves, terms.sensitivity_grid, terms.scale) == ((2, 1, 1, 1, 1, 1), 3, 70)
    rows = questions.integers(1, np.zeros(0), Columns.read(table(50), SCHEMA))
    assert set(np.unique(rows)) == {0, 1, 2}
    without_gaps = {tuple(sorted(row[row > 0].tolist())) for row in rows[:, :-3]}
    assert without_gaps <= {(1, 1, 2), (1, 2)}
    assert set(np.unique(rows[:, -3:])) == {0, 1}


def test_gaps_of_a_few_columns_are_counted_under_laplace_noise_where_it_is_less() -> None:
    """Each count has noise of deviation √2·k/ε, and a Gaussian's for k columns √k·σ."""
    questions, frame = asked(Missing(name="gaps", of=("age", "ward", "ill"))), table(500)
    plan = plan_of(questions, "0.5")
    total = questions.integers(1, np.zeros(0), Columns.read(frame, SCHEMA)).sum(axis=0)
    (answer,) = questions.answers([NoisySum.of(plan, 1, total, plan.names)])
    missing = [
        float(frame["age"].isna().sum()),
        float((~frame["ward"].isin(["a", "b", "c"])).sum()),
    ]
    assert [figure.value for figure in answer.figures[:2]] == pytest.approx(missing, abs=1e-9)
    width = answer.figures[0].records.high - answer.figures[0].raw
    assert width == pytest.approx(math.log(20) * 3 / 0.5, rel=0.1)
    assert questions.largest_stddev(plan) == pytest.approx(math.sqrt(2) * 3 / 0.5, rel=0.01)


@given(st.lists(st.decimals("0.001", "1000", places=3), min_size=1, max_size=8))
def test_parts_are_in_proportion_to_the_shares(shares: list[Decimal]) -> None:
    whole = sum(map(Fraction, shares), Fraction(0))
    parts = whole_parts([Fraction(share) / whole for share in shares])
    assert min(parts) >= 1
    assert max(parts) <= LARGEST_MOVES
    for share, part in zip(shares, parts, strict=True):
        wanted = Fraction(share) / whole * sum(parts)
        assert abs(part - wanted) <= max(1, len(shares) * wanted / LARGEST_MOVES + 1)
    assert whole_parts([Fraction(1, 4), Fraction(1, 2), Fraction(1, 4)]) == [1, 2, 1]


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("epsilon", "dropouts"), [("0.2", 0), ("0.2", 1), ("2", 0), ("6", 0)])
def test_a_counts_interval_holds_its_noise_as_often_as_it_says(
    level: float, epsilon: str, dropouts: int
) -> None:
    """Laplace noise reaches further than a normal variable of its deviation: 2.1 times at 95 %."""
    questions = asked(Count(name="all"), level=level)
    plan = plan_of(questions, epsilon, sites=3, dropouts=dropouts)
    noise, draws = plan.in_round(1).noise, 20_000
    assert isinstance(noise, IntegerLaplace)
    source = DeterministicRandomness(b"coverage")
    drawn = sum(noise.sample(source.stream(i), draws) for i in range(3))
    figure = questions.answers([NoisySum.of(plan, 1, np.array([9000]), plan.names)])[0].figures[0]
    reach = (figure.records.high - figure.records.low) / 2
    covered = float(np.mean(np.abs(drawn) <= reach))
    slack = 5 * sqrt(level * (1 - level) / draws)
    assert covered >= level - slack
    # Never wider by more than a whole step, or than what a normal variable takes.
    tight = NoisySum.of(plan, 1, np.array([9000]), plan.names)
    normal = 2.576 * tight.stddev if level == 0.99 else 1.96 * tight.stddev
    assert reach <= max(float(np.quantile(np.abs(drawn), min(level + slack, 1))) + 1, normal)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_intervals_for_the_population_hold_with_noise_and_sampling(level: float) -> None:
    """500 tables of one population: its mean count and its median are inside."""
    questions = asked(Count(name="n"), Quantiles(name="ages", of="age", bins=120), level=level)
    plan = plan_of(questions, "0.1")
    noise = plan.in_round(1).noise
    assert noise is not None
    draw, source = np.random.default_rng(8), DeterministicRandomness(b"population")
    hits = dict.fromkeys(["count", "quantile 0.5"], 0)
    for i in range(500):
        ages = draw.uniform(25, 75, draw.poisson(800))
        total = questions.integers(1, np.zeros(0), Columns({"age": ages}, {}, len(ages))).sum(
            axis=0
        )
        for site in range(2):
            total += noise.sample(source.stream(i, site), len(total))
        found = figures(questions.answers([NoisySum.of(plan, 1, total, plan.names)]))
        for (_, what), figure in found.items():
            if what in hits:
                truth = 800 if what == "count" else 50
                hits[what] += figure.population.low <= truth <= figure.population.high
    slack = 5 * sqrt(level * (1 - level) / 500)
    assert all(count / 500 >= level - slack for count in hits.values()), hits
    assert hits["count"] / 500 <= level + slack + 0.03


def test_the_reach_is_the_least_integer_of_its_level() -> None:
    law = LaplaceLaw(Fraction(10), Fraction(1))
    a = 0.9048374180359595
    for level in (0.5, 0.9, 0.99, 0.999999):
        r = law.reach(level)
        assert 1 - 2 * a ** (r + 1) / (1 + a) >= level
        assert r == 0 or 1 - 2 * a**r / (1 + a) < level
        assert r == pytest.approx(10 * log(2 / (1 + a) / (1 - level)), abs=1)


# --- which noise is taken -------------------------------------------------------------------------


def setup(questions: list[dict[str, Any]], **ask: Any) -> AskSetup:
    config = Config.model_validate(
        {
            "federation": {"name": "wards"},
            "data": SCHEMA.model_dump(mode="json"),
            "privacy": {"epsilon": "1", "delta": "1e-5", "clip_norm_l2": "1"},
            "training": {"rounds": 5},
            "secure": {"scheme": "bfv", "custody": "authority"},
            "sites": [
                {"name": name, "data": f"{name}.csv", "records": 500} for name in ("n", "s", "w")
            ],
            "ask": {"epsilon": "0.5"} | ask,
            "questions": questions,
        }
    )
    return AskSetup.of(Setup(config, base=Path()))


COUNT = {"name": "patients", "kind": "count", "by": ["ward"]}


@pytest.mark.parametrize(
    ("questions", "noise"),
    [
        ([COUNT], "laplace"),
        ([COUNT, {"name": "ages", "kind": "quantiles", "of": "age", "share": 3}], "laplace"),
        ([COUNT, {"name": "age", "kind": "mean", "of": "age"}], "gaussian"),
        ([{**COUNT, "name": f"patients {i}"} for i in range(20)], "gaussian"),
    ],
)
def test_the_noise_taken_is_the_one_of_less_uncertain_answers(
    questions: list[dict[str, Any]], noise: str
) -> None:
    made = setup(questions)
    assert isinstance(made.sums, Questions)
    assert made.sums.content.noise == noise
    assert Decimal("0.48") < made.cost <= Decimal("0.5")
    assert made.plan.openings == made.sums.openings(made.plan.openings[0].noise_multiplier)
    other = setup(questions, noise="gaussian")
    assert isinstance(other.sums, Questions)
    assert made.sums.largest_stddev(made.plan) <= other.sums.largest_stddev(other.plan)
    assert "noise" not in other.sums.asked


def test_a_single_count_has_the_noise_of_the_laplace_mechanism() -> None:
    made = setup([COUNT], epsilon="0.1")
    assert made.plan.openings[0].scale == 10
    assert made.cost <= Decimal("0.1")


def test_more_counts_than_laplace_noise_is_for_are_asked_with_gaussian_noise() -> None:
    """A plan takes 256 moves of a record; 300 counts were refused for them."""
    made = setup([{"name": f"n{i}", "kind": "count"} for i in range(300)])
    assert made.plan.openings[0].moves is None


def test_laplace_noise_for_a_mean_is_refused_before_a_charge() -> None:
    questions = [COUNT, {"name": "age", "kind": "mean", "of": "age"}]
    with pytest.raises((ValidationError, ConfigError), match="age needs 'gaussian'"):
        setup(questions, noise="laplace")
    with pytest.raises(ValidationError, match="adds nothing but ones"):
        asked(Mean(name="age", of="age"))
