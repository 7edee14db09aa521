"""Proven Renyi divergences of an event, for conversions that need orders and not epsilon."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from privagg.errors import UnknownEventError
from privagg.privacy.events import DpEvent


def renyi_divergences(event: DpEvent, orders: Iterable[int] | None = None) -> dict[int, Fraction]:
    """Proven upper bounds of the event's Renyi divergence at whole orders, both directions.

    Args:
        event: its `distance` is not in the divergences, which are the ideal mechanisms': whoever
            converts them folds the distance of everything that ran into delta.
        orders: whole alpha from 2 to 4096; None for the standing orders from 2 to 512.

    Returns:
        Order -> nats; each value an exact rational no smaller than the truth.

    Raises:
        UnknownEventError: a release without noise, or another relation than add-or-remove-one.
        PrivacyError: an order outside its range.

    Source: proofs/certified-epsilon.md, section 'Renyi orders'.
    """
    from privagg.privacy import certified
    from privagg.privacy.accountants import ball_arithmetic, proven_composition

    if not event.is_private:
        raise UnknownEventError("a release without noise has no finite Renyi divergence")
    composition = proven_composition(event)
    with ball_arithmetic:
        if orders is None:
            return certified.renyi_divergences(composition)
        return certified.renyi_divergences(composition, orders)
