"""Smooth windows that cut one round's output range without spoiling analyticity.

W(z) is the indicator of (low, high] smeared by a normal of standard deviation `blur`. On the
line Im z = v its modulus is at most exp(v^2 / 2 blur^2) W(Re z); proofs/certified-epsilon.md,
section 'Windows'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flint import acb, arb

from privagg.privacy.certified.balls import ball, normal_cdf


@dataclass(frozen=True)
class Law:
    """One subsampled Gaussian in noise units: V(u) = 1 - q + q exp(mu u - mu^2 / 2), as balls."""

    rate: arb
    mu: arb

    def log_ratio(self, u: arb) -> arb:
        """Return log V(u)."""
        return (self.rate * (self.mu * u - self.mu**2 / 2).expm1()).log1p()

    def real_part(self, u: arb, angle: arb) -> arb:
        """Return Re V(u + i angle / mu), which grows with u where cos(angle) >= 0."""
        return 1 - self.rate + self.rate * self.likelihood(u) * angle.cos()

    def likelihood(self, u: arb) -> arb:
        """Return dN(mu, 1)/dN(0, 1) at u, with participation over without."""
        return (self.mu * (u - self.mu / 2)).exp()

    def weight(self, u: arb) -> arb:
        """Return the share q exp(..) / V(u) of the shifted component, in (0, 1)."""
        shifted = self.rate * (self.mu * u - self.mu**2 / 2).exp()
        return shifted / (1 - self.rate + shifted)


@dataclass(frozen=True)
class Window:
    """The smeared indicator of (low, high], in units of the round's noise deviation.

    Args:
        low: left edge, or -inf for none.
        high: right edge, or +inf for none.
        blur: smearing standard deviation, positive; ignored without edges.
    """

    low: float = -math.inf
    high: float = math.inf
    blur: float = 1.0

    @property
    def is_open(self) -> bool:
        """True where nothing is cut and W = 1."""
        return math.isinf(self.low) and math.isinf(self.high)

    def curvature(self) -> arb:
        """Return g such that |phi(u+iv) W(u+iv)| <= exp(g v^2 / 2) phi(u) W(u)."""
        return arb(1) if self.is_open else 1 + 1 / ball(self.blur) ** 2

    def right_curvature(self) -> arb:
        """Return g such that phi(u) W(u) falls like exp(-g u^2 / 2) right of the right edge."""
        return arb(1) if math.isinf(self.high) else 1 + 1 / ball(self.blur) ** 2

    def value(self, z: acb) -> acb:
        """Return W(z), accurate where W is small as well as where it is near 1."""
        if self.is_open:
            return acb(1)
        blur = ball(self.blur)
        if math.isinf(self.low):
            return _cdf((ball(self.high) - z) / blur)
        if math.isinf(self.high):
            return _cdf((z - ball(self.low)) / blur)
        low, high = (ball(self.low) - z) / blur, (ball(self.high) - z) / blur
        # Both arguments positive: subtract the small upper tails, not two numbers near 1.
        if float((low + high).real.mid()) > 0:
            return _cdf(-low) - _cdf(-high)
        return _cdf(high) - _cdf(low)

    def on_real_line(self, u: arb) -> arb:
        """Return W(u) for real u."""
        return self.value(acb(u)).real

    def mass(self) -> arb:
        """Return the integral of W dN(0, 1); a normal smeared by a normal is a normal."""
        scale = self.curvature().sqrt() * ball(self.blur)
        whole = arb(1) if math.isinf(self.high) else normal_cdf(ball(self.high) / scale)
        if math.isinf(self.low):
            return whole
        if math.isinf(self.high):
            return normal_cdf(-ball(self.low) / scale)
        return whole - normal_cdf(ball(self.low) / scale)

    def cut_mass(self, law: Law) -> arb:
        """Return the integral of (1 - W) dP for a window without a left edge.

        P = (1-q) N(0,1) + q N(mu,1) in noise units.
        """
        shifted = self._cut_beyond(law.mu)
        return (1 - law.rate) * self.cut_base() + law.rate * shifted

    def cut_base(self) -> arb:
        """Return the integral of (1 - W) dQ, Q = N(0,1), for a window without a left edge."""
        return self._cut_beyond(arb(0))

    def _cut_beyond(self, mean: arb) -> arb:
        # A normal smeared by a normal is a normal.
        if math.isinf(self.high):
            return arb(0)
        scale = self.curvature().sqrt() * ball(self.blur)
        return normal_cdf((mean - ball(self.high)) / scale)


def _cdf(x: acb) -> acb:
    return (-x / arb(2).sqrt()).erfc() / 2
