"""What every accountant does alike: directed roundings, and the fold of an event's distance.

What runs differs from the ideal mechanism by tau on either of two neighbouring inputs, so that it
is (epsilon, delta' + (1 + e^epsilon) * tau)-DP where the ideal one is (epsilon, delta')-DP. epsilon
stands on both sides, so it is solved for, and the solution is checked by one last evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

from privagg.errors import CertificationError, UnknownEventError
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.events import DpEvent

INFINITE = Decimal("Infinity")

UP = Context(prec=60, rounding=ROUND_CEILING)
DOWN = Context(prec=60, rounding=ROUND_FLOOR)

_FOLD_ROUNDS = 64
_FOLD_SLACKS = (Decimal("1e-15"), Decimal("1e-12"), Decimal("1e-10"), Decimal("1e-7"))


def float_up(value: Decimal) -> float:
    """The least double that is not below `value`."""
    nearest = float(value)
    return nearest if Decimal(nearest) >= value else math.nextafter(nearest, math.inf)


def float_down(value: Decimal) -> float:
    """The greatest double that is not above `value`."""
    nearest = float(value)
    return nearest if Decimal(nearest) <= value else math.nextafter(nearest, -math.inf)


def check_delta(delta: Decimal) -> Decimal:
    """`delta` itself where it lies strictly between 0 and 1.

    Raises:
        CertificationError: it does not.
    """
    if not (delta.is_finite() and 0 < delta < 1):
        raise CertificationError(f"delta must lie strictly between 0 and 1, got {delta}")
    return delta


def check_relation(event: DpEvent) -> None:
    """Refuse an event under a neighbouring relation that no accountant here knows.

    Raises:
        UnknownEventError: it is not add-or-remove-one.
    """
    if event.adjacency != "add-or-remove-one":
        raise UnknownEventError(
            f"no proof for the neighbouring relation {event.adjacency!r}; "
            "the accountants know add-or-remove-one"
        )


def fold_distance(
    epsilon_at: Callable[[Decimal], Decimal], delta: Decimal, distance: Decimal
) -> Decimal:
    """Epsilon at `delta` of what really runs, from the ideal mechanism's epsilon curve.

    Args:
        epsilon_at: the ideal mechanism's epsilon as a non-increasing function of its delta.
        delta: the delta that the answer has to hold at.
        distance: total-variation distance between what runs and the ideal mechanism.

    Returns:
        An epsilon with epsilon_at(delta - (1 + e^epsilon) * distance) <= epsilon, checked by
        evaluation; `Infinity` where there is none.

    Source: proofs/certified-epsilon.md, section '10. A sampler at distance τ'.
    """
    if distance == 0:
        return epsilon_at(delta)
    # From below: each step can only raise epsilon, and the least solution is the limit.
    epsilon = Decimal(0)
    for _ in range(_FOLD_ROUNDS):
        left = _left_over(delta, distance, epsilon)
        if left <= 0:
            return INFINITE
        following = epsilon_at(left)
        if following <= epsilon or not following.is_finite():
            epsilon = max(epsilon, following)
            break
        epsilon = following
    if not epsilon.is_finite():
        return INFINITE
    for slack in (Decimal(0), *_FOLD_SLACKS):
        candidate = UP.add(UP.multiply(epsilon, 1 + slack), slack)
        left = _left_over(delta, distance, candidate)
        if left > 0 and epsilon_at(left) <= candidate:
            return candidate
    return INFINITE


def _left_over(delta: Decimal, distance: Decimal, epsilon: Decimal) -> Decimal:
    """delta - (1 + e^epsilon) * distance, rounded down."""
    if epsilon > 10**6:
        return Decimal(-1)
    # Decimal.exp rounds to nearest whatever the context says; one unit more makes it a bound.
    growth = UP.next_plus(UP.exp(epsilon))
    return DOWN.subtract(delta, UP.multiply(UP.add(growth, 1), distance))


def without_mechanism(event: DpEvent, delta: Decimal, method: str) -> EpsilonBound:
    """Nothing ideal ran: epsilon 0 where 2 * distance fits into delta.

    Args:
        event: without terms; its distance alone counts.
        delta: in (0, 1).
        method: how the bound was found, in words fit for a report.

    Returns:
        0 on both ends, or infinity and no lower end.
    """
    fits = UP.multiply(event.distance, 2) <= delta
    upper = Decimal(0) if fits else INFINITE
    return EpsilonBound(upper, Decimal(0) if fits else None, method, certified=True)
