"""Record level, distributed noise: one DP-SGD step on the union of the data each round.

Every site Poisson-samples its records, sums their clipped gradients on the grid, adds its share of
the noise. The opened sum is a Poisson-subsampled Gaussian on the union of the sites' records.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from privagg.privacy.events import DpEvent
from privagg.privacy.plan.compression import Rounding
from privagg.privacy.plan.modes import plan_mode
from privagg.privacy.plan.record import RecordPlan
from privagg.privacy.plan.sharing import SharedNoisePlan


@plan_mode
class DistributedPlan(RecordPlan, SharedNoisePlan):
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

    def event_of_shares(self, site: str, shares: int) -> DpEvent:
        """See `SharedNoisePlan.event_of_shares`; the same for every site."""
        self.site(site)
        return self.event_of_step(shares=shares, coordinates=self.upload_dimension)

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
