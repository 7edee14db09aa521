"""One interface for accountants: an event and a delta go in, a bound on epsilon comes out.

Every figure is rounded up. The certified accountant (`privagg.privacy.certified`) is the default
and the only one whose number is a proof; the two of dp-accounting are kept as peers to compare
with and as a second, independent opinion.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, localcontext
from typing import Protocol

from privagg.privacy.events import DpEvent

EPSILON_DIGITS = 9
"""Significant digits that a printed epsilon keeps; the last one is rounded up."""


@dataclass(frozen=True)
class EpsilonBound:
    """What an accountant says about epsilon at a delta.

    Attributes:
        upper: epsilon never exceeds this (rounded up); Decimal('Infinity') without privacy.
        lower: a proven lower end, where the method gives one (rounded down), else None.
        method: how the bound was found, in words fit for a report.
        certified: True where `upper` is proved and not only computed.
    """

    upper: Decimal
    lower: Decimal | None
    method: str
    certified: bool


class Accountant(Protocol):
    """Interprets events. An event it has no proof for is refused with `UnknownEventError`."""

    name: str

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """Bound epsilon at `delta` for the whole event, its distance folded in.

        Raises:
            UnknownEventError: the event has a kind or relation this accountant cannot interpret.
            CertificationError: no bound could be enclosed.
        """
        ...


def round_up(value: Decimal, digits: int = EPSILON_DIGITS) -> Decimal:
    """`value` with at most `digits` significant digits, never smaller than it was."""
    if not value.is_finite() or value == 0:
        return value
    with localcontext() as context:
        context.prec = digits
        context.rounding = ROUND_CEILING
        return +value
