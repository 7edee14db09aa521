"""Plans of training: sums of gradients or updates, and what every way to be private shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    Field,
    JsonValue,
    model_validator,
)

from privagg.privacy.events import DpEvent, ExactDecimal
from privagg.privacy.guarantee import Observer
from privagg.privacy.noise import IntegerGaussian
from privagg.privacy.plan.agreed import AgreedPlan, stddev_text
from privagg.privacy.plan.compression import Compression, Rounding


class GridTerms(NamedTuple):
    """What bounds a contribution on its grid: what `privagg.encoding.Grid` is made of.

    Args:
        clip_norm_l2: C, in the units of the clipped quantity.
        steps: S, grid units in C: the integer L2 norm that no contribution exceeds.
        bound: no coordinate of a site's noiseless, unweighted integers lies beyond +- this.
    """

    clip_norm_l2: Decimal
    steps: int
    bound: int


class TrainingPlan(AgreedPlan):
    """A training job everybody agreed to. Frozen; its digest is pinned by every site.

    Ask it for what a number means; nothing else in the house states one a second time:

        >>> from privagg.privacy.plan import DistributedPlan, SiteTerms, load_plan
        >>> plan = DistributedPlan(
        ...     sites=(SiteTerms(name="north", records=200), SiteTerms(name="south", records=100)),
        ...     dimension=14, rounds=10, sampling_rate="0.2", clip_norm_l2="0.5",
        ...     noise_multiplier="2", delta="1e-5", colluders=1,
        ...     scheme="ckks", custody="authority",
        ... )
        >>> plan.committed_event("north").terms[0].mechanism.noise_multiplier >= 2
        True
        >>> str(plan.divisor(["north", "south"]))  # the expected batch, from declared numbers
        '60'
        >>> [(row.name, row.colluding_sites) for row in plan.observers("north", survivors=2)][:2]
        [('model-users', 0), ('aggregator', 0)]
        >>> load_plan(plan.model_dump(mode="json")).digest == plan.digest
        True

    Attributes:
        sees_records: whether privagg itself computes on the records; where not, whoever brings a
            whole update is served too.
        rounds_updates: whether a whole update is rounded to the grid, and not each record's part.
        usual_rounding: what compression does where its rounding is not given.
        contribution_plainly: see `Plan.contribution_plainly`.

    Args:
        version: 2; in plans of version 1 a record's row was its rank among the sampled ones, where
            one more record shifts others. They can be read and verified, not trained.
        dimension: d, number of model parameters.
        rounds: how often the sum is opened.
        clip_norm_l2: C, in the units of the clipped quantity (a gradient or an update).
        sensitivity_grid: the integer norm a unit's unweighted contribution never exceeds, rounding
            included.
        noise_multiplier: noise standard deviation over sensitivity that the committed event
            charges; 0 means no privacy (epsilon is infinite) and is for tests and comparisons.
        compression: fewer or coarser integers in an upload; None sends every coordinate.
        sites, delta, dropouts, colluders, custody, scheme, scheme_protects, strict, recipe: as for
            every plan.
    """

    sees_records: ClassVar[bool] = True
    rounds_updates: ClassVar[bool] = True
    usual_rounding: ClassVar[Rounding] = Rounding.STOCHASTIC
    contribution_plainly: ClassVar[str]

    version: Literal[1, 2] = 2
    dimension: int = Field(ge=1, le=10**10)
    rounds: int = Field(ge=1, le=10**6)
    clip_norm_l2: ExactDecimal = Field(gt=0, max_digits=40)
    sensitivity_grid: int = Field(default=2**16, ge=2, le=2**31)
    noise_multiplier: ExactDecimal = Field(ge=0, max_digits=40)
    compression: Compression | None = None

    @model_validator(mode="after")
    def _sends_what_there_is(self) -> Self:
        kept = self.compression.kept if self.compression else None
        if kept is not None and kept > self.dimension:
            raise ValueError(
                f"compression keeps {kept} coordinates of an update that has {self.dimension}"
            )
        return self

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The plan that a configuration asks for: each field from the setting of its name.

        Args:
            settings: name -> value, as in the sections of a configuration, with `noise_multiplier`
                and `compression` settled. A setting that is no field is left out here; a subclass
                that derives a field from it does so first.

        Raises:
            ValidationError: the settings contradict each other.
        """
        known = {name: value for name, value in settings.items() if name in cls.model_fields}
        return cls.model_validate(known)

    @classmethod
    def usual_weight(cls, records: int) -> int:
        """The weight of a site of so many records where none is given."""
        return 1

    # --- what each way to be private answers by itself; the words are `Plan`'s --------------------

    @property
    @abstractmethod
    def noise(self) -> IntegerGaussian | None:
        """See `Plan.noise`."""

    @abstractmethod
    def committed_event(self, site: str) -> DpEvent:
        """See `Plan.committed_event`."""

    @abstractmethod
    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        """See `Plan.realised_event`."""

    @abstractmethod
    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """See `Plan.observers`."""

    @abstractmethod
    def divisor(self, survivors: Sequence[str]) -> Fraction:
        """See `Plan.divisor`."""

    @property
    @abstractmethod
    def compression_cost(self) -> str:
        """What this plan's compression does to sensitivity, in a sentence."""

    # --- what follows from the rest --------------------------------------------------------------

    @property
    def record_rate(self) -> Decimal | None:
        """q, at which records take part at random; None where a site trains on all of them."""
        return None

    def step_batches(self, site: str, physical_batch: int) -> int | None:
        """Batches that a step of `site` always runs; None where nothing about them is public.

        Args:
            site: its name in the plan.
            physical_batch: B, rows of a batch.
        """
        return None

    @property
    def upload_dimension(self) -> int:
        """n, integers in an upload."""
        compression = self.compression
        return compression.upload_dimension(self.dimension) if compression else self.dimension

    @property
    def unit_per_grid(self) -> Fraction:
        """Model units of one grid unit of the opened sum."""
        return Fraction(self.clip_norm_l2) / self.sensitivity_grid

    @property
    def step_sign(self) -> int:
        """-1 where the opened mean is a gradient to descend, +1 where it is an update to add."""
        return 1

    def step_per_grid(self, survivors: Sequence[str]) -> Fraction:
        """See `Plan.step_per_grid`: of the mean, along the server optimiser's direction."""
        return self.step_sign * self.unit_per_grid / self.divisor(survivors)

    def with_noise(self, noise_multiplier: Decimal) -> Self:
        """The same plan with another noise multiplier, validated afresh."""
        facts = {**self.model_dump(), "noise_multiplier": noise_multiplier}
        return type(self).model_validate(facts)

    @property
    def noise_stddev_text(self) -> str:
        """See `Plan.noise_stddev_text`."""
        return stddev_text(self.noise)

    @property
    def charge_facts(self) -> dict[str, JsonValue]:
        """See `Plan.charge_facts`."""
        return {
            "mode": self.mode,
            "minimum_survivors": self.minimum_survivors,
            "clip_norm_l2": str(self.clip_norm_l2),
            "sensitivity_grid": self.sensitivity_grid,
            "noise_stddev_grid": self.noise_stddev_text,
            "noise_bound_grid": self.noise.bound if self.noise else 0,
            "upload_bound_grid": self.upload_bound,
            "sum_bound_grid": self.sum_bound,
            "scheme": self.scheme,
            "custody": self.custody.value,
        }

    def in_round(self, number: int) -> Self:
        """See `Plan.in_round`: rounds of one epoch are planned alike."""
        return self.of_epoch(number)

    def first_like(self, number: int) -> int:
        """See `Plan.first_like`: round 1, or where the same sites are there for the first time."""
        if not self.changes:
            return 1
        sites = self.epoch(number).sites
        return next(epoch.first for epoch in self.epochs if epoch.sites == sites)

    def total_committed(self, site: str, rounds: Sequence[int] | None = None) -> DpEvent:
        """See `Plan.total_committed`."""
        if self.changes:
            return super().total_committed(site, rounds)
        return self.committed_event(site).repeated(self.rounds if rounds is None else len(rounds))
