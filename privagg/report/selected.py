"""What evaluations between a training's rounds opened, and which round is best by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from privagg.errors import LedgerError
from privagg.privacy.ledger.entries import Payload, RoundEnded, RunStarted
from privagg.programs.evaluation import Evaluation
from privagg.programs.evaluation.estimates import FloatArray
from privagg.programs.evaluation.rounds import RoundsMeasure
from privagg.report.answered import asks, opened_sums, plan_in, program_in

ROUND = "round"
"""What is recorded as released of a round whose model is evaluated."""


def looks_run(run: str) -> str:
    """What the job of the evaluations between a run's rounds is called.

    Args:
        run: the training.
    """
    return f"{run}.rounds"


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
