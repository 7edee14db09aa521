"""Choosing a contour in floating point: order, period, length, windows and grids.

Nothing here is trusted. A bad choice gives a wide interval or a refusal, never a wrong one: every
number returned is read as an exact dyadic and its consequences are bounded in ball arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from privagg.errors import CertificationError
from privagg.privacy.certified.mechanism import Direction, Mechanism, Rounds
from privagg.privacy.certified.profile import (
    Array,
    Profile,
    log_integral,
    log_ratio_at,
    log_window,
    profile_of,
)
from privagg.privacy.certified.tables import Frame, Shape
from privagg.privacy.certified.transform import Grid
from privagg.privacy.certified.window import Window

# Every error term is aimed at this share of delta (in nats).
TOLERANCE_NATS = 25.0
_ALIAS_FACTOR = 1.5
# A remote mode is bounded by tail estimates that may be a few nats too large.
_REMOTE_MARGIN = 6.0
_BLURS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.035, 0.025, 0.016)
_SHRINK = (1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.14, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)


@dataclass(frozen=True)
class Effort:
    """How much work a certificate may cost.

    Args:
        max_terms: longest contour (terms on one side).
        max_products: largest terms * nodes of one mechanism's table.
    """

    max_terms: int = 40_000
    max_products: int = 30_000_000


@dataclass(frozen=True)
class Goal:
    """Where on the curve a contour shall be sharp: log delta, and epsilon where it is given."""

    log_delta: float
    epsilon: float | None = None


@dataclass(frozen=True)
class Plan:
    """A frame, the shape of every mechanism, and floats for the search that follows."""

    frame: Frame
    shapes: dict[Mechanism, Shape | None]
    guess: float
    slope: float
    nats: float
    total: float
    effort: Effort


Moment = Callable[[Array], Array]


@dataclass(frozen=True)
class _Part:
    mechanism: Mechanism
    times: int
    profile: Profile | None

    def log_moment(self, orders: Array) -> Array:
        """Return log M(order)^times."""
        if self.profile is None:
            variance = 1 / float(self.mechanism.noise_multiplier) ** 2
            result: Array = self.times * orders * (orders + 1) * variance / 2
            return result
        return self.times * self.profile.log_moment(orders)


def make_plan(
    rounds: Rounds, direction: Direction, goal: Goal, effort: Effort, growth: float = 1.0
) -> Plan:
    """Return a contour for a composition; CertificationError where none is affordable.

    Args:
        growth: the contour shall stay sharp until every number of rounds has grown by this factor.
    """
    total = growth * sum(times for _, times in rounds)
    negligible = goal.log_delta - TOLERANCE_NATS - math.log(total)
    parts = [
        _Part(m, n, None if m.is_gaussian else profile_of(m, direction, negligible))
        for m, n in rounds
    ]

    def moment(orders: Array) -> Array:
        summed: Array = np.sum([part.log_moment(orders) for part in parts], axis=0)
        return summed

    wanted, guess = _best_order(lambda orders: math.sqrt(growth) * moment(orders), goal)
    order, windows = _windows(parts, wanted, growth)

    def windowed_moment(orders: Array) -> Array:
        rows = [_windowed(p, windows[p.mechanism], orders) for p in parts]
        summed: Array = np.sum(rows, axis=0)
        return summed

    at_order = float(windowed_moment(np.array([order]))[0])
    guesses = [guess, guess]
    if goal.epsilon is None:
        moments = np.array([at_order, growth * at_order])
        here = _chernoff_epsilon(np.array([order, order]), moments, goal)
        guesses = [min(float(here[0]), guess), float(here[1]) if growth > 1 else guess]
    grown = guesses[1]
    period, alias = _period(lambda o: growth * windowed_moment(o), order, grown, goal)
    room = goal.log_delta - TOLERANCE_NATS
    peaks = [at_order - order * guesses[0], growth * at_order - order * grown]
    count, beyond = _length(parts, windows, order, period, peaks[0], room, effort)
    nats = TOLERANCE_NATS + math.log(total) + max(0.0, *peaks) - min(0.0, goal.log_delta) + 6
    bits = 64 * math.ceil((1.3 * nats + math.log(1 + count) + 25) / math.log(2) / 64)
    frame = Frame(direction, order, period, count, alias, max(128, bits))
    shapes = {
        part.mechanism: _shape(
            part, windows[part.mechanism], frame, nats, total, beyond.get(part.mechanism), effort
        )
        for part in parts
    }
    return Plan(frame, shapes, max(guesses[0], 0.0), -order, nats, total, effort)


def extend_plan(plan: Plan, mechanism: Mechanism, goal: Goal) -> Shape | None:
    """Return the shape of a further mechanism on a plan's frame; None without subsampling.

    Raises: CertificationError where the frame's order does not suit it: then plan afresh.
    """
    frame = plan.frame
    negligible = goal.log_delta - TOLERANCE_NATS - math.log(plan.total)
    profile = None if mechanism.is_gaussian else profile_of(mechanism, frame.direction, negligible)
    part = _Part(mechanism, max(1, math.ceil(plan.total)), profile)
    order, windows = _windows([part], frame.order, 1.0)
    if order != frame.order:
        raise CertificationError("this mechanism needs another order than the contour has")
    window, line = windows[mechanism], None
    if profile is not None:
        cutoff = np.array([2 * math.pi / frame.period * (frame.count + 1)])
        heights, decay = _decay(profile, window, order, cutoff)
        best = int(np.argmin(decay[:, 0]))
        line = float(heights[best]), float(decay[best, 0])
    return _shape(part, window, frame, plan.nats, plan.total, line, plan.effort)


def _shape(
    part: _Part,
    window: Window,
    frame: Frame,
    nats: float,
    total: float,
    beyond: tuple[float, float] | None,
    effort: Effort,
) -> Shape | None:
    """Return window and grids of one mechanism, from (line height, log decay) beyond K."""
    if part.profile is None or beyond is None:
        return None
    main = _grid(part.profile, window, frame.order, nats, None)
    if main.count * frame.count > effort.max_products:
        raise CertificationError("the contour would be too long for the effort allowed")
    height, decay = beyond
    rough = 6 + math.log(total)
    return Shape(
        window=window,
        main=main,
        beyond=_grid(part.profile, window, frame.order, rough - decay, height),
        alias=_grid(part.profile, window, frame.alias_order, 6 + rough, None),
    )


def _chernoff_epsilon(orders: Array, moments: Array, goal: Goal) -> Array:
    factor = orders * np.log(orders) - (1 + orders) * np.log1p(orders)
    result: Array = (moments + factor - goal.log_delta) / orders
    return result


def _best_order(moment: Moment, goal: Goal) -> tuple[float, float]:
    """Return (saddle order, epsilon there): the order of the best Chernoff bound."""
    low, high = math.log(1e-4), math.log(1e9)
    for _ in range(4):
        orders = np.exp(np.linspace(low, high, 41))
        with np.errstate(over="ignore", invalid="ignore"):
            moments = moment(orders)
        if goal.epsilon is None:
            score = _chernoff_epsilon(orders, moments, goal)
        else:
            factor = orders * np.log(orders) - (1 + orders) * np.log1p(orders)
            score = moments + factor - orders * goal.epsilon
        score = np.where(np.isfinite(score), score, np.inf)
        best = int(np.argmin(score))
        step = (high - low) / 40
        low, high = math.log(orders[best]) - step, math.log(orders[best]) + step
    epsilon = float(score[best]) if goal.epsilon is None else goal.epsilon
    if not math.isfinite(epsilon):
        raise CertificationError("no finite Chernoff bound was found to steer the contour by")
    return float(orders[best]), max(epsilon, 0.0)


def _windows(
    parts: list[_Part], order: float, growth: float
) -> tuple[float, dict[Mechanism, Window]]:
    """Return an order at or below the wanted one, and windows under which M stays small there.

    A lower order means a longer contour, a narrower blur means more nodes: the cheaper wins.
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
        right = profile.reach + 4 + 10 * window.blur
        _, values = profile.windowed(order, window, right)
        return times * float(log_integral(values)) - wanted < 1.5

    open_window = Window()
    if profile.direction is Direction.ADD or fits(open_window):
        return open_window
    for blur in _BLURS:
        window = Window(high=profile.reach * math.sqrt(1 + blur * blur), blur=blur)
        if fits(window):
            return window
    return None


def _windowed(part: _Part, window: Window, orders: Array) -> Array:
    if part.profile is None:
        return part.log_moment(orders)
    right = part.profile.reach + 4 + 10 * window.blur
    values = [
        np.logaddexp(
            float(log_integral(part.profile.windowed(float(order), window, right)[1])),
            part.profile.remote_peak(float(order), window)[1] + _REMOTE_MARGIN,
        )
        for order in orders
    ]
    return part.times * np.array(values)


def _period(moment: Moment, order: float, guess: float, goal: Goal) -> tuple[float, float]:
    """Return (Delta, a) such that both alias sums are small against delta."""
    room = goal.log_delta - TOLERANCE_NATS
    period = -room / order
    factors = np.array([1.05, 1.15, 1.3, 1.5, 1.8, 2.2, 3.0, 4.0])
    orders = order * factors
    moments = moment(orders)
    chernoff = moments - orders * guess
    for _ in range(12):
        score = chernoff - (orders - order) * period
        best = int(np.argmin(score))
        if score[best] <= room or not math.isfinite(score[best]):
            break
        period *= 1.15
    return period, float(orders[best])


def _length(
    parts: list[_Part],
    windows: dict[Mechanism, Window],
    order: float,
    period: float,
    log_peak: float,
    room: float,
    effort: Effort,
) -> tuple[int, dict[Mechanism, tuple[float, float]]]:
    """Return K such that what lies beyond is small; per mechanism (line height, log decay)."""
    spacing = 2 * math.pi / period
    thetas = spacing * np.exp(np.linspace(math.log(2.0), math.log(max(effort.max_terms, 3)), 60))
    total = np.zeros_like(thetas)
    curves: dict[Mechanism, tuple[Array, Array]] = {}
    for part in parts:
        if part.profile is None:
            variance = 1 / float(part.mechanism.noise_multiplier) ** 2
            total += part.times * -(thetas**2) * variance / 2
            continue
        heights, decay = _decay(part.profile, windows[part.mechanism], order, thetas)
        curves[part.mechanism] = heights, decay
        total += part.times * decay.min(axis=0)
    log_tail = total + log_peak + math.log(2 / period) - np.log(spacing * thetas)
    enough = np.nonzero(log_tail <= room)[0]
    index = int(enough[0]) if len(enough) else len(thetas) - 1
    chosen = {}
    for mechanism, (heights, decay) in curves.items():
        best = int(np.argmin(decay[:, index]))
        chosen[mechanism] = float(heights[best]), float(decay[best, index])
    return max(2, math.ceil(thetas[index] / spacing)), chosen


def _decay(
    profile: Profile, window: Window, order: float, thetas: Array
) -> tuple[Array, Array]:
    """Return (heights (m,), log sup |M(c + i theta)| / M(c), shape (m, n)) per line height."""
    curvature = 1.0 if window.is_open else 1 + 1 / window.blur**2
    limit = min(0.49 * math.pi / profile.mu, 7.0 / math.sqrt(curvature))
    heights = limit * np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0])
    right = profile.reach + 4 + 10 * window.blur
    nodes = np.arange(-15.0, right, 0.25)
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
        modulus = power * 0.5 * np.log(real**2 + imag**2) + weight
        phase = np.arctan2(imag, real)
        value = log_integral(modulus[None, :] - thetas[:, None] * phase[None, :])
        rows.append(np.minimum(value + curvature * height**2 / 2 - at_order, 0.0))
    return heights, np.array(rows)


def _grid(
    profile: Profile, window: Window, order: float, nats: float, height: float | None
) -> Grid:
    """Return a grid whose rule errs by about exp(-nats) relative to M(order)."""
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
    floor = float(log_integral(values)) - nats - curvature * line * line / 2 - excess - 4
    inside = np.nonzero(values > floor)[0]
    start = float(nodes[inside[0]]) if len(inside) else -12.0
    last = float(nodes[inside[-1]]) if len(inside) else 12.0
    if math.isfinite(window.high):
        last = max(last, window.high + 0.5)
    last = max(last, split)
    count = math.ceil((last - min(start, -2.0)) / step) + 2
    return Grid(min(start, -2.0), step, count, line, split)


def _add_line(
    profile: Profile, order: float, line: float, nats: float
) -> tuple[float, float, float]:
    """Return (height, log of what |V| may lose, split) for the add direction."""
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
