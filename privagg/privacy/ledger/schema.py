"""The ledger's tables, and the database's own rule that history is only ever appended to.

`entries` is the log; `nodes` and `checkpoints` follow from it and are kept so that proofs and
receipts cost O(log n). `tree` and `accounts` are running totals, rewritten with each entry in the
same transaction and committed to by it. `uploads` holds bytes whose digests stand in the log:
stored uploads, and the statements of runs' keys; and an empty row, named as the charge is, where
training on a charge is under way. `kept`, `extended` and `told` are about other ledgers; see
`keeper`.
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
    delete,
    func,
    insert,
    select,
)

SCHEMA_VERSION = 4

DISTRUST = "distrust "
"""How the meta rows begin that name ledgers which contradicted what is kept of them."""

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

kept = Table(
    "ledger_kept",
    metadata,
    Column("origin", String(240), primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("verifier", Text, nullable=False),
    Column("note", Text, nullable=False),
)

extended = Table(
    "ledger_kept_extended",
    metadata,
    Column("origin", String(240), primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
)
"""Kept checkpoints that another kept one was proved to extend; the others are yet to be."""

told = Table(
    "ledger_kept_told",
    metadata,
    Column("run", Text, primary_key=True),
    Column("turn", BigInteger, nullable=False),
    Column("sizes", Text, nullable=False),
)
"""What a run was told last of the checkpoints that its next uploads must extend: JSON, origin ->
sizes. `turn` rises with each telling."""

APPEND_ONLY = (entries, nodes, checkpoints, kept, extended)
"""Tables whose rows the database refuses to change or delete, but for those `SHED` names."""

SHED = {
    kept: f"NOT EXISTS (SELECT 1 FROM {extended.name} AS e "
    "WHERE e.origin = OLD.origin AND e.size = OLD.size)",
    extended: f"EXISTS (SELECT 1 FROM {kept.name} AS k "
    "WHERE k.origin = OLD.origin AND k.size = OLD.size)",
}
"""When the database refuses to delete a row of these: a checkpoint that no other is known to
extend, and the note that one does while it is kept."""

WRITE_ONCE = (uploads,)
"""Tables whose rows the database refuses to change; deleting frees room."""

_META = select(meta)
_IN_ORDER = {entries: ("idx", 0), checkpoints: ("size", 1)}


def install(connection: Connection) -> None:
    """Create every table of the present version, with its triggers, in an empty database."""
    metadata.create_all(connection)
    protect_all(connection)
    write_meta(connection, "schema_version", str(SCHEMA_VERSION))
    connection.execute(insert(tree).values(id=1, size=0, frontier=b""))


def read_meta(connection: Connection) -> dict[str, str]:
    """The ledger's own facts by name: schema version, owner, origin, verifier."""
    return {str(row.name): str(row.value) for row in connection.execute(_META)}


def write_meta(connection: Connection, name: str, value: str) -> None:
    """Set one of the ledger's own facts.

    Args:
        connection: inside a write transaction.
        name: at most 64 characters.
        value: replaces what stood there.
    """
    connection.execute(delete(meta).where(meta.c.name == name))
    connection.execute(insert(meta).values(name=name, value=value))


def create_extended(connection: Connection) -> None:
    """Create `extended`; of what was kept before, the largest checkpoint is the one to extend."""
    extended.create(connection)
    protect(connection, extended)
    largest = (
        select(kept.c.origin, func.max(kept.c.size).label("size"))
        .group_by(kept.c.origin)
        .subquery()
    )
    below = select(kept.c.origin, kept.c.size).join(
        largest, (kept.c.origin == largest.c.origin) & (kept.c.size < largest.c.size)
    )
    connection.execute(insert(extended).from_select(["origin", "size"], below))


def create_told(connection: Connection) -> None:
    """Create `told`, and let kept checkpoints go that others extend; none goes by this."""
    sqlite = connection.dialect.name == "sqlite"
    rules = ("no_update", "no_delete", "no_replace") if sqlite else ("no_change", "no_truncate")
    for table in SHED:
        for rule in rules:
            where = "" if sqlite else f" ON {table.name}"
            connection.exec_driver_sql(f"DROP TRIGGER {table.name}_{rule}{where}")
        protect(connection, table)
    told.create(connection)


def protect_all(connection: Connection) -> None:
    """`protect` for every table."""
    for table in metadata.sorted_tables:
        protect(connection, table)


def protect(connection: Connection, table: Table) -> None:
    """Install the triggers that make the database itself refuse to rewrite history."""
    sqlite = connection.dialect.name == "sqlite"
    for statement in _sqlite_triggers(table) if sqlite else _postgresql_triggers(table):
        connection.exec_driver_sql(statement)


def _verbs(table: Table) -> tuple[str, ...]:
    if table in APPEND_ONLY:
        return ("UPDATE", "DELETE")
    return ("UPDATE",) if table in WRITE_ONCE else ()


def _sqlite_triggers(table: Table) -> list[str]:
    name = table.name
    refuse = f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
    found = [
        f"CREATE TRIGGER {name}_no_{verb.lower()} BEFORE {verb} ON {name} "
        f"{f'WHEN {SHED[table]} ' if verb == 'DELETE' and table in SHED else ''}{refuse}"
        for verb in _verbs(table)
    ]
    # INSERT OR REPLACE deletes the old row without firing a DELETE trigger.
    if table in APPEND_ONLY:
        same = " AND ".join(f"{c.name} = NEW.{c.name}" for c in table.primary_key.columns)
        found.append(
            f"CREATE TRIGGER {name}_no_replace BEFORE INSERT ON {name} "
            f"WHEN EXISTS (SELECT 1 FROM {name} WHERE {same}) {refuse}"
        )
    if table in _IN_ORDER:
        column, first = _IN_ORDER[table]
        found.append(
            f"CREATE TRIGGER {name}_in_order BEFORE INSERT ON {name} "
            f"WHEN NEW.{column} <> (SELECT COALESCE(MAX({column}) + 1, {first}) FROM {name}) "
            f"{refuse}"
        )
    return found


def _postgresql_triggers(table: Table) -> list[str]:
    name = table.name
    found = []
    if _verbs(table):
        found.append(
            "CREATE OR REPLACE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only'; END $$"
        )
        verbs, refuses = " OR ".join(_verbs(table)), "ledger_refuse"
        if table in SHED:
            refuses = f"{name}_refuse"
            found.append(
                f"CREATE OR REPLACE FUNCTION {refuses}() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN IF TG_OP = 'UPDATE' OR {SHED[table]} THEN RAISE EXCEPTION "
                f"'{name} is append-only'; END IF; RETURN OLD; END $$"
            )
        found.append(
            f"CREATE TRIGGER {name}_no_change BEFORE {verbs} ON {name} "
            f"FOR EACH ROW EXECUTE FUNCTION {refuses}()"
        )
    if table in APPEND_ONLY:
        found.append(
            f"CREATE TRIGGER {name}_no_truncate BEFORE TRUNCATE ON {name} "
            "FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()"
        )
    if table in _IN_ORDER:
        column, first = _IN_ORDER[table]
        found += [
            f"CREATE FUNCTION {name}_next() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF NEW.{column} <> (SELECT COALESCE(MAX({column}) + 1, {first}) FROM {name}) "
            f"THEN RAISE EXCEPTION '{name} is append-only'; END IF; RETURN NEW; END $$",
            f"CREATE TRIGGER {name}_in_order BEFORE INSERT ON {name} "
            f"FOR EACH ROW EXECUTE FUNCTION {name}_next()",
        ]
    return found


def trigger_names(dialect: str) -> list[str]:
    """The triggers that every ledger has, whatever version it was created with."""
    names = []
    for table in (*APPEND_ONLY, *WRITE_ONCE):
        if dialect == "sqlite":
            names += [f"{table.name}_no_{verb.lower()}" for verb in _verbs(table)]
        else:
            names.append(f"{table.name}_no_change")
    return names
