"""Rare rounds from the other side: the remove direction's delta from the add direction's transform.

    delta(eps) = 1 - e^eps + e^eps E_Q[(1 - e^-eps V)_+],   V the product of the rounds' ratios.

The expectation is the add direction's delta at -eps, and the add direction's losses never exceed
-T log(1 - q): where a rare record makes the remove direction's losses so heavy-tailed that their
moments say nothing, its moments are all near one. What a sum near 1 loses to the subtraction, ball
arithmetic has digits for. Argument in proofs/certified-epsilon.md, section 'The mirror'.
"""

from __future__ import annotations

import math
from fractions import Fraction

from flint import arb

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import as_dyadic, ball, log_float, working_precision
from privagg.privacy.certified.contour import ContourCurve, Product
from privagg.privacy.certified.mechanism import Direction, Rounds
from privagg.privacy.certified.mirroring import make_mirror_plan
from privagg.privacy.certified.planning import ContourPlan, Effort, Goal
from privagg.privacy.certified.search import (
    DeltaBounds,
    delta_ends,
    folded,
    lower_epsilon,
    upper_epsilon,
)
from privagg.privacy.certified.strategy import Ends, log_of, product_of, single_ends

METHOD = "mirror"

_AIMS = 14
# Where a mirror is not sharp far below its aim, the next is aimed just above what it found.
_NEAR, _ABOVE = 0.8, 1.05
# Delta is aimed at from above, each time so many nats lower, until it is known so sharply.
_DELTA_AIMS, _LESS, _SHARP = 6, 20.0, Fraction(1, 10**7)


class MirrorCurve:
    """Proven bounds of delta(eps) from a product on a frame of the add direction.

    On a frame with a bulk the upper bound is of the remove direction alone (`covers_add`).
    """

    def __init__(self, product: Product) -> None:
        """Raises: CertificationError for a frame of the other direction."""
        if product.frame.direction is not Direction.ADD:
            raise CertificationError("a mirror needs the add direction's transforms")
        self.covers_add = product.frame.bulk_order is None
        self._contour = ContourCurve(product)
        self._cut = product.cut
        self._own, self._base = (arb(1), arb(1)) if self.covers_add else product.beyond_bulk

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return proven bounds of delta(eps)."""
        growth, found = ball(epsilon).exp(), self._contour.transformed(-epsilon)
        # Without a bulk this is 1 - e^eps; with one, less what the bulk has of either mass.
        start = self._own - growth * self._base
        lower, upper = start + growth * found.lower, start + growth * found.upper
        if self.covers_add:
            return DeltaBounds(lower, upper.max(self._contour.transformed(epsilon).upper))
        return DeltaBounds(lower, upper + self._cut + self._contour.of_bulk(epsilon))


def mirrored_ends(rounds: Rounds, delta: Fraction, distance: Fraction, effort: Effort) -> Ends:
    """Return proven ends of epsilon; of the remove direction alone where `both` is False.

    Args:
        rounds: (mechanism, number of rounds) pairs, as `normalised` returns them.
        delta: exact rational in (0, 1).
        distance: total-variation distance of the sampler over all rounds, in [0, 1).
        effort: how long a contour may become.

    Raises: CertificationError where no mirror is affordable or its bounds prove no upper end.
    """
    aim, ends = _guess(rounds, delta), None
    for _ in range(_AIMS):
        found = _aimed(rounds, delta, distance, effort, aim)
        if isinstance(found, float):
            if ends is not None:
                break
            aim *= found
            continue
        ends = found if ends is None else ends.meet(found)
        high = float(ends.upper or 0) - float(ends.added)
        if ends.width() <= _SHARP or high > _NEAR * aim:
            break
        aim = high * _ABOVE
    if ends is None:
        raise CertificationError("no mirror reached epsilon")
    return ends


def _aimed(
    rounds: Rounds, delta: Fraction, distance: Fraction, effort: Effort, aim: float
) -> Ends | float:
    """Return the ends of a mirror aimed at this epsilon, or how much further to aim."""
    plan, point = make_mirror_plan(rounds, Goal(log_of(delta), aim), effort), as_dyadic(aim)
    with working_precision(plan.frame.precision_bits):
        curve = MirrorCurve(product_of(plan, rounds))
        upper = folded(curve.bounds(point).upper, point, distance)
        if upper <= ball(delta):
            return _ends(curve, plan, delta, distance, aim)
        here = log_float(upper)
    ratio = log_of(delta) / here if here < 0 else 8.0
    return min(max(1.2 * ratio, 1.5), 8.0)


def mirrored_delta(rounds: Rounds, epsilon: Fraction, log_delta: float, effort: Effort) -> Ends:
    """Return proven ends of delta at epsilon; `both` as in `mirrored_ends`.

    Args:
        rounds: (mechanism, number of rounds) pairs, as `normalised` returns them.
        epsilon: exact rational >= 0.
        log_delta: float near log(delta) or above; the answer is aimed at again where it is wide.
        effort: how long a contour may become.

    Raises: CertificationError where no mirror is affordable.
    """
    # A contour is sharp up to its aim, but not at 0 alone.
    aim = max(float(epsilon), _spread(rounds) / 2)
    ends = Ends(Fraction(0), Fraction(1), 0)
    for _ in range(_DELTA_AIMS):
        plan = make_mirror_plan(rounds, Goal(log_delta, aim), effort)
        bits = plan.frame.precision_bits
        with working_precision(bits):
            curve = MirrorCurve(product_of(plan, rounds))
            low, high = delta_ends(curve.bounds(epsilon))
        ends = ends.meet(Ends(low, high, bits, curve.covers_add))
        if ends.width() <= _SHARP or not ends.upper:
            break
        log_delta = log_of(ends.upper) - _LESS
    return ends


def _ends(
    curve: MirrorCurve, plan: ContourPlan, delta: Fraction, distance: Fraction, aim: float
) -> Ends:
    slope, guess = -3.0 / aim, aim / 1.001
    ideal = upper_epsilon(curve, delta, guess=guess, slope=slope)
    lower = lower_epsilon(curve, delta, guess=float(ideal), slope=slope)
    upper = ideal
    if distance:
        upper = upper_epsilon(curve, delta, guess=guess, slope=slope, extra_distance=distance)
    return Ends(lower, upper, plan.frame.precision_bits, curve.covers_add, upper - ideal)


def _guess(rounds: Rounds, delta: Fraction) -> float:
    """Return a float near epsilon: one participation makes the loss, or many small ones do."""
    alone = max(float(single_ends(mechanism, delta / times)[1]) for mechanism, times in rounds)
    spread = _spread(rounds)
    nats = math.log(spread) - log_of(delta)
    return max(1.1 * alone, spread * math.sqrt(2 * max(nats, 0.5)))


def _spread(rounds: Rounds) -> float:
    """Return a float near the loss's deviation without what one rare round may add."""
    variance = sum(
        times
        * float(m.sampling_rate) ** 2
        * min(math.expm1(min(float(m.noise_multiplier) ** -2, 2.0)), 3.0)
        for m, times in rounds
    )
    return math.sqrt(variance)
