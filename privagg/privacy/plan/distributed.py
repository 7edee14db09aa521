"""Record level, distributed noise: one DP-SGD step on the union of the data each round.

Every site Poisson-samples its records, sums their clipped gradients on the grid, adds its share of
the noise. The opened sum is a Poisson-subsampled Gaussian on the union of the sites' records.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from privagg.privacy.events import DpEvent
from privagg.privacy.guarantee import Observer
from privagg.privacy.noise import IntegerGaussian
from privagg.privacy.plan.compression import Rounding
from privagg.privacy.plan.modes import plan_mode
from privagg.privacy.plan.observing import shared_noise_observers
from privagg.privacy.plan.record import RecordPlan
from privagg.privacy.plan.training import noise_share
from privagg.privacy.unit import Custody


@plan_mode
class DistributedPlan(RecordPlan):
    """One noised gradient sum a round; the unit is a record.

    Guarantees:
        Committed event: Poisson(q) of a Gaussian with multiplier `noise_multiplier` at least,
        against users of the model and any `colluders` sites, when at least `minimum_survivors`
        contributions are opened (proofs/integer-noise.md, proofs/sensitivity.md).
    """

    contribution_plainly: ClassVar[str] = (
        "the sum of its records' clipped gradients with its share of the noise"
    )
    rounds_updates: ClassVar[bool] = False
    usual_rounding: ClassVar[Rounding] = Rounding.TRUNCATE

    mode: Literal["record-distributed"] = "record-distributed"

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
    def steps_in_a_round(self) -> int:
        """One, on the union of the sites' records."""
        return 1

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

    def event_of_shares(self, shares: int) -> DpEvent:
        """The round's event against an observer to whom `shares` noise shares stay unknown."""
        return self.event_of_step(shares=shares, coordinates=self.upload_dimension)

    def committed_event(self, site: str) -> DpEvent:
        """See `Plan.committed_event`; the same for every site."""
        self.site(site)
        return self.event_of_shares(self.counted_shares)

    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        """See `Plan.realised_event`: all surviving shares unknown."""
        self.site(site)
        return self.event_of_shares(len(survivors)) if site in survivors else DpEvent()

    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """See `Plan.observers`."""
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

    @property
    def compression_cost(self) -> str:
        """None: fewer coordinates of an exact sum are sent."""
        return "A record's sensitivity stays what it was."
