"""Every record in every round: a bound that needs no search, and what to do where even it fails.

Argument in proofs/certified-epsilon.md, section 'A sampler at distance tau'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from flint import arb

from privagg.privacy.certified.balls import as_dyadic, ball, log_float, upper_end
from privagg.privacy.certified.gaussian import GaussianCurve, total_variation_bound
from privagg.privacy.certified.mechanism import Mechanism, Rounds, round_down, round_up
from privagg.privacy.certified.search import folded

METHOD = "unsampled"

_STEPS = 90
_MOST_NOISE = 20
_SAME = 1e-12


@dataclass(frozen=True)
class UnsampledCurve:
    """delta(eps) of the rounds without their sampling, with a distance folded in.

    In e^eps it is convex: the hockey-stick divergence is, and the distance adds a line.
    """

    curve: GaussianCurve
    distance: Fraction

    @staticmethod
    def of(rounds: Rounds, distance: Fraction) -> UnsampledCurve:
        """Return the curve of the rounds, as if each had sampling rate 1."""
        return UnsampledCurve(GaussianCurve.of(rounds), distance)

    def delta_at(self, epsilon: Fraction) -> arb:
        """Return a ball whose upper end bounds delta(eps)."""
        return folded(self.curve.bounds(epsilon).upper, epsilon, self.distance)

    def epsilon(self, delta: Fraction) -> Fraction | None:
        """Return an epsilon that is proven at delta; None where none is."""
        target, low, high = ball(delta), 0.0, self._lowest(delta)
        if not self.delta_at(as_dyadic(high)) <= target:
            return None
        for _ in range(_STEPS):
            middle = (low + high) / 2
            if self.delta_at(as_dyadic(middle)) <= target:
                high = middle
            else:
                low = middle
        return as_dyadic(high)

    def least_delta(self) -> Fraction:
        """Return a delta at which some epsilon is proven, near the least there is."""
        return upper_end(self.delta_at(as_dyadic(self._lowest(Fraction(1, 2)))))

    def _lowest(self, delta: Fraction) -> float:
        """Return a float near where the curve is lowest or, without a distance, low enough."""
        guess = max(self.curve.guess(delta)[0], 1e-9)
        if not self.distance:
            for _ in range(_STEPS):
                if self.delta_at(as_dyadic(guess)) <= ball(delta):
                    break
                guess *= 2
            return guess
        low, high = 0.0, max(log_float(1 / ball(self.distance)), 0.0)
        for _ in range(_STEPS):
            left, right = (2 * low + high) / 3, (low + 2 * high) / 3
            rise = self._log_delta(right) - self._log_delta(left)
            # Level ground lies left of the lowest point, where delta is still nearly 1.
            low, high = (left, high) if rise <= _SAME else (low, right)
        return (low + high) / 2

    def _log_delta(self, epsilon: float) -> float:
        return log_float(self.delta_at(as_dyadic(epsilon)).upper())


def refusal(rounds: Rounds, delta: Fraction, distance: Fraction, lower: Fraction) -> str:
    """Return why no epsilon is proven at delta, and what would give one.

    Args:
        rounds: (mechanism, number of rounds) pairs, as `normalised` returns them.
        delta: exact rational in (0, 1).
        distance: total-variation distance of the sampler over all rounds, positive.
        lower: no smaller epsilon holds at delta.
    """
    told = f"the sampler's and the noise's distance {round_up(distance, 3)} from the ideal"
    least = round_up(_enough(rounds, distance), 3)
    wanted = f"take a delta of at least {least}" if least < 1 else "no larger delta would do"
    if 2 * distance >= delta:
        return (
            f"{told} uses up delta {round_down(delta, 3)} whatever epsilon and noise are; {wanted}"
        )
    spent = (1 + ball(lower).exp()) * ball(distance)
    proven = "no finite epsilon holds" if spent >= ball(delta) else "no finite epsilon is proven"
    times = _more_noise(rounds, delta, distance)
    louder = f"; or take at least {round_up(times, 2)} times the noise" if times else ""
    return (
        f"{proven}: {told}, times 1 + e^epsilon, uses up delta {round_down(delta, 3)} before "
        f"epsilon is what the noise needs, {round_down(lower, 3) if lower else 0} or more; "
        f"{wanted}{louder}"
    )


def _enough(rounds: Rounds, distance: Fraction) -> Fraction:
    """Return a delta at which some epsilon is proven; above 1 where none is."""
    at_zero = upper_end(total_variation_bound(rounds) + 2 * ball(distance))
    return min(UnsampledCurve.of(rounds, distance).least_delta(), at_zero)


def _more_noise(rounds: Rounds, delta: Fraction, distance: Fraction) -> Fraction | None:
    """Return a factor of every noise multiplier that is enough; None where none was found."""

    def fits(exponent: float) -> bool:
        factor = as_dyadic(math.exp2(exponent))
        louder = tuple(
            (Mechanism(m.sampling_rate, m.noise_multiplier * factor), times) for m, times in rounds
        )
        return _enough(louder, distance) <= delta

    low, high = 0.0, float(_MOST_NOISE)
    if not fits(high):
        return None
    while high - low > 0.02:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return as_dyadic(math.exp2(high))
