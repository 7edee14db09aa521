"""Client level: the whole contribution of a site, or of the person behind it, is what is hidden.

Each client trains in the clear on its own machine, clips its update, adds its share of the noise.
Where only part of the clients take part in a round, no amplification is claimed: it would hold only
against observers who cannot see participation, and the budget is charged as for a full Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Literal, Self

from pydantic import Field, model_validator

from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.guarantee import Observer
from privagg.privacy.noise import IntegerGaussian, total_distance
from privagg.privacy.plan.arithmetic import sqrt_floor_decimal
from privagg.privacy.plan.base import SiteTerms, TrainingPlan, noise_share
from privagg.privacy.plan.observing import shared_noise_observers
from privagg.privacy.unit import Custody, Unit


class ClientPlan(TrainingPlan):
    """One clipped, noised update of each client a round; the unit is a site or a person.

    Args:
        protects_unit: `site` or `person`: what a client stands for.
        cohort_size: clients asked in a round, drawn uniformly; 0 means all of them.

    Guarantees:
        Client i's sensitivity is weight_i * C. The noise is sized for the largest weight, so the
        client with the largest weight is charged `noise_multiplier` and others less.
    """

    mode: Literal["client"] = "client"
    protects_unit: Literal["site", "person"] = "site"
    cohort_size: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.strict and self.custody is Custody.SITES:
            raise ValueError(
                "strict with custody 'sites' would show every upload to the site that opens; use "
                "custody 'authority', or leave strict out"
            )
        if self.cohort_size > len(self.sites):
            raise ValueError(
                f"cohort_size {self.cohort_size} exceeds the {len(self.sites)} clients there are"
            )
        if self.counted_shares < 1:
            raise ValueError(
                f"dropouts ({self.dropouts}) and colluders ({self.colluders}) leave no honest "
                f"noise share among {self.addends} clients; lower one or add clients"
            )
        self.check_capacity()
        return self

    @property
    def unit(self) -> Unit:
        """A site, or the person behind it."""
        return Unit(self.protects_unit)

    @property
    def addends(self) -> int:
        """Clients asked in one round."""
        return self.cohort_size or len(self.sites)

    @property
    def counted_shares(self) -> int:
        """Honest shares counted on: asked clients less dropouts less colluders."""
        return self.addends - self.dropouts - self.colluders

    @property
    def _largest_weight(self) -> int:
        return max(site.weight for site in self.sites)

    @cached_property
    def noise(self) -> IntegerGaussian | None:
        """One client's share, sized for the largest weight."""
        return noise_share(
            noise_multiplier=self.noise_multiplier,
            sensitivity_grid=self.sensitivity_grid * self._largest_weight,
            shares=self.counted_shares,
        )

    def contribution_bound(self, site: SiteTerms) -> int:
        """Largest coordinate of a clipped update before weighting: its norm's bound."""
        return self.sensitivity_grid

    @property
    def upload_bound(self) -> int:
        """Largest weighted update plus the largest noise a share can take."""
        noise = self.noise.bound if self.noise else 0
        return self._largest_weight * self.sensitivity_grid + noise

    @property
    def sum_bound(self) -> int:
        """A full cohort of the heaviest clients, every share at its largest."""
        noise = self.noise.bound if self.noise else 0
        heaviest = sorted((site.weight for site in self.sites), reverse=True)[: self.addends]
        return sum(heaviest) * self.sensitivity_grid + noise * self.addends

    def event_of_shares(self, site: str, shares: int) -> DpEvent:
        """A round's event for `site` when `shares` noise shares stay unknown."""
        if self.noise is None:
            return DpEvent.once(Mechanism(kind="non-private"))
        stddev = self.noise.stddev_grid
        sensitivity = self.sensitivity_grid * self.site(site).weight
        multiplier = sqrt_floor_decimal((stddev / sensitivity) ** 2 * shares)
        distance = total_distance(
            stddev_grid=stddev, dimension=self.dimension, shares=shares, rounds=1
        )
        return DpEvent.once(Mechanism.of(Decimal(1), multiplier), distance=distance)

    def committed_event(self, site: str) -> DpEvent:
        """See `TrainingPlan.committed_event`; the unsampled Gaussian."""
        return self.event_of_shares(site, self.counted_shares)

    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        """See `TrainingPlan.realised_event`: all surviving shares unknown."""
        return self.event_of_shares(site, len(survivors)) if site in survivors else DpEvent()

    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """See `TrainingPlan.observers`."""
        return shared_noise_observers(
            lambda shares: self.event_of_shares(site, shares),
            survivors=survivors,
            unit=self.unit,
            custody=self.custody,
            protects=self.hides,
            strict=self.strict,
        )

    def divisor(self, survivors: Sequence[str]) -> Fraction:
        """Total public weight of the survivors; never renormalised inside the encryption."""
        return Fraction(sum(self.site(name).weight for name in survivors))

    def with_noise(self, noise_multiplier: Decimal) -> ClientPlan:
        """The same plan with another noise multiplier, validated afresh."""
        facts = {**self.model_dump(), "noise_multiplier": noise_multiplier}
        return ClientPlan.model_validate(facts)
