"""Boosted trees: bounds that no record and no state breaks, what they learn, and what is told."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from fractions import Fraction
from math import log, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier

from privagg.errors import ConfigError
from privagg.privacy.plan import SiteTerms, SumsPlan
from privagg.programs.questions.columns import Columns
from privagg.programs.registry import program_of
from privagg.programs.scorecard.fitting import State as CardState
from privagg.programs.sums import Placed
from privagg.programs.sums_program import NoisySum
from privagg.programs.tables.bins import coded
from privagg.programs.trees import BoostedTrees, asked, growing, losses, program
from privagg.programs.trees.asked import METHOD
from privagg.programs.trees.growing import ALIKE, State
from privagg.programs.trees.model import Trees
from privagg.programs.trees.program import SENSITIVITY_GRID
from privagg.training.measures import concordance, roc_auc
from privagg.training.table import TableSchema
from tests.programs.contract import Case, ProgramContract
from tests.programs.test_scorecard import EXTREMES, FRESH, SCHEMA, TRAINED, scorecard
from tests.programs.test_scorecard import run as run_card

TARGETS: dict[str, Any] = {
    "two": {"name": "late", "positive": "== 1"},
    "three": {"name": "grade", "kind": "multiclass", "classes": ["low", "mid", "high"]},
    "amount": {"name": "cost", "kind": "regression", "range": (0, 200)},
    "huber": {"name": "cost", "kind": "regression", "range": (0, 200), "loss": "huber"},
    "time": {
        "name": "end", "kind": "time-to-event", "time": "months", "event": "died",
        "event_is": 1, "until": 60, "intervals": 6,
    },
}  # fmt: skip


def schema_of(kind: str) -> TableSchema:
    features = [each.model_dump() for each in SCHEMA.features]
    return TableSchema.model_validate({"features": features, "target": TARGETS[kind]})


def widened(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """With a grade, a cost and a time to an event that follow from the same columns."""
    draw = np.random.default_rng(seed)
    age = pd.to_numeric(frame.age, errors="coerce").clip(20, 80).fillna(50).to_numpy()
    delay = pd.to_numeric(frame.delay, errors="coerce").fillna(0).to_numpy()
    score = 1.2 * (delay >= 1) - 0.05 * (age - 50) + 0.8 * ((frame.town == "b") & (age > 50))
    cost = 60 + 40 * (delay >= 1) + 0.6 * age + draw.normal(0, 12, len(frame))
    grade = np.digitize(score + draw.logistic(0, 0.6, len(frame)), [-0.3, 1.0])
    months = draw.exponential(60 * np.exp(-0.8 * score))
    seen = draw.uniform(10, 90, len(frame))
    return frame.assign(
        cost=cost, grade=np.array(["low", "mid", "high"])[grade],
        months=np.minimum(months, seen), died=(months <= seen).astype(int),
    )  # fmt: skip


def trees(kind: str = "two", **settings: Any) -> BoostedTrees:
    facts = {
        "trees": 8, "depth": 3, "together": 2, "start": 0.2, "rate": 0.5, "prior": 0.5,
        "bins": 6,
        "ordered": ("delay",), **settings,
    }  # fmt: skip
    return BoostedTrees.of({"data": schema_of(kind).model_dump(mode="json"), **facts})


def run(
    made: BoostedTrees, frame: pd.DataFrame, multiplier: str = "0", seed: int = 0
) -> list[NoisySum]:
    """What every round opens, noise as the plan says."""
    openings = made.openings(Decimal(multiplier))
    plan = SumsPlan.model_validate(
        {
            "sites": [SiteTerms(name=name, records=max(len(frame), 1)) for name in "ns"],
            "openings": openings, "delta": "1e-6", "colluders": 0, "custody": "authority",
            "scheme": "bfv", "recipe": made.recipe,
        }
    )  # fmt: skip
    draw, state, sums = np.random.default_rng(seed), made.begin(), list[NoisySum]()
    records = Columns.read(frame, made.content.data)
    for number, terms in enumerate(openings, 1):
        assert len(state) == terms.state
        total = rows_of(made, number, state, records).sum(axis=0)
        deviation = NoisySum.of(plan, number, total, "ns").stddev
        noise = np.rint(draw.normal(0, deviation, terms.length)).astype(np.int64)
        sums.append(NoisySum.of(plan, number, total + noise, "ns"))
        state = made.step(number, state, sums[-1])
    return sums


def rows_of(made: BoostedTrees, number: int, state: Any, records: Columns) -> Any:
    found = made.integers(number, state, records)
    length = made.openings(Decimal(0))[number - 1].length
    return found.dense(length) if isinstance(found, Placed) else found


def grown(made: BoostedTrees, sums: list[NoisySum]) -> Trees:
    return Trees.read(made.model(sums))


def wild(made: BoostedTrees, seed: int) -> Any:
    """A state that nobody would come to: huge, tiny, no numbers."""
    draw = np.random.default_rng(seed)
    length = made.openings(Decimal(0))[1].state
    state = draw.standard_normal(length) * 10.0 ** draw.integers(-3, 3, length)
    state[: made.loss.bases] = draw.choice([0.0, 1.0, -3.0, 40.0, np.nan], made.loss.bases)
    state[draw.random(length) < 0.1] = draw.choice([np.inf, -np.inf, np.nan, 1e300])
    return state


def hostile(kind: str) -> pd.DataFrame:
    draw = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "age": draw.choice([20, 35, 50, 65, 80, np.nan], 200),
            "paid": draw.choice([0, 1, 100, 10_000, np.nan], 200),
            "delay": draw.choice([-1, 0, 1, 2, 9], 200),
            "town": draw.choice(["a", "b", "c"], 200),
            "late": draw.choice([0, 1, np.nan], 200),
            "grade": draw.choice(["low", "mid", "high", "none"], 200),
            "cost": draw.choice([-1e9, 0, 200, 1e300, np.nan], 200),
            "months": draw.choice([0, 0.1, 10, 59, 60, 61, 1e9, -1, np.nan], 200),
            "died": draw.choice([0, 1], 200),
        }
    )


def case_of(kind: str, **settings: Any) -> Case:
    """Every opening, from states that are steep enough for records to come near their bound."""
    facts = {"trees": 4, "depth": 2, "bins": 3, **settings}
    made, frame = trees(kind, **facts), widened(EXTREMES)
    state, states = made.begin(), []
    records = Columns.read(frame, made.content.data)
    for number, _ in enumerate(made.rounds, 1):
        states.append(100 * state if kind == "two" else state)
        total = rows_of(made, number, state, records).sum(axis=0)
        state = made.step(number, state, NoisySum(total, 1.0, ("n",)))
    return Case(
        program=lambda: trees(kind, **facts),
        openings=made.openings(Decimal(0)),
        records=frame,
        take=lambda some, places: Columns.read(some.iloc[places], made.content.data),
        states=tuple(states),
    )


class TestBoostedTrees(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        return case_of("two")


@pytest.mark.parametrize("kind", ["three", "amount", "time"])
@pytest.mark.parametrize(
    "stands",
    [
        ProgramContract.test_a_row_is_its_records_alone,
        ProgramContract.test_earlier_rounds_and_other_records_leave_nothing,
        ProgramContract.test_rows_are_within_what_the_plan_charges,
        ProgramContract.test_state_and_answers_follow_from_opened_sums_alone,
    ],
)
def test_other_targets_stand_the_contract_too(stands: Any, kind: str) -> None:
    stands(TestBoostedTrees(), case_of(kind))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("together", [1, 4])
def test_no_record_and_no_state_reach_beyond_the_bound(kind: str, together: int) -> None:
    """Every state, every record: in exact integers within S, and the worst comes close to it."""
    made = trees(kind, together=together)
    records, furthest = Columns.read(hostile(kind), made.content.data), [0] * len(made.rounds)
    states = [wild(made, seed) for seed in range(8)]
    states += [np.full(len(states[0]), value) for value in (np.nan, np.inf, -np.inf, 1e308, 0.0)]
    for state in states:
        for number in range(1, len(made.rounds) + 1):
            rows = rows_of(made, number, state, records).astype(object)
            furthest[number - 1] = max(furthest[number - 1], (rows**2).sum(axis=1).max())
    assert max(furthest) <= SENSITIVITY_GRID**2
    assert min(furthest) >= 0.97 * SENSITIVITY_GRID**2


def joint(chances: Any, label: int, c: Any) -> Any:
    """|(g, h)|² of a record of several classes."""
    return sum(
        ((place == label) - p) ** 2 + (c * p * (1 - p)) ** 2 for place, p in enumerate(chances)
    )


def test_two_is_the_largest_weight_of_curvatures_of_more_classes() -> None:
    """proofs/boosted-trees.md, 2: its identities in exact fractions, and a search."""
    for each in range(-3, 8):  # more points than the degree: the same polynomials
        p = Fraction(each, 3)
        assert 1 - p - 4 * p * (1 - p) ** 2 == (1 - p) * (1 - 2 * p) ** 2
        whole = 2 - (p + p**2 + 4 * p**2 * (1 - p) ** 2)
        assert whole == (1 - p) * (2 + p - 4 * p**2 * (1 - p))
    half = Fraction(1, 2)
    assert joint([0, half, half], 0, 2) == 2
    assert joint([0, half, half], 0, Fraction(2001, 1000)) > 2
    assert joint([0, 1, 0, 0], 0, 2) == 2
    draw, worst = np.random.default_rng(1), 0.0
    for count in (3, 5, 10, 100):
        for sharp in (0.02, 0.2, 1.0):
            p = draw.dirichlet(np.full(count, sharp), 2000)
            worst = max(worst, float(joint(p.T, 0, losses.MORE_CLASSES).max()))
            p[:, 0] = 0  # where the bound is met, so the search must start near there
            p /= np.maximum(p.sum(axis=1, keepdims=True), 1e-300)
            worst = max(worst, float(joint(p.T, 0, losses.MORE_CLASSES).max()))
    assert 1.99 < worst <= 2 + 1e-12


@pytest.mark.parametrize("kind", TARGETS)
def test_parts_of_the_budget_add_up_to_one(kind: str) -> None:
    """And the noise of all openings together charges no less than was asked for."""
    made = trees(kind)
    assert len(made.rounds) == 5 + (kind == "two")
    assert sum(each.part for each in made.rounds) == 1
    wanted = Decimal("3.7")
    spent = sum(1 / Fraction(each.noise_multiplier) ** 2 for each in made.openings(wanted))
    assert 1 / Fraction(wanted) ** 2 <= spent <= (1 + Fraction(1, 10**9)) / Fraction(wanted) ** 2


# --- what they learn ----------------------------------------------------------------------------


def reference(made: BoostedTrees, frame: pd.DataFrame, start: Any, steps: Any) -> Any:
    """Leaves by tree and output: the formulae record by record, in floats.

    `start` is what bins say of each record; `steps(scores)` gives a record's gradients and
    curvatures, `(n, K)` each.
    """
    codes = coded(made.blocks, Columns.read(frame, made.content.data))
    depth, count = made.size.depth, len(frame)
    prior = np.array(
        [[made.size.prior**2 * ALIKE ** bin(a ^ b).count("1") for a in range(2**depth)]
         for b in range(2**depth)]
    )  # fmt: skip
    scores, found = start, []
    for first in range(0, made.size.trees, made.size.together):
        gradient, curvature = steps(scores)
        added = np.zeros_like(scores)
        for tree in range(first, first + made.size.together):
            place = np.zeros(count, int)
            for column, sides in zip(made.forest.columns[tree], made.forest.sides[tree],
                                     strict=True):  # fmt: skip
                place = 2 * place + np.array([sides[code] for code in codes[column]])
            own = []
            for output in range(made.loss.outputs):
                g, h = np.zeros(2**depth), np.zeros(2**depth)
                for record, leaf in enumerate(place):
                    g[leaf] += gradient[record, output]
                    h[leaf] += curvature[record, output]
                inner = np.diag(h) @ prior @ np.diag(h) + np.diag(made.loss.spread * h + 1e-9)
                own.append(made.size.rate * (prior @ np.diag(h) @ np.linalg.inv(inner) @ g))
                added[:, output] += own[-1][place]
            found.append(own)
        scores = scores + added
    return np.array(found)


def learned(made: BoostedTrees, frame: pd.DataFrame) -> tuple[State, Any]:
    """The last state without noise, and what bins by themselves say of each record, (n, K)."""
    state = made.begin()
    for number, found in enumerate(run(made, frame), 1):
        state = made.step(number, state, found)
    now = made._state(state)
    codes = coded(made.blocks, Columns.read(frame, made.content.data))
    return now, now.scores(made.forest, made.blocks, codes, 0).T


def test_bins_by_themselves_say_what_the_scorecards_first_opening_says() -> None:
    """The same sums smoothed the same way, as much as columns repeat each other."""
    made, card = trees(bins=4), scorecard()
    now, _ = learned(made, TRAINED)
    evidence = CardState.of(card.step(1, card.begin(), run_card(card, TRAINED)[0])).effects
    part = growing.EVIDENCE / 2
    np.testing.assert_allclose(now.effects[0], part * evidence, atol=2e-3)


def test_without_noise_leaves_are_those_of_the_formulae() -> None:
    frame = widened(TRAINED.iloc[:800])
    made = trees()
    y = frame.late.to_numpy() == 1
    base = log(y.mean() / (1 - y.mean()))

    def steps(scores: Any) -> Any:
        p = 1 / (1 + np.exp(-(base + scores)))
        return y[:, None] - p, p * (1 - p)

    now, start = learned(made, frame)
    leaves = reference(made, frame, start, steps)
    assert now.base[0] == pytest.approx(base, abs=1e-3)
    assert np.abs(leaves).max() > 0.1
    np.testing.assert_allclose(now.leaves, leaves, atol=2e-3)


def test_without_noise_leaves_of_more_classes_are_those_of_the_formulae() -> None:
    frame = widened(TRAINED.iloc[:800])
    made = trees("three")
    y = np.stack([frame.grade == each for each in ("low", "mid", "high")], axis=1)

    def steps(scores: Any) -> Any:
        logits = np.log(y.mean(axis=0)) + scores
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return y - p, p * (1 - p)

    now, start = learned(made, frame)
    np.testing.assert_allclose(now.leaves, reference(made, frame, start, steps), atol=3e-3)


def test_they_tell_records_apart_as_scikit_learns_trees_do() -> None:
    made = trees(trees=120, depth=5, together=4, rate=0.2, bins=16)
    found = grown(made, run(made, TRAINED)).predictions(Columns.read(FRESH, SCHEMA))[:, 0]
    truth = FRESH.late.to_numpy() == 1
    program_ = trees(bins=16)

    def design(frame: pd.DataFrame) -> Any:
        return coded(program_.blocks, Columns.read(frame, SCHEMA)).T

    own = roc_auc(found, truth) or 0.0
    for peer in (
        HistGradientBoostingClassifier(max_iter=60, learning_rate=0.05, random_state=0),
        ExtraTreesClassifier(100, min_samples_leaf=20, random_state=0),
    ):
        peer.fit(design(TRAINED), TRAINED.late)
        assert own > (roc_auc(peer.predict_proba(design(FRESH))[:, 1], truth) or 1) - 0.01
    assert found.mean() == pytest.approx(truth.mean(), abs=0.02)


def test_with_noise_they_stay_near_and_of_noise_alone_learn_next_to_nothing() -> None:
    """At a noise multiplier of 3, about epsilon 1.2."""
    made = trees(trees=60, depth=5, together=4, rate=0.2, bins=16)
    truth = FRESH.late.to_numpy() == 1
    records = Columns.read(FRESH, SCHEMA)
    areas = [
        roc_auc(grown(made, run(made, TRAINED, each, 4)).predictions(records)[:, 0], truth) or 0
        for each in ("0", "3")
    ]
    assert areas[1] > areas[0] - 0.03
    alone = grown(made, run(made, TRAINED.iloc[:40], "60", 1))
    assert alone.predictions(records)[:, 0].std() < 0.05


def test_pairs_are_learned_that_no_column_says_by_itself() -> None:
    draw = np.random.default_rng(3)
    frame = TRAINED.assign(town=draw.choice(["a", "b"], len(TRAINED)))
    late = (frame.age > 50) == (frame.town == "a")
    frame["late"] = (draw.random(len(frame)) < np.where(late, 0.7, 0.3)).astype(int)
    made = trees(trees=60, depth=4, together=4, rate=0.2, bins=16)
    found = grown(made, run(made, frame, "2", 1)).predictions(Columns.read(frame, SCHEMA))
    assert (roc_auc(found[:, 0], frame.late.to_numpy() == 1) or 0) > 0.65


def test_classes_amounts_and_times_are_predicted() -> None:
    frame, fresh = widened(TRAINED, 1), widened(FRESH, 2)
    size = {"trees": 60, "depth": 4, "together": 4, "rate": 0.2, "bins": 16}
    found = {}
    for kind in ("three", "amount", "huber", "time"):
        made = trees(kind, **size)
        model = grown(made, run(made, frame, "1", 1))
        found[kind] = model.predictions(Columns.read(fresh, made.content.data))
        assert found[kind].shape == (len(fresh), len(model.names))
    three = found["three"]
    assert three.sum(axis=1) == pytest.approx(np.ones(len(fresh)))
    chosen = np.array(["low", "mid", "high"])[three.argmax(axis=1)]
    assert (chosen == fresh.grade).mean() > fresh.grade.value_counts(normalize=True).max() + 0.1
    expected = fresh.cost.to_numpy()
    for kind in ("amount", "huber"):
        assert sqrt(((found[kind][:, 0] - expected) ** 2).mean()) < 0.65 * expected.std()
    target = schema_of("time").target
    times, events = target.read(fresh).astype(float).T
    assert (concordance(-np.log(found["time"]).sum(axis=1), times, events > 0) or 0) > 0.66
    assert (np.diff(found["time"], axis=1) <= 0).all()
    assert found["time"][:, -1].mean() == pytest.approx(kaplan_meier(times, events, 1.0), abs=0.05)


def kaplan_meier(times: Any, events: Any, until: float) -> float:
    """The product over event times of 1 - events / followed."""
    alive = 1.0
    for at in np.unique(times[(events > 0) & (times <= until)]):
        alive *= 1 - ((times == at) & (events > 0)).sum() / (times >= at).sum()
    return alive


# --- what is told -------------------------------------------------------------------------------


def test_effects_are_the_partial_dependence_of_the_predictions() -> None:
    """By putting each bin's code into every record, where curvatures are counts."""
    frame = widened(TRAINED.iloc[:1500])
    made = trees("amount", trees=12, depth=4)
    sums = run(made, frame)
    finished = made._finished(sums)
    codes = coded(made.blocks, Columns.read(frame, made.content.data))
    for place, block in enumerate(made.blocks):
        found, _ = finished.effects(place)
        expected = []
        for each in range(block.size):
            changed = codes.copy()
            changed[place] = each
            scores = finished.state.scores(made.forest, made.blocks, changed, 12)
            expected.append(scores.mean())
        others = np.mean(expected) - found[0].mean()  # what other columns add to all bins alike
        np.testing.assert_allclose(found[0] + others, expected, atol=2e-3)


def test_bands_of_effects_hold_what_they_would_be_without_noise() -> None:
    """At 95 %, over draws of the noise: rather too wide, and not much."""
    frame = TRAINED.iloc[:3000]
    made = trees(trees=24, depth=3, together=4, rate=0.3)
    calm = made._finished(run(made, frame)).effects(2)[0][0]
    held, near = [], []
    for seed in range(12):
        found, variance = made._finished(run(made, frame, "1.5", seed)).effects(2)
        away = np.abs(found[0] - calm)
        held.append(away < 1.96 * np.sqrt(variance[0, 0]))
        near.append(away < 0.5 * np.sqrt(variance[0, 0]))
    assert np.mean(held) > 0.85
    assert np.mean(near) < 0.85


def test_a_job_that_was_cut_short_leaves_the_trees_so_far() -> None:
    made = trees()
    sums = run(made, TRAINED)
    for count in range(1, len(sums) + 1):
        model = grown(made, sums[:count])
        assert len(model.trees) == 2 * min(max(count - 1, 0), 4)
        names = [answer.question["name"] for answer in made.answers(sums[:count])]
        assert names[0] == "the trees"
        assert "importance" in names
        assert ("calibration" in names) == (count == len(sums))


def test_the_file_predicts_as_the_state_does() -> None:
    made = trees(calibration=False)
    sums = run(made, TRAINED, "1", 2)
    state = made.begin()
    for number, found in enumerate(sums, 1):
        state = made.step(number, state, found)
    records = Columns.read(FRESH, SCHEMA)
    codes = coded(made.blocks, records)
    own = made._state(state).scores(made.forest, made.blocks, codes, 8)
    np.testing.assert_allclose(grown(made, sums).scores(records), own, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base": [0.0, 0.0]}, "base and columns"),
        ({"trees": [{"columns": [9], "sides": ["01"], "leaves": [[0, 0]]}]}, "sides are"),
        ({"trees": [{"columns": [3], "sides": ["0x1"], "leaves": [[0, 0]]}]}, "sides are"),
        ({"trees": [{"columns": [3], "sides": ["011"], "leaves": [[0]]}]}, "2 leaves"),
        ({"trees": [{"columns": [3], "sides": [], "leaves": [[0, 0]]}]}, "equally deep"),
        ({"format": "privagg-scorecard/1"}, "boosted-trees"),
    ],
)
def test_a_file_that_is_none_is_refused(change: Any, says: str) -> None:
    made = trees()
    facts = made.model(run(made, TRAINED.iloc[:50]))
    with pytest.raises(ConfigError, match=says):
        Trees.read({**facts, **change})


# --- what is asked ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ordered": ("age",)}, "declared with categories"),
        ({"together": 3}, "cannot be opened 3 at a time"),
        ({"depth": 11}, "less than or equal to 10"),
        ({"rate": 0}, "greater than 0"),
        ({"method": 2}, "made by method 1 here, and these name 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(settings: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        trees(**settings)


def test_targets_and_sizes_that_do_not_fit_are_refused() -> None:
    features = [each.model_dump() for each in SCHEMA.features]
    poisson = {"name": "n", "kind": "regression", "range": (0, 9), "loss": "poisson"}
    schema = TableSchema.model_validate({"features": features, "target": poisson})
    with pytest.raises(ConfigError, match="loss 'poisson'"):
        BoostedTrees.of({"data": schema.model_dump(mode="json")})
    with pytest.raises(ConfigError, match="Nothing was spent"):
        trees(trees=2000, depth=10)


def test_public_facts_choose_and_leave_alone_what_is_set() -> None:
    facts = {"data": schema_of("two").model_dump(mode="json")}
    epsilons = (Fraction(1, 20), Fraction(1, 2), Fraction(8))
    found = [BoostedTrees.chosen(facts, 24_000, each, Fraction(1, 10**5)) for each in epsilons]
    assert [each["trees"] for each in found] == sorted(each["trees"] for each in found)
    assert found[0]["trees"] < found[-1]["trees"]
    some = BoostedTrees.chosen({**facts, "trees": 6}, 24_000, Fraction(1), Fraction(1, 10**5))
    assert some["trees"] == 6
    assert 6 % some["together"] == 0


def test_the_plan_pins_it_and_anybody_makes_it_again() -> None:
    made = trees(seed=7)
    again = program_of(made.recipe)
    assert isinstance(again, BoostedTrees)
    assert again.asked == made.asked
    np.testing.assert_array_equal(again.forest.sides, made.forest.sides)
    assert not np.array_equal(trees(seed=8).forest.sides, made.forest.sides)


def test_every_column_is_asked_as_often_as_another() -> None:
    columns = trees(trees=100, depth=4).forest.columns.ravel()
    assert np.bincount(columns, minlength=4).tolist() == [100] * 4


def test_constants_and_questions_are_those_of_the_method_that_plans_pin() -> None:
    """Whoever changes one raises `METHOD`, or older trees are recomputed as others."""
    constants = (
        losses.TWO_CLASSES, losses.MORE_CLASSES, losses.COUNT_PART, losses.CLIP, losses.SPREAD,
        growing.ALIKE, growing.LARGEST_LEAF, growing.EVIDENCE, program.CALIBRATION_PART,
        SENSITIVITY_GRID, asked.SIZES,
        trees(seed=1).forest.columns.tolist(), trees(seed=1).forest.sides.tolist(),
    )  # fmt: skip
    digest = hashlib.sha256(repr(constants).encode()).hexdigest()
    assert (METHOD, digest[:16]) == (1, "f9be9797b91c4468")
