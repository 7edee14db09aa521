"""Some of the sites are asked and open together: nobody chooses which, everybody computes it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from privagg.privacy.plan import ClientPlan
from privagg.protocol import site as sites
from privagg.protocol.cohorts import drawn_cohort, draws_cohorts
from privagg.protocol.job import RoundOutcome
from privagg.protocol.round import run_round
from tests.simulator import DIMENSION, Simulation

EIGHT = tuple("abcdefgh")


def simulated(folder: Path, **facts: object) -> Simulation:
    facts = {"cohort_size": 4, "colluders": 1, "rounds": 8, **facts}
    return Simulation(folder, scheme_name="masked", kind=ClientPlan, names=EIGHT, **facts)


def asked(simulation: Simulation, cohort: tuple[str, ...], attempt: int) -> RoundOutcome:
    return run_round(
        simulation.job, simulation.wire, np.zeros(DIMENSION), round_number=1, attempt=attempt,
        cohort=cohort,
    )  # fmt: skip


def test_everybody_has_a_turn_and_another_run_other_cohorts(tmp_path: Path) -> None:
    plan = simulated(tmp_path).plan
    assert draws_cohorts(plan)
    drawn = [drawn_cohort(plan, "ab" * 32, number) for number in range(1, 401)]
    assert all(plan.is_cohort(cohort) for cohort in drawn)
    turns = Counter(name for cohort in drawn for name in cohort)
    assert all(130 < turns[name] < 270 for name in EIGHT)  # 200 each; a deviation is 10
    assert drawn != [drawn_cohort(plan, "cd" * 32, number) for number in range(1, 401)]
    assert not draws_cohorts(plan.model_copy(update={"cohort_size": 0}))


def test_a_round_asks_whose_turn_it_is_in_every_attempt(tmp_path: Path) -> None:
    simulation = simulated(tmp_path)
    for number in (1, 2):
        outcome = simulation.round(number)
        drawn = drawn_cohort(simulation.plan, simulation.job.key_id, number)
        assert (outcome.outcome, outcome.cohort, outcome.survivors) == ("opened", drawn, drawn)


@pytest.mark.parametrize("rule", [True, False])
def test_a_round_has_one_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """The coordinator has one half of the sites open a sum, then the other half, in one round."""
    simulation = simulated(tmp_path)
    if not rule:
        monkeypatch.setattr(sites, "require_drawn", lambda *args: None)
    drawn = drawn_cohort(simulation.plan, simulation.job.key_id, 1)
    others = tuple(name for name in EIGHT if name not in drawn)
    assert asked(simulation, drawn, 1).outcome == "opened"
    outcome = asked(simulation, others, 2)
    assert outcome.outcome == ("stopped" if rule else "opened")
    if rule:
        assert f"it is the turn of {', '.join(drawn)}" in outcome.refusals[others[0]]
    assert [simulation.charges(name) for name in others] == [0 if rule else 1] * 4
