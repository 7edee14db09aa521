"""Delta of a few equal rounds from both sides, on a grid of losses: a check of the mirror.

It shares no step with contours: delta = 1 - e^epsilon + E_P[(e^(epsilon - L) - 1)_+], on a grid of
losses that ends where one round alone exceeds epsilon. From above every cell is split onto its two
ends, which keeps the mean of e^-L and spreads it, and (.)_+ is convex in it. From below two cells
are merged at a time, which is post-processing, so that the merged loss is a grid point or more.
Sums are exact integer convolutions, rounded one way. Both err by the square of the step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from flint import arb, fmpz, fmpz_poly

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import (
    ball,
    lower_end,
    upper_end,
    working_precision,
)
from privagg.privacy.certified.convolution import _masses_below
from privagg.privacy.certified.mechanism import Direction, Mechanism
from privagg.privacy.certified.search import DeltaBounds

BITS = 208
_MASS_BITS = 160
_MAX_CELLS = 200_000


@dataclass(frozen=True)
class Grid:
    """Losses step * first ... step * last, and `kept` points of the rounds' sum."""

    step: Fraction
    first: int
    last: int
    kept: int


@dataclass(frozen=True)
class _Cells:
    """Masses under P and under Q of the cells that end at each grid point; and beyond the last."""

    own: list[arb]
    other: list[arb]
    own_beyond: arb
    other_beyond: arb


class GridCurve:
    """Proven bounds of delta(eps) of equal subsampled rounds: the lower one by remove alone."""

    def __init__(self, mechanism: Mechanism, times: int, grid: Grid) -> None:
        """Compose. Raises: CertificationError for a grid too long to be composed."""
        if max(grid.last - grid.first, grid.kept) > _MAX_CELLS:
            raise CertificationError("the grid has too many cells; use a coarser step")
        self._grid, self._times = grid, times
        with working_precision(BITS):
            cells = _cells_of(mechanism, grid)
            most = -ball(1 - mechanism.sampling_rate).log()
            reach = min(
                lower_end(ball(grid.step * grid.last) - (times - 1) * most),
                grid.step * (times * grid.first + grid.kept - 1),
            )
            self._ceiling = reach
            self._above = _power(_split(cells, grid), times, grid.kept, up=True)
            merged = _merged(cells, grid)
            self._under = _power(merged, times, grid.kept, up=False)
            self._totals = _totals(merged, cells, grid, times)

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return proven bounds of delta(eps); the trivial ones beyond what the grid reaches."""
        if epsilon > self._ceiling:
            return DeltaBounds(lower=arb(0), upper=arb(1))
        growth, (own, other) = ball(epsilon).exp(), self._totals
        remove = 1 - growth + self._sum(self._above, epsilon)
        # add: E_Q[(1 - e^eps V)_+] is e^eps times the same sum at -eps.
        add = growth * self._sum(self._above, -epsilon)
        return DeltaBounds(
            lower=own - growth * other + self._sum(self._under, epsilon), upper=remove.max(add)
        )

    def _sum(self, masses: list[fmpz], epsilon: Fraction) -> arb:
        """Return the sum of p_i (exp(eps - i step) - 1) over i step < eps, as a ball."""
        step, start = self._grid.step, self._times * self._grid.first
        below = masses[: max(math.ceil(epsilon / step) - start, 0)]
        scale = (ball(epsilon) - start * ball(step)).exp()
        value = scale * _at(below, (-ball(step)).exp()) - sum(below, fmpz(0))
        return value / arb(2) ** _MASS_BITS


def _at(coefficients: Sequence[fmpz], point: arb) -> arb:
    total = arb(0)
    for coefficient in reversed(coefficients):
        total = total * point + coefficient
    return total


def _cells_of(mechanism: Mechanism, grid: Grid) -> _Cells:
    own, other = [arb(0)], [arb(0)]
    before = _masses_below(mechanism, Direction.REMOVE, ball(grid.step * grid.first))
    if not before[0] <= 0:
        raise CertificationError("the grid must begin below every loss")
    for index in range(grid.first + 1, grid.last + 1):
        here = _masses_below(mechanism, Direction.REMOVE, ball(grid.step * index))
        own.append(here[0] - before[0])
        other.append(here[1] - before[1])
        before = here
    return _Cells(own, other, 1 - before[0], 1 - before[1])


def _split(cells: _Cells, grid: Grid) -> fmpz_poly:
    """Return the masses split onto both ends of their cells, rounded up."""
    shrink = (-ball(grid.step)).exp()
    sizes = [arb(0)] * len(cells.own)
    near = (-grid.first * ball(grid.step)).exp()
    for place in range(1, len(sizes)):
        far = near * shrink
        up = (cells.own[place] * near - cells.other[place]) / (near - far)
        up = up.nonnegative_part()
        sizes[place - 1] += (cells.own[place] - up).nonnegative_part()
        sizes[place] += up
        near = far
    unit = arb(2) ** _MASS_BITS
    return fmpz_poly([max(math.ceil(upper_end(size * unit)), 0) for size in sizes])


def _merged(cells: _Cells, grid: Grid) -> fmpz_poly:
    """Return masses merged across grid points, rounded down.

    What a cell keeps back is merged with as much of the next cell as makes the mean of e^-L that
    of the grid point between them, or less; where the next cell is too light, the rest moves down.
    """
    shrink, unit = (-ball(grid.step)).exp(), arb(2) ** _MASS_BITS
    sizes, kept, excess = [arb(0)] * len(cells.own), arb(0), arb(0)
    point = (-grid.first * ball(grid.step)).exp()
    for place in range(1, len(sizes)):
        # excess: the Q-mass kept back beyond e^-point times its P-mass; lack: the next cell's.
        own, other = cells.own[place], cells.other[place]
        lack = (own * point - other).lower().nonnegative_part()
        if excess <= lack:
            share = (excess / lack).upper().min(arb(1)) if lack > 0 else arb(0)
            sizes[place - 1] += kept + share * own
        else:
            share, used = arb(1), (lack / excess).lower().nonnegative_part()
            sizes[place - 1] += used * kept + own
            sizes[max(place - 2, 0)] += (1 - used) * kept
        point *= shrink
        kept = (1 - share) * own
        excess = ((1 - share) * (other - own * point)).upper().nonnegative_part()
    sizes[-2] += kept
    return fmpz_poly([max(math.floor(lower_end(size * unit)), 0) for size in sizes])


def _totals(masses: fmpz_poly, cells: _Cells, grid: Grid, times: int) -> tuple[arb, arb]:
    """Return the total masses, under P and under Q, of what `_merged` left and what lies beyond."""
    unit, coefficients = arb(2) ** _MASS_BITS, masses.coeffs()
    own = arb(sum(coefficients, fmpz(0))) / unit + cells.own_beyond
    scale = (-grid.first * ball(grid.step)).exp() / unit
    other = scale * _at(coefficients, (-ball(grid.step)).exp()) + cells.other_beyond
    return own**times, other**times


def _power(masses: fmpz_poly, times: int, kept: int, *, up: bool) -> list[fmpz]:
    """Return the first `kept` masses of `times` rounds together, rounded one way."""
    result, base = None, fmpz_poly(masses.coeffs()[:kept])

    def product(one: fmpz_poly, two: fmpz_poly) -> fmpz_poly:
        coefficients = (one * two).coeffs()[:kept]
        if up:
            return fmpz_poly([-(-c >> _MASS_BITS) for c in coefficients])
        return fmpz_poly([c >> _MASS_BITS for c in coefficients])

    while True:
        if times & 1:
            result = base if result is None else product(result, base)
        times >>= 1
        if not times:
            break
        base = product(base, base)
    return [] if result is None else list(result.coeffs())
