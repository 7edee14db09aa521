"""Plans of training: sums of gradients or updates, and what every way to be private shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from privagg.digest import canonical_json, json_digest
from privagg.errors import PlanError
from privagg.privacy.events import DpEvent, ExactDecimal
from privagg.privacy.guarantee import Observer
from privagg.privacy.noise import IntegerGaussian
from privagg.privacy.plan.arithmetic import sqrt_ceil
from privagg.privacy.plan.base import SiteTerms
from privagg.privacy.plan.compression import Compression, Rounding
from privagg.privacy.unit import Custody, Unit

NOISE_STEP_GRID = Fraction(1, 1024)
"""A share's standard deviation is a multiple of this many grid units, rounded up."""

LARGEST_SUM = 2**62
"""Sums stay below this, so that int64 arithmetic cannot wrap anywhere."""

_ADDING_AND_OPENING = ("scheme", "scheme_protects", "custody", "strict")


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


class TrainingPlan(BaseModel, ABC):
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
        contribution_plainly: what leaves a site, in plain words for a report.
        sees_records: whether privagg itself computes on the records; where not, whoever brings a
            whole update is served too.
        rounds_updates: whether a whole update is rounded to the grid, and not each record's part.
        usual_rounding: what compression does where its rounding is not given.

    Args:
        version: 2; in plans of version 1 a record's row was its rank among the sampled ones, where
            one more record shifts others. They can be read and verified, not trained.
        mode: which way to be private; set by the subclass.
        sites: the committed roster, in the order of the contributor bitmap.
        dimension: d, number of model parameters.
        rounds: how often the sum is opened.
        clip_norm_l2: C, in the units of the clipped quantity (a gradient or an update).
        sensitivity_grid: the integer norm a unit's unweighted contribution never exceeds, rounding
            included.
        noise_multiplier: noise standard deviation over sensitivity that the committed event
            charges; 0 means no privacy (epsilon is infinite) and is for tests and comparisons.
        delta: at which the job's epsilon is stated.
        dropouts: sites that may fail in a round without stopping it.
        colluders: sites that may pool what they know without weakening the committed event.
        custody: who can open the sum.
        scheme: secure aggregation scheme.
        scheme_protects: False where the scheme hides nothing, whatever its name.
        strict: True where the key holder adds the signed uploads again before it opens; it then
            sees every upload, and could decrypt each.
        compression: fewer or coarser integers in an upload; None sends every coordinate.
        recipe: what is trained and how (model, features, optimiser, client rule); public JSON that
            the privacy analysis does not depend on, pinned with the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contribution_plainly: ClassVar[str]
    sees_records: ClassVar[bool] = True
    rounds_updates: ClassVar[bool] = True
    usual_rounding: ClassVar[Rounding] = Rounding.STOCHASTIC

    version: Literal[1, 2] = 2
    mode: str
    sites: tuple[SiteTerms, ...] = Field(min_length=1)
    dimension: int = Field(ge=1, le=10**10)
    rounds: int = Field(ge=1, le=10**6)
    clip_norm_l2: ExactDecimal = Field(gt=0, max_digits=40)
    sensitivity_grid: int = Field(default=2**16, ge=2, le=2**31)
    noise_multiplier: ExactDecimal = Field(ge=0, max_digits=40)
    delta: ExactDecimal = Field(gt=0, lt=1, max_digits=60)
    dropouts: int = Field(default=0, ge=0)
    colluders: int = Field(default=1, ge=0)
    custody: Custody
    scheme: str
    scheme_protects: bool = True
    strict: bool = False
    compression: Compression | None = None
    recipe: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _roster_is_sound(self) -> Self:
        names = [site.name for site in self.sites]
        if len(set(names)) != len(names):
            raise ValueError(f"site names must differ, got {', '.join(sorted(names))}")
        datasets = [site.dataset for site in self.sites]
        if len(set(datasets)) != len(datasets):
            raise ValueError("two sites name the same data set; each data set has one owner")
        if self.minimum_survivors < 1:
            raise ValueError(
                f"dropouts = {self.dropouts} leaves no contribution of {self.addends}; lower it"
            )
        return self

    @model_validator(mode="after")
    def _sends_what_there_is(self) -> Self:
        kept = self.compression.kept if self.compression else None
        if kept is not None and kept > self.dimension:
            raise ValueError(
                f"compression keeps {kept} coordinates of an update that has {self.dimension}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """An option that a plan does not use is not in its JSON, so new options move no digest."""
        return {name: value for name, value in handler(self).items() if value is not None}

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
    def unit(self) -> Unit:
        """See `Plan.unit`."""

    @property
    @abstractmethod
    def noise(self) -> IntegerGaussian | None:
        """See `Plan.noise`."""

    @property
    @abstractmethod
    def upload_bound(self) -> int:
        """See `Plan.upload_bound`."""

    @property
    @abstractmethod
    def sum_bound(self) -> int:
        """See `Plan.sum_bound`."""

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
        if self.noise is None:
            return "0"
        stddev = self.noise.stddev_grid
        return format(Decimal(stddev.numerator) / Decimal(stddev.denominator), "f")

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

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON; sites pin it."""
        return json_digest(self.model_dump(mode="json"), domain=b"privagg/plan/1\0")

    @cached_property
    def computation_digest(self) -> str:
        """SHA-256 (hex) over all of the plan but how sums are added and opened.

        Public draws hang on it, so that one computation has one result under every scheme.
        """
        facts = self.model_dump(mode="json", exclude=set(_ADDING_AND_OPENING))
        return json_digest(facts, domain=b"privagg/computation/1\0")

    @property
    def canonical_json(self) -> str:
        """The plan as JSON with sorted keys and no spaces; `load_plan` reads it back."""
        return canonical_json(self.model_dump(mode="json")).decode("ascii")

    @property
    def reach_of_one_site(self) -> int:
        """To +- this, in grid units, one dishonest site can set any coordinate of an opened sum.

        Nothing bounds what is inside a ciphertext but the range outside of which no sum is opened;
        where nothing is encrypted, every upload is held against its own bound.
        """
        if not self.hides:
            return self.upload_bound
        return min(self.sum_bound, self.addends * self.upload_bound)

    @property
    def hides(self) -> bool:
        """Whether uploads are encrypted at all."""
        return self.scheme_protects and self.scheme != "plaintext"

    @property
    def addends(self) -> int:
        """Most contributions of one round."""
        return len(self.sites)

    @property
    def minimum_survivors(self) -> int:
        """Fewer contributions than this stop a round before anything is opened."""
        return self.addends - self.dropouts

    def site(self, name: str) -> SiteTerms:
        """The terms of the site called `name`.

        Raises:
            PlanError: no such site.
        """
        for terms in self.sites:
            if terms.name == name:
                return terms
        raise PlanError(f"the plan has no site {name!r}; it has {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Site names in roster order."""
        return tuple(site.name for site in self.sites)

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """See `Plan.in_order`."""
        named = set(names)
        return tuple(name for name in self.names if name in named)

    def is_cohort(self, names: Sequence[str]) -> bool:
        """See `Plan.is_cohort`."""
        return tuple(names) == self.in_order(names) and len(names) == self.addends

    def is_quorum(self, names: Sequence[str]) -> bool:
        """See `Plan.is_quorum`."""
        in_order = tuple(names) == self.in_order(names)
        return in_order and self.minimum_survivors <= len(names) <= self.addends

    def in_round(self, number: int) -> Self:
        """See `Plan.in_round`: every round of a training job is planned alike."""
        return self

    def first_like(self, number: int) -> int:
        """See `Plan.first_like`: round 1."""
        return 1

    def total_committed(self, site: str, rounds: Sequence[int] | None = None) -> DpEvent:
        """See `Plan.total_committed`."""
        return self.committed_event(site).repeated(self.rounds if rounds is None else len(rounds))

    def check_capacity(self) -> None:
        """Refuse a plan whose sum could leave the integers everybody computes with.

        Raises:
            PlanError: the sum bound reaches 2**62.
        """
        if self.sum_bound >= LARGEST_SUM:
            raise PlanError(
                f"a round's sum could reach {self.sum_bound}, beyond 2**62; lower sensitivity_grid "
                f"(now {self.sensitivity_grid}), the weights or the cohort ({self.addends})"
            )


def noise_share(
    *, noise_multiplier: Decimal, sensitivity_grid: int, shares: int
) -> IntegerGaussian | None:
    """The noise one of `shares` parties adds so that together they give the planned noise.

    Args:
        noise_multiplier: planned total, over the sensitivity.
        sensitivity_grid: weighted L2 sensitivity in grid units.
        shares: honest shares counted on.

    Returns:
        A share whose variance times `shares` is at least the planned variance, rounded up to a
        multiple of `NOISE_STEP_GRID`; None at 0.

    Source: proofs/integer-noise.md; Kairouz, Liu & Steinke 2021, "The distributed discrete Gaussian
        mechanism for federated learning with secure aggregation".
    """
    if noise_multiplier == 0:
        return None
    variance = (Fraction(noise_multiplier) * sensitivity_grid) ** 2 / shares
    return IntegerGaussian(stddev_grid=sqrt_ceil(variance, NOISE_STEP_GRID))
