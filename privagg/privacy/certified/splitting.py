"""Choosing, in floating point, where to cut off the bulk of small losses.

With few expected participations nearly all of a round's loss sits within about q of zero, and the
transform decays only at |theta| of several 1/q. That bulk alone never reaches epsilon (its
Chernoff bound is far below delta), so it is taken out, and what is left decays at the scale of
epsilon. Nothing here is trusted; see planning.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from privagg.errors import CertificationError
from privagg.privacy.certified.mechanism import Direction, Mechanism, Rounds
from privagg.privacy.certified.planning import (
    ContourPlan,
    Effort,
    Goal,
    best_order,
    choose_period,
)
from privagg.privacy.certified.profile import (
    Array,
    Part,
    Profile,
    log_integral,
    log_window,
    profile_of,
)
from privagg.privacy.certified.sampling import decay, grid
from privagg.privacy.certified.tables import BulkShape, Frame, Shape
from privagg.privacy.certified.window import Window
from privagg.privacy.certified.windowing import windowed

# The loss that still counts as bulk, as a share of epsilon, and the blur of its edge.
SHARES = (0.55, 0.4, 0.27, 0.18, 0.12, 0.08, 0.05, 0.03, 0.018, 0.01)
BLURS = (1.0, 0.6, 0.35, 0.2, 0.12, 0.07, 0.04)
# Nodes of one table at blur 1 without the window's curvature, about; windows need more.
NODES = 90.0
_SHRINKS = (1.0, 0.6, 0.35)


@dataclass(frozen=True)
class Candidate:
    """One choice of order and windows, with what it would cost.

    Attributes:
        cost: rough work of one table, to compare candidates by.
        order: c, real part of the contour.
        bulk_order: order of the Chernoff bound on what the bulk adds.
        period: Delta, in units of epsilon.
        alias: order of the Chernoff bound on the aliases above.
        count: K, terms on one side.
        peak: log of what the rest contributes at the contour's real point, about.
        near: mechanism -> window round bulk and rest together.
        bulk: mechanism -> window of the bulk.
    """

    cost: float
    order: float
    bulk_order: float
    period: float
    alias: float
    count: int
    peak: float
    near: dict[Mechanism, Window]
    bulk: dict[Mechanism, Window]


def make_split_plan(rounds: Rounds, goal: Goal, effort: Effort) -> ContourPlan:
    """Return a contour without the bulk, for the remove direction, sharp near goal.epsilon.

    Args:
        rounds: (mechanism, number of rounds) pairs, as `normalised` returns them.
        goal: log delta, and the positive epsilon to be sharp at, which is required here.
        effort: how long the contour may become.

    Raises: CertificationError where no cut makes the contour affordable.
    """
    if not goal.epsilon:
        raise CertificationError("a split contour must be told which epsilon to aim at")
    total = sum(times for _, times in rounds)
    negligible = goal.room - math.log(total)
    parts = [
        Part(m, n, None if m.is_gaussian else profile_of(m, Direction.REMOVE, negligible))
        for m, n in rounds
    ]

    def moment(orders: Array) -> Array:
        summed: Array = np.sum([part.log_moment(orders) for part in parts], axis=0)
        return summed

    wanted, _ = best_order(moment, goal)
    candidates = list(_candidates(parts, wanted, goal, effort))
    if not candidates:
        raise CertificationError("no cut between bulk and rest is affordable")
    return _plan_of(min(candidates, key=lambda c: c.cost), parts, goal, effort)


def _candidates(parts: list[Part], order: float, goal: Goal, effort: Effort) -> Iterator[Candidate]:
    epsilon, room = goal.epsilon or 0.0, goal.room
    for blur in BLURS:
        for share in SHARES:
            bulk = {
                part.mechanism: Window(high=edge_of(part, share * epsilon), blur=blur)
                for part in parts
                if part.profile is not None
            }
            near = {
                part.mechanism: Window(high=part.profile.reach * math.hypot(1, blur), blur=blur)
                if part.profile is not None
                else Window()
                for part in parts
            }
            if any(w.high > near[m].high - 1.0 for m, w in bulk.items()):
                continue
            bulk_order = order_of_bulk(parts, bulk, epsilon, room)
            if bulk_order is None:
                continue
            for shrink in _SHRINKS:
                found = _rated(parts, order * shrink, goal, effort, near, bulk, bulk_order)
                if found is not None:
                    yield found
            # A cut at smaller losses leaves more to the rest, which only decays later.
            break


def edge_of(part: Part, loss: float) -> float:
    """Return the place u at which the round's loss reaches `loss`."""
    profile = part.profile
    if profile is None:
        return math.inf
    excess = math.expm1(loss) / profile.rate if loss < 600 else math.inf
    exponent = math.log1p(excess) if excess < math.inf else loss - math.log(profile.rate)
    return exponent / profile.mu + profile.mu / 2


def _rated(
    parts: list[Part],
    order: float,
    goal: Goal,
    effort: Effort,
    near: dict[Mechanism, Window],
    bulk: dict[Mechanism, Window],
    bulk_order: float,
) -> Candidate | None:
    """Return the choice with its cost, or None where a remote mode counts or K is too long."""
    epsilon, room = goal.epsilon or 0.0, goal.room

    def moment(orders: Array) -> Array:
        rows = [windowed(part, near[part.mechanism], orders) for part in parts]
        summed: Array = np.sum(rows, axis=0)
        return summed

    hard = sum(float(part.log_moment(np.array([order]))[0]) for part in parts)
    at_order = float(moment(np.array([order]))[0])
    if at_order > hard + 2.0:
        return None
    log_mass = math.log(max(sum(_outside(part, bulk) for part in parts), 1e-300))
    period, alias = choose_period(moment, order, epsilon, goal, min(log_mass, 0.0))
    peak = at_order - order * epsilon
    count, log_rest = split_length(parts, near, bulk, order, period, peak, room, effort)
    if count is None:
        return None
    blur = next(iter(bulk.values())).blur
    nodes = NODES * math.hypot(1, 1 / blur)
    if nodes * count > effort.max_products:
        return None
    cost = nodes * (5 * math.sqrt(count) + 0.06 * count)
    return Candidate(cost, order, bulk_order, period, alias, count, peak + log_rest, near, bulk)


def _outside(part: Part, bulk: dict[Mechanism, Window]) -> float:
    """Return roughly the probability that one of this part's rounds leaves the bulk."""
    profile = part.profile
    if profile is None:
        return 0.0
    edge = bulk[part.mechanism].high / math.hypot(1, bulk[part.mechanism].blur)
    tail = 0.5 * math.erfc(edge / math.sqrt(2))
    shifted = 0.5 * math.erfc((edge - profile.mu) / math.sqrt(2))
    return part.times * (tail + profile.rate * shifted)


def order_of_bulk(
    parts: list[Part], bulk: dict[Mechanism, Window], epsilon: float, room: float
) -> float | None:
    """Return the order at which the bulk's Chernoff bound at epsilon is best, if good enough.

    Args:
        parts: the mechanisms with their numbers of rounds and profiles.
        bulk: mechanism -> window of the bulk.
        epsilon: positive; where the bulk shall not matter.
        room: log of what the bulk may add to delta.

    Returns: None where the best bound is above `room`.
    """
    orders = np.exp(np.linspace(math.log(2.0), math.log(3000.0), 24)) / epsilon
    moments = np.zeros_like(orders)
    for part in parts:
        if part.profile is None:
            moments += part.log_moment(orders)
        else:
            window = bulk[part.mechanism]
            edge = hard_edge(part.profile, window, room - math.log(part.times))
            moments += part.times * part.profile.log_moment_upto(orders, window, edge)
    factor = orders * np.log(orders) - (1 + orders) * np.log1p(orders)
    score = moments + factor - orders * epsilon
    best = int(np.argmin(score))
    return float(orders[best]) if score[best] <= room else None


def hard_edge(profile: Profile, window: Window, room: float) -> float:
    """Return where so little is left of a bulk's window that it may count in full.

    Args:
        profile: one subsampled round.
        window: the bulk's window.
        room: log of the probability that may count in full, for one round.
    """
    nodes = np.linspace(window.high, window.high + 14 * window.blur, 57)
    left = log_window(window, nodes) + profile.log_tail(nodes)
    enough = np.nonzero(left <= room)[0]
    return float(nodes[enough[0]] if len(enough) else nodes[-1])


def split_length(
    parts: list[Part],
    near: dict[Mechanism, Window],
    bulk: dict[Mechanism, Window],
    order: float,
    period: float,
    log_peak: float,
    room: float,
    effort: Effort,
) -> tuple[int | None, float]:
    """Return (K or None, log of the rest's share of the whole transform at the order).

    Args:
        parts: the mechanisms with their numbers of rounds and profiles.
        near: mechanism -> window round bulk and rest together.
        bulk: mechanism -> window of the bulk.
        order: c, real part of the contour.
        period: Delta, in units of epsilon.
        log_peak: log of M(c) e^(-c epsilon) of all rounds.
        room: log of what the omitted terms may add to delta.
        effort: bounds K.

    Returns: K is None where even the longest contour allowed is too short.
    """
    spacing = 2 * math.pi / period
    thetas = spacing * np.exp(np.linspace(math.log(2.0), math.log(max(effort.max_terms, 3)), 60))
    total, at_order = np.full_like(thetas, -np.inf), -math.inf
    for part in parts:
        if part.profile is None:
            continue
        beside = rest_window(near, bulk, part.mechanism)
        right = part.profile.reach + 4 + 10 * beside.blur
        rest = float(log_integral(part.profile.windowed(order, beside, right)[1]))
        share = (
            math.log(part.times)
            + rest
            - float(part.log_moment(np.array([order]))[0]) / (part.times)
        )
        drops = decay(part.profile, beside, order, thetas)[1].min(axis=0)
        total = np.logaddexp(total, share + drops)
        at_order = float(np.logaddexp(at_order, share))
    log_tail = total + log_peak + math.log(2 / period) - np.log(spacing * thetas)
    enough = np.nonzero(log_tail <= room)[0]
    if not len(enough):
        return None, 0.0
    return max(2, math.ceil(thetas[int(enough[0])] / spacing)), min(at_order, 0.0)


def rest_window(
    near: dict[Mechanism, Window], bulk: dict[Mechanism, Window], mechanism: Mechanism
) -> Window:
    """Return the window of what lies right of a mechanism's bulk.

    Args:
        near: mechanism -> window round bulk and rest together.
        bulk: mechanism -> window of the bulk.
        mechanism: one that both know.
    """
    edge = bulk[mechanism]
    return Window(low=edge.high, high=near[mechanism].high, blur=edge.blur)


def _plan_of(choice: Candidate, parts: list[Part], goal: Goal, effort: Effort) -> ContourPlan:
    total = sum(part.times for part in parts)
    nats = goal.tolerance + math.log(total) + max(0.0, choice.peak - goal.log_delta) + 8
    bits = 64 * math.ceil((1.3 * nats + math.log(1 + choice.count) + 45) / math.log(2) / 64)
    frame = Frame(
        Direction.REMOVE, choice.order, choice.period, choice.count, choice.alias,
        max(192, bits), choice.bulk_order,
    )  # fmt: skip
    shapes = {
        part.mechanism: split_shape(part, choice, frame, nats, total, goal.room) for part in parts
    }
    return ContourPlan(
        frame, shapes, goal.epsilon or 0.0, -choice.order, nats, float(total), effort
    )


def split_shape(
    part: Part,
    choice: Candidate,
    frame: Frame,
    nats: float,
    total: float,
    room: float,
) -> Shape | None:
    """Return windows and grids of one mechanism; None without subsampling.

    Args:
        part: the mechanism, its number of rounds and its profile.
        choice: the windows.
        frame: the contour.
        nats: the main grids' rule shall err by exp(-nats) relative to M(order), about.
        total: number of rounds of all mechanisms.
        room: log of what one error may add to delta.
    """
    profile = part.profile
    if profile is None:
        return None
    bulk, near = choice.bulk[part.mechanism], choice.near[part.mechanism]
    beside = rest_window(choice.near, choice.bulk, part.mechanism)
    order, rough = frame.order, 10 + math.log(total)
    cutoff = np.array([2 * math.pi / frame.period * (frame.count + 1)])

    def beyond(window: Window) -> tuple[float, float]:
        heights, drops = decay(profile, window, order, cutoff)
        best = int(np.argmin(drops[:, 0]))
        return float(heights[best]), float(drops[best, 0])

    rest_height, rest_drop = beyond(beside)
    bulk_height, bulk_drop = beyond(bulk)
    return Shape(
        window=near,
        main=grid(profile, beside, order, nats, None),
        beyond=grid(profile, beside, order, rough - rest_drop, rest_height),
        alias=grid(profile, near, frame.alias_order, rough, None),
        bulk=BulkShape(
            window=bulk,
            main=grid(profile, bulk, order, nats, None),
            beyond=grid(profile, bulk, order, rough - bulk_drop, bulk_height),
            edge=hard_edge(profile, bulk, room - math.log(part.times)),
        ),
    )
