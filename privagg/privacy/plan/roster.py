"""Who takes part, and when: the sites of a plan, and its rounds, cut where sites join or leave.

A schedule is part of the plan, so that its digest pins who takes part in which round, and every
owner approves it before round 1. The rounds between two changes are a *roster epoch*. Each epoch is
planned as a job of its own sites would be: shares of the noise, thresholds and events are sized to
whoever is there, and an epoch in which nobody's noise would be counted on is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from privagg.errors import PlanError

MOST_EPOCHS = 256
"""Of a plan: each is planned as a job of its own, and a stranger's plan is read before anything
vouches for it."""

SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]

DatasetName = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$")]
"""A data set's public name, of ASCII: two that look the same are the same. Empty: the site's."""


class SiteTerms(BaseModel):
    """One institution's public facts, as everybody agreed to them.

    Args:
        name: how messages and reports call the site.
        dataset: public name of the data set whose budget is charged; defaults to the name.
        records: declared number of records; public configuration, never a private length.
        weight: integer weight of the site's contribution, applied before encryption.
        first_round, last_round: of the rounds that it takes part in; None from the beginning, and
            to the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SiteName
    dataset: DatasetName = ""
    records: int = Field(ge=1, le=10**9)
    weight: int = Field(default=1, ge=1, le=10**9)
    first_round: int | None = Field(default=None, ge=1, le=10**6)
    last_round: int | None = Field(default=None, ge=1, le=10**6)

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As a plan's: sites that stay look as they did before any could join or leave."""
        return {name: value for name, value in handler(self).items() if value is not None}

    def presence(self, rounds: int) -> tuple[int, int]:
        """Its first and its last round in a job of so many."""
        return self.first_round or 1, self.last_round or rounds

    @property
    def stays(self) -> bool:
        """Whether it is there from the beginning to the end."""
        return self.first_round is None and self.last_round is None

    @model_validator(mode="before")
    @classmethod
    def _dataset_defaults_to_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("dataset"):
            return {**values, "dataset": values.get("name", "")}
        return values


class Epoch(NamedTuple):
    """Rounds between two changes of the roster.

    Args:
        first: its first round; it names the epoch.
        last: its last round.
        sites: who takes part, in roster order.
    """

    first: int
    last: int
    sites: tuple[SiteTerms, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Who takes part."""
        return tuple(site.name for site in self.sites)

    @property
    def rounds_text(self) -> str:
        """Its rounds in words."""
        if self.first == self.last:
            return f"round {self.first}"
        return f"rounds {self.first} to {self.last}"


def epochs_of(sites: Sequence[SiteTerms], rounds: int) -> tuple[Epoch, ...]:
    """The epochs of a job, in order.

    Args:
        sites: the committed roster.
        rounds: of the job.

    Raises:
        PlanError: a site would join or leave in a round that there is not, or nobody is left.
    """
    for site in sites:
        first, last = site.presence(rounds)
        if not 1 <= first <= last <= rounds:
            raise PlanError(
                f"{site.name!r} takes part in rounds {first} to {last}; the job has rounds 1 to "
                f"{rounds}"
            )
    spans = [site.presence(rounds) for site in sites]
    changes = {first for first, _ in spans} | {last + 1 for _, last in spans}
    starts = sorted({1, *changes} - {rounds + 1})
    if len(starts) > MOST_EPOCHS:
        raise PlanError(
            f"sites join or leave before {len(starts) - 1} rounds, at most {MOST_EPOCHS - 1} may "
            "differ: have sites join or leave together"
        )
    found = []
    for first, after in zip(starts, [*starts[1:], rounds + 1], strict=True):
        there = tuple(
            site for site, (begin, end) in zip(sites, spans, strict=True) if begin <= first <= end
        )
        if not there:
            raise PlanError(f"no site takes part in round {first}")
        found.append(Epoch(first, after - 1, there))
    return tuple(found)
