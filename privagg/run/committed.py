"""What a run has cost so far by its plan: public, also where the ledgers lie elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

from privagg.privacy.accountant import Accountant
from privagg.privacy.events import DpEvent
from privagg.privacy.plan import Plan
from privagg.protocol.job import RoundOutcome


class CommittedSpending:
    """Adds up, attempt by attempt, the events that sites charge: the plan's own, composed.

    Args:
        plan: the agreed plan.
        accountant: the one that guards the budgets.
        secure: False where the sites' randomness is known; what they charge then is no privacy.
    """

    def __init__(self, plan: Plan, accountant: Accountant, *, secure: bool) -> None:
        self._plan, self._secure = plan, secure
        self._asked: dict[str, list[int]] = {name: [] for name in plan.names}
        self._places: set[tuple[int, int]] = set()
        self._bound = lru_cache(maxsize=16)(accountant.epsilon)

    def asked(self, place: tuple[int, int], cohort: Iterable[str]) -> None:
        """An attempt, (round, attempt), asked these sites; counted once, as it is charged once."""
        if place not in self._places:
            self._places.add(place)
            for site in cohort:
                self._asked[site].append(place[0])

    def after(self, outcome: RoundOutcome) -> dict[str, Decimal]:
        """What the run has cost each data set once this attempt is counted.

        Returns:
            Site -> epsilon of this run alone at the plan's delta, an upper bound: a site that was
            asked may have refused and charged nothing, and its data set's earlier jobs are in its
            own ledger only.
        """
        self.asked((outcome.round, outcome.attempt), outcome.cohort)
        return self.so_far()

    def so_far(self) -> dict[str, Decimal]:
        """The same for every attempt that was counted."""
        return {site: self._epsilon(site, rounds) for site, rounds in self._asked.items()}

    def _epsilon(self, site: str, rounds: list[int]) -> Decimal:
        if not rounds:
            return Decimal(0)
        if not self._secure:
            return Decimal("Infinity")
        event: DpEvent = self._plan.total_committed(site, rounds)
        return self._bound(event, self._plan.delta).upper
