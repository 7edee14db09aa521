"""A coordinator that keeps to no rule of masked sums: it asks whom it likes for what it likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import Release, ReleaseRequest, RoundStart, Statement, Upload
from privagg.secure.scheme import Recovery, Unmasked
from privagg.secure.wire import EncryptedTensor
from tests.simulator import Simulation


class Coordinator:
    """It has the coordinator's identity key and every frame of a round; the first, to begin with.

    Args:
        simulation: its sites.

    Attributes:
        common: what each of its messages begins with; `round` is the one that it is at.
        uploads: attempt -> site -> its upload.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation, self.job = simulation, simulation.job
        self.common: dict[str, Any] = {
            "run": self.job.run, "round": 1, "sender": self.job.identity.name,
            "plan_digest": simulation.plan.digest, "key_id": self.job.key_id,
        }  # fmt: skip
        self.uploads: dict[int, dict[str, Message]] = {}

    def ask(self, site: str, header: Any, payload: bytes = b"") -> Message:
        """A site's answer to whatever is asked."""
        frame = Message.sign(self.job.identity, header, payload).to_bytes()
        answer = self.simulation.sites[site].handle(frame)
        return read_message(answer, self.simulation.roster)

    def start(self, site: str, attempt: int = 1, model: float = 0.0, **settings: Any) -> Message:
        """Have a site upload in an attempt, from a model of one number in every place."""
        header = RoundStart(
            **self.common, attempt=attempt, cohort=self.simulation.names, settings=settings
        )
        said = self.ask(site, header, np.full(self.simulation.plan.dimension, model).tobytes())
        if isinstance(said.header, Upload):
            self.uploads.setdefault(attempt, {})[site] = said
        return said

    def show(
        self, site: str, listed: Sequence[str], consents: Sequence[Statement] = (), attempt: int = 1
    ) -> Message:
        """Show a site a list; it consents, releases or refuses."""
        contributions = tuple(self.uploads[attempt][name].statement for name in listed)
        header = ReleaseRequest(
            **self.common, attempt=attempt, contributions=contributions, consents=tuple(consents)
        )
        return self.ask(site, header, self.recovery(listed, attempt).packets(site, listed))

    def recovery(self, listed: Sequence[str], attempt: int = 1) -> Recovery:
        """What takes the masks off the sum of a list."""
        number = self.common["round"]
        occasion = self.job.key.occasion(number, attempt, self.simulation.names)
        made = self.job.parameters.recovery(occasion)
        assert made is not None
        for name in listed:
            made.add(name, bytes(memoryview(self.uploads[attempt][name].payload)[-self._size :]))
        return made

    def unmask(
        self, listed: Sequence[str], answers: dict[str, Message], attempt: int = 1
    ) -> Unmasked:
        """The sum of a list, by the releases among some answers."""
        fold = self.job.parameters.fold()
        for name in listed:
            tensor = bytes(self.uploads[attempt][name].payload)[: -self._size]
            fold.add(EncryptedTensor.from_bytes(tensor, max_bytes=len(tensor)).payload)
        given = {n: a.payload for n, a in answers.items() if isinstance(a.header, Release)}
        return self.recovery(listed, attempt).unmask(fold.payload(), listed, given)

    @property
    def _size(self) -> int:
        return self.simulation.parameters.attachment_bytes
