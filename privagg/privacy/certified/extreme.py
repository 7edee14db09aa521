"""A lower bound of delta from one test: does any single round's loss exceed a threshold?

With few expected participations one round makes nearly all of the loss, so this one event comes
close to the best one. It replaces nothing but the trivial lower end where no contour is sharp.
Argument in proofs/certified-epsilon.md, section 'One round'.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from flint import arb

from privagg.privacy.certified.balls import ball, normal_cdf
from privagg.privacy.certified.mechanism import Mechanism, Rounds
from privagg.privacy.certified.search import DeltaBounds

METHOD = "worst-round"

_THRESHOLDS = tuple(Fraction(k, 20) for k in range(10, 27))
"""Thresholds tried, as shares of epsilon; any of them is valid."""


@dataclass(frozen=True)
class WorstRoundCurve:
    """Lower bounds of the remove direction's delta(eps); the upper bound is the trivial one."""

    rounds: Rounds

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return the largest P(S) - e^eps Q(S) over S = {a round's loss exceeds the threshold}."""
        growth, best = ball(epsilon).exp(), arb(0)
        for share in _THRESHOLDS:
            own, other = self._masses(ball(share * epsilon))
            best = best.max(own - growth * other)
        return DeltaBounds(lower=best, upper=arb(1))

    def _masses(self, threshold: arb) -> tuple[arb, arb]:
        """Return (P(S), Q(S)): one minus the chance that no round exceeds the threshold."""
        own, other = arb(0), arb(0)
        for mechanism, times in self.rounds:
            above, base = _beyond(mechanism, threshold)
            own += times * (-above).log1p()
            other += times * (-base).log1p()
        return -own.expm1(), -other.expm1()


def _beyond(mechanism: Mechanism, threshold: arb) -> tuple[arb, arb]:
    """Return the masses under P and under Q of {log V > threshold} in one round, threshold >= 0."""
    rate, noise = ball(mechanism.sampling_rate), ball(mechanism.noise_multiplier)
    excess = (threshold.expm1() + rate) / rate
    cut = noise * excess.log() + 1 / (2 * noise)
    base, shifted = normal_cdf(-cut), normal_cdf(1 / noise - cut)
    return (1 - rate) * base + rate * shifted, base
