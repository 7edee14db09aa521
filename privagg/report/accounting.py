"""What a run did to one site, computed from its ledger: the observer matrix and its peers.

The budget was charged with the committed events. Here the realised ones are composed: who survived
each round decides how many noise shares an observer cannot subtract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from functools import cache

from privagg.errors import CertificationError, UnknownEventError
from privagg.privacy.accountant import Accountant, EpsilonBound
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.guarantee import Observer
from privagg.privacy.ledger.composition import compose
from privagg.privacy.plan import Plan
from privagg.report.figures import relative_text
from privagg.report.model import AccountantFigure, BoundedEvent, ObserverRow

NOTHING = DpEvent()
NO_PRIVACY = DpEvent.once(Mechanism(kind="non-private"))
_EXACT = Context(prec=400, rounding=ROUND_CEILING)

AttemptId = tuple[int, int]
"""(round, attempt) of one run."""

UNSTEERED = (
    "who took part in which round, and when the run ended, was not decided by looking at what "
    "earlier rounds released (else what holds is the ε of the budget)"
)
"""Of every figure for other rounds than the plan's, all alike: the ε of what happened to be run is
proved where that was fixed beforehand (Rogers, Roth, Ullman & Vadhan 2016: odometers, filters)."""


@dataclass(frozen=True)
class ChargedAttempt:
    """One charged attempt at a round, as the site's ledger tells it.

    Attributes:
        round: its number.
        survivors: contributions in the opened sum, this site's among them; 0 where no sum with
            this site's contribution was opened.
        private: False where the site recorded a release without any guarantee.
    """

    round: int
    survivors: int
    private: bool


@dataclass
class Bounds:
    """An accountant that remembers: sites of one plan ask for the same events again and again."""

    accountant: Accountant
    known: dict[tuple[DpEvent, Decimal], EpsilonBound] = field(default_factory=dict)

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """As `Accountant.epsilon`; infinite at once where a term carries no guarantee."""
        if not event.is_private:
            return EpsilonBound(Decimal("Infinity"), None, "no guarantee", certified=True)
        place = (event, delta)
        if place not in self.known:
            self.known[place] = self.accountant.epsilon(event, delta)
        return self.known[place]


def repeated(event: DpEvent, times: int) -> DpEvent:
    """The event composed with itself, its distance never rounded down."""
    with localcontext(_EXACT):
        return event.repeated(times)


def composed(counted: Mapping[DpEvent, int]) -> DpEvent:
    """All of these events, each as often as it is counted."""
    return compose(NOTHING, NOTHING, *(repeated(e, count) for e, count in counted.items()))


def committed_guarantee(
    plan: Plan, site: str, events: Iterable[DpEvent], bounds: Bounds
) -> BoundedEvent:
    """Everything charged in a run: holds against as many colluding sites as the plan allows for.

    Args:
        plan: the agreed plan.
        site: whose unit is protected.
        events: the event of every charge of the run, in any order.
        bounds: computes and remembers epsilon.

    Returns:
        The bound with its event, at the plan's delta.
    """
    counted = Counter(events)
    event = composed(counted)
    rows = [_row_committed(plan, site, number) for number in _epochs_of(plan, site)]
    bound = bounds.epsilon(event, plan.delta)
    assumptions = [each for row in rows for each in row.assumptions]
    if counted.total() != len(plan.rounds_of(site)):
        assumptions.append(UNSTEERED)
    return BoundedEvent(
        epsilon=bound.upper,
        epsilon_lower=bound.lower,
        delta=plan.delta,
        unit=plan.unit,
        adjacency=event.adjacency,
        observer=rows[0].name,
        colluding_sites=plan.colluders,
        method=bound.method,
        certified=bound.certified,
        assumptions=tuple(dict.fromkeys(assumptions)),
        event=event,
    )


def _epochs_of(plan: Plan, site: str) -> list[int]:
    """The first rounds of the epochs that a site takes part in."""
    return [epoch.first for epoch in plan.epochs if site in epoch.names]


def _row_committed(plan: Plan, site: str, number: int) -> Observer:
    """What a round is charged against."""
    planned = plan.in_round(number)
    rows = planned.observers(site, planned.minimum_survivors)
    return row_against(rows, "sites" if plan.colluders else "model-users", plan.colluders)


def largest_round(plan: Plan, site: str) -> int:
    """A round that asks as many sites as any that a site takes part in; 1 where all ask alike.

    Args:
        plan: the agreed plan.
        site: its name.
    """
    return max(_epochs_of(plan, site), key=lambda number: plan.in_round(number).addends)


def observer_matrix(
    plan: Plan, site: str, attempts: Sequence[ChargedAttempt], bounds: Bounds
) -> tuple[ObserverRow, ...]:
    """The realised guarantee against every observer and number of colluding sites.

    An attempt without an opened sum counts for whoever may read single uploads. Those are taken to
    be the observers whose view of a full round is one noise share; where that counts an observer
    who saw ciphertext only, the figure is too large, never too small.

    Args:
        plan: the agreed plan.
        site: whose unit is protected.
        attempts: every charged attempt at a round of the run.
        bounds: computes and remembers epsilon.

    Returns:
        A row for every observer and number of colluding sites that the plan knows, at its delta.
    """

    @cache
    def rows_of(number: int, survivors: int) -> tuple[Observer, ...]:
        return plan.in_round(number).observers(site, survivors)

    counted = Counter(replace(each, round=plan.first_like(each.round)) for each in attempts)
    as_planned = _as_planned(plan, plan.rounds_of(site), counted)
    found = []
    # A row for each observer of a full round, and its like for every attempt with fewer survivors.
    full_round = largest_round(plan, site)
    for full in rows_of(full_round, plan.in_round(full_round).addends):
        events, assumptions = [], list(full.assumptions) if not attempts else []
        for attempt, count in counted.items():
            seen = row_against(
                rows_of(attempt.round, attempt.survivors or plan.in_round(attempt.round).addends),
                full.name,
                full.colluding_sites,
            )
            event = seen.event
            if not attempt.survivors and event != _of_one_share(rows_of(attempt.round, 1)):
                event = NOTHING
            if not attempt.private:
                event = NO_PRIVACY
            events.append(repeated(event, count))
            assumptions += seen.assumptions
        if attempts and not as_planned:
            assumptions.append(UNSTEERED)
        total = compose(NOTHING, NOTHING, *events)
        bound = bounds.epsilon(total, plan.delta)
        found.append(
            ObserverRow(
                epsilon=bound.upper,
                epsilon_lower=bound.lower,
                delta=plan.delta,
                unit=plan.unit,
                adjacency=total.adjacency,
                observer=full.name,
                colluding_sites=full.colluding_sites,
                method=bound.method,
                certified=bound.certified,
                assumptions=tuple(dict.fromkeys(assumptions)),
                sees=full.sees,
                event=total,
            )
        )
    return tuple(found)


def _as_planned(plan: Plan, there: range, counted: Counter[ChargedAttempt]) -> bool:
    """Whether every round that a site is there for was charged once, and all ended alike."""
    if counted.total() != len(there):
        return False
    ended = {
        (plan.in_round(attempt.round).addends - attempt.survivors, attempt.private)
        for attempt in counted
    }
    charged = Counter({attempt.round: count for attempt, count in counted.items()})
    return len(ended) == 1 and charged == Counter(map(plan.first_like, there))


def _of_one_share(rows: Sequence[Observer]) -> DpEvent:
    return row_against(rows, "model-users", 0).event


def row_against(rows: Sequence[Observer], name: str, colluding_sites: int) -> Observer:
    """The row against `name` with k colluders, or with as many as there can be where k is more.

    Args:
        rows: the observers of one round, as `RoundPlan.observers` gives them.
        name: the observer's identifier.
        colluding_sites: k, at least 0.
    """
    same = [row for row in rows if row.name == name and row.colluding_sites <= colluding_sites]
    if not same:  # `sites` begins at k = 1; nobody to collude with leaves the model's users
        same = [row for row in rows if row.name == "model-users"]
    return max(same, key=lambda row: row.colluding_sites)


def accountant_figures(
    event: DpEvent, delta: Decimal, bounds: Bounds, peers: Sequence[Bounds]
) -> tuple[AccountantFigure, ...]:
    """What the budget's accountant and its peers say about one event, side by side.

    Args:
        event: the composition that is compared.
        delta: in (0, 1).
        bounds: the accountant that budgets are held against.
        peers: the others, whose figure is None where they cannot give one.
    """
    own = bounds.epsilon(event, delta)
    figures = [
        AccountantFigure(
            name=bounds.accountant.name,
            epsilon=own.upper,
            epsilon_lower=own.lower,
            delta=delta,
            certified=own.certified,
            note=own.method,
        )
    ]
    for peer in peers:
        name = peer.accountant.name
        try:
            bound = peer.epsilon(event, delta)
        except (UnknownEventError, CertificationError) as error:
            figures.append(
                AccountantFigure(
                    name=name, epsilon=None, delta=delta, certified=False, note=str(error)
                )
            )
            continue
        figures.append(
            AccountantFigure(
                name=name,
                epsilon=bound.upper,
                delta=delta,
                certified=False,
                note=f"{bound.method}{_below(bound.upper, own.lower)}",
            )
        )
    return tuple(figures)


def _below(value: Decimal, proven: Decimal | None) -> str:
    if proven is None or value >= proven:
        return ""
    return (
        f"; lies below the proven lower end ({relative_text(value, proven)}), "
        "so it understates epsilon"
    )
