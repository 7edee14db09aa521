"""Some of the sites are asked and open together: nobody chooses which, everybody computes it."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from privagg.privacy.plan import ClientPlan
from privagg.protocol import site as sites
from privagg.protocol.cohorts import drawn_cohort, draws_cohorts
from privagg.protocol.frames import Message, read_message
from privagg.protocol.job import RoundOutcome
from privagg.protocol.key_statement import pack_cards, split_cards
from privagg.protocol.round import run_round
from privagg.run.keying import key_of_run
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
    assert draws_cohorts(plan, 1)
    drawn = [drawn_cohort(plan, "run-1", number) for number in range(1, 401)]
    assert all(plan.is_cohort(cohort) for cohort in drawn)
    turns = Counter(name for cohort in drawn for name in cohort)
    assert all(130 < turns[name] < 270 for name in EIGHT)  # 200 each; a deviation is 10
    assert drawn != [drawn_cohort(plan, "run-2", number) for number in range(1, 401)]
    assert not draws_cohorts(plan.model_copy(update={"cohort_size": 0}), 1)


def test_a_round_asks_whose_turn_it_is_in_every_attempt(tmp_path: Path) -> None:
    simulation = simulated(tmp_path)
    for number in (1, 2):
        outcome = simulation.round(number)
        drawn = drawn_cohort(simulation.plan, simulation.job.run, number)
        assert (outcome.outcome, outcome.cohort, outcome.survivors) == ("opened", drawn, drawn)


@pytest.mark.parametrize("rule", [True, False])
def test_a_round_has_one_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """The coordinator has one half of the sites open a sum, then the other half, in one round."""
    simulation = simulated(tmp_path)
    if not rule:
        monkeypatch.setattr(sites, "require_drawn", lambda *args: None)
    drawn = drawn_cohort(simulation.plan, simulation.job.run, 1)
    others = tuple(name for name in EIGHT if name not in drawn)
    assert asked(simulation, drawn, 1).outcome == "opened"
    outcome = asked(simulation, others, 2)
    assert outcome.outcome == ("stopped" if rule else "opened")
    if rule:
        assert f"it is the turn of {', '.join(drawn)}" in outcome.refusals[others[0]]
    assert [simulation.charges(name) for name in others] == [0 if rule else 1] * 4


@pytest.mark.parametrize("rule", [True, False])
def test_a_round_has_one_cohort_under_two_keys_of_its_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """Each half of the sites is shown a key of its own cards alone, and asked as the cohort.

    Where cohorts follow from the key, whoever tries names of runs finds one for both halves.
    """
    simulation = simulated(tmp_path)
    drawn = drawn_cohort(simulation.plan, "run-2", 1)
    halves = drawn, tuple(name for name in EIGHT if name not in drawn)
    if not rule:
        monkeypatch.setattr(sites, "require_drawn", lambda *args: None)
    identity, simulation.run = simulation.identities["coordinator"], "run-2"
    whole, _ = key_of_run(simulation.terms, "run-2", identity, simulation.wire)
    message = read_message(whole.frame, simulation.roster)
    frames = dict(zip(whole.members, map(bytes, split_cards(message.payload)), strict=True))
    opened = []
    for half in halves:
        cards = {name: whole.members[name] for name in half}
        made = simulation.terms.joint_key("run-2", cards).key_id
        header = message.header.model_copy(update={"key_id": made})
        shown = Message.sign(identity, header, pack_cards(frames[name] for name in half)).to_bytes()
        for name in half:
            simulation.sites[name].handle(shown)
        simulation.keys["run-2"] = simulation.terms.read(shown, "run-2"), ""
        opened.append(asked(simulation, half, 1).outcome)
    assert opened == ["opened", "stopped" if rule else "opened"]
    assert [simulation.charges(name) for name in halves[1]] == [0 if rule else 1] * 4


def test_no_key_moves_a_cohort(tmp_path: Path) -> None:
    """Cards left out make other keys of a run, and the same cohort."""
    simulation = simulated(tmp_path)
    members = simulation.run_key.members
    keys, cohorts = set(), set()
    for left in itertools.combinations(EIGHT, 6):
        key = simulation.terms.joint_key(simulation.run, {name: members[name] for name in left})
        keys.add(key.key_id)
        simulation.keys[simulation.run] = replace(simulation.run_key, key=key), ""
        cohorts.add(simulation.job.cohort(1))
    assert (len(keys), len(cohorts)) == (28, 1)
