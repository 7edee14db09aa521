"""An upper bound of delta by exact integer convolution: a second method that shares no step with
the contour.

Every cell of one round's loss is split onto the two ends of a grid (a mean-preserving spread of
the likelihood ratio, hence a dominating pair; Doroshenko, Ghazi, Kamath, Kumar & Manurangsi 2022,
"Connect the Dots"), masses are rounded up to integer multiples of 2^-bits, and the composition is
a product of integer polynomials. Masses trimmed above count as failures, masses trimmed below are
moved up, and every rounding goes up, so the sum can only exceed the truth. Argument in
proofs/certified-epsilon.md, section 'Convolution'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from flint import arb, fmpz_poly

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import (
    as_dyadic,
    ball,
    lower_end,
    normal_cdf,
    upper_end,
    working_precision,
)
from privagg.privacy.certified.laplace import LaplaceRound
from privagg.privacy.certified.mechanism import Direction, Mechanism
from privagg.privacy.certified.search import DeltaBounds, upper_epsilon
from privagg.privacy.certified.work import charge

METHOD = "convolution"

AnyRound = Mechanism | LaplaceRound
AnyRounds = tuple[tuple[AnyRound, int], ...]

_BITS = 224
_MAX_CELLS = 400_000
# Units of work for each cell: to split it, to convolve it, to look at one epsilon.
_SPLITTING, _CONVOLVING, _LOOKING = 40.0, 2.5, 0.6


@dataclass(frozen=True)
class Resolution:
    """How finely losses are resolved.

    Args:
        step: grid step of the loss, positive; the error falls with its square.
        mass_bits: masses are integer multiples of 2^-mass_bits.
        negligible_bits: at most about 2^-negligible_bits of mass is trimmed at a time.
    """

    step: Fraction
    mass_bits: int = 160
    negligible_bits: int = 90

    @property
    def negligible(self) -> int:
        """The same in units of mass."""
        return 1 << (self.mass_bits - self.negligible_bits)


@dataclass(frozen=True)
class Losses:
    """Integer masses of losses start * step, (start + 1) * step, ... and of an infinite loss.

    Args:
        start: the first loss, in steps.
        masses: in units of 2^-mass_bits.
        infinite: the same.
    """

    start: int
    masses: fmpz_poly
    infinite: int


class ConvolutionCurve:
    """Proven upper bounds of delta(eps) from the composed integer masses of one direction.

    Args:
        rounds: (round, how often) pairs, at least one.
        direction: which of the two dominating pairs.
        resolution: grid step of the losses, and how masses are rounded.

    Raises: CertificationError for an empty composition, and where a grid would need too many cells.
    """

    def __init__(self, rounds: AnyRounds, direction: Direction, resolution: Resolution) -> None:
        self._resolution = resolution
        with working_precision(_BITS):
            kinds = [(one_round(each, direction, resolution), times) for each, times in rounds]
        self._losses = composed(kinds, resolution)

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return 0 and the proven upper bound of delta(eps)."""
        charge(_LOOKING * self._losses.masses.length())
        step, start = self._resolution.step, self._losses.start
        first = max(math.floor(epsilon / step) + 1 - start, 0)
        tail = fmpz_poly([int(c) for c in self._losses.masses.coeffs()[first:]])
        certain = self._losses.infinite + int(tail(1))
        # sum of p_i (1 - exp(eps - i step)) over the losses i step > eps
        shrink = (-ball(step)).exp()
        scale = (ball(epsilon) - (start + first) * ball(step)).exp()
        discount = scale * _at(tail, shrink)
        value = (ball(certain) - discount) / (arb(2) ** self._resolution.mass_bits)
        return DeltaBounds(lower=arb(0), upper=value)


def convolution_upper_epsilon(
    rounds: AnyRounds,
    delta: Fraction,
    *,
    guess: float,
    extra_distance: Fraction = Fraction(0),
    least_cells: int = 2000,
) -> Fraction:
    """Return an epsilon proven, by convolution alone, to satisfy delta(eps) <= delta both ways.

    Args:
        rounds: (round, how often) pairs.
        delta: exact rational in (0, 1).
        guess: float near epsilon; it sets the grid and starts the search, and proves nothing.
        extra_distance: tau, folded in as everywhere.
        least_cells: grid cells between 0 and the guess, at least; more where 0.1 % needs more.

    Raises: CertificationError where the grid would need too many cells.
    """
    resolution = resolution_for(rounds, delta, guess=guess, least_cells=least_cells)
    curves = (ConvolutionCurve(rounds, direction, resolution) for direction in Direction)
    return worst_upper_epsilon(curves, delta, guess=guess, extra_distance=extra_distance)


def resolution_for(
    rounds: AnyRounds, delta: Fraction, *, guess: float, least_cells: int
) -> Resolution:
    """Return a grid that costs about 0.1 % of epsilon.

    Args:
        rounds, delta, guess, least_cells: as for `convolution_upper_epsilon`.
    """
    cells = max(least_cells, _cells(rounds, delta))
    return Resolution(
        as_dyadic(max(guess, 1e-12) / cells), negligible_bits=_negligible_bits(rounds, delta)
    )


def worst_upper_epsilon(
    curves: Iterable[ConvolutionCurve], delta: Fraction, *, guess: float, extra_distance: Fraction
) -> Fraction:
    """Return the largest of the curves' upper ends of epsilon at delta.

    Args:
        curves: of both directions.
        delta, guess, extra_distance: as for `convolution_upper_epsilon`.
    """
    worst = Fraction(0)
    for curve in curves:
        with working_precision(_BITS):
            slope = -5.0 / max(guess, 1e-12)
            found = upper_epsilon(
                curve, delta, guess=guess, slope=slope, extra_distance=extra_distance
            )
        worst = max(worst, found)
    return worst


def _cells(rounds: AnyRounds, delta: Fraction) -> int:
    """Return cells per epsilon such that spreading every round's loss costs about 0.1 %.

    Spreading adds at most step^2 / 4 to a round's variance, and epsilon grows by about half the
    added variance times the saddle order, which is near 2 log(1 / delta) / epsilon.
    """
    total = sum(times for _, times in rounds)
    nats = math.log(delta.denominator) - math.log(delta.numerator)
    return math.ceil(math.sqrt(total * nats / 4e-3))


def _negligible_bits(rounds: AnyRounds, delta: Fraction) -> int:
    """Return b such that 2^-b in every round is small against delta."""
    total = sum(times for _, times in rounds)
    return math.ceil(math.log2(total * delta.denominator) - math.log2(delta.numerator)) + 14


def _at(polynomial: fmpz_poly, point: arb) -> arb:
    """Return the value at a point of (0, 1), by Horner in blocks; all terms are positive."""
    coefficients = polynomial.coeffs()
    total = arb(0)
    for coefficient in reversed(coefficients):
        total = total * point + coefficient
    return total


def _edge(mechanism: Mechanism, loss: arb) -> arb | None:
    """Return u with log V(u) = loss, or None where log V never falls so low."""
    rate, noise = ball(mechanism.sampling_rate), ball(mechanism.noise_multiplier)
    excess = (loss.expm1() + rate) / rate
    if excess > 0:
        return noise * excess.log() + 1 / (2 * noise)
    if excess <= 0:
        return None
    raise CertificationError("a grid point touches the end of the loss's range; change the step")


def _masses_below(mechanism: Mechanism, direction: Direction, loss: arb) -> tuple[arb, arb]:
    """Return (mass under the loss's own law, mass under the other) of {L <= loss}."""
    rate, mu = ball(mechanism.sampling_rate), 1 / ball(mechanism.noise_multiplier)
    if direction is Direction.REMOVE:
        u = _edge(mechanism, loss)
        if u is None:
            return arb(0), arb(0)
        base, shifted = normal_cdf(u), normal_cdf(u - mu)
    else:
        # L = -log V <= loss is V >= exp(-loss): the upper half line.
        u = _edge(mechanism, -loss)
        if u is None:
            return arb(1), arb(1)
        base, shifted = normal_cdf(-u), normal_cdf(mu - u)
    mixed = (1 - rate) * base + rate * shifted
    return (mixed, base) if direction is Direction.REMOVE else (base, mixed)


def one_round(each: AnyRound, direction: Direction, resolution: Resolution) -> Losses:
    """Return the integer masses of one round, split onto the grid and rounded up.

    Args:
        each: the round.
        direction: which of its two dominating pairs.
        resolution: grid step of the losses, and how masses are rounded.

    Raises: CertificationError where the grid would need too many cells.
    """
    if isinstance(each, LaplaceRound):
        return _of_atoms(each, resolution)
    step = ball(resolution.step)
    low, high = _range(each, direction, resolution)
    if high - low > _MAX_CELLS:
        raise CertificationError(
            f"{high - low} cells for one round exceed {_MAX_CELLS}; use a coarser step"
        )
    charge(_SPLITTING * (high - low))
    own_before, other_before = _masses_below(each, direction, low * step)
    # Losses below the grid move up to its first point.
    sizes = [own_before] + [arb(0)] * (high - low)
    for index in range(low, high):
        own, other = _masses_below(each, direction, (index + 1) * step)
        _split(sizes, index - low, own - own_before, other - other_before, index * step, step)
        own_before, other_before = own, other
    return _rounded_up(low, sizes, 1 - own_before, resolution)


def _of_atoms(each: LaplaceRound, resolution: Resolution) -> Losses:
    """Return the integer masses of one round of integer noise; both directions have the same."""
    step, atoms = ball(resolution.step), each.atoms(resolution.negligible_bits)
    places = [math.floor(lower_end(loss / step)) for loss in atoms.losses]
    low, high = min(places), max(places) + 2
    if high - low > _MAX_CELLS:
        raise CertificationError(
            f"{high - low} cells for one round exceed {_MAX_CELLS}; use a coarser step"
        )
    charge(_SPLITTING * (high - low))
    size = high - low + 1
    sizes, own, other = ([arb(0)] * size for _ in range(3))
    for index, loss, mass, beside in zip(places, atoms.losses, atoms.own, atoms.other, strict=True):
        if loss <= (index + 1) * step:
            own[index - low] += mass
            other[index - low] += beside
        elif loss <= (index + 2) * step:  # near a grid point: a larger loss dominates
            sizes[index - low + 2] += mass
        else:
            raise CertificationError("a loss is not known within a cell; use a coarser step")
    for cell in {index - low for index in places}:
        _split(sizes, cell, own[cell], other[cell], (low + cell) * step, step)
    return _rounded_up(low, sizes, atoms.beyond, resolution)


def _split(sizes: list[arb], cell: int, inside: arb, beside: arb, loss: arb, step: arb) -> None:
    """Split a cell's masses onto its two ends, so that both laws keep theirs."""
    near, far = (-loss).exp(), (-loss - step).exp()
    up = ((inside * near - beside) / (near - far)).nonnegative_part()
    sizes[cell] += (inside - up).nonnegative_part()
    sizes[cell + 1] += up


def _rounded_up(low: int, sizes: list[arb], infinite: arb, resolution: Resolution) -> Losses:
    unit = arb(2) ** resolution.mass_bits
    masses = [_ceiling(size * unit) for size in sizes]
    return Losses(low, fmpz_poly(masses), _ceiling(infinite * unit))


def _ceiling(value: arb) -> int:
    return max(math.ceil(upper_end(value)), 0)


def _range(mechanism: Mechanism, direction: Direction, resolution: Resolution) -> tuple[int, int]:
    """Return grid indices between which all but negligible mass lies; floats only steer."""
    rate, mu = float(mechanism.sampling_rate), 1 / float(mechanism.noise_multiplier)
    nats = resolution.negligible_bits * math.log(2)
    depth = math.sqrt(2 * nats)
    shifted = mu + math.sqrt(2 * max(nats + math.log(rate), 0.0))
    step = float(resolution.step)

    def log_ratio(u: float) -> float:
        exponent = mu * u - mu * mu / 2
        if exponent > 600:
            return exponent + math.log(rate)
        return math.log1p(rate * math.expm1(exponent))

    low, high = log_ratio(-depth), log_ratio(max(depth, shifted))
    if direction is Direction.ADD:
        low, high = -log_ratio(depth), -log_ratio(-depth)
    return math.floor(low / step), math.ceil(high / step)


def product(one: Losses, two: Losses, resolution: Resolution) -> Losses:
    """Return the losses of both rounds together, rounded up and trimmed.

    Args:
        one, two: integer masses on the same grid.
        resolution: how they are rounded and trimmed.
    """
    charge(_CONVOLVING * (one.masses.length() + two.masses.length()))
    unit = 1 << resolution.mass_bits
    raw = one.masses * two.masses
    masses = [-(-int(c) // unit) for c in raw.coeffs()]
    # Any pair with an infinite part is infinite; finite totals bound the finite parts' masses.
    totals = int(one.masses(1)), int(two.masses(1))
    crossed = one.infinite * (totals[1] + two.infinite) + two.infinite * totals[0]
    infinite = -(-crossed // unit)
    limit = resolution.negligible
    start, trimmed = one.start + two.start, 0
    while len(masses) > 1 and trimmed + masses[-1] <= limit:
        trimmed += masses.pop()
    cut, moved = 0, 0
    while cut < len(masses) - 1 and moved + masses[cut] <= limit:
        moved += masses[cut]
        cut += 1
    masses = masses[cut:]
    masses[0] += moved
    if len(masses) > _MAX_CELLS:
        raise CertificationError(f"{len(masses)} cells exceed {_MAX_CELLS}; use a coarser step")
    return Losses(start + cut, fmpz_poly(masses), infinite + trimmed)


def composed(kinds: Sequence[tuple[Losses, int]], resolution: Resolution) -> Losses:
    """Return the losses of all rounds together.

    Args:
        kinds: one round's losses, and how often it ran.
        resolution: how they are rounded and trimmed.

    Raises: CertificationError for an empty composition.
    """
    total: Losses | None = None
    for losses, times in kinds:
        block = power(losses, times, resolution)
        total = block if total is None else product(total, block, resolution)
    if total is None:
        raise CertificationError("there is nothing to convolve in an empty composition")
    return total


def power(losses: Losses, times: int, resolution: Resolution) -> Losses:
    """Return the losses of `times` equal rounds, by repeated squaring.

    Args:
        losses: integer masses of one round.
        times: how often it ran, at least once.
        resolution: how they are rounded and trimmed.
    """
    result: Losses | None = None
    base = losses
    while True:
        if times & 1:
            result = base if result is None else product(result, base, resolution)
        times >>= 1
        if not times:
            break
        base = product(base, base, resolution)
    if result is None:
        raise CertificationError("a composition of no rounds has nothing to convolve")
    return result
