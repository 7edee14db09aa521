"""Proofs of what a bundle's budgets have spent, for another program to check.

One file a budget: a Rényi order and a rational epsilon, as a theorem for Rocq with coq-interval. It
shares no code with the accountants; what it proves, and what stays on paper, is in
`proofs/certified-epsilon.md`, section 16.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from privagg.audit.bundle import ReportBundle, read_bounded
from privagg.audit.methods import Methods
from privagg.audit.replayed import ReplayedLedger
from privagg.errors import ConfigError, PrivacyError
from privagg.privacy.accountants.proven import proven_composition
from privagg.privacy.certified.certificate import RenyiCertificate, renyi_certificate


@dataclass(frozen=True)
class Written:
    """What became of one budget.

    Args:
        budget: party, data set and unit, in words.
        path: of the file; None where no certificate was found.
        certificate: the same.
        why: there is none.
    """

    budget: str
    path: Path | None = None
    certificate: RenyiCertificate | None = None
    why: str = ""


def write_certificates(source: Path, folder: Path, methods: Methods) -> list[Written]:
    """Write a certificate of every budget that a bundle's ledgers have charged.

    Args:
        source: a bundle.
        folder: where the files go; made if need be.
        methods: what replaying the ledgers may cost.

    Raises:
        ConfigError: the source is no bundle: a report alone has no ledgers.
        UnreadableBundleError, LedgerTamperedError, WorkLimitError: it does not hold.
    """
    data = read_bounded(source)
    if data[:4] != b"PK\3\4":
        raise ConfigError(
            f"a certificate is of what ledgers charged, and {source} has none; name the bundle"
        )
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for party, export in ReportBundle.parse(data).ledgers.items():
        ledger = ReplayedLedger.parse(
            export, methods.certified, what=f"the ledger of {party}", work=methods.work
        )
        last = {each.charge.key: each for each in ledger.charged}
        for key, each in last.items():
            budget = f"{party}, {key.dataset} ({key.unit})"
            try:
                made = renyi_certificate(
                    proven_composition(each.total),
                    each.charge.delta,
                    extra_distance=each.total.distance,
                )
            except PrivacyError as error:
                found.append(Written(budget, why=str(error)))
                continue
            name = "_".join(("epsilon", party, key.dataset, key.unit))
            path = folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}.v"
            path.write_text(made.to_rocq(), encoding="utf-8")
            found.append(Written(budget, path, made))
    return found
