"""The end of a run: the sites' ledgers asked for, replayed, and put into report and bundle.

The coordinator believes a ledger's export only once every entry, rule and signature in it holds,
its owner's pinned identity key signed it, and it extends the checkpoints that came with uploads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from privagg.audit.bundle import NAME as BUNDLE_NAME
from privagg.audit.bundle import ReportBundle
from privagg.audit.replayed import ReplayedLedger
from privagg.errors import LedgerTamperedError, MessageError, PrivaggError
from privagg.privacy.accountant import Accountant
from privagg.privacy.ledger import Ledger
from privagg.protocol.frames import Message, read_message
from privagg.protocol.job import Job
from privagg.protocol.messages import LedgerExport, LedgerRequest, Refusal, Statement
from privagg.protocol.names import COORDINATOR
from privagg.protocol.transport import Reply, Transport
from privagg.report import write_report

ASKING = 3
"""How often a site that sends no ledger is asked again."""


def collect_ledgers(
    job: Job,
    transport: Transport,
    *,
    round_number: int,
    begun: int,
    accountant: Accountant,
    left: Callable[[str], bytes | None] = lambda site: None,
) -> tuple[dict[str, ReplayedLedger], dict[str, str]]:
    """Ask every site for its ledger; what was posted to it before travels along.

    Args:
        job: what the coordinator holds.
        transport: carries the frames.
        round_number: what the request is numbered with.
        begun: the last round that any site was asked for; 0 where there was none.
        accountant: bounds what the ledgers' budgets have spent.
        left: what a site sent as it left, which counts where it does not answer any more.

    Returns:
        Site -> its replayed ledger, and site -> why it sent none that can be used. A site that was
        to join later is asked, too, and not missed: nothing was charged to it.
    """
    frame = _request(job, round_number)
    found: dict[str, ReplayedLedger] = {}
    problems = dict.fromkeys(job.plan.names, "not asked")
    for _ in range(ASKING):
        for reply in transport.exchange(dict.fromkeys(problems, frame)):
            try:
                found[reply.party] = _read_export(job, reply, accountant)
            except PrivaggError as error:
                problems[reply.party] = f"{type(error).__name__}: {error}"
        problems = {name: text for name, text in problems.items() if name not in found}
        if not problems:
            break
    for name in tuple(problems):
        if (kept := left(name)) is None:
            continue
        try:  # whatever it sent as it left: nobody had looked into it
            found[name] = _read_export(job, Reply(name, kept, ""), accountant)
            del problems[name]
        except PrivaggError as error:
            problems[name] += f"; as it left: {type(error).__name__}: {error}"
    there = (name for name in problems if job.plan.rounds_of(name).start <= begun)
    return found, {name: problems[name] for name in there}


def ledgers_of_leavers(
    job: Job, transport: Transport, sites: Sequence[str], round_number: int
) -> Iterator[tuple[str, bytes]]:
    """Ask sites that leave for their ledgers, with which they let go of the run.

    Args:
        job: what the coordinator holds.
        transport: carries the frames.
        sites: who leaves.
        round_number: their last.

    Returns:
        Site -> the frame that it answered with, which is read when the run ends.
    """
    frame = _request(job, round_number)
    silent = dict.fromkeys(sites, frame)
    for _ in range(ASKING if sites else 0):
        for reply in transport.exchange(dict(silent)):
            if reply.data is not None and _is_export(job, reply):
                del silent[reply.party]
                yield reply.party, reply.data
        if not silent:
            break


def _is_export(job: Job, reply: Reply) -> bool:
    """Whether a leaver answered with an export at all; it is read when the run ends."""
    try:
        header = read_message(reply.data or b"", job.roster).header
    except PrivaggError:
        return False
    return isinstance(header, LedgerExport) and header.sender == reply.party


def _request(job: Job, round_number: int) -> bytes:
    header = LedgerRequest(
        run=job.run,
        round=round_number,
        attempt=1,
        sender=job.identity.name,
        plan_digest=job.plan.digest,
    )
    return Message.sign(job.identity, header).to_bytes()


def _read_export(job: Job, reply: Reply, accountant: Accountant) -> ReplayedLedger:
    if reply.data is None:
        raise MessageError(reply.problem)
    message = read_message(reply.data, job.roster)
    header = message.header
    if isinstance(header, Refusal):
        raise MessageError(f"{header.sender!r} refuses: {header.message}")
    if not isinstance(header, LedgerExport) or (header.sender, header.run) != (
        reply.party,
        job.run,
    ):
        raise MessageError(f"{reply.party!r} sent no export of its ledger for this run")
    ledger = ReplayedLedger.parse(
        bytes(message.payload), accountant, what=f"the ledger of {reply.party!r}"
    )
    key = ledger.verifier.public_key.hex()
    if ledger.owner != reply.party or key != job.roster.keys[reply.party]:
        raise LedgerTamperedError(
            f"the ledger that {reply.party!r} sent belongs to {ledger.owner!r} and is signed with "
            f"key {key[:16]}..., pinned is {job.roster.keys[reply.party][:16]}..."
        )
    for note in job.watch.notes(reply.party):
        ledger.replay.check_history(note)
    return ledger


def write_evidence(
    output: Path,
    job: Job,
    *,
    coordinator: Ledger,
    statements: Sequence[Statement],
    sites: Mapping[str, ReplayedLedger],
    accountant: Accountant,
) -> tuple[Path, Path | None, Path]:
    """Write the report and the signed bundle of a run.

    Args:
        output: folder for both.
        job: what the coordinator holds.
        coordinator: the record of the run.
        statements: what the parties signed in it.
        sites: every site's replayed ledger.
        accountant: whose epsilon is reported.

    Returns:
        Paths of the report's JSON, of its page (None where it cannot be drawn), of the bundle.

    Raises:
        LedgerError: two ledgers contradict each other.
        ConfigError: `output` cannot be written to.
    """
    report_json, report_html = write_report(
        output, run=job.run, coordinator=coordinator, sites=sites, accountant=accountant
    )
    evidence = ReportBundle.make(
        report_json.read_bytes(), {COORDINATOR: coordinator, **sites}, job.identity, statements
    )
    bundle = output / BUNDLE_NAME
    evidence.write(bundle)
    return report_json, report_html, bundle
