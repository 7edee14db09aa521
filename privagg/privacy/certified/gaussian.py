"""Rounds without subsampling: the composed loss is exactly Gaussian, so delta has a closed form.

Source: Balle & Wang 2018, "Improving the Gaussian Mechanism for Differential Privacy", Theorem 8;
composition of Gaussians: Dong, Roth & Su 2022, "Gaussian Differential Privacy", Corollary 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from privagg.privacy.certified.balls import arb, ball, normal_cdf
from privagg.privacy.certified.mechanism import Rounds
from privagg.privacy.certified.search import DeltaBounds

METHOD = "analytic-gaussian"


@dataclass(frozen=True)
class GaussianCurve:
    """delta(eps) of Gaussian rounds whose squared sensitivity-to-noise ratios add to `mu_squared`.

    Both directions have the same curve, since the pair N(0, 1), N(mu, 1) is symmetric.
    """

    mu_squared: Fraction

    @staticmethod
    def of(rounds: Rounds) -> GaussianCurve:
        """Return the curve of a composition of which every round has sampling rate 1."""
        total = sum(
            (Fraction(count) / mechanism.noise_multiplier**2 for mechanism, count in rounds),
            Fraction(0),
        )
        return GaussianCurve(total)

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) as a ball, twice."""
        mu = ball(self.mu_squared).sqrt()
        eps = ball(epsilon)
        value = normal_cdf(mu / 2 - eps / mu) - eps.exp() * normal_cdf(-mu / 2 - eps / mu)
        return DeltaBounds(lower=value, upper=value)

    def guess(self, delta: Fraction) -> tuple[float, float]:
        """Return floats near epsilon(delta) and the slope of log delta there; they only steer."""
        mu = math.sqrt(float(self.mu_squared))
        depth = math.sqrt(2 * _minus_log(delta))
        epsilon = mu * mu / 2 + mu * depth
        return epsilon, -max(depth, 1.0) / mu


def _minus_log(delta: Fraction) -> float:
    return math.log(delta.denominator) - math.log(delta.numerator)


def total_variation_bound(rounds: Rounds) -> arb:
    """Return an upper bound of delta(0) from the rounds' total-variation distances.

    One round is at distance d = q * TV(N(0, s^2), N(1, s^2)) = q * erf(1 / (2 sqrt(2) s)), and
    coupled round by round, product measures agree with probability at least prod (1 - d).
    """
    agreed = arb(1)
    for mechanism, count in rounds:
        argument = 1 / (2 * arb(2).sqrt() * ball(mechanism.noise_multiplier))
        kept = 1 - ball(mechanism.sampling_rate) * argument.erf()
        agreed *= kept.lower().nonnegative_part() ** count
    return 1 - agreed
