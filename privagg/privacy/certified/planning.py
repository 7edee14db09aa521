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
from privagg.privacy.certified.profile import Array, Part, profile_of
from privagg.privacy.certified.sampling import decay, grid
from privagg.privacy.certified.tables import Frame, Shape
from privagg.privacy.certified.window import Window
from privagg.privacy.certified.windowing import choose_windows, windowed

# Every error term is aimed at this share of delta (in nats).
TOLERANCE_NATS = 25.0


@dataclass(frozen=True)
class Effort:
    """How much work a certificate may cost.

    Args:
        max_terms: longest contour (terms on one side).
        max_products: largest terms * nodes of one mechanism's table.
        rough_terms: length of the stand-in where even `max_terms` would not be enough.
    """

    max_terms: int = 40_000
    max_products: int = 20_000_000
    rough_terms: int = 2000


@dataclass(frozen=True)
class Goal:
    """Where on the curve a contour shall be sharp.

    Attributes:
        log_delta: natural logarithm of the target delta.
        epsilon: the epsilon to be sharp at; None takes the one of the best Chernoff bound at delta.
        tolerance: how far below delta each error shall lie, in nats.
    """

    log_delta: float
    epsilon: float | None = None
    tolerance: float = TOLERANCE_NATS

    @property
    def room(self) -> float:
        """Log of what one error may cost."""
        return self.log_delta - self.tolerance


@dataclass(frozen=True)
class ContourPlan:
    """A frame, the shape of every mechanism, and floats for the search that follows.

    Attributes:
        frame: the contour that all rounds share.
        shapes: mechanism -> how its integrals are sampled; None without subsampling.
        guess: near epsilon; where the search starts.
        slope: near d log(delta) / d epsilon there, negative.
        nats: a grid's rule shall err by exp(-nats) relative to M(order), about.
        total: number of rounds for which the contour shall stay sharp.
        effort: what it was planned within.
        is_blunt: what lies beyond K is not small: no affordable contour is long enough.
    """

    frame: Frame
    shapes: dict[Mechanism, Shape | None]
    guess: float
    slope: float
    nats: float
    total: float
    effort: Effort
    is_blunt: bool = False


Moment = Callable[[Array], Array]


def make_plan(
    rounds: Rounds, direction: Direction, goal: Goal, effort: Effort, growth: float = 1.0
) -> ContourPlan:
    """Return a contour for a composition; CertificationError where none is affordable.

    Args:
        rounds: (mechanism, number of rounds) pairs, as `normalised` returns them; at least one.
        direction: which of the two dominating pairs.
        goal: where the contour shall be sharp.
        effort: how long it may become.
        growth: the contour shall stay sharp until every number of rounds has grown by this factor.
    """
    total = growth * sum(times for _, times in rounds)
    negligible = goal.room - math.log(total)
    parts = [
        Part(m, n, None if m.is_gaussian else profile_of(m, direction, negligible))
        for m, n in rounds
    ]

    def moment(orders: Array) -> Array:
        summed: Array = np.sum([part.log_moment(orders) for part in parts], axis=0)
        return summed

    wanted, guess = best_order(lambda orders: math.sqrt(growth) * moment(orders), goal)
    order, windows = choose_windows(parts, wanted, growth)

    def windowed_moment(orders: Array) -> Array:
        rows = [windowed(p, windows[p.mechanism], orders) for p in parts]
        summed: Array = np.sum(rows, axis=0)
        return summed

    at_order = float(windowed_moment(np.array([order]))[0])
    guesses = [guess, guess]
    if goal.epsilon is None:
        moments = np.array([at_order, growth * at_order])
        here = chernoff_epsilon(np.array([order, order]), moments, goal)
        guesses = [min(float(here[0]), guess), float(here[1]) if growth > 1 else guess]
    grown = guesses[1]
    period, alias = choose_period(lambda o: growth * windowed_moment(o), order, grown, goal)
    room = goal.room
    peaks = [at_order - order * guesses[0], growth * at_order - order * grown]
    count, beyond, is_blunt = plain_length(parts, windows, order, period, peaks[0], room, effort)
    nats = goal.tolerance + math.log(total) + max(0.0, *peaks) - min(0.0, goal.log_delta) + 6
    bits = 64 * math.ceil((1.3 * nats + math.log(1 + count) + 25) / math.log(2) / 64)
    frame = Frame(direction, order, period, count, alias, max(128, bits))
    shapes = {
        part.mechanism: plain_shape(
            part, windows[part.mechanism], frame, nats, total, beyond.get(part.mechanism), effort
        )
        for part in parts
    }
    return ContourPlan(frame, shapes, max(guesses[0], 0.0), -order, nats, total, effort, is_blunt)


def extend_plan(plan: ContourPlan, mechanism: Mechanism, goal: Goal) -> Shape | None:
    """Return the shape of a further mechanism on a plan's frame; None without subsampling.

    Args:
        plan: what the mechanism is to be added to.
        mechanism: one that the plan has no shape for.
        goal: the goal that the plan was made for.

    Raises: CertificationError where the frame's order does not suit it: then plan afresh.
    """
    frame = plan.frame
    negligible = goal.room - math.log(plan.total)
    profile = None if mechanism.is_gaussian else profile_of(mechanism, frame.direction, negligible)
    part = Part(mechanism, max(1, math.ceil(plan.total)), profile)
    order, windows = choose_windows([part], frame.order, 1.0)
    if order != frame.order:
        raise CertificationError("this mechanism needs another order than the contour has")
    window, line = windows[mechanism], None
    if profile is not None:
        cutoff = np.array([2 * math.pi / frame.period * (frame.count + 1)])
        heights, drops = decay(profile, window, order, cutoff)
        best = int(np.argmin(drops[:, 0]))
        line = float(heights[best]), float(drops[best, 0])
    return plain_shape(part, window, frame, plan.nats, plan.total, line, plan.effort)


def plain_shape(
    part: Part,
    window: Window,
    frame: Frame,
    nats: float,
    total: float,
    beyond: tuple[float, float] | None,
    effort: Effort,
) -> Shape | None:
    """Return window and grids of one mechanism; None without subsampling.

    Args:
        part: the mechanism, its number of rounds and its profile.
        window: keeps a remote mode out of the transform.
        frame: the contour.
        nats: the main grid's rule shall err by exp(-nats) relative to M(order), about.
        total: number of rounds for which the contour shall stay sharp.
        beyond: (line height, log decay) of the transform beyond K; None without subsampling.
        effort: bounds the products of terms and nodes.

    Raises: CertificationError where the table would take more products than the effort allows.
    """
    if part.profile is None or beyond is None:
        return None
    main = grid(part.profile, window, frame.order, nats, None)
    if main.count * frame.count > effort.max_products:
        raise CertificationError("the contour would be too long for the effort allowed")
    height, drop = beyond
    rough = 6 + math.log(total)
    return Shape(
        window=window,
        main=main,
        beyond=grid(part.profile, window, frame.order, rough - drop, height),
        alias=grid(part.profile, window, frame.alias_order, 6 + rough, None),
    )


def chernoff_epsilon(orders: Array, moments: Array, goal: Goal) -> Array:
    """Return, for each order, the epsilon at which its Chernoff bound meets delta.

    The bound is delta(eps) <= M(a) e^(-a eps) a^a / (1 + a)^(1 + a).

    Args:
        orders: float64 (m,), positive.
        moments: float64 (m,), log M at the orders.
        goal: gives log delta.

    Returns: float64 (m,), possibly negative.
    """
    factor = orders * np.log(orders) - (1 + orders) * np.log1p(orders)
    result: Array = (moments + factor - goal.log_delta) / orders
    return result


def best_order(moment: Moment, goal: Goal) -> tuple[float, float]:
    """Return (saddle order, epsilon there): the order of the best Chernoff bound."""
    low, high = math.log(1e-4), math.log(1e9)
    for _ in range(4):
        orders = np.exp(np.linspace(low, high, 41))
        with np.errstate(over="ignore", invalid="ignore"):
            moments = moment(orders)
        if goal.epsilon is None:
            score = chernoff_epsilon(orders, moments, goal)
        else:
            factor = orders * np.log(orders) - (1 + orders) * np.log1p(orders)
            score = moments + factor - orders * goal.epsilon
            # Nobody asks for more than delta: an order beyond that only makes the grids finer.
            score = np.where(score < goal.room, np.inf, score)
        score = np.where(np.isfinite(score), score, np.inf)
        best = int(np.argmin(score))
        step = (high - low) / 40
        low, high = math.log(orders[best]) - step, math.log(orders[best]) + step
    epsilon = float(score[best]) if goal.epsilon is None else goal.epsilon
    if not math.isfinite(epsilon):
        raise CertificationError("no finite Chernoff bound was found to steer the contour by")
    return float(orders[best]), max(epsilon, 0.0)


def choose_period(
    moment: Moment, order: float, guess: float, goal: Goal, log_mass: float = 0.0
) -> tuple[float, float]:
    """Return (Delta, a) such that both alias sums are small against delta.

    Args:
        moment: log M of all rounds at float64 (m,) orders.
        order: c, real part of the contour.
        guess: near epsilon.
        goal: gives delta and the tolerance.
        log_mass: log of the mass that is transformed; below 0 where the bulk was taken out.
    """
    room = goal.room
    period = max(log_mass - room, 3.0) / order
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


def plain_length(
    parts: list[Part],
    windows: dict[Mechanism, Window],
    order: float,
    period: float,
    log_peak: float,
    room: float,
    effort: Effort,
) -> tuple[int, dict[Mechanism, tuple[float, float]], bool]:
    """Return K, (line height, log decay beyond) per mechanism, and whether K is too short.

    Args:
        parts: the mechanisms with their numbers of rounds and profiles.
        windows: mechanism -> window; needed for the subsampled ones.
        order: c, real part of the contour.
        period: Delta, in units of epsilon.
        log_peak: log of M(c) e^(-c epsilon) of all rounds.
        room: log of what the omitted terms may add to delta.
        effort: bounds K.
    """
    spacing = 2 * math.pi / period
    thetas = spacing * np.exp(np.linspace(math.log(2.0), math.log(max(effort.max_terms, 3)), 60))
    total = np.zeros_like(thetas)
    curves: dict[Mechanism, tuple[Array, Array]] = {}
    for part in parts:
        if part.profile is None:
            variance = 1 / float(part.mechanism.noise_multiplier) ** 2
            total += part.times * -(thetas**2) * variance / 2
            continue
        heights, drops = decay(part.profile, windows[part.mechanism], order, thetas)
        curves[part.mechanism] = heights, drops
        total += part.times * drops.min(axis=0)
    log_tail = total + log_peak + math.log(2 / period) - np.log(spacing * thetas)
    enough = np.nonzero(log_tail <= room)[0]
    # Where even the longest contour is too short, a short one gives a first rough answer.
    index = (
        int(enough[0])
        if len(enough)
        else int(np.searchsorted(thetas, effort.rough_terms * spacing))
    )
    index = min(index, len(thetas) - 1)
    chosen = {}
    for mechanism, (heights, drops) in curves.items():
        best = int(np.argmin(drops[:, index]))
        chosen[mechanism] = float(heights[best]), float(drops[best, index])
    return max(2, math.ceil(thetas[index] / spacing)), chosen, not len(enough)
