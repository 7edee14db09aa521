"""Integer Laplace noise among Gaussian rounds: the best proven interval of both together.

Argument in proofs/laplace.md, section 'Composition'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from fractions import Fraction

from flint import arb

from privagg.errors import CertificationError, NoiseError, PrivacyError
from privagg.privacy.certified import convolution, laplace
from privagg.privacy.certified.accountant import CLOSED_FORM_BITS, epsilon_interval
from privagg.privacy.certified.balls import ball, lower_end, upper_end, working_precision
from privagg.privacy.certified.convolution import convolution_upper_epsilon
from privagg.privacy.certified.laplace import LaplaceRound, OneTestCurve
from privagg.privacy.certified.mechanism import (
    Composition,
    Interval,
    Rational,
    checked_delta,
    checked_distance,
    normalised,
    round_up,
)
from privagg.privacy.certified.search import lower_epsilon
from privagg.privacy.certified.state import ContourState
from privagg.privacy.certified.work import MOST_WORK, NO_PROOF, limited

METHOD = "largest-loss"

_NO_PROOF = (*NO_PROOF, NoiseError)

FEW = 100
"""Gaussian rounds that are convolved with Laplace noise, at most: a ledger asks after each round,
and convolving thousands again and again would take longer than training."""

_CELLS = 500
_NEGLIGIBLE_BITS = 90
_HOPELESS = 5000

_Coordinates = tuple[tuple[LaplaceRound, int], ...]


def mixed_epsilon_interval(
    gaussians: Composition,
    laplaces: Mapping[LaplaceRound, int],
    delta: Rational,
    *,
    extra_distance: Rational = Fraction(0),
    state: ContourState | None = None,
) -> Interval:
    """Return a proven interval for epsilon at delta of rounds of both kinds, both directions.

    Args:
        gaussians: mechanism -> number of rounds; may be empty.
        laplaces: coordinate -> how often it is released; at least one.
        delta: exact rational in (0, 1).
        extra_distance: tau, as for `epsilon_interval`.
        state: of exactly the Gaussian rounds, where one is followed; it answers faster.

    Guarantees: as for `epsilon_interval`; each round may depend on what came out before.
    Raises:
        PrivacyError: for arguments outside their ranges.
        CertificationError: where no epsilon is proven.
    """
    target, distance = checked_delta(delta), checked_distance(extra_distance)
    coordinates, rounds = _counted(laplaces), normalised(gaussians)

    def alone(tau: Fraction) -> Interval:
        """Return the interval of the Gaussian rounds by themselves."""
        if state is not None:
            return state.epsilon(target, extra_distance=tau)
        return epsilon_interval(gaussians, target, extra_distance=tau)

    uppers: dict[str, Fraction] = {}
    with suppress(*_NO_PROOF), limited(MOST_WORK):
        uppers[METHOD] = _by_largest_loss(coordinates, distance, alone)
    if sum(times for _, times in rounds) <= FEW:
        with suppress(*_NO_PROOF), limited(MOST_WORK):
            uppers[convolution.METHOD] = convolution_upper_epsilon(
                (*rounds, *coordinates),
                target,
                guess=float(min(uppers.values(), default=Fraction(1))),
                extra_distance=distance,
                least_cells=_CELLS,
            )
    if not uppers:
        raise CertificationError(
            f"no finite epsilon is proven at delta {round_up(target, 3)} for these rounds of "
            f"integer Laplace noise, at a distance of {round_up(distance, 3)} from the ideal"
        )
    method = min(uppers, key=lambda name: uppers[name])
    with limited(MOST_WORK):
        lower, lower_method = _lower(coordinates, target, alone)
    return Interval(lower, uppers[method], method, lower_method, CLOSED_FORM_BITS)


def _counted(laplaces: Mapping[LaplaceRound, int]) -> _Coordinates:
    """Return them in one order, so that equal compositions get equal bounds."""
    if not laplaces or any(isinstance(n, bool) or n < 1 for n in laplaces.values()):
        raise PrivacyError("a composition of integer Laplace noise needs counts of at least 1")
    return tuple(sorted(laplaces.items()))


def _by_largest_loss(
    coordinates: _Coordinates, distance: Fraction, alone: Callable[[Fraction], Interval]
) -> Fraction:
    """Return the Gaussian rounds' epsilon with the largest losses of the others on top.

    (1 + e^(L + eps)) tau <= (1 + e^eps) e^L tau, which is what the Gaussian rounds are asked with.
    """
    with working_precision(CLOSED_FORM_BITS):
        loss = sum((n * each.largest_loss for each, n in coordinates), Fraction(0))
        if distance and loss > _HOPELESS:
            raise CertificationError("no delta has room for the distance at so large a loss")
        grown = upper_end(ball(loss).exp() * ball(distance)) if distance else distance
    if grown >= 1:
        raise CertificationError("the distance uses up delta")
    return loss + alone(grown).upper


def _lower(
    coordinates: _Coordinates, delta: Fraction, alone: Callable[[Fraction], Interval]
) -> tuple[Fraction, str]:
    """Return the largest lower end of any part: further rounds never lower epsilon."""
    best, method = Fraction(0), "trivial"
    with suppress(*_NO_PROOF):
        found = alone(Fraction(0))
        best, method = found.lower, found.lower_method
    for each, _ in coordinates:
        with suppress(*_NO_PROOF), working_precision(CLOSED_FORM_BITS):
            loss = float(each.largest_loss)
            curve = OneTestCurve(each.atoms(_NEGLIGIBLE_BITS))
            lower = lower_epsilon(curve, delta, guess=loss * 0.999, slope=-10 / loss)
            if lower > best:
                best, method = lower, laplace.METHOD
    with suppress(*_NO_PROOF), working_precision(CLOSED_FORM_BITS):
        together = max(_by_joint_test(coordinates, delta, least) for least in (None, 0))
        if together > best:
            best, method = together, laplace.METHOD
    return best, method


def _by_joint_test(coordinates: _Coordinates, delta: Fraction, least: int | None) -> Fraction:
    """Return what the test proves that every coordinate lies at or below 0, and not below `least`.

    P(S) - e^eps Q(S) is above delta for every eps below log((P(S) - delta) / Q(S)).
    """
    own, other = arb(1), arb(1)
    for each, times in coordinates:
        atoms = each.atoms(_NEGLIGIBLE_BITS)
        middle = len(atoms.own) // 2
        first = 0 if least is None else middle + least
        own *= sum(atoms.own[first : middle + 1], arb(0)) ** times
        other *= sum(atoms.other[first : middle + 1], arb(0)) ** times
    left = own - ball(delta)
    if not left > 0:
        return Fraction(0)
    return max(lower_end((left / other).log()), Fraction(0))
