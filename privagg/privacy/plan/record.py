"""Record level: what the plans share in which records are sampled and each gradient is clipped."""

from __future__ import annotations

from abc import abstractmethod
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import ceil, sqrt

from pydantic import Field

from privagg.privacy.events import DpEvent, ExactDecimal, Mechanism, add_upward
from privagg.privacy.noise import total_distance
from privagg.privacy.plan.arithmetic import sqrt_floor_decimal
from privagg.privacy.plan.roster import SiteTerms
from privagg.privacy.plan.slots import overflow_chance, slot_batches
from privagg.privacy.plan.training import GridTerms, TrainingPlan
from privagg.privacy.unit import Unit


class RecordPlan(TrainingPlan):
    """DP-SGD steps on Poisson-sampled records; the unit is a record.

    Args:
        sampling_rate: q, probability that a record takes part in a step.

    Source: Abadi et al. 2016, "Deep learning with differential privacy".
    """

    sampling_rate: ExactDecimal = Field(gt=0, le=1, max_digits=40)

    @property
    @abstractmethod
    def steps_in_a_round(self) -> int:
        """How often a site samples in a round."""

    @property
    def unit(self) -> Unit:
        """A record."""
        return Unit.RECORD

    @property
    def record_rate(self) -> Decimal:
        """q."""
        return self.sampling_rate

    def contribution_bound(self, site: SiteTerms) -> int:
        """Clamp of one step's noiseless sum at a site, per coordinate, in grid units.

        Clamping never raises the sensitivity (proofs/sensitivity.md); the bound is set where a
        batch of the declared size practically never reaches it.
        """
        expected = float(self.sampling_rate) * site.records
        batch = min(site.records, ceil(expected + 8 * sqrt(expected) + 8))
        return batch * self.sensitivity_grid

    def gradient_terms(self, site: str) -> GridTerms:
        """The grid that bounds a record's gradient at `site`, and the clamp of their sum."""
        bound = self.contribution_bound(self.site(site))
        return GridTerms(self.clip_norm_l2, self.sensitivity_grid, bound)

    @cached_property
    def overflow(self) -> Decimal:
        """What a step charges for more sampled records than slots; none in plans of version 1."""
        if self.version == 1:
            return Decimal(0)
        return overflow_chance(
            delta=self.delta,
            steps=self.rounds * self.steps_in_a_round,
            sampling_rate=self.sampling_rate,
        )

    def step_batches(self, site: str, physical_batch: int) -> int:
        """K, the public number of physical batches that a step of this site always runs."""
        return slot_batches(
            records=self.site(site).records,
            sampling_rate=self.sampling_rate,
            physical_batch=physical_batch,
            chance=self.overflow,
        )

    def step_divisor(self, site: SiteTerms) -> Fraction:
        """q times the site's declared records: the public expected batch of one step."""
        return Fraction(self.sampling_rate) * site.records

    def event_of_step(self, *, shares: int, coordinates: int) -> DpEvent:
        """One step's event.

        Args:
            shares: noise shares that stay unknown to the observer.
            coordinates: integers that noise is added to.

        Returns:
            Poisson(q) of a Gaussian whose multiplier is rounded down; its distance, rounded up, is
            that of the integer noise, and the chance that a sampled record finds no slot.
        """
        if self.noise is None:
            return DpEvent.once(Mechanism(kind="non-private"))
        stddev = self.noise.stddev_grid
        multiplier = sqrt_floor_decimal((stddev / self.sensitivity_grid) ** 2 * shares)
        distance = total_distance(
            stddev_grid=stddev, dimension=coordinates, shares=shares, rounds=1
        )
        return DpEvent.once(
            Mechanism.of(self.sampling_rate, multiplier),
            distance=add_upward(distance, self.overflow),
        )
