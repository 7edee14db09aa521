"""Record level, distributed noise: one DP-SGD step on the union of the data each round.

Every site Poisson-samples its records, sums their clipped gradients on the grid, adds its share of
the noise. The opened sum is a Poisson-subsampled Gaussian on the union of the sites' records.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import ceil, sqrt
from typing import Literal, Self

from pydantic import Field, model_validator

from privagg.privacy.events import DpEvent, ExactDecimal, Mechanism, add_upward
from privagg.privacy.guarantee import Observer
from privagg.privacy.noise import IntegerGaussian, total_distance
from privagg.privacy.plan.arithmetic import sqrt_floor_decimal
from privagg.privacy.plan.base import SiteTerms, TrainingPlan, noise_share
from privagg.privacy.plan.compression import Rounding
from privagg.privacy.plan.observing import shared_noise_observers
from privagg.privacy.plan.slots import overflow_chance
from privagg.privacy.unit import Custody, Unit


class DistributedPlan(TrainingPlan):
    """One noised gradient sum a round; the unit is a record.

    Args:
        sampling_rate: q, probability that a record takes part in a round.

    Guarantees:
        Committed event: Poisson(q) of a Gaussian with multiplier `noise_multiplier` at least,
        against users of the model and any `colluders` sites, when at least `minimum_survivors`
        contributions are opened (proofs/integer-noise.md, proofs/sensitivity.md).
    """

    mode: Literal["record-distributed"] = "record-distributed"
    sampling_rate: ExactDecimal = Field(gt=0, le=1, max_digits=40)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.strict and self.custody is Custody.SITES:
            raise ValueError(
                "strict with custody 'sites' would show every upload to the site that opens; use "
                "custody 'authority', or leave strict out"
            )
        if self.counted_shares < 1:
            raise ValueError(
                f"dropouts ({self.dropouts}) and colluders ({self.colluders}) leave no honest "
                f"noise share among {self.addends} sites; lower one or add sites"
            )
        if any(site.weight != 1 for site in self.sites):
            raise ValueError(
                "record-distributed sums records, each counted once: site weights must be 1"
            )
        coarser = self.compression
        if coarser and (coarser.bits or coarser.rotation or coarser.rounding != Rounding.TRUNCATE):
            raise ValueError(
                "record-distributed puts every record's gradient on the grid by itself and adds "
                "exactly; rounding their sum would have another sensitivity. Leave compression's "
                "bits, rounding and rotation out: a smaller privacy.sensitivity_grid is a coarser "
                "grid, and `keep` sends fewer coordinates"
            )
        self.check_capacity()
        return self

    @property
    def unit(self) -> Unit:
        """A record."""
        return Unit.RECORD

    @property
    def counted_shares(self) -> int:
        """Honest shares counted on: sites less dropouts less colluders."""
        return self.addends - self.dropouts - self.colluders

    @cached_property
    def noise(self) -> IntegerGaussian | None:
        """One site's share; `counted_shares` of them make the planned noise."""
        return noise_share(
            noise_multiplier=self.noise_multiplier,
            sensitivity_grid=self.sensitivity_grid,
            shares=self.counted_shares,
        )

    def contribution_bound(self, site: SiteTerms) -> int:
        """Clamp of one site's noiseless sum, per coordinate, in grid units.

        Clamping never raises the sensitivity (proofs/sensitivity.md); the bound is set where a
        batch of the declared size practically never reaches it.
        """
        expected = float(self.sampling_rate) * site.records
        batch = min(site.records, ceil(expected + 8 * sqrt(expected) + 8))
        return batch * self.sensitivity_grid

    @property
    def upload_bound(self) -> int:
        """Largest contribution bound plus the largest noise a share can take."""
        noise = self.noise.bound if self.noise else 0
        return max(self.contribution_bound(site) for site in self.sites) + noise

    @property
    def sum_bound(self) -> int:
        """Sum of all contribution bounds plus all shares at their largest."""
        noise = self.noise.bound if self.noise else 0
        return sum(self.contribution_bound(site) + noise for site in self.sites)

    @cached_property
    def overflow(self) -> Decimal:
        """What a round charges for more sampled records than slots; none in plans of version 1."""
        if self.version == 1:
            return Decimal(0)
        return overflow_chance(
            delta=self.delta, steps=self.rounds, sampling_rate=self.sampling_rate
        )

    def event_of_shares(self, shares: int) -> DpEvent:
        """The round's event against an observer to whom `shares` noise shares stay unknown."""
        if self.noise is None:
            return DpEvent.once(Mechanism(kind="non-private"))
        stddev = self.noise.stddev_grid
        multiplier = sqrt_floor_decimal((stddev / self.sensitivity_grid) ** 2 * shares)
        distance = total_distance(
            stddev_grid=stddev, dimension=self.upload_dimension, shares=shares, rounds=1
        )
        return DpEvent.once(
            Mechanism.of(self.sampling_rate, multiplier),
            distance=add_upward(distance, self.overflow),
        )

    def committed_event(self, site: str) -> DpEvent:
        """See `TrainingPlan.committed_event`; the same for every site."""
        self.site(site)
        return self.event_of_shares(self.counted_shares)

    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        """See `TrainingPlan.realised_event`: all surviving shares unknown."""
        self.site(site)
        return self.event_of_shares(len(survivors)) if site in survivors else DpEvent()

    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """See `TrainingPlan.observers`."""
        self.site(site)
        return shared_noise_observers(
            self.event_of_shares,
            survivors=survivors,
            unit=self.unit,
            custody=self.custody,
            protects=self.hides,
            strict=self.strict,
            version=self.version,
        )

    def divisor(self, survivors: Sequence[str]) -> Fraction:
        """q times the survivors' declared records: the public expected batch."""
        records = sum(self.site(name).records for name in survivors)
        return Fraction(self.sampling_rate) * records

    @property
    def step_sign(self) -> int:
        """The opened mean is a gradient."""
        return -1

    def with_noise(self, noise_multiplier: Decimal) -> DistributedPlan:
        """The same plan with another noise multiplier, validated afresh."""
        facts = {**self.model_dump(), "noise_multiplier": noise_multiplier}
        return DistributedPlan.model_validate(facts)
