"""Approvals in a party's own folder, on that party's machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.config.data import AppData
from privagg.config.setup import Setup
from privagg.errors import ConfigError
from privagg.party.approving import (
    APPROVED_DAYS,
    Approver,
    Job,
    Terms,
    approve_code,
    approve_opening,
    approve_records,
    check_approval,
    memory_beside,
)
from privagg.party.folder import PartyFolder
from privagg.party.open import open_federation, records_in, tags_in
from privagg.privacy.ledger import Approval, Ledger
from privagg.privacy.ledger.approvals import public_hex
from privagg.training.known import Tags


@dataclass(frozen=True)
class OwnedFolder:
    """A party's folder and its owner's key.

    Args:
        folder: the party's own.
        owner: the owner's key.
    """

    folder: PartyFolder
    owner: Ed25519PrivateKey

    @property
    def name(self) -> str:
        """Whose folder."""
        return self.folder.party().name

    def setup(self) -> Setup:
        """What the folder's pins stand for; nothing of its model was built yet."""
        return open_federation(self.folder)


def ledger_for(owned: OwnedFolder) -> Ledger:
    """The party's ledger, made with the owner's key pinned where there is none yet."""
    identity, path = owned.folder.identity(), owned.folder.ledger
    if path.exists():
        return Ledger.open(path, signing_key=identity.key)
    return Ledger.create(
        path, identity.name, signing_key=identity.key, owner_key=public_hex(owned.owner)
    )


def approve_in_folders(
    folders: Sequence[tuple[OwnedFolder, Setup]],
    *,
    who: str,
    why: str,
    until: date | None = None,
    budget: Decimal | None = None,
    without_guarantee: bool = False,
    overlaps: str = "",
    runs: int | None = None,
) -> dict[str, Approval]:
    """Approve the pinned plan in each folder: at a site the use of its records, at a key holder
    that it opens; at the coordinator the code alone.

    Args:
        folders: of the parties, each with its setup; several only where one person acts for all.
        who, why, until, budget, without_guarantee, overlaps, runs: as for `Federation.approve`.

    Returns:
        The approval of each party that has something to approve.

    Raises:
        ApprovalError, BudgetExceededError: as `Federation.approve`; nothing was written.
        ConfigError: a number of runs, and no site is among the parties.
    """
    last = until or datetime.now(UTC).date() + timedelta(days=APPROVED_DAYS)
    terms = Terms(who, why, last.isoformat(), budget, without_guarantee, overlaps, runs)
    sites = {
        owned.name: (_approver_in(owned, setup), setup, Job.of(setup))
        for owned, setup in folders
        if owned.name in setup.plan.names
    }
    if runs is not None and not sites:
        raise ConfigError(
            f"a number of runs counts what sites charge, and {folders[0][0].name!r} charges "
            "nothing; leave out --runs: the sites' owners say how many runs there are"
        )
    for site, setup, job in sites.values():
        check_approval(setup, site, job, terms)
    together = tuple(sites) if len(sites) > 1 else ()
    acts = {
        name: approve_records(setup, site, job, terms, together)
        for name, (site, setup, job) in sites.items()
    }
    for owned, setup in folders:
        if owned.name in sites:
            continue
        if owned.name == setup.opener:
            ledger, job = ledger_for(owned), Job.of(setup)
            acts[owned.name] = approve_opening(ledger, owned.owner, job, terms)
        elif code := setup.factories():
            acts[owned.name] = approve_code(ledger_for(owned), owned.owner, code, terms)
    return acts


def _approver_in(owned: OwnedFolder, setup: Setup) -> Approver:
    tags: Tags | None = None
    if not isinstance(setup.config.data, AppData):
        tags = tags_in(owned.folder, setup, records_in(owned.folder, setup, owned.name))
    return Approver(
        owned.name, ledger_for(owned), owned.owner, memory_beside(owned.folder.ledger), tags
    )


def trust_at_first(owned: OwnedFolder, setup: Setup, *, who: str) -> None:
    """Record the code that its owner let run before there was a folder to write it down in.

    Args:
        owned: the folder and its owner's key.
        setup: names the code.
        who: the person who decides.

    Raises:
        LedgerError: the folder's ledger cannot be used.
    """
    last = datetime.now(UTC).date() + timedelta(days=APPROVED_DAYS)
    terms = Terms(who, "the configuration names it", last.isoformat())
    approve_code(ledger_for(owned), owned.owner, setup.factories(), terms)
