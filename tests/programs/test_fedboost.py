"""FedBoost: bounds that no state breaks, the paper's algorithm without noise, what is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from privagg.errors import ConfigError
from privagg.programs.fedboost import FedBoost
from privagg.programs.fedboost.asked import LEAST
from privagg.programs.fedboost.ensemble import Ensemble
from privagg.programs.fedboost.program import KEPT, SENSITIVITY_GRID, STEEPEST, mixed
from privagg.programs.questions.columns import Columns
from privagg.programs.registry import program_of
from privagg.programs.sums_program import NoisySum
from privagg.training.table import TableSchema
from tests.benchmarks.ensembles import Synthetic, papers_weights
from tests.commands import call
from tests.programs.contract import Case, ProgramContract
from tests.programs.test_scorecard import SCHEMA as CARD_SCHEMA
from tests.programs.test_scorecard import card, run, scorecard, table

SCHEMA = TableSchema.model_validate(
    {
        "features": [
            {"name": "a", "range": (0, 1)},
            {"name": "b", "range": (0, 1)},
            {"name": "token", "categories": ("x", "y", "z")},
        ],
        "target": {"name": "late", "positive": "== 1"},
    }
)

RECORDS = pd.DataFrame(
    {
        "a": [0, 1, 0.5, 1e-12, None, 2, -1, "x", 0.3, 1],
        "b": [1, 0, 0.5, 1, 0.5, 0, 0, 0.2, 0.3, 1],
        "token": ["x", "y", None, "z", "w", "x", "X", "z", " y", "x"],
        "late": [1, 0, 1, None, 0, 1, "x", 1, 0, 0],
    }
)


def ensemble(*predictors: Any, **settings: Any) -> FedBoost:
    named = [{"name": str(n), **each} for n, each in enumerate(predictors)]
    return FedBoost.of(
        {"data": SCHEMA.model_dump(mode="json"), "predictors": named, "rounds": 3, **settings}
    )


def by_columns(**settings: Any) -> FedBoost:
    return ensemble({"column": "a"}, {"column": "b"}, **settings)


DENSITIES = [{"column": "token", "chances": each} for each in ((1, 0, 0), (0.2, 0.3, 0.5))]


class TestFedBoost(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        program = by_columns()
        return Case(
            program=by_columns,
            openings=program.openings(Decimal(0)),
            records=RECORDS,
            take=lambda frame, places: Columns.read(frame.iloc[places], SCHEMA),
            states=(program.begin(), np.array([0.9, 0.1]), np.array([0.0, 1.0])),
        )


@pytest.mark.parametrize("densities", [False, True])
@pytest.mark.parametrize("sent", [None, 2])
def test_no_record_and_no_state_reach_beyond_the_bound(densities: bool, sent: int | None) -> None:
    """States huge, tiny, no numbers; and the bound is met."""
    some = DENSITIES * 2 if densities else [{"column": "a"}, {"column": "b"}] * 2
    program, draw, largest = ensemble(*some, sent=sent), np.random.default_rng(3), 0
    records = Columns.read(RECORDS, SCHEMA)
    for number in range(300):
        state = draw.standard_normal(4) * 10.0 ** draw.integers(-300, 300, 4)
        state[draw.random(4) < 0.2] = draw.choice([np.nan, np.inf, -np.inf, 0.0, 1.0])
        assert mixed(state).min() >= KEPT / 4 * (1 - 1e-9)
        assert mixed(state).sum() == pytest.approx(1)
        rows = program.integers(1 + number % 3, state, records)
        assert rows.shape == (len(RECORDS), sent or 4)
        assert (rows >= 0).all()
        squares = [sum(int(z) ** 2 for z in row) for row in rows]
        assert max(squares) <= SENSITIVITY_GRID**2
        largest = max(largest, *squares)
    assert largest > 0.96 * SENSITIVITY_GRID**2


def test_records_of_which_a_predictor_says_nothing_add_nothing() -> None:
    rows = by_columns().integers(1, np.array([0.5, 0.5]), Columns.read(RECORDS, SCHEMA))
    silent = (rows == 0).all(axis=1)
    assert silent.tolist() == [False, False, False, True, True, False, False, True, False, False]
    likelihood = by_columns().content.predictors[0].likelihood
    found = likelihood(Columns.read(RECORDS, SCHEMA), np.ones(len(RECORDS)))
    assert np.nanmin(found) == LEAST


def test_without_noise_it_is_the_papers_algorithm() -> None:
    """One step is an exponentiated gradient, and whole runs lose no more than the paper's."""
    made = Synthetic.draw(seed=2, predictors=12, tokens=9, records=3000)
    program = made.program(rounds=1, rate=0.7)
    total = program.integers(1, program.begin(), made.columns).sum(axis=0)
    found = program.step(1, program.begin(), NoisySum(total, 0.0, ("n",)))
    gradient = (made.likelihoods / made.likelihoods.mean(axis=1, keepdims=True)).mean(axis=0)
    assert gradient.max() < 1 + STEEPEST  # steeper ones are followed no farther
    expected = np.exp(0.7 * gradient) / np.exp(0.7 * gradient).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-4)

    ours, papers = [], []
    for seed in range(5):
        made = Synthetic.draw(seed, predictors=40, tokens=40, records=3000)
        ours.append(made.excess_loss(made.weights(None, rounds=20)))
        papers.append(made.excess_loss(papers_weights(made.likelihoods, 50, 0.5)))
    worse = np.array(ours) - papers
    assert worse.mean() < 2 * worse.std(ddof=1) / np.sqrt(len(worse))


def test_noise_costs_something_and_weights_beat_equal_ones() -> None:
    made = Synthetic.draw(seed=2, predictors=40, tokens=40, records=6000)
    losses = [made.excess_loss(made.weights(each, rounds=20)) for each in (None, "8", "1")]
    even = made.excess_loss(np.full(40, 1 / 40))
    assert losses[0] < losses[2] < even / 5
    assert losses[1] < even / 10


def test_a_round_may_ask_of_some_and_draws_them_publicly() -> None:
    program = ensemble(*DENSITIES * 4, sent=3, rounds=200)
    asked = np.array([program.asked_of(number) for number in range(1, 201)])
    assert (np.diff(asked, axis=1) > 0).all()
    counts = np.bincount(asked.ravel(), minlength=8)
    assert counts.min() > 40  # 75 each are expected
    again = program_of(program.recipe)
    assert isinstance(again, FedBoost)
    np.testing.assert_array_equal(again.asked_of(7), program.asked_of(7))


def test_released_cards_are_weighed_and_the_better_one_wins() -> None:
    card_of_many = scorecard()
    good = card(card_of_many, run(card_of_many, table(3000, 1)))
    swapped = [
        {**each, "points": [-p for p in each["points"]]}
        for each in good.model_dump(mode="json")["blocks"]
    ]
    bad = {**good.model_dump(mode="json"), "blocks": swapped}
    program = FedBoost.of(
        {
            "data": CARD_SCHEMA.model_dump(mode="json"), "rounds": 10,
            "predictors": [{"name": "bad", "card": bad}, {"name": "good", "card": good}],
        }
    )  # fmt: skip
    records, state, sums = Columns.read(table(1000, 2), CARD_SCHEMA), program.begin(), []
    for number in range(1, 11):
        total = program.integers(number, state, records).sum(axis=0)
        sums.append(NoisySum(total, 0.0, ("n",)))
        state = program.step(number, state, sums[-1])
    (answer,) = program.answers(sums)
    assert answer.figures[1].value is not None
    assert answer.figures[1].value > 0.8
    assert program.model(sums)["weights"] == [each.value for each in answer.figures]


@pytest.mark.parametrize(
    ("predictors", "says"),
    [
        ([{"column": "a"}], "at least 2"),
        ([{"column": "a"}, {}], "either a column or a card"),
        ([{"column": "a"}, {"column": "c"}], "needs a declared column"),
        ([{"column": "a"}, {"column": "token"}], "needs a declared column"),
        ([DENSITIES[0], {"column": "a"}], "densities of the same column alone"),
        ([DENSITIES[0], {"column": "token", "chances": (0.5, 0.5)}], "2 chances for 3"),
        ([DENSITIES[0], {"column": "token", "chances": (1, 1, -1)}], "0 or more and add to 1"),
    ],
)
def test_predictors_that_do_not_fit_are_refused(predictors: Any, says: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=says):
        ensemble(*predictors)


def test_other_settings_are_refused() -> None:
    for settings in ({"sent": 3}, {"method": 2}, {"rate": 0}, {"rounds": 0}, {"strange": 1}):
        with pytest.raises(ValidationError):
            by_columns(**settings)
    facts = by_columns().asked
    facts["data"]["target"] = {"name": "late", "classes": ["1", "2", "3"]}  # type: ignore
    with pytest.raises(ConfigError, match="of two classes"):
        FedBoost.of(facts)


def test_its_file_predicts_a_table(tmp_path: Path) -> None:
    """The weighed mean of what predictors say; silent ones count for nothing."""
    program = by_columns()
    facts = program.model([NoisySum(np.array([3000, 1000]) * SENSITIVITY_GRID, 0.0, ("n",))])
    made = Ensemble.read({"answers": [], "model": facts})
    first, second = made.weights
    assert first > second
    assert Ensemble.is_in({"model": facts})
    found = made.predictions(Columns.read(RECORDS, SCHEMA, target=False))[:, 0]
    expected = [first * a + second * b for a, b in ((0, 1), (1, 0), (0.5, 0.5), (0, 1))]
    assert found[:4] == pytest.approx(expected, abs=1e-9)
    assert found[4] == 0.5  # the first says nothing
    path, table = tmp_path / "answers.json", tmp_path / "new.csv"
    path.write_text(json.dumps({"answers": [], "model": facts}))
    table.write_text("a,b,token\n1,0,x\n,,y\n")
    assert call("predict", path, table).out == f"chance\n{first:.6g}\nnan\n"
    path.write_text(json.dumps({"answers": [], "model": {**facts, "weights": [0.9, 0.9]}}))
    wrong = call("predict", path, table)
    assert (wrong.code, "weights are parts of 1" in wrong.err) == (2, True)
    path.write_text(json.dumps(facts))
    for form, says in (("onnx", "predictors"), ("sql", "no scorecard")):
        told = call("export", path, "--format", form)
        assert (told.code, says in told.err) == (2, True)


def test_densities_are_an_ensemble_too() -> None:
    program = ensemble(*DENSITIES)
    made = Ensemble.read(program.model([NoisySum(np.full(2, SENSITIVITY_GRID), 0.0, ("n",))]))
    found = made.predictions(Columns.read(RECORDS, SCHEMA, target=False))[:, 0]
    expected = np.array(made.weights) @ np.array([each["chances"] for each in DENSITIES])
    assert (made.names, found[0]) == (("likelihood",), pytest.approx(expected[0]))
    assert np.isnan(found[2])
