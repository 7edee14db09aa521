"""Replaying a log from its first entry: what every verifier does, owner or stranger.

Nothing stored beside the entries is believed: budgets, totals, tree and keys are derived anew, and
each entry is held against the rules that its writer had to keep. In a database, `replay_database`
also holds everything stored beside the log against what follows from it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal

from sqlalchemy import Connection, select

from privagg.errors import LedgerTamperedError
from privagg.privacy.accountant import Accountant, EpsilonBound
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import canonical, log, merkle, schema
from privagg.privacy.ledger.checkpoint import Checkpoint, Verifier, open_checkpoint
from privagg.privacy.ledger.composition import compose
from privagg.privacy.ledger.entries import (
    Aborted,
    BudgetKey,
    Charge,
    Consumed,
    Created,
    Entry,
    KeyRotated,
    Payload,
    Realised,
    RunKeyTaken,
    UploadStored,
)
from privagg.privacy.ledger.state import Account, State, replay

HISTORY_UNVERIFIABLE = (
    "completeness of history not verifiable: no checkpoint kept by another party was given"
)
KEY_UNVERIFIABLE = (
    "the owner's key was not given: whoever rewrote the ledger could have signed it anew"
)
# Two runs of an uncertified accountant agree to rounding; anything lower was made up.
_UNCERTIFIED_TOLERANCE = Decimal("1e-6")
_NOTHING = hashlib.sha256(b"").hexdigest()


@dataclass
class Replay:
    """The state of a log as far as it was replayed.

    Attributes:
        owner: whose log.
        state: budgets and totals as digests.
        accounts: budgets and totals.
        frontier: the Merkle tree.
        verifiers: every key the log ever had, oldest first, with the size it signs from.
        roots: the tree's root at each size, `roots[n]` over the first n entries.
        charges: every charge by its position.
    """

    owner: str = ""
    state: State = field(default_factory=State)
    accounts: dict[BudgetKey, Account] = field(default_factory=dict)
    frontier: merkle.Frontier = field(default_factory=merkle.Frontier)
    verifiers: list[tuple[int, Verifier]] = field(default_factory=list)
    roots: list[bytes] = field(default_factory=lambda: [merkle.EMPTY_ROOT])
    charges: dict[int, Charge] = field(default_factory=dict)
    _once: set[tuple[str, str]] = field(default_factory=set)

    @property
    def size(self) -> int:
        """How many entries were replayed."""
        return self.frontier.size

    def add(self, body: bytes) -> Entry:
        """Replay the next entry.

        Raises:
            LedgerTamperedError: it is malformed, or breaks a rule of the ledger.
        """
        entry = Entry.parse(body, what=f"entry {self.size}")
        if entry.index != self.size:
            raise LedgerTamperedError(f"entry {self.size} says that it is entry {entry.index}")
        payload = entry.payload
        self._check_once(entry.index, payload)
        self._check_references(entry.index, payload)
        self.state = replay(entry, self.state, self.accounts)
        self.frontier, _ = self.frontier.append(merkle.leaf_hash(body))
        self.roots.append(self.frontier.root())
        if not self.verifiers or isinstance(payload, KeyRotated):
            self.verifiers.append((self.size, Verifier.parse(self.state.owner_verifier)))
        if isinstance(payload, Created):
            self.owner = payload.owner
        elif isinstance(payload, Charge):
            self.charges[entry.index] = payload
        return entry

    def check_note(self, note: str, size: int) -> Checkpoint:
        """Check the log's own checkpoint of `size` entries: content, and every signature it needs.

        Raises:
            LedgerTamperedError: another root, size or origin, or a signature missing or wrong.
        """
        checkpoint = open_checkpoint(note, *self._signers(size))
        if checkpoint != Checkpoint(self.state.origin, size, self.roots[size]):
            raise LedgerTamperedError(f"the checkpoint of size {size} does not cover the entries")
        return checkpoint

    def check_key(self, expected: Verifier | None) -> list[str]:
        """Check that `expected` is one of the log's keys.

        Returns:
            What could not be verified.

        Raises:
            LedgerTamperedError: the log was signed by others.
        """
        if expected is None:
            return [KEY_UNVERIFIABLE]
        if expected not in [verifier for _, verifier in self.verifiers]:
            raise LedgerTamperedError(
                f"the ledger is signed by {self.state.owner_verifier}, and never was by the "
                f"expected key {expected.encode()}: the key was swapped"
            )
        return []

    def check_history(self, kept: str | None) -> list[str]:
        """Check that the log still holds what a checkpoint kept elsewhere says.

        Returns:
            What could not be verified.

        Raises:
            LedgerTamperedError: rolled back, forked, of another ledger, or not signed by its keys.
        """
        if kept is None:
            return [HISTORY_UNVERIFIABLE]
        checkpoint = Checkpoint.parse(kept)
        if checkpoint.origin != self.state.origin:
            raise LedgerTamperedError(
                f"the kept checkpoint is of {checkpoint.origin!r}, not of {self.state.origin!r}"
            )
        if checkpoint.size > self.size:
            raise LedgerTamperedError(
                f"the ledger was rolled back: the kept checkpoint covers {checkpoint.size} "
                f"entries, {self.size} are left; where this copy was made before that checkpoint, "
                "give one that was kept by then"
            )
        open_checkpoint(kept, *self._signers(checkpoint.size))
        if checkpoint.root != self.roots[checkpoint.size]:
            raise LedgerTamperedError(
                f"the ledger was forked: its first {checkpoint.size} entries are not those signed"
            )
        return []

    def check_epsilon(self, accountant: Accountant, *, every_charge: bool = False) -> list[str]:
        """Compute every budget's epsilon anew and hold it against what was recorded.

        Args:
            accountant: computes; figures that another one recorded are not judged.
            every_charge: check epsilon after each charge, not only after the last.

        Returns:
            What could not be verified.

        Raises:
            LedgerTamperedError: a recorded epsilon lies below what the events cost.
        """
        last = {charge.key: index for index, charge in self.charges.items()}
        totals: dict[BudgetKey, DpEvent] = {}
        findings = set()
        for index, charge in self.charges.items():
            key = charge.key
            totals[key] = compose(totals.get(key, DpEvent()), charge.event)
            if not every_charge and index != last[key]:
                continue
            if charge.accountant != accountant.name:
                findings.add(
                    f"epsilon of {key.dataset}/{key.unit} was bounded by {charge.accountant!r} "
                    f"and not recomputed by {accountant.name!r}"
                )
                continue
            bound = accountant.epsilon(totals[key], charge.delta)
            if charge.epsilon_after < _least(bound):
                raise LedgerTamperedError(
                    f"entry {index} records epsilon {charge.epsilon_after} of {key.dataset}/"
                    f"{key.unit}, but its events cost {bound.upper}"
                )
        return sorted(findings)

    def _signers(self, size: int) -> list[Verifier]:
        """Who must have signed the checkpoint of `size` entries: two where a key was rotated."""
        present = max(
            (i for i, (start, _) in enumerate(self.verifiers) if start <= size), default=0
        )
        start, verifier = self.verifiers[present]
        if present and start == size:
            return [self.verifiers[present - 1][1], verifier]
        return [verifier]

    def _check_once(self, index: int, payload: Payload) -> None:
        if payload.subject is None:
            return
        name = (payload.kind, payload.subject)
        if name in self._once:
            raise LedgerTamperedError(
                f"entry {index} is a second {payload.kind!r} entry for {payload.subject}"
            )
        self._once.add(name)

    def _check_references(self, index: int, payload: Payload) -> None:
        if isinstance(payload, Consumed):
            charge = self.charges.get(payload.charge)
            if charge is None or charge.subject != payload.subject:
                raise LedgerTamperedError(f"entry {index} uses a receipt that was never given")
            if (Aborted.kind, payload.attempt_subject) in self._once:
                raise LedgerTamperedError(f"entry {index} trains on an aborted attempt")
        elif isinstance(payload, UploadStored):
            charge = self.charges.get(payload.charge)
            trained = charge is not None and (Consumed.kind, charge.subject) in self._once
            if charge is None or not trained or charge.attempt_subject != payload.subject:
                raise LedgerTamperedError(f"entry {index} uploads what was never trained")
        elif isinstance(payload, Realised) and (Charge.kind, payload.subject) not in self._once:
            raise LedgerTamperedError(f"entry {index} realises what was never charged")


def _least(bound: EpsilonBound) -> Decimal:
    """The least figure that an honest writer may have recorded."""
    if bound.lower is not None:
        return bound.lower
    if not bound.upper.is_finite():
        return bound.upper
    return bound.upper * (1 - _UNCERTIFIED_TOLERANCE)


def replay_database(connection: Connection) -> Replay:
    """Replay a stored ledger and hold every derived table against the result.

    Args:
        connection: inside one transaction that sees one snapshot.

    Raises:
        LedgerTamperedError: names the first thing that does not fit.
    """
    _check_file(connection)
    table = schema.entries
    done = Replay()
    completed: dict[merkle.Node, bytes] = {}
    uploads: dict[str, UploadStored | RunKeyTaken | Consumed] = {}
    before = done.frontier
    for row in connection.execute(select(table).order_by(table.c.idx)):
        before = done.frontier
        body = row.body.encode("utf-8", "surrogatepass")
        entry = done.add(body)
        _check_columns(entry, row.idx, row.kind, row.subject, row.account)
        completed.update(before.append(merkle.leaf_hash(body))[1])
        if isinstance(entry.payload, UploadStored | RunKeyTaken | Consumed):
            uploads[entry.payload.subject] = entry.payload
    if not done.size:
        raise LedgerTamperedError("the ledger has no entries")
    _check_meta(connection, done)
    _check_tree(connection, done, before, completed)
    _check_notes(connection, done)
    _check_accounts(connection, done)
    _check_uploads(connection, uploads)
    _check_kept(connection)
    return done


def missing_rules(connection: Connection) -> list[str]:
    """Which of the database's own append-only rules are not in force, in words."""
    catalogue = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        if connection.dialect.name == "sqlite"
        else "SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "WHERE tgenabled <> 'D' AND relnamespace = current_schema()::regnamespace"
    )
    present = {row[0] for row in connection.exec_driver_sql(catalogue)}
    return [
        f"the database no longer refuses rewriting by itself: trigger {name} is missing"
        for name in schema.trigger_names(connection.dialect.name)
        if name not in present
    ]


def _check_file(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        (said,) = connection.exec_driver_sql("PRAGMA integrity_check(1)").one()
        if said != "ok":
            raise LedgerTamperedError(f"the ledger's file is damaged: {said}")


def _check_columns(
    entry: Entry, idx: int, kind: str, subject: str | None, account: str | None
) -> None:
    key = entry.payload.key
    expected = (
        entry.index,
        entry.kind,
        entry.payload.subject,
        None if key is None else log.account_column(key),
    )
    if (idx, kind, subject, account) != expected:
        raise LedgerTamperedError(f"entry {entry.index} is filed under columns not its own")


def _check_meta(connection: Connection, done: Replay) -> None:
    rows = schema.read_meta(connection)
    facts = {name: value for name, value in rows.items() if not name.startswith(schema.DISTRUST)}
    expected = {
        "schema_version": str(schema.SCHEMA_VERSION),
        "owner": done.owner,
        "origin": done.state.origin,
        "verifier": done.state.owner_verifier,
        **done.state.owner_rows(),
    }
    if facts != expected:
        raise LedgerTamperedError(f"the meta rows {facts} do not fit the log: {expected}")


def _check_tree(
    connection: Connection,
    done: Replay,
    before: merkle.Frontier,
    completed: dict[merkle.Node, bytes],
) -> None:
    rows = list(connection.execute(select(schema.tree)))
    stored = [(row.id, row.size, bytes(row.frontier)) for row in rows]
    if stored != [(1, done.size, before.to_bytes())]:
        raise LedgerTamperedError("the stored tree row does not fit the entries")
    nodes = {
        (row.level, row.idx): bytes(row.hash)
        for row in connection.execute(select(schema.nodes))
        if isinstance(row.hash, bytes | memoryview)
    }
    if nodes != completed:
        raise LedgerTamperedError("the stored tree nodes do not fit the entries")


def _check_notes(connection: Connection, done: Replay) -> None:
    table = schema.checkpoints
    size = 0
    for size, row in enumerate(connection.execute(select(table).order_by(table.c.size)), start=1):
        if row.size != size or size > done.size:
            raise LedgerTamperedError(f"checkpoint {size} is missing, or one too many is stored")
        done.check_note(row.note, size)
    if size != done.size:
        raise LedgerTamperedError(f"checkpoint {size + 1} is missing")


def _check_accounts(connection: Connection, done: Replay) -> None:
    expected = {
        (key.dataset, key.unit): canonical.dumps(account.to_json()).decode("ascii")
        for key, account in done.accounts.items()
    }
    rows = list(connection.execute(select(schema.accounts)))
    stored = {(row.dataset, row.unit): row.body for row in rows}
    digests = {(row.dataset, row.unit): row.digest for row in rows}
    if stored != expected or digests != {tuple(k): v for k, v in done.state.digests.items()}:
        raise LedgerTamperedError("the stored running totals do not fit the entries")


def _check_uploads(
    connection: Connection, logged: dict[str, UploadStored | RunKeyTaken | Consumed]
) -> None:
    for row in connection.execute(select(schema.uploads)):
        entry = logged.get(row.subject)
        # Where training is under way nothing is stored yet, and the row is empty.
        expected = _NOTHING if isinstance(entry, Consumed) else entry and entry.sha256
        found = hashlib.sha256(bytes(row.data)).hexdigest()
        if entry is None or (row.run, found) != (entry.run, expected):
            raise LedgerTamperedError(
                f"the stored upload {row.subject} is not the one that was logged"
            )


def _check_kept(connection: Connection) -> None:
    kept: set[tuple[str, int]] = set()
    extended = {(row.origin, row.size) for row in connection.execute(select(schema.extended))}
    for row in connection.execute(select(schema.kept)):
        checkpoint = open_checkpoint(row.note, Verifier.parse(row.verifier))
        if (checkpoint.origin, checkpoint.size) != (row.origin, row.size):
            raise LedgerTamperedError(
                f"the kept checkpoint of {row.origin} at size {row.size} is filed wrongly"
            )
        kept.add((row.origin, row.size))
    heads = kept - extended
    if extended - kept or {origin for origin, _ in heads} != {origin for origin, _ in kept}:
        raise LedgerTamperedError(
            "what kept checkpoints are noted to be extended does not fit them"
        )
