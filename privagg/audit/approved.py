"""Who let a data set be used: the owner's approvals, as far as a ledger shows them.

That an approval's signature holds, and that it covers every budget and charge of a ledger that pins
an owner's key, was checked when the ledger was replayed. Whose key that is, and which person acted,
only its owner can say.
"""

from __future__ import annotations

from privagg.audit.claims import Findings
from privagg.audit.replayed import ReplayedLedger
from privagg.privacy.ledger import Approval
from privagg.privacy.plan import TrainingPlan

SUBJECT = "its owner approved this use"


def attest_approval(
    findings: Findings, ledger: ReplayedLedger, site: str, plan: TrainingPlan
) -> None:
    """One line for a site's ledger: by whom, for how many, under which key.

    Args:
        findings: where the claim goes.
        ledger: the site's, replayed.
        site: its name.
        plan: the run's.
    """
    given = [
        entry.payload
        for entry in ledger.entries()
        if isinstance(entry.payload, Approval) and plan.digest in entry.payload.plans
    ]
    if not given:
        findings.undecided(
            SUBJECT, "no approval is recorded", "its owner can say; no entry of the ledger does"
        )
        return
    last = given[-1]
    signs = ledger.verifier.public_key.hex() == last.owner_key
    claimed = f"{last.who}, until {last.until}: {last.why}"
    if signs:
        claimed += "; signed with the key that a serving process holds"
    if last.acted_for:
        claimed += f"; one person acted for {', '.join(last.acted_for)}"
    asked = "each owner" if last.acted_for else "its owner"
    findings.attested(
        SUBJECT, claimed, by=site,
        settle=f"{asked} can say whether key {last.owner_key[:16]} is theirs and signed this",
    )  # fmt: skip
