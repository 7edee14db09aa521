"""What a site says before a job begins: whether its budget has room for all of it."""

from __future__ import annotations

from privagg.privacy.ledger import BudgetKey, Ledger
from privagg.privacy.plan import TrainingPlan


def budget_problem(ledger: Ledger, plan: TrainingPlan, site: str) -> str:
    """Why a whole job does not fit the budget of a site's data set; empty where it fits.

    Raises:
        LedgerError: the data set has no budget.
    """
    key = BudgetKey(plan.site(site).dataset, plan.unit.value)
    projection = ledger.project(key, plan.total_committed(site))
    if projection.fits:
        return ""
    return (
        f"{plan.rounds} rounds would bring data set {key.dataset!r} of {site!r} from epsilon "
        f"{projection.epsilon_before} to {projection.epsilon_after}, beyond its budget of "
        f"{projection.epsilon_budget}"
    )
