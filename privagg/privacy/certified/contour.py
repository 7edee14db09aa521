"""delta(eps) from the moment transform: a certified inversion on one vertical line.

With F(s) = M_T(s) / (s (s + 1)) and s_k = c + 2 pi i k / Delta, Poisson summation gives exactly

    S(eps) = Delta^-1 sum_k F(s_k) exp(-s_k eps)
           = delta(eps) + sum_{j != 0} exp(c j Delta) delta(eps + j Delta)

(proofs/certified-epsilon.md, section 'Inversion'). S is an upper bound as it stands; what the
aliases may add, what the sum over k omits and what a window cuts off is bounded and accounted.

Source: the integral is that of Alghamdi, Gomez, Asoodeh, Calmon, Kosut & Sankar, "The Saddle-Point
Method in Differential Privacy", ICML 2023, Theorem 3.1, who approximate it; summing it with a
bounded error is the Fourier-series method of Abate & Whitt, Queueing Systems 10, 1992.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from flint import acb, acb_mat, arb

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import ball, error_square
from privagg.privacy.certified.mechanism import Direction
from privagg.privacy.certified.search import DeltaBounds
from privagg.privacy.certified.tables import Frame, RoundTable
from privagg.privacy.certified.work import charge

METHOD = "contour"

# Units of work: for each term of a contour once, and for each look at one epsilon.
_WORK_PER_TERM, _WORK_PER_LOOK = 20.0, 0.4


def chernoff_factor(order: arb) -> arb:
    """Return sup over L of (1 - e^(y-L))_+ e^(a (y-L)) = a^a / (1 + a)^(1 + a)."""
    return (order * order.log() - (1 + order) * (1 + order).log()).exp()


class Product:
    """prod_r M_r(s_k)^T_r for k = 0 ... K, with the bounds that belong to it; grows round by round.

    Logarithms are added, not balls multiplied: rectangular balls of rotating complex numbers grow
    by up to sqrt(2) a product, logarithms only by their own radius. On a frame with a bulk order
    the values are prod M_r^T_r - prod B_r^T_r, B being the bulk's transforms.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.rounds = 0
        self._kernel: list[acb] | None = None
        self._logs = [acb(0)] * (frame.count + 1)
        self._rests = [acb(0)] * (frame.count + 1)
        self._log_beyond, self._log_alias, self.cut = arb(0), arb(0), arb(0)
        self._rest_beyond, self._rest_mass, self._log_bulk = arb(0), arb(0), arb(0)
        self._log_own, self._log_base = arb(0), arb(0)
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
        if self.frame.bulk_order is not None:
            self._add_bulk(table, times)

    def _add_bulk(self, table: RoundTable, times: int) -> None:
        if table.at_bulk is None or self._lost:
            raise CertificationError("a bulk is taken out only where its transform is known")
        self._log_bulk += times * table.at_bulk.log()
        self.cut += times * (table.leak or arb(0))
        if table.rest is None:
            return
        self._rests = [
            total + times * log for total, log in zip(self._rests, table.rest.logs, strict=True)
        ]
        self._rest_beyond += times * table.rest.beyond
        rest, is_remove = table.rest, self.frame.direction is Direction.REMOVE
        self._rest_mass += times * (rest.own if is_remove else rest.base)
        self._log_own += times * (-rest.own).log1p()
        self._log_base += times * (-rest.base).log1p()

    def values(self) -> list[acb]:
        """Return the products as balls."""
        return self._values(self._logs)

    def coefficients(self) -> list[acb]:
        """Return F(s_0) and 2 F(s_k), F(s) = M_T(s) / (s (s + 1)), as balls."""
        if self._kernel is None:
            order, spacing = ball(self.frame.order), self.frame.spacing()
            points = [acb(order, k * spacing) for k in range(self.frame.count + 1)]
            doubled = [acb(0)] + [acb(2).log()] * self.frame.count
            self._kernel = [
                two - s.log() - (s + 1).log() for two, s in zip(doubled, points, strict=True)
            ]
        return self._values(
            [log + kernel for log, kernel in zip(self._logs, self._kernel, strict=True)]
        )

    def _values(self, logs: list[acb]) -> list[acb]:
        values = [log.exp() for log in logs]
        if self.frame.bulk_order is not None:
            return [v * rest.expm1() for v, rest in zip(values, self._rests, strict=True)]
        for k in self._lost:
            values[k] = error_square(logs[k].real.exp())
        return values

    @property
    def beyond(self) -> arb:
        """Bound of the values' modulus over |theta| >= (K + 1) h."""
        whole = self._log_beyond.exp()
        return whole if self.frame.bulk_order is None else whole * self._rest_beyond.expm1()

    @property
    def at_alias(self) -> arb:
        """Bound of the product at the alias order."""
        return self._log_alias.exp()

    @property
    def mass(self) -> arb:
        """Bound of the total mass that the values are the transform of."""
        return arb(1) if self.frame.bulk_order is None else self._rest_mass.min(arb(1))

    @property
    def beyond_bulk(self) -> tuple[arb, arb]:
        """One minus the mass, under P and under Q, of the rounds' bulks together."""
        return -self._log_own.expm1(), -self._log_base.expm1()

    @property
    def at_bulk(self) -> arb:
        """Bound of prod_r B_r^T_r at the bulk order."""
        return self._log_bulk.exp()

    def log_moment(self) -> float:
        """Return a float near log M_T(c), to steer by."""
        return float(self._logs[0].real.mid())


class ContourCurve:
    """Proven bounds of delta(eps) in one direction, from the product of a composition."""

    def __init__(self, product: Product) -> None:
        frame = product.frame
        charge(_WORK_PER_TERM * frame.count)
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
        coefficients = product.coefficients()
        coefficients += [acb(0)] * (self._rows * self._block - len(coefficients))
        self._matrix = acb_mat(self._rows, self._block, coefficients)
        # sum over |k| > K of 1 / |s (s+1)| <= 2 sum 1 / (h k)^2 <= 2 / (h^2 K)
        self._tail = 2 * product.beyond / (self._spacing**2 * frame.count)
        self._below = product.mass / ((self._order * self._period).exp() - 1)
        self._above = (
            chernoff_factor(self._alias_order) * product.at_alias / ((gap * self._period).exp() - 1)
        )
        self._bulk_order, self._bulk = arb(0), arb(0)
        if frame.bulk_order is not None:
            self._bulk_order = ball(frame.bulk_order)
            self._bulk = chernoff_factor(self._bulk_order) * product.at_bulk

    @staticmethod
    def of(frame: Frame, rounds: Sequence[tuple[RoundTable, int]]) -> ContourCurve:
        """Return the curve of a composition, each table taken its number of times."""
        product = Product(frame)
        for table, times in rounds:
            product.add(table, times)
        return ContourCurve(product)

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return proven bounds of delta(eps) in this frame's direction."""
        found = self.transformed(epsilon)
        return DeltaBounds(found.lower, found.upper + self._cut + self.of_bulk(epsilon))

    def transformed(self, epsilon: Fraction) -> DeltaBounds:
        """Return bounds of E[(1 - e^(eps-L))_+] of the transformed measure, at any real eps."""
        charge(_WORK_PER_LOOK * self._rows * self._block)
        eps = ball(epsilon)
        damping = (-self._order * eps).exp() / self._period
        middle = damping * self._sum(eps)
        tail = damping * self._tail
        aliases = self._below + self._above * (-self._alias_order * eps).exp()
        return DeltaBounds(lower=middle - tail - aliases, upper=middle + tail)

    def of_bulk(self, epsilon: Fraction) -> arb:
        """Return a bound of what the bulk alone adds to the remove direction's delta."""
        return self._bulk * (-self._bulk_order * ball(epsilon)).exp()

    def _sum(self, eps: arb) -> arb:
        """Return the real part of sum_k (1 or 2) F(s_k) exp(-i k h eps)."""
        # k = a * block + b: 2 sqrt(K) exponentials and a matrix product instead of K exponentials.
        turn = acb(0, -self._spacing * eps)
        rows = acb_mat(1, self._rows, [(a * self._block * turn).exp() for a in range(self._rows)])
        columns = acb_mat(self._block, 1, [(b * turn).exp() for b in range(self._block)])
        return (rows * (self._matrix * columns))[0, 0].real
