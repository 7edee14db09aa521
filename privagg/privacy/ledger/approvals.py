"""Owner's acts: how they are signed, and the refusal of what none of them covers."""

from __future__ import annotations

import secrets
from typing import Any, TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.errors import ApprovalError
from privagg.privacy.ledger.entries import (
    Approval,
    BudgetKey,
    OwnerKeyChanged,
    OwnersAct,
    Withdrawal,
    payload_of,
)
from privagg.privacy.ledger.state import State

_UNSIGNED = "0" * 128
_Act = TypeVar("_Act", bound=OwnersAct)


def sign_approval(owner: Ed25519PrivateKey, origin: str, **says: Any) -> Approval:
    """An approval under a fresh name, signed for one ledger.

    Args:
        owner: the owner's key.
        origin: of the ledger that it will stand in.
        says: the fields of `Approval` other than name, key and signature.

    Raises:
        LedgerError: a field is missing or out of range.
    """
    return _signed(Approval, owner, origin, says)


def sign_withdrawal(owner: Ed25519PrivateKey, origin: str, **says: Any) -> Withdrawal:
    """A withdrawal of an approval.

    Args:
        owner: the owner's key.
        origin: of the ledger that it will stand in.
        says: the fields of `Withdrawal` other than name, key and signature.

    Raises:
        LedgerError: a field is missing or out of range.
    """
    return _signed(Withdrawal, owner, origin, says)


def sign_owner_key_change(
    new: Ed25519PrivateKey, old: Ed25519PrivateKey | str, origin: str, **says: Any
) -> OwnerKeyChanged:
    """An owner's change of key, signed by the new key and, where it is there, by the old one.

    Args:
        new: the owner's key from now on.
        old: its key until now; of one that is lost, the public half as hex.
        origin: of the ledger.
        says: `who`, `why` and `keeps`.

    Raises:
        LedgerError: a field is missing or out of range, or approvals would stay without `old`.
    """
    if isinstance(old, str):
        return _signed(OwnerKeyChanged, new, origin, {**says, "old_key": old, "old_signature": ""})
    facts = {**says, "old_key": public_hex(old), "old_signature": _UNSIGNED}
    act = _signed(OwnerKeyChanged, new, origin, facts)
    return act.model_copy(update={"old_signature": old.sign(act.signed_bytes(origin)).hex()})


def _signed(kind: type[_Act], owner: Ed25519PrivateKey, origin: str, says: dict[str, Any]) -> _Act:
    # Not bare digits: one in 1,600 such names would read as a number like 12345e678901234, which
    # whoever reads a stranger's ledger refuses.
    name = f"{kind.kind}-{secrets.token_hex(8)}"
    facts = {**says, "name": name, "owner_key": public_hex(owner), "signature": _UNSIGNED}
    blank = payload_of(kind.kind, facts)
    assert isinstance(blank, kind)
    signature = owner.sign(blank.signed_bytes(origin))
    return blank.model_copy(update={"signature": signature.hex()})


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half, 32 bytes as hex."""
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return raw.hex()


def approved(
    state: State, owner: str, key: BudgetKey, plan_digest: str, day: str, run: str | None
) -> Approval:
    """The approval that covers a plan's charge by a run, or a fresh one, to a budget on a day.

    Args:
        state: of the ledger, authenticated.
        owner: whose ledger; named in a refusal.
        key: data set and unit.
        plan_digest: SHA-256 (hex) of the plan.
        day: `YYYY-MM-DD`, UTC.
        run: None asks for a run that was not begun.

    Raises:
        ApprovalError: none does; the text says only what is public.
    """
    found = state.covering(key, plan_digest, day, run)
    if found is not None:
        return found
    named = [a for a in state.approvals if key == a.key and plan_digest in a.plans]
    used = [a.runs for a in named if a.until >= day]
    why = "no approval in force names it"
    if used:
        why = f"the approval was for {used[-1]} run{'s' if used[-1] != 1 else ''}, which there were"
    elif named:
        why = f"the approval ended on {max(a.until for a in named)}"
    raise ApprovalError(
        f"the owner of {owner!r} has not approved plan {plan_digest[:16]}... for data set "
        f"{key.dataset!r} (unit {key.unit}): {why}. Nothing was spent; the owner approves with: "
        "privagg approve"
    )
