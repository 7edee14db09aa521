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
from privagg.privacy.certified.balls import ball, error_square
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
        logs: log M(s_k) for k = 0 ... K, as balls, on any branch (powers are integers).
        lost: the k at which the ball of M(s_k) holds 0; `logs` has a bound of the modulus there.
        beyond: bound of |M(c + i theta)| over all |theta| >= (K + 1) h.
        at_alias: bound of M(alias_order).
        cut: probability mass, under P, that the window removes.
    """

    logs: list[acb]
    lost: frozenset[int]
    beyond: arb
    at_alias: arb
    cut: arb

    @staticmethod
    def of(values: Sequence[acb], beyond: arb, at_alias: arb, cut: arb) -> RoundTable:
        """Return the table of a round whose transform has these balls."""
        logs, lost = [], set()
        for k, value in enumerate(values):
            if value.abs_lower() > 0:
                # Away from the cut of the logarithm: turn values in the left half plane first.
                left = value.real < 0
                logs.append((-value).log() + acb(0, arb.pi()) if left else value.log())
            else:
                logs.append(acb(value.abs_upper().log()))
                lost.add(k)
        return RoundTable(logs, frozenset(lost), beyond, at_alias, cut)


def round_table(mechanism: Mechanism, frame: Frame, shape: Shape | None) -> RoundTable:
    """Return the table of one mechanism; `shape` may be None only without subsampling."""
    line = Line(ball(frame.order), frame.spacing(), frame.count)
    alias_line = Line(ball(frame.alias_order), frame.spacing(), 0)
    cutoff = (frame.count + 1) * line.spacing
    if shape is None:
        if not mechanism.is_gaussian:
            raise CertificationError("a subsampled round needs a window and grids")
        return RoundTable.of(
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
    return RoundTable.of(main.values, beyond, alias.at_order, window.cut_mass(rate, mu))


def _gaussian_beyond(mechanism: Mechanism, order: arb, cutoff: arb) -> arb:
    half = 1 / (2 * ball(mechanism.noise_multiplier) ** 2)
    return ((order * (order + 1) - cutoff**2) * half).exp().upper()


def chernoff_factor(order: arb) -> arb:
    """Return sup over L of (1 - e^(y-L))_+ e^(a (y-L)) = a^a / (1 + a)^(1 + a)."""
    return (order * order.log() - (1 + order) * (1 + order).log()).exp()


class Product:
    """prod_r M_r(s_k)^T_r for k = 0 ... K, with the bounds that belong to it; grows round by round.

    Logarithms are added, not balls multiplied: rectangular balls of rotating complex numbers grow
    by up to sqrt(2) a product, logarithms only by their own radius.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.rounds = 0
        self._logs = [acb(0)] * (frame.count + 1)
        self._log_beyond, self._log_alias, self.cut = arb(0), arb(0), arb(0)
        # Points where some factor's ball holds 0: only a bound on the modulus is kept there.
        self._lost: set[int] = set()

    def add(self, table: RoundTable, times: int) -> None:
        """Take `times` more rounds of one mechanism, at a cost that does not depend on `times`."""
        for k in table.lost - self._lost:
            self._logs[k] = acb(self._logs[k].real)
        self._lost |= table.lost
        self._logs = [
            total + times * log for total, log in zip(self._logs, table.logs, strict=True)
        ]
        self._log_beyond += times * table.beyond.log()
        self._log_alias += times * table.at_alias.log()
        self.cut += times * table.cut
        self.rounds += times

    def values(self) -> list[acb]:
        """Return the products as balls."""
        values = [log.exp() for log in self._logs]
        for k in self._lost:
            values[k] = error_square(self._logs[k].real.exp())
        return values

    @property
    def beyond(self) -> arb:
        """Bound of the product's modulus over |theta| >= (K + 1) h."""
        return self._log_beyond.exp()

    @property
    def at_alias(self) -> arb:
        """Bound of the product at the alias order."""
        return self._log_alias.exp()

    def log_moment(self) -> float:
        """Return a float near log M_T(c), to steer by."""
        return float(self._logs[0].real.mid())


class ContourCurve:
    """Proven bounds of delta(eps) in one direction, from the product of a composition."""

    def __init__(self, product: Product) -> None:
        frame = product.frame
        if frame.count < 1:
            raise CertificationError("a contour needs at least one term on each side")
        self._order, self._period = ball(frame.order), ball(frame.period)
        self._alias_order = ball(frame.alias_order)
        self._spacing = frame.spacing()
        gap = self._alias_order - self._order
        if not (self._order > 0 and self._period > 0 and gap > 0):
            raise CertificationError("a contour needs 0 < order < alias order and a period > 0")
        self._cut = product.cut
        self._block = math.isqrt(frame.count) + 1
        self._rows = frame.count // self._block + 1
        coefficients = []
        for k, value in enumerate(product.values()):
            s = acb(self._order, k * self._spacing)
            coefficients.append((value if k == 0 else 2 * value) / (s * (s + 1)))
        coefficients += [acb(0)] * (self._rows * self._block - len(coefficients))
        self._matrix = acb_mat(self._rows, self._block, coefficients)
        # sum over |k| > K of 1 / |s (s+1)| <= 2 sum 1 / (h k)^2 <= 2 / (h^2 K)
        self._tail = 2 * product.beyond / (self._spacing**2 * frame.count)
        self._below = 1 / ((self._order * self._period).exp() - 1)
        self._above = (
            chernoff_factor(self._alias_order)
            * product.at_alias
            / ((gap * self._period).exp() - 1)
        )

    @staticmethod
    def of(frame: Frame, rounds: Sequence[tuple[RoundTable, int]]) -> ContourCurve:
        """Return the curve of a composition, each table taken its number of times."""
        product = Product(frame)
        for table, times in rounds:
            product.add(table, times)
        return ContourCurve(product)

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return proven bounds of delta(eps) in this frame's direction."""
        eps = ball(epsilon)
        damping = (-self._order * eps).exp() / self._period
        middle = damping * self._sum(eps)
        tail = damping * self._tail
        aliases = self._below + self._above * (-self._alias_order * eps).exp()
        return DeltaBounds(lower=middle - tail - aliases, upper=middle + tail + self._cut)

    def _sum(self, eps: arb) -> arb:
        """Return the real part of sum_k (1 or 2) F(s_k) exp(-i k h eps)."""
        turn = acb(0, -self._spacing * eps)
        rows = acb_mat(1, self._rows, [(a * self._block * turn).exp() for a in range(self._rows)])
        columns = acb_mat(self._block, 1, [(b * turn).exp() for b in range(self._block)])
        return (rows * (self._matrix * columns))[0, 0].real

