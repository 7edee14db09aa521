"""delta(eps) from the moment transform: a certified inversion on one vertical line.

With F(s) = M_T(s) / (s (s + 1)) and s_k = c + 2 pi i k / Delta, Poisson summation gives exactly

    S(eps) = Delta^-1 sum_k F(s_k) exp(-s_k eps)
           = delta(eps) + sum_{j != 0} exp(c j Delta) delta(eps + j Delta)

(proofs/certified-epsilon.md, section 'Inversion'). S is an upper bound as it stands; what the
aliases may add, what the sum over k omits and what a window cuts off is bounded and accounted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from flint import acb, acb_mat, arb

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import ball
from privagg.privacy.certified.mechanism import Direction, Mechanism
from privagg.privacy.certified.search import DeltaBounds
from privagg.privacy.certified.transform import (
    Grid,
    Line,
    gaussian_transform,
    subsampled_transform,
    sup_beyond,
)
from privagg.privacy.certified.window import Window

METHOD = "contour"


@dataclass(frozen=True)
class Frame:
    """What every round on one contour shares. All floats are read as exact dyadics.

    Args:
        direction: which of the two dominating pairs.
        order: real part c of the contour, positive.
        period: the alias period Delta in units of epsilon, positive.
        count: K; the sum runs over |k| <= K.
        alias_order: a > c, the order of the Chernoff bound on the aliases above.
        precision_bits: working precision.
    """

    direction: Direction
    order: float
    period: float
    count: int
    alias_order: float
    precision_bits: int

    def spacing(self) -> arb:
        """Return h = 2 pi / Delta."""
        return 2 * arb.pi() / ball(self.period)


@dataclass(frozen=True)
class Shape:
    """How one mechanism's integrals are sampled on a frame: a window and three grids."""

    window: Window
    main: Grid
    beyond: Grid
    alias: Grid


@dataclass(frozen=True)
class RoundTable:
    """One round of one mechanism on a frame.

    Attributes:
        values: M(s_k) for k = 0 ... K, as balls.
        beyond: bound of |M(c + i theta)| over all |theta| >= (K + 1) h.
        at_alias: bound of M(alias_order).
        cut: probability mass, under P, that the window removes.
    """

    values: list[acb]
    beyond: arb
    at_alias: arb
    cut: arb


def round_table(mechanism: Mechanism, frame: Frame, shape: Shape | None) -> RoundTable:
    """Return the table of one mechanism; `shape` may be None only without subsampling."""
    line = Line(ball(frame.order), frame.spacing(), frame.count)
    alias_line = Line(ball(frame.alias_order), frame.spacing(), 0)
    cutoff = (frame.count + 1) * line.spacing
    if shape is None:
        if not mechanism.is_gaussian:
            raise CertificationError("a subsampled round needs a window and grids")
        return RoundTable(
            values=gaussian_transform(mechanism, line).values,
            beyond=_gaussian_beyond(mechanism, line.order, cutoff),
            at_alias=gaussian_transform(mechanism, alias_line).at_order,
            cut=arb(0),
        )
    direction, window = frame.direction, shape.window
    main = subsampled_transform(mechanism, direction, window, line, shape.main)
    alias = subsampled_transform(mechanism, direction, window, alias_line, shape.alias)
    beyond = sup_beyond(mechanism, direction, window, line.order, cutoff, shape.beyond)
    beyond = beyond.min(main.at_order)  # |M(c + i theta)| <= M(c), always
    rate, mu = ball(mechanism.sampling_rate), 1 / ball(mechanism.noise_multiplier)
    return RoundTable(main.values, beyond, alias.at_order, window.cut_mass(rate, mu))


def _gaussian_beyond(mechanism: Mechanism, order: arb, cutoff: arb) -> arb:
    half = 1 / (2 * ball(mechanism.noise_multiplier) ** 2)
    return ((order * (order + 1) - cutoff**2) * half).exp().upper()


def chernoff_factor(order: arb) -> arb:
    """Return sup over L of (1 - e^(y-L))_+ e^(a (y-L)) = a^a / (1 + a)^(1 + a)."""
    return (order * order.log() - (1 + order) * (1 + order).log()).exp()


class ContourCurve:
    """Proven bounds of delta(eps) in one direction, from the tables of a composition.

    Args:
        frame: the contour.
        products: prod_r M_r(s_k)^T_r for k = 0 ... K.
        beyond: prod_r beyond_r^T_r.
        at_alias: prod_r at_alias_r^T_r.
        cut: sum_r T_r cut_r.
    """

    def __init__(
        self, frame: Frame, products: Sequence[acb], beyond: arb, at_alias: arb, cut: arb
    ) -> None:
        self._frame = frame
        self._order, self._period = ball(frame.order), ball(frame.period)
        spacing = frame.spacing()
        self._cut = cut
        self._block = math.isqrt(frame.count) + 1
        self._rows = frame.count // self._block + 1
        coefficients = []
        for k, product in enumerate(products):
            s = acb(self._order, k * spacing)
            coefficients.append((product if k == 0 else 2 * product) / (s * (s + 1)))
        coefficients += [acb(0)] * (self._rows * self._block - len(coefficients))
        self._matrix = acb_mat(self._rows, self._block, coefficients)
        self._spacing = spacing
        # sum over |k| > K of 1 / |s (s+1)| <= 2 sum 1 / (h k)^2 <= 2 / (h^2 K)
        self._tail = 2 * beyond / (spacing**2 * max(frame.count, 1))
        if frame.count < 1:
            raise CertificationError("a contour needs at least one term on each side")
        gap = ball(frame.alias_order) - self._order
        if not gap > 0:
            raise CertificationError("the alias order must exceed the contour's order")
        self._below = 1 / ((self._order * self._period).exp() - 1)
        alias = ball(frame.alias_order)
        self._above = chernoff_factor(alias) * at_alias / ((gap * self._period).exp() - 1)

    @staticmethod
    def of(frame: Frame, rounds: Sequence[tuple[RoundTable, int]]) -> ContourCurve:
        """Return the curve of a composition, each table taken its number of times."""
        products: list[acb] = []
        beyond, at_alias, cut = arb(1), arb(1), arb(0)
        for table, times in rounds:
            powers = [value**times for value in table.values]
            products = (
                [p * q for p, q in zip(products, powers, strict=True)] if products else powers
            )
            beyond *= table.beyond**times
            at_alias *= table.at_alias**times
            cut += times * table.cut
        return ContourCurve(frame, products, beyond, at_alias, cut)

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return proven bounds of delta(eps) in this frame's direction."""
        eps = ball(epsilon)
        damping = (-self._order * eps).exp() / self._period
        middle = damping * self._sum(eps)
        tail = damping * self._tail
        aliases = self._below + self._above * (-ball(self._frame.alias_order) * eps).exp()
        return DeltaBounds(lower=middle - tail - aliases, upper=middle + tail + self._cut)

    def _sum(self, eps: arb) -> arb:
        """Return the real part of sum_k (1 or 2) F(s_k) exp(-i k h eps)."""
        turn = acb(0, -self._spacing * eps)
        rows = acb_mat(1, self._rows, [(a * self._block * turn).exp() for a in range(self._rows)])
        columns = acb_mat(self._block, 1, [(b * turn).exp() for b in range(self._block)])
        return (rows * (self._matrix * columns))[0, 0].real


class Worse:
    """The larger of two directions' bounds: what a guarantee for both neighbours needs."""

    def __init__(self, first: ContourCurve, second: ContourCurve) -> None:
        self._curves = (first, second)

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return bounds of the maximum over both directions."""
        one, two = (curve.bounds(epsilon) for curve in self._curves)
        return DeltaBounds(lower=one.lower.max(two.lower), upper=one.upper.max(two.upper))
