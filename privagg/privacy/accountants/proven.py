"""The certified accountant: the only one whose figure is a proof."""

from __future__ import annotations

import os
import threading
from collections import Counter
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from privagg.errors import CertificationError, UnknownEventError
from privagg.privacy.accountant import EpsilonBound, round_up
from privagg.privacy.accountants.folding import (
    DOWN,
    INFINITE,
    UP,
    check_delta,
    check_relation,
    without_mechanism,
)
from privagg.privacy.events import DpEvent, LaplaceMechanism
from privagg.privacy.laplace_law import LARGEST_SHAPE, LaplaceLaw

if TYPE_CHECKING:
    from privagg.privacy import certified
    from privagg.privacy.certified import ContourState, Convolved


class CertifiedAccountant:
    """The proven bound of `privagg.privacy.certified`, as an accountant.

    A composition that grows round by round, as a ledger's does, is followed on its contours, so
    that a further round of a known mechanism costs milliseconds. One object may be used by several
    threads; they take turns.

    Source: proofs/certified-epsilon.md, which proves the bound and names the papers behind it.
    """

    name = "certified"

    def __init__(self) -> None:
        self._followed: list[ContourState] = []
        self._convolved: Convolved | None = None

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """Enclose epsilon at `delta` in a proven interval.

        Raises:
            CertificationError: delta lies outside (0, 1).
            UnknownEventError: the event has a relation or mechanism without a proof.
        """
        check_delta(delta)
        check_relation(event)
        if not event.is_private:
            return EpsilonBound(INFINITE, None, "no guarantee: a release without noise", True)
        if not event.terms:
            return without_mechanism(event, delta, "total-variation distance alone")
        if event.distance >= 1:
            return EpsilonBound(INFINITE, None, "a distance of 1 or more promises nothing", True)
        try:
            with ball_arithmetic:
                interval = self._interval(event, Fraction(delta))
        except CertificationError as error:
            # Infinity always holds; the error says what the distance uses up, and what would help.
            return EpsilonBound(INFINITE, None, str(error), True)
        return EpsilonBound(
            upper=_decimal_bound(interval.upper, UP),
            lower=_decimal_bound(interval.lower, DOWN),
            method=interval.method,
            certified=True,
        )

    def _interval(self, event: DpEvent, delta: Fraction) -> certified.Interval:
        from privagg.privacy import certified

        distance = Fraction(event.distance)
        composition, laplaces = _by_kind(event)
        if laplaces:
            self._convolved = self._convolved or certified.Convolved()
            return certified.mixed_epsilon_interval(
                composition,
                laplaces,
                delta,
                extra_distance=distance,
                state=self._following(composition) if composition else None,
                convolved=self._convolved,
            )
        return self._following(composition).epsilon(delta, extra_distance=distance)

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
    """The event's mechanisms, all Gaussian, for the certified accountant; its distance is apart.

    Raises:
        UnknownEventError: the event has a relation without a proof, or mechanisms of another kind.
    """
    check_relation(event)
    composition, laplaces = _by_kind(event)
    if laplaces:
        raise UnknownEventError(
            "no proof is known for Renyi divergences of integer Laplace noise; ask the certified "
            "accountant for epsilon"
        )
    return composition


def _by_kind(
    event: DpEvent,
) -> tuple[Counter[certified.Mechanism], Counter[certified.LaplaceRound]]:
    """The event's mechanisms with their counts: Gaussian ones, and those of integer Laplace noise.

    More shares than the law is tabulated for are a post-processing of as many as it is.
    """
    from privagg.privacy import certified

    gaussians, laplaces = Counter[certified.Mechanism](), Counter[certified.LaplaceRound]()
    for term in event.terms:
        mechanism = term.mechanism
        if isinstance(mechanism, LaplaceMechanism):
            shape = min(Fraction(mechanism.shares, mechanism.shared_by), Fraction(LARGEST_SHAPE))
            law = LaplaceLaw(Fraction(mechanism.scale), shape)
            laplaces[certified.LaplaceRound(law, mechanism.shift)] += term.count
            continue
        gaussian = certified.Mechanism(
            sampling_rate=Fraction(mechanism.sampling_rate),
            noise_multiplier=Fraction(mechanism.noise_multiplier),
        )
        gaussians[gaussian] += term.count
    return gaussians, laplaces


def _decimal_bound(value: object, context: Context) -> Decimal:
    """An end of an interval as a decimal of few digits, rounded outwards by `context`."""
    if isinstance(value, Fraction):
        exact = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    else:
        exact = Decimal(str(value))
    if context.rounding == ROUND_CEILING:
        return round_up(exact)
    return -round_up(-exact)
