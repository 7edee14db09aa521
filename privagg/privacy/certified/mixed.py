"""Integer Laplace noise among Gaussian rounds: the best proven interval of both together.

Argument in proofs/laplace.md, section 'Composition'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from fractions import Fraction

from flint import arb

from privagg.errors import CertificationError, NoiseError, PrivacyError
from privagg.privacy.certified import convolution, laplace
from privagg.privacy.certified.accountant import CLOSED_FORM_BITS, epsilon_interval
from privagg.privacy.certified.balls import ball, lower_end, upper_end, working_precision
from privagg.privacy.certified.convolution import (
    AnyRounds,
    ConvolutionCurve,
    Resolution,
    resolution_for,
    worst_upper_epsilon,
)
from privagg.privacy.certified.laplace import LaplaceRound, OneTestCurve
from privagg.privacy.certified.mechanism import (
    Composition,
    Direction,
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
"""Runs of one mechanism that are convolved as they are; more are counted up to two digits and
zeros, as a ledger asks after each round, and a convolution takes a tenth of a second or more."""

_CELLS = 500
_HELD = 8
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
    convolved: Convolved | None = None,
) -> Interval:
    """Return a proven interval for epsilon at delta of rounds of both kinds, both directions.

    Args:
        gaussians: mechanism -> number of rounds; may be empty.
        laplaces: coordinate -> how often it is released; at least one.
        delta: exact rational in (0, 1).
        extra_distance: tau, as for `epsilon_interval`.
        state: of exactly the Gaussian rounds, where one is followed; it answers faster.
        convolved: what was convolved before, likewise.

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
    with suppress(*_NO_PROOF), limited(MOST_WORK):
        held = Convolved() if convolved is None else convolved
        guess = float(min(uppers.values(), default=Fraction(1)))
        uppers[convolution.METHOD] = held.upper((*rounds, *coordinates), target, distance, guess)
    if not uppers:
        raise CertificationError(
            f"no finite epsilon is proven at delta {round_up(target, 3)} for these rounds of "
            f"integer Laplace noise, at a distance of {round_up(distance, 3)} from the ideal"
        )
    method = min(uppers, key=lambda name: uppers[name])
    with limited(MOST_WORK):
        lower, lower_method = _lower(coordinates, target, alone)
    return Interval(lower, uppers[method], method, lower_method, CLOSED_FORM_BITS)


class Convolved:
    """Compositions that were convolved last: nearly the same are asked for after every round."""

    def __init__(self) -> None:
        self._held: dict[tuple[AnyRounds, Resolution], tuple[ConvolutionCurve, ...]] = {}

    def upper(
        self, rounds: AnyRounds, delta: Fraction, distance: Fraction, guess: float
    ) -> Fraction:
        """Return an epsilon proven at delta, in both directions.

        Args:
            rounds: of both kinds, each with how often it ran.
            delta: exact rational in (0, 1).
            distance: tau.
            guess: float near epsilon; it sets the grid and starts the search, and proves nothing.

        Raises: CertificationError where the grid would need too many cells.
        """
        more = tuple((each, _two_digits(times)) for each, times in rounds)
        found = self._upper(more, delta, distance, guess)
        if found < guess / 2:  # losses largely cancel, so that the grid was a coarse one
            with suppress(*_NO_PROOF):
                found = min(found, self._upper(more, delta, distance, float(found)))
        return found

    def _upper(
        self, rounds: AnyRounds, delta: Fraction, distance: Fraction, guess: float
    ) -> Fraction:
        # The same grid for guesses that are nearly the same.
        steps = math.floor(8 * math.log2(max(guess, 1e-9)))
        resolution = resolution_for(rounds, delta, guess=2 ** (steps / 8), least_cells=_CELLS)
        place = (rounds, resolution)
        curves = self._held.pop(place, None)
        if curves is None:
            curves = tuple(ConvolutionCurve(rounds, each, resolution) for each in Direction)
        self._held = {place: curves, **dict(list(self._held.items())[: _HELD - 1])}
        return worst_upper_epsilon(curves, delta, guess=guess, extra_distance=distance)


def _two_digits(times: int) -> int:
    """Return `times` up to `FEW`, above it the next number of two digits and zeros."""
    if times <= FEW:
        return times
    unit = int(10 ** (len(str(times)) - 2))
    return -(-times // unit) * unit


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
