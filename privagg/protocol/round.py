"""One round, whole: charge, train, encrypt at the sites; add; open; step.

`run_round` drives the phases that the scheme declares, in order (`PHASES`). It holds the
coordinator's side only: what happens at a site or a key holder happens behind the transport, in
`privagg.protocol.site` and `privagg.protocol.key_holder`.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import JsonValue

from privagg.encoding.planned import decode_sum
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import (
    KeyErasedError,
    MessageError,
    OpeningRefusedError,
    PrivaggError,
    SchemeError,
)
from privagg.identity.keys import Identity, Roster
from privagg.privacy.plan import Plan
from privagg.protocol.aggregator import TOGETHER, Aggregator, RoundTerms
from privagg.protocol.checkpoints import CheckpointWatch
from privagg.protocol.frames import Message, read_message, read_statement
from privagg.protocol.key_statement import RunKey
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
)
from privagg.protocol.transport import Reply, Transport
from privagg.secure.scheme import Parameters, Phase, Scheme

OPENING_TRIES = 3
"""How often one and the same opening request is sent when no answer comes."""


MAX_REASON = 2048
"""Characters of a reason that are kept."""


@dataclass(frozen=True)
class Job:
    """What the coordinator of a run holds: public facts, its own identity, pinned keys.

    Args:
        run: identifier of the run.
        plan: the agreed plan.
        scheme: the secure aggregation scheme.
        key: the run's key, as its holder stated it.
        key_gone: why nothing is opened under it any more; empty where it is.
        identity: the coordinator's own.
        roster: pinned identity keys of sites and key holder.
        opener: the party that answers opening requests.
        watch: keeps the checkpoints of the sites' ledgers, and knows what the others keep.

    Raises:
        SchemeError: the scheme declares phases that a round does not drive.
    """

    run: str
    plan: Plan
    scheme: Scheme
    key: RunKey
    identity: Identity
    roster: Roster
    opener: str
    watch: CheckpointWatch
    key_gone: str = ""
    keyed: set[str] = field(default_factory=set)
    """Sites known to have the run's key, as they uploaded under it."""

    def __post_init__(self) -> None:
        require_driven(self.scheme)

    @property
    def parameters(self) -> Parameters:
        """The scheme's public parameters, the key's public facts included."""
        return self.key.parameters

    @property
    def key_id(self) -> str:
        """SHA-256 (hex) of the encryption key."""
        return self.key.key_id

    def cohort(self) -> tuple[str, ...]:
        """The sites asked in a round: `addends` of them, drawn uniformly by the OS CSPRNG."""
        names = self.plan.names
        return self.plan.in_order(secrets.SystemRandom().sample(names, self.plan.addends))

    def heading(self, result: RoundOutcome) -> dict[str, Any]:
        """How every message of the coordinator in this round begins."""
        return {
            "run": self.run,
            "round": result.round,
            "attempt": result.attempt,
            "sender": self.identity.name,
            "plan_digest": self.plan.digest,
        }

    def terms(self, round_number: int, attempt: int, cohort: tuple[str, ...]) -> RoundTerms:
        """What the aggregator holds uploads against.

        Args:
            round_number: from 1.
            attempt: from 1.
            cohort: sites that are asked, in roster order.
        """
        return RoundTerms(
            run=self.run,
            round=round_number,
            attempt=attempt,
            plan_digest=self.plan.digest,
            key_id=self.key_id,
            dimension=self.plan.upload_dimension,
            names=self.plan.names,
            cohort=cohort,
            minimum_survivors=self.plan.minimum_survivors,
            strict=self.plan.strict,
        )


@dataclass
class RoundOutcome:
    """How a round ended; every field is a public fact.

    Attributes:
        round: from 1.
        attempt: from 1.
        cohort: sites that were asked, in roster order.
        outcome: `opened`, or `stopped` by the plan's rule before anything was opened.
        reason: why it stopped; empty when opened.
        update: float64 (d,), what `total` means under the plan, the direction that a server
            optimiser steps along; None when stopped, and in a `summary`.
        total: int64 (n,), the opened sum; None as `update`.
        survivors: contributors of the opened sum, in roster order.
        refusals: site -> why something it sent was not taken, or nothing came.
        bytes_up: site -> size of its upload.
        bytes_down: site -> size of the key's statement and the round's start that it was sent.
        seconds: wall-clock seconds of `add` (check, verify, fold), `open` and the whole `round`.
        exchanges: how often messages went out and answers were waited for.
        opening_asked: whether a request to open went out; then no new attempt may be made, as the
            key holder opens one cohort a round.
        answer: the key holder's signed answer, from which the update follows.
        close: the frame that tells the cohort how the round ended; posted, so perhaps not yet sent.
        statements: what the sites signed of their uploads, then the key holder of its opening.
    """

    round: int
    attempt: int
    cohort: tuple[str, ...]
    outcome: Literal["opened", "stopped"] = "stopped"
    reason: str = ""
    update: FloatVector | None = None
    total: IntVector | None = None
    survivors: tuple[str, ...] = ()
    refusals: dict[str, str] = field(default_factory=dict)
    bytes_up: dict[str, int] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    exchanges: int = 0
    opening_asked: bool = False
    answer: bytes = field(default=b"", repr=False)
    close: bytes = field(default=b"", repr=False)
    statements: tuple[Statement, ...] = field(default=(), repr=False)

    def refuse(self, party: str, why: str) -> None:
        """Note why something of a party's was not taken, besides what was noted before."""
        before, why = self.refusals.get(party), one_line(why)
        self.refusals[party] = why if before is None else f"{before}; {why}"

    def summary(self) -> RoundOutcome:
        """The same without what is as large as the model or a frame, for whoever keeps them all."""
        return replace(self, update=None, total=None, answer=b"", close=b"", statements=())

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall-clock time of a block to `seconds[stage]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


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

    Returns:
        The outcome; a round that the plan's rule stops is an outcome, not an error.

    Raises:
        KeyErasedError: nothing would be opened; no site was asked.
    """
    if job.key_gone:
        raise KeyErasedError(job.key_gone)
    result = RoundOutcome(round_number, attempt, cohort or job.cohort())
    if journal is not None:
        journal.begun(result)
    with result.timed("round"):
        terms = job.terms(round_number, attempt, result.cohort)
        _hand_out_key(job, transport, result)
        _call_the_roll(job, transport, result)
        aggregator = Aggregator(terms, job.parameters, job.roster, job.watch)
        state = _RoundState(job, transport, aggregator, parameters, result, settings or {}, journal)
        for phase in job.scheme.phases:
            PHASES[phase](state)
        close_round(job, transport, result, state.opening, aggregator.contributions)
    return result


@dataclass
class _RoundState:
    """What the phases of one round share.

    Attributes:
        opening: the key holder's statement of what it opened; None before that.
    """

    job: Job
    transport: Transport
    aggregator: Aggregator
    parameters: FloatVector
    result: RoundOutcome
    settings: Mapping[str, JsonValue]
    journal: RoundJournal | None
    opening: Statement | None = None


def one_line(text: str) -> str:
    """Another party's words as ledgers, logs and terminals take them: nothing but printed signs."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:MAX_REASON]


def _hand_out_key(job: Job, transport: Transport, result: RoundOutcome) -> None:
    """Have the statement of the run's key come before the round to every site that may lack it."""
    lacking = [site for site in result.cohort if site not in job.keyed]
    transport.post(dict.fromkeys(lacking, job.key.frame))
    result.bytes_down = {site: len(job.key.frame) * (site in lacking) for site in result.cohort}


def _call_the_roll(job: Job, transport: Transport, result: RoundOutcome) -> None:
    """Ask, once a run, which checkpoints of the sites' ledgers key holder and sites keep."""
    parties = job.watch.unreported((*result.cohort, job.opener))
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


def open_round(
    job: Job,
    transport: Transport,
    request: bytes,
    contributors: tuple[str, ...],
    parameters: FloatVector,
    result: RoundOutcome,
) -> Statement:
    """Have the sum opened and decoded; the key holder's statement of what it opened.

    Args:
        job: what the coordinator holds.
        transport: carries the frames.
        request: the signed frame of an `OpenRequest`.
        contributors: whose uploads the sum holds, in roster order.
        parameters: float64 (d,), the model that the round started from.
        result: gets update, survivors and outcome.

    Raises:
        OpeningRefusedError: the key holder does not answer, or refuses.
    """
    message = _ask_opening(job, transport, request, contributors, result)
    return take_opening(job, message, contributors, parameters, result)


def take_opening(
    job: Job,
    message: Message,
    contributors: tuple[str, ...],
    parameters: FloatVector,
    result: RoundOutcome,
) -> Statement:
    """Decode an answer of the key holder's that was checked; its statement of what it opened.

    Args:
        job: what the coordinator holds.
        message: the key holder's answer; its payload is a share of the opened sum.
        contributors: whose uploads the sum holds, in roster order.
        parameters: float64 (d,), the model that the round started from.
        result: gets update, survivors and outcome.
    """
    total = job.scheme.combine(job.parameters, [bytes(message.payload)], len(contributors))
    round_id = (job.run, result.round, result.attempt)
    result.update = decode_sum(job.plan, round_id, parameters, total, contributors)
    result.total = total
    result.survivors, result.outcome = contributors, "opened"
    return message.statement


def _upload(state: _RoundState) -> None:
    """Ask the cohort for contributions and fold them as they come."""
    job, result, transport = state.job, state.result, state.transport
    header = RoundStart(
        **job.heading(result),
        key_id=job.key_id,
        cohort=result.cohort,
        kept_sizes=job.watch.asked(result.cohort, job.opener),
        settings=dict(state.settings),
    )
    payload = np.ascontiguousarray(state.parameters, dtype="<f8").tobytes()
    start = Message.sign(job.identity, header, payload).to_bytes()
    result.bytes_down = {site: size + len(start) for site, size in result.bytes_down.items()}
    result.exchanges += 1
    replies = iter(transport.exchange(dict.fromkeys(result.cohort, start)))
    while some := list(itertools.islice(replies, TOGETHER)):
        _fold_replies(state, some)


def _fold_replies(state: _RoundState, replies: Sequence[Reply]) -> None:
    """Hand in together what came from sites; note who sent nothing, or nothing good."""
    job, result = state.job, state.result
    came: list[tuple[str, bytes]] = []
    for reply in replies:
        _record_kept_sizes(job, replace(reply, data=None))
        if reply.data is None:
            result.refuse(reply.party, reply.problem)
            continue
        result.bytes_up[reply.party] = len(reply.data)
        came.append((reply.party, reply.data))
    with result.timed("add"):
        answers = state.aggregator.receive_many(came)
    for (party, _), answer in zip(came, answers, strict=True):
        if isinstance(answer, PrivaggError):
            result.refuse(party, f"{type(answer).__name__}: {answer}")
            job.watch.doubt(party)
            job.keyed.discard(party)
        else:
            job.keyed.add(party)


def _open(state: _RoundState) -> None:
    """Have the key holder open the sum; where it is not opened, the round has stopped."""
    aggregator = state.aggregator
    try:
        request = aggregator.open_request(state.job.identity).to_bytes()
        if state.journal is not None:
            state.journal.asking(request)
        state.opening = open_round(
            state.job,
            state.transport,
            request,
            aggregator.contributors,
            state.parameters,
            state.result,
        )
    except PrivaggError as error:
        state.result.reason = one_line(str(error))


PHASES: Mapping[Phase, Callable[[_RoundState], None]] = {Phase.UPLOAD: _upload, Phase.OPEN: _open}
"""What a round knows how to drive, in order."""


def require_driven(scheme: Scheme) -> Scheme:
    """Return the scheme if a round drives what it declares.

    Raises:
        SchemeError: it declares other phases, or in another order.
    """
    if scheme.phases != tuple(PHASES):
        declared = ", ".join(phase.value for phase in scheme.phases)
        raise SchemeError(
            f"scheme {scheme.name!r} declares the phases {declared or 'none'}; a round drives "
            f"{', '.join(phase.value for phase in PHASES)}, each once and in this order. Choose "
            "another scheme; no site was asked for anything"
        )
    return scheme


def _ask_opening(
    job: Job,
    transport: Transport,
    frame: bytes,
    contributors: tuple[str, ...],
    result: RoundOutcome,
) -> Message:
    """Have the key holder open the sum; its answer must name exactly these contributors.

    A lost answer is asked for again with the same bytes, which get the same stored answer.
    """
    result.opening_asked = True
    with result.timed("open"):
        for _ in range(OPENING_TRIES):
            result.exchanges += 1
            replies = list(transport.exchange({job.opener: frame}))
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
        or header.contributors != contributors
        or header.request_sha256 != hashlib.sha256(frame).hexdigest()
    ):
        raise OpeningRefusedError(f"{job.opener!r} answered another request than the one asked")
    job.watch.record_kept_sizes(job.opener, header.kept_sizes)
    result.answer = answers[0]
    return message


def close_round(
    job: Job,
    transport: Transport,
    result: RoundOutcome,
    opening: Statement | None,
    contributions: tuple[Statement, ...],
) -> None:
    """Tell the cohort how the round ended, so that every ledger can say what really happened.

    Nobody waits for an answer to this: it travels with whatever the sites are asked next.

    Args:
        job: what the coordinator holds.
        transport: carries the frames.
        result: how the round ended.
        opening: the key holder's statement of what it opened; None where nothing was.
        contributions: the signed statements of the uploads in the sum, in roster order.
    """
    header = RoundClose(
        **job.heading(result),
        outcome=result.outcome,
        survivors=result.survivors,
        reason=result.reason,
        opening=opening,
        contributions=contributions if opening is not None else (),
    )
    result.close = Message.sign(job.identity, header).to_bytes()
    result.statements = contributions if opening is None else (*contributions, opening)
    job.watch.relayed(result.cohort, result.survivors)
    transport.post(dict.fromkeys(result.cohort, result.close))


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

    The key holder opens one cohort a round, so this very request is all that can be asked. It has
    the stored answer, where it got the request, and answers now where it did not.

    Args:
        job: what the coordinator holds.
        transport: carries the frames.
        parameters: float64 (d,), the model that the round started from.
        request: the opening request, as the journal kept it.
        round_number, attempt: which attempt was under way; the request must be of it.
        cohort: the sites that were asked.
        opened: whether it is recorded that the sum was opened; then the round cannot have stopped,
            and a key holder that does not answer now is an error.

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
