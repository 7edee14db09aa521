"""A coordinator gets the key of its run from whoever states it, and keeps it with the journal."""

from __future__ import annotations

from dataclasses import replace

from privagg.errors import KeyErasedError, KeyMismatchError, PrivaggError, ResumeError
from privagg.identity.keys import Identity
from privagg.protocol.frames import Message, read_message
from privagg.protocol.job import Job, one_line
from privagg.protocol.key_statement import FIRST, KeyTerms, RunKey, pack_cards
from privagg.protocol.messages import KeyRequest, KeyStatement, Refusal
from privagg.protocol.transport import Reply, Transport
from privagg.run.journal import Journal

ASKING = 3
"""How often the key holder is asked where no answer comes; it states the same key each time."""


def key_of_run(
    terms: KeyTerms,
    run: str,
    identity: Identity,
    transport: Transport,
    journal: Journal | None = None,
    *,
    number: int = FIRST,
    over: bool = False,
) -> tuple[RunKey, str]:
    """The key of a run's round, and why nothing is opened under it any more (empty where it is).

    Args:
        terms: what the statement is held against.
        run: identifier of the run.
        identity: the coordinator's own.
        transport: carries the request to the key holder.
        journal: of the run, where it may be resumed: keeps the statement, and has it already
            where the run is.
        number: of the round; all rounds have one key, or all of a roster epoch.
        over: no round is left to be asked for; then nobody is asked for a key that is kept.

    Raises:
        KeyErasedError: the key is gone before the run began.
        KeyMismatchError: the key holder states none, or another than the journal has.
        ResumeError: the run was begun under another key, plan or federation.
        PrivaggError: what it states is not what `terms` ask for.
    """
    first = terms.first_under_key(number)
    kept = journal.key(first) if journal is not None else None
    known = None if kept is None else _begun_with(kept, terms, run)
    if over and known is not None:
        return known, f"run {run!r} is over"
    if known is not None and terms.scheme.every_site:
        return known, ""  # the cards of a run are those that its sites were shown
    without = dict[str, str]()
    try:
        if terms.scheme.every_site:
            answer, without = _gather_cards(terms, run, first, identity, transport)
        else:
            answer = _ask(terms, run, identity, transport)
    except KeyErasedError as error:
        if known is None:
            raise
        return known, str(error)
    stated = terms.read(answer, run)
    if known is not None and known.frame != stated.frame:
        raise ResumeError(
            f"run {run!r} was begun under key {known.key_id[:16]}..., {terms.opener!r} now states "
            f"{stated.key_id[:16]}...; start a new run"
        )
    if journal is not None and known is None:
        journal.keep_key(stated.frame, first)
    return replace(stated, without=without) if without else stated, ""


def in_epoch(job: Job, terms: KeyTerms, transport: Transport, journal: Journal, number: int) -> Job:
    """A run's job as it goes on with round `number`: under that one's key.

    Args:
        job: as it was.
        terms: what the statement of a key is held against.
        transport: carries messages to the parties.
        journal: the run's.
        number: of the round.

    Raises:
        As `key_of_run`.
    """
    if job.key.first == terms.first_under_key(number):
        return job
    key, gone = key_of_run(terms, job.run, job.identity, transport, journal, number=number)
    return replace(job, key=key, key_gone=gone, keyed=set())


def _begun_with(kept: bytes, terms: KeyTerms, run: str) -> RunKey:
    try:
        return terms.read(kept, run)
    except PrivaggError as error:
        raise ResumeError(
            f"run {run!r} cannot be resumed: the statement of its key that its journal keeps does "
            f"not hold here ({error}). Nothing more was spent"
        ) from error


def _ask(terms: KeyTerms, run: str, identity: Identity, transport: Transport) -> bytes:
    """The key holder's answer, where it is a statement.

    Raises:
        KeyErasedError, KeyMismatchError: it refuses, or does not answer.
    """
    frame = _request(terms, run, FIRST, identity)
    problem = "no answer"
    for _ in range(ASKING):
        for reply in transport.exchange({terms.opener: frame}):
            if reply.data is not None:
                return _statement_in(reply.data, terms, run)
            problem = reply.problem
    raise KeyMismatchError(
        f"{terms.opener!r} stated no key for run {run!r}: {one_line(problem)}; nothing was spent"
    )


def _request(terms: KeyTerms, run: str, first: int, identity: Identity) -> bytes:
    header = KeyRequest(
        run=run,
        round=first,
        attempt=FIRST,
        sender=identity.name,
        plan_digest=terms.plan_digest,
        federation_digest=terms.federation_digest,
    )
    return Message.sign(identity, header).to_bytes()


def _gather_cards(
    terms: KeyTerms, run: str, first: int, identity: Identity, transport: Transport
) -> tuple[bytes, dict[str, str]]:
    """The cards of a roster epoch, each site's own, stated together by the coordinator.

    A site that makes none takes no part in its rounds.

    Returns:
        The statement, and site -> why what came of it counts as no card, where it does.

    Raises:
        KeyMismatchError: too few sites do; the message says why each of the others does not.
    """
    frame, sites = _request(terms, run, first, identity), terms.sites(first)
    cards, problems = dict[str, bytes](), dict.fromkeys(sites, "no answer")
    for _ in range(ASKING):
        silent = [site for site in sites if site in problems]
        for reply in transport.exchange(dict.fromkeys(silent, frame)) if silent else ():
            try:
                cards[reply.party] = _card_in(reply, terms, run, first)
                del problems[reply.party]
            except PrivaggError as error:
                problems[reply.party] = one_line(str(error))
    frames = {site: cards[site] for site in sites if site in cards}
    messages = {site: read_message(card, terms.roster) for site, card in frames.items()}
    try:
        key = terms.joint_key(run, {site: bytes(m.payload) for site, m in messages.items()}, first)
    except KeyMismatchError as error:
        told = "; ".join(f"{site}: {why}" for site, why in problems.items())
        raise KeyMismatchError(
            f"{error}. {told or 'Start a new run'}; nothing was spent"
        ) from error
    stated = KeyStatement(
        run=run,
        round=first,
        attempt=FIRST,
        sender=identity.name,
        plan_digest=terms.plan_digest,
        federation_digest=terms.federation_digest,
        parameters_fingerprint=key.parameters.fingerprint,
        key_id=key.key_id,
        until=terms.last_day((terms.take_card(each, run) for each in messages.values()), first),
    )
    return Message.sign(identity, stated, pack_cards(frames.values())).to_bytes(), problems


def _card_in(reply: Reply, terms: KeyTerms, run: str, first: int) -> bytes:
    """A site's card, if it is that site's own for these rounds of the run."""
    if reply.data is None:
        raise KeyMismatchError(reply.problem)
    message = read_message(_statement_in(reply.data, terms, run), terms.roster)
    stated = terms.take_card(message, run)
    if stated.sender != reply.party:
        raise KeyMismatchError(f"{reply.party!r} sent another site's card")
    if stated.round != first:
        raise KeyMismatchError(
            f"{reply.party!r} sent its card of the rounds from {stated.round} on; asked was that "
            f"from round {first} on"
        )
    return reply.data


def _statement_in(data: bytes, terms: KeyTerms, run: str) -> bytes:
    try:
        header = read_message(data, terms.roster).header
    except PrivaggError as error:
        raise KeyMismatchError(f"the answer of {terms.opener!r}: {error}") from error
    if not isinstance(header, Refusal):
        return data
    said = f"{header.sender!r} states no key for run {run!r}: {one_line(header.message)}"
    raise KeyErasedError(said) if header.reason == "key-erased" else KeyMismatchError(said)
