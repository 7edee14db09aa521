"""What a site says before a job begins: whether it is approved and its budget has room."""

from __future__ import annotations

from privagg.errors import ApprovalError
from privagg.privacy.ledger import BudgetKey, Ledger
from privagg.privacy.plan import Plan


def budget_problem(ledger: Ledger, plan: Plan, site: str, run: str) -> str:
    """Why a site cannot take part in the whole of a run; empty where it can.

    Either no approval of the owner covers the plan, or the data set's budget has no room for it.

    Args:
        ledger: the site's, open.
        plan: the agreed plan.
        site: its name in the plan.
        run: the run's identifier.

    Raises:
        LedgerError: the data set has no budget.
    """
    key = BudgetKey.of(plan, site)
    try:
        ledger.require_approval(key, plan.digest, run)
    except ApprovalError as error:
        return str(error)
    projection = ledger.project(key, plan.total_committed(site))
    if projection.fits:
        return ""
    return (
        f"{plan.rounds} rounds would bring data set {key.dataset!r} of {site!r} from epsilon "
        f"{projection.epsilon_before} to {projection.epsilon_after}, beyond its budget of "
        f"{projection.epsilon_budget}"
    )
