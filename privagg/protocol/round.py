"""One round, whole: charge, train, encrypt at the sites; add; open; step.

`run_round` drives the phases that the scheme declares, in order (`PHASES`). It holds the
coordinator's side only: what happens at a site or a key holder happens behind the transport, in
`privagg.protocol.site` and `privagg.protocol.key_holder`.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from pydantic import JsonValue

from privagg.encoding.planned import decode_sum
from privagg.encoding.vectors import FloatVector
from privagg.errors import (
    CohortError,
    KeyErasedError,
    MessageError,
    OpeningRefusedError,
    PrivaggError,
)
from privagg.identity.keys import Roster
from privagg.protocol.aggregator import TOGETHER, Aggregator
from privagg.protocol.frames import Message, read_message, read_statement
from privagg.protocol.job import OPENING_TRIES, Job, RoundOutcome, one_line
from privagg.protocol.messages import (
    Acknowledgement,
    Challenge,
    Opening,
    OpenRequest,
    Presence,
    Refusal,
    RoundClose,
    RoundStart,
    Statement,
    start_digest,
)
from privagg.protocol.transport import Counted, Reply, Transport
from privagg.protocol.unmasking import Unmasking
from privagg.secure.scheme import Phase, Recovery

RELEASED_BEFORE = "it released in an earlier attempt of this round, and contributes to no other"


class RoundJournal(Protocol):
    """Where a coordinator durably notes how far it is, so that a killed one can resume."""

    def begun(self, result: RoundOutcome) -> None:
        """The cohort is about to be asked; sites that answered resend the same stored bytes."""
        ...

    def asking(self, request: bytes) -> None:
        """This very request is about to be sent; no other one would be opened any more."""
        ...


def run_round(
    job: Job,
    transport: Transport,
    parameters: FloatVector,
    *,
    round_number: int,
    attempt: int = 1,
    cohort: tuple[str, ...] | None = None,
    settings: Mapping[str, JsonValue] | None = None,
    journal: RoundJournal | None = None,
    released: Collection[str] = (),
) -> RoundOutcome:
    """Run one round over a transport.

    Args:
        job: what the coordinator holds.
        transport: carries the frames.
        parameters: float64 (d,), the model that the sites start from.
        round_number: from 1.
        attempt: from 1; a new attempt is charged again by every site.
        cohort: sites to ask, in roster order and as many as the plan asks; drawn where not given.
        settings: settings of the sites' training beyond the plan; public.
        journal: notes how far the round is; None where nobody will resume it.
        released: sites that released in an earlier attempt of the round: they are asked for no
            upload, as one of theirs beside that release would break the rule of one list.

    Returns:
        The outcome; a round that the plan's rule stops is an outcome, not an error.

    Raises:
        KeyErasedError: nothing would be opened; no site was asked.
    """
    if job.key_gone:
        raise KeyErasedError(job.key_gone)
    result = RoundOutcome(round_number, attempt, cohort or job.cohort(round_number))
    transport = Counted(transport, sent=result.bytes_down, came=result.bytes_up)
    if journal is not None:
        journal.begun(result)
    with result.timed("round"):
        _tell_who_has_no_card(job, result)
        _hand_out_key(job, transport, result)
        _call_the_roll(job, transport, result)
        barred = {**dict.fromkeys(released, RELEASED_BEFORE), **job.convicted}
        state = _RoundState(job, transport, parameters, result, settings or {}, journal, barred)
        _drive(state, job.scheme.phases)
        _close(state, state.aggregator.contributions if state.aggregator is not None else ())
    return result


@dataclass
class _RoundState:
    """What the phases of one round share.

    Attributes:
        barred: sites that are not asked for an upload, and why.
        aggregator: holds the sum; None before the upload, and where a killed coordinator's request
            is asked again.
        request: the frame that asks for the opening; nothing else is opened once it is there.
        contributors: whose uploads it asks for, in roster order.
        opening: the opener's statement of what was opened; None before that.
        unmasking: how the contributors open it together; None where one party opens.
        opened: whether it is recorded that the sum was opened; then the round cannot stop.
    """

    job: Job
    transport: Transport
    parameters: FloatVector
    result: RoundOutcome
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    journal: RoundJournal | None = None
    barred: Mapping[str, str] = field(default_factory=dict)
    aggregator: Aggregator | None = None
    request: bytes = b""
    contributors: tuple[str, ...] = ()
    opening: Statement | None = None
    unmasking: Unmasking | None = None
    opened: bool = False


def _drive(state: _RoundState, phases: Iterable[Phase]) -> None:
    """The phases in turn; where one does not come to its end, by the rules, the round stops."""
    for phase in phases:
        try:
            PHASES[phase](state)
        except PrivaggError as error:
            if state.opened or (phase is Phase.UPLOAD and not isinstance(error, CohortError)):
                raise
            state.result.reason = one_line(str(error))
            return


def _fresh_aggregator(
    job: Job, result: RoundOutcome, start: str, recovery: Recovery | None
) -> Aggregator:
    """Of the round, before any upload."""
    terms = job.terms(result.round, result.attempt, result.cohort, start)
    return Aggregator(terms, job.parameters, job.roster, job.watch, recovery)


def _tell_who_has_no_card(job: Job, result: RoundOutcome) -> None:
    """Name whoever is asked and has no key of its own in this run, with the reason."""
    for site in result.cohort if job.scheme.every_site else ():
        if site not in job.key.members:
            why = job.key.without.get(site, "it was left out when the run's cards were gathered")
            result.refuse(site, f"it has no card in this run: {why}")


def _hand_out_key(job: Job, transport: Transport, result: RoundOutcome) -> None:
    """Have the statement of the run's key come before the round to every site that may lack it."""
    lacking = [site for site in result.cohort if site not in job.keyed]
    transport.post(dict.fromkeys(lacking, job.key.frame))


def _call_the_roll(job: Job, transport: Transport, result: RoundOutcome) -> None:
    """Ask, once a run, which checkpoints of the sites' ledgers key holder and sites keep."""
    asked = (name for name in (*result.cohort, job.opener) if name != job.identity.name)
    parties = job.watch.unreported(asked)
    if not parties:
        return
    header = Challenge(**job.heading(result), nonce=secrets.token_hex(32))
    frame = Message.sign(job.identity, header).to_bytes()
    result.exchanges += 1
    for party in parties:
        job.watch.record_kept_sizes(party, {})
    for reply in transport.exchange(dict.fromkeys(parties, frame)):
        _record_kept_sizes(job, reply, header.nonce)


def _record_kept_sizes(job: Job, reply: Reply, nonce: str = "") -> None:
    """Note what a party says that it keeps, in answer to a challenge or to what was posted."""
    for frame in (*reply.posted, reply.data or b""):
        try:
            header = read_message(frame, job.roster).header
        except PrivaggError:
            continue
        if (header.sender, header.run) != (reply.party, job.run):
            continue
        if isinstance(header, Acknowledgement):
            job.watch.record_kept_sizes(reply.party, header.kept_sizes)
        if isinstance(header, Presence) and header.nonce == nonce:
            job.watch.record_kept_sizes(reply.party, header.kept_sizes)


def _upload(state: _RoundState) -> None:
    """Ask the cohort for contributions and fold them as they come.

    Where contributors contradict each other the sum may be made again without some of them: of the
    same stored uploads, which are free.
    """
    job, result, transport = state.job, state.result, state.transport
    header = RoundStart(
        **job.heading(result),
        key_id=job.key_id,
        cohort=result.cohort,
        kept_sizes=job.watch.asked(result.cohort, job.opener),
        settings=dict(state.settings),
    )
    payload = np.ascontiguousarray(state.parameters, dtype="<f8").tobytes()
    message = Message.sign(job.identity, header, payload)
    frame, start = message.to_bytes(), start_digest(header, message.payload_digest)
    asked, recovery = _unbarred(state), job.recovery(result)
    while True:
        state.aggregator = _fresh_aggregator(job, result, start, recovery)
        result.exchanges += 1
        replies = iter(transport.exchange(dict.fromkeys(asked, frame)))
        while some := list(itertools.islice(replies, TOGETHER)):
            _fold_replies(state, state.aggregator, some)
        wrong = state.aggregator.leave_out(job.failures)
        if not wrong:
            return
        for site in asked:
            if site in wrong:
                result.refuse(site, wrong[site])
        asked = tuple(site for site in result.cohort if site not in {*wrong, *state.barred})
        for site in asked:  # it is looked at anew
            result.refusals.pop(site, None)


def _unbarred(state: _RoundState) -> tuple[str, ...]:
    """The sites to ask for an upload.

    Raises:
        CohortError: fewer than a sum needs; then nobody is charged.
    """
    result = state.result
    least = state.job.plan.in_round(result.round).minimum_survivors
    for site in result.cohort:
        if site in state.barred:
            result.refuse(site, state.barred[site])
    asked = tuple(site for site in result.cohort if site not in state.barred)
    if len(asked) < least:
        told = "; ".join(f"{site}: {why}" for site, why in result.refusals.items())
        raise CohortError(
            f"{len(asked)} sites are left, a sum needs {least}; none was asked: {told}"
        )
    return asked


def _fold_replies(state: _RoundState, aggregator: Aggregator, replies: Sequence[Reply]) -> None:
    """Hand in together what came from sites; note who sent nothing, or nothing good."""
    job, result = state.job, state.result
    came: list[tuple[str, bytes]] = []
    for reply in replies:
        _record_kept_sizes(job, replace(reply, data=None))
        if reply.data is None:
            result.refuse(reply.party, reply.problem)
            continue
        result.upload_bytes[reply.party] = len(reply.data)
        came.append((reply.party, reply.data))
    with result.timed("add"):
        answers = aggregator.receive_many(came)
    for (party, _), answer in zip(came, answers, strict=True):
        if isinstance(answer, PrivaggError):
            result.refuse(party, f"{type(answer).__name__}: {answer}")
            job.watch.doubt(party)
            job.keyed.discard(party)
        else:
            job.keyed.add(party)


def _make_request(state: _RoundState) -> None:
    """Ask for the opening of what was folded and nothing else from now on, also once resumed."""
    if state.request:
        return
    assert state.aggregator is not None
    request = state.aggregator.open_request(state.job.identity).to_bytes()
    if state.journal is not None:
        state.journal.asking(request)
    state.request, state.contributors = request, state.aggregator.contributors


def _open(state: _RoundState) -> None:
    """Have the key holder open the sum."""
    _make_request(state)
    _take_opening(state, _ask_opening(state))


def _consent(state: _RoundState) -> None:
    """Have the contributors agree on the list, where somebody is missing from it."""
    _make_request(state)
    state.unmasking = Unmasking(state.job, state.transport, state.result, state.request)
    state.unmasking.agree()


def _release(state: _RoundState) -> None:
    """Have the contributors release what unmasks the sum."""
    assert state.unmasking is not None
    _take_opening(state, state.unmasking.open())


PHASES: Mapping[Phase, Callable[[_RoundState], None]] = {
    Phase.UPLOAD: _upload,
    Phase.OPEN: _open,
    Phase.CONSENT: _consent,
    Phase.RELEASE: _release,
}
"""What a round does in each phase; `privagg.protocol.job.DRIVEN` has the orders."""


def _ask_opening(state: _RoundState) -> Message:
    """Have the key holder open the sum; its answer must name exactly these contributors.

    A lost answer is asked for again with the same bytes, which get the same stored answer.
    """
    job, result, frame = state.job, state.result, state.request
    result.opening_asked = True
    with result.timed("open"):
        for _ in range(OPENING_TRIES):
            result.exchanges += 1
            replies = list(state.transport.exchange({job.opener: frame}))
            answers = [reply.data for reply in replies if reply.data is not None]
            if answers:
                break
        if not answers:
            problem = replies[-1].problem if replies else "no answer"
            raise OpeningRefusedError(f"{job.opener!r} did not open the round: {problem}")
        try:
            message = read_message(answers[0], job.roster)
        except PrivaggError as error:
            raise OpeningRefusedError(f"the answer of {job.opener!r}: {error}") from error
    header = message.header
    if isinstance(header, Refusal):
        raise OpeningRefusedError(f"{header.sender!r} refuses to open: {header.message}")
    if (
        not isinstance(header, Opening)
        or header.sender != job.opener
        or header.round_id != (job.run, result.round, result.attempt)
        or (header.plan_digest, header.key_id) != (job.plan.digest, job.key_id)
        or header.contributors != state.contributors
        or header.request_sha256 != hashlib.sha256(frame).hexdigest()
    ):
        raise OpeningRefusedError(f"{job.opener!r} answered another request than the one asked")
    job.watch.record_kept_sizes(job.opener, header.kept_sizes)
    result.answer = answers[0]
    return message


def _take_opening(state: _RoundState, message: Message) -> None:
    """Decode an answer that was checked: the round is opened."""
    decode_opening(state.job, message, state.contributors, state.parameters, state.result)
    state.opening = message.statement


def decode_opening(
    job: Job,
    message: Message,
    contributors: tuple[str, ...],
    parameters: FloatVector,
    result: RoundOutcome,
) -> None:
    """Decode an answer of the opener's that was checked.

    Args:
        job: what the coordinator holds.
        message: the answer; its payload is a share of the opened sum.
        contributors: whose uploads the sum holds, in roster order.
        parameters: float64 (d,), the model that the round started from.
        result: gets update, total, survivors and outcome.
    """
    total = job.scheme.combine(job.parameters, [bytes(message.payload)], len(contributors))
    round_id = (job.run, result.round, result.attempt)
    result.update = decode_sum(job.plan, round_id, parameters, total, contributors)
    result.total = total
    result.survivors, result.outcome = contributors, "opened"


def _close(state: _RoundState, contributions: tuple[Statement, ...]) -> None:
    """Tell the cohort how the round ended, so that every ledger can say what really happened.

    Nobody waits for an answer to this: it travels with whatever the sites are asked next.

    Args:
        state: how the round ended.
        contributions: the signed statements of the uploads in the sum, in roster order.
    """
    job, result, opening = state.job, state.result, state.opening
    unmasking = state.unmasking
    header = RoundClose(
        **job.heading(result),
        outcome=result.outcome,
        survivors=result.survivors,
        reason=result.reason,
        opening=opening,
        contributions=contributions if opening is not None else (),
        releases=unmasking.releases if unmasking is not None and opening is not None else (),
    )
    result.close = Message.sign(job.identity, header).to_bytes()
    result.statements = contributions if opening is None else (*contributions, opening)
    if unmasking is not None:
        result.statements += unmasking.statements
    job.watch.relayed(result.cohort, result.survivors)
    state.transport.post(dict.fromkeys(result.cohort, result.close))


def reopen_round(
    job: Job,
    transport: Transport,
    parameters: FloatVector,
    *,
    request: bytes,
    round_number: int,
    attempt: int,
    cohort: tuple[str, ...],
    opened: bool = False,
) -> RoundOutcome:
    """Resume a round whose opening was asked before the coordinator was killed.

    One cohort a round is opened, so this very request is all that can be asked. Whoever got it has
    the stored answer, and answers now where it did not.

    Args:
        job: what the coordinator holds.
        transport: carries the frames.
        parameters: float64 (d,), the model that the round started from.
        request: the opening request, as the journal kept it.
        round_number, attempt: which attempt was under way; the request must be of it.
        cohort: the sites that were asked.
        opened: whether it is recorded that the sum was opened; then the round cannot have stopped,
            and an opener that does not answer now is an error.

    Raises:
        MessageError: the journal's request is not one of this coordinator's in this attempt.
        PrivaggError: `opened`, and the answer does not come or does not fit.
    """
    header = read_message(request, Roster.of(job.identity)).header
    round_id = (job.run, round_number, attempt)
    if not isinstance(header, OpenRequest) or header.round_id != round_id:
        raise MessageError(
            f"the journal of run {job.run!r} holds another request than that of round "
            f"{round_number}, attempt {attempt}"
        )
    senders = (read_statement(statement, job.roster).sender for statement in header.contributions)
    result = RoundOutcome(round_number, attempt, cohort)
    transport = Counted(transport, sent=result.bytes_down, came=result.bytes_up)
    with result.timed("round"):
        state = _RoundState(job, transport, parameters, result, request=request, opened=opened)
        state.contributors = tuple(senders)
        _drive(state, (phase for phase in job.scheme.phases if phase is not Phase.UPLOAD))
        _close(state, header.contributions)
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
    decode_opening(job, message, ended.survivors, parameters, result)
    return result
