"""Client level: the whole contribution of a site, or of the person behind it, is what is hidden.

Each client trains in the clear on its own machine, clips its update, adds its share of the noise.
Where only part of the clients take part in a round, no amplification is claimed: it would hold only
against observers who cannot see participation, and the budget is charged as for a full Gaussian.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from privagg.errors import PlanError
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.guarantee import Observer
from privagg.privacy.noise import total_distance
from privagg.privacy.plan.arithmetic import sqrt_floor_decimal
from privagg.privacy.plan.base import Plan
from privagg.privacy.plan.compression import (
    LARGEST_CLIP_NORM_GRID,
    Rounding,
    rounded_sensitivity,
)
from privagg.privacy.plan.modes import plan_mode
from privagg.privacy.plan.observing import personal_observer
from privagg.privacy.plan.roster import SiteTerms
from privagg.privacy.plan.sharing import SharedNoisePlan
from privagg.privacy.plan.training import GridTerms
from privagg.privacy.unit import Unit


@plan_mode
class ClientPlan(SharedNoisePlan):
    """One clipped, noised update of each client a round; the unit is a site or a person.

    Args:
        protects_unit: `site` or `person`: what a client stands for.
        cohort_size: clients asked in a round, drawn uniformly; 0 means all of them.
        clip_norm_grid: S, grid units in the clip norm, where it is not `sensitivity_grid`: rounding
            an update can lengthen it, and the sensitivity is the length after rounding.

    Guarantees:
        Client i's sensitivity is weight_i * `sensitivity_grid`. The noise is sized for the largest
        weight, so the client with that weight is charged `noise_multiplier` and others less.

    Source: McMahan et al. 2018, "Learning differentially private recurrent language models".
    """

    contribution_plainly: ClassVar[str] = "one clipped model update with its share of the noise"
    sees_records: ClassVar[bool] = False

    mode: Literal["client"] = "client"
    protects_unit: Literal["site", "person"] = "site"
    cohort_size: int = Field(default=0, ge=0)
    clip_norm_grid: int | None = Field(default=None, ge=2, le=LARGEST_CLIP_NORM_GRID)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.cohort_size > self.most_there:
            raise ValueError(
                f"cohort_size {self.cohort_size} exceeds the {self.most_there} clients there are"
            )
        self._check_sensitivity()
        self.check_capacity()
        return self

    def _check_sensitivity(self) -> None:
        """The stated sensitivity is the one that the rounding has, not a number beside it."""
        derived = rounded_sensitivity(self.rounding, self.steps, self.upload_dimension)
        if self.sensitivity_grid != derived:
            raise ValueError(
                f"sensitivity_grid {self.sensitivity_grid} is not what rounding "
                f"{self.rounding.value!r} of {self.upload_dimension} coordinates has with "
                f"{self.steps} grid units in the clip norm; that is {derived}"
            )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """See `TrainingPlan.from_settings`; compression sets the grid, and so the sensitivity."""
        derived: dict[str, Any] = {"protects_unit": settings["unit"]}
        terms, dimension = settings["compression"], settings["dimension"]
        if terms is not None:
            steps = settings["sensitivity_grid"]
            if terms.bits is not None:
                steps = terms.finest_grid(dimension)
            n = terms.upload_dimension(dimension)
            derived["clip_norm_grid"] = steps
            derived["sensitivity_grid"] = rounded_sensitivity(terms.rounding, steps, n)
        return super().from_settings({**settings, **derived})

    @classmethod
    def require(cls, plan: Plan) -> Self:
        """The same plan, where it takes whole updates from whoever trained them.

        Raises:
            PlanError: the plan protects records, which privagg would have to see.
        """
        if not isinstance(plan, cls):
            raise PlanError(
                f"the plan is one for {plan.mode!r}; updates that others train, as a Flower app "
                "does, need privacy.mode = 'client': privagg does not see the records behind them"
            )
        return plan

    @property
    def rounding(self) -> Rounding:
        """How a clipped coordinate becomes an integer."""
        return self.compression.rounding if self.compression else Rounding.TRUNCATE

    @property
    def steps(self) -> int:
        """S, grid units in the clip norm."""
        return self.sensitivity_grid if self.clip_norm_grid is None else self.clip_norm_grid

    @property
    def unit_per_grid(self) -> Fraction:
        """Model units of one grid unit of the opened sum."""
        return Fraction(self.clip_norm_l2) / self.steps

    @property
    def unit(self) -> Unit:
        """A site, or the person behind it."""
        return Unit(self.protects_unit)

    @property
    def addends(self) -> int:
        """Clients asked in one round."""
        return self.cohort_size or self.most_there

    def contribution_bound(self, site: SiteTerms) -> int:
        """Largest coordinate of an update before weighting: the clamp, or its norm's bound."""
        clamp = self.compression.largest_coordinate if self.compression else None
        return self.sensitivity_grid if clamp is None else min(clamp, self.sensitivity_grid)

    def update_terms(self, site: str) -> GridTerms:
        """The grid on which a client's whole update is clipped."""
        return GridTerms(self.clip_norm_l2, self.steps, self.contribution_bound(self.site(site)))

    def event_of_shares(self, site: str, shares: int) -> DpEvent:
        """See `SharedNoisePlan.event_of_shares`: of the site's weighted update."""
        if self.noise is None:
            return DpEvent.once(Mechanism(kind="non-private"))
        stddev = self.noise.stddev_grid
        sensitivity = self.sensitivity_grid * self.site(site).weight
        multiplier = sqrt_floor_decimal((stddev / sensitivity) ** 2 * shares)
        distance = total_distance(
            stddev_grid=stddev, dimension=self.upload_dimension, shares=shares, rounds=1
        )
        return DpEvent.once(Mechanism.of(Decimal(1), multiplier), distance=distance)

    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """See `Plan.observers`; where a part of the model stays at home, who is served it too."""
        rows, algorithm = super().observers(site, survivors), self.recipe.get("algorithm")
        personal = isinstance(algorithm, dict) and bool(algorithm.get("personal"))
        return (*rows, personal_observer()) if personal else rows

    def divisor(self, survivors: Sequence[str]) -> Fraction:
        """Total public weight of the survivors; never renormalised inside the encryption."""
        return Fraction(sum(self.site(name).weight for name in survivors))

    @property
    def compression_cost(self) -> str:
        """Rounding can lengthen an update; the noise is sized for that."""
        return (
            f"Rounding included, the sensitivity is {self.sensitivity_grid} grid units where the "
            f"clip norm has {self.steps}; the noise is sized for the former."
        )
