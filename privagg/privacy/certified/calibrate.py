"""The least noise that a certified epsilon allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from privagg.errors import CalibrationError, CertificationError, PrivacyError
from privagg.privacy.certified.accountant import DEFAULT_EFFORT, epsilon_interval
from privagg.privacy.certified.mechanism import (
    Mechanism,
    Rational,
    checked_delta,
    checked_distance,
    checked_epsilon,
    rational,
)
from privagg.privacy.certified.planning import Effort

_LARGEST = Fraction(10**6)
_EVALUATIONS = 80


def calibrate_noise(
    sampling_rate: Rational,
    rounds: int,
    epsilon: Rational,
    delta: Rational,
    *,
    extra_distance: Rational = Fraction(0),
    resolution: Rational = Fraction(1, 10**6),
    effort: Effort = DEFAULT_EFFORT,
) -> Fraction:
    """Return the smallest multiple of `resolution` whose certified epsilon is at most `epsilon`.

    Args:
        sampling_rate: q in (0, 1].
        rounds: number of equal rounds, at least 1.
        epsilon: wanted bound, positive.
        delta: exact rational in (0, 1).
        extra_distance: total-variation distance of the sampler over all rounds, as in
            `epsilon_interval`.
        resolution: grid of the answer, positive.
        effort: how long a contour may become.

    Guarantees: the returned multiplier's certified upper end is at most `epsilon`, and the next
        smaller multiple's is not (or it cannot be certified).
    Raises:
        CalibrationError: where no multiplier up to 10^6 is enough.
        PrivacyError: for arguments outside their ranges.
    """
    search = _Calibration(
        sampling_rate=rational(sampling_rate, "sampling_rate"),
        rounds=rounds,
        epsilon=checked_epsilon(epsilon),
        delta=checked_delta(delta),
        distance=checked_distance(extra_distance),
        resolution=rational(resolution, "resolution"),
        effort=effort,
    )
    return search.run()


@dataclass
class _Calibration:
    sampling_rate: Fraction
    rounds: int
    epsilon: Fraction
    delta: Fraction
    distance: Fraction
    resolution: Fraction
    effort: Effort
    seen: dict[int, Fraction | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or self.rounds < 1:
            raise PrivacyError(f"rounds must be an int >= 1, not {self.rounds!r}")
        if self.epsilon == 0:
            raise PrivacyError("epsilon must be positive to calibrate for; 0 needs infinite noise")
        if self.resolution <= 0:
            raise PrivacyError(f"resolution must be positive, not {self.resolution}")
        if 2 * self.distance >= self.delta:
            raise CalibrationError(
                f"extra_distance {float(self.distance):.3g} leaves nothing of delta "
                f"{float(self.delta):.3g}; no amount of noise can help"
            )

    def certified(self, multiple: int) -> Fraction | None:
        """Return the certified upper end at noise multiplier multiple * resolution, if any."""
        if multiple not in self.seen:
            mechanism = Mechanism(self.sampling_rate, multiple * self.resolution)
            try:
                self.seen[multiple] = epsilon_interval(
                    {mechanism: self.rounds},
                    self.delta,
                    extra_distance=self.distance,
                    effort=self.effort,
                ).upper
            except CertificationError:
                self.seen[multiple] = None
        return self.seen[multiple]

    def passes(self, multiple: int) -> bool:
        """Return whether the certified upper end fits."""
        upper = self.certified(multiple)
        return upper is not None and upper <= self.epsilon

    def run(self) -> Fraction:
        """Bracket the answer, then close in by secant steps that fall back to bisection."""
        low, high = self._bracket()
        for _ in range(_EVALUATIONS):
            if high - low <= 1:
                return high * self.resolution
            middle = self._between(low, high)
            if self.passes(middle):
                high = middle
            else:
                low = middle
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.passes(middle) else (middle, high)
        return high * self.resolution

    def _bracket(self) -> tuple[int, int]:
        """Return (a multiple that fails or 0, one that passes)."""
        ceiling = math.floor(_LARGEST / self.resolution)
        high = min(max(1, math.ceil(Fraction(1) / self.resolution)), ceiling)
        if self.passes(high):
            while high > 1 and self.passes(high // 2):
                high //= 2
            return (high // 2 if high > 1 else 0), high
        low = high
        while not self.passes(high):
            if high >= ceiling:
                raise CalibrationError(
                    f"no noise multiplier up to {float(_LARGEST):.0e} keeps epsilon at "
                    f"{float(self.epsilon):.4g} for delta {float(self.delta):.3g}"
                )
            low, high = high, min(2 * high, ceiling)
        return low, high

    def _between(self, low: int, high: int) -> int:
        """Return a secant guess in log epsilon against log noise, else the midpoint."""
        at_low, at_high = self.seen.get(low), self.seen.get(high)
        middle = (low + high) // 2
        if low < 1 or not at_low or not at_high or at_low <= at_high:
            return middle
        x0, x1 = math.log(low), math.log(high)
        y0, y1 = math.log(at_low), math.log(at_high)
        wanted = math.exp(x0 + (math.log(self.epsilon) - y0) / (y1 - y0) * (x1 - x0))
        # One step to either side of the estimate closes the bracket once the estimate is exact.
        guess = math.floor(wanted)
        if self.seen.get(guess) is not None or guess <= low:
            guess = min(guess, high) + (1 if guess <= low else 0)
            guess = math.ceil(wanted) if guess in (low, high) else guess
        if len(self.seen) % 4 == 3:
            return middle
        return min(max(guess, low + 1), high - 1)
