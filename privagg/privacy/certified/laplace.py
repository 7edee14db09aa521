"""Integer Laplace noise, of which an observer knows no share or some: its dominating pair.

A unit moves one coordinate by an integer of at most `shift`. The law of what stays unknown of the
noise is symmetric and falls away from 0, so the pair (law, law moved by exactly `shift`) dominates
every such move, both ways. Argument in proofs/laplace.md.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from math import ceil

from flint import arb, ctx

from privagg.errors import PrivacyError
from privagg.privacy.certified.balls import ball, upper_end
from privagg.privacy.certified.search import DeltaBounds
from privagg.privacy.certified.work import charge
from privagg.privacy.events import LARGEST_MOVE
from privagg.privacy.laplace_law import LaplaceLaw

METHOD = "laplace-tests"

# Units of work for an atom, and for a ratio of two masses on the way there.
_WORK_PER_ATOM, _WORK_PER_RATIO = 8.0, 1.0


@dataclass(frozen=True, order=True)
class LaplaceRound:
    """One coordinate released once.

    Args:
        law: of the noise that the observer does not know.
        shift: most that a unit moves the coordinate by, an integer from 1 to `LARGEST_MOVE`.

    Raises: PrivacyError outside that range.
    """

    law: LaplaceLaw
    shift: int

    def __post_init__(self) -> None:
        if not 1 <= self.shift <= LARGEST_MOVE:
            raise PrivacyError(f"shift must be from 1 to {LARGEST_MOVE}, got {self.shift}")

    @property
    def largest_loss(self) -> Fraction:
        """No privacy loss is larger, whatever comes out: epsilon at delta 0.

        From shape 1 on it is shift / scale; below, log P(0) / P(shift).
        """
        if self.law.shape >= 1:
            return self.shift / self.law.scale
        charge(_WORK_PER_RATIO * (self.shift + self._narrowing))
        ratios = _ratios(self.law, self.shift, ctx.prec)
        return upper_end(-sum((ratio.log() for ratio in ratios), arb(0)))

    def atoms(self, negligible_bits: int) -> Atoms:
        """Everything that may come out but for about 2^-negligible_bits of mass.

        Args:
            negligible_bits: how much may be left out.
        """
        reach = ceil(self.law.scale * ceil(0.7 * negligible_bits + 10 + 3 * self.law.shape)) + 1
        # Counted also where it is remembered: what is proven must not depend on what was asked.
        charge(_WORK_PER_ATOM * (2 * reach + self.shift) + _WORK_PER_RATIO * self._narrowing)
        return _atoms(self, reach, ctx.prec)

    @property
    def _narrowing(self) -> float:
        return float(self.law.scale * ctx.prec)


@dataclass(frozen=True)
class Atoms:
    """What comes out, one value after the other.

    Attributes:
        own: P(x) of each value x, balls.
        other: P(x - shift).
        losses: log of their quotient.
        beyond: bound of the mass under `own` that is left out.
    """

    own: tuple[arb, ...]
    other: tuple[arb, ...]
    losses: tuple[arb, ...]
    beyond: arb


@lru_cache(maxsize=64)
def _ratios(law: LaplaceLaw, count: int, bits: int) -> tuple[arb, ...]:
    with ctx.workprec(bits):
        return tuple(law.ratios(count))


@lru_cache(maxsize=64)
def _atoms(pair: LaplaceRound, reach: int, bits: int) -> Atoms:
    law, shift = pair.law, pair.shift
    with ctx.workprec(bits):
        masses, beyond = law.masses(reach + shift)
        logs = [mass.log() for mass in masses]
        # Own tails begin at `reach`, not at `reach + shift`.
        left_out = beyond + 2 * sum(masses[reach + 1 :], arb(0))
        places = range(-reach, reach + 1)
        return Atoms(
            own=tuple(masses[abs(x)] for x in places),
            other=tuple(masses[abs(x - shift)] for x in places),
            losses=tuple(logs[abs(x)] - logs[abs(x - shift)] for x in places),
            beyond=left_out,
        )


class OneTestCurve:
    """Lower bounds of delta(eps) of one round, each from one test; the upper bound is trivial.

    Args:
        atoms: what may come out.
    """

    def __init__(self, atoms: Atoms) -> None:
        # In floats: any set of values is a valid test, they only choose which ones to try.
        order = sorted(range(len(atoms.own)), key=lambda i: -float(atoms.losses[i].mid()))
        self._losses = [-float(atoms.losses[i].mid()) for i in order]
        self._own = list(accumulate((atoms.own[i] for i in order), initial=arb(0)))
        self._other = list(accumulate((atoms.other[i] for i in order), initial=arb(0)))

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return P(S) - e^eps Q(S), S the values whose loss is above epsilon, and 1."""
        first = bisect_left(self._losses, -float(epsilon))
        lower = self._own[first] - ball(epsilon).exp() * self._other[first]
        return DeltaBounds(lower=lower.max(arb(0)), upper=arb(1))
