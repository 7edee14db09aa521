"""Proofs of what a bundle's budgets have spent, for other programs to check.

Two files a budget, which share no code with the accountants that sized the noise: a Rényi order and
a rational epsilon, as a theorem for Rocq with coq-interval; and the integer masses of one round's
losses, for the checker that `proofs/rocq` proves and extracts. What they show, and what stays on
paper, is in `proofs/certified-epsilon.md`, section 16.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from privagg.audit.bundle import ReportBundle, read_bounded
from privagg.audit.methods import Methods
from privagg.audit.replayed import Charged, ReplayedLedger
from privagg.errors import ConfigError, PrivacyError
from privagg.privacy.accountants.proven import proven_composition
from privagg.privacy.certified.certificate import renyi_certificate
from privagg.privacy.certified.convolution_certificate import convolution_certificate


@dataclass(frozen=True)
class Written:
    """What became of one budget, by one method.

    Args:
        budget: party, data set and unit, in words.
        path: of the file; None where no certificate was found.
        epsilon: that it certifies; 0 where there is none.
        checker: the command that checks the file, without its path.
        why: there is none.
    """

    budget: str
    path: Path | None = None
    epsilon: Fraction = Fraction(0)
    checker: str = ""
    why: str = ""


def write_certificates(source: Path, folder: Path, methods: Methods) -> list[Written]:
    """Write certificates of every budget that a bundle's ledgers have charged.

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
    found: list[Written] = []
    for party, export in ReportBundle.parse(data).ledgers.items():
        ledger = ReplayedLedger.parse(
            export, methods.certified, what=f"the ledger of {party}", work=methods.work
        )
        for key, each in {each.charge.key: each for each in ledger.charged}.items():
            budget = f"{party}, {key.dataset} ({key.unit})"
            name = re.sub(r"[^A-Za-z0-9]+", "_", "_".join((party, key.dataset, key.unit)))
            try:
                found += _of_budget(each, budget, folder / name)
            except PrivacyError as error:
                found.append(Written(budget, why=str(error)))
    return found


def _of_budget(each: Charged, budget: str, place: Path) -> Iterator[Written]:
    """By Rényi moments, then by convolution, whose grid is laid by the first one's epsilon."""
    rounds, delta, distance = proven_composition(each.total), each.charge.delta, each.total.distance
    renyi = renyi_certificate(rounds, delta, extra_distance=distance)
    path = place.with_name(f"epsilon_{place.name}.v")
    path.write_text(renyi.to_rocq(), encoding="utf-8")
    yield Written(budget, path, renyi.epsilon, "coqc")
    convolution = convolution_certificate(
        rounds, delta, guess=float(renyi.epsilon), extra_distance=distance
    )
    path = place.with_name(f"convolution_{place.name}.txt")
    path.write_text(convolution.to_text(), encoding="utf-8")
    yield Written(budget, path, convolution.epsilon, "python -m proofs.certificates")
