"""The rounds of an optimiser that is not ours, answered again as they were before a kill.

What Flower's strategies remember (moments, momentum, counters) is theirs, and no checkpoint of ours
holds it. So a strategy starts again from its first round, and as long as it asks for just what it
asked for before, each round that is over is answered from the journal: the same opened mean, at no
exchange and no cost. Then the round that was under way goes on, and then fresh ones follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from pydantic import JsonValue

from privagg.encoding.vectors import FloatVector
from privagg.errors import ResumeError
from privagg.protocol.job import RoundOutcome
from privagg.protocol.round import reread_round
from privagg.run.differences import told_differences
from privagg.run.journal import Asked
from privagg.run.rounds import OnOutcome, RoundRunner


class ReplayedRounds:
    """Answers an optimiser's rounds: those that are over from the journal, the others by running.

    Args:
        rounds: what runs a round.
        on_outcome: called with how every attempt that is made ended; not for those made before.
        over: whether the run has ended; then it makes no further round.

    Guarantees:
        Nothing is sent, and nothing charged, for a round that is over; nor for any round once the
        optimiser asks for something else than it asked for before.
    """

    def __init__(self, rounds: RoundRunner, on_outcome: OnOutcome, *, over: bool = False) -> None:
        self._rounds, self._on_outcome, self._over = rounds, on_outcome, over
        self._journal = rounds.journal

    def __call__(
        self,
        number: int,
        parameters: FloatVector,
        *,
        settings: Mapping[str, JsonValue],
        cohort: tuple[str, ...],
    ) -> RoundOutcome:
        """How a round ended, with its update where it was opened.

        Args:
            number: from 1.
            parameters: float64 (d,), the model that the optimiser sends.
            settings: settings of the sites' training beyond the plan.
            cohort: the sites to ask where the round is not over.

        Raises:
            ResumeError: not what this round was asked with before the coordinator was killed; or
                a new round of a run that has ended.
        """
        asked = self._asked(parameters, settings)
        before = self._journal.asked(number) if self._journal is not None else None
        if before is not None:
            self._require_same(number, before, asked)
            outcome = self._again(number, parameters)
            if outcome is not None:
                return outcome
        if self._over:
            raise ResumeError(
                f"run {self._rounds.job.run!r} has ended before round {number}; start a new run; "
                "nothing was spent"
            )
        if self._journal is not None and before is None:
            self._journal.asks(number, asked)
        outcome = self._rounds.run(
            number, parameters, self._on_outcome, cohort=cohort, settings=asked.settings
        )
        if self._journal is not None:
            self._journal.ended(outcome)
        return outcome

    def _asked(self, parameters: FloatVector, settings: Mapping[str, JsonValue]) -> Asked:
        job, model = self._rounds.job, np.ascontiguousarray(parameters, dtype="<f8")
        digest = hashlib.sha256(model.data).hexdigest()
        return Asked(job.plan.digest, job.key_id, digest, dict(settings))

    def _again(self, number: int, parameters: FloatVector) -> RoundOutcome | None:
        """A round that is over, as the journal has it."""
        assert self._journal is not None
        ended = self._journal.end_of(number)
        if ended is None:
            return None
        if ended.close and self._journal.end_of(number + 1) is None:
            # The sites may not have heard how the last finished round ended; they record it once.
            cohort = ended.outcome.cohort
            self._rounds.transport.post(dict.fromkeys(cohort, ended.close))
        if ended.outcome.outcome != "opened":
            return ended.outcome
        job = self._rounds.job
        return reread_round(job, parameters, ended=ended.outcome, answer=ended.answer)

    def _require_same(self, number: int, before: Asked, now: Asked) -> None:
        if before == now:
            return
        run = f"run {self._rounds.job.run!r} cannot be resumed"
        way_out = "start it as it was begun, or start a new run; nothing was spent"
        if (before.plan_digest, before.key_id) != (now.plan_digest, now.key_id):
            raise ResumeError(f"{run}: it was begun under another plan or key; {way_out}")
        others = []
        if before.model_sha256 != now.model_sha256:
            cause = "the initial model" if number == 1 else "strategy, its settings or its version"
            others.append(
                f"the model's values (SHA-256 {before.model_sha256[:16]}... then, "
                f"{now.model_sha256[:16]}... now): another {cause}"
            )
        told = told_differences(before.settings, now.settings, others)
        raise ResumeError(f"{run}: round {number} is asked with something else. {told}. {way_out}")
