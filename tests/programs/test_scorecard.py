"""The scorecard: bounds that no record and no state breaks, what it learns, and what is told."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy.stats import multivariate_normal
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from privagg.errors import ConfigError
from privagg.privacy.plan import SiteTerms, SumsPlan
from privagg.programs.answers import deviations
from privagg.programs.questions.columns import Columns
from privagg.programs.questions.logistic import FREE
from privagg.programs.registry import program_of
from privagg.programs.scorecard import Scorecard, adding, fitting
from privagg.programs.scorecard.asked import METHOD, Asked
from privagg.programs.scorecard.card import DECIMALS, Card
from privagg.programs.scorecard.cards import Cards
from privagg.programs.scorecard.fitting import HEAD, State
from privagg.programs.scorecard.program import (
    CALIBRATION_PART,
    PARTS,
    PRODUCTS_PART,
    SENSITIVITY_GRID,
)
from privagg.programs.scorecard.smoothing import LENGTHS, SPREADS, monotone, smoothed
from privagg.programs.scorecard.sql import sql_of
from privagg.programs.sums import Placed
from privagg.programs.sums_program import NoisySum
from privagg.programs.tables import calibration
from privagg.programs.tables.bins import Cut, coded
from privagg.training.measures import roc_auc
from privagg.training.table import TableSchema
from tests.programs.contract import Case, ProgramContract

SCHEMA = TableSchema.model_validate(
    {
        "features": [
            {"name": "age", "range": (20, 80)},
            {"name": "paid", "range": (0, 10_000), "transform": "signed-log", "log_unit": 10.0},
            {"name": "delay", "categories": (-1, 0, 1, 2)},
            {"name": "town", "categories": ("a", "b")},
        ],
        "target": {"name": "late", "positive": "== 1"},
    }
)

CLASSES = TableSchema.model_validate(
    {**SCHEMA.model_dump(), "target": {"name": "late", "classes": ["0", "1", "2"]}}
)

EXTREMES = pd.DataFrame(
    {
        "age": [20, 80, None, 1e300, -1e300, 50, "x", 35, 65, 35.0],
        "paid": [0, 10_000, None, 1e-300, -5, 10, 0, 1e9, 100, 3],
        "delay": [-1, 2, None, 7, "1", 0, 1, 2, -1, 0],
        "town": ["a", "b", None, "c", "A", " b", "a", "b", "a", "b"],
        "late": [1, 0, 1, 1, 0, None, 1, "x", 1, 0],
    }
)


def scorecard(schema: TableSchema = SCHEMA, **settings: Any) -> Scorecard:
    facts = {"bins": 4, "ordered": ("delay",), **settings}
    return Scorecard.of({"data": schema.model_dump(mode="json"), **facts})


def rows_of(program: Scorecard, number: int, state: Any, records: Columns) -> Any:
    """What each record adds, in full."""
    rows = program.integers(number, state, records)
    length = program.openings(Decimal(0))[number - 1].length
    return rows.dense(length) if isinstance(rows, Placed) else rows


def run(
    program: Scorecard, frame: pd.DataFrame, multiplier: str = "0", seed: int = 0
) -> list[NoisySum]:
    """What every round opens, noise as the plan says."""
    openings = program.openings(Decimal(multiplier))
    plan = SumsPlan.model_validate(
        {
            "sites": [SiteTerms(name=name, records=max(len(frame), 1)) for name in "ns"],
            "openings": openings, "delta": "1e-6", "colluders": 0, "custody": "authority",
            "scheme": "bfv", "recipe": program.recipe,
        }
    )  # fmt: skip
    draw, state, sums = np.random.default_rng(seed), program.begin(), list[NoisySum]()
    records = Columns.read(frame, program.content.data)
    for number, terms in enumerate(openings, 1):
        assert len(state) == terms.state
        total = sum(
            (rows_of(program, number, state, records[start : start + 500]).sum(axis=0)
             for start in range(0, len(frame), 500)), np.zeros(terms.length, np.int64)
        )  # fmt: skip
        deviation = NoisySum.of(plan, number, total, "ns").stddev
        noise = np.rint(draw.normal(0, deviation, terms.length)).astype(np.int64)
        sums.append(NoisySum.of(plan, number, total + noise, "ns"))
        state = program.step(number, state, sums[-1])
    return sums


def card(program: Scorecard, sums: list[NoisySum]) -> Card:
    return Card.read(program.model(sums))


def wild(program: Scorecard, seed: int) -> Any:
    """A state that nobody would come to: huge, tiny, no numbers."""
    draw = np.random.default_rng(seed)
    length = program.openings(Decimal(0))[1].state
    state = draw.standard_normal(length) * 10.0 ** draw.integers(-3, 7, length)
    own = np.split(state, program.cards)  # views
    for each in own:
        each[:HEAD] = [draw.choice([0.0, 0.2, 0.5, 0.9, 7.0, np.nan]), 1e9, -1.0, 3.0]
    state[draw.random(length) < 0.1] = draw.choice([np.inf, -np.inf, np.nan, 1e300])
    return state


def case_of(**settings: Any) -> Case:
    """Every opening, from states that are steep enough for records to come near their bound."""
    facts = {"pairs": (("age", "town"),), "pair_bins": 2, **settings}
    program = scorecard(**facts)
    state, states = program.begin(), []
    records = Columns.read(EXTREMES, SCHEMA)
    for number, _ in enumerate(program.rounds, 1):
        states.append(np.concatenate([state[:HEAD], 100 * state[HEAD:]]))
        total = rows_of(program, number, state, records).sum(axis=0)
        state = program.step(number, state, NoisySum(total, 1.0, ("n",)))
    return Case(
        program=lambda: scorecard(**facts),
        openings=program.openings(Decimal(0)),
        records=EXTREMES,
        take=lambda frame, places: Columns.read(frame.iloc[places], SCHEMA),
        states=tuple(states),
    )


class TestScorecard(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        return case_of(openings=2)


@pytest.mark.parametrize(
    "stands",
    [
        ProgramContract.test_a_row_is_its_records_alone,
        ProgramContract.test_earlier_rounds_and_other_records_leave_nothing,
        ProgramContract.test_rows_are_within_what_the_plan_charges,
        ProgramContract.test_some_record_comes_near_the_bound,
        ProgramContract.test_state_and_answers_follow_from_opened_sums_alone,
    ],
)
def test_openings_of_scores_stand_the_contract_too(stands: Any) -> None:
    stands(TestScorecard(), case_of(openings=8))


def hostile_records(program: Scorecard) -> Columns:
    """Every combination of a few values of each column, and gaps."""
    draw = np.random.default_rng(5)
    return Columns.read(
        pd.DataFrame(
            {
                "age": draw.choice([20, 35, 50, 65, 80, np.nan], 200),
                "paid": draw.choice([0, 1, 100, 10_000, np.nan], 200),
                "delay": draw.choice([-1, 0, 1, 2, 9], 200),
                "town": draw.choice(["a", "b", "c"], 200),
                "late": draw.choice([0, 1, 2], 200),
            }
        ),
        program.content.data,
    )


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("pairs", [(), (("age", "delay"), ("paid", "town"))])
def test_no_record_and_no_state_reach_beyond_the_bound(pairs: Any, classes: bool) -> None:
    """Every state, every record: in exact integers within S, and the worst comes close to it."""
    program = scorecard(CLASSES if classes else SCHEMA, pairs=pairs)
    records, furthest = hostile_records(program), [0] * len(program.rounds)
    for seed in range(12):
        for number in range(1, len(program.rounds) + 1):
            rows = rows_of(program, number, wild(program, seed), records)
            norms = [sum(int(each) ** 2 for each in row[row != 0]) for row in rows]
            furthest[number - 1] = max(furthest[number - 1], *norms)
            assert max(norms) <= SENSITIVITY_GRID**2
    assert min(furthest) >= 0.98 * SENSITIVITY_GRID**2


def test_what_is_remembered_of_a_slice_is_its_bins_alone_and_cannot_be_written_to() -> None:
    program, records = scorecard(openings=8), Columns.read(table(40), SCHEMA)
    for number in (1, 2, 3, 2, 8):
        state = wild(program, number)
        fresh = rows_of(scorecard(openings=8), number, state, records[:])
        np.testing.assert_array_equal(rows_of(program, number, state, records), fresh)
    assert len(program._known) == 1
    (learnt,) = program._known[records]
    for kept in learnt:
        with pytest.raises(ValueError, match="read-only"):
            kept[...] = 0
    del records
    assert not program._known  # it goes with the slice


def test_a_state_of_no_numbers_moves_no_row_beyond_the_bound() -> None:
    program = scorecard()
    for value in (np.nan, np.inf, -np.inf, 1e308, 0.0):
        state = np.full(program.openings(Decimal(0))[1].state, value)
        for number in range(2, len(program.rounds) + 1):
            rows = rows_of(program, number, state, hostile_records(program)).astype(object)
            assert (rows**2).sum(axis=1).max() <= SENSITIVITY_GRID**2


@pytest.mark.parametrize("openings", [1, 2, 8])
@pytest.mark.parametrize("calibration", [True, False])
def test_parts_of_the_budget_add_up_to_one(openings: int, calibration: bool) -> None:
    """And the noise of all openings together charges no less than was asked for."""
    program = scorecard(openings=openings, calibration=calibration)
    assert len(program.rounds) == openings + calibration
    assert sum(each.part for each in program.rounds) == 1
    wanted = Decimal("3.7")
    spent = sum(1 / Fraction(each.noise_multiplier) ** 2 for each in program.openings(wanted))
    assert 1 / Fraction(wanted) ** 2 <= spent <= (1 + Fraction(1, 10**9)) / Fraction(wanted) ** 2


def test_curvature_comes_free_up_to_the_fifth_power_of_the_golden_ratio() -> None:
    """(y - p)² + c² (p (1 - p))² <= 1 for c² = FREE and no more."""
    mpmath.mp.dps = 40
    golden = (1 + mpmath.sqrt(5)) / 2
    assert abs(FREE - golden**5) < 1e-13
    assert str(mpmath.sqrt(golden**5))[:7] == "3.33019"
    p = np.linspace(0, 1, 200_001)
    for c, holds in ((3.3, True), (3.3301, True), (3.3303, False), (3.34, False)):
        worst = ((1 - p) ** 2 + (c * p * (1 - p)) ** 2).max()
        assert (worst <= 1) == holds


# --- what it learns -----------------------------------------------------------------------------


def table(count: int, seed: int = 0) -> pd.DataFrame:
    """Records whose log-odds add up over columns."""
    draw = np.random.default_rng(seed)
    risk = draw.standard_normal(count)
    age = np.clip(50 + 12 * draw.standard_normal(count) - 4 * risk, 20, 80)
    paid = np.where(
        draw.random(count) < 0.3, 0.0, np.exp(5 - 0.5 * risk + draw.normal(0, 1, count))
    )
    delay = np.clip(np.round(0.8 * risk + draw.normal(0, 0.7, count)), -1, 2).astype(int)
    town = draw.choice(["a", "b"], count)
    score = 1.1 * (delay >= 1) + 0.5 * risk - 0.8 * (age > 60) + 0.3 * (town == "b") - 1.2
    late = draw.random(count) < 1 / (1 + np.exp(-score))
    frame = pd.DataFrame(
        {"age": age, "paid": paid, "delay": delay, "town": town, "late": late.astype(int)}
    )
    return frame.mask(draw.random((count, 5)) < [0.05, 0, 0, 0, 0])


TRAINED, FRESH = table(6000, 1), table(6000, 2)


def area(made: Card, frame: pd.DataFrame) -> float:
    chance = made.predictions(Columns.read(frame, SCHEMA))
    return roc_auc(chance, frame.late.to_numpy() == 1) or 0.5


def reference() -> Any:
    """scikit-learn's logistic regression on the same bins, one-hot."""
    program = scorecard(bins=8)

    def design(frame: pd.DataFrame) -> Any:
        codes = coded(program.blocks, Columns.read(frame, SCHEMA))
        sizes = [block.size for block in program.blocks]
        return np.concatenate([np.eye(k)[c] for c, k in zip(codes, sizes, strict=True)], axis=1)

    model = LogisticRegression(C=10.0, max_iter=500).fit(design(TRAINED), TRAINED.late)
    return model.predict_proba(design(FRESH))[:, 1]


def test_without_noise_it_comes_to_scikit_learns_regression_on_the_bins() -> None:
    program = scorecard(bins=8)
    made, chance = card(program, run(program, TRAINED)), reference()
    assert area(made, FRESH) > (roc_auc(chance, FRESH.late.to_numpy() == 1) or 1) - 0.003
    own = made.predictions(Columns.read(FRESH, SCHEMA))
    assert np.corrcoef(own, chance)[0, 1] > 0.98
    assert own.mean() == pytest.approx(chance.mean(), abs=0.01)


def test_with_noise_more_openings_do_better_than_weights_of_evidence() -> None:
    """At a noise multiplier of 3, about epsilon 1.2."""
    found = {}
    for openings in (1, 2, 8):
        program = scorecard(bins=8, openings=openings)
        found[openings] = area(card(program, run(program, TRAINED, "3", 4)), FRESH)
    assert found[8] > area(card(scorecard(bins=8), run(scorecard(bins=8), TRAINED)), FRESH) - 0.01
    assert min(found.values()) > 0.7


def test_of_noise_alone_next_to_nothing_is_learned() -> None:
    program = scorecard(bins=8)
    made = card(program, run(program, TRAINED.iloc[:40], "30", 1))
    spread = max(abs(each) for block in made.blocks for each in block.points)
    assert spread < 3  # a tenth of what doubles the odds twice


def test_points_only_rise_or_fall_where_that_is_asked_for() -> None:
    program = scorecard(bins=8, monotone={"age": "falling", "delay": "rising"}, ordered=("delay",))
    for seed in range(3):
        made = card(program, run(program, TRAINED.iloc[:1500], "4", seed))
        age, _, delay, _ = (np.array(block.points[:-1]) for block in made.blocks)
        assert (np.diff(age) >= 0).all()  # points stand for no: a falling chance is more points
        assert (np.diff(delay) <= 0).all()


def test_pairs_learn_what_no_column_says_by_itself() -> None:
    draw = np.random.default_rng(3)
    frame = TRAINED.assign(town=draw.choice(["a", "b"], len(TRAINED)))
    late = (frame.age > 50) == (frame.town == "a")
    frame["late"] = (draw.random(len(frame)) < np.where(late, 0.7, 0.3)).astype(int)
    plain, paired = scorecard(bins=8), scorecard(bins=8, pairs=(("age", "town"),))
    areas = [area(card(each, run(each, frame, "2", 1)), frame) for each in (plain, paired)]
    assert areas[0] < 0.58
    assert areas[1] > 0.65


def test_an_amount_is_predicted_within_its_range() -> None:
    schema = TableSchema.model_validate(
        {
            "features": [each.model_dump() for each in SCHEMA.features],
            "target": {"name": "cost", "kind": "regression", "range": (0, 200)},
        }
    )
    draw = np.random.default_rng(2)
    expected = 60 + 40 * (TRAINED.delay >= 1) + 0.5 * TRAINED.age.fillna(50)
    frame = TRAINED.assign(cost=expected + draw.normal(0, 15, len(TRAINED)))
    program = scorecard(schema, bins=8)
    made = card(program, run(program, frame, "1", 1))
    predicted = made.predictions(Columns.read(frame, schema))
    assert np.sqrt(((predicted - expected) ** 2).mean()) < 6
    assert predicted.mean() == pytest.approx(frame.cost.mean(), abs=3)


def of_classes(count: int, seed: int) -> tuple[pd.DataFrame, Any]:
    """Records of three classes, and the chances that they were drawn by."""
    frame = table(count, seed)
    late, age = 1.2 * (frame.delay.fillna(0) >= 1), frame.age.fillna(50) - 50
    raised = np.exp(np.stack([0 * late, late - 0.5, 0.08 * age - late], axis=1))
    chances = raised / raised.sum(axis=1, keepdims=True)
    drawn = np.random.default_rng(seed).random(count)[:, None]
    return frame.assign(late=(chances.cumsum(axis=1) < drawn).sum(axis=1).astype(str)), chances


def test_several_classes_have_a_card_each_that_tells_it_from_all_others() -> None:
    """Against scikit-learn's multinomial regression on the same bins, and the true chances."""
    frame, _ = of_classes(6000, 1)
    fresh, chances = of_classes(6000, 2)
    program = scorecard(CLASSES, bins=8)
    made = Cards.read(json.loads(json.dumps(program.model(run(program, frame, "1", 1)))))
    assert [each.label for each in made.cards] == ["0", "1", "2"]
    found = made.predictions(Columns.read(fresh, CLASSES))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    sizes = [block.size for block in program.blocks]
    codes = [coded(program.blocks, Columns.read(each, CLASSES)) for each in (frame, fresh)]
    design = [
        np.concatenate([np.eye(size)[own] for own, size in zip(each, sizes, strict=True)], axis=1)
        for each in codes
    ]
    model = LogisticRegression(C=10.0, max_iter=500).fit(design[0], frame.late)
    peer = model.predict_proba(design[1])
    truth = fresh.late.astype(int).to_numpy()
    right = [float((each.argmax(axis=1) == truth).mean()) for each in (found, peer, chances)]
    assert right[0] > right[1] - 0.015 > right[2] - 0.03
    assert np.abs(found - peer).mean() < 0.04


def test_cards_of_classes_are_counted_once_and_shared_out() -> None:
    """A record is in one class's counts; every other opening is split over the cards."""
    program = scorecard(CLASSES, openings=2)
    frame = of_classes(300, 3)[0].dropna()
    records = Columns.read(frame, CLASSES)
    counts = rows_of(program, 1, program.begin(), records)
    whole = sum(block.size for block in program.blocks)
    labels = counts.reshape(len(frame), 3, whole).any(axis=2)
    assert (labels.sum(axis=1) == 1).all()
    assert (labels.argmax(axis=1) == frame.late.astype(int)).all()
    lengths = [each.length for each in program.openings(Decimal(1))]
    assert lengths == [3 * whole, 3 * (4 * 5 // 2 + 4), 3 * 48]
    answers = program.answers(run(program, frame, "1", 1))
    names = [str(each.question["name"]) for each in answers]
    assert names[:2] == ["the card · 0", "importance · 0"]
    assert len(set(names)) == len(names) == 3 * 7


def test_a_file_of_cards_is_read_or_refused() -> None:
    program = scorecard(CLASSES, openings=1)
    facts: Any = json.loads(json.dumps(program.model(run(program, of_classes(500, 1)[0], "1"))))
    assert Cards.are_in({"answers": [], "model": facts})
    assert Cards.read({"answers": [], "model": facts}).model_dump(mode="json") == facts
    with pytest.raises(ConfigError, match="a card for each"):
        Card.read(facts)
    first, *others = facts["cards"]
    unsaid = {**first, "label": None}
    for cards in (others, [first, first, *others], [unsaid, *others], None):
        with pytest.raises(ConfigError):
            Cards.read({**facts, "cards": cards})
    single = scorecard(openings=1)
    alone = single.model(run(single, TRAINED.iloc[:500], "1"))
    assert "label" not in (alone or {})
    assert not Cards.are_in(alone)


def test_a_round_of_other_sites_leaves_the_card_as_it_was() -> None:
    program = scorecard()
    sums = run(program, TRAINED)
    state = program.begin()
    for number in (1, 2):
        state = program.step(number, state, sums[number - 1])
    other = NoisySum(sums[2].total // 2, sums[2].stddev, ("n",))
    np.testing.assert_array_equal(program.step(3, state, other), State.of(state).vector())
    assert not np.array_equal(program.step(3, state, sums[2]), state)


def test_a_job_that_was_cut_short_leaves_the_card_so_far() -> None:
    program = scorecard()
    sums = run(program, TRAINED)
    for count in range(1, len(sums) + 1):
        assert area(card(program, sums[:count]), FRESH) > 0.68
        names = [answer.question["name"] for answer in program.answers(sums[:count])]
        assert names[:3] == ["the card", "importance", "age"]
        assert ("calibration" in names) == (count == len(sums))


# --- the parts ----------------------------------------------------------------------------------


def test_smoothing_is_the_gaussian_posterior_averaged_by_evidence() -> None:
    """Against scipy's densities and the posterior written as a matrix inverse."""
    draw, count = np.random.default_rng(1), 6
    h, noise = draw.uniform(10, 200, count), np.full(count, 50.0)
    distances = Cut("x", tuple("abcdef"), (1.0, 2.0, 3.0, 4.0), True).distances
    r = draw.normal(0, 30, count)
    likely, means, variances = [], [], []
    for length in LENGTHS:
        for spread in SPREADS:
            prior = spread**2 * np.exp(-distances / length)
            whole = h[:, None] * prior * h + np.diag(noise + h)
            likely.append(multivariate_normal.logpdf(r, np.zeros(count), whole))
            reach = prior @ np.diag(h) @ np.linalg.inv(whole)
            means.append(reach @ r)
            variances.append(np.diag(prior - reach @ np.diag(h) @ prior))
    chance = np.exp(np.array(likely) - max(likely))
    chance /= chance.sum()
    expected = chance @ np.array(means)
    found = smoothed(r, h, noise, distances)
    np.testing.assert_allclose(found.means, expected, rtol=1e-9, atol=1e-12)
    spread = chance @ (np.array(variances) + (np.array(means) - expected) ** 2)
    np.testing.assert_allclose(found.variances, spread, rtol=1e-8, atol=1e-12)


def test_pooling_is_scikit_learns_isotonic_regression() -> None:
    draw = np.random.default_rng(2)
    for _ in range(50):
        count = int(draw.integers(1, 12))
        values, weights = draw.normal(0, 1, count).round(1), draw.uniform(0.1, 5, count)
        expected = IsotonicRegression().fit_transform(range(count), values, sample_weight=weights)
        np.testing.assert_allclose(monotone(values, weights), expected, atol=1e-12)


def test_bins_hold_zero_gaps_and_ends_apart() -> None:
    age, paid, delay, town = scorecard(bins=4).blocks
    assert age.cuts[0].edges == (35.0, 50.0, 65.0)
    assert age.codes(Columns.read(EXTREMES, SCHEMA)).tolist() == [0, 3, 4, 3, 0, 1, 4, 0, 2, 0]
    assert paid.cuts[0].labels[0] == "0"
    edges = paid.cuts[0].edges
    assert edges is not None
    assert edges[0] == 0.0
    assert np.diff(np.log1p(np.array([*edges, 10_000]) / 10)) == pytest.approx(
        np.log(1001) / 3, 1e-3
    )
    assert paid.codes(Columns.read(EXTREMES, SCHEMA)).tolist() == [0, 3, 4, 1, 0, 1, 0, 3, 2, 1]
    assert delay.codes(Columns.read(EXTREMES, SCHEMA)).tolist() == [0, 3, 4, 4, 2, 1, 2, 3, 0, 1]
    assert town.distances[0, 1] == np.inf
    assert delay.distances[0, 3] == 3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"edges": {"age": (30, 30)}}, "must rise"),
        ({"edges": {"town": (1,)}}, "declared with a range"),
        ({"ordered": ("age",)}, "declared with categories"),
        ({"monotone": {"town": "rising"}}, "named in ordered"),
        ({"pairs": (("age", "age"),)}, "different columns"),
        ({"pairs": (("age", "other"),)}, "declared"),
        ({"pairs": (("age", "town"),), "monotone": {"age": "rising"}}, "in monotone and in pairs"),
        ({"openings": 3}, "1, 2 or 8"),
        ({"method": 2}, "made by method 1 here, and this one names 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(settings: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        scorecard(**settings)


def test_other_targets_are_refused() -> None:
    counts = {"name": "late", "kind": "regression", "loss": "poisson", "range": (0, 9)}
    schema = TableSchema.model_validate({**SCHEMA.model_dump(), "target": counts})
    with pytest.raises(ConfigError, match="has loss 'poisson'"):
        scorecard(schema)
    with pytest.raises(ValidationError, match="monotone is for two classes"):
        scorecard(CLASSES, monotone={"age": "rising"})
    many = [str(each) for each in range(5000)]
    wide = {**SCHEMA.model_dump(), "target": {"name": "late", "classes": many}}
    with pytest.raises(ConfigError, match="5000 cards is too large"):
        scorecard(TableSchema.model_validate(wide))


def test_what_is_left_open_follows_from_public_facts() -> None:
    """Fewer openings where noise is more."""
    found = [
        Asked(data=SCHEMA).chosen(records, Fraction(1), Fraction(1, 10**5)).openings
        for records in (10**5, 10**4, 10**3, 10**2)
    ]
    assert found == sorted(found, reverse=True)  # type: ignore[type-var]
    assert (found[0], found[-1]) == (8, 1)
    kept = Asked(data=SCHEMA, openings=2, bins=5).chosen(10, Fraction(1), Fraction(1, 10**5))
    assert (kept.openings, kept.bins) == (2, 5)


def test_the_plan_pins_it_and_anybody_makes_it_again() -> None:
    program = scorecard(pairs=(("age", "town"),), monotone={"paid": "rising"})
    assert program_of(program.recipe).asked == program.asked
    assert program.asked["method"] == 1


def test_constants_are_those_of_the_method_that_plans_pin() -> None:
    """Whoever changes one raises `METHOD`, or older cards are recomputed as others."""
    constants = (
        adding.LABELS, adding.REACH, calibration.SHARES, calibration.STEEPEST,
        calibration.SCORE_ENDS.tolist(),
        fitting.ROOM, fitting.FLOOR, fitting.MOMENTUM, fitting.LARGEST_STEP, fitting.STEP,
        fitting.LEAST_PART, fitting.LARGEST_PART, fitting.CURVED, calibration.CALIBRATED,
        calibration.LOWEST_LINE, calibration.HIGHEST_LINE, SPREADS.tolist(), LENGTHS,
        SENSITIVITY_GRID, PARTS, PRODUCTS_PART, CALIBRATION_PART, DECIMALS,
    )  # fmt: skip
    digest = hashlib.sha256(repr(constants).encode()).hexdigest()
    assert (METHOD, digest[:16]) == (1, "9ea453e39e727cb8")


# --- the card -----------------------------------------------------------------------------------


def test_points_added_up_by_hand_are_the_cards_and_its_reasons() -> None:
    program = scorecard(bins=4)
    made = card(program, run(program, TRAINED, "1", 1))
    one = Columns.read(EXTREMES.iloc[[1]], SCHEMA)
    by_hand = made.start + sum(
        block.points[place] for block, place in zip(made.blocks, (3, 3, 3, 1), strict=True)
    )
    assert made.points(one)[0] == pytest.approx(by_hand, abs=1e-9)
    chance = 1 / (1 + 50 * 2 ** ((by_hand - 600) / 20))  # 600 points at 50 to 1, 20 double the odds
    assert made.predictions(one)[0] == pytest.approx(chance, rel=1e-9)
    (((column, lacks), *_),) = made.reasons(one, 2)
    most = [
        max(each.points) - each.points[at]
        for each, at in zip(made.blocks, (3, 3, 3, 1), strict=True)
    ]
    assert lacks == pytest.approx(max(most), abs=1e-9)
    assert column == SCHEMA.features[int(np.argmax(most))].name


def test_bands_hold_about_what_they_say() -> None:
    """Points of many draws of the noise, about those without noise: between half and twice."""
    program = scorecard(bins=4)
    draws = [run(program, TRAINED.iloc[:2000], "1.5", seed) for seed in range(10)]
    points = np.array([[p for b in card(program, sums).blocks for p in b.points] for sums in draws])
    answers = program.answers(draws[0])
    stated = [
        (figure.records.high - figure.records.low) / 2 / deviations(program.level)
        for answer in answers if answer.question["about"] == "points by bin"
        for figure in answer.figures
    ]  # fmt: skip
    found = np.sqrt((points.var(axis=0)).mean())
    assert 0.5 * found < np.sqrt((np.array(stated) ** 2).mean()) < 2 * found


@pytest.mark.parametrize("settings", [{}, {"pairs": (("age", "town"), ("delay", "town"))}])
def test_the_sql_gives_the_cards_points(settings: Any) -> None:
    """By SQLite, on records with gaps, ends and strange categories."""
    program = scorecard(bins=4, **settings)
    made = card(program, run(program, TRAINED, "1", 1))
    frame = pd.concat([FRESH.iloc[:300], EXTREMES.drop(index=[6])], ignore_index=True)
    numbers = frame.assign(
        **{name: pd.to_numeric(frame[name]) for name in ("age", "paid", "delay")}
    )
    with closing(sqlite3.connect(":memory:")) as database:
        numbers.drop(columns="late").to_sql("people", database, index=False)
        found = [row[0] for row in database.execute(f"SELECT {sql_of(made)} FROM people")]
    np.testing.assert_allclose(found, made.points(Columns.read(frame, SCHEMA)), atol=1e-9)


def test_a_cards_file_is_read_or_refused() -> None:
    program = scorecard()
    facts: Any = json.loads(json.dumps(program.model(run(program, TRAINED.iloc[:500], "1"))))
    assert Card.read(facts).model_dump(mode="json") == facts
    assert Card.read({"answers": [], "model": facts}).start == facts["start"]
    block = facts["blocks"][0]
    for strange in (
        {}, [], None, {"answers": []}, {**facts, "blocks": []}, {**facts, "start": "x"},
        {**facts, "blocks": [{**block, "points": block["points"][1:]}]},
        {**facts, "blocks": [{**block, "columns": ["other"]}]},
        {**facts, "blocks": [{**block, "edges": [[3.0, 2.0, 1.0]]}]},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            Card.read(strange)
