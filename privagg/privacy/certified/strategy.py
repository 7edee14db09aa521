"""Which contours to try for one direction, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from privagg.privacy.certified.balls import working_precision
from privagg.privacy.certified.contour import ContourCurve, Product
from privagg.privacy.certified.mechanism import Direction, Mechanism, Rounds
from privagg.privacy.certified.planning import ContourPlan, Effort, Goal, make_plan
from privagg.privacy.certified.search import lower_epsilon, upper_epsilon
from privagg.privacy.certified.single import SingleRoundCurve
from privagg.privacy.certified.splitting import make_split_plan
from privagg.privacy.certified.tables import round_table
from privagg.privacy.certified.work import NO_PROOF

# Wider than the first is aimed at again. A contour of more products (terms times nodes) than _LONG
# is first replaced by a rough one, as taking out the bulk is then likely to be cheaper.
_SHARP = Fraction(1, 10**8)
_GOOD = Fraction(1, 10**6)
_FAIR = Fraction(1, 10**3)
_LONG = 6_000_000
_ROUGH_TERMS = 600
# How far below delta, in nats, a long contour's errors lie; the usual would cost twice as much.
_ENOUGH = 15.0
_SINGLE_BITS = 192
_ATTEMPTS = 8


@dataclass(frozen=True)
class Ends:
    """Proven ends of one direction's epsilon.

    Attributes:
        lower: exact, at least 0.
        upper: exact; None where none was proven.
        bits: working precision behind the upper end.
        both: the upper end is proven for both directions.
        added: how much of the upper end is owed to a sampler's distance alone.
    """

    lower: Fraction
    upper: Fraction | None
    bits: int
    both: bool = False
    added: Fraction = Fraction(0)

    def width(self) -> Fraction:
        """Return (upper - added - lower) / upper, 0 for a proven zero, 1 where nothing is known."""
        if self.upper is None:
            return Fraction(1)
        gap = self.upper - self.added - self.lower
        return gap / self.upper if self.upper else Fraction(0)

    def meet(self, other: Ends) -> Ends:
        """Return the tighter of both ends."""
        if other.upper is None or (self.upper is not None and self.upper <= other.upper):
            return replace(self, lower=max(self.lower, other.lower))
        return replace(other, lower=max(self.lower, other.lower))


def log_of(value: Fraction) -> float:
    """Return a float near log(value), for values beyond the range of floats too."""
    return math.log(value.numerator) - math.log(value.denominator)


def curve_of(plan: ContourPlan, rounds: Rounds) -> ContourCurve:
    """Return the curve of a composition on a plan; evaluate it at the plan's precision."""
    with working_precision(plan.frame.precision_bits):
        return ContourCurve(product_of(plan, rounds))


def product_of(plan: ContourPlan, rounds: Rounds) -> Product:
    """Return the product of a composition's transforms on a plan, at the current precision."""
    product = Product(plan.frame)
    for mechanism, times in rounds:
        product.add(round_table(mechanism, plan.frame, plan.shapes[mechanism]), times)
    return product


def remove_ends(rounds: Rounds, delta: Fraction, distance: Fraction, effort: Effort) -> Ends:
    """Return the best proven ends of the remove direction's epsilon that the effort allows.

    Args:
        rounds: (mechanism, number of rounds) pairs, as `normalised` returns them.
        delta: exact rational in (0, 1).
        distance: total-variation distance of the sampler over all rounds, in [0, 1).
        effort: how long a contour may become.
    """
    goal = Goal(log_of(delta))

    def attempt(make: Callable[[], ContourPlan]) -> Ends:
        try:
            return _ends(make(), rounds, delta, distance)
        except NO_PROOF:
            return Ends(Fraction(0), None, 0)

    rough = replace(effort, max_terms=min(effort.max_terms, _ROUGH_TERMS))
    first = _first_plan(rounds, goal, effort, rough)
    if first is None:
        return Ends(Fraction(0), None, 0)
    plan, is_long = first
    ends = attempt(lambda: plan)
    if not is_long:
        if ends.upper is None or ends.width() <= _SHARP or distance:
            return ends
        # The first contour was aimed by a Chernoff bound; aim again at what it found.
        aimed = Goal(goal.log_delta, float(ends.upper))
        ends = ends.meet(attempt(partial(make_plan, rounds, Direction.REMOVE, aimed, effort)))
        if ends.width() <= _FAIR:
            return ends
    goal = replace(goal, tolerance=_ENOUGH)
    ends = _split_ends(
        rounds,
        delta,
        ends,
        lambda aim: attempt(partial(make_split_plan, rounds, replace(goal, epsilon=aim), effort)),
    )
    if distance or ends.width() <= _GOOD:
        return ends
    longest = replace(effort, rough_terms=effort.max_terms)
    if ends.upper:
        goal = replace(goal, epsilon=float(ends.upper))
    return ends.meet(attempt(partial(make_plan, rounds, Direction.REMOVE, goal, longest)))


def _split_ends(
    rounds: Rounds, delta: Fraction, ends: Ends, aimed_at: Callable[[float], Ends]
) -> Ends:
    """Return better ends from contours without the bulk, aimed at one epsilon after the other.

    With few participations one round makes the loss, wherever in the row it stands, so its epsilon
    at delta / rounds is a good first guess. After that every answer is the next aim, while they
    still come down: a contour aimed too high proves an upper end far below its aim.
    """
    guesses = [
        float(single_ends(mechanism, delta / times)[1])
        for mechanism, times in rounds
        if not mechanism.is_gaussian
    ]
    guess = 1.05 * max(guesses, default=0.0)
    for aim in (guess, 1.5 * guess):
        if aim > 0 and (ends.upper is None or aim < float(ends.upper)):
            ends = ends.meet(aimed_at(aim))
            if ends.width() <= _GOOD:
                return ends
    for _ in range(_ATTEMPTS):
        if not ends.upper:
            return ends
        before = ends
        ends = ends.meet(aimed_at(float(ends.upper)))
        if ends.width() <= _GOOD or before.upper is None or ends.upper is None:
            return ends
        if ends.upper > before.upper * Fraction(19, 20) and ends.lower <= before.lower:
            return ends
    return ends


def single_ends(mechanism: Mechanism, delta: Fraction) -> tuple[Fraction, Fraction]:
    """Return proven (lower, upper) epsilon at delta of one round; (0, 0) where delta suffices."""
    curve = SingleRoundCurve(mechanism)
    with working_precision(_SINGLE_BITS):
        guess, slope = curve.guess(delta)
        upper = upper_epsilon(curve, delta, guess=guess, slope=slope)
        return lower_epsilon(curve, delta, guess=float(upper), slope=slope), upper


def _first_plan(
    rounds: Rounds, goal: Goal, effort: Effort, rough: Effort
) -> tuple[ContourPlan, bool] | None:
    """Return (plan, whether it is a short stand-in for a long contour), or None."""
    try:
        plan = make_plan(rounds, Direction.REMOVE, goal, effort)
        nodes = sum(shape.main.count for shape in plan.shapes.values() if shape is not None)
        if plan.frame.count * nodes <= _LONG and not plan.is_blunt:
            return plan, False
    except NO_PROOF:
        pass
    try:
        return make_plan(rounds, Direction.REMOVE, goal, rough), True
    except NO_PROOF:
        return None


def _ends(plan: ContourPlan, rounds: Rounds, delta: Fraction, distance: Fraction) -> Ends:
    curve, bits = curve_of(plan, rounds), plan.frame.precision_bits
    with working_precision(bits):
        upper = upper_epsilon(
            curve, delta, guess=plan.guess, slope=plan.slope, extra_distance=distance
        )
        lower = lower_epsilon(curve, delta, guess=float(upper), slope=plan.slope)
    return Ends(lower, upper, bits)
