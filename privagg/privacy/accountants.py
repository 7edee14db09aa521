"""The accountants: the certified one, which proves its figure, and dp-accounting's two as peers.

All of them read the same `DpEvent` and fold its total-variation distance tau in the same way: what
runs differs from the ideal mechanism by tau on either of two neighbouring inputs, so that it is
(epsilon, delta' + (1 + e^epsilon) * tau)-DP where the ideal one is (epsilon, delta')-DP. epsilon
stands on both sides, so it is solved for, and the solution is checked by one last evaluation.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from privagg.errors import CertificationError, UnknownEventError
from privagg.privacy.accountant import Accountant, EpsilonBound, round_up
from privagg.privacy.events import DpEvent, Mechanism

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from privagg.privacy import certified
    from privagg.privacy.certified import ContourState

INFINITE = Decimal("Infinity")

_UP = Context(prec=60, rounding=ROUND_CEILING)
_DOWN = Context(prec=60, rounding=ROUND_FLOOR)
_FLOAT_SLACK = 1e-12
"""Relative allowance for the last digits of a double-precision figure; no proof, only caution."""

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
        candidate = _UP.add(_UP.multiply(epsilon, 1 + slack), slack)
        left = _left_over(delta, distance, candidate)
        if left > 0 and epsilon_at(left) <= candidate:
            return candidate
    return INFINITE


def _left_over(delta: Decimal, distance: Decimal, epsilon: Decimal) -> Decimal:
    """delta - (1 + e^epsilon) * distance, rounded down."""
    if epsilon > 10**6:
        return Decimal(-1)
    # Decimal.exp rounds to nearest whatever the context says; one unit more makes it a bound.
    growth = _UP.next_plus(_UP.exp(epsilon))
    return _DOWN.subtract(delta, _UP.multiply(_UP.add(growth, 1), distance))


class RdpAccountant:
    """Renyi accounting by dp-accounting, in double precision: an independent second opinion.

    Source: I. Mironov, K. Talwar, L. Zhang, "Renyi Differential Privacy of the Sampled Gaussian
    Mechanism" (2019), with the conversion of Canonne, Kamath and Steinke (2020), Proposition 12.
    """

    name = "rdp"

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """Bound epsilon at `delta`, computed in double precision.

        Raises:
            CertificationError: delta lies outside (0, 1).
            UnknownEventError: the neighbouring relation is not add-or-remove-one.
        """
        check_delta(delta)
        _check_relation(event)
        method = "Renyi orders in double precision (dp-accounting)"
        if not event.is_private:
            return EpsilonBound(INFINITE, None, method, certified=False)
        if not event.terms:
            return _without_mechanism(event, delta, method)
        first, *rest = (term.count * _rdp_curve(term.mechanism) for term in event.terms)
        total = sum(rest, start=first)

        def epsilon_at(allowed: Decimal) -> Decimal:
            return _rdp_epsilon(total, float_down(allowed))

        upper = fold_distance(epsilon_at, delta, event.distance)
        return EpsilonBound(round_up(upper), None, method, certified=False)


@lru_cache(maxsize=4096)
def _rdp_curve(mechanism: Mechanism) -> NDArray[np.float64]:
    """Renyi divergence of one run at dp-accounting's default orders; infinite where unusable."""
    import dp_accounting
    import numpy as np
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant()
    with _quiet_peer():
        accountant.compose(_peer_event(mechanism, dp_accounting))
    curve = np.array(accountant.rdp, dtype=np.float64)
    # At tiny sampling rates cancellation yields zeros and negative values; such an order says
    # nothing, and dp-accounting would read it as epsilon = 0.
    curve[~(curve > 0)] = np.inf
    return curve * (1 + _FLOAT_SLACK)


@contextmanager
def _quiet_peer() -> Iterator[None]:
    """Silences dp-accounting where it remarks that it leaves out an order, as it is meant to."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _rdp_epsilon(curve: NDArray[np.float64], delta: float) -> Decimal:
    from dp_accounting import rdp

    if delta <= 0:
        return INFINITE
    orders = rdp.RdpAccountant().orders
    usable = [
        (order, value) for order, value in zip(orders, curve, strict=True) if value < math.inf
    ]
    if not usable:
        return INFINITE
    epsilon, _ = rdp.rdp_privacy_accountant.compute_epsilon(
        [order for order, _ in usable], [value for _, value in usable], delta
    )
    return Decimal(math.nextafter(float(epsilon) * (1 + _FLOAT_SLACK), math.inf))


class PldAccountant:
    """Privacy loss distributions by dp-accounting, discretised pessimistically, in doubles.

    Its figure can lie below the proven epsilon at small delta (noise of the Fourier transform), so
    it is a peer to compare with and never the figure that a budget is held against by default.
    """

    name = "pld"

    def __init__(self, value_discretization_interval: float = 1e-4) -> None:
        self._interval = value_discretization_interval

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """Bound epsilon at `delta`, computed in double precision.

        Raises:
            CertificationError: delta lies outside (0, 1).
            UnknownEventError: the neighbouring relation is not add-or-remove-one.
        """
        check_delta(delta)
        _check_relation(event)
        method = f"privacy loss distribution, interval {self._interval:g} (dp-accounting)"
        if not event.is_private:
            return EpsilonBound(INFINITE, None, method, certified=False)
        if not event.terms:
            return _without_mechanism(event, delta, method)
        import dp_accounting
        from dp_accounting import pld

        accountant = pld.PLDAccountant(value_discretization_interval=self._interval)
        for term in event.terms:
            accountant.compose(_peer_event(term.mechanism, dp_accounting), term.count)

        def epsilon_at(allowed: Decimal) -> Decimal:
            value = float_down(allowed)
            if value <= 0:
                return INFINITE
            epsilon = float(accountant.get_epsilon(value))
            return Decimal(math.nextafter(epsilon * (1 + _FLOAT_SLACK), math.inf))

        upper = fold_distance(epsilon_at, delta, event.distance)
        return EpsilonBound(round_up(upper), None, method, certified=False)


class CertifiedAccountant:
    """The proven bound of `privagg.privacy.certified`, as an accountant.

    A composition that grows round by round, as a ledger's does, is followed on its contours, so
    that a further round of a known mechanism costs milliseconds. One object may be used by several
    threads; they take turns.
    """

    name = "certified"

    def __init__(self) -> None:
        self._followed: list[ContourState] = []

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """Enclose epsilon at `delta` in a proven interval.

        Raises:
            CertificationError: delta lies outside (0, 1).
            UnknownEventError: the event has a relation or mechanism without a proof.
        """
        check_delta(delta)
        _check_relation(event)
        if not event.is_private:
            return EpsilonBound(INFINITE, None, "no guarantee: a release without noise", True)
        if not event.terms:
            return _without_mechanism(event, delta, "total-variation distance alone")
        if event.distance >= delta:
            return EpsilonBound(INFINITE, None, "the distance uses up delta", True)
        composition = proven_composition(event)
        try:
            with ball_arithmetic:
                interval = self._following(composition).epsilon(
                    Fraction(delta), extra_distance=Fraction(event.distance)
                )
        except CertificationError:
            if all(mechanism.sampling_rate == 1 for mechanism in composition):
                # Infinity always holds. With so little noise the event's distance, times
                # e^epsilon, exceeds delta before the Gaussian's own share falls below it.
                return EpsilonBound(INFINITE, None, "no finite bound could be proven", True)
            return self._without_amplification(event, delta)
        return EpsilonBound(
            upper=_decimal_bound(interval.upper, _UP),
            lower=_decimal_bound(interval.lower, _DOWN),
            method=interval.method,
            certified=True,
        )

    def _without_amplification(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """Every record in every round: by convexity never less than what sampling leaves.

        The mixture (1 - q) Q + q P diverges from Q by at most q times the divergence of P from Q,
        in either direction at most that of the unsampled pair, at every epsilon >= 0; so the
        unsampled Gaussian dominates, and composition keeps that.
        """
        unsampled = DpEvent(distance=event.distance)
        for term in event.terms:
            mechanism = Mechanism.of(Decimal(1), term.mechanism.noise_multiplier)
            unsampled = unsampled + DpEvent.once(mechanism, count=term.count)
        bound = self.epsilon(unsampled, delta)
        return EpsilonBound(bound.upper, None, f"{bound.method}, without amplification", True)

    def _following(self, composition: Counter[certified.Mechanism]) -> ContourState:
        """A state of exactly this composition: one it grew from where there is one, else new."""
        from privagg.privacy import certified

        for place, state in enumerate(self._followed):
            held = Counter(state.composition)
            # Beyond doubling the contours are planned afresh anyway; the state is better kept.
            if held <= composition and composition.total() <= 2 * held.total():
                del self._followed[place]
                break
        else:
            state, held = certified.ContourState(), Counter()
        for mechanism, count in (composition - held).items():
            state.add(mechanism, count)
        self._followed = [state, *self._followed[: _FOLLOWED - 1]]
        return state


_FOLLOWED = 8
"""How many growing compositions one accountant follows: one for each budget that is in use."""


class _TakingTurns:
    """A lock that a forked child finds open, whatever its parent's other threads were doing.

    Ball arithmetic keeps its working precision in one place for the whole process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


ball_arithmetic = _TakingTurns()
"""Held while balls are computed with."""


def proven_composition(event: DpEvent) -> Counter[certified.Mechanism]:
    """The event's mechanisms as the certified accountant takes them; its distance is apart.

    Raises:
        UnknownEventError: the event has a relation without a proof.
    """
    from privagg.privacy import certified

    _check_relation(event)
    composition = Counter[certified.Mechanism]()
    for term in event.terms:
        mechanism = certified.Mechanism(
            sampling_rate=Fraction(term.mechanism.sampling_rate),
            noise_multiplier=Fraction(term.mechanism.noise_multiplier),
        )
        composition[mechanism] += term.count
    return composition


def _decimal_bound(value: object, context: Context) -> Decimal:
    """An end of an interval as a decimal of few digits, rounded outwards by `context`."""
    if isinstance(value, Fraction):
        exact = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    else:
        exact = Decimal(str(value))
    if context.rounding == ROUND_CEILING:
        return round_up(exact)
    return -round_up(-exact)


def _without_mechanism(event: DpEvent, delta: Decimal, method: str) -> EpsilonBound:
    """Nothing ideal ran: epsilon 0 where 2 * distance fits into delta."""
    fits = _UP.multiply(event.distance, 2) <= delta
    upper = Decimal(0) if fits else INFINITE
    return EpsilonBound(upper, Decimal(0) if fits else None, method, certified=True)


def _check_relation(event: DpEvent) -> None:
    if event.adjacency != "add-or-remove-one":
        raise UnknownEventError(
            f"no proof for the neighbouring relation {event.adjacency!r}; "
            "the accountants know add-or-remove-one"
        )


def _peer_event(mechanism: Mechanism, dp_accounting: object) -> object:
    """Our mechanism in dp-accounting's words, its parameters rounded to the pessimistic side."""
    events = dp_accounting
    noise = float_down(mechanism.noise_multiplier)
    gaussian = events.GaussianDpEvent(noise)  # type: ignore[attr-defined]
    if mechanism.kind == "gaussian":
        return gaussian
    rate = min(1.0, float_up(mechanism.sampling_rate))
    return events.PoissonSampledDpEvent(rate, gaussian)  # type: ignore[attr-defined]


def default_accountant() -> Accountant:
    """The accountant that budgets are held against: the certified one."""
    return CertifiedAccountant()
