"""How a party stands on its own machine: what its owner approved, and what its budget has room for.

Read from its folder alone, without loading what trains.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from privagg.errors import ApprovalError, BudgetExceededError, PlanError
from privagg.party.folder import PartyFolder, PinsFile
from privagg.privacy.ledger import BudgetKey, Ledger
from privagg.privacy.plan import Plan, SumsPlan, load_plan
from privagg.protocol.names import COORDINATOR

PLAN_NAME = "plan.json"
"""The pinned plan, kept so that its noise need not be calibrated for every message."""


@dataclass(frozen=True)
class Room:
    """What one more run of the plan would do to a site's budget.

    Args:
        before, after: epsilon spent without and with it, rounded up.
        budget: what may be spent over all jobs.
        fits: whether the run may be charged.
    """

    before: Decimal
    after: Decimal
    budget: Decimal
    fits: bool


@dataclass(frozen=True)
class Standing:
    """What a party's own folder says of it.

    Args:
        approved_until: last day (`YYYY-MM-DD`) on which one more run is approved; None: none is.
        refusal: why none is; empty where one is, or where the party's owner has nothing to approve.
        days_left: days from today until that one.
        room: at a site that has a budget for the plan's data set.
    """

    approved_until: str | None = None
    refusal: str = ""
    days_left: int | None = None
    room: Room | None = None


def kept_plan(folder: PartyFolder, pins: PinsFile) -> Plan | None:
    """The plan kept beside the pins, where it is the pinned one."""
    try:
        plan = load_plan(json.loads((folder.root / PLAN_NAME).read_bytes()))
    except (OSError, ValueError, PlanError):
        return None
    return plan if plan.digest == pins.plan_digest else None


def pins_facts(folder: PartyFolder) -> bool:
    """Whether what a party pinned is the asking for facts, before there is a training.

    Args:
        folder: its own, which has joined.
    """
    return isinstance(kept_plan(folder, folder.pins()), SumsPlan)


def standing(folder: PartyFolder) -> Standing:
    """How a party that has joined stands.

    Args:
        folder: its own.

    Raises:
        LedgerError: its ledger cannot be read.
    """
    name, pins = folder.party().name, folder.pins()
    plan = kept_plan(folder, pins)
    if name == COORDINATOR:
        return Standing()
    if plan is None or not folder.ledger.exists():
        return Standing(refusal="its owner has approved nothing yet")
    with closing(Ledger.open(folder.ledger)) as ledger:
        try:
            until = ledger.approved_until(plan.digest)
            if name in plan.names:
                until = ledger.require_approval(BudgetKey.of(plan, name), plan.digest).until
        except ApprovalError as error:
            return Standing(refusal=str(error), room=_room(ledger, plan, name))
        days = (date.fromisoformat(until) - date.fromisoformat(ledger.today())).days
        return Standing(until, "", days, _room(ledger, plan, name))


def _room(ledger: Ledger, plan: Plan, name: str) -> Room | None:
    if name not in plan.names:
        return None
    try:
        found = ledger.project(BudgetKey.of(plan, name), plan.total_committed(name))
    except BudgetExceededError:  # no budget was set
        return None
    return Room(found.epsilon_before, found.epsilon_after, found.epsilon_budget, found.fits)
