"""What every plan answers, and the part that the training plans share."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    model_serializer,
    model_validator,
)

from privagg.errors import PlanError
from privagg.privacy.events import DpEvent, ExactDecimal
from privagg.privacy.guarantee import Observer
from privagg.privacy.noise import IntegerGaussian
from privagg.privacy.plan.arithmetic import sqrt_ceil
from privagg.privacy.plan.compression import Compression
from privagg.privacy.unit import Custody, Unit

NOISE_STEP_GRID = Fraction(1, 1024)
"""A share's standard deviation is a multiple of this many grid units, rounded up."""

LARGEST_SUM = 2**62
"""Sums stay below this, so that int64 arithmetic cannot wrap anywhere."""

_ADDING_AND_OPENING = ("scheme", "scheme_protects", "custody", "strict")

SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]

DatasetName = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$")]
"""A data set's public name, of ASCII: two that look the same are the same. Empty: the site's."""


class SiteTerms(BaseModel):
    """One institution's public facts, as everybody agreed to them.

    Args:
        name: how messages and reports call the site.
        dataset: public name of the data set whose budget is charged; defaults to the name.
        records: declared number of records; public configuration, never a private length.
        weight: integer weight of the site's contribution, applied before encryption.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SiteName
    dataset: DatasetName = ""
    records: int = Field(ge=1, le=10**9)
    weight: int = Field(default=1, ge=1, le=10**9)

    @model_validator(mode="before")
    @classmethod
    def _dataset_defaults_to_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("dataset"):
            return {**values, "dataset": values.get("name", "")}
        return values


class Plan(Protocol):
    """Anything institutions can contribute to: shape, sensitivity, noise and event in one object.

    Nobody passes a noise multiplier and a sensitivity side by side; they ask the plan.
    """

    @property
    def digest(self) -> str: ...
    @property
    def sites(self) -> tuple[SiteTerms, ...]: ...
    @property
    def dimension(self) -> int: ...
    @property
    def upload_dimension(self) -> int: ...
    @property
    def unit(self) -> Unit: ...
    @property
    def minimum_survivors(self) -> int: ...
    @property
    def upload_bound(self) -> int: ...
    @property
    def sum_bound(self) -> int: ...
    @property
    def addends(self) -> int: ...

    def committed_event(self, site: str) -> DpEvent: ...
    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent: ...
    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]: ...


class TrainingPlan(BaseModel, ABC):
    """A training job everybody agreed to. Frozen; its digest is pinned by every site.

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

    @property
    @abstractmethod
    def unit(self) -> Unit:
        """Whose presence the guarantee hides."""

    @property
    @abstractmethod
    def noise(self) -> IntegerGaussian | None:
        """The integer noise a site adds (a share, or all of it); None where there is none."""

    @property
    @abstractmethod
    def upload_bound(self) -> int:
        """No coordinate of an upload lies beyond +- this; noise and weight included."""

    @property
    @abstractmethod
    def sum_bound(self) -> int:
        """No coordinate of the sum of a full cohort lies beyond +- this."""

    @abstractmethod
    def committed_event(self, site: str) -> DpEvent:
        """What one round charges `site`: the least noise that the plan lets be opened."""

    @abstractmethod
    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        """What one round did to `site` against users of the model, given who survived.

        Nothing where the site's contribution is not in the opened sum.
        """

    @abstractmethod
    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """One round as each observer sees it, when `survivors` contributions were opened."""

    @abstractmethod
    def divisor(self, survivors: Sequence[str]) -> Fraction:
        """Public number that turns the opened sum (in model units) into a mean."""

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

    @abstractmethod
    def with_noise(self, noise_multiplier: Decimal) -> Self:
        """The same plan with another noise multiplier, validated afresh."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON; sites pin it."""
        return hashlib.sha256(b"privagg/plan/1\0" + self.canonical_json.encode()).hexdigest()

    @cached_property
    def computation_digest(self) -> str:
        """SHA-256 (hex) over all of the plan but how sums are added and opened.

        Public draws hang on it, so that one computation has one result under every scheme.
        """
        facts = self.model_dump(mode="json", exclude=set(_ADDING_AND_OPENING))
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(b"privagg/computation/1\0" + text.encode()).hexdigest()

    @property
    def canonical_json(self) -> str:
        """The plan as JSON with sorted keys and no spaces; `load_plan` reads it back."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

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

    def total_committed(self, site: str, rounds: int | None = None) -> DpEvent:
        """Composition of the committed events of `rounds` rounds (default: the whole job)."""
        return self.committed_event(site).repeated(self.rounds if rounds is None else rounds)

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
        A share whose variance times `shares` is at least the planned variance; None at 0.
    """
    if noise_multiplier == 0:
        return None
    variance = (Fraction(noise_multiplier) * sensitivity_grid) ** 2 / shares
    return IntegerGaussian(stddev_grid=sqrt_ceil(variance, NOISE_STEP_GRID))


def load_plan(facts: Any) -> TrainingPlan:
    """A training plan from its JSON facts (untrusted input).

    Raises:
        PlanError: the facts are not a plan this version understands.
    """
    from privagg.privacy.plan.client import ClientPlan
    from privagg.privacy.plan.distributed import DistributedPlan
    from privagg.privacy.plan.local import LocalPlan

    union = Annotated[DistributedPlan | LocalPlan | ClientPlan, Field(discriminator="mode")]
    try:
        plan: TrainingPlan = TypeAdapter[Any](union).validate_python(facts)
    except ValueError as error:
        raise PlanError(f"not a training plan: {error}") from error
    return plan
