"""One round on a contour: its transform's balls at every point, with all its bounds.

A frame fixes the contour; a shape says how one mechanism's integrals are sampled on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flint import acb, arb

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import ball
from privagg.privacy.certified.bulk import bulk_moment, leak
from privagg.privacy.certified.mechanism import Direction, Mechanism
from privagg.privacy.certified.transform import (
    Line,
    TrapezoidGrid,
    gaussian_transform,
    law_of,
    subsampled_transform,
    sup_beyond,
)
from privagg.privacy.certified.window import Window


@dataclass(frozen=True)
class Frame:
    """What every round on one contour shares. All floats are read as exact dyadics.

    Args:
        direction: which of the two dominating pairs.
        order: real part c of the contour, positive.
        period: the alias period Delta in units of epsilon, positive.
        count: K; the sum runs over |k| <= K.
        alias_order: a > c, the order of the Chernoff bound on the aliases above.
        precision_bits: working precision.
        bulk_order: None for a plain contour. Otherwise the near-atom of small losses is taken out
            of every transform, and this is the order of the Chernoff bound on what it adds.
    """

    direction: Direction
    order: float
    period: float
    count: int
    alias_order: float
    precision_bits: int
    bulk_order: float | None = None

    def spacing(self) -> arb:
        """Return h = 2 pi / Delta."""
        return 2 * arb.pi() / ball(self.period)


@dataclass(frozen=True)
class BulkShape:
    """How the bulk is sampled where it is taken out.

    Attributes:
        window: the bulk's window, without a left edge.
        main: grid of its transform.
        beyond: grid of the bound on its transform beyond K.
        edge: in noise units. Right of it what the window leaves counts in full; left of it the bulk
            has its moment.
    """

    window: Window
    main: TrapezoidGrid
    beyond: TrapezoidGrid
    edge: float


@dataclass(frozen=True)
class Shape:
    """How one mechanism's integrals are sampled on a frame: a window and three grids.

    Attributes:
        window: keeps a remote mode out of the transform.
        main: grid of the transform; with a bulk, of what lies right of it and inside `window`.
        beyond: grid of the bound on the same beyond K.
        alias: grid of the moment at the frame's alias order.
        bulk: how the bulk is sampled; None on a plain frame.
    """

    window: Window
    main: TrapezoidGrid
    beyond: TrapezoidGrid
    alias: TrapezoidGrid
    bulk: BulkShape | None = None


@dataclass(frozen=True)
class Rest:
    """What lies beyond the bulk, relative to the bulk.

    Attributes:
        logs: log(1 + R(s_k) / B(s_k)), the rest's transform over the bulk's.
        beyond: log(1 + sup |R| / sup bound of |B|) over |theta| >= (K + 1) h.
        own: probability mass, under P, outside the bulk.
        base: the same under Q.
    """

    logs: list[acb]
    beyond: arb
    own: arb
    base: arb


@dataclass(frozen=True)
class RoundTable:
    """One round of one mechanism on a frame.

    Attributes:
        logs: log M(s_k) for k = 0 ... K, as balls, on any branch (powers are integers); with a
            rest, of the bulk's transform alone.
        lost: the k at which the ball of M(s_k) holds 0; `logs` has a bound of the modulus there.
        beyond: bound of |M(c + i theta)| over all |theta| >= (K + 1) h; likewise.
        at_alias: bound of M(alias_order), of the whole.
        cut: probability mass, under P, that the window removes.
        rest: on a frame with a bulk order, what this mechanism has beyond its bulk.
        at_bulk: on such a frame, bound of the bulk's M(bulk_order) in the remove direction.
        leak: on such a frame, bound of the bulk's probability mass, under P, that at_bulk lacks.
    """

    logs: list[acb]
    lost: frozenset[int]
    beyond: arb
    at_alias: arb
    cut: arb
    rest: Rest | None = None
    at_bulk: arb | None = None
    leak: arb | None = None

    @staticmethod
    def of(
        values: Sequence[acb],
        beyond: arb,
        at_alias: arb,
        cut: arb,
        *,
        rest: Rest | None = None,
        at_bulk: arb | None = None,
        leak: arb | None = None,
    ) -> RoundTable:
        """Return the table of a round whose transform has these balls.

        Args:
            values: M(s_k) for k = 0 ... K; with a rest, of the bulk alone.
            beyond: bound of the same over all |theta| >= (K + 1) h.
            at_alias: bound of M(alias_order).
            cut: probability mass, under P, that the window removes.
            rest: what lies beyond the bulk.
            at_bulk: bound of the bulk's M(bulk_order).
            leak: probability mass, under P, that `at_bulk` lacks.
        """
        logs, lost = [], set()
        for k, value in enumerate(values):
            if value.abs_lower() > 0:
                # Away from the cut of the logarithm: turn values in the left half plane first.
                left = value.real < 0
                logs.append((-value).log() + acb(0, arb.pi()) if left else value.log())
            else:
                logs.append(acb(value.abs_upper().log()))
                lost.add(k)
        return RoundTable(logs, frozenset(lost), beyond, at_alias, cut, rest, at_bulk, leak)


def round_table(mechanism: Mechanism, frame: Frame, shape: Shape | None) -> RoundTable:
    """Return the table of one mechanism, at the current precision.

    Args:
        mechanism: one round.
        frame: the contour.
        shape: window and grids; None only without subsampling.

    Raises: CertificationError where frame and shape do not belong together, and where a grid is too
        coarse.
    """
    line = Line(ball(frame.order), frame.spacing(), frame.count)
    alias_line = Line(ball(frame.alias_order), frame.spacing(), 0)
    cutoff = (frame.count + 1) * line.spacing
    if shape is None:
        if not mechanism.is_gaussian:
            raise CertificationError("a subsampled round needs a window and grids")
        return RoundTable.of(
            values=gaussian_transform(mechanism, line).values,
            beyond=_gaussian_beyond(mechanism, line.order, cutoff),
            at_alias=gaussian_transform(mechanism, alias_line).at_order,
            cut=arb(0),
            at_bulk=_gaussian_bulk(mechanism, frame),
        )
    if (shape.bulk is None) != (frame.bulk_order is None):
        raise CertificationError("on one frame either every subsampled round has a bulk or none")
    if shape.bulk is not None:
        return _split_table(mechanism, frame, shape, shape.bulk)
    direction, window = frame.direction, shape.window
    main = subsampled_transform(mechanism, direction, window, line, shape.main)
    alias = subsampled_transform(mechanism, direction, window, alias_line, shape.alias)
    cut = window.cut_mass(law_of(mechanism))
    beyond = sup_beyond(
        mechanism, direction, window, line.order, cutoff, shape.beyond, main.at_order
    )
    return RoundTable.of(main.values, beyond, alias.at_order, cut)


def _split_table(mechanism: Mechanism, frame: Frame, shape: Shape, bulk: BulkShape) -> RoundTable:
    """Return the table of a round as bulk and rest; proofs, section 'Taking out the bulk'."""
    window = shape.window
    same_blur = window.is_open or window.blur == bulk.window.blur
    if not (math.isinf(bulk.window.low) and bulk.window.high < window.high and same_blur):
        raise CertificationError("the bulk must end left of the window, with the same blur")
    direction = frame.direction
    line = Line(ball(frame.order), frame.spacing(), frame.count)
    cutoff = (frame.count + 1) * line.spacing
    beside = Window(low=bulk.window.high, high=window.high, blur=bulk.window.blur)
    parts, sups = [], []
    for part, main, beyond in (
        (bulk.window, bulk.main, bulk.beyond),
        (beside, shape.main, shape.beyond),
    ):
        transform = subsampled_transform(mechanism, direction, part, line, main)
        parts.append(transform.values)
        sups.append(
            sup_beyond(mechanism, direction, part, line.order, cutoff, beyond, transform.at_order)
        )
    rest = Rest(
        logs=[(r / b).log1p() for b, r in zip(*parts, strict=True)],
        beyond=(sups[1] / sups[0]).log1p(),
        own=bulk.window.cut_mass(law_of(mechanism)),
        base=bulk.window.cut_base(),
    )
    alias_line = Line(ball(frame.alias_order), line.spacing, 0)
    alias = subsampled_transform(mechanism, direction, window, alias_line, shape.alias)
    law, bulk_order = law_of(mechanism), ball(frame.bulk_order or 0.0)
    return RoundTable.of(
        values=parts[0],
        beyond=sups[0],
        at_alias=alias.at_order,
        cut=window.cut_mass(law),
        rest=rest,
        at_bulk=bulk_moment(law, bulk.window, bulk.edge, bulk_order),
        leak=leak(law, bulk.window, bulk.edge),
    )


def _gaussian_bulk(mechanism: Mechanism, frame: Frame) -> arb | None:
    """Return M(bulk_order) of a round without subsampling, which is all bulk."""
    if frame.bulk_order is None:
        return None
    line = Line(ball(frame.bulk_order), frame.spacing(), 0)
    return gaussian_transform(mechanism, line).at_order


def _gaussian_beyond(mechanism: Mechanism, order: arb, cutoff: arb) -> arb:
    half = 1 / (2 * ball(mechanism.noise_multiplier) ** 2)
    return ((order * (order + 1) - cutoff**2) * half).exp().upper()
