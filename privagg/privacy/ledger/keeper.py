"""Keeping other ledgers' checkpoints, so that none of them can be rolled back or forked unnoticed.

Coordinator, key holder and sites keep the signed checkpoint that comes with every receipt. The
next one of the same ledger must extend it; the owner proves that with a consistency proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy import Connection, insert, select, text

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.ledger import schema
from privagg.privacy.ledger.checkpoint import Checkpoint, open_checkpoint, require_extends
from privagg.privacy.ledger.notes import Verifier
from privagg.privacy.ledger.store import Location, Store


@dataclass(frozen=True)
class Shown:
    """A checkpoint as somebody shows it, to be kept once it proves consistent.

    Attributes:
        origin: the ledger it must be of.
        note: the signed checkpoint.
        verifier: the public key pinned for that ledger's owner.
        proof: consistency proof between this checkpoint and the kept one; needed unless nothing
            is kept yet or the size is already kept.
        since: size of the kept checkpoint that the proof starts from; the latest by default.
            Runs side by side each prove from what they were told.
    """

    origin: str
    note: str
    verifier: Verifier
    proof: Sequence[bytes] | None = None
    since: int | None = None


class CheckpointKeeper:
    """Other ledgers' checkpoints, kept durably in a ledger's database or a file of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def open(cls, location: Location) -> Self:
        """Open (or create) a file that holds kept checkpoints and nothing else.

        For a party that keeps no ledger itself; a ledger keeps them in its own database.
        """
        store = Store(location, read_only=False)
        store.make_file()
        with store.write(lock_tree=False) as connection:
            if not connection.dialect.has_table(connection, schema.kept.name):
                schema.kept.create(connection)
                schema.protect(connection, schema.kept)
        return cls(store)

    @classmethod
    def read(cls, location: Location) -> Self:
        """Open kept checkpoints for reading: a file of `open`, or a ledger's own database.

        Raises:
            LedgerError: nothing there keeps checkpoints.
        """
        store = Store(location, read_only=True)
        store.require_file()
        with store.read() as connection:
            if not connection.dialect.has_table(connection, schema.kept.name):
                raise LedgerError(f"{store.where} is neither a ledger nor a store of checkpoints")
        return cls(store)

    def keep(
        self,
        origin: str,
        note: str,
        *,
        verifier: Verifier | str,
        proof: Sequence[bytes] | None = None,
        since: int | None = None,
    ) -> Checkpoint:
        """Keep a checkpoint of the ledger `origin`, once it is consistent with those kept before.

        Args:
            origin: the ledger it must be of.
            note: the signed checkpoint.
            verifier: the public key pinned for that ledger's owner.
            proof: consistency proof between this checkpoint and the latest kept one (see
                `latest`); needed unless nothing is kept yet or the size is already kept.
            since: size of the kept checkpoint that the proof starts from; the latest by default.
                Runs side by side each prove from what they were told.

        Raises:
            LedgerError: a proof is needed and none was given.
            LedgerTamperedError: not signed by the pinned key, of another ledger, rolled back or
                forked.
        """
        pinned = Verifier.parse(verifier) if isinstance(verifier, str) else verifier
        problems = self.keep_all([Shown(origin, note, pinned, proof, since)])
        if problems:
            raise problems[origin]
        return Checkpoint.parse(note)

    def keep_all(self, shown: Sequence[Shown]) -> dict[str, LedgerError]:
        """Keep what is consistent of several ledgers' checkpoints, in one transaction.

        Returns:
            Origin -> why its checkpoint was not kept, as `keep` would have raised it.
        """
        problems: dict[str, LedgerError] = {}
        with self._store.write(lock_tree=False) as connection:
            if connection.dialect.name != "sqlite":
                connection.execute(text("LOCK TABLE ledger_kept IN SHARE ROW EXCLUSIVE MODE"))
            for each in shown:
                try:
                    _keep(connection, each)
                except LedgerError as error:
                    problems[each.origin] = error
        return problems

    def latest(self, origin: str) -> str | None:
        """The largest checkpoint kept of the ledger `origin`, None where none is kept."""
        with self._store.read() as connection:
            return _kept(connection, origin, None)

    def all(self, origin: str | None = None) -> list[str]:
        """Every kept checkpoint (of one ledger), by origin and size."""
        table = schema.kept
        query = select(table.c.note).order_by(table.c.origin, table.c.size)
        if origin is not None:
            query = query.where(table.c.origin == origin)
        with self._store.read() as connection:
            return [row.note for row in connection.execute(query)]

    def close(self) -> None:
        """Give back every connection to the database."""
        self._store.close()


def _keep(connection: Connection, shown: Shown) -> None:
    """Insert a checkpoint that is consistent with the kept one; nothing where it is kept."""
    origin, checkpoint = shown.origin, open_checkpoint(shown.note, shown.verifier)
    if checkpoint.origin != origin:
        raise LedgerTamperedError(
            f"a checkpoint of {checkpoint.origin!r} was given for the ledger {origin!r}"
        )
    same = _kept(connection, origin, checkpoint.size)
    if same is not None:
        require_extends(Checkpoint.parse(same), checkpoint, ())
        return
    latest = _kept(connection, origin, shown.since)
    if latest is None and shown.since is not None:
        raise LedgerError(f"no checkpoint of {shown.since} entries of {origin} is kept")
    if latest is not None:
        _require_consistent(Checkpoint.parse(latest), checkpoint, shown.proof)
    connection.execute(
        insert(schema.kept).values(
            origin=origin,
            size=checkpoint.size,
            verifier=shown.verifier.encode(),
            note=shown.note,
        )
    )


def _require_consistent(
    latest: Checkpoint, checkpoint: Checkpoint, proof: Sequence[bytes] | None
) -> None:
    old, new = sorted((latest, checkpoint), key=lambda each: each.size)
    if proof is None:
        if checkpoint.size < latest.size:
            raise LedgerTamperedError(
                f"{checkpoint.origin} shows {checkpoint.size} entries, but {latest.size} were "
                "signed before: it was rolled back, unless its owner proves otherwise"
            )
        raise LedgerError(
            f"a consistency proof from {old.size} to {new.size} entries of {checkpoint.origin} is "
            "needed; ask its owner for Ledger.consistency_proof"
        )
    require_extends(old, new, proof)


def _kept(connection: Connection, origin: str, size: int | None) -> str | None:
    table = schema.kept
    query = select(table.c.note).where(table.c.origin == origin)
    if size is None:
        query = query.order_by(table.c.size.desc()).limit(1)
    else:
        query = query.where(table.c.size == size)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else str(found)
