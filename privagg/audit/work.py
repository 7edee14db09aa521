"""How much a verification may compute, whatever bundle it is handed.

Every question to an accountant has a price, about what it costs in milliseconds of processor time.
The certified accountant counts its work itself, for others the price follows from the event; none
looks at a clock. So the same bundle gets the same verdicts on every machine, however fast or busy;
what no longer fits is not decided, by name.

What answers cost that follow from opened sums, their program says (`AnsweringProgram.work`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal

from privagg.errors import WorkLimitError
from privagg.privacy.events import DpEvent, LaplaceMechanism, Mechanism

DEFAULT_WORK = 60
"""Of `verify`, in about seconds of processor time."""

_ANY, _EACH = 4, 2
"""Of a proven interval, at all and for each mechanism, beside the work that its proof counts."""

# Of charges that share no contour, as far as can be told beforehand.
_ALONE = 600
_OFTEN = Decimal("1e-3")
_RENYI = 100
# Of rounds that integer Laplace noise is convolved with, anew after almost every round.
_CONVOLVED = 150
# Milliseconds for each unit of a Laplace mechanism's scale.
_SCALE = 2
# Microseconds for a term of a ledger's total, added up and hashed again with every charge.
_TERM = 60
# Microseconds: a cell of one round's distribution, and one of the composition's.
_ONE_CELL, _COMPOSED_CELL = 8, 1
_MOST_CELLS = 20_000_000


@dataclass
class Work:
    """What is spent, and what may be.

    Attributes:
        limit: seconds.
        watch: called after every price taken, with the share of the limit that is spent.
        spent: milliseconds so far.
    """

    limit: int = DEFAULT_WORK
    watch: Callable[[float], None] | None = None
    spent: int = field(default=0, init=False)
    _ends: list[int] = field(default_factory=list, init=False)

    def require(self, price: int) -> None:
        """Let a question of this price pass.

        Raises:
            WorkLimitError: it does not fit into what is left; says what would decide it.
        """
        if self.spent + price > self._end:
            raise WorkLimitError(
                f"beyond the work limit of {self.limit} (about seconds of processor time); "
                f"`privagg verify --work {10 * self.limit}` computes more"
            )

    def take(self, price: int) -> None:
        """Count a question that was answered."""
        self.spent += price
        if self.watch is not None:
            self.watch(min(self.spent / (1000 * self.limit), 1.0))

    @contextmanager
    def portion(self, parts: int) -> Iterator[None]:
        """Inside, no more may be spent than one of `parts` equal parts of what is left."""
        self._ends.append(self.spent + self.left // parts)
        try:
            yield
        finally:
            self._ends.pop()

    @property
    def left(self) -> int:
        """Milliseconds that may still be spent here."""
        return max(self._end - self.spent, 0)

    @property
    def _end(self) -> int:
        return self._ends[-1] if self._ends else 1000 * self.limit


def least_price(event: DpEvent) -> int:
    """Of a proven interval whose proof needs hardly any work."""
    return _ANY + _EACH * len(event.terms) + _laplace_price(event)


def growing_price(totals: Sequence[DpEvent]) -> int:
    """Roughly, of proven intervals of a composition that grows, each event holding the one before.

    Contours are planned afresh when the rounds have doubled; where records hardly ever take part
    there may be none to follow.
    """
    price, planned = 0, 0
    for event in dict.fromkeys(totals):
        rounds = sum(term.count for term in event.terms)
        rare = any(each.sampling_rate < _OFTEN for each in _gaussians(event))
        afresh = rare or rounds > 2 * planned
        planned = rounds if afresh else planned
        price += _ALONE if afresh else least_price(event)
        price += _CONVOLVED if _laplace_price(event) else 0
    return price


def replay_price(terms: int) -> int:
    """Of adding up charges whose totals, one after the other, have so many terms together."""
    return _TERM * terms // 1000


def renyi_price(event: DpEvent) -> int:
    """Of Renyi orders."""
    return _RENYI * max(len(event.terms), 1)


def distribution_price(event: DpEvent, epsilon: Decimal, interval: Decimal) -> int:
    """Of a privacy-loss distribution on a grid of this interval, where epsilon is about this.

    Args:
        event: the composition.
        epsilon: positive, about the answer.
        interval: grid step of the loss, in nats.

    Returns:
        Milliseconds.

    Raises:
        WorkLimitError: its grid would not fit into memory.
    """
    noises = [each.noise_multiplier for each in _gaussians(event)]
    rounds = sum((9 / noise + 1 / (2 * noise * noise) for noise in noises), Decimal(0)) / interval
    composed = epsilon * (len(event.terms) + 1) / interval
    if not composed + rounds <= _MOST_CELLS:
        raise WorkLimitError("a privacy-loss distribution would need too fine a grid")
    cells = int(_ONE_CELL * rounds + _COMPOSED_CELL * composed) // 1000
    return cells + _RENYI + _laplace_price(event)


def _laplace_price(event: DpEvent) -> int:
    """Of integer Laplace noise, whose law is computed value by value."""
    scales = (
        term.mechanism.scale for term in event.terms if isinstance(term.mechanism, LaplaceMechanism)
    )
    return sum(int(_SCALE * scale) + 1 for scale in scales)


def _gaussians(event: DpEvent) -> list[Mechanism]:
    return [each.mechanism for each in event.terms if isinstance(each.mechanism, Mechanism)]
