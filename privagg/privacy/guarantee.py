"""A number is never alone: epsilon with everything that makes it mean something."""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from privagg.privacy.accountant import Accountant
from privagg.privacy.events import Adjacency, DpEvent, ExactDecimal, ExactOrInfinite
from privagg.privacy.unit import Unit


class Observer(BaseModel):
    """Somebody who looks, and what a round shows them about one site's unit.

    Args:
        name: stable identifier, e.g. `model-users`, `aggregator+key-holder`.
        colluding_sites: k, other sites that share all they know with the observer.
        sees: what reaches the observer, in plain words.
        event: the round as this observer sees it.
        assumptions: what must be true for the guarantee to hold; never provable by privagg alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    colluding_sites: int
    sees: str
    event: DpEvent
    assumptions: tuple[str, ...]


class Guarantee(BaseModel):
    """(epsilon, delta) with unit, neighbouring relation, observer, method and assumptions.

    Attributes:
        epsilon: upper bound, rounded up; `Infinity` where nothing is promised.
        epsilon_lower: a proven lower end of the same quantity, where the method gives one.
        delta: the probability mass outside the bound.
        certified: True where `epsilon` is proved in ball arithmetic, not only computed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: ExactOrInfinite
    epsilon_lower: ExactDecimal | None
    delta: ExactDecimal
    unit: Unit
    """Whose presence or absence is hidden."""
    adjacency: Adjacency
    """Neighbouring relation."""
    observer: str
    """Identifier of whom it holds against."""
    colluding_sites: int
    """k, other sites that share all they know with the observer."""
    method: str
    """What gave the bound."""
    certified: bool
    assumptions: tuple[str, ...]
    """What must be true for it to hold."""


def guarantee(
    observer: Observer, event: DpEvent, delta: Decimal, unit: Unit, accountant: Accountant
) -> Guarantee:
    """What `accountant` proves against `observer` when the rounds compose to `event`.

    Args:
        observer: supplies name, number of colluding sites and assumptions.
        event: composition over the rounds, as this observer sees them.
        delta: in (0, 1).
        unit: whose presence or absence is hidden.
        accountant: computes the bound.
    """
    if event.is_private:
        bound = accountant.epsilon(event, delta)
        upper, lower = bound.upper, bound.lower
        method, certified = bound.method, bound.certified
    else:
        upper, lower, method, certified = Decimal("Infinity"), None, "no guarantee", True
    return Guarantee(
        epsilon=upper,
        epsilon_lower=lower,
        delta=delta,
        unit=unit,
        adjacency=event.adjacency,
        observer=observer.name,
        colluding_sites=observer.colluding_sites,
        method=method,
        certified=certified,
        assumptions=observer.assumptions,
    )
