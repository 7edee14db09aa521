"""Sums over records: every record adds one bounded integer vector a round; only noised sums open.

Nothing is sampled and nothing trained: counts, moments, histograms, the parts of a regression. What
a record adds is a function of the round's public state and of that record alone, so that one
record moves a round's sum by at most the L2 norm that the plan states, in exact integers. Rounds
may differ in all they do; each is one Gaussian event, at its own noise, or where a record moves few
integers one of integer Laplace noise.

A round may be over *shards* instead: groups that each record falls into by its own bytes alone, of
which each adds one bounded vector of votes. One record then replaces the votes of one shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from functools import cached_property, reduce
from math import isqrt
from operator import add
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from privagg.errors import PlanError
from privagg.privacy.events import (
    LARGEST_MOVE,
    DpEvent,
    ExactDecimal,
    LaplaceMechanism,
    Mechanism,
)
from privagg.privacy.guarantee import Observer
from privagg.privacy.laplace_noise import IntegerLaplace
from privagg.privacy.noise import IntegerGaussian, total_distance
from privagg.privacy.plan.agreed import AgreedPlan, noise_share, stddev_text
from privagg.privacy.plan.arithmetic import sqrt_floor_decimal
from privagg.privacy.plan.compression import Compression
from privagg.privacy.plan.modes import plan_mode
from privagg.privacy.plan.observing import (
    SHARDS_REST_ON,
    SUMS_REST_ON,
    shared_noise_observers,
)
from privagg.privacy.plan.roster import SiteTerms
from privagg.privacy.unit import Unit

MOST_DIFFERENT = 256
"""Rounds of a plan that differ from one another: what reads a plan, or bounds what it costs, does
work for each of them, and a stranger's plan is read before anything vouches for it."""


MOST_MOVES = 256
"""Integers that a record moves under integer Laplace noise; of more, Gaussian noise is the less."""

LARGEST_SHARDS = 10**4
"""Of one site; each is computed anew in every round."""

_EXACT = Context(prec=80)


def norm_of(moves: Sequence[int]) -> int:
    """L2 norm of a row of these magnitudes, rounded up.

    Args:
        moves: at least one, each at least 1.
    """
    return isqrt(sum(move * move for move in moves) - 1) + 1


class OpeningTerms(BaseModel):
    """What one round opens, and how far a record moves it.

    Args:
        state: d, float64 values in the public state that the round starts from.
        length: n, integers that a record adds.
        sensitivity_grid: S, the L2 norm that no record's integers exceed.
        largest_grid: no integer of a record lies beyond +- this.
        noise_multiplier: noise standard deviation over S that the committed event charges; with
            `moves` the noise's scale over their sum. 0 means no privacy (epsilon is infinite) and
            is for tests and comparisons.
        moves: with them the noise is integer Laplace, and the magnitudes of a record's integers,
            sorted in falling order, are at most these; beyond them all are 0.
        shards: with them it is not records that add but so many shards at each site. No integer of
            a shard is below 0, and twice the squares of all of them together are at most S^2, so
            that S is as far as one shard's vector lies from any other that it may have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: int = Field(default=0, ge=0, le=10**7)
    length: int = Field(ge=1, le=10**6)
    sensitivity_grid: int = Field(ge=1, le=2**24)
    largest_grid: int = Field(ge=1, le=2**24)
    noise_multiplier: ExactDecimal = Field(ge=0, max_digits=40)
    moves: tuple[Annotated[int, Field(ge=1, le=LARGEST_MOVE)], ...] | None = Field(
        default=None, min_length=1, max_length=MOST_MOVES
    )
    shards: int | None = Field(default=None, ge=1, le=LARGEST_SHARDS)

    @property
    def least_grid(self) -> int:
        """No integer lies below this."""
        return 0 if self.shards else -self.largest_grid

    @property
    def largest_square(self) -> int:
        """What the squares of a record's integers, or of a shard's, add up to at most."""
        return self.sensitivity_grid**2 // (2 if self.shards else 1)

    @property
    def scale(self) -> Decimal:
        """Of integer Laplace noise, in grid units; exact."""
        return _EXACT.multiply(self.noise_multiplier, Decimal(sum(self.moves or ())))

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As a plan's: Gaussian openings look as they did before there was other noise."""
        return {name: value for name, value in handler(self).items() if value is not None}

    @model_validator(mode="after")
    def _moves_are_its_bounds(self) -> Self:
        moves = self.moves
        if moves is None:
            return self
        if list(moves) != sorted(moves, reverse=True) or len(moves) > self.length:
            raise ValueError(
                f"moves {list(moves)} must fall, and be no more than the {self.length} integers"
            )
        bounds = (norm_of(moves), moves[0])
        if (self.sensitivity_grid, self.largest_grid) != bounds:
            raise ValueError(
                f"with moves {list(moves)} sensitivity_grid is {bounds[0]} and largest_grid "
                f"{bounds[1]}, not {self.sensitivity_grid} and {self.largest_grid}"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.shards and self.moves:
            raise ValueError("shards vote under Gaussian noise; leave moves out")
        if self.largest_grid**2 > self.largest_square:
            added = "shard's integers, times sqrt(2)" if self.shards else "record's integers"
            raise ValueError(
                f"largest_grid {self.largest_grid} exceeds the norm {self.sensitivity_grid} of all "
                f"of a {added} together"
            )
        if self.length * self.largest_grid**2 >= 2**63:
            raise ValueError(
                f"{self.length} integers up to {self.largest_grid} have squares beyond 2**63 "
                "together; use a coarser grid"
            )
        return self


@plan_mode
class SumsPlan(AgreedPlan):
    """Noised sums of records' integer vectors, a round each; the unit is a record.

    Args:
        version: 2; there was no plan of sums when training's was 1.
        openings: the rounds, in order; at most `MOST_DIFFERENT` of them differ from one another.

    Guarantees:
        Committed event of round k: a Gaussian with multiplier `openings[k-1].noise_multiplier` at
        least, or integer Laplace noise of the opening's scale, against users of the result and any
        `colluders` sites, when at least `minimum_survivors` contributions are opened
        (proofs/integer-noise.md, proofs/laplace.md).
    """

    version: Literal[2] = 2
    mode: Literal["record-sums"] = "record-sums"
    openings: tuple[OpeningTerms, ...] = Field(min_length=1, max_length=10**4)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if len(self._different) > MOST_DIFFERENT:
            raise ValueError(
                f"{len(self._different)} of the rounds differ from one another, at most "
                f"{MOST_DIFFERENT} may; give several rounds the same terms, or ask for fewer"
            )
        self.check_shares()
        if any(site.weight != 1 for site in self.sites):
            raise ValueError("sums count every record once: site weights must be 1")
        self.check_capacity()
        return self

    @property
    def contribution_plainly(self) -> str:
        """See `Plan.contribution_plainly`."""
        if any(opening.shards for opening in self.openings):
            return "the sum of its shards' bounded votes with its share of the noise"
        return "the sum of its records' bounded integers with its share of the noise"

    @property
    def unit(self) -> Unit:
        """A record."""
        return Unit.RECORD

    @property
    def rounds(self) -> int:
        """See `Plan.rounds`."""
        return len(self.openings)

    @property
    def upload_dimension(self) -> int:
        """See `Plan.upload_dimension`: of the longest round."""
        return max(opening.length for opening in self.openings)

    @cached_property
    def upload_bound(self) -> int:
        """See `Plan.upload_bound`."""
        return max(
            self.contribution_bound(site, number) + self.in_round(number).noise_bound
            for number in self._different
            for site in self.in_round(number).plan.sites
        )

    @cached_property
    def sum_bound(self) -> int:
        """See `Plan.sum_bound`: every site at its clamp, every share at its largest."""
        return max(
            self.in_round(number).noiseless_bound + self.in_round(number).noise_sum_bound
            for number in self._different
        )

    @cached_property
    def sum_tail(self) -> int:
        """See `Plan.sum_tail`: the same, with the tail of Gaussian noise's own sum."""
        draws = sum(opening.length for opening in self.openings)
        return max(
            self.in_round(number).noiseless_bound + self.in_round(number).noise_tail(draws)
            for number in self._different
        )

    @property
    def sensitivity_grid(self) -> int:
        """The largest norm of any round."""
        return max(opening.sensitivity_grid for opening in self.openings)

    def contribution_bound(self, site: SiteTerms, number: int) -> int:
        """Clamp of a site's noiseless sum, per coordinate, in grid units.

        Clamping never raises the sensitivity (proofs/sensitivity.md); with no more records than
        declared, and whatever shards add, nothing goes beyond it.

        Args:
            site: whose.
            number: of the round.
        """
        terms = self._terms(number)
        return (terms.shards or site.records) * terms.largest_grid

    def in_round(self, number: int) -> RoundOfSums:
        """See `Plan.in_round`; PlanError where the plan has no such round."""
        self._terms(number)
        return self._rounds[number - 1]

    def first_like(self, number: int) -> int:
        """See `Plan.first_like`."""
        self._terms(number)
        return self._first_likes[number - 1]

    def with_noise(self, noise_multiplier: Decimal) -> Self:
        """The same plan with every round's noise at this multiple of its own, validated afresh.

        Args:
            noise_multiplier: of the noise that the openings state; a round's share of the budget
                stays what it is.
        """
        openings = [
            {
                **opening.model_dump(),
                "noise_multiplier": sqrt_floor_decimal(
                    (Fraction(opening.noise_multiplier) * Fraction(noise_multiplier)) ** 2
                ),
            }
            for opening in self.openings
        ]
        return type(self).model_validate({**self.model_dump(), "openings": openings})

    @cached_property
    def _rounds(self) -> tuple[RoundOfSums, ...]:
        """One object a round, so that its noise is tabulated once."""
        numbers = range(1, self.rounds + 1)
        return tuple(RoundOfSums(self.of_epoch(number), number) for number in numbers)

    @property
    def _different(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self._first_likes))

    @cached_property
    def _first_likes(self) -> tuple[int, ...]:
        first: dict[tuple[OpeningTerms, tuple[str, ...]], int] = {}
        places = ((terms, self.epoch(n).names) for n, terms in enumerate(self.openings, 1))
        return tuple(first.setdefault(place, number) for number, place in enumerate(places, 1))

    def _terms(self, number: int) -> OpeningTerms:
        if not 1 <= number <= self.rounds:
            raise PlanError(f"the plan has rounds 1 to {self.rounds}, no round {number}")
        return self.openings[number - 1]


@dataclass(frozen=True, eq=False)
class RoundOfSums:
    """One round of a `SumsPlan`; the words are `RoundPlan`'s.

    Args:
        plan: the job's, of the sites that are there.
        number: of the round, from 1.
    """

    plan: SumsPlan
    number: int

    @property
    def terms(self) -> OpeningTerms:
        """What the round opens."""
        return self.plan._terms(self.number)

    @property
    def names(self) -> tuple[str, ...]:
        """See `RoundPlan.names`."""
        return self.plan.names

    @property
    def addends(self) -> int:
        """See `RoundPlan.addends`."""
        return self.plan.addends

    @property
    def minimum_survivors(self) -> int:
        """See `RoundPlan.minimum_survivors`."""
        return self.plan.minimum_survivors

    def is_cohort(self, names: Sequence[str]) -> bool:
        """See `RoundPlan.is_cohort`."""
        return self.plan.is_cohort(names)

    def is_quorum(self, names: Sequence[str]) -> bool:
        """See `RoundPlan.is_quorum`."""
        return self.plan.is_quorum(names)

    @property
    def dimension(self) -> int:
        """See `RoundPlan.dimension`."""
        return self.terms.state

    @property
    def compression(self) -> Compression | None:
        """None: every integer is sent."""
        return None

    def divisor(self, survivors: Sequence[str]) -> Fraction:
        """1: what a sum is divided by, the program says."""
        return Fraction(1)

    def step_per_grid(self, survivors: Sequence[str]) -> Fraction:
        """1, as `divisor`."""
        return Fraction(1)

    @cached_property
    def noise(self) -> IntegerGaussian | IntegerLaplace | None:
        """One site's share."""
        if self.terms.moves is not None and self.terms.noise_multiplier:
            return IntegerLaplace(Fraction(self.terms.scale), self.plan.counted_shares)
        return noise_share(
            noise_multiplier=self.terms.noise_multiplier,
            sensitivity_grid=self.terms.sensitivity_grid,
            shares=self.plan.counted_shares,
        )

    @property
    def noise_bound(self) -> int:
        """The largest noise of a share, in grid units."""
        return self.noise.bound if self.noise else 0

    @property
    def noiseless_bound(self) -> int:
        """What all the round's contributions reach at most, without noise."""
        return sum(self.plan.contribution_bound(site, self.number) for site in self.plan.sites)

    @property
    def noise_sum_bound(self) -> int:
        """The largest noise of all shares together."""
        return self.noise_bound * self.addends

    def noise_tail(self, draws: int) -> int:
        """What a full cohort's noise keeps to; in `draws` coordinates, but for 2^-64."""
        if isinstance(self.noise, IntegerGaussian):
            return self.noise.sum_tail(self.plan.addends, draws)
        return self.noise_sum_bound

    @property
    def noise_stddev_text(self) -> str:
        """See `RoundPlan.noise_stddev_text`."""
        return stddev_text(self.noise)

    def event_of_shares(self, site: str, shares: int) -> DpEvent:
        """The round's event for `site` against whoever does not know `shares` noise shares."""
        self.plan.site(site)
        if self.noise is None:
            return DpEvent.once(Mechanism(kind="non-private"))
        if isinstance(self.noise, IntegerLaplace):
            return self._laplace_event(self.noise, shares)
        stddev = self.noise.stddev_grid
        multiplier = sqrt_floor_decimal((stddev / self.terms.sensitivity_grid) ** 2 * shares)
        distance = total_distance(
            stddev_grid=stddev, dimension=self.terms.length, shares=shares, rounds=1
        )
        return DpEvent.once(Mechanism.of(Decimal(1), multiplier), distance=distance)

    def _laplace_event(self, noise: IntegerLaplace, shares: int) -> DpEvent:
        """Each integer that a record moves is released by itself."""
        distance = noise.total_distance(dimension=self.terms.length, shares=shares)
        mechanisms = (
            (LaplaceMechanism.of(move, self.terms.scale, shares, noise.shares), count)
            for move, count in Counter(self.terms.moves).items()
        )
        events = (DpEvent.once(mechanism, count=count) for mechanism, count in mechanisms)
        return reduce(add, events, DpEvent(distance=distance))

    def committed_event(self, site: str) -> DpEvent:
        """See `RoundPlan.committed_event`: as many shares unknown as are counted on."""
        return self.event_of_shares(site, self.plan.counted_shares)

    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        """See `RoundPlan.realised_event`: all surviving shares unknown."""
        self.plan.site(site)
        return self.event_of_shares(site, len(survivors)) if site in survivors else DpEvent()

    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """See `RoundPlan.observers`."""
        plan = self.plan
        plan.site(site)
        return shared_noise_observers(
            lambda shares: self.event_of_shares(site, shares),
            survivors=survivors,
            custody=plan.custody,
            colluders=plan.colluders,
            protects=plan.hides,
            strict=plan.strict,
            always=SHARDS_REST_ON if self.terms.shards else SUMS_REST_ON,
        )

    @property
    def charge_facts(self) -> dict[str, JsonValue]:
        """See `RoundPlan.charge_facts`."""
        plan = self.plan
        return {
            "mode": plan.mode,
            "minimum_survivors": plan.minimum_survivors,
            "length": self.terms.length,
            **({"moves": list(self.terms.moves)} if self.terms.moves else {}),
            **({"shards": self.terms.shards} if self.terms.shards else {}),
            "sensitivity_grid": self.terms.sensitivity_grid,
            "largest_grid": self.terms.largest_grid,
            "noise_stddev_grid": self.noise_stddev_text,
            "noise_bound_grid": self.noise_bound,
            "upload_bound_grid": plan.upload_bound,
            "sum_bound_grid": plan.sum_bound,
            "scheme": plan.scheme,
            "custody": plan.custody.value,
        }
