"""What a ledger says, without what differs from one deployment to the next."""

from __future__ import annotations

import copy
import json

from privagg.privacy.ledger import Ledger

TELLING = ("round", "attempt", "event", "epsilon_after", "facts", "attested_by", "dataset", "unit")


def story(ledger: Ledger) -> list[tuple[str, str]]:
    """Kind and telling fields of every entry, in order."""
    found = []
    for entry in ledger.entries():
        facts = copy.deepcopy(entry.payload.to_json())
        facts.get("facts", {}).pop("key_id", None)
        (facts.get("facts", {}).get("records_apart") or {}).pop("date", None)  # midnight may pass
        kept = {name: facts[name] for name in facts if name in TELLING}
        found.append((entry.kind, json.dumps(kept, sort_keys=True)))
    return found
