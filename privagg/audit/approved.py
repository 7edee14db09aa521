"""Who let a data set be used: the owner's approvals, as far as a ledger shows them.

That an approval's signature holds, and that it covers every budget and charge of a ledger that pins
an owner's key, was checked when the ledger was replayed. Whose key that is, and which person acted,
only its owner can say.
"""

from __future__ import annotations

from privagg.audit.claims import Findings
from privagg.audit.replayed import ReplayedLedger
from privagg.privacy.ledger import BudgetKey
from privagg.privacy.ledger.entries import OwnerKeyChanged
from privagg.privacy.plan import Plan
from privagg.report.approvals import approvals_of

SUBJECT = "its owner approved this use"
CHANGED = "its owner's key was changed"


def attest_approval(
    findings: Findings, ledger: ReplayedLedger, site: str, plan: Plan, run: str
) -> None:
    """A line for each approval that covered the run's charges: by whom, for how many, which key;
    and one for each change of the owner's key.

    Args:
        findings: where the claims go.
        ledger: the site's, replayed.
        site: its name.
        plan: the run's.
        run: its name.
    """
    _say_changes(findings, ledger, site)
    key = BudgetKey.of(plan, site)
    given = approvals_of(ledger.entries(), key, plan.digest, run)
    if not given:
        findings.undecided(
            SUBJECT, "no approval is recorded", "its owner can say; no entry of the ledger does"
        )
    for approval in given:
        claimed = f"{approval.who}, until {approval.until}: {approval.why}"
        if not approval.own_key:
            claimed += "; signed with the key that a serving process holds"
        if approval.for_lost_key:
            claimed += "; the key stands in place of a lost one"
        if approval.acted_for:
            claimed += f"; one person acted for {', '.join(approval.acted_for)}"
        asked = "each owner" if approval.acted_for else "its owner"
        findings.attested(
            SUBJECT, claimed, by=site,
            settle=f"{asked} can say whether key {approval.owner_key[:16]} is theirs and signed "
            "this",
        )  # fmt: skip


def _say_changes(findings: Findings, ledger: ReplayedLedger, site: str) -> None:
    """A line for each change of the owner's key: agreed to by the old one, or said to be lost."""
    for entry in ledger.entries():
        act = entry.payload
        if not isinstance(act, OwnerKeyChanged):
            continue
        new, old = act.owner_key[:16], act.old_key[:16]
        claimed = f"{entry.time[:10]}, to key {new}: {act.who}: {act.why}"
        if act.old_signature:
            findings.check(CHANGED, claimed, f"signed by keys {old} and {new}", True)
            continue
        findings.attested(
            CHANGED, f"{claimed}; without the old key", by=site,
            settle=f"its owner can say whether it lost key {old} and made {new}; whoever holds the "
            "ledger's own key could have written this",
        )  # fmt: skip
