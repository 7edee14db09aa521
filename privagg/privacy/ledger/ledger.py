"""The privacy budget ledger: charge first, train afterwards, and never rewrite.

One ledger belongs to one institution and holds its budgets for every data set, across runs. Each
method that changes anything is one transaction: either the entry, its signed checkpoint and the new
totals are all durable, or nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.errors import BudgetExceededError, LedgerError
from privagg.privacy.accountant import Accountant
from privagg.privacy.accountants import default_accountant
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import copying, log, schema
from privagg.privacy.ledger.approvals import approved
from privagg.privacy.ledger.composition import compose, is_beyond
from privagg.privacy.ledger.copying import require_empty
from privagg.privacy.ledger.entries import Entry
from privagg.privacy.ledger.merkle import Frontier
from privagg.privacy.ledger.migrations import bring_up_to_date
from privagg.privacy.ledger.notes import Verifier, check_key_name
from privagg.privacy.ledger.payloads import (
    BudgetKey,
    BudgetSet,
    Charge,
    ChargeRequest,
    Created,
    KeyRotated,
    payload_of,
)
from privagg.privacy.ledger.receipt import Receipt
from privagg.privacy.ledger.state import Account, State
from privagg.privacy.ledger.store import Location, Store
from privagg.privacy.ledger.writing import LedgerWriting, system_clock

if TYPE_CHECKING:
    pass

ORIGIN_PREFIX = "privagg.ledger/"
SOFTWARE = "privagg ledger, entry format 1"


@dataclass(frozen=True)
class Projection:
    """What a charge would do.

    Attributes:
        epsilon_before, epsilon_after: upper bounds at `delta`.
        epsilon_budget: the budget it would be held against.
        delta: the budget's delta.
        fits: True where the charge would be taken.
        method: how epsilon_after was bounded.
    """

    epsilon_before: Decimal
    epsilon_after: Decimal
    epsilon_budget: Decimal
    delta: Decimal
    fits: bool
    method: str
    certified: bool


class Ledger(LedgerWriting):
    """A ledger opened for reading, and for writing where its signing key was given.

    Guarantees: a charge that would exceed its budget is refused before anything is written, also
    among concurrent writers; a kill at any instant neither loses a charge nor doubles one; entries
    are never changed or removed. A damaged or edited ledger stops with `LedgerTamperedError`.
    """

    @classmethod
    def create(
        cls,
        location: Location,
        owner: str,
        *,
        signing_key: Ed25519PrivateKey,
        accountant: Accountant | None = None,
        clock: Callable[[], datetime] | None = None,
        owner_key: str = "",
    ) -> Self:
        """Create an empty ledger for `owner` and open it.

        Args:
            location: path of a new SQLite file (mode 0600), or a database URL.
            owner: the institution's name: no white space, no plus sign.
            signing_key: signs every checkpoint; its public key identifies the ledger.
            accountant: interprets events; the certified one by default.
            clock: the present, for tests.
            owner_key: hex of the public key that owner's acts are signed with. With one, budgets
                are set and charges taken under approvals alone; without, until the first approval
                introduces a key.

        Raises:
            LedgerError: there is a ledger already, or the location cannot be used.
        """
        origin = ORIGIN_PREFIX + check_key_name(owner)
        verifier = Verifier.of(check_key_name(origin), signing_key)
        store = Store(location, read_only=False)
        store.make_file()
        now = (clock or system_clock)()
        with store.write(lock_tree=False) as connection:
            require_empty(connection, store.where)
            schema.install(connection)
            facts = {
                "owner": owner,
                "origin": origin,
                "verifier": verifier.encode(),
            }
            for name, value in facts.items():
                schema.write_meta(connection, name, value)
            created = Created(
                owner=owner, origin=origin, verifier=verifier.encode(), software=SOFTWARE,
                owner_key=owner_key,
            )  # fmt: skip
            empty = log.Head(owner, State(), Frontier(), "")
            log.append(connection, empty, created, keys=(signing_key,), now=now)
        return cls(store, verifier, signing_key, accountant or default_accountant(), clock)

    @classmethod
    def open(
        cls,
        location: Location,
        *,
        signing_key: Ed25519PrivateKey | None = None,
        verifier: Verifier | str | None = None,
        accountant: Accountant | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> Self:
        """Open an existing ledger; without `signing_key` it can only be read.

        Args:
            location: as in `create`.
            signing_key: the ledger's present key.
            verifier: the public key a reader expects; without it, whoever rewrote the ledger could
                have signed it anew, and `verify` says so.
            accountant, clock: as in `create`.

        Raises:
            LedgerError: no ledger there, of another schema version, or signed by another key.
            LedgerTamperedError: its head is not what its last checkpoint covers.
        """
        store = Store(location, read_only=signing_key is None)
        store.require_file()
        if not store.has_schema():
            raise LedgerError(f"there is no ledger at {store.where}; create one first")
        bring_up_to_date(store)
        with store.read() as connection:
            facts = schema.read_meta(connection)
            if signing_key is not None:
                pinned: Verifier | None = Verifier.of(facts.get("origin", "?"), signing_key)
            else:
                pinned = Verifier.parse(verifier) if isinstance(verifier, str) else verifier
            log.load_head(connection, pinned)
        return cls(store, pinned, signing_key, accountant or default_accountant(), clock)

    @classmethod
    def restore(
        cls,
        source: Path,
        location: Location,
        *,
        signing_key: Ed25519PrivateKey,
        who: str,
        why: str,
        checkpoints: Sequence[str],
        accountant: Accountant | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> Self:
        """Go on from a backup or an exported bundle, as a new ledger at `location`.

        The copy has to hold every checkpoint that others keep of this ledger: what was charged
        after it was made would be forgotten, and spent again. The restoration is itself an entry.

        Args:
            source: a file written by `backup` or `export`.
            location: as in `create`; must be empty.
            signing_key: the key that the copied ledger was last signed with.
            who, why: recorded.
            checkpoints: the latest that each other party keeps of this ledger; none where the
                ledger never met another party.

        Raises:
            LedgerError: the source cannot be read, the location holds a ledger, another key.
            LedgerTamperedError: the source does not verify, or is older than a checkpoint.
        """
        copying.restore(source, location, signing_key, checkpoints)
        ledger = cls.open(location, signing_key=signing_key, accountant=accountant, clock=clock)
        with ledger._writing() as (connection, head):
            ledger._append(connection, head, payload_of("restored", {"who": who, "why": why}))
        return ledger

    # --- budgets ---------------------------------------------------------------------------------

    def set_budget(
        self, key: BudgetKey, epsilon: Decimal, delta: Decimal, *, who: str, why: str
    ) -> Entry:
        """Set or change a budget; the change is an entry, and what was spent stays spent.

        A budget lowered below what is spent is recorded and refuses every further charge. Only
        `Decimal("Infinity")` allows releases without any guarantee.

        Raises:
            LedgerError: a value out of range, or an owner's key is pinned: then only an approval
                sets a budget.
        """
        values = {
            "dataset": key.dataset, "unit": key.unit, "epsilon": epsilon, "delta": delta,
            "who": who, "why": why,
        }  # fmt: skip
        change = payload_of("budget", values)
        assert isinstance(change, BudgetSet)
        with self._writing() as (connection, head):
            if head.state.owner_key:
                raise LedgerError(
                    f"budgets of {head.owner!r} are set by its owner's approval alone: see "
                    "`privagg approve --help`"
                )
            account = log.read_account(connection, head, change.key)
            return self._append(connection, head, change, account=account).entry

    def project(self, key: BudgetKey, event: DpEvent) -> Projection:
        """What charging `event` would do; writes nothing.

        Raises:
            BudgetExceededError: no budget was set for `key`.
            UnknownEventError, CertificationError: the accountant cannot bound the event.
        """
        with self._store.read() as connection:
            head = self._head(connection)
            account = log.read_account(connection, head, key)
        return self._projection(_required(account, key), event)

    def _projection(self, account: Account, event: DpEvent) -> Projection:
        after = self._bound(compose(account.total, event), account.delta)
        return Projection(
            epsilon_before=self._spent(account).upper,
            epsilon_after=after.upper,
            epsilon_budget=account.epsilon_budget,
            delta=account.delta,
            fits=not is_beyond(after.upper, account.epsilon_budget),
            method=after.method,
            certified=after.certified,
        )

    # --- a round ---------------------------------------------------------------------------------

    def charge(self, request: ChargeRequest) -> Receipt:
        """Charge one attempt at one round, before anything is released.

        Charging the same request again returns the very same receipt and costs nothing.

        Returns:
            The receipt that training needs.

        Raises:
            ApprovalError: an owner's key is pinned, and no approval covers the plan today.
            BudgetExceededError: the budget is missing or too small; nothing was written.
            LedgerError: this attempt was charged with other contents; use a new attempt.
            UnknownEventError, CertificationError: the accountant cannot bound the event.
        """
        self._warm_up(request)
        with self._writing() as (connection, head):
            earlier = log.find_entry(connection, head, self._filed, Charge.kind, request.subject)
            if earlier is not None:
                charge = earlier.payload
                if not isinstance(charge, Charge) or not _same(charge.request(), request):
                    raise LedgerError(
                        f"run {request.run!r} round {request.round} attempt {request.attempt} was "
                        f"charged to {request.key} with other contents (entry {earlier.index}); "
                        "fresh sampling or noise needs a new attempt"
                    )
                return log.receipt_for(connection, head, earlier)
            self._require_approved(head, request)
            account = _required(log.read_account(connection, head, request.key), request.key)
            projection = self._projection(account, request.event)
            if not projection.fits:
                raise BudgetExceededError(_refusal(request, projection))
            charge = Charge(
                **{name: getattr(request, name) for name in ChargeRequest.model_fields},
                epsilon_before=projection.epsilon_before,
                epsilon_after=projection.epsilon_after,
                epsilon_budget=projection.epsilon_budget,
                delta=projection.delta,
                accountant=self._accountant.name,
                method=projection.method,
                certified=projection.certified,
            )
            added = self._append(connection, head, charge, account=account)
            return Receipt(
                owner=head.owner,
                entry=added.entry.body().decode("ascii"),
                checkpoint=added.note,
                path=tuple(step.hex() for step in added.path),
            )

    def _require_approved(self, head: log.Head, request: ChargeRequest) -> None:
        if head.state.owner_key:
            plan, day = request.plan_digest, self._day(head)
            approved(head.state, head.owner, request.key, plan, day, request.run)

    def _warm_up(self, request: ChargeRequest) -> None:
        """Bound epsilon before the write lock is taken, so that other writers need not wait.

        What is read here is not authenticated and not relied on: it only fills the cache of bounds.
        """
        with self._store.read() as connection:
            if log.is_filed(connection, Charge.kind, request.subject):
                return
            account = log.peek_account(connection, request.key)
        if account is not None:
            self._projection(account, request.event)

    # --- keys ------------------------------------------------------------------------------------

    def rotate_key(self, new_key: Ed25519PrivateKey, *, who: str, why: str) -> Entry:
        """Change the signing key; the checkpoint after this entry is signed by both.

        Store the new key durably before calling this: afterwards the ledger opens with no other.
        Every other process that has the ledger open must open it anew with the new key.

        Raises:
            LedgerError: the new key is the present one.
        """
        with self._writing() as (connection, head):
            assert self._key is not None
            new = Verifier.of(head.state.origin, new_key)
            values = {
                "old_verifier": head.state.owner_verifier, "new_verifier": new.encode(),
                "who": who, "why": why,
            }  # fmt: skip
            change = payload_of(KeyRotated.kind, values)
            if new.encode() == head.state.owner_verifier:
                raise LedgerError("the new key is the ledger's present key")
            added = log.append(
                connection, head, change, keys=(self._key, new_key), now=self._clock()
            )
            schema.write_meta(connection, "verifier", new.encode())
        self._key, self._pinned = new_key, new
        return added.entry


def _required(account: Account | None, key: BudgetKey) -> Account:
    if account is None:
        raise BudgetExceededError(
            f"no budget was set for data set {key.dataset!r}, unit {key.unit!r}; set one first"
        )
    return account


def _refusal(request: ChargeRequest, projection: Projection) -> str:
    return (
        f"charging run {request.run!r} round {request.round} to data set {request.dataset!r} "
        f"(unit {request.unit}) would raise epsilon from {projection.epsilon_before} to "
        f"{projection.epsilon_after} at delta {projection.delta}, above the budget "
        f"{projection.epsilon_budget}; plan fewer rounds or more noise, or have the budget raised"
    )


def _same(one: ChargeRequest, other: ChargeRequest) -> bool:
    return one.to_json() == other.to_json()
