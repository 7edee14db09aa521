"""Choosing orders and windows in floating point: how to keep a remote mode out of a transform.

Nothing here is trusted; see planning.py.
"""

from __future__ import annotations

import math

import numpy as np

from privagg.errors import CertificationError
from privagg.privacy.certified.mechanism import Direction, Mechanism
from privagg.privacy.certified.profile import Array, Part, Profile
from privagg.privacy.certified.window import Window

_ALIAS_FACTOR = 1.5
# A remote mode is bounded by tail estimates that may be a few nats too large.
_REMOTE_MARGIN = 6.0
_BLURS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.035, 0.025, 0.016)
_SHRINK = (1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.14, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)


def choose_windows(
    parts: list[Part], order: float, growth: float
) -> tuple[float, dict[Mechanism, Window]]:
    """Return an order at or below the wanted one, and windows under which M stays small there.

    A lower order means a longer contour, a narrower blur means more nodes: the cheaper wins.

    Args:
        parts: the mechanisms with their numbers of rounds and profiles.
        order: the wanted order c.
        growth: numbers of rounds may still grow by this factor, at least 1.

    Raises: CertificationError where no window helps at any affordable order.
    """
    best: tuple[float, float, dict[Mechanism, Window]] | None = None
    for shrink in _SHRINK:
        chosen: dict[Mechanism, Window] = {}
        for part in parts:
            if part.profile is None:
                chosen[part.mechanism] = Window()
                continue
            # The Chernoff bound on the aliases above needs M at an order well above c.
            times = growth * part.times
            window = _window(part.profile, times, _ALIAS_FACTOR * order * shrink)
            if window is None:
                break
            chosen[part.mechanism] = window
        else:
            nodes = sum(1.0 if w.is_open else math.hypot(1, 1 / w.blur) for w in chosen.values())
            cost = nodes * (5 / math.sqrt(shrink) + 1 / shrink)
            if best is None or cost < best[0]:
                best = cost, order * shrink, chosen
            if all(window.is_open for window in chosen.values()):
                break
    if best is None:
        raise CertificationError("every affordable order has its mass in a remote mode")
    return best[1], best[2]


def _window(profile: Profile, times: float, order: float) -> Window | None:
    """Return the cheapest window under which the remote mode does not matter, if any."""
    wanted = times * float(profile.log_moment(np.array([order]))[0])

    def fits(window: Window) -> bool:
        height = profile.remote_peak(order, window)[1] + _REMOTE_MARGIN
        if times * math.exp(min(height - wanted / times, 9.0)) > 0.1:
            return False
        return times * float(profile.log_moment_under(np.array([order]), window)[0]) - wanted < 1.5

    open_window = Window()
    if profile.direction is Direction.ADD or fits(open_window):
        return open_window
    for blur in _BLURS:
        window = Window(high=profile.reach * math.sqrt(1 + blur * blur), blur=blur)
        if fits(window):
            return window
    return None


def windowed(part: Part, window: Window, orders: Array) -> Array:
    """Return log M(order)^times under a window, with what a remote mode may add.

    Args:
        part: a mechanism, its number of rounds and its profile.
        window: which outputs count.
        orders: float64 (m,), positive.

    Returns: float64 (m,).
    """
    if part.profile is None:
        return part.log_moment(orders)
    remote = part.profile.remote_peaks(orders, window)[1] + _REMOTE_MARGIN
    result: Array = part.times * np.logaddexp(part.profile.log_moment_under(orders, window), remote)
    return result
