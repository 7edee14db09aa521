"""What has one institution spent of its privacy budgets, and how does anyone check that?

A durable, append-only, signed log: charge first, train afterwards. Read `ledger.py` first: its
class `Ledger` is what the rest of the house calls. Below it, from the words to the database:

- `entries`: what may stand in the log, the closed set of kinds, each entry with its one byte string
  (`canonical`); `approvals`: how an owner signs its acts.
- `state`: the rules without any storage: what an entry does to budgets, whether it may stand.
  `composition` adds events up exactly.
- `merkle`, `checkpoint`: the tree over all entries, and the signed note of its root.
- `log`: the signed log in its database: its authenticated end, appending, finding with proof.
  `store` holds transactions, `schema` the tables and the triggers that refuse to rewrite them.
- `receipt`: what a charge gives out, and training uses up.
- `replay`: what a verifier does, from the first entry; `copies`: bundle, backup, restoring.
- `keeper`: other ledgers' checkpoints, so that none is rolled back unseen.
"""

from privagg.privacy.ledger.approvals import (
    sign_approval,
    sign_owner_key_change,
    sign_withdrawal,
)
from privagg.privacy.ledger.checkpoint import Checkpoint, Verifier, open_checkpoint, require_extends
from privagg.privacy.ledger.copies import Bundle
from privagg.privacy.ledger.entries import Approval, BudgetKey, ChargeRequest, Entry, RunKeyTaken
from privagg.privacy.ledger.keeper import CheckpointKeeper
from privagg.privacy.ledger.ledger import Ledger
from privagg.privacy.ledger.reading import ChargePoint, Projection, Spending
from privagg.privacy.ledger.receipt import Receipt
from privagg.privacy.ledger.replay import Replay

__all__ = [
    "Approval",
    "BudgetKey",
    "Bundle",
    "ChargePoint",
    "ChargeRequest",
    "Checkpoint",
    "CheckpointKeeper",
    "Entry",
    "Ledger",
    "Projection",
    "Receipt",
    "Replay",
    "RunKeyTaken",
    "Spending",
    "Verifier",
    "open_checkpoint",
    "require_extends",
    "sign_approval",
    "sign_owner_key_change",
    "sign_withdrawal",
]
