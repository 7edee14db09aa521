"""The privacy budget ledger: charge first, train afterwards, and never rewrite.

One ledger belongs to one institution and holds its budgets for every data set, across runs. Each
method that changes anything is one transaction: either the entry, its signed checkpoint and the new
totals are all durable, or nothing is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, delete

from privagg.errors import (
    BudgetExceededError,
    KeyMismatchError,
    LedgerError,
    LedgerTamperedError,
    ReceiptError,
)
from privagg.privacy.accountant import Accountant
from privagg.privacy.accountants import default_accountant
from privagg.privacy.ledger import canonical, copies, log, schema
from privagg.privacy.ledger.approvals import approved
from privagg.privacy.ledger.checkpoint import Checkpoint, Verifier, check_key_name
from privagg.privacy.ledger.entries import (
    RECORDABLE,
    Aborted,
    BudgetKey,
    BudgetSet,
    Charge,
    ChargeRequest,
    Consumed,
    Created,
    Entry,
    KeyRotated,
    OwnersAct,
    Payload,
    Realised,
    RunKeyTaken,
    UploadStored,
    payload_of,
)
from privagg.privacy.ledger.merkle import Frontier
from privagg.privacy.ledger.reading import LedgerReader, Projection, required_account, system_clock
from privagg.privacy.ledger.receipt import Receipt
from privagg.privacy.ledger.state import Account, State
from privagg.privacy.ledger.store import Location, Store, bring_up_to_date

ORIGIN_PREFIX = "privagg.ledger/"
SOFTWARE = "privagg ledger, entry format 1"


class Ledger(LedgerReader):
    """A ledger opened for reading, and for writing where its signing key was given.

    Guarantees: a charge that would exceed its budget is refused before anything is written, also
    among concurrent writers; a kill at any instant neither loses a charge nor doubles one; entries
    are never changed or removed. A damaged or edited ledger stops with `LedgerTamperedError`.

    What is charged is the event with the least noise that may be opened. What really happened is
    recorded beside it (`record`) and never returns budget, nor does a round that failed.

    A round, in the order that the ledger enforces:

    >>> ledger = Ledger.create(folder / "site.db", "clinic", signing_key=key)
    >>> scans = BudgetKey("scans", "record")
    >>> entry = ledger.set_budget(scans, Decimal(8), Decimal("1e-6"), who="owner", why="study 7")
    >>> ledger.project(scans, event).fits  # nothing is written
    True
    >>> request = ChargeRequest(
    ...     run="run-1", round=1, attempt=1, dataset="scans", unit="record", event=event,
    ...     plan_digest="ab" * 32,
    ... )
    >>> receipt = ledger.charge(request)  # refused where the budget does not allow it
    >>> receipt == ledger.charge(request)  # the same again costs nothing
    True
    >>> entry = ledger.consume(receipt)  # once: now the site trains
    >>> entry = ledger.store_upload(receipt, b"ciphertext")  # a resend is these bytes
    >>> ledger.spent(scans).charges
    1
    >>> ledger.verify()  # the whole log, replayed; and what only others could tell
    ['completeness of history not verifiable: no checkpoint kept by another party was given']
    >>> ledger.close()
    """

    def __init__(
        self,
        store: Store,
        pinned: Verifier | None,
        signing_key: Ed25519PrivateKey | None,
        accountant: Accountant,
        clock: Callable[[], datetime] | None,
    ) -> None:
        """A handle on what is stored; `create`, `open` and `restore` make one.

        Args:
            store, pinned, accountant, clock: as for `LedgerReader`; the clock gives the time of new
                entries, too.
            signing_key: signs new entries; None opens for reading.
        """
        super().__init__(store, pinned, accountant, clock)
        self._key = signing_key

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
            copies.require_empty(connection, store.where)
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

    @staticmethod
    def is_at(location: Path) -> bool:
        """Whether a file holds a ledger; an empty one was left where `create` was cut off."""
        if not location.exists():
            return False
        store = Store(location, read_only=True)
        try:
            return store.has_schema()
        finally:
            store.close()

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
            raise LedgerError(f"there is no ledger at {store.where}; correct the path")
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
            accountant: bounds what is spent; the certified one by default.
            clock: gives the time of new entries; the system's by default.

        Raises:
            LedgerError: the source cannot be read, the location holds a ledger, another key.
            LedgerTamperedError: the source does not verify, or is older than a checkpoint.
        """
        copies.restore(source, location, signing_key, checkpoints)
        ledger = cls.open(location, signing_key=signing_key, accountant=accountant, clock=clock)
        with ledger._writing() as (connection, head):
            ledger._append(connection, head, payload_of("restored", {"who": who, "why": why}))
        return ledger

    # --- budgets ----------------------------------------------------------------------------------

    def set_budget(
        self, key: BudgetKey, epsilon: Decimal, delta: Decimal, *, who: str, why: str
    ) -> Entry:
        """Set or change a budget; the change is an entry, and what was spent stays spent.

        A budget lowered below what is spent is recorded and refuses every further charge. Only
        `Decimal("Infinity")` allows releases without any guarantee.

        Args:
            key: data set and unit.
            epsilon: the budget, at least 0.
            delta: in (0, 1); epsilon is counted at it.
            who, why: recorded.

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

    # --- what the owner decided -------------------------------------------------------------------

    def decide(self, act: OwnersAct) -> Entry:
        """Record an owner's act: from now on it holds.

        Raises:
            LedgerError: it is signed by another key than the owner's, was recorded before, is over
                already, or withdraws what is not in force; nothing was written.
        """
        with self._writing() as (connection, head):
            earlier = self._find(connection, head, act.kind, str(act.subject))
            if earlier is not None:
                raise LedgerError(f"this {act.kind} was recorded before; make a new one")
            key = act.key
            account = None if key is None else log.read_account(connection, head, key)
            try:
                return self._append(connection, head, act, account=account).entry
            except LedgerTamperedError as error:
                raise LedgerError(f"the owner's act is refused: {error}") from error

    def _require_approved(self, head: log.Head, request: ChargeRequest) -> None:
        if head.state.owner_key:
            plan, day = request.plan_digest, self._day(head)
            approved(head.state, head.owner, request.key, plan, day, request.run)

    # --- a round, from its charge on --------------------------------------------------------------

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
            earlier = self._find(connection, head, Charge.kind, request.subject)
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
            account = required_account(log.read_account(connection, head, request.key), request.key)
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

    def consume(self, receipt: Receipt) -> Entry:
        """Use a receipt up, durably: whoever trains calls this first.

        Raises:
            ReceiptError: forged, of another ledger, already used, or of an aborted attempt.
        """
        with self._writing() as (connection, head):
            charge = self._genuine(connection, head, receipt)
            used = self._find(connection, head, Consumed.kind, charge.subject)
            if used is not None:
                raise ReceiptError(
                    f"the receipt for run {charge.run!r} round {charge.round} attempt "
                    f"{charge.attempt} was used before (entry {used.index}); "
                    "training again needs a new attempt and a new charge"
                )
            attempt = charge.attempt_subject
            if self._find(connection, head, Aborted.kind, attempt) is not None:
                raise ReceiptError(
                    f"run {charge.run!r} round {charge.round} attempt {charge.attempt} was aborted"
                )
            log.store_bytes(connection, charge.subject, charge.run, b"")
            consumed = Consumed(**_charge_fields(charge), charge=receipt.index)
            return self._append(connection, head, consumed).entry

    def fail_training(self, receipt: Receipt) -> None:
        """Training under a receipt failed by itself, perhaps because of the records: never again.

        Raises:
            ReceiptError: the receipt is not genuine.
        """
        with self._writing() as (connection, head):
            _end_training(connection, self._genuine(connection, head, receipt))

    def store_upload(self, receipt: Receipt, data: bytes) -> Entry:
        """Keep an upload's bytes, so that a resend is these bytes; the digest goes into the log.

        Those of the run's earlier attempts go in the same transaction: whoever asks for this one
        asks for them no more. Storing the same bytes again changes nothing.

        Raises:
            ReceiptError: the receipt is not genuine or was not used for training.
            LedgerError: other bytes are stored for this attempt.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        with self._writing() as (connection, head):
            charge = self._genuine(connection, head, receipt)
            if self._find(connection, head, Consumed.kind, charge.subject) is None:
                raise ReceiptError("an upload needs a receipt that was used for training")
            subject = charge.attempt_subject
            earlier = self._find(connection, head, UploadStored.kind, subject)
            if earlier is not None:
                stored = earlier.payload
                if isinstance(stored, UploadStored) and stored.sha256 == sha256:
                    return earlier
                raise LedgerError(
                    f"run {charge.run!r} round {charge.round} attempt {charge.attempt} has an "
                    "upload already; other bytes would be a second release on one charge"
                )
            _end_training(connection, charge)
            log.forget_uploads(connection, charge.run, (charge.round, charge.attempt))
            log.store_bytes(connection, subject, charge.run, data)
            upload = UploadStored(
                run=charge.run, round=charge.round, attempt=charge.attempt,
                charge=receipt.index, sha256=sha256, length_bytes=len(data),
            )  # fmt: skip
            return self._append(connection, head, upload).entry

    def record(self, kind: str, payload: Mapping[str, Any]) -> Entry:
        """Append what happened: `realised`, `aborted`, `opened`, `released` or `tuning`.

        None of these returns budget. Where there is one such entry for each attempt, recording the
        same again changes nothing.

        Raises:
            LedgerError: another kind, wrong fields, contradicts what is recorded, or `realised`
                without a charge.
        """
        if kind not in RECORDABLE:
            raise LedgerError(
                f"cannot record {kind!r}; these can be: {', '.join(sorted(RECORDABLE))}"
            )
        entry = payload_of(kind, payload)
        subject = entry.subject
        with self._writing() as (connection, head):
            if subject is not None:
                earlier = self._find(connection, head, kind, subject)
                if earlier is not None and earlier.payload.to_json() == entry.to_json():
                    return earlier
                if earlier is not None:
                    raise LedgerError(
                        f"entry {earlier.index} records {kind!r} for {subject} with other contents"
                    )
            if isinstance(entry, Realised):
                assert subject is not None
                if self._find(connection, head, Charge.kind, subject) is None:
                    raise LedgerError(f"nothing was charged for {subject}; charge comes first")
            return self._append(connection, head, entry).entry

    # --- a run: its key, and the bytes kept until it is over --------------------------------------

    def take_run_key(self, taken: RunKeyTaken, statement: bytes) -> Entry:
        """Take the one key of a run, durably; the statement of it is kept until the run is over.

        Taking the same again changes nothing, but that its bytes are kept where they were not.

        Raises:
            KeyMismatchError: the run has another key; the message names both.
        """
        with self._writing() as (connection, head):
            subject = taken.subject
            entry = self._find(connection, head, taken.kind, subject)
            if entry is not None and entry.payload != taken:
                earlier = entry.payload
                assert isinstance(earlier, RunKeyTaken)
                raise KeyMismatchError(
                    f"run {taken.run!r} has key {earlier.key_id[:16]}... by entry {entry.index} of "
                    f"this ledger; a second statement, of {taken.key_id[:16]}..., is refused"
                )
            if not log.is_stored(connection, subject):
                log.store_bytes(connection, subject, taken.run, statement)
            return entry or self._append(connection, head, taken).entry

    def forget_uploads(self, run: str, *, through: tuple[int, int] | None = None) -> int:
        """Free the bytes stored for what is finished of a run; their digests stay in the log.

        The attempts stay spent: what was forgotten is neither sent again nor made anew.

        Args:
            run: the run's name.
            through: (round, attempt), the last whose upload goes; None where the run is over: then
                the statement of its key and marks of training under way go, too.

        Returns:
            How many were removed.
        """
        with self._writing() as (connection, _):
            return log.forget_uploads(connection, run, through)

    # --- other ledgers ----------------------------------------------------------------------------

    def distrust(self, owner: str, reason: str, *, unproved: Checkpoint | None = None) -> None:
        """Remember that another's ledger contradicted what is kept of it here, or kept silent.

        Args:
            owner: of the other ledger.
            reason: how it did.
            unproved: what it showed without the proof that this extends the kept checkpoint. The
                distrust then ends with the proof, that is once a checkpoint is kept that extends
                this one, which is to be kept, and those kept now; None for a contradiction, which
                never ends.
        """
        name = schema.DISTRUST + hashlib.sha256(owner.encode()).hexdigest()[:32]
        said: dict[str, str | int] = {"owner": owner, "reason": reason[:2048]}
        if unproved is not None:
            kept = self.keeper.sizes([unproved.origin]).get(unproved.origin, 0)
            said |= {"origin": unproved.origin, "beyond": max(unproved.size, kept)}
        with self._writing() as (connection, _):
            before = schema.read_meta(connection).get(name)
            if before is None or "beyond" in json.loads(before):
                schema.write_meta(connection, name, canonical.dumps(said).decode("ascii"))

    # --- keys -------------------------------------------------------------------------------------

    def rotate_key(self, new_key: Ed25519PrivateKey, *, who: str, why: str) -> Entry:
        """Change the signing key; the checkpoint after this entry is signed by both.

        Store the new key durably before calling this: afterwards the ledger opens with no other.
        Every other process that has the ledger open must open it anew with the new key.

        Args:
            new_key: signs every later checkpoint.
            who, why: recorded.

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

    # --- transactions -----------------------------------------------------------------------------

    def together(self) -> AbstractContextManager[None]:
        """Have the changes inside be durable at once, when it ends; see `Store.together`."""
        return self._store.together()

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, log.Head]]:
        """A transaction that holds the write lock, with the authenticated end."""
        with self._store.write() as connection:
            yield connection, log.load_head(connection, self._pinned)

    def _append(
        self,
        connection: Connection,
        head: log.Head,
        payload: Payload,
        *,
        account: Account | None = None,
    ) -> log.Appended:
        """Append an entry; `account` is the stored one where the payload changes a budget."""
        assert self._key is not None
        return log.append(
            connection, head, payload, keys=(self._key,), now=self._clock(), account=account
        )


def _refusal(request: ChargeRequest, projection: Projection) -> str:
    return (
        f"charging run {request.run!r} round {request.round} to data set {request.dataset!r} "
        f"(unit {request.unit}) would raise epsilon from {projection.epsilon_before} to "
        f"{projection.epsilon_after} at delta {projection.delta}, above the budget "
        f"{projection.epsilon_budget}; plan fewer rounds or more noise, or have the budget raised"
    )


def _same(one: ChargeRequest, other: ChargeRequest) -> bool:
    return one.to_json() == other.to_json()


def _end_training(connection: Connection, charge: Charge) -> None:
    """Forget that training on a charge is under way."""
    connection.execute(delete(schema.uploads).where(schema.uploads.c.subject == charge.subject))


def _charge_fields(charge: Charge) -> dict[str, Any]:
    return {name: getattr(charge, name) for name in ("run", "round", "attempt", "dataset", "unit")}
