"""What a round does to privacy, as data: plans emit events, ledgers store them, accountants read.

An event describes; only an accountant interprets. The meaning of a stored event never changes, the
set of kinds is closed, and every number is an exact decimal, so that two parties (or one party and
an auditor ten years later) compute on the same value. Nothing in an event names code to import.
Events are stored and signed, so they evolve in one way only: a new mechanism is a new kind, which
an accountant without a proof for it refuses.
"""

from __future__ import annotations

from collections import Counter
from decimal import ROUND_CEILING, Context, Decimal
from math import gcd
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

_UPWARD = Context(prec=60, rounding=ROUND_CEILING)
"""Distances are upper bounds: whatever rounding their sums need goes up."""

_EXACT = Context(prec=1000)
"""Removes trailing zeros and rounds nothing that a field accepts."""


def add_upward(left: Decimal, right: Decimal) -> Decimal:
    """A sum of two distances, rounded up where it is rounded."""
    return _UPWARD.add(left, right)


Adjacency = Literal["add-or-remove-one"]
"""Neighbouring data sets differ by one whole unit present or absent."""


def plain_decimal(value: Decimal) -> str:
    """A decimal in plain notation without superfluous zeros: equal values, equal strings."""
    if not value.is_finite():
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


MAX_DECIMAL_DIGITS = 2000
"""Places of a decimal in plain notation, most: distances have a thousand, nothing has more."""


def require_writable(value: Decimal) -> Decimal:
    """`value` where plain notation holds it: twelve letters of `1E+99999999999` are 100 GB there.

    Raises:
        ValueError: a finite number of more than `MAX_DECIMAL_DIGITS` places.
    """
    if value.is_finite() and value.adjusted() >= MAX_DECIMAL_DIGITS:
        raise ValueError(f"a decimal has at most {MAX_DECIMAL_DIGITS} places")
    if value.is_finite() and int(value.as_tuple().exponent) < -MAX_DECIMAL_DIGITS:
        raise ValueError(f"a decimal has at most {MAX_DECIMAL_DIGITS} places")
    return value


ExactDecimal = Annotated[
    Decimal,
    Field(max_digits=MAX_DECIMAL_DIGITS),
    PlainSerializer(plain_decimal, return_type=str),
]
"""A decimal kept exactly: JSON carries it as a string in plain notation, one for each value."""

ExactOrInfinite = Annotated[
    Decimal,
    Field(allow_inf_nan=True),
    AfterValidator(require_writable),
    PlainSerializer(plain_decimal, return_type=str),
]
"""The same with `Infinity`: an epsilon where nothing is promised."""


class Mechanism(BaseModel):
    """One release of a (Poisson-subsampled) Gaussian mechanism, or one without any guarantee.

    Args:
        kind: `gaussian` (everybody takes part), `poisson-gaussian` (each unit takes part with
            probability `sampling_rate`, independently, in secret) or `non-private`.
        sampling_rate: q in (0, 1]; 1 for `gaussian`; an upper bound of the true rate.
        noise_multiplier: noise standard deviation over L2 sensitivity; a lower bound of the truth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    kind: Literal["gaussian", "poisson-gaussian", "non-private"]
    sampling_rate: ExactDecimal = Field(default=Decimal(1), gt=0, le=1, max_digits=60)
    noise_multiplier: ExactDecimal = Field(default=Decimal(0), ge=0, max_digits=60)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "gaussian" and self.sampling_rate != 1:
            raise ValueError("a `gaussian` mechanism has sampling_rate 1; use `poisson-gaussian`")
        if self.kind != "non-private" and self.noise_multiplier <= 0:
            raise ValueError(
                f"noise_multiplier must be positive, got {self.noise_multiplier}; "
                "a release without noise is the kind `non-private`"
            )
        return self

    @classmethod
    def of(cls, sampling_rate: Decimal, noise_multiplier: Decimal) -> Mechanism:
        """The mechanism of this rate and multiplier: Gaussian at rate 1, non-private at noise 0."""
        if noise_multiplier == 0:
            return cls(kind="non-private")
        if sampling_rate == 1:
            return cls(kind="gaussian", noise_multiplier=noise_multiplier.normalize(_EXACT))
        return cls(
            kind="poisson-gaussian",
            sampling_rate=sampling_rate.normalize(_EXACT),
            noise_multiplier=noise_multiplier.normalize(_EXACT),
        )

    @property
    def order(self) -> tuple[str, Decimal, Decimal]:
        """Where it stands among an event's mechanisms."""
        return (self.kind, self.sampling_rate, self.noise_multiplier)


LARGEST_MOVE = 4096
"""Of a coordinate under integer Laplace noise: further, noise of any scale here hides little."""


class LaplaceMechanism(BaseModel):
    """One coordinate released with some shares of integer Laplace noise; everybody takes part.

    What stays unknown of the noise is X - Y, X and Y independent and negative binomial of shape
    shares / shared_by with P(X = 0) = (1 - exp(-1/scale))^shape. With all `shared_by` shares that
    is integer Laplace noise, P(k) proportional to exp(-|k| / scale).

    Args:
        kind: `integer-laplace`.
        shift: the most that a unit moves the coordinate by, an integer; of a vector each coordinate
            that a unit moves is a mechanism of its own.
        scale: in the coordinate's units.
        shares: how many shares of the noise the observer does not know.
        shared_by: how many make integer Laplace noise of this scale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    kind: Literal["integer-laplace"] = "integer-laplace"
    shift: int = Field(ge=1, le=LARGEST_MOVE)
    scale: ExactDecimal = Field(ge=Decimal("0.03125"), le=1024, max_digits=60)
    shares: int = Field(default=1, ge=1, le=10**6)
    shared_by: int = Field(default=1, ge=1, le=10**6)

    @classmethod
    def of(cls, shift: int, scale: Decimal, shares: int, shared_by: int) -> LaplaceMechanism:
        """The mechanism with shape and scale in their lowest terms: equal laws, equal events.

        Args:
            shift, scale, shares, shared_by: as for the class.
        """
        common = gcd(shares, shared_by)
        return cls(
            shift=shift,
            scale=scale.normalize(_EXACT),
            shares=shares // common,
            shared_by=shared_by // common,
        )

    @property
    def order(self) -> tuple[str, int, Decimal, int, int]:
        """Where it stands among an event's mechanisms."""
        return (self.kind, self.shift, self.scale, self.shares, self.shared_by)


AnyMechanism = Annotated[Mechanism | LaplaceMechanism, Field(discriminator="kind")]
"""The closed set of kinds."""


class Term(BaseModel):
    """A mechanism run `count` times."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mechanism: AnyMechanism
    """What runs."""
    count: int = Field(ge=1, le=10**12)
    """How often."""


class DpEvent(BaseModel):
    """A composition of mechanisms on one privacy unit, adaptively chosen.

    Args:
        terms: the mechanisms with their counts, each mechanism once, in canonical order.
        distance: total-variation distance between what really runs (integer sampler, tails,
            aliases) and the ideal mechanisms, summed over all terms. An accountant folds it in as
            delta(eps) + (1 + e^eps) * distance.
        adjacency: the neighbouring relation; today add-or-remove-one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    terms: tuple[Term, ...] = ()
    distance: ExactDecimal = Field(default=Decimal(0), ge=0)
    adjacency: Adjacency = "add-or-remove-one"

    @classmethod
    def once(
        cls, mechanism: AnyMechanism, *, distance: Decimal = Decimal(0), count: int = 1
    ) -> Self:
        """One mechanism, run `count` times.

        Args:
            mechanism: the ideal one.
            distance: total-variation distance from it, over all `count` runs together.
            count: 1 to 10^12.
        """
        return cls(terms=(Term(mechanism=mechanism, count=count),), distance=distance)

    def __add__(self, other: DpEvent) -> DpEvent:
        """Sequential composition: counts of equal mechanisms add, distances add."""
        counts: Counter[AnyMechanism] = Counter()
        for term in (*self.terms, *other.terms):
            counts[term.mechanism] += term.count
        ordered = sorted(counts, key=lambda mechanism: mechanism.order)
        return DpEvent(
            terms=tuple(Term(mechanism=m, count=counts[m]) for m in ordered),
            distance=add_upward(self.distance, other.distance),
        )

    def repeated(self, times: int) -> DpEvent:
        """This event composed with itself `times` times (0 gives the empty event)."""
        if times == 0:
            return DpEvent()
        return DpEvent(
            terms=tuple(t.model_copy(update={"count": t.count * times}) for t in self.terms),
            distance=_UPWARD.multiply(self.distance, Decimal(times)),
        )

    @property
    def is_private(self) -> bool:
        """False where a term carries no guarantee at all (epsilon is infinite)."""
        return all(term.mechanism.kind != "non-private" for term in self.terms)
