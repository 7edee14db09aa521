"""Sites with masked uploads of one round of 22-bit sums, for what is timed of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from privagg.protocol.aggregator import TOGETHER
from privagg.secure.masked.parameters import JointKey, MaskedParameters
from privagg.secure.masked.rule import Rule
from privagg.secure.masked.site import MaskedSite
from privagg.secure.masked.streams import add_masks
from privagg.secure.opening import Masked
from privagg.secure.scheme import Occasion, Recovery, Requirement

UPLOAD_BOUND, SUM_BOUND = 1 << 19, (1 << 21) - 1


class Cohort:
    """Sites with uploads of one round.

    Args:
        length: values of a contribution.
        rule: who must agree.
    """

    def __init__(self, length: int, rule: Rule) -> None:
        self.rule = rule
        requirement = Requirement(length, UPLOAD_BOUND, SUM_BOUND, rule.asked)
        self.parameters = MaskedParameters(requirement, rule)
        names = [f"site{number:03d}" for number in range(rule.asked)]
        self.sites = {name: MaskedSite.generate(self.parameters) for name in names}
        cards = {name: site.encryption_key.to_bytes() for name, site in self.sites.items()}
        self.joint = JointKey(self.parameters, epoch="bench", roster="", cards=cards)
        self.occasion = Occasion("bench", 1, 1, tuple(names))
        largest = SUM_BOUND // rule.asked
        self.values = np.random.default_rng(1).integers(-largest, largest, length)
        self.masked = {name: self.mask(name) for name in names}

    def mask(self, name: str) -> Masked:
        """A site's upload."""
        return self.sites[name].mask(self.values, name, self.joint, self.occasion)

    def expand(self) -> None:
        """All of one site's masks, added to its lanes."""
        lanes = np.zeros(self.parameters.layout.words, dtype=np.int64)
        add_masks(lanes, [(bytes([i]) * 32, 1) for i in range(self.rule.neighbours + 1)])

    def add(self, listed: tuple[str, ...]) -> bytes:
        """The sum of payloads, as an aggregator makes it."""
        fold = self.parameters.fold()
        for at in range(0, len(listed), TOGETHER):
            fold.add_many([self.masked[name].payload for name in listed[at : at + TOGETHER]])
        return fold.payload()

    def read(self, listed: tuple[str, ...]) -> Recovery:
        """All attachments, read and held against each other."""
        recovery = self.parameters.recovery(self.occasion)
        for name in listed:
            recovery.add(name, self.masked[name].attachments)
        return recovery

    def release(self, name: str, listed: tuple[str, ...], recovery: Recovery) -> bytes:
        """One site's release."""
        packets, kept = recovery.packets(name, listed), self.masked[name].kept
        return self.sites[name].release(name, self.joint, self.occasion, listed, packets, kept)

    def unmasking(self, missing: int) -> Callable[[], None]:
        """The opening of a sum without some sites, all others releasing."""
        listed = self.occasion.members[missing:]
        total, recovery = self.add(listed), self.read(listed)
        releases = {name: self.release(name, listed, recovery) for name in listed}
        want = len(listed) * self.values

        def run() -> None:
            opened = recovery.unmask(total, listed, releases)
            assert opened.total is not None
            assert np.array_equal(opened.total, want)

        return run
