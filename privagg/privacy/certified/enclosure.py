"""A few equal rounds on a grid of losses: delta from above and from below by exact integers.

From above every cell of one round's loss is split onto its two ends; from below neighbouring
cells are merged so that the merged loss is a grid point. Both err by the square of the step. Only
losses below epsilon are needed: delta = 1 - e^epsilon + E[(e^(epsilon - L) - 1)_+], so the grid
ends where one round's loss alone exceeds epsilon. Argument in proofs/certified-epsilon.md, section
'From both sides'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from flint import arb, fmpz, fmpz_poly

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import (
    as_dyadic,
    ball,
    lower_end,
    upper_end,
    working_precision,
)
from privagg.privacy.certified.convolution import _masses_below
from privagg.privacy.certified.mechanism import Direction, Mechanism
from privagg.privacy.certified.search import (
    DeltaBounds,
    folded,
    lower_epsilon,
    upper_epsilon,
)

METHOD = "enclosure"

BITS = 208
_MASS_BITS = 160
_MAX_CELLS = 200_000
_MAX_FIRST_CELLS = 20_000


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


class EnclosureCurve:
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


_FIRST_CELLS = 400
_AIMS = 24
_MOST_WORK = 4_000_000
_RELATIVE, _ABSOLUTE = 3e-7, 5e-10


def enclosed_epsilon(
    mechanism: Mechanism, times: int, delta: Fraction, distance: Fraction, aim: float
) -> tuple[Fraction, Fraction]:
    """Return proven (lower, upper) epsilon of both directions, first aimed at a float.

    A coarse grid finds epsilon, and how fast its width falls tells how fine the last one must be.

    Raises: CertificationError where no affordable grid gives an upper end.
    """
    low, high = _aimed(mechanism, times, delta, distance, aim)
    cells = _FIRST_CELLS
    for _ in range(3):
        width, wanted = float(high - low), max(_RELATIVE * float(high), _ABSOLUTE)
        if width <= wanted or high == 0:
            break
        # The width falls with the square of the step.
        finer = math.ceil(1.2 * cells * math.sqrt(width / wanted))
        reach = float(high) * 1.001
        affordable = _affordable(mechanism, times, reach)
        cells = min(finer, affordable, 40 * cells)
        found = _ends(mechanism, times, delta, distance, reach, cells)
        low, high = max(low, found[0]), min(high, found[1])
        if cells == affordable:
            break
    return low, high


def _aimed(
    mechanism: Mechanism, times: int, delta: Fraction, distance: Fraction, aim: float
) -> tuple[Fraction, Fraction]:
    """Return ends from coarse grids, aimed higher or lower until the answer lies near the aim."""
    ends: tuple[Fraction, Fraction] | None = None
    for _ in range(_AIMS):
        try:
            found = _ends(mechanism, times, delta, distance, aim, _FIRST_CELLS)
        except _TooLowError:
            if ends is not None:
                break
            aim *= 2
            continue
        if ends is not None:
            found = max(found[0], ends[0]), min(found[1], ends[1])
        ends = found
        if float(found[1]) > 0.5 * aim or float(found[1]) < _ABSOLUTE:
            break
        aim = max(1.1 * float(found[1]), 1e-12)
    if ends is None:
        raise CertificationError("no grid reached epsilon")
    return ends


class _TooLowError(CertificationError):
    """The grid ends below epsilon."""


def _reach(mechanism: Mechanism, times: int, aim: float) -> tuple[float, float]:
    lowest = math.log1p(-float(mechanism.sampling_rate))
    return lowest, aim - (times - 1) * lowest


def _affordable(mechanism: Mechanism, times: int, aim: float) -> int:
    """Return cells per epsilon such that composing them costs a few seconds at most."""
    lowest, highest = _reach(mechanism, times, aim)
    products = 2 * math.log2(times) + 2
    return max(math.floor(_MOST_WORK / ((highest - lowest) / aim * (60 + 6 * products))), 50)


def _ends(
    mechanism: Mechanism, times: int, delta: Fraction, distance: Fraction, aim: float, cells: int
) -> tuple[Fraction, Fraction]:
    grid = _grid(mechanism, times, aim, as_dyadic(aim / cells))
    if cells == _FIRST_CELLS and grid.kept > _MAX_FIRST_CELLS:
        raise CertificationError("the losses spread too far below epsilon for a grid")
    curve = EnclosureCurve(mechanism, times, grid)
    with working_precision(BITS):
        slope = -3.0 / aim
        end = curve.bounds(as_dyadic(aim))
        if not folded(end.upper, as_dyadic(aim), distance) <= ball(delta):
            raise _TooLowError(f"epsilon lies above {aim:.6g}")
        upper = upper_epsilon(curve, delta, guess=aim / 1.001, slope=slope, extra_distance=distance)
        return lower_epsilon(curve, delta, guess=float(upper), slope=slope), upper


def _grid(mechanism: Mechanism, times: int, aim: float, step: Fraction) -> Grid:
    """Return the grid from below every loss to where one loss alone exceeds the aim."""
    with working_precision(BITS):
        lowest = lower_end(ball(1 - mechanism.sampling_rate).log())
    first = math.floor(lowest / step) - 1
    last = math.ceil((Fraction(aim) - (times - 1) * lowest) / step) + 1
    return Grid(step, first, last, math.ceil(Fraction(aim) / step) - times * first + 2)
