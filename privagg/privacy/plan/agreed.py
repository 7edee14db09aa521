"""What every plan states and answers alike: who takes part, who opens, and which plan it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cached_property, reduce
from operator import add
from typing import Any, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from privagg.digest import canonical_json, json_digest
from privagg.errors import NoiseError, PlanError, validation_faults
from privagg.privacy.events import DpEvent, ExactDecimal
from privagg.privacy.noise import IntegerGaussian, IntegerNoise
from privagg.privacy.plan.arithmetic import sqrt_ceil
from privagg.privacy.plan.base import Plan
from privagg.privacy.plan.roster import Epoch, SiteTerms, epochs_of
from privagg.privacy.unit import Custody, Unit

NOISE_STEP_GRID = Fraction(1, 1024)
"""A share's standard deviation is a multiple of this many grid units, rounded up."""

LARGEST_SUM = 2**62
"""Sums stay below this, so that int64 arithmetic cannot wrap anywhere."""


def over_epochs(bound: Callable[[Any], int]) -> cached_property[int]:
    """Makes a property of a bound on every round: the largest that any epoch's rounds have."""

    def largest(plan: AgreedPlan) -> int:
        return max(bound(part) for part in plan.parts)

    largest.__doc__ = bound.__doc__
    return cached_property(largest)


_ADDING_AND_OPENING = ("scheme", "scheme_protects", "custody", "strict")


class AgreedPlan(BaseModel, ABC):
    """A job everybody agreed to. Frozen; its digest is pinned by every site.

    Args:
        mode: which way to be private; set by the subclass.
        sites: the committed roster, in the order of the contributor bitmap.
        delta: at which the job's epsilon is stated.
        dropouts: sites that may fail in a round without stopping it.
        colluders: sites that may pool what they know without weakening the committed event.
        custody: who can open the sum.
        scheme: secure aggregation scheme.
        scheme_protects: False where the scheme hides nothing, whatever its name.
        strict: True where the key holder adds the signed uploads again before it opens; it then
            sees every upload, and could decrypt each.
        recipe: what is computed and how; public JSON that the privacy analysis does not depend on,
            pinned with the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: str
    sites: tuple[SiteTerms, ...] = Field(min_length=1)
    delta: ExactDecimal = Field(gt=0, lt=1, max_digits=60)
    dropouts: int = Field(default=0, ge=0)
    colluders: int = Field(default=1, ge=0)
    custody: Custody
    scheme: str
    scheme_protects: bool = True
    strict: bool = False
    recipe: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _roster_is_sound(self) -> Self:
        names = [site.name for site in self.sites]
        if len(set(names)) != len(names):
            raise ValueError(f"site names must differ, got {', '.join(sorted(names))}")
        datasets = [site.dataset for site in self.sites]
        if len(set(datasets)) != len(datasets):
            raise ValueError("two sites name the same data set; each data set has one owner")
        if self.changes:
            _ = self.parts  # an epoch that is not sound is refused by its rounds
        if self.minimum_survivors < 1:
            raise ValueError(
                f"dropouts = {self.dropouts} leaves no contribution of {self.addends}; lower it"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """An option that a plan does not use is not in its JSON, so new options move no digest."""
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    @abstractmethod
    def unit(self) -> Unit:
        """See `Plan.unit`."""

    @property
    @abstractmethod
    def upload_bound(self) -> int:
        """See `Plan.upload_bound`."""

    @property
    @abstractmethod
    def sum_bound(self) -> int:
        """See `Plan.sum_bound`."""

    @property
    def sum_tail(self) -> int:
        """See `Plan.sum_tail`: where no noise is shared out, what a sum always keeps to."""
        return self.sum_bound

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
    def custody_plainly(self) -> str:
        """See `Plan.custody_plainly`."""
        if self.custody is not Custody.EVERY_SITE:
            return self.custody.plainly
        agree = f"at least {self.minimum_survivors} of the {self.addends} sites asked agree"
        if self.changes:
            needed = (
                f"{part.minimum_survivors} of {part.addends} in {epoch.rounds_text}"
                for epoch, part in zip(self.epochs, self.parts, strict=True)
            )
            agree = f"enough of the sites asked ({', '.join(needed)}) agree"
        return (
            f"Nobody holds a key. A sum opens only where {agree} on one list of contributors and "
            "open it together. "
            f"The aggregator with {self.colluders + 1} of them could read a single contribution; "
            "then only that site's own share of the noise protects it."
        )

    # --- who is there when ------------------------------------------------------------------------

    @cached_property
    def changes(self) -> bool:
        """Whether sites join or leave between rounds."""
        return not all(site.stays for site in self.sites)

    @cached_property
    def epochs(self) -> tuple[Epoch, ...]:
        """See `Plan.epochs`."""
        return epochs_of(self.sites, cast(Plan, self).rounds)

    def epoch(self, number: int) -> Epoch:
        """See `Plan.epoch`."""
        return self.epochs[self._place(number)]

    def rounds_of(self, site: str) -> range:
        """See `Plan.rounds_of`."""
        first, last = self.site(site).presence(cast(Plan, self).rounds)
        return range(first, last + 1)

    @property
    def parts(self) -> tuple[Self, ...]:
        """For each epoch the plan that its own sites would have; itself where nobody comes or goes.

        Raises:
            PlanError: an epoch's sites are too few, or could not hide each other.
        """
        return self._parts if self.changes else (self,)

    @cached_property
    def _parts(self) -> tuple[Self, ...]:
        facts = self.model_dump(exclude={"sites"})
        always = {"first_round": None, "last_round": None}
        bare = {site.name: site.model_copy(update=always) for site in self.sites}
        return tuple(self._part(epoch, facts, bare) for epoch in self.epochs)

    def of_epoch(self, number: int) -> Self:
        """The part that round `number` is in; PlanError where there is no such round."""
        return self.parts[self._place(number)] if self.changes else self

    def _part(self, epoch: Epoch, facts: Mapping[str, Any], bare: Mapping[str, SiteTerms]) -> Self:
        sites = tuple(bare[name] for name in epoch.names)
        try:
            return type(self).model_validate({**facts, "sites": sites})
        except (ValidationError, PlanError, NoiseError) as error:
            why = str(error)
            if isinstance(error, ValidationError):
                why = validation_faults(error, whole="the plan")
            raise PlanError(f"in {epoch.rounds_text} ({', '.join(epoch.names)}): {why}") from error

    def _place(self, number: int) -> int:
        for place, epoch in enumerate(self.epochs):
            if epoch.first <= number <= epoch.last:
                return place
        raise PlanError(f"the plan has rounds 1 to {self.epochs[-1].last}, no round {number}")

    @property
    def most_there(self) -> int:
        """Sites of the largest epoch."""
        return max(len(epoch.sites) for epoch in self.epochs)

    @property
    def addends(self) -> int:
        """Most contributions of one round."""
        return self.most_there

    @property
    def minimum_survivors(self) -> int:
        """See `RoundPlan.minimum_survivors`; where the roster changes, of the largest one."""
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

    def total_committed(self, site: str, rounds: Sequence[int] | None = None) -> DpEvent:
        """See `Plan.total_committed`."""
        plan = cast(Plan, self)
        there = self.rounds_of(site)
        named = there if rounds is None else rounds
        counted = Counter(plan.first_like(number) for number in named if number in there)
        events = (
            plan.in_round(number).committed_event(site).repeated(count)
            for number, count in counted.items()
        )
        return reduce(add, events, DpEvent())

    @property
    def counted_shares(self) -> int:
        """Honest noise shares counted on: sites asked less dropouts less colluders.

        Raises:
            PlanError: the roster changes; each round has its own number.
        """
        if self.changes:
            raise PlanError("the roster changes between rounds; ask for one round (`in_round`)")
        return self.addends - self.dropouts - self.colluders

    def check_shares(self) -> None:
        """Refuse a plan whose shared-out noise could protect nobody.

        Raises:
            ValueError: no honest share is left, or whoever opens would see every upload.
        """
        if self.changes:  # each of its parts was
            return
        if self.strict and self.custody is Custody.SITES:
            raise ValueError(
                "strict with custody 'sites' would show every upload to the site that opens; use "
                "custody 'authority', or leave strict out"
            )
        if self.strict and self.custody is Custody.EVERY_SITE:
            raise ValueError(
                "strict has a key holder add again, and with custody 'every-site' nobody holds a "
                "key; leave strict out"
            )
        if self.counted_shares < 1:
            raise ValueError(
                f"dropouts ({self.dropouts}) and colluders ({self.colluders}) leave no honest "
                f"noise share among {self.addends} sites; lower one or add sites"
            )

    def check_capacity(self) -> None:
        """Refuse a plan whose sum could leave the integers everybody computes with.

        Raises:
            PlanError: the sum bound reaches 2**62.
        """
        if self.sum_bound >= LARGEST_SUM:
            raise PlanError(
                f"a round's sum could reach {self.sum_bound}, beyond 2**62; lower "
                f"sensitivity_grid, the weights or the cohort ({self.addends})"
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


def stddev_text(noise: IntegerNoise | None) -> str:
    """A share's standard deviation in grid units, all its digits, as a decimal; `0` without."""
    if noise is None:
        return "0"
    stddev = noise.stddev_grid
    return format(Decimal(stddev.numerator) / Decimal(stddev.denominator), "f")
