"""What an outsider checks: re-derivation of every figure from the ledgers."""

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
