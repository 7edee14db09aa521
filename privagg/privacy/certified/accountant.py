"""The certified accountant: the best proven interval among the methods that apply."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction

from flint import arb

from privagg.errors import CertificationError
from privagg.privacy.certified import (
    contour,
    convolution,
    extreme,
    gaussian,
    mirror,
    participations,
    single,
    unsampled,
)
from privagg.privacy.certified.balls import ball, lower_end, upper_end, working_precision
from privagg.privacy.certified.convolution import convolution_upper_epsilon
from privagg.privacy.certified.extreme import WorstRoundCurve
from privagg.privacy.certified.gaussian import GaussianCurve, total_variation_bound
from privagg.privacy.certified.mechanism import (
    Composition,
    Direction,
    Interval,
    Mechanism,
    Rational,
    Rounds,
    checked_delta,
    checked_distance,
    checked_epsilon,
    normalised,
)
from privagg.privacy.certified.mirror import mirrored_delta, mirrored_ends
from privagg.privacy.certified.participations import ParticipationCurve
from privagg.privacy.certified.planning import Effort, Goal, make_plan
from privagg.privacy.certified.renyi import METHOD as RENYI
from privagg.privacy.certified.renyi import ORDERS, RenyiBudget
from privagg.privacy.certified.search import (
    delta_ends,
    folded,
    lower_epsilon,
    upper_epsilon,
)
from privagg.privacy.certified.single import SingleRoundCurve
from privagg.privacy.certified.strategy import curve_of, log_of, remove_ends, single_ends
from privagg.privacy.certified.unsampled import UnsampledCurve, refusal
from privagg.privacy.certified.work import MOST_WORK, NO_PROOF, limited

CLOSED_FORM_BITS = 192
DEFAULT_EFFORT = Effort()
# A contour wider than this asks for the fallbacks' opinion too.
_GOOD_WIDTH = Fraction(1, 10**6)
# Below this an absolute width is good enough, whatever epsilon is.
_SMALL_WIDTH = Fraction(1, 10**9)
# Up to this sampling rate the mirror is tried before a contour; with at most so many participations
# expected in all, a contour that grows with a ledger is not worth planning.
_RARE, _EXPECTED = Fraction(1, 1000), Fraction(1, 20)
# With at most this noise the number of participations is counted before a contour is tried.
_LITTLE = Fraction(1, 12)
# Wider than this even a slow convolution is worth its time.
_COARSE_WIDTH = Fraction(1, 100)
# Enough for the fallback's per mille; each cell costs two normal tails.
_FALLBACK_CELLS = 150
# Of more mechanisms the blunt methods, which no limit stops, look at a part.
_MECHANISMS = 16
# How often the noise's own epsilon is raised by what the distance costs at it.
_REFUSALS = 4


@dataclass(frozen=True)
class _Ends:
    """Proven ends of epsilon, or of delta, and what proved them; None where nothing did.

    `added` is how much of the upper end is owed to a sampler's distance alone.
    """

    lower: Fraction
    upper: Fraction | None
    lower_method: str
    upper_method: str
    bits: int
    added: Fraction = Fraction(0)

    def meet(self, other: _Ends) -> _Ends:
        """Return the tighter of both ends."""
        best = self
        if other.upper is not None and (self.upper is None or other.upper < self.upper):
            best = replace(other, lower=self.lower, lower_method=self.lower_method)
        if other.lower > self.lower:
            best = replace(best, lower=other.lower, lower_method=other.lower_method)
        return best

    def is_wider_than(self, relative: Fraction, absolute: Fraction = _SMALL_WIDTH) -> bool:
        """Return whether these ends lie further apart than both widths, but for the distance."""
        if self.upper is None:
            return True
        return self.upper - self.added - self.lower > max(relative * self.upper, absolute)


_NOTHING = _Ends(Fraction(0), None, "trivial", "trivial", CLOSED_FORM_BITS)


def epsilon_interval(
    composition: Composition,
    delta: Rational,
    *,
    extra_distance: Rational = Fraction(0),
    effort: Effort = DEFAULT_EFFORT,
) -> Interval:
    """Return a proven interval for epsilon at delta of a composition, both directions.

    Args:
        composition: mechanism -> number of rounds; parameters fixed before the first round.
        delta: exact rational in (0, 1).
        extra_distance: tau, the total-variation distance of what was run from the ideal Gaussian
            rounds, over the whole composition. The upper end satisfies
            delta(eps) + (1 + e^eps) tau <= delta; the lower end is the ideal mechanism's.
        effort: how long a contour may become.

    Guarantees: the composition is (upper, delta)-differentially private under add-or-remove-one,
        and is not (e, delta)-private for any e < lower.
    Raises:
        PrivacyError: for arguments outside their ranges; UnknownEventError for other events.
        CertificationError: where the distance, times 1 + e^epsilon, uses up delta at every
            epsilon; the message says what would help.

    Source: proofs/certified-epsilon.md.
    """
    rounds = normalised(composition)
    target, distance = checked_delta(delta), checked_distance(extra_distance)
    if 2 * distance >= target:
        raise _refused(rounds, target, distance)
    with limited(MOST_WORK):
        with working_precision(CLOSED_FORM_BITS):
            if not rounds or total_variation_bound(rounds) + 2 * ball(distance) <= ball(target):
                zero = Fraction(0)
                return Interval(zero, zero, "trivial", "trivial", CLOSED_FORM_BITS)
            found = _by_closed_form(rounds, target, distance)
            if found is not None:
                return found
            refuse_hopeless(rounds, target, distance)
            counted = _by_participations(rounds, target, distance)
        return _searched(rounds, target, distance, effort, counted)


def _by_closed_form(rounds: Rounds, delta: Fraction, distance: Fraction) -> Interval | None:
    """Return the interval where delta(eps) is known exactly, None elsewhere."""
    closed = _closed_form(rounds)
    if closed is None:
        return None
    curve, method = closed
    try:
        guess, slope = curve.guess(delta)
        upper = upper_epsilon(curve, delta, guess=guess, slope=slope, extra_distance=distance)
        lower = lower_epsilon(curve, delta, guess=float(upper), slope=slope)
    except NO_PROOF:
        return None
    return Interval(lower, upper, method, method, CLOSED_FORM_BITS)


def refuse_hopeless(rounds: Rounds, delta: Fraction, distance: Fraction) -> None:
    """Raise CertificationError where a distance leaves no epsilon, before contours look for one.

    (1 + e^eps) tau <= delta needs eps <= log(delta / tau - 1), and delta(eps), which never
    increases, must leave room for 2 tau there at least.

    Args:
        rounds: (mechanism, number of rounds) pairs, as `normalised` returns them.
        delta: exact rational in (0, 1).
        distance: tau, in [0, 1); with 0 there is nothing to refuse.
    """
    if not distance:
        return
    largest = upper_end((ball(delta) / ball(distance) - 1).log())
    reached = WorstRoundCurve(rounds).bounds(max(largest, Fraction(0))).lower
    if reached > ball(delta - 2 * distance):
        raise _refused(rounds, delta, distance)


def _by_participations(rounds: Rounds, delta: Fraction, distance: Fraction) -> _Ends:
    """Return ends of equal rounds with little noise, none where that proves nothing."""
    if len(rounds) != 1:
        return _NOTHING
    (mechanism, times), method = rounds[0], participations.METHOD
    try:
        curve = ParticipationCurve(mechanism, times, delta)
        guess, slope = curve.guess()
        upper = ideal = upper_epsilon(curve, delta, guess=guess, slope=slope)
        if distance:
            upper = upper_epsilon(curve, delta, guess=guess, slope=slope, extra_distance=distance)
        lower = lower_epsilon(curve, delta, guess=guess, slope=slope)
    except NO_PROOF:
        return _NOTHING
    if not add_direction_silent(rounds, delta, distance, upper):
        return _NOTHING
    return _Ends(lower, upper, method, method, CLOSED_FORM_BITS, max(upper - ideal, Fraction(0)))


def closed_form_applies(composition: Composition) -> bool:
    """Return whether a contour is not the first choice.

    That is without rounds, for one round, without subsampling at all, for equal rounds with little
    noise, and where a record hardly ever takes part in any of the rounds.
    """
    rounds = normalised(composition)
    if not rounds or _closed_form(rounds) is not None:
        return True
    little = len(rounds) == 1 and rounds[0][0].noise_multiplier <= _LITTLE
    expected = sum(times * mechanism.sampling_rate for mechanism, times in rounds)
    return little or (_is_rare(rounds) and expected <= _EXPECTED)


def _closed_form(rounds: Rounds) -> tuple[GaussianCurve | SingleRoundCurve, str] | None:
    if all(mechanism.is_gaussian for mechanism, _ in rounds):
        return GaussianCurve.of(rounds), gaussian.METHOD
    if len(rounds) == 1 and rounds[0][1] == 1:
        return SingleRoundCurve(rounds[0][0]), single.METHOD
    return None


def _searched(
    rounds: Rounds, delta: Fraction, distance: Fraction, effort: Effort, known: _Ends
) -> Interval:
    """Return the interval by mirror and contour, with the other methods where those are wide.

    Args:
        known: ends that are proven already; where they are narrow nothing is searched.
    """
    methods = [_by_mirror, _by_contour] if _is_rare(rounds) else [_by_contour, _by_mirror]
    ends, is_closed = known, _closed_form(rounds) is not None
    for method in () if is_closed else methods:
        if not ends.is_wider_than(_GOOD_WIDTH):
            break
        with suppress(*NO_PROOF):
            ends = ends.meet(method(rounds, delta, distance, effort))
    if ends.is_wider_than(_GOOD_WIDTH):
        ends = _with_fallbacks(rounds, delta, distance, ends)
    if ends.upper is None:
        raise _refused(rounds, delta, distance)
    return Interval(ends.lower, ends.upper, ends.upper_method, ends.lower_method, ends.bits)


def _with_fallbacks(rounds: Rounds, delta: Fraction, distance: Fraction, ends: _Ends) -> _Ends:
    """Return ends that blunter methods may have tightened."""
    # Further rounds never lower epsilon: the worst single round's is a lower end.
    some = rounds[:: _thinned(rounds)]
    alone = max(_alone(mechanism, delta) for mechanism, _ in some)
    with working_precision(CLOSED_FORM_BITS):
        guess = float(max(ends.lower, alone)) or float(ends.upper or 1)
        any_round = lower_epsilon(
            WorstRoundCurve(some), delta, guess=guess, slope=-5.0 / max(guess, 1e-12)
        )
    for lower, method in ((alone, single.METHOD), (any_round, extreme.METHOD)):
        ends = ends.meet(replace(_NOTHING, lower=lower, lower_method=method))
    if ends.is_wider_than(_GOOD_WIDTH):
        upper = _by_renyi(rounds, delta, distance)
        ends = ends.meet(replace(_NOTHING, upper=upper, upper_method=RENYI))
    if ends.upper is not None and ends.is_wider_than(_COARSE_WIDTH):
        upper = _by_convolution(rounds, delta, distance, ends)
        ends = ends.meet(replace(_NOTHING, upper=upper, upper_method=convolution.METHOD))
    if ends.upper is None:
        with working_precision(CLOSED_FORM_BITS):
            upper = UnsampledCurve.of(rounds, distance).epsilon(delta)
        ends = ends.meet(replace(_NOTHING, upper=upper, upper_method=unsampled.METHOD))
    return ends


def _alone(mechanism: Mechanism, delta: Fraction) -> Fraction:
    """Return a lower end of one round's epsilon, 0 where none is proven."""
    try:
        return single_ends(mechanism, delta)[0]
    except NO_PROOF:
        return Fraction(0)


def _refused(rounds: Rounds, delta: Fraction, distance: Fraction) -> CertificationError:
    """Return the error that says why no epsilon is proven, with the noise's own as far as known."""
    lower = Fraction(0)
    for _ in range(_REFUSALS):
        with working_precision(CLOSED_FORM_BITS):
            left = upper_end(ball(delta) - (1 + ball(lower).exp()) * ball(distance))
        if left <= 0:
            break
        # Whatever epsilon holds leaves the noise no more than this.
        lower = max(lower, epsilon_interval(dict(rounds), left).lower)
    with working_precision(CLOSED_FORM_BITS):
        return CertificationError(refusal(rounds, delta, distance, lower))


def _thinned(rounds: Rounds) -> int:
    """Return the stride by which the blunt methods go through mechanisms, or through orders.

    Either may be left out: fewer rounds are a lower end, any order is an upper one.
    """
    return 1 + len(rounds) // _MECHANISMS


def _is_rare(rounds: Rounds) -> bool:
    """Return whether records hardly ever take part in any round."""
    return all(mechanism.sampling_rate <= _RARE for mechanism, _ in rounds)


def _by_mirror(rounds: Rounds, delta: Fraction, distance: Fraction, effort: Effort) -> _Ends:
    """Return ends from the mirror, after the add direction has agreed."""
    method = mirror.METHOD
    try:
        found = mirrored_ends(rounds, delta, distance, effort)
    except NO_PROOF:
        return _NOTHING
    upper = found.upper
    if upper is not None and not found.both:
        upper = _add_direction(rounds, delta, distance, upper, effort)
    lower_method = method if found.lower else "trivial"
    return _Ends(found.lower, upper, lower_method, method, found.bits, found.added)


def _by_convolution(
    rounds: Rounds, delta: Fraction, distance: Fraction, ends: _Ends
) -> Fraction | None:
    """Return a convolved upper end; tried from the lower end first, where epsilon often lies."""
    guess = float(ends.lower) * 1.1 or float(ends.upper or 0)
    try:
        return convolution_upper_epsilon(
            rounds, delta, guess=guess, extra_distance=distance, least_cells=_FALLBACK_CELLS
        )
    except NO_PROOF:
        return None


def _by_renyi(rounds: Rounds, delta: Fraction, distance: Fraction) -> Fraction | None:
    """Return a Renyi upper end; with a distance, the least of a few splits that is proven."""
    with working_precision(CLOSED_FORM_BITS):
        budget = RenyiBudget.of(rounds, ORDERS[:: _thinned(rounds)])
        if not distance:
            return budget.upper_epsilon(delta)
        epsilon = budget.upper_epsilon(delta)
        for _ in range(40):
            spent = (1 + ball(epsilon).exp()) * ball(distance)
            left = ball(delta) - spent
            if not left > 0:
                return None
            epsilon = max(epsilon, budget.upper_epsilon(lower_end(left)))
            if folded(budget.delta_at(epsilon), epsilon, distance) <= ball(delta):
                return epsilon
        return None


def _by_contour(rounds: Rounds, delta: Fraction, distance: Fraction, effort: Effort) -> _Ends:
    """Return ends from the remove contours, after the add direction has agreed."""
    ends = remove_ends(rounds, delta, distance, effort)
    lower_method = contour.METHOD if ends.lower else "trivial"
    upper = ends.upper
    if upper is not None:
        upper = _add_direction(rounds, delta, distance, upper, effort)
    return _Ends(ends.lower, upper, lower_method, contour.METHOD, ends.bits)


def _add_direction(
    rounds: Rounds, delta: Fraction, distance: Fraction, epsilon: Fraction, effort: Effort
) -> Fraction | None:
    """Return an upper end for the add direction, `epsilon` itself where that is proven enough."""
    with working_precision(CLOSED_FORM_BITS):
        if add_direction_silent(rounds, delta, distance, epsilon):
            return epsilon
    try:
        # Planned for its own epsilon, which may lie far below the remove direction's.
        plan = make_plan(rounds, Direction.ADD, Goal(log_of(delta)), effort)
        curve = curve_of(plan, rounds)
        with working_precision(plan.frame.precision_bits):
            if folded(curve.bounds(epsilon).upper, epsilon, distance) <= ball(delta):
                return epsilon
            return max(
                epsilon,
                upper_epsilon(
                    curve,
                    delta,
                    guess=float(epsilon),
                    slope=plan.slope,
                    extra_distance=distance,
                ),
            )
    except NO_PROOF:
        return None


def add_direction_silent(
    rounds: Rounds, delta: Fraction, distance: Fraction, epsilon: Fraction
) -> bool:
    """Return whether the add direction's delta at epsilon is small enough without a contour.

    The loss of one such round is at most -log(1 - q), whatever comes out; so delta is at most
    1 - e^epsilon (1 - q)^T.

    Args:
        rounds: (mechanism, number of rounds) pairs, as `normalised` returns them.
        delta: exact rational in (0, 1), which delta at epsilon must not exceed.
        distance: total-variation distance of the sampler over all rounds, in [0, 1).
        epsilon: exact rational >= 0.

    Returns: False also where a round has no subsampling: its loss has no such limit.
    """
    if any(mechanism.is_gaussian for mechanism, _ in rounds):
        return False
    most = sum((-times * ball(1 - m.sampling_rate).log() for m, times in rounds), arb(0))
    left = (-(ball(epsilon) - most).expm1()).nonnegative_part()
    return bool(folded(left, epsilon, distance) <= ball(delta))


def delta_interval(
    composition: Composition, epsilon: Rational, *, effort: Effort = DEFAULT_EFFORT
) -> Interval:
    """Return a proven interval for delta at epsilon of a composition, both directions.

    Args:
        composition: mechanism -> number of rounds.
        epsilon: exact rational >= 0.
        effort: how long a contour may become.

    Raises: as `epsilon_interval`.
    """
    rounds, eps = normalised(composition), checked_epsilon(epsilon)
    with limited(MOST_WORK):
        return _delta_interval(rounds, eps, effort)


def _delta_interval(rounds: Rounds, eps: Fraction, effort: Effort) -> Interval:
    zero = Fraction(0)
    if not rounds:
        return Interval(zero, zero, "trivial", "trivial", CLOSED_FORM_BITS)
    with working_precision(CLOSED_FORM_BITS):
        closed = _closed_form(rounds)
        if closed is not None:
            low, high = delta_ends(closed[0].bounds(eps))
            return Interval(low, high, closed[1], closed[1], CLOSED_FORM_BITS)
        budget = RenyiBudget.of(rounds, ORDERS[:: _thinned(rounds)])
        high = min(upper_end(budget.delta_at(eps)), Fraction(1))
    ends = _Ends(zero, high, "trivial", RENYI, CLOSED_FORM_BITS)
    methods = [_delta_by_mirror, _delta_by_contour]
    for method in methods if _is_rare(rounds) else reversed(methods):
        ends = ends.meet(method(rounds, eps, high, effort))
        if not ends.is_wider_than(_GOOD_WIDTH, zero):
            break
    return Interval(ends.lower, ends.upper or zero, ends.upper_method, ends.lower_method, ends.bits)


def _delta_by_mirror(rounds: Rounds, epsilon: Fraction, high: Fraction, effort: Effort) -> _Ends:
    """Return ends of delta from the mirror, where the add direction agrees."""
    try:
        found = mirrored_delta(rounds, epsilon, log_of(high), effort)
    except NO_PROOF:
        return _NOTHING
    upper = found.upper
    if upper is not None and not found.both:
        with working_precision(CLOSED_FORM_BITS):
            if not add_direction_silent(rounds, upper, Fraction(0), epsilon):
                upper = None
    return _Ends(found.lower, upper, mirror.METHOD, mirror.METHOD, found.bits)


def _delta_by_contour(rounds: Rounds, epsilon: Fraction, high: Fraction, effort: Effort) -> _Ends:
    """Return ends of delta from a contour for each direction, if the add direction needs one."""
    remove = _delta_contour(rounds, Direction.REMOVE, epsilon, high, effort)
    if remove is None:
        return _NOTHING
    low, top, bits = remove
    ends = _Ends(low, top, contour.METHOD, contour.METHOD, bits)
    with working_precision(CLOSED_FORM_BITS):
        # Below what remove may reach, the add direction's simple bound needs no contour.
        if add_direction_silent(rounds, top, Fraction(0), epsilon):
            return ends
    add = _delta_contour(rounds, Direction.ADD, epsilon, high, effort)
    if add is None:
        return replace(ends, upper=None)
    return replace(ends, lower=max(low, add[0]), upper=max(top, add[1]), bits=max(bits, add[2]))


def _delta_contour(
    rounds: Rounds, direction: Direction, epsilon: Fraction, high: Fraction, effort: Effort
) -> tuple[Fraction, Fraction, int] | None:
    """Return (lower, upper, bits) of delta at epsilon in one direction, or None."""
    try:
        plan = make_plan(rounds, direction, Goal(log_of(high) - 1.0, float(epsilon)), effort)
        curve = curve_of(plan, rounds)
        with working_precision(plan.frame.precision_bits):
            low, top = delta_ends(curve.bounds(epsilon))
            return low, top, plan.frame.precision_bits
    except NO_PROOF:
        return None
