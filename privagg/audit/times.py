"""When entries say that they were made: in order, not before privagg and not after now.

A clock is its owner's, so a time inside these limits stays what its owner attests.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from privagg.audit.claims import Findings
from privagg.audit.replayed import ReplayedLedger
from privagg.privacy.ledger import Entry
from privagg.report.model import Report

EARLIEST = "2025-01-01"
"""No ledger in this format is older."""

SLACK = timedelta(days=1)
"""By which clocks of honest parties may differ."""


def check_generated(findings: Findings, report: Report, now: datetime | None = None) -> None:
    """Whether the report's own time is one at which it can have been made.

    Args:
        findings: gets a claim where the time cannot be true.
        report: states the time.
        now: with a time zone; the machine's clock by default.
    """
    findings.section = "run"
    latest = (now or datetime.now(UTC)) + SLACK
    made = report.generated.astimezone(UTC)
    if not made.isoformat() >= EARLIEST or made > latest:
        findings.contradicted("when the report was made", made.isoformat(),
                       f"not between {EARLIEST} and now")  # fmt: skip


def check_times(findings: Findings, party: str, ledger: ReplayedLedger, report: Report) -> None:
    """Whether a ledger's times can be true; the report came after the last of them.

    Args:
        findings: gets the claim.
        party: whose ledger it is.
        ledger: replayed.
        report: gives the latest time that is possible.
    """
    findings.section = party
    entries = ledger.entries()
    latest = (report.generated.astimezone(UTC) + SLACK).strftime("%Y-%m-%dT%H:%M:%SZ")
    problem = _problem(entries, latest)
    claimed = f"{entries[0].time[:10]} to {entries[-1].time[:10]}, in order, before the report"
    subject = "times of entries"
    if problem:
        findings.contradicted(subject, claimed, problem)
        return
    findings.attested(
        subject, claimed, by=party,
        settle="a checkpoint that somebody else has kept since a known day shows that the entries "
        "under it are no younger",
    )  # fmt: skip


def _problem(entries: list[Entry], latest: str) -> str:
    for entry in entries:
        if entry.time < EARLIEST:
            return f"entry {entry.index} is of {entry.time}, before there was any such ledger"
        if entry.time > latest:
            return f"entry {entry.index} is of {entry.time}, after the report was made"
    for one, other in pairwise(entries):
        width = min(len(one.time), len(other.time))  # a round's entries carry the day alone
        if other.time[:width] < one.time[:width]:
            return f"entry {other.index} is of {other.time}, the entry before it of {one.time}"
    return ""
