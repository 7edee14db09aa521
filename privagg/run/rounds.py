"""A run's rounds at its coordinator, each with its retries, taken up again where one was killed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from pydantic import JsonValue

from privagg.encoding.vectors import FloatVector
from privagg.protocol.frames import parse_header
from privagg.protocol.job import Job, RoundOutcome
from privagg.protocol.messages import Release, Statement
from privagg.protocol.round import reopen_round, run_round
from privagg.protocol.transport import Transport
from privagg.run.journal import Journal, UnfinishedAttempt
from privagg.run.record import RunRecorder

OnOutcome = Callable[[RoundOutcome], None]


class RoundRunner:
    """Makes one round after the other.

    Args:
        job: what the coordinator holds.
        transport: carries messages to the parties.
        record: what is written down of the run; says which attempts were reported as stopped.
        journal: keeps how far a round is; None where nobody will resume the run.
        attempts: how many a round may take; each is charged again.
    """

    def __init__(
        self,
        job: Job,
        transport: Transport,
        record: RunRecorder,
        *,
        journal: Journal | None,
        attempts: int,
    ) -> None:
        self.job, self.transport = job, transport
        self._record, self.journal = record, journal
        self._attempts = attempts

    def run(
        self,
        number: int,
        parameters: FloatVector,
        on_outcome: OnOutcome,
        *,
        cohort: tuple[str, ...] | None = None,
        settings: Mapping[str, JsonValue] | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> RoundOutcome:
        """One round with its retries.

        Args:
            number: from 1.
            parameters: float64 (d,), the model that the sites start from.
            on_outcome: called with how every attempt made here ended, before the next begins.
            cohort, settings: as for `run_round`; an attempt that was under way keeps its cohort.
            wanted: whether another attempt is, once one has stopped.

        Returns:
            How its last attempt ended; that of a killed coordinator which had recorded its end.

        Raises:
            PrivaggError: the killed coordinator had recorded that the sum was opened, and the key
                holder does not give it again; nothing is reported of it, and it can be asked later.
        """
        begun = self.journal.attempt(number - 1) if self.journal is not None else None
        first = begun.attempt if begun is not None else 1
        ended = self._record.end_of(number, first) if begun is not None else None
        released = set[str]()
        if begun is not None:
            released = _released(self._record.statements, self.job.run, number)
        if begun is not None and ended is not None and ended.outcome == "stopped":
            # It was signed and reported that nothing was opened; to ask again would contradict it.
            final = begun.request is not None and not self.job.may_be_tried_again(number, released)
            if final or first >= self._attempts:
                return RoundOutcome(begun.round, begun.attempt, begun.cohort, reason=ended.reason)
            first, begun = first + 1, None
        for attempt in range(first, self._attempts + 1):
            outcome = self._attempt(number, attempt, parameters, begun, cohort, settings, released)
            on_outcome(outcome)
            released |= _released(outcome.statements, self.job.run, number)
            if outcome.outcome == "opened" or outcome.opening_asked or not wanted():
                break
            begun = None
        return outcome

    def _attempt(
        self,
        number: int,
        attempt: int,
        parameters: FloatVector,
        begun: UnfinishedAttempt | None,
        cohort: tuple[str, ...] | None,
        settings: Mapping[str, JsonValue] | None,
        released: Collection[str],
    ) -> RoundOutcome:
        """One attempt: fresh, or the one that was under way when the coordinator was killed."""
        if begun is not None and begun.request is not None:
            return reopen_round(
                self.job,
                self.transport,
                parameters,
                request=begun.request,
                round_number=number,
                attempt=attempt,
                cohort=begun.cohort,
                # What stopped for good ended above, so what is recorded is that it opened.
                opened=self._record.end_of(number, attempt) is not None,
            )
        return run_round(
            self.job,
            self.transport,
            parameters,
            round_number=number,
            attempt=attempt,
            cohort=begun.cohort if begun is not None else cohort,
            settings=settings,
            journal=self.journal,
            released=released,
        )


def _released(statements: Iterable[Statement], run: str, number: int) -> set[str]:
    """Sites that released in any attempt of a round, by what they signed."""
    found = set[str]()
    for statement in statements:
        if statement.kind == Release.kind:
            said = parse_header(statement.kind, statement.header.encode())
            if (said.run, said.round) == (run, number):
                found.add(said.sender)
    return found
