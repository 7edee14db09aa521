"""From one version of the tables to the next, each step one transaction of its own.

Entries never change meaning or bytes: a migration touches what follows from them (tables, indices,
triggers), never the log itself. A step that fails leaves the ledger as it was.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from privagg.errors import LedgerError
from privagg.privacy.ledger import schema
from privagg.privacy.ledger.store import Store


def _keep_peers_checkpoints(connection: Connection) -> None:
    """1 -> 2: room for the signed checkpoints of other ledgers."""
    schema.kept.create(connection)
    schema.protect(connection, schema.kept)


STEPS: dict[int, Callable[[Connection], None]] = {
    1: _keep_peers_checkpoints,
    2: schema.create_extended,
}
"""Version that a step starts from -> the step to the next version."""


def bring_up_to_date(store: Store) -> int:
    """Bring a ledger's tables to this software's version.

    Returns:
        How many steps were taken.

    Raises:
        LedgerError: the version is unknown here, or the ledger was opened without its key and is
            of an older version.
    """
    steps = 0
    while True:
        with store.read() as connection:
            version = _version(connection, store.where)
        if version == schema.SCHEMA_VERSION:
            return steps
        if store.read_only:
            raise LedgerError(
                f"the ledger {store.where} has schema version {version}, older than "
                f"{schema.SCHEMA_VERSION}; open it once with its signing key to bring it up to date"
            )
        with store.write() as connection:
            # Another process may have taken the step while this one waited for the lock.
            if _version(connection, store.where) == version:
                STEPS[version](connection)
                schema.write_meta(connection, "schema_version", str(version + 1))
        steps += 1


def _version(connection: Connection, where: str) -> int:
    text = schema.read_meta(connection).get("schema_version", "")
    known = {str(version): version for version in (*STEPS, schema.SCHEMA_VERSION)}
    if text not in known:
        raise LedgerError(
            f"the ledger {where} has schema version {text or 'none'}; this software knows "
            f"{', '.join(sorted(known))}. Use a newer privagg"
        )
    return known[text]
