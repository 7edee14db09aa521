"""The privacy budget ledger: durable, append-only, signed, checked by anyone."""

from privagg.privacy.ledger.approvals import (
    sign_approval,
    sign_owner_key_change,
    sign_withdrawal,
)
from privagg.privacy.ledger.bundle import Bundle
from privagg.privacy.ledger.checkpoint import Checkpoint, open_checkpoint, require_extends
from privagg.privacy.ledger.entries import Entry
from privagg.privacy.ledger.keeper import CheckpointKeeper
from privagg.privacy.ledger.ledger import Ledger, Projection
from privagg.privacy.ledger.notes import Verifier
from privagg.privacy.ledger.payloads import Approval, BudgetKey, ChargeRequest, RunKeyTaken
from privagg.privacy.ledger.reading import ChargePoint, Spending
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
