"""What stands in a log under which name, so that "there is none" is as sure as "here it is".

The database's columns beside an entry say under which name it is filed, and a proof shows that an
entry is in the signed tree. Neither shows that no entry of that name is: whoever edits a column, or
a row that was stored beside, makes a charge or a used receipt look as if it had never been. So
names are taken from the entries themselves, all of them, and the tree over all of them has to be
the signed one.
"""

from __future__ import annotations

import threading

from sqlalchemy import Connection, bindparam, select

from privagg.errors import LedgerTamperedError
from privagg.privacy.ledger import canonical, merkle, schema
from privagg.privacy.ledger.merkle import Frontier
from privagg.privacy.ledger.payloads import KINDS

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
