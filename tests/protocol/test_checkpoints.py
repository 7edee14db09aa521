"""What the coordinator asks a round's sites to prove."""

from __future__ import annotations

from pathlib import Path

from privagg.identity.keys import Roster
from privagg.privacy.ledger import CheckpointKeeper
from privagg.protocol.checkpoints import CheckpointWatch
from privagg.protocol.messages import MAX_PROOFS


def test_only_the_rounds_own_parties_are_proved_to(tmp_path: Path) -> None:
    """Many clients sit a round out, and each may keep another checkpoint of the same ledger."""
    watch = CheckpointWatch(CheckpointKeeper.open(tmp_path / "kept.db"), Roster({}))
    for number in range(2 * MAX_PROOFS):
        watch.record_kept_sizes(f"client-{number}", {"client-0": (100 + number,)})
    watch.record_kept_sizes("key-holder", {"client-0": (7,), "elsewhere": (3,)})
    asked = watch.asked(("client-0", "client-5"), "key-holder")
    assert asked == {"client-0": (7, 100, 105)}
