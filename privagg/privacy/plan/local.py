"""Record level, local noise: each site's update is private by its own noise before it leaves.

A round is `local_steps` DP-SGD steps at every site, each with the site's full noise; the updates
are averaged with public integer weights. The guarantee holds against everybody, aggregator and key
holder together included; encryption is a second wall, not the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from privagg.privacy.events import DpEvent, ExactDecimal
from privagg.privacy.guarantee import Observer
from privagg.privacy.noise import IntegerGaussian
from privagg.privacy.plan.agreed import noise_share, over_epochs
from privagg.privacy.plan.compression import Rounding
from privagg.privacy.plan.modes import plan_mode
from privagg.privacy.plan.observing import own_noise_observers
from privagg.privacy.plan.record import RecordPlan
from privagg.privacy.plan.training import GridTerms


@plan_mode
class LocalPlan(RecordPlan):
    """Several DP-SGD steps a round at each site, with full noise; the unit is a record.

    Args:
        local_steps: steps in a round.
        update_bound: per coordinate clamp of a site's update, in model units; public.
        update_levels: grid levels from 0 to `update_bound` in an upload, before weighting.
    """

    contribution_plainly: ClassVar[str] = (
        "a model update made of clipped steps with its own full noise"
    )

    mode: Literal["record-local"] = "record-local"
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

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """See `TrainingPlan.from_settings`; the clamp is what the steps reach, unless given."""
        derived: dict[str, Any] = {
            "update_bound": settings["update_bound"] or _reachable_update(settings)
        }
        terms = settings["compression"]
        if terms is not None and terms.largest_coordinate is not None:
            derived["update_levels"] = terms.largest_coordinate
        return super().from_settings({**settings, **derived})

    @classmethod
    def usual_weight(cls, records: int) -> int:
        """A site's update counts for as much as the records that made it."""
        return records

    @property
    def steps_in_a_round(self) -> int:
        """`local_steps`."""
        return self.local_steps

    @cached_property
    def noise(self) -> IntegerGaussian | None:
        """The noise of one local step: all of it, shared with nobody."""
        return noise_share(
            noise_multiplier=self.noise_multiplier,
            sensitivity_grid=self.sensitivity_grid,
            shares=1,
        )

    def update_terms(self, site: str) -> GridTerms:
        """The grid of a site's whole update, which its steps' noise made private already."""
        return GridTerms(self.update_bound, self.update_levels, self.update_levels)

    @property
    def upload_bound(self) -> int:
        """Largest weighted update on the upload's own grid."""
        return max(site.weight for site in self.sites) * self.update_levels

    @over_epochs
    def sum_bound(self) -> int:
        """All weighted updates at their clamp."""
        return sum(site.weight for site in self.sites) * self.update_levels

    def step_event(self) -> DpEvent:
        """One local step."""
        return self.event_of_step(shares=1, coordinates=self.dimension)

    def committed_event(self, site: str) -> DpEvent:
        """See `Plan.committed_event`: `local_steps` steps."""
        self.site(site)
        return self.step_event().repeated(self.local_steps)

    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        """See `Plan.realised_event`: who else survived does not matter here."""
        return self.committed_event(site) if site in survivors else DpEvent()

    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """See `Plan.observers`."""
        return own_noise_observers(
            self.committed_event(site),
            survivors=survivors,
            unit=self.unit,
            custody=self.custody,
            in_slots=self.version > 1,
            engine=self.recipe.get("engine"),
        )

    def divisor(self, survivors: Sequence[str]) -> Fraction:
        """Total public weight of the survivors."""
        return Fraction(sum(self.site(name).weight for name in survivors))

    @property
    def unit_per_grid(self) -> Fraction:
        """Uploads have a grid of their own: `update_levels` levels up to `update_bound`."""
        return Fraction(self.update_bound) / self.update_levels

    @property
    def compression_cost(self) -> str:
        """None: what is compressed is private already."""
        return "That is done to a private update and costs no privacy."


def _reachable_update(settings: Mapping[str, Any]) -> Decimal:
    """A public bound on a local update's coordinates that clamping practically never touches.

    Every step moves a coordinate by the learning rate times at most C * batch / (q * records)
    from the gradient, where a batch stays within twice its expectation or eight records, and by
    a few noise standard deviations. The clamp is post-processing: too small a bound costs
    accuracy, never privacy.
    """
    clip, rate = settings["clip_norm_l2"], Decimal(repr(settings["local_learning_rate"]))
    expected = min(settings["sampling_rate"] * site.records for site in settings["sites"])
    gradient = clip * (2 + 8 / expected)
    noise = 10 * clip * settings["noise_multiplier"] / expected
    steps = rate * settings["local_steps"]
    return Context(prec=12, rounding=ROUND_CEILING).plus(steps * (gradient + noise))
