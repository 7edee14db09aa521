"""One round's moment transform M(s) = E[exp(s L)] along a vertical line, with a proven error.

For the pair with loss L = log V, V(u) = 1 - q + q exp(mu u - mu^2/2), u standard normal under Q:

    remove:  M(s) = integral phi(u) V(u)^(s+1) W(u) du
    add:     M(s) = integral phi(u) V(u)^(-s) du

at s_k = c + i k h, by the trapezoid rule on the line Im u = +t (remove) or -t (add), where the
integrand shrinks with k. Every error term is derived in proofs/certified-epsilon.md, section
'The transform by the trapezoid rule'.

Source: Trefethen & Weideman, "The Exponentially Convergent Trapezoidal Rule", SIAM Review 56(3),
2014, on why few nodes are enough for an integrand that is analytic in a strip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flint import acb, acb_mat, arb

from privagg.errors import CertificationError
from privagg.privacy.certified import tails
from privagg.privacy.certified.balls import ball, error_square
from privagg.privacy.certified.mechanism import Direction, Mechanism
from privagg.privacy.certified.window import Law, Window
from privagg.privacy.certified.work import charge


@dataclass(frozen=True)
class TrapezoidGrid:
    """Where the trapezoid rule samples: u_n = start + n * step, on the line |Im u| = height.

    Args:
        start: leftmost node, negative.
        step: distance of the nodes.
        count: number of nodes.
        height: distance t of the line from the real axis; 2 * mu * t must stay below pi.
        split: add direction only: where the bound on the shifted line is taken in two parts.
    """

    start: float
    step: float
    count: int
    height: float
    split: float = 0.0


@dataclass(frozen=True)
class Line:
    """The points s_k = order + i * k * spacing, k = 0 ... count.

    Attributes:
        order: c, positive.
        spacing: h, positive.
        count: K, at least 0.
    """

    order: arb
    spacing: arb
    count: int


@dataclass(frozen=True)
class Transform:
    """M(s_k) as balls, and an upper bound of M at the real point s_0."""

    values: list[acb]
    at_order: arb


def law_of(mechanism: Mechanism) -> Law:
    """Return the round's rate q and mu = 1 / noise multiplier as balls."""
    return Law(rate=ball(mechanism.sampling_rate), mu=1 / ball(mechanism.noise_multiplier))


def gaussian_transform(mechanism: Mechanism, line: Line) -> Transform:
    """Return M(s) = exp(s (s + 1) / 2 sigma^2) of a round without subsampling, either direction."""
    half = 1 / (2 * ball(mechanism.noise_multiplier) ** 2)
    values = []
    for k in range(line.count + 1):
        s = acb(line.order, k * line.spacing)
        values.append((s * (s + 1) * half).exp())
    return Transform(values=values, at_order=values[0].real)


def subsampled_transform(
    mechanism: Mechanism, direction: Direction, window: Window, line: Line, grid: TrapezoidGrid
) -> Transform:
    """Return M(s_k) of a subsampled round, each ball widened by every error of the rule.

    Args:
        mechanism: one round with a sampling rate below 1.
        direction: which of the two dominating pairs.
        window: W, which outputs count.
        line: the points s_k.
        grid: nodes of the rule.

    Guarantees: each value encloses the integral above; `at_order` bounds it from above at s_0.
    Raises: CertificationError where the grid leaves the region of analyticity or the error bound
        exceeds the value, so that nothing can be said.
    """
    charge(_node_work(window, grid, _WEIGHING) + _sum_work(grid.count, line.count))
    law = law_of(mechanism)
    nodes = _Nodes(law, direction, window, line.order, grid)
    raw = _power_sums(nodes.weights(), nodes.exponents(line.spacing), line.count)
    share, offset, omitted = nodes.errors()
    at_order = _solved(raw[0].abs_upper(), share, offset, omitted)
    error = share * at_order + offset + omitted
    slack = error_square(error)
    return Transform(values=[value + slack for value in raw], at_order=at_order.upper())


def sup_beyond(
    mechanism: Mechanism,
    direction: Direction,
    window: Window,
    order: arb,
    cutoff: arb,
    grid: TrapezoidGrid,
    at_order: arb,
) -> arb:
    """Return an upper bound of |M(order + i theta)| over all |theta| >= cutoff.

    On the shifted line |V^(i theta)| = exp(-|theta arg V|) with arg V of one sign, so the modulus
    of the integrand at theta = cutoff majorises every later one; its integral is computed by a
    further trapezoid rule. Section 'Everything beyond K'.

    Args:
        mechanism: one round with a sampling rate below 1.
        direction: which of the two dominating pairs.
        window: W, which outputs count.
        order: c > 0.
        cutoff: positive.
        grid: nodes of the further rule.
        at_order: a proven bound of M(order), such as `Transform.at_order`.

    Raises: CertificationError where the grid leaves the region of analyticity.
    """
    charge(_node_work(window, grid, _BOUNDING))
    nodes = _Nodes(law_of(mechanism), direction, window, order, grid)
    damped = arb(0)
    for modulus, angle in nodes.moduli():
        damped += modulus * (-cutoff * angle).exp()
    share, offset, omitted = nodes.errors()
    if not (share > 0 and at_order > 0):
        raise CertificationError("the bound beyond the contour needs a positive M(c)")
    # |M(c + i theta)| <= M(c) holds everywhere, whatever this grid is worth.
    return arb((damped + omitted + offset + share * at_order).abs_upper()).min(at_order)


def _solved(total: arb, share: arb, offset: arb, omitted: arb) -> arb:
    """Return a bound of M(c) from M(c) <= total + omitted + offset + share * M(c)."""
    # Below 1 the inequality says nothing; a half keeps well away from that.
    if not share < 0.5:
        raise CertificationError("the grid is too coarse: the rule's error exceeds its value")
    bound = (total + omitted + offset) / (1 - share)
    if not bound.is_finite():
        raise CertificationError("the transform's error bound is not finite on this grid")
    return bound


class _Nodes:
    """The integrand at the grid's nodes, and the error bounds that belong to the grid."""

    def __init__(
        self, law: Law, direction: Direction, window: Window, order: arb, grid: TrapezoidGrid
    ) -> None:
        self._law, self._direction, self._window = law, direction, window
        self._order, self._grid = order, grid
        self._step, self._height = ball(grid.step), ball(grid.height)
        if not (2 * law.mu * self._height < arb.pi() and self._height > 0 and self._step > 0):
            raise CertificationError("the grid leaves the strip in which log V is analytic")
        if not (order > 0 and ball(grid.start) < 0 and grid.count > 0):
            raise CertificationError("the order must be positive, the grid begin below 0")
        self._curvature = window.curvature()
        sign = 1 if direction is Direction.REMOVE else -1
        self._points = [
            acb(ball(grid.start) + n * self._step, sign * self._height) for n in range(grid.count)
        ]
        mu, rate = law.mu, law.rate
        self._logs = [(1 - rate + rate * (mu * (z - mu / 2)).exp()).log() for z in self._points]

    def _power(self) -> arb:
        return self._order + 1 if self._direction is Direction.REMOVE else -self._order

    def weights(self) -> list[acb]:
        """Return step * phi(z) V(z)^(c+1 or -c) W(z) at every node."""
        scale = self._step / (2 * arb.pi()).sqrt()
        power = self._power()
        plain = [
            scale * (power * log - z * z / 2).exp()
            for z, log in zip(self._points, self._logs, strict=True)
        ]
        if self._window.is_open:
            return plain
        return [w * self._window.value(z) for w, z in zip(plain, self._points, strict=True)]

    def exponents(self, spacing: arb) -> list[acb]:
        """Return x_n with V(z_n)^(+-i k h) = exp(k x_n); Re x_n <= 0 on our line."""
        unit = acb(0, spacing if self._direction is Direction.REMOVE else -spacing)
        return [unit * log for log in self._logs]

    def moduli(self) -> list[tuple[arb, arb]]:
        """Return (majorant of the integrand's modulus at real order, |arg V|) at every node."""
        scale = self._step / (2 * arb.pi()).sqrt()
        scale *= (self._curvature * self._height**2 / 2).exp()
        power = self._power()
        result = []
        for z, log in zip(self._points, self._logs, strict=True):
            u = z.real
            modulus = scale * (power * log.real - u * u / 2).exp()
            if not self._window.is_open:
                modulus *= self._window.on_real_line(u)
            result.append((modulus, abs(log.imag)))
        return result

    def errors(self) -> tuple[arb, arb, arb]:
        """Return (share, offset, omitted); the error is at most share * M(c) + offset + omitted.

        share and offset bound the rule's own error (aliases in u), omitted the discarded nodes.
        """
        t, g = self._height, self._curvature
        denominator = (2 * arb.pi() * t / self._step).exp() - 1
        growth = (2 * g * t * t).exp()
        start, last = ball(self._grid.start), self._points[-1].real
        lift = (g * t * t / 2).exp()
        if self._direction is Direction.REMOVE:
            left = tails.remove_left(self._law, self._order, self._window, start)
            right = tails.remove_right(self._law, self._order, self._window, last, self._step)
            return (growth + 1) / denominator, arb(0), lift * (left + right)
        ways = [self._add_errors_by_share(denominator, growth, lift)]
        if 4 * self._law.mu * t <= arb.pi():
            ways.append(self._add_errors_by_rate(denominator, growth, lift))
        return min(ways, key=lambda way: float(sum(way, arb(0)).upper()))

    def _add_errors_by_share(
        self, denominator: arb, growth: arb, lift: arb
    ) -> tuple[arb, arb, arb]:
        """Return `errors` of the add direction from the share of |V| that a shift may cost."""
        start, last = ball(self._grid.start), self._points[-1].real
        angle = self._law.mu * self._height
        inner, outer, rest = self._loss_of_modulus(2 * angle)
        share = (1 + growth * inner) / denominator
        offset = growth * outer * rest / denominator
        left = tails.add_left(self._law, self._order, start, self._step)
        right = tails.add_right(self._law, self._order, last)
        left_loss = self._pointwise_loss(angle, start)
        omitted = lift * (left_loss * left + self._pointwise_loss(angle, None) * right)
        return share, offset, omitted

    def _add_errors_by_rate(self, denominator: arb, growth: arb, lift: arb) -> tuple[arb, arb, arb]:
        """Return `errors` of the add direction where the shift keeps Re V at 1 - q or more."""
        most = (-self._order * (1 - self._law.rate).log()).exp()
        offset = growth * most * self._window.mass() / denominator
        start, last = ball(self._grid.start), self._points[-1].real
        left = most * tails.cut_left(self._window, start)
        real = self._law.real_part(last, self._law.mu * self._height)
        right = (-self._order * real.log()).exp() * tails.cut_right(self._window, last)
        return 1 / denominator, offset, lift * (left + right)

    def _pointwise_loss(self, angle: arb, upto: arb | None) -> arb:
        """Return kappa with |V(u + i angle/mu)|^-c <= kappa V(u)^-c, for u <= upto (or any u)."""
        worst = arb(1) / 4
        if upto is not None:
            weight = self._law.weight(upto)
            if weight <= 0.5:
                worst = weight * (1 - weight)
        return ((1 - 2 * worst * (1 - angle.cos())).log() * (-self._order / 2)).exp()

    def _loss_of_modulus(self, angle: arb) -> tuple[arb, arb, arb]:
        """Return (inner, outer, rest): integral of |V|^-c phi <= inner * M(c) + outer * rest.

        Left of the split, V loses little of its modulus off the real line; right of it at most
        cos(angle/2), on an integral of at most `rest`.
        """
        split = ball(self._grid.split)
        if not split > 0:
            return self._pointwise_loss(angle, None), arb(0), arb(0)
        rest = tails.add_right(self._law, self._order, split)
        return self._pointwise_loss(angle, split), self._pointwise_loss(angle, None), rest


# Units of work at one node under a window of none, one or two edges: as a ball, and as a bound.
_WEIGHING, _BOUNDING = (10, 48, 118), (9, 18, 38)


def _node_work(window: Window, grid: TrapezoidGrid, units: tuple[int, int, int]) -> float:
    """Return the units of work that the integrand at all nodes costs."""
    return grid.count * units[math.isfinite(window.low) + math.isfinite(window.high)]


def _sum_work(nodes: int, count: int) -> float:
    """Return the units of work of `_power_sums`."""
    return nodes * (0.06 * (count + 1) + 6.5 * math.sqrt(count + 1))


def _power_sums(weights: list[acb], exponents: list[acb], count: int) -> list[acb]:
    """Return [sum_n weights_n exp(k exponents_n) for k = 0 ... count].

    k is split as a * block + b, so that only 2 sqrt(count) exponentials per node are needed and
    no power is reached by repeated multiplication, whose rectangular balls would blow up.
    """
    block = math.isqrt(count) + 1
    rows = count // block + 1
    size = len(weights)
    left = [
        weight * (a * block * exponent).exp()
        for a in range(rows)
        for weight, exponent in zip(weights, exponents, strict=True)
    ]
    right = [(b * exponent).exp() for exponent in exponents for b in range(block)]
    product = acb_mat(rows, size, left) * acb_mat(size, block, right)
    values: list[acb] = product.entries()[: count + 1]
    return values
