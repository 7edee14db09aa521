"""Of several attempts of one round, masked sums open at most one."""

from __future__ import annotations

from pathlib import Path

from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import Refusal, Release, ReleaseRequest, RoundStart, Upload
from tests.simulator import Simulation

SEVEN = tuple("abcdefg")


class Coordinator:
    """A dishonest one: it asks whom it likes for what it likes.

    Args:
        simulation: its sites.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation, self.job = simulation, simulation.job
        self.common = {
            "run": self.job.run, "round": 1, "sender": self.job.identity.name,
            "plan_digest": simulation.plan.digest, "key_id": self.job.key_id,
        }  # fmt: skip
        self.uploads: dict[int, dict[str, Message]] = {}

    def ask(self, site: str, header: object, payload: bytes = b"") -> Message:
        frame = Message.sign(self.job.identity, header, payload).to_bytes()  # type: ignore[arg-type]
        answer = self.simulation.sites[site].handle(frame)
        return read_message(answer, self.simulation.roster)

    def start(self, site: str, attempt: int) -> Message:
        header = RoundStart(**self.common, attempt=attempt, cohort=SEVEN)
        said = self.ask(site, header, bytes(8 * self.simulation.plan.dimension))
        if isinstance(said.header, Upload):
            self.uploads.setdefault(attempt, {})[site] = said
        return said

    def release(self, site: str, attempt: int) -> Message:
        listed = tuple(self.uploads[attempt][name].statement for name in SEVEN)
        recovery = self.job.parameters.recovery(self.job.key.occasion(1, attempt, SEVEN))
        header = ReleaseRequest(**self.common, attempt=attempt, contributions=listed, consents=())
        assert recovery is not None
        for name in SEVEN:
            recovery.add(name, attachments(self.simulation, self.uploads[attempt][name]))
        return self.ask(site, header, recovery.packets(site, SEVEN))


def attachments(simulation: Simulation, upload: Message) -> bytes:
    """What came with a payload: the last bytes of an upload."""
    size = simulation.parameters.attachment_bytes
    return bytes(memoryview(upload.payload)[-size:])


def test_two_full_lists_of_two_attempts_are_not_both_opened(tmp_path: Path) -> None:
    """t = 3 of 7: three could release for one list, and the other four for another."""
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    coordinator = Coordinator(simulation)
    for attempt in (1, 2):
        for site in SEVEN:
            assert isinstance(coordinator.start(site, attempt).header, Upload)
    for site in "abc":
        said = coordinator.release(site, 1).header
        assert isinstance(said, Refusal)
        assert "keeps no upload of round 1, attempt 1" in said.message
    for site in "defg":
        assert isinstance(coordinator.release(site, 2).header, Release)


def test_a_bound_round_has_no_further_attempt(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    coordinator = Coordinator(simulation)
    first = {site: coordinator.start(site, 1) for site in SEVEN}
    assert isinstance(coordinator.release("a", 1).header, Release)
    said = coordinator.start("a", 2).header
    assert isinstance(said, Refusal)
    assert "bound to a list of attempt 1" in said.message
    assert simulation.charges("a") == 1
    again = coordinator.start("a", 1)
    assert again.to_bytes() == first["a"].to_bytes()
    assert isinstance(coordinator.start("b", 2).header, Upload)
