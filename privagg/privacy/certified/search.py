"""From proven bounds of delta at an epsilon to a proven interval for epsilon at a delta."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from flint import arb

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import as_dyadic, ball, log_float, lower_end, upper_end


@dataclass(frozen=True)
class DeltaBounds:
    """Proven bounds of delta at one epsilon, as balls whose outer ends count."""

    lower: arb
    upper: arb


class DeltaCurve(Protocol):
    """Something that bounds delta(epsilon) from both sides, by proof.

    Guarantees of `bounds(e)`: true delta(e) <= sup of `upper` and >= inf of `lower`.
    """

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return proven bounds of delta at this exact epsilon >= 0."""
        ...


_STEPS = 60
# Steps below this relative size of epsilon are not worth another evaluation.
_RELATIVE_STEP = 1e-13


def folded(upper: arb, epsilon: Fraction, extra_distance: Fraction) -> arb:
    """Return delta after a sampler at total-variation distance tau: delta + (1 + e^eps) tau.

    Args:
        upper: ball whose upper end bounds delta(eps) of the ideal mechanism.
        epsilon: exact rational >= 0.
        extra_distance: tau, in [0, 1).
    """
    if not extra_distance:
        return upper
    return upper + (1 + ball(epsilon).exp()) * ball(extra_distance)


def upper_epsilon(
    curve: DeltaCurve,
    delta: Fraction,
    *,
    guess: float,
    slope: float,
    extra_distance: Fraction = Fraction(0),
) -> Fraction:
    """Return an epsilon at which delta(eps) + (1 + e^eps) tau <= delta is proven.

    Args:
        curve: proven bounds of delta.
        delta: exact target in (0, 1).
        guess: float near the answer; steers only.
        slope: float near d log(delta) / d epsilon there, negative; steers only.
        extra_distance: tau.

    Raises:
        CertificationError: if no epsilon tried passes the proof.
    """
    target = ball(delta)

    def value(epsilon: Fraction) -> arb:
        return folded(curve.bounds(epsilon).upper, epsilon, extra_distance)

    def passes(epsilon: Fraction, bound: arb) -> bool:
        return bool(bound <= target)

    found = _walk(value, passes, target, guess=guess, slope=slope, upwards=True)
    if found is None:
        raise CertificationError(
            f"no upper end for epsilon could be proven at delta={float(delta):.3g} "
            f"(last guess {guess:.6g})"
        )
    return found


def lower_epsilon(curve: DeltaCurve, delta: Fraction, *, guess: float, slope: float) -> Fraction:
    """Return an epsilon >= 0 that the true epsilon(delta) is proven not to lie below.

    The proof is delta(eps) > delta at the returned point, as delta(eps) never increases; where no
    point passes, 0 is returned, which needs no proof.

    Args:
        curve: proven bounds of delta.
        delta: exact target in (0, 1).
        guess: float near the answer; steers only.
        slope: float near d log(delta) / d epsilon there, negative; steers only.
    """
    target = ball(delta)

    def value(epsilon: Fraction) -> arb:
        return curve.bounds(epsilon).lower

    def passes(epsilon: Fraction, bound: arb) -> bool:
        return bool(bound > target)

    found = _walk(value, passes, target, guess=guess, slope=slope, upwards=False)
    return Fraction(0) if found is None else found


@dataclass
class _Bracket:
    """Where the bound is known to lie above (`low`) and at or below (`high`) the target."""

    low: float | None = None
    high: float | None = None

    def note(self, point: float, is_above: bool) -> None:
        if is_above:
            self.low = point if self.low is None else max(self.low, point)
        else:
            self.high = point if self.high is None else min(self.high, point)

    def inside(self, wanted: float, last: float) -> float:
        """Return `wanted`, or a point between the ends where it falls outside them."""
        low, high = self.low, self.high
        if low is None:
            # Only points beyond the root so far: come down, and look at 0 itself at the end.
            return wanted if wanted > last / 32 else 0.0
        if high is None:
            return wanted if wanted > low else 2 * low + abs(wanted - low)
        if low < wanted < high:
            return max(wanted, high / 32) if low == 0.0 else wanted
        return high / 8 if low == 0.0 else (low + high) / 2


def _walk(
    value: Callable[[Fraction], arb],
    passes: Callable[[Fraction, arb], bool],
    target: arb,
    *,
    guess: float,
    slope: float,
    upwards: bool,
) -> Fraction | None:
    """Newton steps on log(value), kept in a bracket; returns the best point that passes."""
    goal = log_float(target)
    point, pad = max(guess, 0.0), _RELATIVE_STEP
    best: Fraction | None = None
    bracket = _Bracket()
    previous: tuple[float, float] | None = None
    for _ in range(_STEPS):
        epsilon = as_dyadic(point)
        bound = value(epsilon)
        ok = passes(epsilon, bound)
        if ok and (best is None or (epsilon < best) == upwards):
            best = epsilon
        if point == 0.0 and ok == upwards:
            return best
        bracket.note(point, is_above=ok != upwards)
        height = log_float(bound.upper() if upwards else bound.lower())
        gap = height - goal
        if not math.isfinite(gap):
            gap = -20.0 if bracket.high == point else 20.0
        elif previous is not None and previous[0] != point:
            secant = (height - previous[1]) / (point - previous[0])
            # A secant between two points nearly alike says little: hold it near what was known.
            if math.isfinite(secant) and secant < 0:
                slope = min(max(secant, 8 * slope), slope / 8)
        previous = (point, height) if math.isfinite(height) else previous
        step = -gap / slope
        if ok and abs(step) <= 8 * pad * point:
            return best
        # So small a step, and yet no proof: the ball is wider than the step, so aim further off.
        if abs(step) <= 8 * pad * point:
            pad *= 4
        nudge = pad * point * (1.0 if upwards else -1.0)
        following = bracket.inside(point + step + nudge, point)
        if following == point:
            return best
        point = following
    return best


def delta_ends(bounds: DeltaBounds) -> tuple[Fraction, Fraction]:
    """Return the exact outer ends of the bounds, cut to [0, 1]."""
    low, high = lower_end(bounds.lower), upper_end(bounds.upper)
    return max(low, Fraction(0)), min(high, Fraction(1))
