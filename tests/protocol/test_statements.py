"""What parties signed is kept before a round counts as over, and outlives the coordinator."""

from __future__ import annotations

from pathlib import Path

from privagg.protocol.messages import Opening, Upload
from privagg.protocol.statements import StatementStore
from tests.simulator import NAMES, Simulation


def test_statements_are_kept_once_and_given_back_in_order(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    outcomes = [simulation.round(number) for number in (1, 2)]
    for outcome in (outcomes[1], outcomes[0], outcomes[1]):
        StatementStore.beside(tmp_path).keep(outcome.statements)
    kept = StatementStore.beside(tmp_path).of(simulation.run)  # another process
    assert set(kept) == {s for outcome in outcomes for s in outcome.statements}
    assert [s.kind for s in kept] == 2 * (len(NAMES) * [Upload.kind] + [Opening.kind])
    assert StatementStore.beside(tmp_path).of("another") == ()
    assert outcomes[0].summary().statements == ()


def test_an_attempt_that_stopped_keeps_the_uploads_that_came(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    simulation.wire.answers = {"key-holder": lambda frame: None}
    outcome = simulation.round()
    assert outcome.outcome == "stopped"
    assert [s.kind for s in outcome.statements] == len(NAMES) * [Upload.kind]
