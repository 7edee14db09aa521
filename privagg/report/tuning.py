"""Searches over hyperparameters: what the ledgers record of them, and what their runs cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from privagg.privacy.ledger.entries import Charge, Tuning
from privagg.report.accounting import Bounds, composed
from privagg.report.model import TuningCost, TuningSearch


def tuning_searches(
    run: str,
    recorded: Mapping[str, Iterable[Tuning]],
    charges: Mapping[str, Sequence[Charge]],
    delta: Decimal,
    bounds: Bounds,
) -> tuple[TuningSearch, ...]:
    """Every search that names this run, or whose runs were charged to this run's data sets.

    Args:
        run: the run that the report is about.
        recorded: name of a ledger -> the searches it records.
        charges: site -> everything ever charged to its data set.
        delta: at which the cost is stated.
        bounds: computes and remembers epsilon.
    """
    holders: dict[str, list[str]] = {}
    found: dict[str, Tuning] = {}
    for ledger, entries in recorded.items():
        for entry in entries:
            text = entry.model_dump_json()
            found.setdefault(text, entry)
            if ledger not in holders.setdefault(text, []):
                holders[text].append(ledger)
    searches = []
    for text, entry in found.items():
        costs = tuple(_costs(entry, charges, delta, bounds))
        if run in entry.runs or costs:
            searches.append(
                TuningSearch(
                    name=entry.name,
                    method=entry.method,
                    who=entry.who,
                    runs=entry.runs,
                    recorded_in=tuple(holders[text]),
                    facts=entry.facts,
                    costs=costs,
                )
            )
    return tuple(searches)


def _costs(
    entry: Tuning, charges: Mapping[str, Sequence[Charge]], delta: Decimal, bounds: Bounds
) -> Iterable[TuningCost]:
    runs = frozenset(entry.runs)
    for site, every in charges.items():
        counted = Counter(charge.event for charge in every if charge.run in runs)
        if not counted:
            continue
        event = composed(counted)
        bound = bounds.epsilon(event, delta)
        yield TuningCost(
            site=site,
            charges=counted.total(),
            epsilon=bound.upper,
            epsilon_lower=bound.lower,
            delta=delta,
            method=bound.method,
            certified=bound.certified,
            event=event,
        )
