"""What a party asks the sites to prove, and what it takes where it asked nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from privagg.identity.keys import Identity, Roster
from privagg.privacy.ledger import CheckpointKeeper, Ledger, keeper
from privagg.protocol.messages import Upload
from privagg.protocol.peers import PeerCheckpoints
from tests.privacy.ledger.conftest import create


@pytest.fixture
def east() -> Identity:
    return Identity.generate("east")


@pytest.fixture
def ledger(tmp_path: Path, east: Identity) -> Ledger:
    return create(tmp_path / "east.db", owner="east", key=east.key)


@pytest.fixture
def memory(tmp_path: Path, east: Identity) -> PeerCheckpoints:
    return PeerCheckpoints(CheckpointKeeper.open(tmp_path / "kept.db"), Roster.of(east))


def grow(ledger: Ledger) -> None:
    ledger.record("released", {"what": "model", "who": "east", "facts": {}})


def upload(ledger: Ledger) -> Upload:
    """The ledger's present checkpoint, with no proof of anything."""
    return Upload(
        run="run", round=1, attempt=1, sender="east", plan_digest="ab" * 32, key_id="ab" * 32,
        key_part_digest="ab" * 32, receipt_hash="",
        checkpoint=ledger.checkpoint(), generator="", noise_stddev_grid="0",
    )  # fmt: skip


def test_a_site_that_was_told_nothing_extends_all_that_is_kept(
    memory: PeerCheckpoints, ledger: Ledger
) -> None:
    assert memory.keep([upload(ledger)], {}) == {}
    grow(ledger)
    problems = memory.keep([upload(ledger)], {})
    assert "consistency proof from 1 to 2" in str(problems["east"])
    assert memory.kept_sizes(["east"]) == {"east": (1,)}


def test_what_the_oldest_of_many_runs_was_told_is_forgotten_alone(
    memory: PeerCheckpoints, ledger: Ledger
) -> None:
    """Forgotten, it is as after a restart: what is kept now has to be extended."""
    for number in range(keeper.MAX_RUNS):
        assert memory.report_kept_sizes(f"run-{number}", ["east"]) == {}
    memory.report_kept_sizes("run-1", ["east"])  # one of them goes on, and costs none of the others
    memory.keep([upload(ledger)], {})
    assert memory.reported("run-0", ["east"]) == {}
    memory.report_kept_sizes("one more", ["east"])
    assert memory.reported("run-0", ["east"]) == {"east": (1,)}
    assert memory.reported("run-1", ["east"]) == {}
