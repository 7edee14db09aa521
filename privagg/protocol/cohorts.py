"""Who is asked in a round where sites open sums together: nobody chooses it, everybody computes it.

A site keeps to one list of contributors a round. That bounds what is opened as long as all sites
speak of the same ones who were asked: of two cohorts of one round, each could open a sum. So the
cohort follows from the plan, the run's name and the number of the round, and is the same in each
attempt. It does not follow from the run's key: sites that were shown other cards have another key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from privagg.errors import CohortError
from privagg.privacy.plan import Plan
from privagg.privacy.unit import Custody

_DOMAIN = b"privagg/cohort/1\0"


def drawn_cohort(plan: Plan, run: str, number: int) -> tuple[str, ...]:
    """The sites of a round: as many as the plan asks, those whose hashes are the least.

    Args:
        plan: names the sites, and says how many are asked.
        run: the run's name.
        number: of the round, from 1.

    Returns:
        Names in roster order.
    """

    def place(name: str) -> bytes:
        told = f"{plan.digest}\0{run}\0{number}\0{name}".encode()
        return hashlib.sha256(_DOMAIN + told).digest()

    planned = plan.in_round(number)
    return plan.in_order(sorted(planned.names, key=place)[: planned.addends])


def draws_cohorts(plan: Plan, number: int) -> bool:
    """Whether a round's cohort is drawn like this: some of the sites, which open together."""
    planned = plan.in_round(number)
    return plan.custody is Custody.EVERY_SITE and planned.addends < len(planned.names)


def require_drawn(plan: Plan, run: str, number: int, cohort: Sequence[str]) -> None:
    """Refuse another cohort than the round's.

    Args:
        plan, run, number: as for `drawn_cohort`.
        cohort: the sites that the round asks.

    Raises:
        CohortError: it is another.
    """
    if draws_cohorts(plan, number) and tuple(cohort) != drawn_cohort(plan, run, number):
        raise CohortError(
            f"round {number} asks {', '.join(cohort)}; in run {run!r} it is the turn of "
            f"{', '.join(drawn_cohort(plan, run, number))}"
        )
