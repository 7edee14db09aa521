"""Verifying a ledger in its database: the log, and everything stored beside it."""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, select

from privagg.errors import LedgerTamperedError
from privagg.privacy.ledger import canonical, log, merkle, schema
from privagg.privacy.ledger.checkpoint import open_checkpoint
from privagg.privacy.ledger.entries import Entry
from privagg.privacy.ledger.notes import Verifier
from privagg.privacy.ledger.payloads import RunKeyTaken, UploadStored
from privagg.privacy.ledger.replay import Replay


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
    uploads: dict[str, UploadStored | RunKeyTaken] = {}
    before = done.frontier
    for row in connection.execute(select(table).order_by(table.c.idx)):
        before = done.frontier
        body = row.body.encode("utf-8", "surrogatepass")
        entry = done.add(body)
        _check_columns(entry, row.idx, row.kind, row.subject, row.account)
        completed.update(before.append(merkle.leaf_hash(body))[1])
        if isinstance(entry.payload, UploadStored | RunKeyTaken):
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


def _check_uploads(connection: Connection, logged: dict[str, UploadStored | RunKeyTaken]) -> None:
    for row in connection.execute(select(schema.uploads)):
        entry = logged.get(row.subject)
        found = (row.run, hashlib.sha256(bytes(row.data)).hexdigest())
        if entry is None or found != (entry.run, entry.sha256):
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
