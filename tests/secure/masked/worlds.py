"""Sites that mask and release in one process, for the tests of masked sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from privagg.encoding.vectors import IntVector
from privagg.secure.masked.parameters import JointKey, MaskedParameters
from privagg.secure.masked.rule import Rule
from privagg.secure.masked.site import MaskedSite
from privagg.secure.opening import Masked
from privagg.secure.scheme import Occasion, Recovery, Requirement, Unmasked

BOUND = 1000


@dataclass
class World:
    """Sites of one epoch.

    Args:
        parameters: with the rule.
        sites: name -> its key.
        joint: all cards.
        values: name -> its contribution.
        number: of the round.
    """

    parameters: MaskedParameters
    sites: dict[str, MaskedSite]
    joint: JointKey
    values: dict[str, IntVector]
    masked: dict[str, Masked] = field(default_factory=dict)
    number: int = 1

    @classmethod
    def of(cls, rule: Rule, length: int = 40, seed: int = 1) -> World:
        requirement = Requirement(length, BOUND, rule.asked * BOUND, rule.asked)
        parameters = MaskedParameters(requirement, rule)
        names = [f"site{number:03d}" for number in range(rule.asked)]
        sites = {name: MaskedSite.generate(parameters) for name in names}
        cards = {name: site.encryption_key.to_bytes() for name, site in sites.items()}
        joint = JointKey(parameters, epoch="run", roster="who is who", cards=cards)
        rng = np.random.default_rng(seed)
        values = {name: rng.integers(-BOUND, BOUND + 1, length) for name in names}
        return cls(parameters, sites, joint, values)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sites)

    @property
    def occasion(self) -> Occasion:
        return Occasion("run", self.number, 1, self.names)

    def mask(self, name: str) -> Masked:
        """What a site uploads; the same however often it is asked."""
        if name not in self.masked:
            self.masked[name] = self.sites[name].mask(
                self.values[name], name, self.joint, self.occasion
            )
        return self.masked[name]

    def total(self, listed: Sequence[str]) -> bytes:
        """The masked sum of the listed."""
        fold = self.parameters.fold()
        for name in listed:
            fold.add(self.mask(name).payload)
        return fold.payload()

    def sum_of(self, listed: Sequence[str]) -> IntVector:
        """What it has to open to."""
        return np.sum([self.values[name] for name in listed], axis=0)

    def recovery(self, uploaded: Sequence[str]) -> Recovery:
        """The adder's half, with the attachments of those that uploaded."""
        made = self.parameters.recovery(self.occasion)
        for name in uploaded:
            made.add(name, self.mask(name).attachments)
        return made

    def release(self, name: str, listed: Sequence[str], recovery: Recovery) -> bytes:
        """What a site releases for a list."""
        packets, kept = recovery.packets(name, listed), self.mask(name).kept
        return self.sites[name].release(name, self.joint, self.occasion, listed, packets, kept)

    def open(self, listed: Sequence[str], releasing: Sequence[str]) -> Unmasked:
        """The whole of it, everybody honest."""
        recovery = self.recovery(listed)
        releases = {name: self.release(name, listed, recovery) for name in releasing}
        return recovery.unmask(self.total(listed), listed, releases)
