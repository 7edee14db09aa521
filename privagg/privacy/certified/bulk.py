"""The bulk of small losses: how rarely it reaches epsilon by itself.

A blurred window has no end, and where losses grow like the exponential of an exponential its tail
alone would spoil every moment. So the bulk is cut hard at an edge: what lies beyond counts in full,
what lies left of it has a moment. Argument in proofs/certified-epsilon.md, section 'Taking out the
bulk'.
"""

from __future__ import annotations

import math

from flint import arb

from privagg.privacy.certified.balls import ball, normal_cdf
from privagg.privacy.certified.window import Law, Window
from privagg.privacy.certified.work import charge

_LEFTMOST = -9.0
# Pieces of the line are at most so long, and the log of V^order grows by about so much on one.
_LONGEST, _GROWTH = 0.08, 0.3
_WORK_PER_PIECE = 40.0


def leak(law: Law, window: Window, edge: float) -> arb:
    """Bound the mass, under P, of a window without a left edge beyond `edge`: W falls there.

    Args:
        law: one round's rate and shift.
        window: the bulk's window, without a left edge.
        edge: where the bulk is cut hard, in units of the noise deviation.
    """
    u = ball(edge)
    beyond = (1 - law.rate) * normal_cdf(-u) + law.rate * normal_cdf(law.mu - u)
    return beyond * window.on_real_line(u)


def bulk_moment(law: Law, window: Window, edge: float, order: arb) -> arb:
    """Bound E_P[V^order W] left of `edge`, for a window without a left edge and order > 0.

    V^(order + 1) is convex in V: on every piece of the line it lies below its chord, whose mean
    under Q needs only the piece's masses under Q and P; W is largest at a piece's left end.

    Args:
        law: one round's rate and shift.
        window: the bulk's window, without a left edge.
        edge: where the bulk is cut hard, in units of the noise deviation.
        order: positive, as a ball.
    """
    total, power = arb(0), order + 1
    # r = dN(mu, 1)/dN(0, 1) at the piece's left end; the first piece begins at minus infinity.
    r, base, shifted, height = arb(0), arb(0), arb(0), arb(1)
    low = (power * (1 - law.rate).log()).exp()
    places = _places(law, edge, float(order.mid()))
    charge(_WORK_PER_PIECE * len(places))
    for place in places:
        u = ball(place)
        r_here, base_here, shifted_here = law.likelihood(u), normal_cdf(u), normal_cdf(u - law.mu)
        high = (power * law.log_ratio(u)).exp()
        inside = base_here - base
        # Mean of V - V(left) under Q on the piece, over V(right) - V(left): the rate cancels.
        weight = (shifted_here - shifted - r * inside) / (r_here - r)
        total += height * (low * inside + (high - low) * weight).upper()
        r, base, shifted, low = r_here, base_here, shifted_here, high
        height = window.on_real_line(u).min(arb(1))
    return total


def _places(law: Law, edge: float, order: float) -> list[float]:
    """Return the ends of the pieces, shorter where V^order grows faster; floats only steer."""
    rate, mu = float(law.rate.mid()), float(law.mu.mid())
    places = [_LEFTMOST]
    while places[-1] < edge:
        exponent = min(mu * places[-1] - mu * mu / 2, 600.0)
        steepness = order * mu / (1 + (1 - rate) * math.exp(-exponent) / rate)
        places.append(min(places[-1] + min(_LONGEST, _GROWTH / steepness), edge))
    return places
