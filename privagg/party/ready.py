"""What must hold before a run costs anything: files that can be read, owners who agree, room."""

from __future__ import annotations

from privagg.config.setup import Setup
from privagg.errors import ApprovalError
from privagg.party.approving import memory_beside, require_approved_records
from privagg.party.budgets import require_room
from privagg.privacy.ledger import Ledger


def require_ready(setup: Setup) -> None:
    """Everything that can be refused before a run costs anything: files, approvals, budgets.

    Raises:
        ConfigError, DataError: a file cannot be read as declared.
        ApprovalError: an owner has not approved the plan.
        DataError: nor the records that lie at its site now.
        BudgetExceededError: a budget is too small for the whole job.
    """
    for site in setup.config.sites:
        setup.records_of(site)
    _ = setup.public_records
    require_approvals(setup)
    require_approved_data(setup)
    require_room(setup)


def require_approvals(setup: Setup) -> None:
    """Refuse to go on unless every site's owner has approved this plan.

    Raises:
        ApprovalError: one has not; the text says what to type.
    """
    for name in setup.plan.names:
        if not setup.ledger_path(name).exists():
            raise setup.unapproved(name, "it has no ledger yet")
        try:
            ledger = Ledger.open(setup.ledger_path(name))
            ledger.require_approval(setup.budget_key(name), setup.plan.digest)
        except ApprovalError as error:
            raise setup.unapproved(name, "none in force covers one more run of it") from error


def require_approved_data(setup: Setup) -> None:
    """Refuse to go on with other records than those that each site's owner approved.

    Raises:
        ApprovalError: a plan is not approved.
        DataError: a site's records are others, or count under another data set's name.
    """
    for section in setup.config.sites:
        path = setup.ledger_path(section.name)
        known = memory_beside(path)
        tags = setup.tags_of(section, known)
        if tags is not None:
            key = setup.budget_key(section.name)
            approval = Ledger.open(path).require_approval(key, setup.plan.digest)
            require_approved_records(known, tags, approval, section.name)
