"""Releases that are no (subsampled) Gaussian themselves, as the events that provably cover them.

A ledger stores events of a closed set of kinds. What is described here is charged as such an event,
by a reduction proved in proofs/certified-epsilon.md; whatever has no such proof is refused.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from privagg.errors import CertificationError, PrivacyError
from privagg.privacy.accountant import EpsilonBound, round_up
from privagg.privacy.events import DpEvent, ExactDecimal, Mechanism

if TYPE_CHECKING:
    from privagg.privacy.certified.discrete import ShareSum

_DOWN = Context(prec=40, rounding=ROUND_FLOOR)
_UP = Context(prec=40, rounding=ROUND_CEILING)

_AIMED_DISTANCE = 1e-30
"""Total-variation distance that the smoothing of a discrete Gaussian is chosen for."""


class TreeAggregation(BaseModel):
    """Running sums released through binary trees of noisy partial sums (DP-FTRL).

    Every complete node of a tree over `steps` leaves is released with independent Gaussian noise.
    A unit contributes to one leaf of each tree at most, its contribution zero where it is absent,
    and everybody else's place in the order does not depend on it. A tree that is filled up with
    empty steps, to release nodes beyond the last step, has the filled-up number of steps.

    Args:
        steps: leaves of one tree.
        trees: how many trees, one after the other (restarts), a unit may contribute to.
        noise_multiplier: a node's noise standard deviation over one contribution's L2 norm bound.

    Source: Kairouz, McMahan, Song, Thakkar, Thakurta & Xu 2021, "Practical and Private (Deep)
        Learning without Sampling or Shuffling", appendix D.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tree-aggregation"] = "tree-aggregation"
    steps: int = Field(ge=1, le=10**12)
    trees: int = Field(default=1, ge=1, le=10**9)
    noise_multiplier: ExactDecimal = Field(gt=0, max_digits=60)

    @property
    def nodes(self) -> int:
        """Most complete nodes above one leaf, itself included: floor(log2 steps) + 1."""
        return self.steps.bit_length()

    def event(self) -> DpEvent:
        """The event with exactly the same worst case: each node a Gaussian release."""
        mechanism = Mechanism.of(Decimal(1), self.noise_multiplier)
        return DpEvent.once(mechanism, count=self.nodes * self.trees)

    def epsilon(self, delta: Decimal) -> EpsilonBound:
        """Enclose epsilon at `delta`; both ends are those of `event`.

        Raises:
            CertificationError: delta lies outside (0, 1), or no bound could be enclosed.
        """
        from privagg.privacy.accountants import CertifiedAccountant

        return CertifiedAccountant().epsilon(self.event(), delta)


class DiscreteGaussianSum(BaseModel):
    """Integer vectors summed with discrete Gaussian noise from several parties.

    Args:
        shares: n, parties that added noise, independently and exactly sampled.
        share_stddev_grid: sigma of each share in grid units, P(k) ~ exp(-k^2 / 2 sigma^2).
        sensitivity_l2_grid: most that a unit moves the integer sum by, L2, in grid units.
        dimension: coordinates.
        sampling_rate: q in (0, 1], Poisson sampling of units.
        rounds: how often.

    Source: Canonne, Kamath & Steinke 2020; Kairouz, Liu & Steinke 2021, "The Distributed Discrete
        Gaussian Mechanism". The bounds used here are proved anew in proofs/certified-epsilon.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["discrete-gaussian-sum"] = "discrete-gaussian-sum"
    shares: int = Field(default=1, ge=1, le=10**9)
    share_stddev_grid: ExactDecimal = Field(gt=0, le=10**15, max_digits=60)
    sensitivity_l2_grid: ExactDecimal = Field(gt=0, le=10**15, max_digits=60)
    dimension: int = Field(default=1, ge=1, le=10**12)
    sampling_rate: ExactDecimal = Field(default=Decimal(1), gt=0, le=1, max_digits=60)
    rounds: int = Field(default=1, ge=1, le=10**12)

    def event(self) -> DpEvent:
        """A continuous Gaussian's event that covers this one, the difference in its distance.

        Raises:
            PrivacyError: the noise is too coarse to be compared with a continuous Gaussian.
        """
        noise, samples = self._noise(), self.rounds * self.dimension
        aim = math.log(4 * samples / _AIMED_DISTANCE) / (2 * math.pi**2)
        smoothing = Fraction(math.ceil(16 * aim), 16)
        distance = samples * noise.distance_from_gaussian(smoothing)
        mechanism = Mechanism.of(
            self.sampling_rate, self._multiplier(noise.variance_grid - smoothing)
        )
        rounded = _UP.divide(Decimal(distance.numerator), Decimal(distance.denominator))
        return DpEvent.once(mechanism, count=self.rounds, distance=rounded)

    def epsilon(self, delta: Decimal) -> EpsilonBound:
        """Bound epsilon at `delta`: the covering event's, or by Renyi orders where that is less.

        Raises:
            CertificationError: neither gives a bound.
            PrivacyError: a value without a proof: shares that are too coarse to be added up.
        """
        from privagg.privacy.accountants import CertifiedAccountant, ball_arithmetic, check_delta
        from privagg.privacy.certified import Mechanism as Round

        check_delta(delta)
        noise = self._noise()
        same = Round(Fraction(self.sampling_rate), Fraction(self._multiplier(noise.variance_grid)))
        with ball_arithmetic:
            found = noise.renyi_epsilon(same, self.rounds, self.dimension, Fraction(delta))
        upper = round_up(_UP.divide(Decimal(found.numerator), Decimal(found.denominator)))
        best = EpsilonBound(upper, None, "renyi, discrete Gaussian sum", certified=True)
        try:
            covering = CertifiedAccountant().epsilon(self.event(), delta)
        except (CertificationError, PrivacyError):
            return best
        if covering.upper >= best.upper:
            return best
        method = f"{covering.method}, covering the discrete Gaussian sum"
        return EpsilonBound(covering.upper, None, method, certified=True)

    def _noise(self) -> ShareSum:
        from privagg.privacy.certified.discrete import ShareSum

        return ShareSum(self.shares, Fraction(self.share_stddev_grid) ** 2)

    def _multiplier(self, variance_grid: Fraction) -> Decimal:
        """sqrt(variance) over the sensitivity, rounded down."""
        ratio = variance_grid / Fraction(self.sensitivity_l2_grid) ** 2
        squared = _DOWN.divide(Decimal(ratio.numerator), Decimal(ratio.denominator))
        # Decimal.sqrt rounds to nearest whatever the context says; one unit less is a bound.
        return _DOWN.next_minus(_DOWN.sqrt(squared))


Release = TreeAggregation | DiscreteGaussianSum
"""Whatever is not here, and is no event, has no proof."""
