"""Writing to a ledger: the one transaction, and what a round records around its charge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, delete, insert

from privagg.errors import KeyMismatchError, LedgerError, LedgerTamperedError, ReceiptError
from privagg.privacy.accountant import Accountant
from privagg.privacy.ledger import canonical, log, schema
from privagg.privacy.ledger.checkpoint import Checkpoint
from privagg.privacy.ledger.entries import Entry
from privagg.privacy.ledger.keeper import CheckpointKeeper
from privagg.privacy.ledger.notes import Verifier
from privagg.privacy.ledger.payloads import (
    RECORDABLE,
    Aborted,
    Charge,
    Consumed,
    OwnersAct,
    Payload,
    Realised,
    RunKeyTaken,
    UploadStored,
    payload_of,
)
from privagg.privacy.ledger.reading import LedgerReading
from privagg.privacy.ledger.receipt import Receipt
from privagg.privacy.ledger.state import Account
from privagg.privacy.ledger.store import Store


class LedgerWriting(LedgerReading):
    """What happens after a charge: training, upload, and what became of the round."""

    def __init__(
        self,
        store: Store,
        pinned: Verifier | None,
        signing_key: Ed25519PrivateKey | None,
        accountant: Accountant,
        clock: Callable[[], datetime] | None,
    ) -> None:
        super().__init__(store, pinned, accountant)
        self._key = signing_key
        self._clock = clock or system_clock

    def decide(self, act: OwnersAct) -> Entry:
        """Record an owner's act: from now on it holds.

        Raises:
            LedgerError: it is signed by another key than the owner's, was recorded before, is over
                already, or withdraws what is not in force; nothing was written.
        """
        with self._writing() as (connection, head):
            earlier = log.find_entry(connection, head, self._filed, act.kind, str(act.subject))
            if earlier is not None:
                raise LedgerError(f"this {act.kind} was recorded before; make a new one")
            key = act.key
            account = None if key is None else log.read_account(connection, head, key)
            try:
                return self._append(connection, head, act, account=account).entry
            except LedgerTamperedError as error:
                raise LedgerError(f"the owner's act is refused: {error}") from error

    def consume(self, receipt: Receipt) -> Entry:
        """Use a receipt up, durably: whoever trains calls this first.

        Raises:
            ReceiptError: forged, of another ledger, already used, or of an aborted attempt.
        """
        with self._writing() as (connection, head):
            charge = self._genuine(connection, head, receipt)
            used = log.find_entry(connection, head, self._filed, Consumed.kind, charge.subject)
            if used is not None:
                raise ReceiptError(
                    f"the receipt for run {charge.run!r} round {charge.round} attempt "
                    f"{charge.attempt} was used before (entry {used.index}); "
                    "training again needs a new attempt and a new charge"
                )
            attempt = charge.attempt_subject
            if log.find_entry(connection, head, self._filed, Aborted.kind, attempt) is not None:
                raise ReceiptError(
                    f"run {charge.run!r} round {charge.round} attempt {charge.attempt} was aborted"
                )
            consumed = Consumed(**_charge_fields(charge), charge=receipt.index)
            return self._append(connection, head, consumed).entry

    def store_upload(self, receipt: Receipt, data: bytes) -> Entry:
        """Keep an upload's bytes, so that a resend is these bytes; the digest goes into the log.

        Storing the same bytes again changes nothing.

        Raises:
            ReceiptError: the receipt is not genuine or was not used for training.
            LedgerError: other bytes are stored for this attempt.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        with self._writing() as (connection, head):
            charge = self._genuine(connection, head, receipt)
            if log.find_entry(connection, head, self._filed, Consumed.kind, charge.subject) is None:
                raise ReceiptError("an upload needs a receipt that was used for training")
            subject = charge.attempt_subject
            earlier = log.find_entry(connection, head, self._filed, UploadStored.kind, subject)
            if earlier is not None:
                stored = earlier.payload
                if isinstance(stored, UploadStored) and stored.sha256 == sha256:
                    return earlier
                raise LedgerError(
                    f"run {charge.run!r} round {charge.round} attempt {charge.attempt} has an "
                    "upload already; other bytes would be a second release on one charge"
                )
            connection.execute(
                insert(schema.uploads).values(subject=subject, run=charge.run, data=data)
            )
            upload = UploadStored(
                run=charge.run, round=charge.round, attempt=charge.attempt,
                charge=receipt.index, sha256=sha256, length_bytes=len(data),
            )  # fmt: skip
            return self._append(connection, head, upload).entry

    def take_run_key(self, taken: RunKeyTaken, statement: bytes) -> Entry:
        """Take the one key of a run, durably; the statement of it is kept until the run is over.

        Taking the same again changes nothing, but that its bytes are kept where they were not.

        Raises:
            KeyMismatchError: the run has another key; the message names both.
        """
        with self._writing() as (connection, head):
            subject, table = taken.subject, schema.uploads
            entry = log.find_entry(connection, head, self._filed, taken.kind, subject)
            if entry is not None and entry.payload != taken:
                earlier = entry.payload
                assert isinstance(earlier, RunKeyTaken)
                raise KeyMismatchError(
                    f"run {taken.run!r} has key {earlier.key_id[:16]}... by entry {entry.index} of "
                    f"this ledger; a second statement, of {taken.key_id[:16]}..., is refused"
                )
            if not log.is_stored(connection, subject):
                connection.execute(
                    insert(table).values(subject=subject, run=taken.run, data=statement)
                )
            return entry or self._append(connection, head, taken).entry

    def forget_uploads(self, run: str) -> int:
        """Free the bytes stored for a finished run; their digests stay in the log.

        Returns:
            How many uploads (and statements of a key) were removed.
        """
        with self._writing() as (connection, _):
            found = connection.execute(delete(schema.uploads).where(schema.uploads.c.run == run))
            return found.rowcount

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
                earlier = log.find_entry(connection, head, self._filed, kind, subject)
                if earlier is not None and earlier.payload.to_json() == entry.to_json():
                    return earlier
                if earlier is not None:
                    raise LedgerError(
                        f"entry {earlier.index} records {kind!r} for {subject} with other contents"
                    )
            if isinstance(entry, Realised):
                assert subject is not None
                if log.find_entry(connection, head, self._filed, Charge.kind, subject) is None:
                    raise LedgerError(f"nothing was charged for {subject}; charge comes first")
            return self._append(connection, head, entry).entry

    @property
    def keeper(self) -> CheckpointKeeper:
        """Keeps other ledgers' checkpoints in this ledger's database, beside its own entries."""
        return CheckpointKeeper(self._store)

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

    def distrusted(self) -> dict[str, str]:
        """Owner of a ledger that is not trusted (any more, or for now) -> why."""
        with self._store.read() as connection:
            rows = schema.read_meta(connection)
        said = [
            json.loads(value) for name, value in rows.items() if name.startswith(schema.DISTRUST)
        ]
        heads = self.keeper.heads(each["origin"] for each in said if "beyond" in each)
        return {
            each["owner"]: each["reason"]
            for each in said
            if "beyond" not in each or min(heads.get(each["origin"], (0,))) <= each["beyond"]
        }

    # --- shared ----------------------------------------------------------------------------------

    def _today(self) -> str:
        return self._clock().astimezone(UTC).strftime("%Y-%m-%d")

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, log.Head]]:
        with self._store.write() as connection:
            yield connection, self._head(connection)

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

    def _genuine(self, connection: Connection, head: log.Head, receipt: Receipt) -> Charge:
        """The charge behind a receipt that this ledger gave out.

        Raises:
            ReceiptError: it gave out no such receipt.
        """
        charge = receipt.charge
        stored = log.find_entry(connection, head, self._filed, Charge.kind, charge.subject)
        if stored is None or log.receipt_for(connection, head, stored) != receipt:
            raise ReceiptError(
                f"the receipt for run {charge.run!r} round {charge.round} attempt "
                f"{charge.attempt} was not given out by the ledger of {head.owner}"
            )
        return charge


def system_clock() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def _charge_fields(charge: Charge) -> dict[str, Any]:
    return {name: getattr(charge, name) for name in ("run", "round", "attempt", "dataset", "unit")}
