"""Whom a ledger's owner distrusts, and how long."""

from __future__ import annotations

from pathlib import Path

from privagg.privacy.ledger import Checkpoint, Verifier
from tests.privacy.ledger.conftest import KEY, OTHER_KEY, create

ORIGIN = "privagg.ledger/peer"
OWN = Verifier.of(ORIGIN, OTHER_KEY)


def test_a_contradiction_is_never_forgiven_and_its_first_reason_stays(folder: Path) -> None:
    ledger = create(folder / "ledger.db", key=KEY)
    peer = create(folder / "peer.db", owner="peer", key=OTHER_KEY)
    first = peer.checkpoint()
    ledger.distrust("peer", "left a proof out", unproved=Checkpoint.parse(first))
    ledger.distrust("peer", "forked")  # which is worse, and takes its place
    ledger.distrust("peer", "left a proof out", unproved=Checkpoint.parse(first))
    ledger.distrust("peer", "rolled back")
    assert ledger.distrusted() == {"peer": "forked"}
    peer.record("released", {"what": "model", "who": "peer", "facts": {}})
    ledger.keeper.keep(ORIGIN, peer.checkpoint(), verifier=OWN)
    assert ledger.distrusted() == {"peer": "forked"}  # what ends a missing proof's ends not this
