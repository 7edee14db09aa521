"""Bounds for the nodes that a trapezoid sum over the real line leaves out.

All bounds are for sums  step * sum |integrand(u_n + it)|  over the nodes beyond an end, with the
integrand of `transform.py` at real order c (an imaginary part only makes it smaller on our line).
Derivation: proofs/certified-epsilon.md, section 'Discarded nodes'.
"""

from __future__ import annotations

import math

from flint import arb

from privagg.privacy.certified.balls import ball
from privagg.privacy.certified.window import Law, Window

_PIECES = 800
_SHORTEST = 0.25
# A piece bounded by exp(-100) needs no finer chords: M(c) is at least about 1.
_NEGLIGIBLE = -100.0


def _log_sup(a: arb, b: arb | None, linear: arb, curvature: arb, centre: arb) -> arb:
    """Return sup over [a, b] of linear * (u - a) - curvature (u - centre)^2 / 2 (+ const 0)."""
    vertex = centre + linear / curvature
    if vertex <= a:
        point = a
    elif b is not None and vertex >= b:
        point = b
    else:
        point = vertex
    return linear * (point - a) - curvature * (point - centre) ** 2 / 2


def remove_right(law: Law, order: arb, window: Window, start: arb, step: arb) -> arb:
    """Bound step * sum phi(u) V(u)^(c+1) W(u) over nodes u > start.

    log V is convex in u, so it lies below its chord on every piece and below its own asymptote
    from the last piece on; phi * W is below a Gaussian right of the window's edge.

    Args:
        law: one round's rate and shift.
        order: c > 0.
        window: W.
        start: last node that is kept.
        step: distance of the nodes.

    Returns: infinity where `start` lies left of the window's right edge.
    """
    edge = ball(window.high) if not math.isinf(window.high) else arb(0)
    if not math.isinf(window.high) and not start.mid() >= edge:
        return arb("inf")
    curvature = window.right_curvature()
    extra = curvature - 1
    # u^2/2 + extra (u - edge)^2/2 = curvature (u - centre)^2/2 + rest
    centre = extra * edge / curvature
    rest = extra * edge**2 / 2 - curvature * centre**2 / 2
    scale = (-rest).exp() / (2 * arb.pi()).sqrt() / (1 if extra.is_zero() else 2)
    total, a, power = arb(0), start.mid(), order + 1
    low, length = law.log_ratio(a), 1.0
    for _ in range(_PIECES):
        if power * law.mu / curvature + centre <= a:
            break
        b = (a + length).mid()
        high = law.log_ratio(b)
        sup = power * low + _log_sup(a, b, power * (high - low) / (b - a), curvature, centre)
        # Shorter chords where the bound still counts, longer ones where it does not.
        if length > _SHORTEST and not sup < _NEGLIGIBLE:
            length = max(length / 4, _SHORTEST)
            continue
        total += (b - a + step) * sup.exp()
        a, low, length = b, high, 1.5 * length
    sup = power * law.log_ratio(a) + _log_sup(a, None, power * law.mu, curvature, centre)
    return scale * (total + sup.exp() * (step + (2 * arb.pi() / curvature).sqrt()))


def remove_left(law: Law, order: arb, window: Window, start: arb) -> arb:
    """Bound step * sum phi(u) V(u)^(c+1) W(u) over nodes u < start, for start < 0.

    V increases in u; W is at most 1 and, left of its left edge, at most W(start).

    Args:
        law: one round's rate and shift.
        order: c > 0.
        window: W.
        start: first node that is kept, below 0.
    """
    return ((order + 1) * law.log_ratio(start)).exp() * cut_left(window, start)


def add_left(law: Law, order: arb, start: arb, step: arb) -> arb:
    """Bound step * sum phi(u) V(u)^-c over nodes u < start.

    log V is convex, so -c log V lies below its tangent at `start`.

    Args:
        law: one round's rate and shift.
        order: c > 0.
        start: first node that is kept.
        step: distance of the nodes.
    """
    linear = order * law.mu * law.weight(start)
    # v = -u turns the left tail into a right tail.
    sup = -order * law.log_ratio(start) + _log_sup(-start, None, linear, arb(1), arb(0))
    return sup.exp() * (step / (2 * arb.pi()).sqrt() + 1)


def add_right(law: Law, order: arb, start: arb) -> arb:
    """Bound step * sum phi(u) V(u)^-c over nodes u > start > 0, V being increasing.

    Args:
        law: one round's rate and shift.
        order: c > 0.
        start: last node that is kept.
    """
    return (-order * law.log_ratio(start)).exp() * _phi_tail(-start)


def cut_left(window: Window, start: arb) -> arb:
    """Bound step * sum phi W over nodes u < start < 0: W <= 1, and rises up to its edge."""
    rises = not math.isinf(window.low) and start <= ball(window.low)
    return (window.on_real_line(start) if rises else arb(1)) * _phi_tail(start)


def cut_right(window: Window, start: arb) -> arb:
    """Bound step * sum phi W over nodes u > start > 0: W <= 1, and falls beyond its edge."""
    falls = not math.isinf(window.high) and start >= ball(window.high)
    return (window.on_real_line(start) if falls else arb(1)) * _phi_tail(-start)


def _phi_tail(start: arb) -> arb:
    """Bound step * sum phi over nodes below a negative start: phi increases there."""
    if not start < 0:
        return arb("inf")
    return (-start / arb(2).sqrt()).erfc() / 2
