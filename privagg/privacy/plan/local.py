"""Record level, local noise: each site's update is private by its own noise before it leaves.

A round is `local_steps` DP-SGD steps at every site, each with the site's full noise; the updates
are averaged with public integer weights. The guarantee holds against everybody, aggregator and key
holder together included; encryption is a second wall, not the first.
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
from privagg.privacy.plan.observing import own_noise_observers
from privagg.privacy.plan.slots import overflow_chance
from privagg.privacy.unit import Unit


class LocalPlan(TrainingPlan):
    """Several DP-SGD steps a round at each site, with full noise; the unit is a record.

    Args:
        sampling_rate: q, probability that a record takes part in a step.
        local_steps: steps in a round.
        update_bound: per coordinate clamp of a site's update, in model units; public.
        update_levels: grid levels from 0 to `update_bound` in an upload, before weighting.
    """

    mode: Literal["record-local"] = "record-local"
    sampling_rate: ExactDecimal = Field(gt=0, le=1, max_digits=40)
    local_steps: int = Field(ge=1, le=10**6)
    update_bound: ExactDecimal = Field(gt=0, max_digits=40)
    update_levels: int = Field(default=2**20, ge=2, le=2**31)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        bits = self.compression.largest_coordinate if self.compression else None
        if bits is not None and bits != self.update_levels:
            raise ValueError(
                f"update_levels {self.update_levels} is not the {bits} that the compression's bits "
                "have room for"
            )
        if self.compression and self.compression.rounding is Rounding.TRUNCATE:
            raise ValueError(
                "a private update is rounded `nearest` or `stochastic`; truncating it would pull "
                "every coordinate towards zero and protect nobody"
            )
        self.check_capacity()
        return self

    @property
    def unit(self) -> Unit:
        """A record."""
        return Unit.RECORD

    @cached_property
    def noise(self) -> IntegerGaussian | None:
        """The noise of one local step: all of it, shared with nobody."""
        return noise_share(
            noise_multiplier=self.noise_multiplier,
            sensitivity_grid=self.sensitivity_grid,
            shares=1,
        )

    def contribution_bound(self, site: SiteTerms) -> int:
        """Clamp of one step's noiseless gradient sum, per coordinate, in grid units."""
        expected = float(self.sampling_rate) * site.records
        batch = min(site.records, ceil(expected + 8 * sqrt(expected) + 8))
        return batch * self.sensitivity_grid

    @property
    def upload_bound(self) -> int:
        """Largest weighted update on the upload's own grid."""
        return max(site.weight for site in self.sites) * self.update_levels

    @property
    def sum_bound(self) -> int:
        """All weighted updates at their clamp."""
        return sum(site.weight for site in self.sites) * self.update_levels

    @cached_property
    def overflow(self) -> Decimal:
        """What a step charges for more sampled records than slots; none in plans of version 1."""
        if self.version == 1:
            return Decimal(0)
        return overflow_chance(
            delta=self.delta,
            steps=self.rounds * self.local_steps,
            sampling_rate=self.sampling_rate,
        )

    def step_event(self) -> DpEvent:
        """One local step."""
        if self.noise is None:
            return DpEvent.once(Mechanism(kind="non-private"))
        stddev = self.noise.stddev_grid
        multiplier = sqrt_floor_decimal((stddev / self.sensitivity_grid) ** 2)
        distance = total_distance(stddev_grid=stddev, dimension=self.dimension, shares=1, rounds=1)
        return DpEvent.once(
            Mechanism.of(self.sampling_rate, multiplier),
            distance=add_upward(distance, self.overflow),
        )

    def committed_event(self, site: str) -> DpEvent:
        """See `TrainingPlan.committed_event`: `local_steps` steps."""
        self.site(site)
        return self.step_event().repeated(self.local_steps)

    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        """See `TrainingPlan.realised_event`: who else survived does not matter here."""
        return self.committed_event(site) if site in survivors else DpEvent()

    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """See `TrainingPlan.observers`."""
        return own_noise_observers(
            self.committed_event(site),
            survivors=survivors,
            unit=self.unit,
            custody=self.custody,
            in_slots=self.version > 1,
        )

    def step_divisor(self, site: SiteTerms) -> Fraction:
        """q times the site's declared records: the public expected batch of one local step."""
        return Fraction(self.sampling_rate) * site.records

    def divisor(self, survivors: Sequence[str]) -> Fraction:
        """Total public weight of the survivors."""
        return Fraction(sum(self.site(name).weight for name in survivors))

    @property
    def unit_per_grid(self) -> Fraction:
        """Uploads have a grid of their own: `update_levels` levels up to `update_bound`."""
        return Fraction(self.update_bound) / self.update_levels

    def with_noise(self, noise_multiplier: Decimal) -> LocalPlan:
        """The same plan with another noise multiplier, validated afresh."""
        facts = {**self.model_dump(), "noise_multiplier": noise_multiplier}
        return LocalPlan.model_validate(facts)
