"""Releases that are no (subsampled) Gaussian themselves, as the events that provably cover them.

A ledger stores events of a closed set of kinds. What is described here is charged as such an event,
by a reduction proved in proofs/certified-epsilon.md; whatever has no such proof is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privagg.errors import CertificationError, PrivacyError, validation_faults
from privagg.privacy.accountant import EpsilonBound, round_up
from privagg.privacy.events import (
    LARGEST_MOVE,
    DpEvent,
    ExactDecimal,
    LaplaceMechanism,
    Mechanism,
)

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


class IntegerLaplaceSum(BaseModel):
    """Integer vectors summed with integer Laplace noise that several parties share out.

    Each party adds an independent share, the difference of two negative binomial draws of shape
    1/shares, exactly sampled; all of them together make integer Laplace noise.

    Args:
        moves: the most that a unit moves each of the integers that it moves at all by.
        noise_multiplier: the noise's scale over the sum of `moves`.
        shares: n, parties that add noise.
        rounds: how many such sums.

    Source: Goryczka & Xiong 2017, "A Comprehensive Comparison of Multiparty Secure Additions with
        Differential Privacy" (Laplace noise as a sum of shares).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["integer-laplace"] = "integer-laplace"
    moves: tuple[Annotated[int, Field(ge=1, le=LARGEST_MOVE)], ...] = Field(min_length=1)
    noise_multiplier: ExactDecimal = Field(gt=0, max_digits=60)
    shares: int = Field(default=1, ge=1, le=10**6)
    rounds: int = Field(default=1, ge=1, le=10**6)

    def event(self, unknown: int | None = None) -> DpEvent:
        """The release against whoever does not know so many of the shares; all by default.

        Raises:
            PrivacyError: a scale for which the law is not enclosed.
        """
        scale = _DOWN.multiply(self.noise_multiplier, Decimal(sum(self.moves)))
        event = DpEvent()
        try:
            for move, count in Counter(self.moves).items():
                mechanism = LaplaceMechanism.of(
                    move, scale, self.shares if unknown is None else unknown, self.shares
                )
                event += DpEvent.once(mechanism, count=count * self.rounds)
        except ValidationError as error:
            raise PrivacyError(f"noise of {validation_faults(error)}") from error
        return event

    def epsilon(self, delta: Decimal, unknown: int | None = None) -> EpsilonBound:
        """Enclose epsilon at `delta`; both ends are those of `event`.

        Args:
            delta: in (0, 1).
            unknown: shares that the observer does not know; all by default.

        Raises:
            CertificationError: delta lies outside (0, 1), or no bound could be enclosed.
        """
        from privagg.privacy.accountants import CertifiedAccountant

        return CertifiedAccountant().epsilon(self.event(unknown), delta)


Release = TreeAggregation | DiscreteGaussianSum | IntegerLaplaceSum
"""Whatever is not here, and is no event, has no proof."""
