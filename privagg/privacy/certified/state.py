"""Epsilon of a growing composition, kept on its contours so that a further round is cheap."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from privagg.errors import CertificationError
from privagg.privacy.certified import contour
from privagg.privacy.certified.accountant import (
    CLOSED_FORM_BITS,
    DEFAULT_EFFORT,
    add_direction_silent,
    closed_form_applies,
    epsilon_interval,
)
from privagg.privacy.certified.balls import ball, working_precision
from privagg.privacy.certified.contour import ContourCurve, Product
from privagg.privacy.certified.mechanism import (
    Composition,
    Direction,
    Interval,
    Mechanism,
    Rational,
    checked_delta,
    checked_distance,
    normalised,
)
from privagg.privacy.certified.planning import ContourPlan, Effort, Goal, extend_plan, make_plan
from privagg.privacy.certified.search import folded, lower_epsilon, upper_epsilon
from privagg.privacy.certified.tables import RoundTable, round_table
from privagg.privacy.certified.work import MOST_WORK, NO_PROOF, limited

# A contour is kept until rounds, or the moment at its order, have grown by this factor.
_GROWTH = 2.0
# Units of work for its contours; what needs more is left to `epsilon_interval`.
_MOST_WORK = MOST_WORK // 2
_GOOD_WIDTH = Fraction(1, 10**6)


class _Side:
    """One direction's contour with everything composed on it so far."""

    def __init__(self, counts: Composition, direction: Direction, goal: Goal, effort: Effort):
        rounds = normalised(counts)
        self.goal = goal
        self.plan: ContourPlan = make_plan(rounds, direction, goal, effort, growth=_GROWTH)
        self._tables: dict[Mechanism, RoundTable] = {}
        self._included: dict[Mechanism, int] = {}
        with working_precision(self.bits):
            self._product = Product(self.plan.frame)
            for mechanism in counts:
                shape = self.plan.shapes[mechanism]
                self._tables[mechanism] = round_table(mechanism, self.plan.frame, shape)
            self._take(counts)
        self._planned = (self._product.rounds, self._product.log_moment())
        self.curve: ContourCurve | None = None

    @property
    def bits(self) -> int:
        """Working precision of this contour."""
        return self.plan.frame.precision_bits

    def _take(self, counts: Composition) -> None:
        for mechanism, count in counts.items():
            more = count - self._included.get(mechanism, 0)
            if more:
                self._product.add(self._tables[mechanism], more)
                self._included[mechanism] = count

    def follow(self, counts: Composition) -> bool:
        """Take what was added since; False where the contour no longer suits the composition."""
        with working_precision(self.bits):
            for mechanism in counts:
                if mechanism not in self._tables:
                    try:
                        shape = extend_plan(self.plan, mechanism, self.goal)
                        table = round_table(mechanism, self.plan.frame, shape)
                    except CertificationError:
                        return False
                    self._tables[mechanism] = table
            before = self._product.rounds
            self._take(counts)
            if self._product.rounds != before:
                self.curve = None
        rounds, moment = self._planned
        return self._product.rounds <= _GROWTH * rounds and (
            self._product.log_moment() <= max(_GROWTH * moment, moment + 1e-3)
        )

    def ready(self) -> ContourCurve:
        """Return the curve of everything composed so far; call at this side's precision."""
        if self.curve is None:
            self.curve = ContourCurve(self._product)
        return self.curve


@dataclass
class _Pair:
    """Both directions at one delta, with the last answer as the next guess."""

    remove: _Side
    add: _Side | None = None
    guess: float = math.nan


@dataclass
class ContourState:
    """Epsilon of a composition to which rounds are added one by one.

    `add` costs microseconds; `epsilon` costs milliseconds where every mechanism has been seen at
    this delta, and plans afresh each time the composition has doubled. The interval is proven
    exactly as that of `epsilon_interval`, to which this falls back wherever its contours do not
    reach a relative width of 10^-6.

    Args:
        effort: how long a contour may become.
    """

    effort: Effort = DEFAULT_EFFORT
    _counts: dict[Mechanism, int] = field(default_factory=dict)
    _pairs: dict[Fraction, _Pair] = field(default_factory=dict)
    # Rounds at which even a new contour was blunt, by delta: the next is planned at twice as many.
    _blunt: dict[Fraction, int] = field(default_factory=dict)

    @property
    def composition(self) -> dict[Mechanism, int]:
        """What has been added so far: mechanism -> rounds (a copy)."""
        return dict(self._counts)

    def add(self, mechanism: Mechanism, count: int = 1) -> None:
        """Add `count` rounds of a mechanism.

        Raises: UnknownEventError or PrivacyError as `epsilon_interval`; nothing is added then.
        """
        for known, more in normalised({mechanism: count}):
            self._counts[known] = self._counts.get(known, 0) + more

    def epsilon(self, delta: Rational, *, extra_distance: Rational = Fraction(0)) -> Interval:
        """Return a proven interval for epsilon at delta of everything added so far.

        Args and raises: as `epsilon_interval`.
        """
        target, distance = checked_delta(delta), checked_distance(extra_distance)
        rounds = sum(self._counts.values())
        may_suit = rounds >= _GROWTH * self._blunt.get(target, 0)
        if may_suit and not closed_form_applies(self._counts) and 2 * distance < target:
            is_new = target not in self._pairs
            try:
                with limited(_MOST_WORK):
                    interval = self._by_contour(target, distance)
            except NO_PROOF:
                self._pairs.pop(target, None)
                interval = None
            if interval is not None:
                return interval
            if is_new:
                self._blunt[target] = rounds
        return epsilon_interval(self._counts, target, extra_distance=distance, effort=self.effort)

    def _by_contour(self, delta: Fraction, distance: Fraction) -> Interval | None:
        pair = self._pairs.get(delta)
        if pair is None or not pair.remove.follow(self._counts):
            goal = Goal(math.log(delta.numerator) - math.log(delta.denominator))
            pair = _Pair(_Side(self._counts, Direction.REMOVE, goal, self.effort))
            self._pairs[delta] = pair
        side = pair.remove
        guess = side.plan.guess if math.isnan(pair.guess) else pair.guess
        with working_precision(side.bits):
            curve, slope = side.ready(), side.plan.slope
            upper = upper_epsilon(curve, delta, guess=guess, slope=slope, extra_distance=distance)
            lower = lower_epsilon(curve, delta, guess=float(upper), slope=slope)
        pair.guess = float(upper)
        wide = not distance and upper - lower > _GOOD_WIDTH * upper
        if wide or not self._add_agrees(pair, delta, distance, upper):
            # Blunt here: plan afresh the next time, and let the full accountant answer now.
            self._pairs.pop(delta, None)
            return None
        return Interval(lower, upper, contour.METHOD, contour.METHOD, side.bits)

    def _add_agrees(
        self, pair: _Pair, delta: Fraction, distance: Fraction, epsilon: Fraction
    ) -> bool:
        """Return whether the add direction is proven to need no more than `epsilon`."""
        with working_precision(CLOSED_FORM_BITS):
            if add_direction_silent(normalised(self._counts), delta, distance, epsilon):
                return True
        if pair.add is None or not pair.add.follow(self._counts):
            pair.add = _Side(self._counts, Direction.ADD, pair.remove.goal, self.effort)
        side = pair.add
        with working_precision(side.bits):
            top = side.ready().bounds(epsilon).upper
            return bool(folded(top, epsilon, distance) <= ball(delta))
