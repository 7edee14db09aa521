"""Noise that is shared out: what the plans have in common in which honest shares add up to it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Self

from pydantic import model_validator

from privagg.privacy.events import DpEvent
from privagg.privacy.guarantee import Observer
from privagg.privacy.noise import IntegerGaussian
from privagg.privacy.plan.agreed import noise_share, over_epochs
from privagg.privacy.plan.observing import (
    HONEST_ENCRYPTION,
    HONEST_ENCRYPTION_1,
    rests_on,
    shared_noise_observers,
)
from privagg.privacy.plan.roster import SiteTerms
from privagg.privacy.plan.training import TrainingPlan


class SharedNoisePlan(TrainingPlan):
    """Each site adds a share; `counted_shares` of them make the noise that is charged.

    Guarantees:
        The noise is sized for the largest weight, so a site with that weight is charged a
        multiplier of `noise_multiplier` at least, and others more noise for what they have.
    """

    @model_validator(mode="after")
    def _shares_hide(self) -> Self:
        self.check_shares()
        return self

    @abstractmethod
    def contribution_bound(self, site: SiteTerms) -> int:
        """Clamp of one site's noiseless, unweighted integers, per coordinate, in grid units."""

    @abstractmethod
    def event_of_shares(self, site: str, shares: int) -> DpEvent:
        """A round's event for `site` against whoever does not know `shares` noise shares."""

    @cached_property
    def noise(self) -> IntegerGaussian | None:
        """One site's share, sized for the largest weight."""
        return noise_share(
            noise_multiplier=self.noise_multiplier,
            sensitivity_grid=self.sensitivity_grid * max(site.weight for site in self.sites),
            shares=self.counted_shares,
        )

    @over_epochs
    def upload_bound(self) -> int:
        """Largest weighted contribution plus the largest noise a share can take."""
        noise = self.noise.bound if self.noise else 0
        return max(self._largest_coordinates) + noise

    @over_epochs
    def sum_bound(self) -> int:
        """A full cohort of the heaviest sites, every share at its largest."""
        noise = self.noise.bound if self.noise else 0
        return self._noiseless_bound + noise * self.addends

    @over_epochs
    def sum_tail(self) -> int:
        """See `Plan.sum_tail`: the same, with the tail of the noise's own sum."""
        if self.noise is None:
            return self.sum_bound
        draws = self.rounds * self.upload_dimension
        return self._noiseless_bound + self.noise.sum_tail(self.addends, draws)

    @property
    def _noiseless_bound(self) -> int:
        return sum(sorted(self._largest_coordinates, reverse=True)[: self.addends])

    @property
    def _largest_coordinates(self) -> list[int]:
        return [site.weight * self.contribution_bound(site) for site in self.sites]

    def committed_event(self, site: str) -> DpEvent:
        """See `Plan.committed_event`: as many shares unknown as are counted on."""
        return self.event_of_shares(site, self.counted_shares)

    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        """See `Plan.realised_event`: all surviving shares unknown."""
        self.site(site)
        return self.event_of_shares(site, len(survivors)) if site in survivors else DpEvent()

    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """See `Plan.observers`."""
        self.site(site)
        return shared_noise_observers(
            lambda shares: self.event_of_shares(site, shares),
            survivors=survivors,
            custody=self.custody,
            colluders=self.colluders,
            protects=self.hides,
            strict=self.strict,
            always=rests_on(self.unit, in_slots=self.version > 1, engine=self.recipe.get("engine")),
            honest=HONEST_ENCRYPTION if self.version > 1 else HONEST_ENCRYPTION_1,
        )
