"""Is a report true? Everything that follows from the ledgers is derived again, by an outsider.

Read `verify` first: it calls every check in order. `claims` says what a verdict means, `methods`
with `work` what may be computed. Each other module checks one thing: `chains` (the ledgers
themselves), `charges`, `planned`, `signed`, `second`, `compare`, `answered`,
`bare` (a report without ledgers).
"""

from privagg.audit.bundle import ReportBundle
from privagg.audit.claims import Claim, Verdict, Verification
from privagg.audit.methods import Methods
from privagg.audit.verify import Brought, verify_bundle, verify_file, verify_report
from privagg.audit.work import DEFAULT_WORK, Work

__all__ = [
    "DEFAULT_WORK",
    "Brought",
    "Claim",
    "Methods",
    "ReportBundle",
    "Verdict",
    "Verification",
    "Work",
    "verify_bundle",
    "verify_file",
    "verify_report",
]
