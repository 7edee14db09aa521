"""What a proof may cost: work is counted before it is done, and alike on every machine.

A unit is about a microsecond of one processor of today. Limits are in units and not in seconds, so
the same question gets the same answer wherever it is asked, however busy the machine is. A method
that does not fit into what is left is refused before it begins, and a blunter one is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from flint import ctx

from privagg.errors import CertificationError

NO_PROOF = (CertificationError, ArithmeticError, ValueError)
"""What an attempt at a proof may end with: floats, which only steer it, may overflow."""

MOST_WORK = 4_000_000
"""Units that the sharp methods may spend on one interval; the blunt ones add little."""


def _scale() -> float:
    """Return what an operation costs at the working precision, relative to 192 bits."""
    return (ctx.prec + 64) / 256


@dataclass
class Meter:
    """A limit of work, and how much of it is spent.

    Attributes:
        most: units allowed.
        spent: units counted so far.
        watch: called after every count.
    """

    most: float
    spent: float = 0.0
    watch: Callable[[], None] | None = None


_meters: ContextVar[tuple[Meter, ...]] = ContextVar("meters", default=())


@contextmanager
def limited(most: float, watch: Callable[[], None] | None = None) -> Iterator[Meter]:
    """Allow `most` units of work inside, and no more than any limit around it allows."""
    meter = Meter(most, watch=watch)
    token = _meters.set((*_meters.get(), meter))
    try:
        yield meter
    finally:
        _meters.reset(token)


def charge(units: float) -> None:
    """Count work that is about to be done, measured in units at 192 bits.

    Raises:
        CertificationError: it does not fit into a limit; nothing is counted then.
    """
    scaled = units * _scale()
    for meter in _meters.get():
        if meter.spent + scaled > meter.most:
            raise CertificationError(
                f"this method would need {meter.spent + scaled:.3g} units of work, "
                f"more than the {meter.most:.3g} allowed"
            )
    _count(scaled)


def count(units: float) -> None:
    """Count work of a method that is never refused, in units at 192 bits."""
    _count(units * _scale())


def _count(units: float) -> None:
    for meter in _meters.get():
        meter.spent += units
        if meter.watch is not None:
            meter.watch()
