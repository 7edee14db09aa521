"""Fewer and coarser integers in an upload: the plan's terms, and what they do to sensitivity.

The plan states; `privagg.encoding` enforces. Rounding is the only step here that can move a unit
further than the clip norm, and by how much is a whole number that every party computes alike: only
integer arithmetic is used, so that no platform's logarithm can make two plans of one.
"""

from __future__ import annotations

from enum import Enum
from math import isqrt
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LARGEST_CLIP_NORM_GRID = 2**30
"""S of a rounded update at most; its rounded norm still fits the exact check in 64 bits."""

_LN_4 = 1_386_295
_TAIL = 27_631_022
"""In millionths, rounded up: ln 4, and 2 ln(1 / p) for p = 1e-6."""

_MILLION = 10**6


class Rounding(str, Enum):
    """How a clipped coordinate in grid units becomes an integer."""

    TRUNCATE = "truncate"
    NEAREST = "nearest"
    STOCHASTIC = "stochastic"


class Compression(BaseModel):
    """What is done to an update between clip and noise, the same at every site.

    In this order: mask, rotation, clip, rounding, clamp; so the clip acts on what is sent. At
    record level with shared noise, records are clipped first and only their exact sum is masked.
    Nothing here depends on private data: which coordinates are sent and how they are rotated
    follows from public facts of the round, so sums line up and no choice is a release of its own.

    Args:
        bits: b; a coordinate before weight and noise fits b bits, sign included. None: no clamp
            beyond what the norm gives.
        rounding: `stochastic` is right on average, `nearest` moves a coordinate by at most half a
            grid unit, `truncate` towards zero by less than one.
        rotation: spread the update evenly over its coordinates by a public random rotation first.
        kept: k, coordinates sent in a round; None sends all.
        mask: `random-k`: k coordinates, uniformly; `top-k`: the k - k // 2 largest of the round's
            model, which is released already, and k // 2 of the others, uniformly. Decoding weighs
            each coordinate by one over its probability, so both are right on average over the
            public draw, as far as the clip leaves the update alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: int | None = Field(default=None, ge=2, le=31)
    rounding: Rounding = Rounding.TRUNCATE
    rotation: bool = False
    kept: int | None = Field(default=None, ge=1)
    mask: Literal["random-k", "top-k"] = "random-k"

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.mask == "top-k" and (self.kept is None or self.kept < 2):
            raise ValueError("mask 'top-k' needs `keep`: a part of the coordinates, at least 2")
        return self

    def kept_of(self, dimension: int) -> int:
        """k of an update of `dimension` coordinates."""
        return dimension if self.kept is None else self.kept

    def upload_dimension(self, dimension: int) -> int:
        """n, integers in an upload: k, or the next power of two where they are rotated."""
        kept = self.kept_of(dimension)
        return 1 << (kept - 1).bit_length() if self.rotation else kept

    @property
    def largest_coordinate(self) -> int | None:
        """The clamp of b bits, 2^(b-1) - 1; None without one."""
        return None if self.bits is None else 2 ** (self.bits - 1) - 1

    def finest_grid(self, dimension: int) -> int:
        """S, the most steps in the clip norm for which b bits hold a coordinate.

        Without rotation one coordinate may hold the whole norm: 2^(b-1) - 1. After a rotation of n
        coordinates each is sub-Gaussian, and none exceeds S sqrt(2 ln(2 n / p) / n) but with
        probability p = 1e-6 over the signs; the clamp that then acts costs accuracy only.

        Args:
            dimension: d.

        Raises:
            ValueError: without bits.
        """
        if self.largest_coordinate is None:
            raise ValueError("without bits any grid will do")
        steps, n = self.largest_coordinate, self.upload_dimension(dimension)
        if self.rotation:
            spread = n.bit_length() * _LN_4 + _TAIL  # 2 ln(2 n / p), n being a power of two
            steps = max(steps, isqrt(steps**2 * n * _MILLION // spread))
        return min(max(2, steps), LARGEST_CLIP_NORM_GRID)


def norm_squared_bound(rounding: Rounding, steps: int, n: int) -> int:
    """M: what an encoder must keep the sum of squares of a rounded update within.

    - truncate: S^2;
    - nearest: min((S + sqrt(n)/2)^2, (2 S)^2), which rounding never exceeds;
    - stochastic: min((S + sqrt(n))^2, S^2 + n/4 + S + sqrt(n)/2), which a draw exceeds with
      probability at most e^(-1/2); such draws are repeated.

    As it is enforced exactly, any number would be a valid bound; a small one costs repetitions.

    Args:
        rounding: the rule.
        steps: S, grid units in the clip norm.
        n: coordinates that are rounded.

    Returns:
        M in grid units squared, rounded up; the same integer everywhere.

    Source: Kairouz, Liu & Steinke 2021, "The distributed discrete Gaussian mechanism for federated
        learning with secure aggregation" (conditional randomised rounding, with granularity 1
        and beta = e^(-1/2), for which sqrt(2 ln(1/beta)) = 1).
    """
    if rounding is Rounding.TRUNCATE:
        return steps**2
    if rounding is Rounding.NEAREST:
        # (S + sqrt(n)/2)^2 = S^2 + S sqrt(n) + n/4
        return min(_ceil_quarter(4 * steps**2 + 2 * _root(4 * n * steps**2) + n), 4 * steps**2)
    worst = steps**2 + _root(4 * n * steps**2) + n
    likely = _ceil_quarter(4 * steps**2 + n + 4 * steps + _root(4 * n))
    return min(worst, likely)


def rounded_sensitivity(rounding: Rounding, steps: int, n: int) -> int:
    """sqrt(M), rounded up: L2 sensitivity in grid units of a unit whose update is rounded.

    Args:
        rounding: the rule.
        steps: S, grid units in the clip norm.
        n: coordinates that are rounded.
    """
    return _root(norm_squared_bound(rounding, steps, n))


def _root(value: int) -> int:
    """The square root, rounded up."""
    root = isqrt(value)
    return root if root**2 == value else root + 1


def _ceil_quarter(value: int) -> int:
    return -(-value // 4)
