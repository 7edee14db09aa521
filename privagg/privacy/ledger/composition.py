"""Events added up exactly and written in one way, however they were put together."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, localcontext
from typing import Any

from privagg.errors import LedgerError
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import canonical

# Distances are sums of numbers such as 2^-128, exact decimals of some ninety digits. What does not
# fit is rounded up.
_CONTEXT = Context(prec=400, rounding=ROUND_CEILING)


def compose(total: DpEvent, event: DpEvent, *more: DpEvent) -> DpEvent:
    """The composition of events in canonical order, its distance never rounded down.

    Args:
        total: the composition so far.
        event: what is added.
        more: further ones.

    Raises:
        LedgerError: the events hold under different neighbouring relations.
    """
    relations = {item.adjacency for item in (total, event, *more)}
    if len(relations) > 1:
        raise LedgerError(f"events under different neighbouring relations: {sorted(relations)}")
    with localcontext(_CONTEXT):
        for item in (event, *more):
            total = total + item
        return total


def event_to_json(event: DpEvent) -> dict[str, Any]:
    """The event as canonical JSON values: equal events give equal values."""
    ordered = compose(DpEvent(), event)
    return {
        "adjacency": event.adjacency,
        "distance": canonical.plain_decimal(ordered.distance),
        "terms": [
            {
                "count": term.count,
                "mechanism": term.mechanism.model_dump(mode="json"),
            }
            for term in ordered.terms
        ],
    }


def event_digest(event: DpEvent) -> str:
    """SHA-256 of the event's canonical bytes, in hexadecimal."""
    return canonical.digest(event_to_json(event))


def is_beyond(value: Decimal, limit: Decimal) -> bool:
    """True where `value` exceeds `limit`; an infinite value fits an infinite limit only."""
    return not value <= limit
