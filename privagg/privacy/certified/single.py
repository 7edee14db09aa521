"""One subsampled Gaussian round: delta in closed form, both directions.

With V(x) = 1 - q + q exp((2x - 1) / 2s^2) increasing in x, the likelihood ratio exceeds e^eps
exactly on a half line, so the hockey-stick divergence is a difference of normal tails.
Source: derived in proofs/certified-epsilon.md, section 'One round'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from privagg.privacy.certified.balls import arb, ball, normal_cdf
from privagg.privacy.certified.mechanism import Mechanism
from privagg.privacy.certified.search import DeltaBounds

METHOD = "single-round"


@dataclass(frozen=True)
class SingleRoundCurve:
    """max over both directions of delta(eps) of one round, as a ball."""

    mechanism: Mechanism

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return proven bounds of delta(eps) of one round."""
        rate = ball(self.mechanism.sampling_rate)
        noise = ball(self.mechanism.noise_multiplier)
        remove = _remove(rate, noise, ball(epsilon))
        add = _add(rate, noise, ball(epsilon))
        return DeltaBounds(lower=remove.max(add), upper=remove.max(add))

    def guess(self, delta: Fraction) -> tuple[float, float]:
        """Return floats near epsilon(delta) and the slope of log delta there; they only steer."""
        rate = float(self.mechanism.sampling_rate)
        noise = float(self.mechanism.noise_multiplier)
        ratio = max(float(delta) / rate, 1e-300)
        depth = math.sqrt(max(-2 * math.log(ratio), 0.02)) if ratio < 1 else 0.15
        exponent = depth / noise + 1 / (2 * noise * noise)
        grown = (
            exponent + math.log(rate) if exponent > 700 else math.log1p(rate * math.expm1(exponent))
        )
        weight = 1.0 if exponent > 700 else rate * math.exp(exponent - grown)
        return grown, -max(depth, 1.0) * noise / max(weight, 1e-300)


def _remove(rate: arb, noise: arb, eps: arb) -> arb:
    """delta of P = (1-q) N(0, s^2) + q N(1, s^2) against Q = N(0, s^2)."""
    # P(x > c) - e^eps Q(x > c) at V(c) = e^eps, i.e. q R(1) - (e^eps - 1 + q) R(0), where
    # R(m) is the mass of N(m, s^2) beyond c; written in y = c / s.
    excess = (eps.expm1() + rate) / rate
    cut = noise * excess.log() + 1 / (2 * noise)
    return rate * (normal_cdf(1 / noise - cut) - excess * normal_cdf(-cut))


def _add(rate: arb, noise: arb, eps: arb) -> arb:
    """delta of Q against P; 0 as soon as e^-eps <= 1 - q, which no likelihood ratio undercuts."""
    excess = ((-eps).expm1() + rate) / rate
    if not excess > 0:
        if excess <= 0:
            return arb(0)
        # The ball touches 0: the true value lies between 0 and the value at the ball's top.
        excess = excess.upper()
        return arb(0).union(_add_at(rate, noise, eps, excess))
    return _add_at(rate, noise, eps, excess)


def _add_at(rate: arb, noise: arb, eps: arb, excess: arb) -> arb:
    cut = noise * excess.log() + 1 / (2 * noise)
    # Q(x < c) - e^eps P(x < c) with 1 - e^eps (1 - q) = e^eps q * excess
    value = rate * eps.exp() * (excess * normal_cdf(cut) - normal_cdf(cut - 1 / noise))
    return value.max(arb(0))
