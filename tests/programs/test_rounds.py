"""A training's rounds compared on held-out records: bounds, figures, the rule, bad schedules."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, mean_absolute_error

from privagg.errors import ConfigError
from privagg.programs.evaluation import Evaluation
from privagg.programs.evaluation.held import HeldRecords
from privagg.programs.sums_program import NoisySum
from privagg.training.table import TableSchema
from tests.programs.contract import Case
from tests.programs.test_evaluation import (
    SIZE,
    UnderOneScheme,
    amounts,
    by_name,
    extremes,
    grades,
    labels,
    made,
    records,
    schema,
)

TARGETS = {
    "binary": schema(),
    "classes": schema(positive=None, classes=["p", "q", "r"]),
    "grades": grades(),
    "labels": labels(),
    "amounts": amounts(),
}


def scheduled(table: TableSchema | None = None, **terms: Any) -> tuple[Evaluation, np.ndarray]:
    """Looks at a training of 12 rounds, with a made-up model."""
    schedule = {"rounds": 12, "every": 4, **terms}
    return made(table=table, scale=0.7, schedule=schedule)


def told(kind: str, some: HeldRecords) -> HeldRecords:
    """Records with targets of a kind."""
    draw, count = np.random.default_rng(9), len(some)
    targets = {
        "binary": lambda: draw.integers(0, 2, count),
        "classes": lambda: draw.integers(0, 3, count),
        "grades": lambda: draw.integers(0, 3, count),
        "labels": lambda: draw.integers(0, 2, (count, 2)),
        "amounts": lambda: np.linspace(0, 2, count).astype(np.float32),
    }
    return HeldRecords(some.site, some.inputs, targets[kind](), some.codes)


class TestRounds(UnderOneScheme):
    @pytest.fixture
    def case(self) -> Case:
        program, parameters = scheduled(figure="accuracy")
        return Case(
            program=lambda: Evaluation(program.content),
            openings=program.openings(Decimal(0)),
            records=told("binary", extremes()),
            take=lambda some, places: some[places],
            states=(parameters, parameters / 2, -parameters),
        )


@pytest.mark.parametrize("kind", TARGETS)
def test_a_row_is_its_records_alone_and_within_the_bound(kind: str) -> None:
    program, parameters = scheduled(TARGETS[kind])
    some = told(kind, extremes())
    (terms, *_) = program.openings(Decimal(1))
    rows = program.integers(1, parameters, some)
    np.testing.assert_array_equal(
        rows, np.concatenate([program.integers(1, parameters, some[[i]]) for i in range(len(some))])
    )
    assert (rows.astype(float) ** 2).sum(1).max() <= terms.sensitivity_grid**2
    assert len(np.unique(rows[:, 1])) > 1


def looked(
    program: Evaluation, models: list[np.ndarray], some: HeldRecords, noise: float = 0.0
) -> list[NoisySum]:
    """What the looks at these models open."""
    found = []
    for number, model in enumerate(models, 1):
        total = program.integers(number, model, some).sum(axis=0)
        found.append(NoisySum(total, noise, ("north",)))
    return found


def test_the_figures_are_those_of_scikit_learn() -> None:
    some = told("binary", records(800))
    for figure in ("error", "accuracy"):
        program, parameters = scheduled(figure=figure)
        models = [parameters, 3 * parameters, -parameters]
        (answer,) = program.answers(looked(program, models, some))
        assert answer.figures[0].value == pytest.approx(800)
        for model, each in zip(models, answer.figures[1:], strict=False):
            logits = some.inputs.astype(np.float64) @ model[:SIZE] + model[SIZE]
            expected = (
                brier_score_loss(some.targets, 1 / (1 + np.exp(-logits)))
                if figure == "error"
                else accuracy_score(some.targets, logits >= 0)
            )
            assert each.value == pytest.approx(expected, abs=1e-4)
        assert [each.group for each in answer.figures[1:4]] == [
            {"round": "4"}, {"round": "8"}, {"round": "12"}
        ]  # fmt: skip
    graded = told("grades", records(500))
    program, parameters = scheduled(grades())
    (answer,) = program.answers(looked(program, [parameters], graded))
    outputs = (graded.inputs.astype(np.float64) @ parameters[:SIZE])[:, None] + parameters[SIZE:]
    chosen = (np.minimum.accumulate(outputs, axis=1) > 0).sum(axis=1)
    found = by_name(answer)["mean absolute grade error"].value
    assert found == pytest.approx(mean_absolute_error(graded.targets, chosen), abs=1e-3)


def test_the_best_round_is_the_one_with_the_best_noised_figure() -> None:
    program, _ = scheduled()
    assert program.rounds is not None
    looks = [np.array([25.0, each]) for each in (10.0, 30.0, 30.0)]
    assert program.rounds.best(looks) == 8  # the first of equal ones
    assert program.rounds.best(looks[:1]) == 4


@pytest.mark.parametrize(
    ("patience", "least", "sums", "stops"),
    [
        (None, 0.0, (50, 40, 30, 20), False),
        (1, 0.0, (50,), False),
        (1, 0.0, (50, 40), True),
        (1, 0.0, (50, 60), False),
        (2, 0.0, (50, 40), False),
        (2, 0.0, (50, 40, 45), True),
        (2, 0.0, (50, 40, 55), False),
        (2, 0.1, (50, 55, 60), True),  # 100 records: 0.1 of the figure is 20 of its sum
        (2, 0.1, (50, 71, 72), False),
    ],
)
def test_when_it_stops_follows_from_the_opened_sums(
    patience: int | None, least: float, sums: tuple[float, ...], stops: bool
) -> None:
    program, _ = scheduled(patience=patience, least=least, rounds=40)
    assert program.rounds is not None
    assert program.rounds.stops([np.array([25.0, each]) for each in sums]) is stops


def test_intervals_cover_the_figure_without_noise() -> None:
    some, program_of = told("binary", records(400)), scheduled
    program, parameters = program_of()
    exact = looked(program, [parameters] * 3, some)
    value = by_name(program.answers(exact)[0])["Brier score"].value
    draw, scale, inside = np.random.default_rng(1), exact[0].total[0] / 100, 0
    for _ in range(100):
        sums = [
            NoisySum(each.total + np.rint(draw.normal(0, 9 * scale, 2)).astype(np.int64),
                     9 * scale, ("north",))
            for each in exact
        ]  # fmt: skip
        each = program.answers(sums)[0].figures[1]
        assert value is not None
        inside += each.records.low <= value <= each.records.high
    assert inside > 95 - 5 * 2.2  # five deviations of a binomial count


@pytest.mark.parametrize(
    ("terms", "told_of"),
    [
        ({"every": 13}, "makes 0 evaluations"),
        ({"every": 1, "rounds": 5000}, "makes 5000 evaluations"),
    ],
)
def test_a_schedule_without_sense_is_refused(terms: dict[str, int], told_of: str) -> None:
    with pytest.raises(ConfigError, match=told_of):
        scheduled(**terms)


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="is none of a model"):
        scheduled(amounts(), figure="accuracy")
    program, _ = scheduled()
    facts = program.asked
    for changed in (
        {**facts, "sites": ["north"]},
        {**facts, "schedule": None},
        {**facts, "model": {**made()[0].asked["model"]}},  # type: ignore[dict-item]
    ):
        with pytest.raises(ValueError, match="either one model|over all records"):
            Evaluation.of(changed)
