"""What is composed: one round's mechanism, how often it ran, and the interval that comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from enum import Enum
from fractions import Fraction

from privagg.errors import PrivacyError, UnknownEventError

Rational = Fraction | int | str | Decimal


def rational(value: Rational, name: str) -> Fraction:
    """Return `value` as the exact rational it denotes.

    Args:
        value: Fraction, int, Decimal or a decimal or fraction string ("0.01", "1e-5", "1/3").
        name: what the value is called in the error message.

    Raises:
        PrivacyError: for floats (0.1 is not one tenth: write "0.1"), NaN, infinities and others.
    """
    if isinstance(value, bool) or not isinstance(value, (Fraction, int, str, Decimal)):
        raise PrivacyError(
            f"{name} must be an exact rational (Fraction, int, Decimal or decimal string), "
            f"not {type(value).__name__} {value!r}; write it as a string such as '0.1'"
        )
    try:
        return Fraction(value)
    except (ValueError, OverflowError, ZeroDivisionError) as exc:
        raise PrivacyError(f"{name}: {value!r} is not a finite number") from exc


class Direction(Enum):
    """Which neighbour lacks the record; a guarantee must hold for both.

    Each direction has its own dominating pair of distributions, to which a round is reduced.

    Source: Zhu, Dong & Wang, "Optimal Accounting of Differential Privacy via Characteristic
        Function", AISTATS 2022; here proofs/certified-epsilon.md, section 'Dominating pairs'.
    """

    REMOVE = "remove"
    ADD = "add"


@dataclass(frozen=True, order=True)
class Mechanism:
    """One round: Gaussian noise on a Poisson-sampled cohort, add-or-remove-one neighbours.

    Args:
        sampling_rate: probability q in (0, 1] with which each record takes part, independently.
        noise_multiplier: noise standard deviation over L2 sensitivity, positive.

    Guarantees: both fields are exact rationals (strings, ints and Decimals are parsed exactly).
    Raises: PrivacyError outside those ranges.
    """

    sampling_rate: Fraction
    noise_multiplier: Fraction

    def __post_init__(self) -> None:
        rate = rational(self.sampling_rate, "sampling_rate")
        noise = rational(self.noise_multiplier, "noise_multiplier")
        if not 0 < rate <= 1:
            raise PrivacyError(f"sampling_rate must lie in (0, 1], not {rate}")
        if noise <= 0:
            raise PrivacyError(f"noise_multiplier must be positive, not {noise}")
        object.__setattr__(self, "sampling_rate", rate)
        object.__setattr__(self, "noise_multiplier", noise)

    @property
    def is_gaussian(self) -> bool:
        """True where every record takes part, so that the loss is exactly Gaussian."""
        return self.sampling_rate == 1


Composition = Mapping[Mechanism, int]
Rounds = tuple[tuple[Mechanism, int], ...]


def normalised(composition: Composition) -> Rounds:
    """Return the composition as sorted (mechanism, rounds) pairs without empty entries.

    Raises:
        UnknownEventError: for a key that is not a `Mechanism`.
        PrivacyError: for a count that is not a non-negative int.
    """
    rounds = []
    for mechanism, count in composition.items():
        if not isinstance(mechanism, Mechanism):
            raise UnknownEventError(
                f"no proof is known for the event {mechanism!r}; only Gaussian and "
                "Poisson-subsampled Gaussian rounds (Mechanism) can be certified"
            )
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise PrivacyError(f"the number of rounds must be an int >= 0, not {count!r}")
        if count:
            rounds.append((mechanism, count))
    # In one order, so that equal compositions get equal bounds, however they were put together.
    return tuple(sorted(rounds))


def checked_delta(delta: Rational) -> Fraction:
    """Return delta as an exact rational inside (0, 1); PrivacyError otherwise."""
    value = rational(delta, "delta")
    if not 0 < value < 1:
        raise PrivacyError(f"delta must lie strictly between 0 and 1, not {value}")
    return value


def checked_epsilon(epsilon: Rational) -> Fraction:
    """Return epsilon as an exact non-negative rational; PrivacyError otherwise."""
    value = rational(epsilon, "epsilon")
    if value < 0:
        raise PrivacyError(f"epsilon must be at least 0, not {value}")
    return value


def checked_distance(distance: Rational) -> Fraction:
    """Return the total-variation distance as an exact rational in [0, 1); else PrivacyError."""
    value = rational(distance, "extra_distance")
    if not 0 <= value < 1:
        raise PrivacyError(f"extra_distance must lie in [0, 1), not {value}")
    return value


@dataclass(frozen=True)
class Interval:
    """A proven enclosure: the true value lies between `lower` and `upper`, both exact rationals.

    Attributes:
        lower: proven lower end.
        upper: proven upper end; the one to report, rounded up.
        method: what proved the upper end: 'contour', 'analytic-gaussian', 'single-round',
            'participations', 'mirror', 'convolution', 'renyi', 'unsampled', 'largest-loss' or
            'trivial'.
        lower_method: what proved the lower end, from the same names, 'worst-round' or
            'laplace-tests'.
        precision_bits: working precision of the ball arithmetic behind the upper end.
    """

    lower: Fraction
    upper: Fraction
    method: str
    lower_method: str
    precision_bits: int

    def __post_init__(self) -> None:
        if self.lower > self.upper:
            raise PrivacyError(
                f"contradictory bounds: lower {float(self.lower)} ({self.lower_method}) above "
                f"upper {float(self.upper)} ({self.method}); report this as a defect"
            )

    @property
    def relative_width(self) -> float:
        """(upper - lower) / upper, for display; 0 where the value is proven to be 0."""
        return float((self.upper - self.lower) / self.upper) if self.upper else 0.0


def _rounded(value: Fraction, digits: int, rounding: str) -> Decimal:
    if digits < 1:
        raise PrivacyError(f"digits must be at least 1, not {digits}")
    # A small delta leaves the default context's exponents, and would be rounded to 0 there.
    context = Context(prec=digits, rounding=rounding, Emax=10**9, Emin=-(10**9))
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))


def round_up(value: Fraction, digits: int) -> Decimal:
    """Return the smallest decimal of `digits` significant digits that is >= value."""
    return _rounded(value, digits, ROUND_CEILING)


def round_down(value: Fraction, digits: int) -> Decimal:
    """Return the largest decimal of `digits` significant digits that is <= value."""
    return _rounded(value, digits, ROUND_FLOOR)
