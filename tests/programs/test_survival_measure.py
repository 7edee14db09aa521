"""The C-index on held-out records: bounds by the contract, exact without noise, covered with it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privagg.programs.answers import Figure
from privagg.programs.evaluation import Evaluation
from privagg.programs.evaluation.held import HeldRecords
from privagg.training.measures import concordance
from privagg.training.table import TableSchema
from privagg.training.targets import TimeToEvent
from tests.programs.contract import Case
from tests.programs.test_evaluation import (
    SIZE,
    UnderOneScheme,
    by_name,
    extremes,
    made,
    opened,
    schema,
)


def survivors(**target: Any) -> TableSchema:
    """The columns of the other evaluations, with a time and an event to predict."""
    facts = schema().model_dump(mode="json")
    facts["target"] = {"name": "survival", "kind": "time-to-event", "time": "days",
                       "event": "status", "event_is": 1, "until": 100, "intervals": 5,
                       **target}  # fmt: skip
    return TableSchema.model_validate(facts)


class TestSurvivalMeasure(UnderOneScheme):
    @pytest.fixture
    def case(self) -> Case:
        program, parameters = made("logistic", survivors(), sites=["north", "south"])
        some = extremes()
        targets = np.stack([np.linspace(0, 1, len(some)), np.arange(len(some)) % 2], axis=1)
        knots = np.linspace(0.0, 1.0, 33)
        return Case(
            program=lambda: Evaluation(program.content),
            openings=program.openings(Decimal(0)),
            records=HeldRecords(0, some.inputs, targets.astype(np.float32), some.codes),
            take=lambda some, places: some[places],
            states=(parameters, np.concatenate([parameters, knots])),
        )


def followed(count: int, **asked: Any) -> tuple[Evaluation, Any, HeldRecords, Any]:
    """People whose hazard is the model's, a third of them censored; their days and events."""
    program, parameters = made("logistic", survivors(intervals=8), **asked)
    draw = np.random.default_rng(1)
    inputs = draw.random((count, SIZE)).astype(np.float32)
    risk = inputs.astype(np.float64) @ parameters[:SIZE]
    death = 60 * draw.exponential(size=count) / np.exp(risk - risk.mean())
    censored = draw.uniform(0, 200, count)
    days, died = np.minimum(death, censored), death <= censored
    target = program.content.data.target
    targets = target.read(pd.DataFrame({"days": days, "status": died.astype(int)}))
    codes = {"ward": draw.integers(0, 3, count)}
    return program, parameters, HeldRecords(0, inputs, targets, codes), (risk, days, died)


def test_without_noise_it_is_the_c_index_of_intervals() -> None:
    """Against Harrell's with times set to the intervals' ends and scores to their bins' places."""
    program, parameters, some, (risk, days, died) = followed(3000, bins=50)
    found = by_name(program.answers(opened(program, parameters, [some]))[0])
    target = program.content.data.target
    assert isinstance(target, TimeToEvent)
    interval, event = target.seen_last(some.targets)
    # Of one interval nobody's order is known: whoever is censored there, is so just before.
    coarse = concordance(risk, interval - 0.25 * ~event, event)
    assert found["C-index between intervals"].value == pytest.approx(coarse, abs=1e-3)
    exact = concordance(risk, np.minimum(days, 100), died & (days <= 100))
    assert exact is not None
    # Pairs within an interval do not count, and are the hardest: a stated effect, no noise.
    assert 0.02 < found["C-index between intervals"].value - exact < 0.04
    assert found["with the event"].value == event.sum()
    assert found["share with the event"].value == pytest.approx(event.mean())
    assert found["base C-index"].value == 0.5
    fewer, parameters, some, _ = followed(3000, bins=8)
    binned = by_name(fewer.answers(opened(fewer, parameters, [some]))[0])[
        "C-index between intervals"
    ].value
    assert abs(binned - coarse) < 0.03 * (coarse - 0.5)


def test_intervals_cover_and_noise_does_not_bias_it() -> None:
    program, parameters, some, _ = followed(1500)
    exact = opened(program, parameters, [some])
    truth = by_name(program.answers(exact)[0])["C-index between intervals"].value
    unit = 2**20
    draw, found = np.random.default_rng(3), list[Figure]()
    for _ in range(300):
        noise = np.rint(draw.normal(0, 9 * unit, len(exact[1].total))).astype(np.int64)
        noised = [exact[0], replace(exact[1], total=exact[1].total + noise, stddev=9.0 * unit)]
        found.append(by_name(program.answers(noised)[0])["C-index between intervals"])
    values = np.array([figure.raw for figure in found])
    held = np.mean([figure.records.low <= truth <= figure.records.high for figure in found])
    assert abs(values.mean() - truth) < 5 * values.std() / len(values) ** 0.5
    assert 0.88 <= held <= 1  # of 0.95 promised, by less than 5 deviations of 300 draws
    wider = [f.population.high - f.population.low > f.records.high - f.records.low for f in found]
    assert all(wider)


def test_too_few_records_for_the_noise_are_told_so() -> None:
    program, parameters, some, _ = followed(20)
    found = by_name(program.answers(opened(program, parameters, [some], noise=9.0))[0])
    assert found["C-index between intervals"].value is None
