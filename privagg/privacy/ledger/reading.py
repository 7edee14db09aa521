"""What a ledger tells without being changed: spending, history, entries, proofs, checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, func, select

from privagg.errors import ApprovalError, LedgerError, LedgerTamperedError
from privagg.privacy.accountant import Accountant, EpsilonBound
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import canonical, log, schema
from privagg.privacy.ledger.approvals import approved
from privagg.privacy.ledger.bundle import Bundle
from privagg.privacy.ledger.composition import compose
from privagg.privacy.ledger.copying import back_up
from privagg.privacy.ledger.entries import Entry
from privagg.privacy.ledger.filed import Filed
from privagg.privacy.ledger.notes import Verifier
from privagg.privacy.ledger.payloads import (
    Approval,
    BudgetKey,
    Charge,
    Realised,
    RunKeyTaken,
    UploadStored,
    attempt_subject,
    run_subject,
)
from privagg.privacy.ledger.state import Account
from privagg.privacy.ledger.store import Store
from privagg.privacy.ledger.verifying import missing_rules, replay_database


@dataclass(frozen=True)
class Spending:
    """What was spent of one budget.

    Attributes:
        key: data set and unit.
        event: composition of all committed events.
        epsilon: upper bound at `delta`.
        epsilon_budget, delta: the budget now.
        charges: how many rounds (attempts) were charged.
    """

    key: BudgetKey
    event: DpEvent
    epsilon: EpsilonBound
    epsilon_budget: Decimal
    delta: Decimal
    charges: int


@dataclass(frozen=True)
class ChargePoint:
    """One charge in a budget's history, for a plot of epsilon against rounds."""

    index: int
    run: str
    round: int
    attempt: int
    epsilon_after: Decimal
    epsilon_budget: Decimal
    delta: Decimal


class LedgerReading:
    """The reading half of a ledger."""

    def __init__(self, store: Store, pinned: Verifier | None, accountant: Accountant) -> None:
        self._store = store
        self._pinned = pinned
        self._accountant = accountant
        self._bound = lru_cache(maxsize=256)(accountant.epsilon)
        self._filed = Filed()

    @property
    def owner(self) -> str:
        """Whose ledger."""
        with self._store.read() as connection:
            return self._head(connection).owner

    @property
    def verifier(self) -> Verifier:
        """The public key that signs the ledger now, under the log's origin as its name."""
        with self._store.read() as connection:
            return Verifier.parse(self._head(connection).state.owner_verifier)

    @property
    def origin(self) -> str:
        """The log's own name, which owner's acts are signed for."""
        with self._store.read() as connection:
            return self._head(connection).state.origin

    @property
    def owner_key(self) -> str:
        """Hex of the key that owner's acts are signed with; empty where none is pinned."""
        with self._store.read() as connection:
            return self._head(connection).state.owner_key

    def approvals(self, day: str | None = None) -> tuple[Approval, ...]:
        """The approvals in force on a day (`YYYY-MM-DD`), today by default; oldest first."""
        with self._store.read() as connection:
            head = self._head(connection)
        day = day or self._day(head)
        return tuple(a for a in head.state.approvals if a.until >= day)

    def require_approval(
        self, key: BudgetKey, plan_digest: str, run: str | None = None
    ) -> Approval:
        """The approval under which a run of a plan, or a fresh one, may use a data set today.

        Raises:
            ApprovalError: there is none, or it is over, withdrawn or used up.
        """
        with self._store.read() as connection:
            head = self._head(connection)
        return approved(head.state, head.owner, key, plan_digest, self._day(head), run)

    def _day(self, head: log.Head) -> str:
        """Today; but no day before that of the last entry, whatever a clock says by now."""
        return max(self._today(), head.day)

    def approved_until(self, plan_digest: str) -> str:
        """The last day (`YYYY-MM-DD`) on which an approval in force names a plan.

        Raises:
            ApprovalError: none does today.
        """
        days = [a.until for a in self.approvals() if plan_digest in a.plans]
        if not days:
            raise ApprovalError(
                f"the owner of {self.owner!r} has not approved plan {plan_digest[:16]}..., or only "
                "until a day that is over; nothing is opened for it. The owner approves with: "
                "privagg approve"
            )
        return max(days)

    def today(self) -> str:
        """The day, UTC, `YYYY-MM-DD`, that approvals are held against."""
        with self._store.read() as connection:
            return self._day(self._head(connection))

    def _today(self) -> str:
        return datetime.now(UTC).strftime("%Y-%m-%d")

    def keys(self) -> list[BudgetKey]:
        """Every data set and unit that has a budget, sorted."""
        with self._store.read() as connection:
            return sorted(self._head(connection).state.digests)

    def spent(self, key: BudgetKey) -> Spending:
        """What the committed events of `key` cost so far.

        Raises:
            LedgerError: no budget was ever set for it.
        """
        with self._store.read() as connection:
            head = self._head(connection)
            account = log.read_account(connection, head, key)
        if account is None:
            raise LedgerError(f"no budget was set for data set {key.dataset!r}, unit {key.unit!r}")
        epsilon = self._bound(account.total, account.delta)
        return Spending(
            key, account.total, epsilon, account.epsilon_budget, account.delta, account.charges
        )

    def history(self, key: BudgetKey) -> list[ChargePoint]:
        """Every charge to `key` in order, with epsilon as it stood after it."""
        charges = [
            (entry.index, entry.payload)
            for entry in self._entries_of(key, Charge.kind)
            if isinstance(entry.payload, Charge)
        ]
        return [
            ChargePoint(
                index, c.run, c.round, c.attempt, c.epsilon_after, c.epsilon_budget, c.delta
            )
            for index, c in charges
        ]

    def realised(self, key: BudgetKey) -> DpEvent:
        """Composition of the realised events of `key`; reported beside what was committed."""
        found = [
            entry.payload.event
            for entry in self._entries_of(key, Realised.kind)
            if isinstance(entry.payload, Realised)
        ]
        return compose(DpEvent(), DpEvent(), *found)

    def entries(self, start: int = 0, stop: int | None = None) -> list[Entry]:
        """The entries start … stop - 1, all by default."""
        table = schema.entries
        query = select(table.c.idx, table.c.body).where(table.c.idx >= start).order_by(table.c.idx)
        if stop is not None:
            query = query.where(table.c.idx < stop)
        with self._store.read() as connection:
            return [
                Entry.parse(row.body.encode(), what=f"entry {row.idx}")
                for row in connection.execute(query)
            ]

    def __len__(self) -> int:
        """Number of entries."""
        with self._store.read() as connection:
            return self._head(connection).size

    def checkpoint(self, size: int | None = None) -> str:
        """The signed checkpoint of the log as it is, or as it was at `size` entries."""
        with self._store.read() as connection:
            head = self._head(connection)
            if size is None or size == head.size:
                return head.note
            if not 0 < size < head.size:
                raise LedgerError(f"there is no checkpoint of size {size} in {head.size} entries")
            return log.read_note(connection, size)

    def root(self) -> bytes:
        """The Merkle tree head over all entries, 32 bytes."""
        with self._store.read() as connection:
            return self._head(connection).frontier.root()

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Proof that entry `index` is in the tree of `size` entries (all by default)."""
        with self._store.read() as connection:
            head = self._head(connection)
            return log.inclusion_path(connection, index, _within(head.size, size))

    def consistency_proof(self, old: int, new: int | None = None) -> list[bytes]:
        """Proof that the tree of `new` entries (all by default) extends that of `old`."""
        with self._store.read() as connection:
            head = self._head(connection)
            return log.consistency_path(connection, old, _within(head.size, new))

    def entry_about(self, kind: str, subject: Sequence[str | int]) -> Entry | None:
        """The entry of this kind about (run, round, attempt[, dataset, unit]), if there is one."""
        name = canonical.dumps(list(subject)).decode("ascii")
        with self._store.read() as connection:
            return log.find_entry(connection, self._head(connection), self._filed, kind, name)

    def recorded(self, kind: str, subject: Sequence[str | int]) -> bool:
        """Whether there is an `entry_about` that."""
        return self.entry_about(kind, subject) is not None

    def was_charged(self, run: str) -> bool:
        """Whether anything of a run is filed as charged; no proof, so no charge may rest on it."""
        table, prefix = schema.entries, canonical.dumps([run]).decode("ascii")[:-1] + ","
        # Not LIKE: SQLite's does not tell capital letters from small ones, and runs do.
        same = func.substr(table.c.subject, 1, len(prefix)) == prefix
        query = select(table.c.idx).where(table.c.kind == Charge.kind, same)
        with self._store.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def stored_upload(self, run: str, round_: int, attempt: int) -> bytes | None:
        """The upload's bytes as stored for an attempt, None where there are none.

        Raises:
            LedgerTamperedError: they are not those whose digest stands in the log.
        """
        subject = attempt_subject(run, round_, attempt)
        with self._store.read() as connection:
            head = self._head(connection)
            data = connection.execute(
                select(schema.uploads.c.data).where(schema.uploads.c.subject == subject)
            ).scalar_one_or_none()
            if data is None:
                return None
            entry = log.find_entry(connection, head, self._filed, UploadStored.kind, subject)
        stored = bytes(data)
        if (
            entry is None
            or not isinstance(entry.payload, UploadStored)
            or entry.payload.sha256 != hashlib.sha256(stored).hexdigest()
        ):
            raise LedgerTamperedError(f"the stored upload {subject} is not the one that was logged")
        return stored

    def run_key(self, run: str) -> RunKeyTaken | None:
        """The one key of a run that this ledger took, None where it took none."""
        entry = self.entry_about(RunKeyTaken.kind, (run,))
        taken = None if entry is None else entry.payload
        return taken if isinstance(taken, RunKeyTaken) else None

    def stored_run_key(self, run: str) -> bytes | None:
        """The statement of a run's key as it came, None where it is not kept (any more).

        Raises:
            LedgerTamperedError: it is not the one whose digest stands in the log.
        """
        taken, table = self.run_key(run), schema.uploads.c
        with self._store.read() as connection:
            query = select(table.data).where(table.subject == run_subject(run))
            data = connection.execute(query).scalar_one_or_none()
        if data is None:
            return None
        stored = bytes(data)
        if taken is None or taken.sha256 != hashlib.sha256(stored).hexdigest():
            raise LedgerTamperedError(
                f"the stored key of run {run!r} is not the one that was taken"
            )
        return stored

    def has_upload(self, run: str, round_: int, attempt: int) -> bool:
        """Whether an upload is stored for an attempt; the bytes, which may be many, stay unread.

        Raises:
            LedgerTamperedError: one is stored that was never logged.
        """
        subject = attempt_subject(run, round_, attempt)
        with self._store.read() as connection:
            head = self._head(connection)
            if not log.is_stored(connection, subject):
                return False
            if log.find_entry(connection, head, self._filed, UploadStored.kind, subject) is None:
                raise LedgerTamperedError(f"the stored upload {subject} was never logged")
        return True

    # --- verification and copies -----------------------------------------------------------------

    def verify(self, checkpoint: str | None = None) -> list[str]:
        """Replay the whole ledger: rules, totals, tree, signatures, uploads and every epsilon.

        Args:
            checkpoint: one of this ledger's checkpoints kept by another party; only with it can a
                rollback of the whole ledger be found.

        Returns:
            What could not be verified; empty where everything was.

        Raises:
            LedgerTamperedError: names the first thing that does not fit.
        """
        with self._store.read() as connection:
            replayed = replay_database(connection)
            missing = missing_rules(connection)
        return [
            *missing,
            *replayed.check_key(self._pinned),
            *replayed.check_history(checkpoint),
            *replayed.check_epsilon(self._accountant),
        ]

    def bundle(self) -> Bundle:
        """The ledger as others may verify it: entries and checkpoints, no stored uploads."""
        bodies, notes = schema.entries.c, schema.checkpoints.c
        with self._store.read() as connection:
            self._head(connection)
            return Bundle(
                tuple(
                    row.body.encode()
                    for row in connection.execute(select(bodies.body).order_by(bodies.idx))
                ),
                tuple(
                    row.note for row in connection.execute(select(notes.note).order_by(notes.size))
                ),
            )

    def export(self, path: Path) -> None:
        """Write `bundle` to a new file.

        Raises:
            LedgerError: there is a file already, or it cannot be written.
        """
        self.bundle().write(path)

    def backup(self, path: Path) -> None:
        """Copy the ledger, but for the stored uploads of rounds, to a new SQLite file.

        Raises:
            LedgerError: there is a file already, or it cannot be written.
        """
        back_up(self._store, path)

    def close(self) -> None:
        """Give back every connection to the database."""
        self._store.close()

    def _head(self, connection: Connection) -> log.Head:
        return log.load_head(connection, self._pinned)

    def _spent(self, account: Account) -> EpsilonBound:
        """Epsilon before the next charge: as recorded where it is still the same question."""
        if account.epsilon_spent is not None and (
            account.charges == 0 or account.accountant == self._accountant.name
        ):
            return EpsilonBound(account.epsilon_spent, None, "as recorded", certified=False)
        return self._bound(account.total, account.delta)

    def _entries_of(self, key: BudgetKey, kind: str) -> list[Entry]:
        table = schema.entries
        query = (
            select(table.c.idx, table.c.body)
            .where(table.c.account == log.account_column(key), table.c.kind == kind)
            .order_by(table.c.idx)
        )
        with self._store.read() as connection:
            self._head(connection)
            return [
                Entry.parse(row.body.encode(), what=f"entry {row.idx}")
                for row in connection.execute(query)
            ]


def _within(size: int, wanted: int | None) -> int:
    if wanted is None:
        return size
    if not 0 <= wanted <= size:
        raise LedgerError(f"the log has {size} entries, not {wanted}")
    return wanted
