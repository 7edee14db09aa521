"""Choosing, in floating point, a contour for the mirror: order, period, and whether to cut a bulk.

Nothing here is trusted; see planning.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from privagg.errors import CertificationError
from privagg.privacy.certified.mechanism import Direction, Mechanism, Rounds
from privagg.privacy.certified.planning import (
    ContourPlan,
    Effort,
    Goal,
    plain_length,
    plain_shape,
)
from privagg.privacy.certified.profile import Array, Part, profile_of
from privagg.privacy.certified.sampling import LITTLE_NATS
from privagg.privacy.certified.splitting import (
    BLURS,
    SHARES,
    Candidate,
    edge_of,
    order_of_bulk,
    split_length,
    split_shape,
)
from privagg.privacy.certified.tables import Frame, Shape
from privagg.privacy.certified.window import Window

# A plain contour of so many terms costs less than looking for a better one.
_SHORT = 600
# About two seconds of processor time.
_MOST_COST = 1e6
_ORDERS = np.exp(np.linspace(math.log(0.5), math.log(1e7), 240))
_SPREADS = np.exp(np.linspace(math.log(1e-2), math.log(1e7), 160))


class _Wanted:
    """What a mirror shall be sharp at, and the portraits of its rounds in both directions."""

    def __init__(self, rounds: Rounds, goal: Goal, effort: Effort) -> None:
        if not goal.epsilon:
            raise CertificationError("a mirror must be told which epsilon to aim at")
        self.epsilon, self.effort, self.room = goal.epsilon, effort, goal.room
        self.total = float(sum(times for _, times in rounds))
        # The mirrored expectation is near 1 and multiplied by e^epsilon.
        self.nats = self.epsilon - goal.room
        negligible = -self.nats - math.log(self.total)

        def parts(direction: Direction) -> list[Part]:
            return [
                Part(m, n, None if m.is_gaussian else profile_of(m, direction, negligible))
                for m, n in rounds
            ]

        self.added, self.removed = parts(Direction.ADD), parts(Direction.REMOVE)
        self.open = {m: Window() for m, _ in rounds}

    def moment(self, orders: Array) -> Array:
        """Return log M(order) of all rounds together."""
        summed: Array = np.sum([part.log_moment(orders) for part in self.added], axis=0)
        return summed

    def lines(self, log_mass: float) -> tuple[float, float, float]:
        """Return (order, period, alias order) of the shortest period with small aliases."""
        rates = [float(p.mechanism.sampling_rate) for p in self.added if p.profile is not None]
        steepest = LITTLE_NATS / -math.log1p(-max(rates, default=0.5))
        orders = _ORDERS / self.epsilon
        orders = orders[orders <= max(steepest, 2 * orders[0])]
        moments = self.moment(orders)
        periods = self.epsilon * (1 + _SPREADS)
        lows = max(self.nats + log_mass, 3.0) / periods
        score = moments + orders * self.epsilon
        score = score[None, :] - (orders[None, :] - lows[:, None]) * periods[:, None]
        score = np.where(orders[None, :] > 1.01 * lows[:, None], score, np.inf)
        enough = np.nonzero(score.min(axis=1) <= -self.nats)[0]
        if not len(enough):
            raise CertificationError("no period keeps the mirror's aliases small")
        row = int(enough[0])
        return float(lows[row]), float(periods[row]), float(orders[int(score[row].argmin())])


def make_mirror_plan(rounds: Rounds, goal: Goal, effort: Effort) -> ContourPlan:
    """Return a contour of the add direction that is sharp at -goal.epsilon, with or without a bulk.

    Args:
        rounds: (mechanism, number of rounds) pairs, as `normalised` returns them.
        goal: log delta, and the positive epsilon to be sharp at, which is required here.
        effort: how long the contour may become.

    Raises: CertificationError where none is affordable.
    """
    wanted = _Wanted(rounds, goal, effort)
    plain, cost = None, math.inf
    with suppress(CertificationError):
        plain = _plain(wanted)
        if not plain.is_blunt:
            cost = _cost(wanted, None, plain.frame.count, plain.nats)
    if plain is not None and plain.frame.count <= _SHORT and cost <= _MOST_COST:
        return plain
    best = min(_candidates(wanted), key=lambda c: c.cost, default=None)
    if best is not None and best.cost < min(cost, _MOST_COST):
        return _split(wanted, best)
    if plain is None or cost > _MOST_COST:
        raise CertificationError("a mirror would be too long for the effort allowed")
    return plain


def _plain(wanted: _Wanted) -> ContourPlan:
    order, period, alias = wanted.lines(0.0)
    peak = float(wanted.moment(np.array([order]))[0]) + order * wanted.epsilon
    count, beyond, is_blunt = plain_length(
        wanted.added, wanted.open, order, period, peak, -wanted.nats, wanted.effort
    )
    nats = wanted.nats + math.log(wanted.total) + max(peak, 0.0) + 6
    frame = Frame(Direction.ADD, order, period, count, alias, _bits(nats, count))
    shapes = {
        part.mechanism: plain_shape(
            part, Window(), frame, nats, wanted.total, beyond.get(part.mechanism), wanted.effort
        )
        for part in wanted.added
    }
    return _plan(wanted, frame, shapes, nats, is_blunt=is_blunt)


def _candidates(wanted: _Wanted) -> Iterator[Candidate]:
    for blur in BLURS:
        for share in SHARES:
            bulk = {
                part.mechanism: Window(high=edge_of(part, share * wanted.epsilon), blur=blur)
                for part in wanted.added
                if part.profile is not None
            }
            reaches = (p.profile.reach for p in wanted.added if p.profile is not None)
            if any(w.high > r - 1 for w, r in zip(bulk.values(), reaches, strict=True)):
                continue
            bulk_order = order_of_bulk(wanted.removed, bulk, wanted.epsilon, wanted.room)
            if bulk_order is None:
                continue
            found = _rated(wanted, bulk, bulk_order)
            if found is not None:
                yield found
            # A cut at smaller losses leaves more to the rest, which only decays later.
            break


def _rated(wanted: _Wanted, bulk: dict[Mechanism, Window], bulk_order: float) -> Candidate | None:
    """Return the choice with its cost, or None where K is too long."""
    mass = sum(
        part.times * float(bulk[part.mechanism].cut_base().mid())
        for part in wanted.added
        if part.profile is not None
    )
    log_mass = min(math.log(max(mass, 1e-300)), 0.0)
    try:
        order, period, alias = wanted.lines(log_mass)
    except CertificationError:
        return None
    peak = float(wanted.moment(np.array([order]))[0]) + order * wanted.epsilon
    count, _ = split_length(
        wanted.added, wanted.open, bulk, order, period, peak, -wanted.nats, wanted.effort
    )
    if count is None:
        return None
    blur = next(iter(bulk.values())).blur
    cost = _cost(wanted, blur, count, wanted.nats + peak)
    return Candidate(
        cost, order, bulk_order, period, alias, count, peak + log_mass, wanted.open, bulk
    )


def _cost(wanted: _Wanted, blur: float | None, count: int, nats: float) -> float:
    """Return roughly the exponentials and products of one table; two with a bulk."""
    curvature = 1.0 if blur is None else 1 + 1 / blur**2
    nodes = 0.0
    for part in wanted.added:
        if part.profile is not None:
            line = min(math.sqrt(nats / (2 * curvature)), math.pi / (4 * part.profile.mu))
            step = 2 * math.pi * line / (nats + 2 * curvature * line * line)
            nodes += (part.profile.reach + 10) / step * (1 if blur is None else 2)
    return nodes * (5 * math.sqrt(count) + 0.06 * count) + 60.0 * count


def _split(wanted: _Wanted, choice: Candidate) -> ContourPlan:
    nats = wanted.nats + math.log(wanted.total) + max(choice.peak, 0.0) + 10
    frame = Frame(
        Direction.ADD, choice.order, choice.period, choice.count, choice.alias,
        _bits(nats, choice.count), choice.bulk_order,
    )  # fmt: skip
    shapes = {
        part.mechanism: split_shape(part, choice, frame, nats, wanted.total, wanted.room)
        for part in wanted.added
    }
    return _plan(wanted, frame, shapes, nats, is_blunt=False)


def _bits(nats: float, count: int) -> int:
    return max(192, 64 * math.ceil((1.3 * nats + math.log(1 + count) + 45) / math.log(2) / 64))


def _plan(
    wanted: _Wanted,
    frame: Frame,
    shapes: dict[Mechanism, Shape | None],
    nats: float,
    *,
    is_blunt: bool,
) -> ContourPlan:
    return ContourPlan(
        frame, shapes, wanted.epsilon, -3 / wanted.epsilon, nats, wanted.total, wanted.effort,
        is_blunt,
    )  # fmt: skip
