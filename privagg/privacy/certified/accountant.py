"""The certified accountant: the best proven interval among the methods that apply."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from flint import arb

from privagg.errors import CertificationError
from privagg.privacy.certified import (
    contour,
    convolution,
    enclosure,
    extreme,
    gaussian,
    participations,
    single,
)
from privagg.privacy.certified.balls import ball, lower_end, upper_end, working_precision
from privagg.privacy.certified.convolution import convolution_upper_epsilon
from privagg.privacy.certified.enclosure import enclosed_epsilon
from privagg.privacy.certified.extreme import WorstRoundCurve
from privagg.privacy.certified.gaussian import GaussianCurve, total_variation_bound
from privagg.privacy.certified.mechanism import (
    Composition,
    Direction,
    Interval,
    Rational,
    Rounds,
    checked_delta,
    checked_distance,
    checked_epsilon,
    normalised,
)
from privagg.privacy.certified.participations import ParticipationCurve
from privagg.privacy.certified.planning import Effort, Goal, make_plan
from privagg.privacy.certified.renyi import METHOD as RENYI
from privagg.privacy.certified.renyi import RenyiBudget
from privagg.privacy.certified.search import (
    delta_ends,
    folded,
    lower_epsilon,
    upper_epsilon,
)
from privagg.privacy.certified.single import SingleRoundCurve
from privagg.privacy.certified.strategy import curve_of, log_of, remove_ends, single_ends

CLOSED_FORM_BITS = 192
DEFAULT_EFFORT = Effort()
# A contour wider than this asks for the fallbacks' opinion too.
_GOOD_WIDTH = Fraction(1, 10**6)
# Below this an absolute width is good enough, whatever epsilon is.
_SMALL_WIDTH = Fraction(1, 10**9)
# Up to so many equal rounds of at most this rate, with so few expected participations, a grid of
# losses is tried first; a contour is slow there, so a width of this share of epsilon is taken.
_FEW, _RARE, _EXPECTED = 1500, Fraction(1, 1000), Fraction(1, 20)
_TAKEN = Fraction(1, 100)
# Beyond this epsilon a contour is the sharper one.
_FINE = 0.2
# With at most this noise the number of participations is counted before a contour is tried.
_LITTLE = Fraction(1, 12)
# Wider than this even a slow convolution is worth its time.
_COARSE_WIDTH = Fraction(1, 100)
# Enough for the fallback's per mille; each cell costs two normal tails.
_FALLBACK_CELLS = 150


@dataclass(frozen=True)
class _Ends:
    """Proven ends of epsilon and where they come from; None where nothing was proven."""

    lower: Fraction
    upper: Fraction | None
    lower_method: str
    upper_method: str
    bits: int


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
        CertificationError: where nothing can be enclosed with this effort.

    Source: proofs/certified-epsilon.md.
    """
    rounds = normalised(composition)
    target, distance = checked_delta(delta), checked_distance(extra_distance)
    if 2 * distance >= target:
        raise CertificationError(
            f"extra_distance {float(distance):.3g} alone uses up delta {float(target):.3g}; "
            "use a sampler nearer to the ideal or a larger delta"
        )
    with working_precision(CLOSED_FORM_BITS):
        if not rounds or total_variation_bound(rounds) + 2 * ball(distance) <= ball(target):
            zero = Fraction(0)
            return Interval(zero, zero, "trivial", "trivial", CLOSED_FORM_BITS)
        closed = _closed_form(rounds)
        if closed is not None:
            curve, method = closed
            guess, slope = curve.guess(target)
            upper = upper_epsilon(curve, target, guess=guess, slope=slope, extra_distance=distance)
            lower = lower_epsilon(curve, target, guess=float(upper), slope=slope)
            return Interval(lower, upper, method, method, CLOSED_FORM_BITS)
        refuse_hopeless(rounds, target, distance)
        counted = _by_participations(rounds, target, distance)
    return counted or _searched(rounds, target, distance, effort)


def refuse_hopeless(rounds: Rounds, delta: Fraction, distance: Fraction) -> None:
    """Raise CertificationError where a distance leaves no epsilon, before contours look for one.

    (1 + e^eps) tau <= delta needs eps <= log(delta / tau - 1), and delta(eps), which never
    increases, must leave room for 2 tau there at least.
    """
    if not distance:
        return
    largest = upper_end((ball(delta) / ball(distance) - 1).log())
    reached = WorstRoundCurve(rounds).bounds(max(largest, Fraction(0))).lower
    if reached > ball(delta - 2 * distance):
        raise CertificationError(
            f"extra_distance {float(distance):.3g} uses up delta {float(delta):.3g} at every "
            "epsilon that these rounds could have; use a sampler nearer to the ideal or more noise"
        )


def _by_participations(rounds: Rounds, delta: Fraction, distance: Fraction) -> Interval | None:
    """Return the interval of equal rounds with little noise, None where that proves nothing."""
    if len(rounds) != 1:
        return None
    (mechanism, times), method = rounds[0], participations.METHOD
    try:
        curve = ParticipationCurve(mechanism, times, delta)
        guess, slope = curve.guess()
        upper = upper_epsilon(curve, delta, guess=guess, slope=slope, extra_distance=distance)
        lower = lower_epsilon(curve, delta, guess=guess, slope=slope)
    except CertificationError:
        return None
    if not add_direction_silent(rounds, delta, distance, upper):
        return None
    return Interval(lower, upper, method, method, CLOSED_FORM_BITS)


def closed_form_applies(composition: Composition) -> bool:
    """Return whether a contour is not the first choice.

    That is without rounds, for one round, without subsampling at all, for equal rounds with little
    noise, and for a few rare ones.
    """
    rounds = normalised(composition)
    if not rounds or _closed_form(rounds) is not None:
        return True
    little = len(rounds) == 1 and rounds[0][0].noise_multiplier <= _LITTLE
    return little or _is_rare(rounds)


def _closed_form(rounds: Rounds) -> tuple[GaussianCurve | SingleRoundCurve, str] | None:
    if all(mechanism.is_gaussian for mechanism, _ in rounds):
        return GaussianCurve.of(rounds), gaussian.METHOD
    if len(rounds) == 1 and rounds[0][1] == 1:
        return SingleRoundCurve(rounds[0][0]), single.METHOD
    return None


def _searched(rounds: Rounds, delta: Fraction, distance: Fraction, effort: Effort) -> Interval:
    """Return the interval by contour, with the other methods where that is slow or wide."""
    enclosed = _by_enclosure(rounds, delta, distance)
    if enclosed is not None and enclosed.upper - enclosed.lower <= max(
        _TAKEN * enclosed.upper, _SMALL_WIDTH
    ):
        return enclosed
    ends = _by_contour(rounds, delta, distance, effort)
    if enclosed is not None:
        if ends.upper is None or enclosed.upper < ends.upper:
            ends = replace(ends, upper=enclosed.upper, upper_method=enclosure.METHOD)
        if enclosed.lower > ends.lower:
            ends = replace(ends, lower=enclosed.lower, lower_method=enclosure.METHOD)
    if ends.upper is None or ends.upper - ends.lower > _GOOD_WIDTH * ends.upper:
        # Further rounds never lower epsilon: the worst single round's is a lower end.
        alone = max(single_ends(mechanism, delta)[0] for mechanism, _ in rounds)
        if alone > ends.lower:
            ends = replace(ends, lower=alone, lower_method=single.METHOD)
        with working_precision(CLOSED_FORM_BITS):
            guess = float(ends.lower) or float(ends.upper or 1)
            any_round = lower_epsilon(
                WorstRoundCurve(rounds), delta, guess=guess, slope=-5.0 / max(guess, 1e-12)
            )
        if any_round > ends.lower:
            ends = replace(ends, lower=any_round, lower_method=extreme.METHOD)
    if ends.upper is None or ends.upper - ends.lower > _GOOD_WIDTH * ends.upper:
        fallback = _by_renyi(rounds, delta, distance)
        if fallback is not None and (ends.upper is None or fallback < ends.upper):
            ends = replace(ends, upper=fallback, upper_method=RENYI, bits=CLOSED_FORM_BITS)
    if ends.upper is not None and ends.upper - ends.lower > _COARSE_WIDTH * ends.upper:
        convolved = _by_convolution(rounds, delta, distance, ends)
        if convolved is not None and convolved < ends.upper:
            ends = replace(ends, upper=convolved, upper_method=convolution.METHOD)
    if ends.upper is None:
        raise CertificationError(
            "neither a contour nor a Renyi order gave an upper end; allow more effort"
        )
    return Interval(ends.lower, ends.upper, ends.upper_method, ends.lower_method, ends.bits)


def _is_rare(rounds: Rounds) -> bool:
    """Return whether these are a few equal rounds in which the record hardly ever takes part."""
    mechanism, times = rounds[0]
    few = len(rounds) == 1 and times <= _FEW and mechanism.sampling_rate <= _RARE
    return few and times * mechanism.sampling_rate <= _EXPECTED


def _by_enclosure(rounds: Rounds, delta: Fraction, distance: Fraction) -> Interval | None:
    """Return the interval of a few equal rounds with little participation, by grid."""
    if not _is_rare(rounds):
        return None
    mechanism, times = rounds[0]
    aim = max(1.1 * float(single_ends(mechanism, delta / times)[1]), 1e-9)
    if aim > _FINE:
        return None
    try:
        lower, upper = enclosed_epsilon(mechanism, times, delta, distance, aim)
    except CertificationError:
        return None
    method = enclosure.METHOD
    return Interval(lower, upper, method, method, enclosure.BITS)


def _by_convolution(
    rounds: Rounds, delta: Fraction, distance: Fraction, ends: _Ends
) -> Fraction | None:
    """Return a convolved upper end; tried from the lower end first, where epsilon often lies."""
    guess = float(ends.lower) * 1.1 or float(ends.upper or 0)
    try:
        return convolution_upper_epsilon(
            rounds, delta, guess=guess, extra_distance=distance, least_cells=_FALLBACK_CELLS
        )
    except CertificationError:
        return None


def _by_renyi(rounds: Rounds, delta: Fraction, distance: Fraction) -> Fraction | None:
    """Return a Renyi upper end; with a distance, the least of a few splits that is proven."""
    with working_precision(CLOSED_FORM_BITS):
        budget = RenyiBudget.of(rounds)
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
    except CertificationError:
        return None


def add_direction_silent(
    rounds: Rounds, delta: Fraction, distance: Fraction, epsilon: Fraction
) -> bool:
    """Return whether the add direction's delta at epsilon is small enough without a contour.

    The loss of one such round is at most -log(1 - q), whatever comes out; so delta is at most
    1 - e^epsilon (1 - q)^T.
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

    Raises: as `epsilon_interval`.
    """
    rounds, eps = normalised(composition), checked_epsilon(epsilon)
    zero = Fraction(0)
    if not rounds:
        return Interval(zero, zero, "trivial", "trivial", CLOSED_FORM_BITS)
    with working_precision(CLOSED_FORM_BITS):
        closed = _closed_form(rounds)
        if closed is not None:
            low, high = delta_ends(closed[0].bounds(eps))
            return Interval(low, high, closed[1], closed[1], CLOSED_FORM_BITS)
        budget = RenyiBudget.of(rounds)
        high = min(upper_end(budget.delta_at(eps)), Fraction(1))
    ends = [_delta_contour(rounds, Direction.REMOVE, eps, high, effort)]
    with working_precision(CLOSED_FORM_BITS):
        # What remove is proven to reach hides an add direction that is proven to stay below it.
        least = zero if ends[0] is None else ends[0][0]
        silent = add_direction_silent(rounds, least, zero, eps)
    if not silent:
        ends.append(_delta_contour(rounds, Direction.ADD, eps, high, effort))
    low, method, lower_method, bits = zero, RENYI, "trivial", CLOSED_FORM_BITS
    if all(end is not None for end in ends):
        best = max(end[1] for end in ends if end is not None)
        if best < high:
            high, method, bits = best, contour.METHOD, max(e[2] for e in ends if e is not None)
    for end in ends:
        if end is not None and end[0] > low:
            low, lower_method = end[0], contour.METHOD
    return Interval(low, high, method, lower_method, bits)


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
    except CertificationError:
        return None
