"""A proof of epsilon that a proved program checks: integer masses of one round's losses on a grid.

`ConvolutionCertificate.to_text` gives, for each kind of round and either direction, the masses of
one round, rounded up, and claims an epsilon. The program of proofs/rocq/Certificate.v composes them
cell by cell and accepts the claim or refuses it; its theorem `an_accepted_certificate_is_true` says
what follows. That the masses lie above those of the round named beside them is section 11 of
proofs/certified-epsilon.md, and stays on paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import working_precision
from privagg.privacy.certified.convolution import (
    Losses,
    Resolution,
    composed,
    one_round,
    resolution_for,
)
from privagg.privacy.certified.mechanism import (
    Composition,
    Direction,
    Mechanism,
    Rational,
    checked_delta,
    normalised,
    rational,
)

HEADER = "privagg-convolution-certificate-1"

_BITS = 224
_SPARE_BITS = 40  # masses are so much finer than what is trimmed
_LEAST_CELLS, _MOST_CELLS = 1000, 20_000  # between 0 and epsilon


@dataclass(frozen=True)
class Kind:
    """Equal rounds.

    Args:
        mechanism: one of them.
        times: how often it ran.
        losses: its integer masses in either direction.
    """

    mechanism: Mechanism
    times: int
    losses: dict[Direction, Losses]


@dataclass(frozen=True)
class ConvolutionCertificate:
    """One-round masses, and the epsilon that their composition proves.

    Args:
        kinds: of rounds, with their masses.
        delta: of the guarantee.
        distance: total-variation distance of what really runs, folded into delta.
        resolution: the grid; its step is one over a whole number.
        epsilon: a whole number of steps.
    """

    kinds: tuple[Kind, ...]
    delta: Fraction
    distance: Fraction
    resolution: Resolution
    epsilon: Fraction

    def to_text(self) -> str:
        """What the checker reads: words and whole numbers; lines that begin with # are remarks."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield HEADER
        shown = math.ceil(self.epsilon * 10**6) / 10**6
        yield f"# epsilon <= {shown:.6f} at delta = {float(self.delta):.3g}: masses of"
        yield "# one round, in units of 2^-bits, of the losses start/steps, (start + 1)/steps, ..."
        yield "# and of an infinite loss; `python -m proofs.certificates FILE` checks them."
        yield f"bits {self.resolution.mass_bits}"
        yield f"limit {self.resolution.negligible}"
        yield f"steps {1 / self.resolution.step}"
        yield f"epsilon {self.epsilon / self.resolution.step}"
        yield f"delta {_pair(self.delta)}"
        yield f"distance {_pair(self.distance)}"
        for kind in self.kinds:
            yield f"rounds {kind.times}"
            yield f"rate {_pair(kind.mechanism.sampling_rate)}"
            yield f"noise {_pair(kind.mechanism.noise_multiplier)}"
            for direction, losses in kind.losses.items():
                masses = losses.masses.coeffs()
                yield f"{direction.value} {losses.start} {losses.infinite} {len(masses)}"
                yield from (str(mass) for mass in masses)


def convolution_certificate(
    composition: Composition, delta: Rational, *, guess: float, extra_distance: Rational = 0
) -> ConvolutionCertificate:
    """The least whole number of grid steps that the convolution proves.

    Args:
        composition: mechanism -> number of rounds; parameters fixed before the first round.
        delta: exact rational in (0, 1).
        guess: about epsilon; it sets the grid, and proves nothing.
        extra_distance: total-variation distance of what runs from this, as an exact rational.

    Raises:
        CertificationError: the composition is empty, a grid would need too many cells, or nothing
            of delta is left.

    Source: proofs/certified-epsilon.md, sections 10, 11 and 16.
    """
    rounds, at, distance = (
        normalised(composition), checked_delta(delta), rational(extra_distance, "extra_distance"),
    )  # fmt: skip
    if not rounds:
        raise CertificationError("there is nothing to convolve in an empty composition")
    free = resolution_for(rounds, at, guess=guess, least_cells=_LEAST_CELLS)
    steps = math.ceil(min(1 / free.step, Fraction(_MOST_CELLS / max(guess, 1e-12))))
    resolution = Resolution(
        Fraction(1, steps), free.negligible_bits + _SPARE_BITS, free.negligible_bits
    )
    with working_precision(_BITS):
        kinds = tuple(
            Kind(each, times, {side: one_round(each, side, resolution) for side in Direction})
            for each, times in rounds
        )
    least = max(
        _least_steps(
            composed([(kind.losses[side], kind.times) for kind in kinds], resolution),
            resolution, at, distance,
        )
        for side in Direction
    )  # fmt: skip
    return ConvolutionCertificate(kinds, at, distance, resolution, Fraction(least, steps))


def _least_steps(
    losses: Losses, resolution: Resolution, delta: Fraction, distance: Fraction
) -> int:
    """The least whole epsilon of the checker's inequality, in its own integers, from above down."""
    steps, unit = int(1 / resolution.step), 1 << resolution.mass_bits
    masses = [int(mass) for mass in losses.masses.coeffs()]
    top = losses.start + len(masses) - 1
    grown = [unit]
    while len(grown) <= top:
        grown.append(-(-grown[-1] * steps // (steps - 1)))
    least, certain, discounted = None, losses.infinite, 0
    for epsilon in range(max(top, 0), max(losses.start - 1, 0) - 1, -1):
        spent = certain - discounted + (unit + grown[epsilon]) * distance
        if spent > delta * unit:
            break
        least = epsilon
        mass = masses[epsilon - losses.start] if losses.start <= epsilon <= top else 0
        certain += mass
        discounted = (discounted + mass) * (steps - 1) // steps
    if least is None:
        raise CertificationError("the distance and the infinite losses leave nothing of delta")
    return least


def _pair(value: Fraction) -> str:
    return f"{value.numerator} {value.denominator}"
