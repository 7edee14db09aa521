"""Evaluation on held-out records: bounds by the contract, figures against scikit-learn, no bias."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    mean_absolute_error,
    recall_score,
    roc_auc_score,
)

from privagg.errors import ConfigError
from privagg.programs.answers import Answer, Figure
from privagg.programs.evaluation import Evaluated, Evaluation
from privagg.programs.evaluation.held import HeldRecords, digest_of
from privagg.programs.sums_program import NoisySum
from privagg.training.declared import ModelSpec
from privagg.training.heldout import HeldOut
from privagg.training.models import build_model, get_parameters
from privagg.training.table import TableSchema
from tests.programs.contract import Case, ProgramContract

SIZE = 3


def schema(**target: Any) -> TableSchema:
    facts = {
        "features": [
            {"name": "a", "range": [0, 1]},
            {"name": "b", "range": [0, 1]},
            {"name": "ward", "categories": ["x", "y"], "drop_first": True},
        ],
        "target": {"name": "sick", "positive": "==1", **target},
    }
    return TableSchema.model_validate(facts)


def pinned(parameters: np.ndarray) -> dict[str, str]:
    return {"sha256": "0" * 64, "parameters_sha256": digest_of(parameters)}


def made(
    kind: str = "logistic", table: TableSchema | None = None, scale: float = 3.0, **asked: Any
) -> tuple[Evaluation, np.ndarray]:
    """A program over a model with made-up parameters, and these."""
    table = table or schema()
    spec = {"kind": kind, **({"hidden": [8]} if kind == "mlp" else {})}
    model = build_model(ModelSpec.model_validate(spec), (SIZE,), table.target)
    size = len(get_parameters(model))
    parameters = (scale * np.sin(np.arange(1, size + 1))).astype(np.float32).astype(np.float64)
    content = Evaluated.model_validate(
        {
            "data": table.model_dump(mode="json"),
            "model": {
                "spec": spec,
                "seed": 0,
                "parameters": size,
                **({} if "schedule" in asked else pinned(parameters)),
            },
            "held_out": {"share": "0.2", "key": "k"},
            **asked,
        }
    )
    return Evaluation(content, parameters), parameters


def records(count: int, classes: int = 2, seed: int = 0, site: int = 0) -> HeldRecords:
    draw = np.random.default_rng(seed)
    inputs = draw.random((count, SIZE)).astype(np.float32)
    codes = {"ward": draw.integers(0, 3, count)}
    return HeldRecords(site, inputs, draw.integers(0, classes, count), codes)


def extremes(classes: int = 2) -> HeldRecords:
    """Made-up records, with inputs that make scores endless or no number."""
    some = records(11, classes)
    inputs = some.inputs.copy()
    inputs[:4] = [[0, 0, 0], [1e38, 1e38, 0], [-1e38, 0, 0], [np.nan, 0, 0]]
    return HeldRecords(some.site, inputs, some.targets, some.codes)


def case(*, kind: str = "logistic", classes: int = 2, **asked: Any) -> Case:
    target = {} if classes == 2 else {"positive": None, "classes": ["p", "q", "r"]}
    program, parameters = made(kind, schema(**target), **asked)
    knots = np.linspace(0.0, 1.0, 33)
    states = [parameters, np.concatenate([parameters, knots])][: len(program.openings(Decimal(0)))]
    return Case(
        program=lambda: Evaluation(program.content),
        openings=program.openings(Decimal(0)),
        records=extremes(classes),
        take=lambda some, places: some[places],
        states=tuple(states),
    )


class TestLogistic(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        return case(sites=["north", "south"], subgroups=["ward"])


class UnderOneScheme(ProgramContract):
    """How integers are added is the same for all of them; `TestLogistic` goes through every one."""

    @pytest.mark.parametrize("scheme", ["plaintext"])
    def test_every_scheme_opens_the_same_sums(
        self, case: Case, scheme: str, tmp_path: Path
    ) -> None:
        super().test_every_scheme_opens_the_same_sums(case, scheme, tmp_path)


class TestPerceptron(UnderOneScheme):
    @pytest.fixture
    def case(self) -> Case:
        return case(kind="mlp", bins=3, threshold=0.1)


class TestClasses(UnderOneScheme):
    @pytest.fixture
    def case(self) -> Case:
        return case(classes=3, subgroups=["ward"])


def amounts(**target: Any) -> TableSchema:
    """The same columns with an amount to predict."""
    facts = schema().model_dump(mode="json")
    facts["target"] = {"name": "cost", "kind": "regression", "range": [0, 50], **target}
    return TableSchema.model_validate(facts)


class TestAmounts(UnderOneScheme):
    @pytest.fixture
    def case(self) -> Case:
        program, parameters = made("logistic", amounts(loss="poisson"), sites=["north", "south"])
        some = extremes()
        costs = np.linspace(0, 2, len(some)).astype(np.float32)
        return Case(
            program=lambda: Evaluation(program.content),
            openings=program.openings(Decimal(0)),
            records=HeldRecords(0, some.inputs, costs, some.codes),
            take=lambda some, places: some[places],
            states=(parameters,),
        )


def grades(**target: Any) -> TableSchema:
    facts = schema().model_dump(mode="json")
    facts["target"] = {"name": "pain", "kind": "ordinal", "classes": ["mild", "some", "severe"]}
    return TableSchema.model_validate(facts)


def labels(count: int = 2) -> TableSchema:
    facts = schema().model_dump(mode="json")
    names = ["pain", "fever", "cough"][:count]
    facts["target"] = {"name": "signs", "kind": "multi-label", "labels": names, "positive": "==1"}
    return TableSchema.model_validate(facts)


class TestGrades(UnderOneScheme):
    @pytest.fixture
    def case(self) -> Case:
        program, parameters = made(table=grades(), subgroups=["ward"], noise="laplace")
        return Case(
            program=lambda: Evaluation(program.content),
            openings=program.openings(Decimal(0)),
            records=extremes(3),
            take=lambda some, places: some[places],
            states=(parameters,),
        )


class TestLabels(UnderOneScheme):
    @pytest.fixture
    def case(self) -> Case:
        program, parameters = made(table=labels(), bins=3)
        some = extremes()
        signs = np.random.default_rng(8).integers(0, 2, (len(some), 2))
        return Case(
            program=lambda: Evaluation(program.content),
            openings=program.openings(Decimal(0)),
            records=HeldRecords(0, some.inputs, signs, some.codes),
            take=lambda some, places: some[places],
            states=(parameters, np.concatenate([parameters, *[np.linspace(0.0, 1.0, 33)] * 2])),
        )


def opened(
    program: Evaluation, parameters: np.ndarray, sites: list[HeldRecords], noise: float = 0.0
) -> list[NoisySum]:
    """What the rounds would open, each integer with noise of this many records' weight."""
    draw = np.random.default_rng(7)
    state, found = program.begin(), list[NoisySum]()
    for number, terms in enumerate(program.openings(Decimal(1)), 1):
        total = sum(program.integers(number, state, one).sum(axis=0) for one in sites)
        stddev = noise * terms.sensitivity_grid
        drawn = np.rint(draw.normal(0, stddev, terms.length)).astype(np.int64)
        found.append(NoisySum(total + drawn, stddev, ("north", "south")))
        state = program.step(number, state, found[-1])
    return found


def by_name(answer: Answer) -> dict[str, Figure]:
    return {figure.what: figure for figure in answer.figures}


def judged(count: int = 1500) -> tuple[Evaluation, list[HeldRecords], list[np.ndarray], Any]:
    """Two sites whose targets follow from the model's own scores; the scores, and the answers."""
    program, parameters = made(sites=["north", "south"], subgroups=["ward"], threshold=0.6)
    sites, chances = [], []
    for place, size in enumerate((count, 2 * count)):
        some = records(size, seed=place, site=place)
        logits = some.inputs.astype(np.float64) @ parameters[:SIZE] + parameters[SIZE]
        chances.append(1 / (1 + np.exp(-logits)))
        targets = (np.random.default_rng(place + 5).random(size) < chances[-1]).astype(np.int64)
        sites.append(HeldRecords(place, some.inputs, targets, some.codes))
    return program, sites, chances, parameters


def test_without_noise_the_figures_are_those_of_scikit_learn() -> None:
    program, sites, chances, parameters = judged()
    answers = program.answers(opened(program, parameters, sites))
    together = (np.concatenate([one.targets for one in sites]), np.concatenate(chances))
    ward = np.concatenate([one.codes["ward"] for one in sites])
    named = {str(answer.question["name"]): answer for answer in answers}
    size = len(named["by site"].figures) // 2
    cases = [
        (by_name(named["all records"]), *together),
        (by_name(Answer({}, named["by site"].figures[size:])), sites[1].targets, chances[1]),
        (by_name(Answer({}, named["by ward"].figures[:size])), *(a[ward == 0] for a in together)),
    ]
    for found, targets, scores in cases:
        expected = {
            "count": len(targets),
            "share of positives": targets.mean(),
            "accuracy": accuracy_score(targets, scores >= 0.6),
            "base rate": max(targets.mean(), 1 - targets.mean()),
            "sensitivity": recall_score(targets, scores >= 0.6),
            "specificity": recall_score(1 - targets, scores < 0.6),
            "false positives": ((scores >= 0.6) & (targets == 0)).sum(),
            "Brier score": brier_score_loss(targets, scores),
            "log-loss": log_loss(targets, scores),
        }
        values = {name: found[name].value for name in expected}
        assert values == pytest.approx(expected, rel=1e-3)
        area = roc_auc_score(targets, scores)
        assert found["area under the ROC curve"].value == pytest.approx(area, abs=3e-3)
    line = by_name(named["calibration"])
    assert line["calibration intercept"].value == pytest.approx(0, abs=0.15)
    assert line["calibration slope"].value == pytest.approx(1, abs=0.15)


def test_intervals_cover_and_the_area_is_not_biased_by_noise() -> None:
    """2,000 records under noise of 9 of them: cells far below 0 are taken as they are."""
    program, sites, chances, parameters = judged(700)
    alone = program.content.model_copy(update={"sites": (), "subgroups": ()})
    program = Evaluation(alone, parameters)
    exact = opened(program, parameters, sites)
    targets = np.concatenate([one.targets for one in sites])
    area = roc_auc_score(targets, np.concatenate(chances))
    draw, found = np.random.default_rng(3), list[Figure]()
    stddev = 9.0 * program.openings(Decimal(1))[1].sensitivity_grid
    for _ in range(60):
        noise = np.rint(draw.normal(0, stddev, len(exact[1].total))).astype(np.int64)
        sums = [exact[0], NoisySum(exact[1].total + noise, stddev, ("north", "south"))]
        (first, *_) = program.answers(sums)
        found.append(by_name(first)["area under the ROC curve"])
    raw = np.array([each.raw for each in found])
    assert abs(raw.mean() - area) < 5 * raw.std() / 7 + 2e-3
    covered = sum(each.records.low <= area <= each.records.high for each in found)
    assert covered > 0.95 * 60 - 5 * 1.7  # five deviations of a binomial count
    assert all(each.population.low <= each.records.low for each in found)


def test_three_classes_are_told_by_choice() -> None:
    program, parameters = made(
        table=schema(positive=None, classes=["p", "q", "r"]), subgroups=["ward"]
    )
    some = records(900, 3)
    (first, *_) = program.answers(opened(program, parameters, [some]))
    weights, biases = parameters[: 3 * SIZE].reshape(3, SIZE), parameters[3 * SIZE :]
    outputs = some.inputs.astype(np.float64) @ weights.T + biases
    chances = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    found, own = by_name(first), np.eye(3)[some.targets]
    assert found["accuracy"].value == pytest.approx((outputs.argmax(1) == some.targets).mean())
    assert found["base rate"].value == pytest.approx(np.bincount(some.targets).max() / 900)
    assert found["Brier score"].value == pytest.approx(
        ((chances - own) ** 2).sum(1).mean(), rel=1e-4
    )
    clamped = np.minimum(-np.log(chances[np.arange(900), some.targets]), 5).mean()
    assert found["log-loss"].value == pytest.approx(clamped, rel=1e-4)
    pairs = [f for f in first.figures if "called" in f.group]
    assert sum(f.value or 0 for f in pairs) == pytest.approx(900)


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_grades_are_told_by_the_median_grade(noise: str) -> None:
    program, parameters = made(table=grades(), noise=noise, sites=["north", "south"], scale=0.6)
    some = records(1200, 3, site=1)
    first, by_site = program.answers(opened(program, parameters, [some]))
    outputs = some.inputs.astype(np.float64) @ parameters[:SIZE]
    outputs = outputs[:, None] + parameters[SIZE:]
    chosen = (program.content.data.target.predictions(outputs).cumsum(1) < 0.5).sum(1)
    assert len(set(chosen.tolist())) == 3
    table = confusion_matrix(some.targets, chosen)
    grouped = [Answer({}, first.figures), Answer({}, by_site.figures[len(first.figures) :])]
    for found in map(by_name, grouped):
        assert found["accuracy"].value == pytest.approx(
            accuracy_score(some.targets, chosen), abs=1e-3
        )
        off = mean_absolute_error(some.targets, chosen)
        assert found["mean absolute grade error"].value == pytest.approx(off, abs=1e-3)
        guess = min(np.abs(some.targets - k).mean() for k in range(3))
        assert found["base grade error"].value == pytest.approx(guess, abs=1e-3)
    pairs = [f.value for f in first.figures if "called" in f.group]
    assert pairs == pytest.approx(table.ravel().tolist(), abs=0.1)
    assert first.figures[-4].group == {"class": "severe", "called": "some"}


def test_each_label_is_measured_as_two_classes_are() -> None:
    program, parameters = made(table=labels(3), sites=["north", "south"])
    some = records(2500, site=1)
    weights, biases = parameters[: 3 * SIZE].reshape(3, SIZE), parameters[3 * SIZE :]
    outputs = some.inputs.astype(np.float64) @ weights.T + biases
    chances = 1 / (1 + np.exp(-outputs))
    signs = (np.random.default_rng(5).random(chances.shape) < chances).astype(np.int64)
    sites = [HeldRecords(1, some.inputs, signs, some.codes)]
    sums = opened(program, parameters, sites)
    first, roc, calibration, _ = program.answers(sums)
    assert [each.question["name"] for each in (roc, calibration)] == ["ROC curve", "calibration"]
    for place, label in enumerate(("pain", "fever", "cough")):
        own = tuple(f for f in first.figures if f.group["label"] == label)
        found, targets, scores = by_name(Answer({}, own)), signs[:, place], chances[:, place]
        expected = {
            "count": len(some),
            "share of positives": targets.mean(),
            "accuracy": accuracy_score(targets, scores >= 0.5),
            "sensitivity": recall_score(targets, scores >= 0.5),
            "false positives": ((scores >= 0.5) & (targets == 0)).sum(),
            "Brier score": brier_score_loss(targets, scores),
        }
        assert {name: found[name].value for name in expected} == pytest.approx(expected, rel=2e-3)
        area = roc_auc_score(targets, scores)
        assert found["area under the ROC curve"].value == pytest.approx(area, abs=3e-3)
    (only,) = program.answers(sums[:1])
    assert only.figures[0].value == pytest.approx(len(some))


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (schema(), "nothing but ones"),
        (labels(), "nothing but ones"),
    ],
)
def test_laplace_noise_is_for_ones_alone(table: TableSchema, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        made(table=table, noise="laplace")


def test_what_was_pinned_before_there_was_other_noise_looks_as_it_did() -> None:
    assert "noise" not in made()[0].asked
    assert made(table=grades(), noise="laplace")[0].asked["noise"] == "laplace"


def test_errors_of_amounts_are_in_the_columns_unit() -> None:
    program, parameters = made(table=amounts(), scale=0.3)
    some = records(2000)
    costs = np.random.default_rng(4).beta(2, 4, 2000).astype(np.float32)
    (first, *_) = program.answers(
        opened(program, parameters, [HeldRecords(0, some.inputs, costs, some.codes)])
    )
    outputs = some.inputs.astype(np.float64) @ parameters[:SIZE] + parameters[SIZE]
    off = np.abs(np.clip((outputs + 1) * 25, 0, 50) - 50 * costs.astype(np.float64))
    found = by_name(first)
    expected = float(np.sqrt((off**2).mean()))
    assert found["root mean square error"].value == pytest.approx(expected, rel=1e-3)
    for level in (0.5, 0.9):
        assert found[f"error quantile {level}"].value == pytest.approx(
            float(np.quantile(off, level)), rel=0.05
        )


def test_another_models_parameters_add_nothing() -> None:
    program, parameters = made()
    with pytest.raises(ValueError, match="other parameters"):
        program.integers(1, parameters + 1.0, records(3))
    with pytest.raises(ConfigError, match="needs the model"):
        Evaluation(program.content).begin()


def test_a_hopeless_noise_says_nothing() -> None:
    program, parameters = made()
    (first, *_) = program.answers(opened(program, parameters, [records(5)], noise=50.0))
    assert by_name(first)["area under the ROC curve"].value is None


def test_a_job_that_was_cut_short_says_how_many_there_are() -> None:
    program, parameters = made()
    (only,) = program.answers(opened(program, parameters, [records(40)])[:1])
    assert by_name(only)["count"].value == pytest.approx(40)


def test_a_side_follows_from_a_records_inputs_and_the_key_alone() -> None:
    rule = HeldOut(share=Decimal("0.3"), key="k")
    inputs = np.random.default_rng(0).random((4000, 3)).astype(np.float32)
    inputs[:40, 0], inputs[40:80, 0] = 0.0, np.nan
    mask = rule.mask(inputs, ("a", "b", "c"))
    assert 0.25 < mask.mean() < 0.35
    shuffled = np.random.default_rng(1).permutation(4000)
    np.testing.assert_array_equal(rule.mask(inputs[shuffled], ("a", "b", "c")), mask[shuffled])
    np.testing.assert_array_equal(rule.mask(inputs[:, [2, 0, 1]], ("c", "a", "b")), mask)
    minus = np.where(inputs == 0, np.float32(-0.0), inputs)
    minus = np.where(np.isnan(minus), -np.float32(np.nan), minus)
    np.testing.assert_array_equal(rule.mask(minus, ("a", "b", "c")), mask)
    assert (rule.mask(inputs[:1].repeat(9, axis=0)) == rule.mask(inputs[:1])[0]).all()
    other = HeldOut(share=Decimal("0.3"), key="l").mask(inputs)
    assert 0.05 < (mask & other).mean() < 0.15


def test_a_larger_share_keeps_what_a_smaller_one_held_out() -> None:
    inputs = np.random.default_rng(0).random((500, 2)).astype(np.float32)
    small, large = (HeldOut(share=Decimal(s), key="k").mask(inputs) for s in ("0.1", "0.5"))
    assert (small <= large).all()


def test_no_sides_change_is_possible_without_a_new_format() -> None:
    """A changed hash would move records that were trained with to the other side."""
    rule = HeldOut(share=Decimal("0.5"), key="vector")
    inputs = (np.arange(32, dtype=np.float32).reshape(16, 2) - 7) / 3
    assert (
        "".join("01"[each] for each in rule.mask(inputs, ("a", "b")).tolist()) == "1100101111100010"
    )
