"""A round that is finished is asked again, or one that is not is said to be.

A site keeps an upload's bytes while they may be asked again. What it forgot it refuses: it makes
nothing anew, as the noise would be fresh and the charge is spent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from privagg.privacy.ledger.replay import HISTORY_UNVERIFIABLE
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import Header, Refusal, RoundClose, RoundStart, Upload
from tests.simulator import DIMENSION, Simulation


@pytest.fixture(params=["plaintext", "masked"])
def simulation(request: pytest.FixtureRequest, tmp_path: Path) -> Simulation:
    return Simulation(tmp_path, scheme_name=request.param, dropouts=1, colluders=0)


def tell(simulation: Simulation, header: Header, payload: bytes = b"") -> Message:
    """What north answers to the coordinator."""
    frame = Message.sign(simulation.identities["coordinator"], header, payload).to_bytes()
    return read_message(simulation.sites["north"].handle(frame), simulation.roster)


def heading(simulation: Simulation, number: int, attempt: int = 1) -> dict[str, Any]:
    return {
        "run": simulation.run, "round": number, "attempt": attempt, "sender": "coordinator",
        "plan_digest": simulation.plan.digest,
    }  # fmt: skip


def start(simulation: Simulation, number: int, attempt: int = 1) -> Message:
    """North's answer to the start of an attempt."""
    header = RoundStart(
        **heading(simulation, number, attempt),
        key_id=simulation.run_key.key_id,
        cohort=simulation.names,
        kept_sizes=simulation.watch.asked(simulation.names, simulation.opener),
    )
    return tell(simulation, header, bytes(8 * DIMENSION))


def claim(simulation: Simulation, **facts: Any) -> Message:
    """North's answer to what the coordinator claims of round 1."""
    facts = {"reason": "", "opening": None, "survivors": (), **facts}
    return tell(simulation, RoundClose(**heading(simulation, 1), **facts))


def kept(simulation: Simulation, number: int, attempt: int = 1) -> bool:
    return simulation.ledgers["north"].stored_upload("run-1", number, attempt) is not None


def require_spent(simulation: Simulation, number: int, trained: int) -> None:
    """An attempt is refused; nothing is trained, nothing charged, and all verifies."""
    charges = simulation.charges("north")
    for site in (simulation.sites["north"], simulation.site("north")):
        simulation.sites["north"] = site  # also restarted
        assert isinstance(start(simulation, number).header, Refusal)
    assert simulation.learners["north"].calls == trained
    assert simulation.charges("north") == charges
    assert simulation.ledgers["north"].verify() == [HISTORY_UNVERIFIABLE]


def test_a_round_that_was_opened_is_asked_again(simulation: Simulation) -> None:
    assert simulation.round(1).outcome == "opened"
    assert not kept(simulation, 1)
    require_spent(simulation, 1, trained=1)
    assert simulation.round(2).outcome == "opened"
    require_spent(simulation, 1, trained=2)


def test_the_next_round_begins_before_the_first_is_opened(simulation: Simulation) -> None:
    """The coordinator lies that it is finished, and cannot have it back."""
    for number in (1, 2):
        assert isinstance(start(simulation, number).header, Upload)
    assert [kept(simulation, number) for number in (1, 2)] == [False, True]
    require_spent(simulation, 1, trained=2)


def test_a_new_attempt_ends_the_one_before(simulation: Simulation) -> None:
    for attempt in (1, 2):
        assert isinstance(start(simulation, 1, attempt).header, Upload)
    assert [kept(simulation, 1, attempt) for attempt in (1, 2)] == [False, True]
    require_spent(simulation, 1, trained=2)


def opened_by_nobody(simulation: Simulation) -> dict[str, Any]:
    return {"outcome": "opened", "survivors": simulation.names}


def opened_by_another_round(simulation: Simulation) -> dict[str, Any]:
    """The statements are genuine: of round 2, which north sat out."""
    north = simulation.wire.handlers["north"]
    simulation.wire.handlers["north"] = lambda frame: b""
    other = simulation.round(2)
    simulation.wire.handlers["north"] = north
    assert other.outcome == "opened"
    close = read_message(other.close, simulation.roster).header
    assert isinstance(close, RoundClose)
    return {name: getattr(close, name) for name in
            ("outcome", "survivors", "opening", "contributions", "releases")}  # fmt: skip


@pytest.mark.parametrize("lie", [opened_by_nobody, opened_by_another_round])
def test_what_nobody_opened_is_said_to_be_opened(
    simulation: Simulation, lie: Callable[[Simulation], dict[str, Any]]
) -> None:
    first = start(simulation, 1)
    said = claim(simulation, **lie(simulation)).header
    assert isinstance(said, Refusal)
    assert start(simulation, 1).to_bytes() == first.to_bytes()


def test_a_coordinator_killed_after_it_said_that_a_round_stopped(simulation: Simulation) -> None:
    """That is its claim alone, and where it resumes the attempt the same bytes come."""
    first = start(simulation, 1)
    claim(simulation, outcome="stopped", reason="too few")
    assert start(simulation, 1).to_bytes() == first.to_bytes()
    assert simulation.charges("north") == 1
