"""Choosing the trapezoid rule's lines and nodes in floating point.

Nothing here is trusted; see planning.py.
"""

from __future__ import annotations

import math

import numpy as np

from privagg.privacy.certified.mechanism import Direction
from privagg.privacy.certified.profile import (
    Array,
    Profile,
    log_integral,
    log_ratio_at,
    log_window,
)
from privagg.privacy.certified.transform import TrapezoidGrid
from privagg.privacy.certified.window import Window
from privagg.privacy.certified.work import charge

# Units of work for one node at one place on the line, all heights together.
_WORK_PER_PLACE = 0.5

# More than so many nats lost off the line are worth a closer look at where they are lost.
LITTLE_NATS = 16.0


def decay(profile: Profile, window: Window, order: float, thetas: Array) -> tuple[Array, Array]:
    """Return (heights (m,), log sup |M(c + i theta)| / M(c), shape (m, n)) per line height.

    Args:
        profile: one subsampled round.
        window: which outputs count.
        order: c, real part of the contour.
        thetas: float64 (n,), positive imaginary parts.
    """
    curvature = 1.0 if window.is_open else 1 + 1 / window.blur**2
    share = 0.2499 if _loses_little(profile, order) else 0.49
    limit = min(share * math.pi / profile.mu, 12.0 / math.sqrt(curvature))
    heights = limit * np.array([0.01, 0.03, 0.06, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0])
    right = profile.reach + 4 + 10 * window.blur
    nodes = np.arange(-15.0, right, 0.25)
    charge(_WORK_PER_PLACE * len(thetas) * len(nodes))
    shifted = np.exp(np.minimum(profile.mu * nodes - profile.mu**2 / 2, 600.0)) * profile.rate
    weight = log_window(window, nodes) - nodes**2 / 2
    sign = 1.0 if profile.direction is Direction.REMOVE else -1.0
    power = order + 1 if sign > 0 else -order
    plain = power * log_ratio_at(profile.rate, profile.mu, nodes) + weight
    at_order = float(log_integral(plain))
    rows = []
    for height in heights:
        angle = profile.mu * height
        real, imag = 1 - profile.rate + shifted * math.cos(angle), shifted * math.sin(angle)
        modulus = power * np.log(np.hypot(real, imag)) + weight
        phase = np.arctan2(imag, real)
        value = log_integral(modulus[None, :] - thetas[:, None] * phase[None, :])
        rows.append(np.minimum(value + curvature * height**2 / 2 - at_order, 0.0))
    return heights, np.array(rows)


def grid(
    profile: Profile, window: Window, order: float, nats: float, height: float | None
) -> TrapezoidGrid:
    """Return a grid whose rule errs by about exp(-nats) relative to M(order).

    Args:
        profile: one subsampled round.
        window: which outputs count.
        order: real order at which the rule must be accurate.
        nats: accuracy relative to M(order), in nats.
        height: distance of the line from the real axis, in noise units; None takes the best.
    """
    curvature = 1.0 if window.is_open else 1 + 1 / window.blur**2
    ideal = math.sqrt(nats / (2 * curvature)) if height is None else height
    line = min(ideal, 0.49 * math.pi / profile.mu)
    excess, split = 0.0, 0.0
    if profile.direction is Direction.ADD:
        line, excess, split = _add_line(profile, order, line, nats)
    step = 2 * math.pi * line / (nats + 2 * curvature * line * line + excess)
    right = profile.reach + 4 + 10 * window.blur
    place, height_there = profile.remote_peak(order, window)
    if height_there > -math.inf:
        right = max(right, min(place, 4e4))
    right = max(right, split)
    nodes, values = profile.windowed(order, window, right + 20)
    if profile.direction is Direction.ADD and not split:
        values = _off_the_line(profile, order, line, nodes) + log_window(window, nodes)
    floor = float(log_integral(values)) - nats - curvature * line * line / 2 - excess - 4
    inside = np.nonzero(values > floor)[0]
    start = float(nodes[inside[0]]) if len(inside) else -12.0
    last = float(nodes[inside[-1]]) if len(inside) else 12.0
    if math.isfinite(window.high):
        last = max(last, window.high + 0.5)
    last = max(last, split)
    count = math.ceil((last - min(start, -2.0)) / step) + 2
    return TrapezoidGrid(min(start, -2.0), step, count, line, split)


def _loses_little(profile: Profile, order: float) -> bool:
    """Return whether even (1 - q)^-c, which bounds |V|^-c up to pi sigma / 4, is small."""
    is_add = profile.direction is Direction.ADD
    return is_add and -order * math.log1p(-profile.rate) <= LITTLE_NATS


def _off_the_line(profile: Profile, order: float, line: float, nodes: Array) -> Array:
    """Return the log of phi (Re V)^-c at height `line`, which bounds what is left out there."""
    exponent = np.minimum(profile.mu * nodes - profile.mu**2 / 2, 600.0)
    shifted = profile.rate * np.exp(exponent) * math.cos(profile.mu * line)
    result: Array = -order * np.log1p(shifted - profile.rate) - nodes**2 / 2
    return result


def _add_line(
    profile: Profile, order: float, line: float, nats: float
) -> tuple[float, float, float]:
    """Return (height, log of what |V| may lose, split) for the add direction."""
    if _loses_little(profile, order):
        most = -order * math.log1p(-profile.rate)
        return min(line, 0.2499 * math.pi / profile.mu), most, 0.0
    for _ in range(20):
        half = profile.mu * line
        worst = -order * math.log(max(math.cos(half), 1e-9))
        split = math.sqrt(2 * (nats + worst)) + 1
        weight = min(profile.rate * math.exp(min(profile.mu * split, 50.0)), 0.5)
        inner = -order / 2 * math.log1p(-2 * weight * (1 - weight) * (1 - math.cos(2 * half)))
        if inner <= nats / 3:
            return line, inner, split
        line *= 0.8
    return line, nats, split
