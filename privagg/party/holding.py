"""A key holder made from the plan and what is its own; it trains nothing and needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from privagg.identity.keys import Identity, Roster
from privagg.privacy.ledger import CheckpointKeeper
from privagg.privacy.plan import Plan
from privagg.protocol.key_holder import KeyHolder
from privagg.protocol.names import COORDINATOR
from privagg.protocol.peers import PeerCheckpoints
from privagg.secure.opening import key_generator
from privagg.secure.scheme import Parameters


def make_key_holder(
    plan: Plan,
    *,
    identity: Identity,
    roster: Roster,
    parameters: Parameters,
    until: Callable[[], str],
    store: Path,
) -> KeyHolder:
    """The party that opens a plan's sums.

    Args:
        plan: the agreed plan; what may be opened follows from it.
        identity: the key holder's own.
        roster: identity keys that it pins.
        parameters: of the plan's scheme, before any key exists.
        until: as for `KeyHolder`: how long its owner lets it open.
        store: its SQLite file of keys and of what was opened; the checkpoints of the sites'
            ledgers that it keeps lie beside it.
    """
    kept = CheckpointKeeper.open(store.with_name(f"{store.stem}-checkpoints.sqlite"))
    return KeyHolder(
        plan,
        identity=identity,
        key_generator=key_generator(parameters.scheme),
        parameters=parameters,
        until=until,
        roster=roster,
        aggregator=COORDINATOR,
        store=store,
        checkpoints=PeerCheckpoints(kept, roster),
    )
