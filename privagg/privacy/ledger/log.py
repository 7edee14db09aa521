"""The log in its database: authenticated reading of its head, and appending one entry.

Before anything is appended, the stored head is held against the last checkpoint that the owner
signed: the last entry, the tree and every running total. Editing any of them stops the ledger at
its next use, at a cost that grows with log n only.

The stored frontier is that of all entries but the last. Loading adds the last entry to it, so that
one comparison of root hashes authenticates that entry too; and reversed it is the inclusion proof
that the last entry's receipt needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Row, insert, select, update

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.ledger import canonical, merkle, schema
from privagg.privacy.ledger.checkpoint import Checkpoint, open_checkpoint
from privagg.privacy.ledger.entries import Entry, timestamp
from privagg.privacy.ledger.merkle import Frontier
from privagg.privacy.ledger.notes import Verifier
from privagg.privacy.ledger.payloads import BudgetKey, Payload
from privagg.privacy.ledger.receipt import Receipt
from privagg.privacy.ledger.state import Account, State


@dataclass(frozen=True)
class Head:
    """The log's end, authenticated by its last checkpoint.

    Attributes:
        owner: whose ledger.
        state: budgets and totals, as digests.
        frontier: of all entries.
        note: the last checkpoint as signed.
    """

    owner: str
    state: State
    frontier: Frontier
    note: str

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.frontier.size


@dataclass(frozen=True)
class Appended:
    """A new entry, the checkpoint signed over it, and its inclusion proof under that."""

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
    try:
        origin, owner, named = facts["origin"], facts["owner"], facts["verifier"]
    except KeyError as error:
        raise LedgerTamperedError(f"the ledger's meta row {error} is missing") from error
    if pinned is not None and named != pinned.encode():
        raise LedgerError(
            f"the ledger of {owner} is signed by key {named}, not by {pinned.encode()}; "
            "open it with the key it was created with or last rotated to"
        )
    row = connection.execute(select(schema.tree)).one_or_none()
    if row is None or row.size < 1:
        raise LedgerTamperedError("the ledger's tree row is missing or empty")
    body = _body(connection, row.size - 1)
    entry = Entry.parse(body, what=f"entry {row.size - 1}")
    before = Frontier.from_bytes(row.size - 1, bytes(row.frontier))
    frontier, _ = before.append(merkle.leaf_hash(body))
    note = read_note(connection, row.size)
    expected = Checkpoint(origin, row.size, frontier.root())
    if open_checkpoint(note, Verifier.parse(named)) != expected:
        raise LedgerTamperedError(
            f"the last signed checkpoint does not cover the {row.size} entries stored"
        )
    state = State(row.size, origin, named, _digests(connection))
    if state.digest() != entry.state:
        raise LedgerTamperedError("the running totals are not those that the last entry commits to")
    return Head(owner, state, frontier, note)


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
    state, following = head.state.apply(payload, account)
    entry = Entry(head.size, timestamp(now, payload), payload, state.digest())
    body = entry.body()
    if len(body) > canonical.MAX_BYTES // 4:
        raise LedgerError(f"an entry of {len(body)} bytes is too large; record less in its facts")
    frontier, completed = head.frontier.append(merkle.leaf_hash(body))
    note = Checkpoint(state.origin, frontier.size, frontier.root()).sign(*keys)
    write_entry(connection, entry, body)
    write_nodes(connection, completed)
    connection.execute(insert(schema.checkpoints).values(size=frontier.size, note=note))
    connection.execute(
        update(schema.tree).values(size=frontier.size, frontier=head.frontier.to_bytes())
    )
    if following is not None and following != account:
        write_account(connection, following, new=account is None)
    return Appended(entry, note, head.frontier.path_of_next())


def write_entry(connection: Connection, entry: Entry, body: bytes) -> None:
    """Insert an entry's row."""
    key = entry.payload.key
    connection.execute(
        insert(schema.entries).values(
            idx=entry.index,
            kind=entry.kind,
            subject=entry.payload.subject,
            account=None if key is None else account_column(key),
            body=body.decode("ascii"),
        )
    )


def write_nodes(connection: Connection, completed: Mapping[merkle.Node, bytes]) -> None:
    """Insert subtree roots."""
    connection.execute(
        insert(schema.nodes),
        [{"level": level, "idx": idx, "hash": hash_} for (level, idx), hash_ in completed.items()],
    )


def account_column(key: BudgetKey) -> str:
    """How the `account` column names a budget."""
    return canonical.dumps(list(key)).decode("ascii")


def read_account(connection: Connection, head: Head, key: BudgetKey) -> Account | None:
    """The stored account, once it has the digest that the log commits to.

    Raises:
        LedgerTamperedError: it has another.
    """
    digest = head.state.digests.get(key)
    if digest is None:
        return None
    table = schema.accounts
    row = connection.execute(
        select(table.c.body).where(table.c.dataset == key.dataset, table.c.unit == key.unit)
    ).one()
    value = canonical.loads(row.body.encode(), what=f"the account of {key}")
    if canonical.digest(value) != digest:
        raise LedgerTamperedError(f"the running totals of {key} were changed outside the ledger")
    return Account.from_json(value)


def peek_account(connection: Connection, key: BudgetKey) -> Account | None:
    """The account as stored, believed by nobody; None where there is none that can be read."""
    table = schema.accounts
    body = connection.execute(
        select(table.c.body).where(table.c.dataset == key.dataset, table.c.unit == key.unit)
    ).scalar_one_or_none()
    try:
        return None if body is None else Account.from_json(json.loads(body))
    except (ValueError, KeyError, TypeError, ArithmeticError):
        return None


def is_filed(connection: Connection, kind: str, subject: str) -> bool:
    """True where an entry of this kind is filed about `subject`; whether rightly is not checked."""
    table = schema.entries
    query = select(table.c.idx).where(table.c.kind == kind, table.c.subject == subject)
    return connection.execute(query).scalar_one_or_none() is not None


def read_entry(connection: Connection, index: int) -> Entry:
    """A stored entry; not yet proved to be in the tree."""
    entry = Entry.parse(_body(connection, index), what=f"entry {index}")
    if entry.index != index:
        raise LedgerTamperedError(f"entry {index} says that it is entry {entry.index}")
    return entry


def find_entry(connection: Connection, head: Head, kind: str, subject: str) -> Entry | None:
    """The one entry of this kind about `subject`, proved to be in the tree.

    Raises:
        LedgerTamperedError: what is stored is not in the tree.
    """
    table = schema.entries
    index = connection.execute(
        select(table.c.idx).where(table.c.kind == kind, table.c.subject == subject)
    ).scalar_one_or_none()
    if index is None:
        return None
    entry = read_entry(connection, index)
    if entry.kind != kind or entry.payload.subject != subject:
        raise LedgerTamperedError(f"entry {index} is filed under a name that is not its own")
    path = merkle.inclusion_proof(index, head.size, node_reader(connection))
    merkle.verify_inclusion(entry.hash(), index, head.size, path, head.frontier.root())
    return entry


def receipt_for(connection: Connection, head: Head, entry: Entry) -> Receipt:
    """The receipt of a stored charge, the same bytes each time."""
    size = entry.index + 1
    path = merkle.inclusion_proof(entry.index, size, node_reader(connection))
    note = read_note(connection, size)
    checkpoint = Checkpoint.parse(note)
    merkle.verify_inclusion(entry.hash(), entry.index, size, path, checkpoint.root)
    return Receipt(
        owner=head.owner,
        entry=entry.body().decode("ascii"),
        checkpoint=note,
        path=tuple(step.hex() for step in path),
    )


def node_reader(connection: Connection) -> Callable[[merkle.Node], bytes]:
    """Reads stored subtree roots for proofs."""

    def read(node: merkle.Node) -> bytes:
        level, index = node
        found = connection.execute(
            select(schema.nodes.c.hash).where(
                schema.nodes.c.level == level, schema.nodes.c.idx == index
            )
        ).scalar_one_or_none()
        if found is None:
            raise LedgerTamperedError(f"the stored tree lacks node {index} of level {level}")
        return bytes(found)

    return read


def read_note(connection: Connection, size: int) -> str:
    """The checkpoint signed when the log had `size` entries."""
    found = connection.execute(
        select(schema.checkpoints.c.note).where(schema.checkpoints.c.size == size)
    ).scalar_one_or_none()
    if found is None:
        raise LedgerTamperedError(f"the checkpoint of size {size} is missing")
    return str(found)


def _body(connection: Connection, index: int) -> bytes:
    body = connection.execute(
        select(schema.entries.c.body).where(schema.entries.c.idx == index)
    ).scalar_one_or_none()
    if body is None:
        raise LedgerTamperedError(f"entry {index} is missing")
    return str(body).encode("utf-8", "surrogatepass")


def _digests(connection: Connection) -> dict[BudgetKey, str]:
    table = schema.accounts
    rows: list[Row[tuple[str, str, str]]] = list(
        connection.execute(select(table.c.dataset, table.c.unit, table.c.digest))
    )
    return {BudgetKey(row.dataset, row.unit): row.digest for row in rows}


def write_account(connection: Connection, account: Account, *, new: bool) -> None:
    """Insert or update an account's row."""
    table = schema.accounts
    value = account.to_json()
    row = {"digest": canonical.digest(value), "body": canonical.dumps(value).decode("ascii")}
    if new:
        connection.execute(
            insert(table).values(dataset=account.key.dataset, unit=account.key.unit, **row)
        )
    else:
        connection.execute(
            update(table)
            .where(table.c.dataset == account.key.dataset, table.c.unit == account.key.unit)
            .values(**row)
        )
