"""What a ledger tells: budgets, what was spent, what the owner decided, the log and its proofs.

Nothing here writes. Each method reads one snapshot, whose signed end is checked first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, func, select

from privagg.errors import (
    ApprovalError,
    BudgetExceededError,
    LedgerError,
    LedgerTamperedError,
    ReceiptError,
)
from privagg.privacy.accountant import Accountant, EpsilonBound
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import canonical, copies, log, schema
from privagg.privacy.ledger.approvals import approved
from privagg.privacy.ledger.checkpoint import Verifier
from privagg.privacy.ledger.composition import compose, is_beyond
from privagg.privacy.ledger.copies import Bundle
from privagg.privacy.ledger.entries import (
    Aborted,
    Approval,
    BudgetKey,
    Charge,
    Entry,
    RunKeyTaken,
    UploadStored,
    attempt_subject,
    key_subject,
)
from privagg.privacy.ledger.keeper import CheckpointKeeper
from privagg.privacy.ledger.log import Filed
from privagg.privacy.ledger.receipt import Receipt
from privagg.privacy.ledger.replay import missing_rules, replay_database
from privagg.privacy.ledger.state import Account
from privagg.privacy.ledger.store import Store


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
    """One charge in a budget's history, for a plot of epsilon against rounds.

    Attributes:
        index: of the ledger's entry.
        run: the run that was charged.
        round: number of the round.
        attempt: number of the attempt.
        epsilon_after: spent with this charge, at `delta`.
        epsilon_budget: the budget that it was held against.
        delta: the budget's.
    """

    index: int
    run: str
    round: int
    attempt: int
    epsilon_after: Decimal
    epsilon_budget: Decimal
    delta: Decimal


@dataclass(frozen=True)
class Projection:
    """What a charge would do.

    Attributes:
        epsilon_before, epsilon_after: upper bounds at `delta`.
        epsilon_budget: the budget it would be held against.
        delta: the budget's delta.
        fits: True where the charge would be taken.
        method: how epsilon_after was bounded.
        certified: whether that bound is proved.
    """

    epsilon_before: Decimal
    epsilon_after: Decimal
    epsilon_budget: Decimal
    delta: Decimal
    fits: bool
    method: str
    certified: bool


class LedgerReader:
    """A ledger opened for reading; `Ledger` writes, too.

    A damaged or edited ledger stops each of these with `LedgerTamperedError`.
    """

    def __init__(
        self,
        store: Store,
        pinned: Verifier | None,
        accountant: Accountant,
        clock: Callable[[], datetime] | None,
    ) -> None:
        """A handle on what is stored; `Ledger.create`, `open` and `restore` make one.

        Args:
            store: the database.
            pinned: the key that must have signed the log; None takes the one that the ledger names
                itself.
            accountant: bounds what is spent.
            clock: gives the day that approvals are held against; the system's by default.
        """
        self._store = store
        self._pinned = pinned
        self._clock = clock or system_clock
        self._accountant = accountant
        self._bound = lru_cache(maxsize=256)(accountant.epsilon)
        self._filed = Filed()

    def close(self) -> None:
        """Give back every connection to the database."""
        self._store.close()

    # --- who and what -----------------------------------------------------------------------------

    @property
    def owner(self) -> str:
        """Whose ledger."""
        with self._reading() as (_, head):
            return head.owner

    @property
    def verifier(self) -> Verifier:
        """The public key that signs the ledger now, under the log's origin as its name."""
        with self._reading() as (_, head):
            return Verifier.parse(head.state.owner_verifier)

    @property
    def origin(self) -> str:
        """The log's own name, which owner's acts are signed for."""
        with self._reading() as (_, head):
            return head.state.origin

    @property
    def owner_key(self) -> str:
        """Hex of the key that owner's acts are signed with; empty where none is pinned."""
        with self._reading() as (_, head):
            return head.state.owner_key

    def __len__(self) -> int:
        """Number of entries."""
        with self._reading() as (_, head):
            return head.size

    # --- budgets ----------------------------------------------------------------------------------

    def keys(self) -> list[BudgetKey]:
        """Every data set and unit that has a budget, sorted."""
        with self._reading() as (_, head):
            return sorted(head.state.digests)

    def project(self, key: BudgetKey, event: DpEvent) -> Projection:
        """What charging `event` would do; writes nothing.

        Raises:
            BudgetExceededError: no budget was set for `key`.
            UnknownEventError, CertificationError: the accountant cannot bound the event.
        """
        with self._reading() as (connection, head):
            account = log.read_account(connection, head, key)
        return self._projection(required_account(account, key), event)

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

    def spent(self, key: BudgetKey) -> Spending:
        """What the committed events of `key` cost so far.

        Raises:
            LedgerError: no budget was ever set for it.
        """
        with self._reading() as (connection, head):
            account = log.read_account(connection, head, key)
        if account is None:
            raise LedgerError(f"no budget was set for data set {key.dataset!r}, unit {key.unit!r}")
        epsilon = self._bound(account.total, account.delta)
        return Spending(
            key, account.total, epsilon, account.epsilon_budget, account.delta, account.charges
        )

    def _spent(self, account: Account) -> EpsilonBound:
        """Epsilon before the next charge: as recorded where it is still the same question."""
        if account.epsilon_spent is not None and (
            account.charges == 0 or account.accountant == self._accountant.name
        ):
            return EpsilonBound(account.epsilon_spent, None, "as recorded", certified=False)
        return self._bound(account.total, account.delta)

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

    def _entries_of(self, key: BudgetKey, kind: str) -> list[Entry]:
        table = schema.entries
        query = (
            select(table.c.idx, table.c.body)
            .where(table.c.account == log.account_column(key), table.c.kind == kind)
            .order_by(table.c.idx)
        )
        with self._reading() as (connection, _):
            return [
                Entry.parse(row.body.encode(), what=f"entry {row.idx}")
                for row in connection.execute(query)
            ]

    # --- what the owner decided -------------------------------------------------------------------

    def approvals(self, day: str | None = None) -> tuple[Approval, ...]:
        """The approvals in force on a day (`YYYY-MM-DD`), today by default; oldest first."""
        with self._reading() as (_, head):
            day = day or self._day(head)
        return tuple(a for a in head.state.approvals if a.until >= day)

    def require_approval(
        self, key: BudgetKey, plan_digest: str, run: str | None = None
    ) -> Approval:
        """The approval under which a run of a plan, or a fresh one, may use a data set today.

        Args:
            key: data set and unit.
            plan_digest: SHA-256 (hex) of the plan.
            run: None asks for a run that was not begun.

        Raises:
            ApprovalError: there is none, or it is over, withdrawn or used up.
        """
        with self._reading() as (_, head):
            return approved(head.state, head.owner, key, plan_digest, self._day(head), run)

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
        with self._reading() as (_, head):
            return self._day(head)

    def _day(self, head: log.Head) -> str:
        """Today; but no day before that of the last entry, whatever a clock says by now."""
        return max(self._today(), head.day)

    def _today(self) -> str:
        return self._clock().astimezone(UTC).strftime("%Y-%m-%d")

    # --- a round, from its charge on --------------------------------------------------------------

    def cut_off(self, receipt: Receipt) -> bool:
        """Whether training under a used receipt was cut off, and may begin anew under this charge.

        It may where training began in this very database, did not fail (`fail_training`), and no
        upload was stored since: what the first one drew was stored nowhere and sent to nobody, and
        whichever upload is stored first is the only one that ever leaves. A restored copy does not
        know that of itself, and the answer is no; nor where the attempt was aborted.

        Raises:
            ReceiptError: the receipt is not genuine.
        """
        with self._reading() as (connection, head):
            charge = self._genuine(connection, head, receipt)
            ended = (UploadStored.kind, Aborted.kind)
            return log.is_stored(connection, charge.subject) and not any(
                self._find(connection, head, kind, charge.attempt_subject) for kind in ended
            )

    def stored_upload(self, run: str, round_: int, attempt: int) -> bytes | None:
        """The upload's bytes as stored for an attempt, None where there are none (any more).

        Args:
            run, round_, attempt: which attempt at which round.

        Raises:
            LedgerTamperedError: they are not those whose digest stands in the log.
        """
        subject = attempt_subject(run, round_, attempt)
        with self._reading() as (connection, head):
            data = connection.execute(
                select(schema.uploads.c.data).where(schema.uploads.c.subject == subject)
            ).scalar_one_or_none()
            if data is None:
                return None
            entry = self._find(connection, head, UploadStored.kind, subject)
        stored = bytes(data)
        if (
            entry is None
            or not isinstance(entry.payload, UploadStored)
            or entry.payload.sha256 != hashlib.sha256(stored).hexdigest()
        ):
            raise LedgerTamperedError(f"the stored upload {subject} is not the one that was logged")
        return stored

    def was_charged(self, run: str) -> bool:
        """Whether anything of a run is filed as charged; no proof, so no charge may rest on it."""
        table, prefix = schema.entries, canonical.dumps([run]).decode("ascii")[:-1] + ","
        # Not LIKE: SQLite's does not tell capital letters from small ones, and runs do.
        same = func.substr(table.c.subject, 1, len(prefix)) == prefix
        query = select(table.c.idx).where(table.c.kind == Charge.kind, same)
        with self._store.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def plan_was_charged(self, key: BudgetKey, plan_digest: str) -> bool:
        """Whether any run under a plan is filed as charged to `key`; no proof, as `was_charged`."""
        charges = (entry.payload for entry in self._entries_of(key, Charge.kind))
        return any(isinstance(c, Charge) and c.plan_digest == plan_digest for c in charges)

    def entry_about(self, kind: str, subject: Sequence[str | int]) -> Entry | None:
        """The entry of this kind about (run, round, attempt[, dataset, unit]), if there is one."""
        name = canonical.dumps(list(subject)).decode("ascii")
        with self._reading() as (connection, head):
            return self._find(connection, head, kind, name)

    def recorded(self, kind: str, subject: Sequence[str | int]) -> bool:
        """Whether there is an `entry_about` that."""
        return self.entry_about(kind, subject) is not None

    def _genuine(self, connection: Connection, head: log.Head, receipt: Receipt) -> Charge:
        """The charge behind a receipt that this ledger gave out.

        Raises:
            ReceiptError: it gave out no such receipt.
        """
        charge = receipt.charge
        stored = self._find(connection, head, Charge.kind, charge.subject)
        if stored is None or log.receipt_for(connection, head, stored) != receipt:
            raise ReceiptError(
                f"the receipt for run {charge.run!r} round {charge.round} attempt "
                f"{charge.attempt} was not given out by the ledger of {head.owner}"
            )
        return charge

    # --- a run: its key, and the bytes kept until it is over --------------------------------------

    def run_key(self, run: str, first: int = 1) -> RunKeyTaken | None:
        """The one key of a run that this ledger took, None where it took none.

        Args:
            run: the run's name.
            first: the first round under the key.
        """
        entry = self.entry_about(RunKeyTaken.kind, (run,) if first == 1 else (run, first))
        taken = None if entry is None else entry.payload
        return taken if isinstance(taken, RunKeyTaken) else None

    def stored_run_key(self, run: str, first: int = 1) -> bytes | None:
        """The statement of a run's key as it came, None where it is not kept (any more).

        Args:
            run, first: as for `run_key`.

        Raises:
            LedgerTamperedError: it is not the one whose digest stands in the log.
        """
        taken, table = self.run_key(run, first), schema.uploads.c
        with self._store.read() as connection:
            query = select(table.data).where(table.subject == key_subject(run, first))
            data = connection.execute(query).scalar_one_or_none()
        if data is None:
            return None
        stored = bytes(data)
        if taken is None or taken.sha256 != hashlib.sha256(stored).hexdigest():
            raise LedgerTamperedError(
                f"the stored key of run {run!r} is not the one that was taken"
            )
        return stored

    # --- the log and its proofs -------------------------------------------------------------------

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

    def checkpoint(self, size: int | None = None) -> str:
        """The signed checkpoint of the log as it is, or as it was at `size` entries."""
        with self._reading() as (connection, head):
            if size is None or size == head.size:
                return head.note
            if not 0 < size < head.size:
                raise LedgerError(f"there is no checkpoint of size {size} in {head.size} entries")
            return log.read_note(connection, size)

    def root(self) -> bytes:
        """The Merkle tree head over all entries, 32 bytes."""
        with self._reading() as (_, head):
            return head.frontier.root()

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Proof that entry `index` is in the tree of `size` entries (all by default)."""
        with self._reading() as (connection, head):
            return log.inclusion_path(connection, index, _within(head.size, size))

    def consistency_proof(self, old: int, new: int | None = None) -> list[bytes]:
        """Proof that the tree of `new` entries (all by default) extends that of `old`."""
        with self._reading() as (connection, head):
            return log.consistency_path(connection, old, _within(head.size, new))

    # --- other ledgers ----------------------------------------------------------------------------

    @property
    def keeper(self) -> CheckpointKeeper:
        """Keeps other ledgers' checkpoints in this ledger's database, beside its own entries."""
        return CheckpointKeeper(self._store)

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

    # --- verification and copies ------------------------------------------------------------------

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
        with self._reading() as (connection, _):
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
        copies.back_up(self._store, path)

    # --- transactions -----------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[tuple[Connection, log.Head]]:
        """One snapshot with its authenticated end."""
        with self._store.read() as connection:
            yield connection, log.load_head(connection, self._pinned)

    def _find(
        self, connection: Connection, head: log.Head, kind: str, subject: str
    ) -> Entry | None:
        """The one entry of this kind about `subject`, proved; None only where there is none."""
        return log.find_entry(connection, head, self._filed, kind, subject)


def required_account(account: Account | None, key: BudgetKey) -> Account:
    """The stored account of a budget.

    Args:
        account: as read; None where there is none.
        key: data set and unit, as the error names them.

    Raises:
        BudgetExceededError: no budget was ever set.
    """
    if account is None:
        raise BudgetExceededError(
            f"no budget was set for data set {key.dataset!r}, unit {key.unit!r}; set one first"
        )
    return account


def _within(size: int, wanted: int | None) -> int:
    if wanted is None:
        return size
    if not 0 <= wanted <= size:
        raise LedgerError(f"the log has {size} entries, not {wanted}")
    return wanted


def system_clock() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
