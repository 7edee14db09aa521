"""A training that went on with an earlier run's model: whether that run released this very file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privagg.audit.claims import Findings
from privagg.audit.replayed import ReplayedLedger
from privagg.privacy.ledger.entries import Released, RunStarted
from privagg.protocol.names import COORDINATOR
from privagg.report.model import Report
from privagg.report.sentences import went_on_with

BEGAN_WITH = "model that training went on with: the earlier run's, as it was released"


def check_continued(
    findings: Findings, report: Report, ledgers: Mapping[str, ReplayedLedger]
) -> None:
    """Hold the pinned beginning against what the coordinator's ledger released before.

    Args:
        findings: gets the claim; none of a training that began by itself.
        report: what is claimed.
        ledgers: party -> ledger, of those that hold.
    """
    before = went_on_with(report)
    if before is None:
        return
    run, sha256 = before
    findings.section = "run"
    stated = f"{sha256[:16]} of run {run}"
    entries = ledgers[COORDINATOR].entries() if COORDINATOR in ledgers else []
    payloads = [entry.payload for entry in entries]
    begun = (p for p in payloads if isinstance(p, RunStarted) and p.run == report.run)
    earlier = payloads[: payloads.index(next(begun, payloads[-1]))] if payloads else []
    started = any(isinstance(p, RunStarted) and p.run == run for p in earlier)
    released: list[Any] = [
        p.facts.get("model_sha256")
        for p in earlier
        if isinstance(p, Released) and p.facts.get("run") == run
    ]
    if not started or not released:
        findings.undecided(BEGAN_WITH, stated, "the ledger in which that run was recorded")
        return
    findings.check(BEGAN_WITH, stated, str(released[-1])[:16], sha256 in released)
    charged = [n for n, one in ledgers.items() if any(c.charge.run == run for c in one.charged)]
    if not charged:
        findings.contradicted(BEGAN_WITH, stated, f"no ledger here was charged for run {run}")
    findings.attested(
        "round 1 began with that model", stated, by=COORDINATOR,
        settle="the sites' word: each holds the model against the file before it is charged",
    )  # fmt: skip
