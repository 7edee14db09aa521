"""A key holder made from the plan and what is its own; it trains nothing and needs no torch."""

from __future__ import annotations

from pathlib import Path

from privagg.identity import Identity, Roster
from privagg.privacy.ledger import CheckpointKeeper, PeerCheckpoints
from privagg.privacy.plan import TrainingPlan
from privagg.running.names import COORDINATOR
from privagg.secure.keyholder import KeyHolder, OpeningRule
from privagg.secure.opening import DecryptionKey


def make_key_holder(
    plan: TrainingPlan, *, identity: Identity, roster: Roster, key: DecryptionKey, store: Path
) -> KeyHolder:
    """The party that opens a plan's sums.

    Args:
        plan: the agreed plan; what may be opened follows from it.
        identity: the key holder's own.
        roster: identity keys that it pins.
        key: its decryption key.
        store: its SQLite file of what was opened; the checkpoints of the sites' ledgers that it
            keeps lie beside it.
    """
    kept = CheckpointKeeper.open(store.with_name(f"{store.stem}-checkpoints.sqlite"))
    rule = OpeningRule(
        plan_digest=plan.digest,
        names=plan.names,
        minimum_survivors=plan.minimum_survivors,
        addends=plan.addends,
        rounds=plan.rounds,
        strict=plan.strict,
    )
    return KeyHolder(
        identity=identity,
        key=key,
        rule=rule,
        roster=roster,
        aggregator=COORDINATOR,
        store=store,
        checkpoints=PeerCheckpoints(kept, roster),
    )
