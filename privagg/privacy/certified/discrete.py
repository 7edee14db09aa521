"""Sums of discrete Gaussian shares, compared with the continuous Gaussian by proof.

Two ways lead from integer noise to the mechanisms whose epsilon is certified here. One share more
or less than smooth is within a proven total-variation distance of a post-processed continuous
Gaussian of slightly less variance; and at whole orders its Renyi divergences are the Gaussian's
own, up to a proven factor. proofs/certified-epsilon.md, section 'Discrete Gaussian sums'.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from flint import arb

from privagg.errors import PrivacyError
from privagg.privacy.certified.balls import ball, upper_end, working_precision
from privagg.privacy.certified.mechanism import Mechanism, Rational, checked_delta
from privagg.privacy.certified.renyi import RenyiBudget

_BITS = 256


@dataclass(frozen=True)
class ShareSum:
    """Noise of one coordinate: the sum of independent discrete Gaussians on the integers.

    Args:
        shares: n, how many; at least 1.
        share_variance_grid: sigma^2 of each, in squared grid units, positive; each share has
            P(k) proportional to exp(-k^2 / 2 sigma^2).

    Raises: PrivacyError outside those ranges.
    """

    shares: int
    share_variance_grid: Fraction

    def __post_init__(self) -> None:
        if self.shares < 1 or self.share_variance_grid <= 0:
            raise PrivacyError(
                f"a sum needs at least one share of positive variance, not {self.shares} of "
                f"{float(self.share_variance_grid):.6g}"
            )

    @property
    def variance_grid(self) -> Fraction:
        """n sigma^2, the variance parameter of the whole sum."""
        return self.shares * self.share_variance_grid

    def log_ratio(self) -> Fraction:
        """Return t with e^-t <= P(sum = k) / P(one discrete Gaussian of n sigma^2 = k) <= e^t."""
        if self.shares == 1:
            return Fraction(0)
        with working_precision(_BITS):
            ripple = _ripple(self.share_variance_grid / 2)
            if not ripple < 1:
                raise PrivacyError(
                    f"shares of standard deviation {float(self.share_variance_grid) ** 0.5:.3g} "
                    "grid units are too coarse to be added up by this proof; use at least 1"
                )
            return upper_end((self.shares - 1) * ((1 + ripple) / (1 - ripple)).log())

    def distance_from_gaussian(self, smoothing_variance_grid: Fraction) -> Fraction:
        """Return the total-variation distance of a coordinate from post-processed N(0, s^2).

        Args:
            smoothing_variance_grid: eta^2, positive and below `variance_grid`; s^2 is what is left,
                n sigma^2 - eta^2. More smoothing, less distance.

        Raises: PrivacyError where no variance is left.
        """
        if not 0 < smoothing_variance_grid < self.variance_grid:
            raise PrivacyError(
                f"noise of variance {float(self.variance_grid):.6g} squared grid units is too "
                f"coarse to be compared with a Gaussian, which takes "
                f"{float(smoothing_variance_grid):.3g} of it; use a finer grid"
            )
        with working_precision(_BITS):
            # The sum's own ripple is the smaller one, as its variance is the larger one.
            ripple = _ripple(smoothing_variance_grid)
            if not ripple < 1:
                raise PrivacyError("a smoothing variance this small proves nothing; use at least 1")
            rounded = 2 * ripple / (1 - ripple)
            added = ball(self.log_ratio()).expm1()
            return upper_end(rounded + added)

    def renyi_epsilon(
        self, mechanism: Mechanism, rounds: int, dimension: int, delta: Rational
    ) -> Fraction:
        """Return an upper end of epsilon from the divergences at whole orders.

        Args:
            mechanism: rate, and a lower bound of sqrt(n) sigma over the L2 sensitivity.
            rounds: how often, at least 1.
            dimension: coordinates of the released vector.
            delta: exact rational in (0, 1).
        """
        with working_precision(_BITS):
            excess = rounds * dimension * ball(self.log_ratio())
            plain = RenyiBudget.of(((mechanism, rounds),)).moments
            moments = {order: value + (2 * order - 1) * excess for order, value in plain.items()}
            return RenyiBudget(moments).upper_epsilon(checked_delta(delta))


def _ripple(variance: Fraction) -> arb:
    """Return a bound of |sum_k exp(-(k - c)^2 / 2v) / sqrt(2 pi v) - 1| over all real c.

    By Poisson summation it is at most 2 sum_m x^(m^2) <= 2x / (1 - x), x = exp(-2 pi^2 v).
    """
    decay = (-2 * arb.pi() ** 2 * ball(variance)).exp()
    return 2 * decay / (1 - decay)
