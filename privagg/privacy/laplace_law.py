"""The law of integer Laplace noise, of its shares and of their sums, in ball arithmetic.

Integer Laplace noise of scale t has P(k) proportional to a^|k|, a = exp(-1/t): the difference of
two independent geometric variates. A geometric variate is the sum of n independent Pólya variates
(negative binomial of shape 1/n), so the noise can be shared out among n parties exactly: each adds
the difference of two Pólya variates, and m of the n shares add up to the difference of two negative
binomial variates of shape s = m/n. That law is meant here, for any s > 0.

Source: derived in `proofs/laplace.md`. Shares: Ács & Castelluccia 2011, "I have a DREAM!", and
Goryczka & Xiong 2015, "A Comprehensive Comparison of Multiparty Secure Additions with Differential
Privacy".
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, log1p

from flint import arb, ctx, fmpq

from privagg.errors import NoiseError

SMALLEST_SCALE = Fraction(1, 32)
"""Of what is tabulated, in grid units: less noise hides nothing."""

LARGEST_SCALE = Fraction(1024)
"""More noise than this has no table."""

LARGEST_SHAPE = 16
"""More shares are a post-processing of so many, by adding what is left of them."""

_NARROWING = 0.36
"""A little above log(2) / 2: steps, in units of the scale, that gain a bit of precision."""


@dataclass(frozen=True, order=True)
class LaplaceLaw:
    """X - Y for independent X, Y with P(X = j) = Γ(j + s) / (Γ(s) j!) · (1 - a)^s a^j.

    Args:
        scale: t in grid units, exact, from 1/32 to 1024; a = exp(-1/t).
        shape: s, exact, above 0 and at most 16; 1 is the two-sided geometric law itself.

    Raises:
        NoiseError: outside those ranges.
    """

    scale: Fraction
    shape: Fraction

    def __post_init__(self) -> None:
        if not SMALLEST_SCALE <= self.scale <= LARGEST_SCALE:
            raise NoiseError(
                f"a scale of {float(self.scale):.6g} grid units lies outside {SMALLEST_SCALE} to "
                f"{LARGEST_SCALE}, where integer Laplace noise is tabulated; take Gaussian noise"
            )
        if not 0 < self.shape <= LARGEST_SHAPE:
            raise NoiseError(f"shape must lie in (0, {LARGEST_SHAPE}], got {self.shape}")

    @property
    def decay(self) -> arb:
        """a, at the working precision."""
        return (-1 / _ball(self.scale)).exp()

    @property
    def variance(self) -> arb:
        """2 s a / (1 - a)^2, at the working precision."""
        a = self.decay
        return 2 * _ball(self.shape) * a / (1 - a) ** 2

    def reach(self, level: float) -> int:
        """The least r >= 0 for which |X - Y| <= r is proven to have probability `level`.

        Args:
            level: in (0, 1).

        Raises:
            NoiseError: a level so near 1 that it lies beyond what is tabulated.
        """
        return _reach(self, level)

    def ratios(self, count: int) -> list[arb]:
        """P(k) / P(k - 1) for k = 1 ... count, enclosed to about 2^-precision.

        r_k = (k - 1 + s) / (c k - (k + 1 - s) r_(k+1)), c = a + 1/a, from far out, where r_k lies
        between a and a (k - 1 + s) / k, downwards: a step narrows the enclosure by about a^2. Both
        ends are followed in integers of 2^-bits, rounded outwards; a step gains too little for the
        radius of a ball, which has 30 bits.
        """
        bits, (m, n) = ctx.prec + 64, self.shape.as_integer_ratio()
        with ctx.workprec(bits + 64):
            a, unit = self.decay, arb(2) ** bits
            least, most = integer_ends((a + 1 / a) * unit)
            last = count + ceil(_NARROWING * self.scale * ctx.prec) + 8
            low, high = integer_ends(a.union(a * (1 + (_ball(self.shape) - 1) / (last + 1))) * unit)
        found, unit = [], 1 / arb(2) ** (bits + 1)
        for k in range(last, 0, -1):
            share, reach = ((k - 1) * n + m) << 2 * bits, (k + 1) * n - m
            # The quotient grows with r_(k+1) while its factor is positive, else it falls.
            near, far = (low, high) if reach >= 0 else (high, low)
            low = share // (most * k * n - reach * near)
            high = -(-share // (least * k * n - reach * far))
            if not 0 <= low <= high:
                raise NoiseError(f"{count} masses of {self} are not enclosed at this precision")
            if k <= count:
                found.append(arb(low + high, high - low) * unit)
        return found[::-1]

    def masses(self, count: int) -> tuple[list[arb], arb]:
        """P(0) ... P(count), and what lies beyond on both sides together.

        Args:
            count: at least 0; the further out it lies, the sharper are the balls.

        Returns:
            Balls at the working precision; of the last the upper end counts.

        Raises:
            NoiseError: `count` is too small to bound what lies beyond.
        """
        ratios = self.ratios(count)
        weights = [arb(1)]
        for ratio in ratios:
            weights.append(weights[-1] * ratio)
        # No ratio further out exceeds a, or this where the shape is above 1.
        most = self.decay * (1 + _ball(max(self.shape - 1, Fraction(0)) / (count + 1)))
        if not most < 1:
            raise NoiseError(f"{count} is too near the middle to bound what lies beyond")
        beyond = 2 * weights[-1] * most / (1 - most)
        inside = 2 * sum(weights[1:], arb(0)) + 1
        half = beyond / 2
        whole = inside + half + arb(0, half.abs_upper())
        return [weight / whole for weight in weights], beyond / whole


@lru_cache(maxsize=1024)
def _reach(law: LaplaceLaw, level: float) -> int:
    depth = Fraction(8 - log1p(-level)) + 3 * law.shape
    with ctx.workprec(64):
        masses, _ = law.masses(ceil(law.scale * depth) + 1)
        inside = -masses[0]
        for r, mass in enumerate(masses):
            inside += 2 * mass
            if inside >= level:
                return r
    raise NoiseError(f"{law} is not known to the level {level}")


def _ball(value: Fraction) -> arb:
    return arb(fmpq(value.numerator, value.denominator))


def integer_ends(value: arb) -> tuple[int, int]:
    """Integers below and above everything in a ball.

    Raises:
        NoiseError: the ball has no ends.
    """
    low, high = value.lower().floor().unique_fmpz(), value.upper().ceil().unique_fmpz()
    if low is None or high is None:
        raise NoiseError("a bound of integer Laplace noise is not finite at this precision")
    return int(low), int(high)
