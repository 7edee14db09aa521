"""Which of a training's rounds was released, and why: from the opened sums of its evaluations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from privagg.errors import LedgerError
from privagg.privacy.ledger.entries import Payload, Released, RoundEnded, RunStarted
from privagg.programs.evaluation import Evaluation
from privagg.programs.evaluation.estimates import FloatArray
from privagg.programs.evaluation.rounds import RoundsMeasure
from privagg.report.answered import asks, opened_sums, plan_in, program_in

ROUND = "round"
"""What is recorded as released of a round whose model is evaluated."""


@dataclass(frozen=True)
class Looks:
    """What evaluations between a training's rounds opened.

    Attributes:
        measure: how they are compared; None where none was begun.
        opened: float64 (2,) each, in records, with noise.
    """

    measure: RoundsMeasure | None = None
    opened: tuple[FloatArray, ...] = ()

    def best(self) -> int:
        """The training's round with the best figure; there is one at least."""
        assert self.measure is not None
        return self.measure.best(self.opened)

    def stops(self, count: int) -> bool:
        """Whether the training stops after the first `count` of them; there are as many."""
        assert self.measure is not None
        return self.measure.stops(self.opened[:count])


def looks_of(payloads: Iterable[Payload], run: str) -> Looks:
    """What a job of evaluations between rounds opened, by the coordinator's record.

    Args:
        payloads: of the coordinator's ledger.
        run: the job's name.

    Raises:
        LedgerError: the record holds no such job, or not its sums.
        ProgramMissingError: its program is not installed here.
    """
    started, rounds = None, list[RoundEnded]()
    for payload in payloads:
        if isinstance(payload, RunStarted) and payload.run == run:
            started = payload
        elif isinstance(payload, RoundEnded) and payload.run == run:
            rounds.append(payload)
    if started is None:
        return Looks()
    plan = plan_in(started.facts)
    program = program_in(plan)
    if not asks(plan) or not isinstance(program, Evaluation) or program.rounds is None:
        raise LedgerError(f"run {run!r} compares no rounds of a training, by its recorded plan")
    return Looks(program.rounds, tuple(program.looks(opened_sums(plan, rounds))))


@dataclass(frozen=True)
class Selected:
    """Which round's model a training released.

    Attributes:
        looks: name of the job whose opened sums say so.
        round: the round.
        last: the last round that was opened.
        planned: how many there were to be.
        model: SHA-256 (hex) of that round's model, as it was recorded before it was evaluated.
    """

    looks: str
    round: int
    last: int
    planned: int
    model: str | None


def claimed_selection(payloads: Iterable[Payload], run: str, planned: int) -> Selected | None:
    """What the coordinator recorded of the round that a training released; None where nothing.

    Args:
        payloads: of the coordinator's ledger.
        run: the training's name.
        planned: its rounds.

    Raises:
        LedgerError: it recorded something else in that place.
    """
    chosen: dict[str, Any] | None = None
    models, last = dict[int, str](), 0
    for payload in payloads:
        if isinstance(payload, RoundEnded) and payload.run == run and payload.outcome == "opened":
            last = max(last, payload.round)
        elif isinstance(payload, Released) and payload.facts.get("run") == run:
            chosen = payload.facts.get("selected")
        elif isinstance(payload, Released) and payload.facts.get("of") == run:
            models[payload.facts.get("round", 0)] = str(payload.facts.get(f"{ROUND}_sha256"))
    if chosen is None:
        return None
    try:
        looks, number = str(chosen["looks"]), int(chosen["round"])
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"the record does not say which round was selected: {error}") from error
    return Selected(looks, number, last, planned, models.get(number))
