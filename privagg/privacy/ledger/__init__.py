"""The privacy budget ledger: durable, append-only, signed, checked by anyone."""

from privagg.privacy.ledger.checkpoint import Checkpoint, open_checkpoint, require_extends
from privagg.privacy.ledger.entries import BudgetKey, ChargeRequest, Entry
from privagg.privacy.ledger.ledger import Ledger, Projection
from privagg.privacy.ledger.notes import Verifier
from privagg.privacy.ledger.reading import ChargePoint, Spending
from privagg.privacy.ledger.receipt import Receipt

__all__ = [
    "BudgetKey",
    "ChargePoint",
    "ChargeRequest",
    "Checkpoint",
    "Entry",
    "Ledger",
    "Projection",
    "Receipt",
    "Spending",
    "Verifier",
    "open_checkpoint",
    "require_extends",
]
