"""Kinds of targets: read from one record, learned by known losses, judged beside a guess."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy.special import huber
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import (
    GammaRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
)
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    mean_absolute_error,
    mean_gamma_deviance,
    mean_poisson_deviance,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from torch.nn import functional

from privagg.encoding.grid import Grid
from privagg.training.data import TensorRecords
from privagg.training.dpsgd import DpSgd
from privagg.training.evaluate import evaluate
from privagg.training.factories import ApprovedCode
from privagg.training.features import NumericFeature
from privagg.training.inspection import check_table
from privagg.training.measures import BASES, by_class
from privagg.training.models import build_model, get_parameters
from privagg.training.objective import Objective
from privagg.training.rehearsal import require_model_apart
from privagg.training.table import TableSchema
from privagg.training.targets import (
    AnyTarget,
    MultiLabel,
    NumberedClasses,
    Ordinal,
    Regression,
    Target,
    TargetKind,
    TimeToEvent,
)

RNG = np.random.default_rng(5)
GRADES = ("mild", "moderate", "severe", "critical")


def amounts(loss: str, low: float = 0.0, high: float = 20.0, **more: Any) -> Regression:
    facts = {"kind": "regression", "name": "y", "range": (low, high), "loss": loss, **more}
    return Regression.model_validate(facts)


KINDS: dict[str, TargetKind] = {
    "binary": Target(name="y", positive="==1", class_weights=(1.0, 3.0)),
    "multiclass": Target.model_validate({"name": "y", "classes": GRADES}),
    "squared": amounts("squared"),
    "huber": amounts("huber", delta=1.5),
    "poisson": amounts("poisson", typical=2.0),
    "gamma": amounts("gamma", 0.5),
    "ordinal": Ordinal(kind="ordinal", name="y", classes=GRADES),
    "multi-label": MultiLabel(kind="multi-label", name="all", labels=("a", "b"), positive=1),
    "time-to-event": TimeToEvent.model_validate(
        {
            "kind": "time-to-event",
            "name": "y",
            "time": "days",
            "event": "status",
            "event_is": 1,
            "intervals": (30, 60, 180, 365),
        }
    ),
}


def table_of(target: TargetKind, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets that follow from them a little."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(count, 3)).astype(np.float32), target.examples(draw, count)


# --- declarations --------------------------------------------------------------------------------


def test_what_plans_pinned_of_classes_is_as_it_was() -> None:
    """Frozen: a word more in the declaration would be another plan."""
    plain = {"name": "num", "kind": "binary", "positive": ">0", "classes": None}
    assert Target(name="num", positive=">0").model_dump(mode="json") == plain
    weighted = Target(name="num", positive=">0", class_weights=(1, 2)).model_dump(mode="json")
    assert weighted == {**plain, "class_weights": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"kind": "regression", "range": [5, 5]}, "low < high"),
        ({"kind": "regression", "range": [0, 9], "loss": "gamma"}, "above 0"),
        ({"kind": "regression", "range": [-1, 9], "loss": "poisson"}, "0 or more"),
        ({"kind": "regression", "range": [0, 9], "delta": 1}, "belongs to loss = 'huber'"),
        ({"kind": "regression", "range": [0, 9], "typical": 1}, "'poisson' or 'gamma'"),
        ({"kind": "regression", "range": [1, 9], "loss": "gamma", "typical": 10}, "in its range"),
        ({"kind": "regression", "range": [0, math.inf]}, "finite"),
        ({"kind": "regression", "range": [-1e308, 1e308]}, "too wide"),
        ({"kind": "regression", "range": [0, 1e9], "loss": "poisson", "typical": 1}, "millionth"),
        ({"kind": "regression"}, "range"),
        ({"kind": "ordinal", "classes": ["a", "b"]}, "at least 3"),
        ({"kind": "ordinal", "classes": ["a", "b", "a"]}, "differ"),
        ({"kind": "multi-label", "labels": ["a"], "positive": 1}, "at least 2"),
        ({"kind": "multi-label", "labels": ["a", "a"], "positive": 1}, "differ"),
        ({"kind": "multi-label", "labels": ["a", "b"], "positive": "> x"}, "needs a number"),
        ({"kind": "multi-label", "labels": ["a", "b"], "positive": 1, "label_weights": [1]},
         "1 numbers for 2 labels"),
        ({"positive": "==1", "class_weights": [1]}, "1 numbers for 2 classes"),
        ({"positive": "==1", "class_weights": [1, -1]}, "greater than 0"),
        ({"kind": "survival"}, "regression"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(AnyTarget).validate_python({"name": "y", **facts})


# --- reading -------------------------------------------------------------------------------------


def read(target: TargetKind, **columns: list[object]) -> list[Any]:
    return target.read(pd.DataFrame(columns, dtype=object)).tolist()


def test_an_amount_outside_its_range_counts_as_its_end_and_no_amount_drops_out() -> None:
    cells = ["0", "10", "25", "-1e300", None, "word", "inf", "nan"]
    encoded = amounts("squared").read(pd.DataFrame({"y": cells}, dtype=object))
    np.testing.assert_array_equal(encoded, [0, 0.5, 1, 0, *[np.nan] * 4])
    assert encoded.dtype == np.float32
    kept = amounts("squared").known(encoded)
    assert kept.tolist() == [True] * 4 + [False] * 4
    # Under the logarithm an amount stands over the typical one, from the range's low end on.
    assert read(amounts("gamma", 0.5, typical=2.0), y=["0", "4", "1e9"]) == [0.25, 2, 10]


def test_grades_and_labels_are_read_cell_by_cell() -> None:
    assert read(KINDS["ordinal"], y=["Severe", "mild", None, "x"]) == [2, 0, -1, -1]
    labels = KINDS["multi-label"]
    found = read(labels, a=["1", "0", "1"], b=[True, "2", None])
    assert found == [[1, 1], [0, 0], [1, -1]]
    assert labels.known(np.array(found)).tolist() == [True, True, False]


def test_a_schema_leaves_out_records_without_a_target_and_the_owner_hears_of_it() -> None:
    schema = TableSchema(
        features=(NumericFeature(name="x", range=(0, 1)),), target=amounts("squared")
    )
    frame = pd.DataFrame({"x": ["0", "1", "1"], "y": ["30", None, "ten"]}, dtype=object)
    x, y = schema.encode(frame)
    assert (x.tolist(), y.tolist()) == ([[-1.0]], [1.0])
    told = {finding.message for finding in check_table(schema, frame)}
    assert "2 records without a target are left out" in told
    assert "1 cell is no number (left out)" in told
    assert any("1 value lies outside the public range [0, 20] (clamped)" in text for text in told)
    labels = TableSchema(features=schema.features, target=KINDS["multi-label"])
    assert labels.source_columns == ("x", "a", "b")
    with pytest.raises(ValidationError, match="both a feature and the target"):
        TableSchema(features=(NumericFeature(name="b", range=(0, 1)),), target=labels.target)


# --- losses, held against others' ----------------------------------------------------------------


def test_losses_are_those_that_others_know() -> None:
    x = torch.from_numpy(RNG.normal(size=(50, 3)).astype(np.float32))
    one, y = x[:, :1], torch.from_numpy(RNG.uniform(0.1, 3, 50).astype(np.float32))

    def ours(name: str, outputs: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        return KINDS[name].per_record_loss(outputs, targets).numpy()

    places = torch.rand(50)
    square = 0.5 * functional.mse_loss(one[:, 0], 2 * places - 1, reduction="none")
    np.testing.assert_allclose(ours("squared", one, places), square, rtol=1e-6)
    errors = (one[:, 0] - (2 * places - 1)).numpy()
    by_scipy = huber(2 * 1.5 / 20, errors)
    np.testing.assert_allclose(ours("huber", one, places), by_scipy, rtol=1e-5, atol=1e-7)
    theirs = functional.poisson_nll_loss(one[:, 0], y, log_input=True, reduction="none")
    np.testing.assert_allclose(ours("poisson", one, y), theirs, rtol=1e-5, atol=1e-6)
    deviance = 2 * (ours("gamma", one, y) - ours("gamma", y.log()[:, None], y)).mean()
    expected = mean_gamma_deviance(y.numpy(), one[:, 0].exp().numpy())
    assert deviance == pytest.approx(expected, rel=1e-5)
    # Three thresholds are three logistic regressions; so are two labels.
    grades = torch.from_numpy(RNG.integers(0, 4, 50))
    each = [log_loss((grades > j).numpy(), x[:, j].sigmoid().numpy()) for j in range(3)]
    assert ours("ordinal", x, grades).mean() == pytest.approx(np.mean(each), rel=1e-5)
    labels = torch.from_numpy(RNG.integers(0, 2, (50, 2)))
    each = [log_loss(labels[:, j].numpy(), x[:, j].sigmoid().numpy()) for j in range(2)]
    assert ours("multi-label", x[:, :2], labels).mean() == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize(
    ("target", "theirs"),
    [
        (amounts("squared", -3, 20), LinearRegression()),
        (amounts("poisson", 0, 400, typical=3.0), PoissonRegressor(alpha=0, tol=1e-9)),
        (amounts("gamma", 1e-3, 400, typical=3.0), GammaRegressor(alpha=0, tol=1e-9)),
    ],
)
def test_scikit_learns_fit_is_where_our_gradient_vanishes(target: Regression, theirs: Any) -> None:
    draw = np.random.default_rng(3)
    x = draw.normal(size=(400, 3))
    mean = np.exp(0.5 + 0.4 * x[:, 0] - 0.3 * x[:, 1])
    y = {"poisson": draw.poisson(mean), "gamma": draw.gamma(2.0, mean / 2)}.get(
        target.loss, 2 + x[:, 0] + draw.normal(size=400)
    )
    fit = theirs.fit(x, y)
    frame = pd.DataFrame({"y": y})
    encoded = torch.from_numpy(np.asarray(target.read(frame))).double()
    low, high = target.range
    amount = fit.coef_ @ x.T + fit.intercept_
    outputs = 2 * (amount - low) / (high - low) - 1 if target.loss == "squared" else (
        amount - math.log(3.0)
    )  # fmt: skip
    leaf = torch.from_numpy(outputs[:, None]).requires_grad_(True)
    (slopes,) = torch.autograd.grad(target.per_record_loss(leaf, encoded).sum(), leaf)
    gradient = slopes[:, 0].numpy() @ np.column_stack([x, np.ones(400)])
    scale = np.abs(slopes.numpy()).sum()
    assert np.abs(gradient).max() < 1e-4 * scale
    np.testing.assert_allclose(target.predictions(outputs[:, None]), fit.predict(x), rtol=1e-9)


def test_weights_are_what_scikit_learn_makes_of_them() -> None:
    x, y = RNG.normal(size=(60, 2)), RNG.integers(0, 2, 60)
    theirs = LogisticRegression(C=1e9, class_weight={0: 1.0, 1: 3.0}, tol=1e-10, max_iter=1000)
    theirs.fit(x, y)
    outputs = torch.from_numpy(theirs.decision_function(x)[:, None]).requires_grad_(True)
    loss = KINDS["binary"].per_record_loss(outputs, torch.from_numpy(y))
    (slopes,) = torch.autograd.grad(loss.sum(), outputs)
    assert np.abs(slopes[:, 0].numpy() @ np.column_stack([x, np.ones(60)])).max() < 1e-3


# --- gradients that stay finite, records that stay apart ------------------------------------------


@pytest.mark.parametrize("name", ["poisson", "gamma"])
@pytest.mark.parametrize("output", [1e4, -1e4, 3e38, -3e38])
def test_a_huge_rate_has_a_finite_gradient_that_points_back(name: str, output: float) -> None:
    outputs = torch.full((1, 1), output, requires_grad=True)
    loss = KINDS[name].per_record_loss(outputs, torch.ones(1))
    (slope,) = torch.autograd.grad(loss.sum(), outputs)
    assert math.isfinite(slope.item())
    assert slope.item() * output > 0


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("broken", [1e30, math.inf, math.nan])
def test_a_record_without_a_finite_gradient_counts_zero_and_moves_nobody(
    name: str, broken: float
) -> None:
    target, grid = KINDS[name], Grid(1, 2**12)
    x, y = table_of(target, 8)
    x[3] = broken
    model = build_model("logistic", (3,), target, seed=1)
    trainer = DpSgd(
        model, TensorRecords.of(x, y), grid, physical_batch=4, batches=4,
        objective=Objective.of(target, None, ApprovedCode()),
    )  # fmt: skip
    parameters = get_parameters(model) + 0.3
    everybody = np.full(16, -1)
    everybody[:8] = np.arange(8)
    without = np.where(everybody == 3, -1, everybody)
    whole = trainer.slotted_sum(parameters, everybody)
    moved = whole - trainer.slotted_sum(parameters, without)
    assert (moved**2).sum() <= 2**24
    if not math.isfinite(broken):
        assert not moved.any()
    assert whole.any()


@pytest.mark.parametrize("name", KINDS)
def test_built_in_models_keep_records_apart_for_every_target(name: str) -> None:
    target = KINDS[name]
    objective = Objective.of(target, None, ApprovedCode())
    for kind in ("logistic", "mlp"):
        model = build_model(kind, (3,), target, seed=2)
        assert model(torch.zeros(2, 3)).shape == (2, target.outputs)
        require_model_apart(model, (3,), 16, objective)


def test_a_grade_costs_one_slope_and_a_constant_for_each_threshold() -> None:
    model = build_model("logistic", (5,), KINDS["ordinal"])
    assert len(get_parameters(model)) == 5 + 3


# --- figures ------------------------------------------------------------------------------------


def test_figures_of_amounts_agree_with_scikit_learn() -> None:
    target = amounts("squared", -1, 3)
    y = RNG.uniform(-1, 3, 40)
    encoded = target.read(pd.DataFrame({"y": y}))
    outputs = RNG.normal(size=(40, 1))
    found, guess = target.figures(outputs, encoded), target.predictions(outputs)
    mean = DummyRegressor().fit(outputs, y).predict(outputs)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(y, guess), rel=1e-5)
    assert found["mae"] == pytest.approx(mean_absolute_error(y, guess), rel=1e-5)
    assert found["r2"] == pytest.approx(r2_score(y, guess), rel=1e-5)
    assert found["base_rmse"] == pytest.approx(root_mean_squared_error(y, mean), rel=1e-5)
    assert found["base_mae"] == pytest.approx(mean_absolute_error(y, mean), rel=1e-5)
    assert (guess.min(), guess.max()) >= (-1, -1)
    assert guess.max() <= 3


def test_figures_of_grades_agree_with_scikit_learn() -> None:
    target = KINDS["ordinal"]
    outputs, y = np.sort(RNG.normal(size=(60, 3)))[:, ::-1], RNG.integers(0, 4, 60)
    found, chances = target.figures(outputs, y), target.predictions(outputs)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    chosen = (1 / (1 + np.exp(-outputs)) > 0.5).sum(axis=1)
    guess = DummyClassifier(strategy="most_frequent").fit(outputs, y)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, chosen))
    assert found["base_rate"] == pytest.approx(guess.score(outputs, y))
    assert found["mae"] == pytest.approx(mean_absolute_error(y, chosen))
    assert found["base_mae"] == min(mean_absolute_error(y, np.full(60, g)) for g in range(4))
    crossed = target.predictions(outputs[:, ::-1])  # noise may leave constants in any order
    assert (crossed >= 0).all()
    np.testing.assert_allclose(crossed.sum(axis=1), 1)


def test_figures_of_labels_agree_with_scikit_learn() -> None:
    target = KINDS["multi-label"]
    outputs, y = RNG.normal(size=(50, 2)), RNG.integers(0, 2, (50, 2))
    found = target.figures(outputs, y)
    assert found["accuracy"] == pytest.approx(accuracy_score(y.ravel(), (outputs > 0).ravel()))
    assert found["auc"] == pytest.approx(roc_auc_score(y, outputs, average="macro"))
    shares = [max(column.mean(), 1 - column.mean()) for column in y.T]
    assert found["base_rate"] == pytest.approx(np.mean(shares))
    assert [each.count for each in by_class(found)] == y.sum(axis=0).tolist()
    np.testing.assert_allclose(target.predictions(outputs), 1 / (1 + np.exp(-outputs)))


@pytest.mark.parametrize("name", KINDS)
def test_every_target_is_measured_on_a_public_table_alone(name: str) -> None:
    target = KINDS[name]
    records = TensorRecords.of(*table_of(target, 30), public=True)
    model = build_model("logistic", (3,), target)
    found = evaluate(model, get_parameters(model) + 0.1, records, target).figures
    assert {*target.measures, "loss"} <= set(found)
    for figure, base in BASES.items():
        assert (figure in found) == (base in found)
    assert all(math.isfinite(value) for value in found.values())


def test_public_targets_that_are_all_alike_are_refused() -> None:
    for target in KINDS.values():
        encoded = target.examples(np.random.default_rng(0), 20)
        target.require_telling(encoded)
        with pytest.raises(ValueError, match="any model would seem right"):
            target.require_telling(np.repeat(encoded[:1], 5, axis=0))


def test_poisson_deviance_falls_by_what_is_learned() -> None:
    """The figure `loss` is half the deviance but for a constant, so differences are exact."""
    target = amounts("poisson", 0, 50, typical=1.0)
    y = np.random.default_rng(4).poisson(3.0, 200)
    encoded = torch.from_numpy(np.asarray(target.read(pd.DataFrame({"y": y}))))

    def loss(rate: float) -> float:
        outputs = torch.full((200, 1), math.log(rate))
        return float(target.per_record_loss(outputs, encoded).mean())

    ours = 2 * (loss(2.0) - loss(3.0))
    theirs = mean_poisson_deviance(y, np.full(200, 2.0)) - mean_poisson_deviance(
        y, np.full(200, 3.0)
    )
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_numbers_of_classes_are_targets_too() -> None:
    target = NumberedClasses(count=3)
    assert read(target, label=["0", "2", "3", "1.5", None]) == [0, 2, -1, -1, -1]
    assert target.outputs == 3
