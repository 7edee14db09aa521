"""The ledger's tables, and the database's own rule that history is only ever appended to.

`entries` is the log; `nodes` and `checkpoints` follow from it and are kept so that proofs and
receipts cost O(log n). `tree` and `accounts` are running totals, rewritten with each entry in the
same transaction and committed to by it. `uploads` holds bytes whose digests stand in the log.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from privagg.errors import LedgerError

SCHEMA_VERSION = 1

metadata = MetaData()

meta = Table(
    "ledger_meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

entries = Table(
    "ledger_entries",
    metadata,
    Column("idx", BigInteger().with_variant(Integer, "sqlite"), primary_key=True,
           autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("subject", Text),
    Column("account", Text),
    Column("body", Text, nullable=False),
    UniqueConstraint("kind", "subject", name="ledger_entries_once"),
    Index("ledger_entries_account", "account", "kind", "idx"),
)  # fmt: skip

nodes = Table(
    "ledger_nodes",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "ledger_checkpoints",
    metadata,
    Column("size", BigInteger().with_variant(Integer, "sqlite"), primary_key=True,
           autoincrement=False),
    Column("note", Text, nullable=False),
)  # fmt: skip

tree = Table(
    "ledger_tree",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
)

accounts = Table(
    "ledger_accounts",
    metadata,
    Column("dataset", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("body", Text, nullable=False),
)

uploads = Table(
    "ledger_uploads",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("run", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

APPEND_ONLY = (entries, nodes, checkpoints)
"""Tables whose rows the database refuses to change or delete."""

WRITE_ONCE = (uploads,)
"""Tables whose rows the database refuses to change; deleting frees room."""


def require_version(found: str, where: str) -> None:
    """Refuse a ledger whose tables this software does not know.

    Raises:
        LedgerError: another version than `SCHEMA_VERSION`.
    """
    if found != str(SCHEMA_VERSION):
        raise LedgerError(
            f"the ledger {where} has schema version {found or 'none'}; this software knows "
            f"{SCHEMA_VERSION}. Use a newer privagg, or restore a backup"
        )


def protect(connection: Connection) -> None:
    """Install the triggers that make the database itself refuse to rewrite history."""
    if connection.dialect.name == "sqlite":
        statements = _sqlite_triggers()
    else:
        statements = _postgresql_triggers()
    for statement in statements:
        connection.exec_driver_sql(statement)


def _sqlite_triggers() -> list[str]:
    found = []
    for table in (*APPEND_ONLY, *WRITE_ONCE):
        verbs = ("UPDATE", "DELETE") if table in APPEND_ONLY else ("UPDATE",)
        found += [
            f"CREATE TRIGGER {table.name}_no_{verb.lower()} BEFORE {verb} ON {table.name} "
            f"BEGIN SELECT RAISE(ABORT, '{table.name} is append-only'); END"
            for verb in verbs
        ]
    # INSERT OR REPLACE deletes without firing a DELETE trigger, so position is checked as well.
    for table, column in ((entries, "idx"), (checkpoints, "size")):
        first = 0 if table is entries else 1
        found.append(
            f"CREATE TRIGGER {table.name}_in_order BEFORE INSERT ON {table.name} "
            f"WHEN NEW.{column} <> (SELECT COALESCE(MAX({column}) + 1, {first}) FROM {table.name}) "
            f"BEGIN SELECT RAISE(ABORT, '{table.name} is append-only: next position expected'); END"
        )
    found.append(
        f"CREATE TRIGGER {nodes.name}_no_replace BEFORE INSERT ON {nodes.name} "
        f"WHEN EXISTS (SELECT 1 FROM {nodes.name} WHERE level = NEW.level AND idx = NEW.idx) "
        f"BEGIN SELECT RAISE(ABORT, '{nodes.name} is append-only'); END"
    )
    return found


def _postgresql_triggers() -> list[str]:
    found = [
        "CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$",
        "CREATE FUNCTION ledger_next_entry() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.idx <> (SELECT COALESCE(MAX(idx) + 1, 0) FROM ledger_entries) THEN "
        "RAISE EXCEPTION 'ledger_entries is append-only: next position expected'; END IF; "
        "RETURN NEW; END $$",
        "CREATE TRIGGER ledger_entries_in_order BEFORE INSERT ON ledger_entries "
        "FOR EACH ROW EXECUTE FUNCTION ledger_next_entry()",
    ]
    for table in (*APPEND_ONLY, *WRITE_ONCE):
        verbs = "UPDATE OR DELETE" if table in APPEND_ONLY else "UPDATE"
        found.append(
            f"CREATE TRIGGER {table.name}_no_change BEFORE {verbs} ON {table.name} "
            "FOR EACH ROW EXECUTE FUNCTION ledger_refuse()"
        )
        if table in APPEND_ONLY:
            found.append(
                f"CREATE TRIGGER {table.name}_no_truncate BEFORE TRUNCATE ON {table.name} "
                "FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()"
            )
    return found
