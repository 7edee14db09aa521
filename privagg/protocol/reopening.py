"""A round resumed by a coordinator that was killed: its opening asked before, or answered."""

from __future__ import annotations

from dataclasses import replace

from privagg.encoding.vectors import FloatVector
from privagg.errors import MessageError, PrivaggError
from privagg.identity.keys import Roster
from privagg.protocol.frames import read_message, read_statement
from privagg.protocol.messages import Opening, OpenRequest, Statement
from privagg.protocol.round import (
    Job,
    RoundOutcome,
    close_round,
    one_line,
    open_round,
    take_opening,
)
from privagg.protocol.transport import Transport


def reopen_round(
    job: Job,
    transport: Transport,
    parameters: FloatVector,
    *,
    request: bytes,
    cohort: tuple[str, ...],
    opened: bool = False,
) -> RoundOutcome:
    """Resume a round whose opening was asked before the coordinator was killed.

    The key holder opens one cohort a round, so this very request is all that can be asked. It has
    the stored answer, where it got the request, and answers now where it did not.

    Args:
        job: what the coordinator holds.
        transport: carries the frames.
        parameters: float64 (d,), the model that the round started from.
        request: the opening request, as the journal kept it.
        cohort: the sites that were asked.
        opened: whether it is recorded that the sum was opened; then the round cannot have stopped,
            and a key holder that does not answer now is an error.

    Raises:
        MessageError: the journal's request is not one of this coordinator's.
        PrivaggError: `opened`, and the answer does not come or does not fit.
    """
    header = read_message(request, Roster.of(job.identity)).header
    if not isinstance(header, OpenRequest) or header.run != job.run:
        raise MessageError(f"the journal of run {job.run!r} holds another request than its own")
    senders = (read_statement(statement, job.roster).sender for statement in header.contributions)
    result = RoundOutcome(header.round, header.attempt, cohort)
    with result.timed("round"):
        opening: Statement | None = None
        try:
            opening = open_round(job, transport, request, tuple(senders), parameters, result)
        except PrivaggError as error:
            if opened:
                raise
            result.reason = one_line(str(error))
        close_round(job, transport, result, opening, header.contributions)
    return result


def reread_round(
    job: Job, parameters: FloatVector, *, ended: RoundOutcome, answer: bytes
) -> RoundOutcome:
    """The update of a round that was opened, again, from what the journal kept; nobody is asked.

    Args:
        job: what the coordinator holds.
        parameters: float64 (d,), the model that the round started from.
        ended: how the round ended, in summary.
        answer: the key holder's answer.

    Returns:
        The outcome with its update.

    Raises:
        MessageError, SignatureError: not this key holder's answer in this round of this run.
        EncodingError, CiphertextError: an answer that does not fit the plan.
    """
    message, result = read_message(answer, job.roster), replace(ended)
    header = message.header
    if (
        not isinstance(header, Opening)
        or header.sender != job.opener
        or header.round_id != (job.run, ended.round, ended.attempt)
        or header.plan_digest != job.plan.digest
        or header.contributors != ended.survivors
    ):
        raise MessageError(
            f"the journal of run {job.run!r} holds another answer than the one to the opening of "
            f"round {ended.round}"
        )
    take_opening(job, message, ended.survivors, parameters, result)
    return result
