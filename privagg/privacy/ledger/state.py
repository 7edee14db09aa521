"""The rules of the ledger without any storage: what an entry does, and whether it may stand.

`State.apply` is run by the writer before an entry is signed and by every verifier afterwards, so
that both hold the same rules. The digest of the state after each entry stands in that entry: the
running totals, which make the ten-thousandth charge as cheap as the tenth, cannot be edited apart
from the log that they summarise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from cryptography.exceptions import InvalidSignature

from privagg.errors import LedgerTamperedError
from privagg.identity.keys import verify_signature
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import canonical
from privagg.privacy.ledger.composition import compose, event_to_json, is_beyond
from privagg.privacy.ledger.entries import (
    Approval,
    BudgetKey,
    BudgetSet,
    Charge,
    Created,
    Entry,
    KeyRotated,
    OwnerKeyChanged,
    OwnersAct,
    Payload,
    Withdrawal,
)


@dataclass(frozen=True)
class Account:
    """One budget and what was spent of it.

    Attributes:
        key: data set and unit.
        epsilon_budget: the budget; `Infinity` only where it was set so.
        delta: the delta at which epsilon is counted.
        total: composition of all committed events.
        charges: how many there were.
        epsilon_spent: upper bound at `delta` by `accountant`, as of the last charge; None where
            delta changed since.
        accountant: who computed it.
    """

    key: BudgetKey
    epsilon_budget: Decimal
    delta: Decimal
    total: DpEvent = field(default_factory=DpEvent)
    charges: int = 0
    epsilon_spent: Decimal | None = Decimal(0)
    accountant: str = ""

    def to_json(self) -> dict[str, Any]:
        """The account as canonical JSON values."""
        spent = self.epsilon_spent
        return {
            "dataset": self.key.dataset,
            "unit": self.key.unit,
            "epsilon_budget": canonical.plain_decimal(self.epsilon_budget),
            "delta": canonical.plain_decimal(self.delta),
            "total": event_to_json(self.total),
            "charges": self.charges,
            "epsilon_spent": None if spent is None else canonical.plain_decimal(spent),
            "accountant": self.accountant,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Account:
        """The account from `to_json`."""
        spent = value["epsilon_spent"]
        return cls(
            key=BudgetKey(value["dataset"], value["unit"]),
            epsilon_budget=Decimal(value["epsilon_budget"]),
            delta=Decimal(value["delta"]),
            total=DpEvent.model_validate(value["total"]),
            charges=value["charges"],
            epsilon_spent=None if spent is None else Decimal(spent),
            accountant=value["accountant"],
        )

    def with_budget(self, epsilon: Decimal, delta: Decimal) -> Account:
        """The account under a changed budget; what was spent stays spent."""
        same = delta == self.delta
        return replace(
            self,
            epsilon_budget=epsilon,
            delta=delta,
            epsilon_spent=self.epsilon_spent if same or not self.charges else None,
        )

    def with_charge(self, charge: Charge) -> Account:
        """The account after a charge."""
        return replace(
            self,
            total=compose(self.total, charge.event),
            charges=self.charges + 1,
            epsilon_spent=charge.epsilon_after,
            accountant=charge.accountant,
        )


@dataclass(frozen=True)
class State:
    """Every account's digest, the signing key, and (in a verifier) the accounts themselves.

    Attributes:
        size: how many entries were applied.
        origin: first line of every checkpoint; empty before entry 0.
        owner_verifier: the verifier key that signs the log now, encoded; empty before entry 0.
        digests: SHA-256 of each account's canonical bytes.
        owner_key: hex of the key that owner's acts are signed with; empty where none is pinned,
            and then whoever holds the ledger's key sets budgets.
        approvals: in force: neither withdrawn, nor over when the last owner's act was recorded.
        used: approval -> the runs that it was used for, where it allows a number of them.
        rekeyed: whether the last entry changed the ledger's own key.
    """

    size: int = 0
    origin: str = ""
    owner_verifier: str = ""
    digests: Mapping[BudgetKey, str] = field(default_factory=dict)
    owner_key: str = ""
    approvals: tuple[Approval, ...] = ()
    used: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rekeyed: bool = False

    def digest(self) -> str:
        """SHA-256 that commits to the keys, to every approval in force and to every account."""
        rows = [[*key, self.digests[key]] for key in sorted(self.digests)]
        facts = {"origin": self.origin, "verifier": self.owner_verifier, "accounts": rows}
        return canonical.digest(facts | self.owner_rows())

    def owner_rows(self) -> dict[str, str]:
        """Owner's key and approvals as a ledger stores them; empty where no key is pinned.

        The runs that numbered approvals were used for stay, also once these are over.
        """
        if not self.owner_key:
            return {}
        approvals = canonical.dumps([approval.to_json() for approval in self.approvals])
        rows = {"owner_key": self.owner_key, "approvals": approvals.decode("ascii")}
        if self.used:
            runs = canonical.dumps({name: list(runs) for name, runs in self.used.items()})
            rows["approved_runs"] = runs.decode("ascii")
        return rows

    def covering(
        self, key: BudgetKey, plan_digest: str, day: str, run: str | None
    ) -> Approval | None:
        """The approval under which a run, or a fresh one, may be charged to a budget on a day.

        Args:
            key: data set and unit.
            plan_digest: SHA-256 (hex) of the plan.
            day: `YYYY-MM-DD`, UTC.
            run: None asks for a run that was not begun.
        """
        found = (
            a for a in reversed(self.approvals)
            if a.covers(key, plan_digest, day) and a.has_room(self.used.get(a.name, ()), run)
        )  # fmt: skip
        return next(found, None)

    def _with_use(self, approval: Approval, run: str) -> State:
        before = self.used.get(approval.name, ())
        if approval.runs is None or run in before:
            return self
        return replace(self, used={**self.used, approval.name: (*before, run)})

    def apply(
        self, payload: Payload, account: Account | None, day: str
    ) -> tuple[State, Account | None]:
        """The state and account after one more entry.

        Args:
            payload: what the entry says.
            account: the account that it concerns as it stood before, None where it has none yet.
            day: of the entry, `YYYY-MM-DD`.

        Raises:
            LedgerTamperedError: the entry cannot stand here: its figures contradict the account.
        """
        rekeyed = isinstance(payload, KeyRotated)
        state, before = replace(self, size=self.size + 1, rekeyed=rekeyed), account
        if isinstance(payload, Created) != (self.size == 0):
            raise LedgerTamperedError(f"entry {self.size}: a ledger is created once, by entry 0")
        if isinstance(payload, Created):
            state = replace(
                state,
                origin=payload.origin,
                owner_verifier=payload.verifier,
                owner_key=payload.owner_key,
            )
        elif isinstance(payload, KeyRotated):
            if payload.old_verifier != self.owner_verifier:
                raise LedgerTamperedError(
                    f"entry {self.size} rotates a key that was not the ledger's"
                )
            state = replace(state, owner_verifier=payload.new_verifier)
        elif isinstance(payload, OwnersAct):
            state = self._decided(state, payload, day)
            account = _with_budget(payload, account)
        elif isinstance(payload, BudgetSet):
            if self.owner_key:
                raise LedgerTamperedError(
                    f"entry {self.size} sets a budget without the owner's approval"
                )
            account = _with_budget(payload, account)
        elif isinstance(payload, Charge):
            account = self._charged(payload, account)
            if self.owner_key:
                state = self._approved(state, payload, day)
        if account is not None and account is not before:
            digests = {**self.digests, account.key: canonical.digest(account.to_json())}
            state = replace(state, digests=digests)
        return state, account

    def _decided(self, state: State, act: OwnersAct, day: str) -> State:
        """The state after an owner's act; the first one introduces the key, if none is pinned.

        That act is countersigned: the checkpoint over it carries the ledger's own signature.
        """
        by = act.old_key if isinstance(act, OwnerKeyChanged) else act.owner_key
        if self.owner_key not in ("", by):
            raise LedgerTamperedError(
                f"entry {self.size} is signed by {by[:16]}..., not by the owner's key "
                f"{self.owner_key[:16]}..."
            )
        _check_signature(act, self.origin, self.size)
        kept = tuple(a for a in self.approvals if a.until >= day)
        if isinstance(act, Withdrawal):
            if act.approval not in {a.name for a in self.approvals}:
                raise LedgerTamperedError(
                    f"entry {self.size} withdraws {act.approval!r}, which is not in force"
                )
            kept = tuple(a for a in kept if a.name != act.approval)
        elif isinstance(act, Approval):
            if act.until < day:
                raise LedgerTamperedError(f"entry {self.size} approves until a day that was over")
            kept = (*kept, act)
        elif isinstance(act, OwnerKeyChanged):
            self._check_change(act)
            kept = kept if act.keeps else ()
        return replace(state, owner_key=act.owner_key, approvals=kept)

    def _check_change(self, act: OwnerKeyChanged) -> None:
        """The old key agrees; or the ledger's own key was changed just before.

        The latter nobody can do unseen: peers take part in nothing with a key that they have not
        pinned anew, so that a thief of the key that serves cannot make itself the owner.
        """
        if not self.owner_key or act.owner_key == act.old_key:
            raise LedgerTamperedError(f"entry {self.size} changes no owner's key to another")
        if act.old_signature:
            _check_one(act, act.old_key, act.old_signature, self.origin, self.size)
        elif not self.rekeyed:
            raise LedgerTamperedError(
                f"entry {self.size} changes the owner's key without the old one, and the ledger's "
                "own key was not changed just before it, as every peer would see"
            )

    def _approved(self, state: State, charge: Charge, day: str) -> State:
        approval = self.covering(charge.key, charge.plan_digest, day, charge.run)
        if approval is None:
            raise LedgerTamperedError(
                f"entry {self.size} charges {charge.key} on {day}, and no approval of the owner "
                f"covers plan {charge.plan_digest[:16]}... for run {charge.run!r}"
            )
        return state._with_use(approval, charge.run)

    def _charged(self, charge: Charge, account: Account | None) -> Account:
        if account is None:
            raise LedgerTamperedError(f"entry {self.size} charges {charge.key}, without a budget")
        if (charge.epsilon_budget, charge.delta) != (account.epsilon_budget, account.delta):
            raise LedgerTamperedError(
                f"entry {self.size} was held against the budget ({charge.epsilon_budget}, "
                f"{charge.delta}), but it was ({account.epsilon_budget}, {account.delta})"
            )
        known = account.charges == 0 or account.accountant == charge.accountant
        if known and account.epsilon_spent not in (None, charge.epsilon_before):
            raise LedgerTamperedError(
                f"entry {self.size} says that epsilon was {charge.epsilon_before}, "
                f"but it was {account.epsilon_spent}"
            )
        if is_beyond(charge.epsilon_after, account.epsilon_budget):
            raise LedgerTamperedError(
                f"entry {self.size} charges {charge.key} up to epsilon {charge.epsilon_after}, "
                f"beyond its budget {account.epsilon_budget}"
            )
        return account.with_charge(charge)


def _with_budget(payload: Payload, account: Account | None) -> Account | None:
    if not isinstance(payload, BudgetSet | Approval):
        return account
    key, epsilon, delta = payload.key, payload.epsilon, payload.delta
    if key is None or epsilon is None or delta is None:
        return account
    return Account(key, epsilon, delta) if account is None else account.with_budget(epsilon, delta)


def _check_signature(act: OwnersAct, origin: str, index: int) -> None:
    _check_one(act, act.owner_key, act.signature, origin, index)


def _check_one(act: OwnersAct, key: str, signature: str, origin: str, index: int) -> None:
    try:
        verify_signature(bytes.fromhex(key), act.signed_bytes(origin), bytes.fromhex(signature))
    except (InvalidSignature, ValueError) as error:
        raise LedgerTamperedError(
            f"entry {index}: the {act.kind} is not signed by the key it names"
        ) from error


def replay(entry: Entry, state: State, accounts: dict[BudgetKey, Account]) -> State:
    """Apply a stored entry to `state` and `accounts` (in place) and hold it against its digest.

    Args:
        entry: as parsed, its place not checked yet.
        state: after the entries before it.
        accounts: every budget as it stood there; changed in place.

    Raises:
        LedgerTamperedError: the entry cannot stand here, or its state digest is another.
    """
    if entry.index != state.size:
        raise LedgerTamperedError(f"entry {state.size} says that it is entry {entry.index}")
    key = entry.payload.key
    before = accounts.get(key) if key is not None else None
    following, account = state.apply(entry.payload, before, entry.time[:10])
    if key is not None and account is not None:
        accounts[key] = account
    if following.digest() != entry.state:
        raise LedgerTamperedError(f"entry {entry.index}: the running totals it commits to differ")
    return following
