"""The signed log in its database: its authenticated end, what is appended, and where entries stand.

Each function works inside its caller's transaction. `load_head` believes nothing that the last
signed checkpoint does not cover; `find_entry` proves what it finds, and that there is none.

The database's columns beside an entry say under which name it is filed, and a proof shows that an
entry is in the signed tree. Neither shows that no entry of that name is: whoever edits a column, or
a row that was stored beside, makes a charge or a used receipt look as if it had never been. So
names are taken from the entries themselves, all of them, and the tree over all of them has to be
the signed one (`Filed`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Row, Select, and_, bindparam, delete, insert, or_, select, update

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.ledger import canonical, merkle, schema
from privagg.privacy.ledger.checkpoint import Checkpoint, Verifier, open_checkpoint
from privagg.privacy.ledger.entries import (
    KINDS,
    Approval,
    BudgetKey,
    Entry,
    KeyRotated,
    Payload,
    timestamp,
)
from privagg.privacy.ledger.merkle import Frontier
from privagg.privacy.ledger.receipt import Receipt
from privagg.privacy.ledger.state import Account, State

_BODIES = (
    select(
        schema.entries.c.idx, schema.entries.c.kind, schema.entries.c.subject, schema.entries.c.body
    )
    .where(schema.entries.c.idx >= bindparam("start"), schema.entries.c.idx < bindparam("stop"))
    .order_by(schema.entries.c.idx)
)


class Filed:
    """Every entry's place by kind and subject, as far as this process has read the log.

    Reads each entry once: a ledger of 10,000 entries takes part of a second at its first look-up,
    and later ones read what was appended since. Safe across threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tree = Frontier()
        self._places: dict[tuple[str, str], int] = {}

    def place(
        self, connection: Connection, signed: Frontier, kind: str, subject: str
    ) -> int | None:
        """Index of the one entry of this kind about `subject` among those under `signed`.

        Args:
            connection: inside the transaction that `signed` was read in.
            signed: the tree under the owner's last checkpoint, authenticated.
            kind, subject: what the entry is filed under.

        Returns:
            The index; None where the log has no such entry, which is then certain.

        Raises:
            LedgerTamperedError: the stored entries are not those that the owner signed, or two of
                them have one name.
        """
        with self._lock:
            if signed.size > self._tree.size:
                self._read(connection, signed)
            elif signed.size == self._tree.size and signed != self._tree:
                raise _other_log(signed.size)
            place = self._places.get((kind, subject))
        return place if place is not None and place < signed.size else None

    def _read(self, connection: Connection, signed: Frontier) -> None:
        """Take up what was appended since; nothing of it where its tree is not the signed one."""
        tree, places = self._tree, dict[tuple[str, str], int]()
        for row in connection.execute(_BODIES, {"start": tree.size, "stop": signed.size}):
            if row.idx != tree.size:
                raise LedgerTamperedError(f"entry {tree.size} is missing")
            body = str(row.body).encode("utf-8", "surrogatepass")
            kind, subject = _name(body, row.idx)
            if (kind, subject) != (row.kind, row.subject):
                raise LedgerTamperedError(f"entry {row.idx} is filed under a name not its own")
            if subject is not None:
                if (kind, subject) in places or (kind, subject) in self._places:
                    raise LedgerTamperedError(f"entry {row.idx} repeats the {kind!r} of {subject}")
                places[kind, subject] = row.idx
            tree, _ = tree.append(merkle.leaf_hash(body))
        if tree != signed:
            raise _other_log(signed.size)
        self._tree = tree
        self._places |= places


def _name(body: bytes, index: int) -> tuple[str, str | None]:
    """Kind and subject of an entry; what it says beyond them is checked by whoever reads it."""
    value = canonical.loads(body, what=f"entry {index}")
    try:
        payload = KINDS[value["kind"]].model_construct(**value["payload"])
        return payload.kind, payload.subject
    except (LookupError, TypeError, AttributeError) as error:
        raise LedgerTamperedError(f"entry {index} is not one of this ledger's kinds") from error


def _other_log(size: int) -> LedgerTamperedError:
    return LedgerTamperedError(
        f"the {size} entries stored are not those that the last signed checkpoint covers"
    )


# Statements of every round, built once: writing one down anew costs about as much as running it.
_END = (
    select(
        schema.tree.c.size, schema.tree.c.frontier, schema.entries.c.body, schema.checkpoints.c.note
    )
    .outerjoin(schema.entries, schema.entries.c.idx == schema.tree.c.size - 1)
    .outerjoin(schema.checkpoints, schema.checkpoints.c.size == schema.tree.c.size)
)
_DIGESTS = select(schema.accounts.c.dataset, schema.accounts.c.unit, schema.accounts.c.digest)
_NOTE = select(schema.checkpoints.c.note).where(schema.checkpoints.c.size == bindparam("size"))
_FILED = select(schema.entries.c.idx).where(
    schema.entries.c.kind == bindparam("kind"), schema.entries.c.subject == bindparam("subject")
)
_BODY = select(schema.entries.c.body).where(schema.entries.c.idx == bindparam("idx"))
_ACCOUNT = select(schema.accounts.c.body).where(
    schema.accounts.c.dataset == bindparam("dataset"), schema.accounts.c.unit == bindparam("unit")
)
_ADD_ENTRY, _ADD_NODES = insert(schema.entries), insert(schema.nodes)
_ADD_NOTE, _ADD_ACCOUNT = insert(schema.checkpoints), insert(schema.accounts)
_MOVE_END = update(schema.tree)
_MOVE_ACCOUNT = update(schema.accounts).where(
    schema.accounts.c.dataset == bindparam("at_dataset"),
    schema.accounts.c.unit == bindparam("at_unit"),
)


@dataclass(frozen=True)
class Head:
    """The log's end, authenticated by its last checkpoint.

    Attributes:
        owner: whose ledger.
        state: budgets and totals, as digests.
        frontier: of all entries.
        note: the last checkpoint as signed.
        day: of the last entry, `YYYY-MM-DD`; a clock that shows an earlier one was set back.
    """

    owner: str
    state: State
    frontier: Frontier
    note: str
    day: str = ""

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.frontier.size


@dataclass(frozen=True)
class Appended:
    """A new entry, the checkpoint signed over it, and its inclusion proof under that.

    Attributes:
        entry: as it stands in the log.
        note: the signed checkpoint.
        path: hashes of the inclusion proof, 32 bytes each.
    """

    entry: Entry
    note: str
    path: tuple[bytes, ...]


def load_head(connection: Connection, pinned: Verifier | None) -> Head:
    """The head, once the last signed checkpoint covers everything in it.

    Args:
        connection: inside a transaction.
        pinned: the key that must have signed; None takes the one the ledger names itself.

    Raises:
        LedgerError: the ledger's key is not `pinned`.
        LedgerTamperedError: stored head and signed checkpoint differ.
    """
    facts = schema.read_meta(connection)
    rows = connection.execute(_END).all()
    end = rows[0] if len(rows) == 1 else None
    # SQLite stores any type in any column, so what was edited may be neither number nor bytes.
    if end is None or not isinstance(end.size, int) or end.size < 1:
        raise LedgerTamperedError("the ledger's tree row is missing, empty or not the only one")
    if not isinstance(end.frontier, bytes | memoryview):
        raise LedgerTamperedError("the ledger's tree row does not hold the tree")
    body, note = _stored_body(end.body, end.size - 1), _stored_note(end.note, end.size)
    stored = _Stored(end.size, bytes(end.frontier), body, note)
    digests = tuple(_digests(connection).items())
    return _checked_head(tuple(facts.items()), stored, digests, pinned)


class _Stored(NamedTuple):
    """The log's end as it is stored: entries, the tree before the last one, that one, and the note
    over all."""

    size: int
    before: bytes
    body: bytes
    note: str


@lru_cache(maxsize=512)
def _checked_head(
    meta: tuple[tuple[str, str], ...],
    stored: _Stored,
    digests: tuple[tuple[BudgetKey, str], ...],
    pinned: Verifier | None,
) -> Head:
    """See `load_head`. It follows from the arguments alone, and a message reads it several times.

    Args:
        meta: the ledger's own facts.
        stored: the end.
        digests: of every account.
        pinned: as for `load_head`.
    """
    facts = dict(meta)
    try:
        origin, owner, named = facts["origin"], facts["owner"], facts["verifier"]
    except KeyError as error:
        raise LedgerTamperedError(f"the ledger's meta row {error} is missing") from error
    if pinned is not None and named != pinned.encode():
        raise LedgerError(
            f"the ledger of {owner} is signed by key {named}, not by {pinned.encode()}; "
            "open it with the key it was created with or last rotated to"
        )
    entry = Entry.parse(stored.body, what=f"entry {stored.size - 1}")
    before = Frontier.from_bytes(stored.size - 1, stored.before)
    frontier, _ = before.append(merkle.leaf_hash(stored.body))
    expected = Checkpoint(origin, stored.size, frontier.root())
    if open_checkpoint(stored.note, Verifier.parse(named)) != expected:
        raise LedgerTamperedError(
            f"the last signed checkpoint does not cover the {stored.size} entries stored"
        )
    approvals = _approvals(facts)
    owner_key = facts.get("owner_key", "")
    rekeyed = isinstance(entry.payload, KeyRotated)
    used = _used(facts)
    state = State(stored.size, origin, named, dict(digests), owner_key, approvals, used, rekeyed)
    if state.digest() != entry.state:
        raise LedgerTamperedError("the running totals are not those that the last entry commits to")
    return Head(owner, state, frontier, stored.note, entry.time[:10])


def _approvals(facts: Mapping[str, str]) -> tuple[Approval, ...]:
    """The approvals that a ledger's meta rows say are in force; the state's digest covers them."""
    stored = facts.get("approvals", "[]").encode("utf-8", "surrogatepass")
    try:
        rows = canonical.loads(stored, what="the approvals")
        return tuple(Approval.model_validate(row) for row in rows)
    except (ValueError, TypeError) as error:
        raise LedgerTamperedError(f"the stored approvals cannot be read: {error}") from error


def _used(facts: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Which runs numbered approvals were used for, as stored; the state's digest covers it."""
    stored = facts.get("approved_runs", "{}").encode("utf-8", "surrogatepass")
    try:
        rows = canonical.loads(stored, what="the approved runs")
        return {str(name): tuple(map(str, runs)) for name, runs in rows.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise LedgerTamperedError(f"the stored runs cannot be read: {error}") from error


def append(
    connection: Connection,
    head: Head,
    payload: Payload,
    *,
    keys: tuple[Ed25519PrivateKey, ...],
    now: datetime,
    account: Account | None = None,
) -> Appended:
    """Append one entry with its checkpoint and totals, in the caller's transaction.

    Args:
        connection: inside a write transaction.
        head: as loaded in the same transaction.
        payload: what the entry says.
        keys: who signs the checkpoint: the owner's key, and the new one where it is rotated.
        now: the present.
        account: the account that the payload concerns, as stored.
    """
    time = timestamp(now, payload)
    state, following = head.state.apply(payload, account, time[:10])
    entry = Entry(head.size, time, payload, state.digest())
    body = entry.body()
    if len(body) > canonical.MAX_BYTES // 4:
        raise LedgerError(f"an entry of {len(body)} bytes is too large; record less in its facts")
    frontier, completed = head.frontier.append(merkle.leaf_hash(body))
    note = Checkpoint(state.origin, frontier.size, frontier.root()).sign(*keys)
    write_entry(connection, entry, body)
    write_nodes(connection, completed)
    connection.execute(_ADD_NOTE, {"size": frontier.size, "note": note})
    if state.owner_rows() != head.state.owner_rows():
        for name, value in state.owner_rows().items():
            schema.write_meta(connection, name, value)
    connection.execute(_MOVE_END, {"size": frontier.size, "frontier": head.frontier.to_bytes()})
    if following is not None and following != account:
        write_account(connection, following, new=account is None)
    return Appended(entry, note, head.frontier.path_of_next())


def write_entry(connection: Connection, entry: Entry, body: bytes) -> None:
    """Insert an entry's row.

    Args:
        connection: inside a transaction.
        entry: the next of the log.
        body: its canonical bytes.
    """
    key = entry.payload.key
    row = {
        "idx": entry.index,
        "kind": entry.kind,
        "subject": entry.payload.subject,
        "account": None if key is None else account_column(key),
        "body": body.decode("ascii"),
    }
    connection.execute(_ADD_ENTRY, row)


def write_nodes(connection: Connection, completed: Mapping[merkle.Node, bytes]) -> None:
    """Insert subtree roots."""
    connection.execute(
        _ADD_NODES,
        [{"level": level, "idx": idx, "hash": hash_} for (level, idx), hash_ in completed.items()],
    )


def account_column(key: BudgetKey) -> str:
    """How the `account` column names a budget."""
    return canonical.dumps(list(key)).decode("ascii")


def read_account(connection: Connection, head: Head, key: BudgetKey) -> Account | None:
    """The stored account, once it has the digest that the log commits to.

    Args:
        connection: inside the transaction that `head` was loaded in.
        head: authenticated by `load_head`.
        key: data set and unit.

    Raises:
        LedgerTamperedError: it has another.
    """
    digest = head.state.digests.get(key)
    if digest is None:
        return None
    row = connection.execute(_ACCOUNT, key._asdict()).one()
    stored = str(row.body).encode("utf-8", "surrogatepass")
    value = canonical.loads(stored, what=f"the account of {key}")
    if canonical.digest(value) != digest:
        raise LedgerTamperedError(f"the running totals of {key} were changed outside the ledger")
    return Account.from_json(value)


def peek_account(connection: Connection, key: BudgetKey) -> Account | None:
    """The account as stored, believed by nobody; None where there is none that can be read."""
    body = connection.execute(_ACCOUNT, key._asdict()).scalar_one_or_none()
    try:
        return None if body is None else Account.from_json(json.loads(body))
    except (ValueError, KeyError, TypeError, ArithmeticError):
        return None


def is_filed(connection: Connection, kind: str, subject: str) -> bool:
    """True where an entry of this kind is filed about `subject`; whether rightly is not checked.

    Args:
        connection: inside a transaction.
        kind: one of `entries.KINDS`.
        subject: canonical JSON, as the payload itself names it.
    """
    return connection.execute(_FILED, {"kind": kind, "subject": subject}).first() is not None


def find_entry(
    connection: Connection, head: Head, filed: Filed, kind: str, subject: str
) -> Entry | None:
    """The one entry of this kind about `subject`; None where the signed log is known to have none.

    Args:
        connection: inside the transaction that `head` was loaded in.
        head: authenticated by `load_head`.
        filed: what this process has read of the log by now.
        kind: one of `entries.KINDS`.
        subject: canonical JSON, as the payload itself names it.

    Raises:
        LedgerTamperedError: what is stored is not what the owner signed.
    """
    index = filed.place(connection, head.frontier, kind, subject)
    if index is None:
        return None
    body = _stored_body(connection.execute(_BODY, {"idx": index}).scalar_one_or_none(), index)
    path = inclusion_path(connection, index, head.size)
    merkle.verify_inclusion(merkle.leaf_hash(body), index, head.size, path, head.frontier.root())
    return Entry.parse(body, what=f"entry {index}")


def is_stored(connection: Connection, subject: str) -> bool:
    """Whether bytes are stored under this subject; they stay unread, as they may be many."""
    table = schema.uploads.c
    query = select(table.subject).where(table.subject == subject)
    return connection.execute(query).scalar_one_or_none() is not None


def store_bytes(connection: Connection, subject: str, run: str, data: bytes) -> None:
    """Keep bytes of a run under a subject, until they are forgotten.

    Args:
        connection: inside a write transaction.
        subject: canonical JSON; nothing is stored under it yet.
        run: the run's name.
        data: given beside the statement, which a process keeps.
    """
    row = {"subject": subject, "run": run, "data": data}
    connection.execute(insert(schema.uploads), row)


def forget_uploads(connection: Connection, run: str, through: tuple[int, int] | None) -> int:
    """Delete the bytes stored for a run's attempts; how many.

    Args:
        connection: inside a write transaction.
        run: the run's name.
        through: (round, attempt), the last whose upload goes; None for everything of the run.
    """
    table = schema.uploads
    query = select(table.c.subject).where(table.c.run == run)
    gone = [
        subject
        for subject in connection.execute(query).scalars()
        if through is None or _is_upload(subject, through)
    ]
    return connection.execute(delete(table).where(table.c.subject.in_(gone))).rowcount


def _is_upload(subject: str, through: tuple[int, int]) -> bool:
    """Whether a stored row is an upload of this attempt or one before; keys and marks are not."""
    _, *place = json.loads(subject)
    return len(place) == len(through) and tuple(place) <= through


def receipt_for(connection: Connection, head: Head, entry: Entry) -> Receipt:
    """The receipt of a stored charge, the same bytes each time.

    Args:
        connection: inside the transaction that `head` was loaded in.
        head: authenticated by `load_head`.
        entry: the charge, as `find_entry` proved it.
    """
    size = entry.index + 1
    path = inclusion_path(connection, entry.index, size)
    note = read_note(connection, size)
    checkpoint = Checkpoint.parse(note)
    merkle.verify_inclusion(entry.hash(), entry.index, size, path, checkpoint.root)
    return Receipt(
        owner=head.owner,
        entry=entry.body().decode("ascii"),
        checkpoint=note,
        path=tuple(step.hex() for step in path),
    )


def inclusion_path(connection: Connection, index: int, size: int) -> list[bytes]:
    """Proof that entry `index` is in the tree of `size` entries, from the stored nodes.

    Args:
        connection: inside a transaction.
        index: of the entry, from 0.
        size: how many entries the tree has.

    Raises:
        LedgerError: there is no such entry.
        LedgerTamperedError: the stored tree lacks a node.
    """
    return _proof(connection, lambda node: merkle.inclusion_proof(index, size, node))


def consistency_path(connection: Connection, old: int, new: int) -> list[bytes]:
    """Proof that the tree of `new` entries extends that of `old`, from the stored nodes.

    Args:
        connection: inside a transaction.
        old, new: numbers of entries.

    Raises:
        LedgerError: not 0 < old <= new.
        LedgerTamperedError: the stored tree lacks a node.
    """
    return _proof(connection, lambda node: merkle.consistency_proof(old, new, node))


def _proof(
    connection: Connection, prove: Callable[[Callable[[merkle.Node], bytes]], list[bytes]]
) -> list[bytes]:
    """A proof whose nodes are read in one statement: first it says which, then it is made."""
    wanted: list[merkle.Node] = []

    def note_down(node: merkle.Node) -> bytes:
        wanted.append(node)
        return b""

    prove(note_down)
    if not wanted:
        return []
    places: dict[str, int] = {}
    for i, (level, index) in enumerate(wanted):
        places |= {f"level{i}": level, f"index{i}": index}
    rows = connection.execute(_nodes(len(wanted)), places)
    found = {
        (row.level, row.idx): bytes(row.hash)
        for row in rows
        if isinstance(row.hash, bytes | memoryview)
    }
    for level, index in wanted:
        if (level, index) not in found:
            raise LedgerTamperedError(f"the stored tree lacks node {index} of level {level}")
    return prove(found.__getitem__)


@cache
def _nodes(count: int) -> Select[tuple[int, int, bytes]]:
    """So many nodes by level and index; each is looked up by key, which `(a, b) IN` is not."""
    table = schema.nodes.c
    places = (
        and_(table.level == bindparam(f"level{i}"), table.idx == bindparam(f"index{i}"))
        for i in range(count)
    )
    return select(table.level, table.idx, table.hash).where(or_(*places))


def read_note(connection: Connection, size: int) -> str:
    """The checkpoint signed when the log had `size` entries."""
    return _stored_note(connection.execute(_NOTE, {"size": size}).scalar_one_or_none(), size)


def _stored_note(note: str | None, size: int) -> str:
    if note is None:
        raise LedgerTamperedError(f"the checkpoint of size {size} is missing")
    return str(note)


def _stored_body(body: str | None, index: int) -> bytes:
    if body is None:
        raise LedgerTamperedError(f"entry {index} is missing")
    return str(body).encode("utf-8", "surrogatepass")


def _digests(connection: Connection) -> dict[BudgetKey, str]:
    rows: list[Row[tuple[str, str, str]]] = list(connection.execute(_DIGESTS))
    return {BudgetKey(row.dataset, row.unit): row.digest for row in rows}


def write_account(connection: Connection, account: Account, *, new: bool) -> None:
    """Insert or update an account's row.

    Args:
        connection: inside a transaction.
        account: with its new total.
        new: insert a row instead of updating one.
    """
    value = account.to_json()
    row = {
        **account.key._asdict(),
        "digest": canonical.digest(value),
        "body": canonical.dumps(value).decode("ascii"),
    }
    if new:
        connection.execute(_ADD_ACCOUNT, row)
    else:
        at = {"at_dataset": row.pop("dataset"), "at_unit": row.pop("unit")}
        connection.execute(_MOVE_ACCOUNT, row | at)
