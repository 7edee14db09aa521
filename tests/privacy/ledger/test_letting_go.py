"""What is kept of other ledgers goes where a later checkpoint speaks for it, and nothing else does.

A party tells each run what its next uploads must extend. That stays until the run is told anew, and
for good once it is over; heads always stay.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.ledger import Checkpoint, CheckpointKeeper, Ledger, Verifier, schema
from privagg.privacy.ledger.keeper import MAX_RUNS, Shown
from privagg.privacy.ledger.replay import HISTORY_UNVERIFIABLE
from tests.faults import Killed
from tests.privacy.ledger.conftest import KEY, create, reopened

ORIGIN = "privagg.ledger/hospital-a"
OWN = Verifier.of(ORIGIN, KEY)


@pytest.fixture
def peer(folder: Path) -> Ledger:
    ledger = create(folder / "peer.db")
    while len(ledger) < 9:
        ledger.record("released", {"what": "model", "who": "peer", "facts": {}})
    return ledger


@pytest.fixture
def keeper(folder: Path) -> CheckpointKeeper:
    return CheckpointKeeper.open(folder / "kept.db")


def show(keeper: CheckpointKeeper, peer: Ledger, size: int, *since: int) -> LedgerError | None:
    proofs = {old: peer.consistency_proof(old, size) for old in since}
    shown = Shown(ORIGIN, peer.checkpoint(size), OWN, proofs, since or None)
    return keeper.keep_all([shown]).get(ORIGIN)


def sizes(keeper: CheckpointKeeper) -> list[int]:
    return [Checkpoint.parse(note).size for note in keeper.all()]


def test_a_run_leaves_one_checkpoint_of_each_ledger(keeper: CheckpointKeeper, peer: Ledger) -> None:
    assert keeper.tell("first", [ORIGIN]) == {}
    for size in range(1, 5):
        assert show(keeper, peer, size, *([size - 1] if size > 1 else [])) is None
        assert keeper.tell("first", [ORIGIN]) == {ORIGIN: (size,)}
        assert sizes(keeper) == [size]
    keeper.tell("second", [ORIGIN])
    for size in range(5, 9):
        assert show(keeper, peer, size, size - 1) is None
        keeper.tell("second", [ORIGIN])
        assert sizes(keeper) == [4, size]  # 4 is what an auditor holds the first run against
    for number in range(MAX_RUNS + 1):
        keeper.tell(f"run-{number}", [ORIGIN])
    assert (keeper.told("first"), sizes(keeper)) == (None, [4, 8])


def test_what_an_overlapping_run_was_told_stays_until_it_has_proved_it(
    keeper: CheckpointKeeper, peer: Ledger
) -> None:
    show(keeper, peer, 2)
    for run in ("slow", "quick"):
        keeper.tell(run, [ORIGIN])
    for size in (3, 4, 5):
        assert show(keeper, peer, size, *keeper.told("quick")[ORIGIN]) is None
        keeper.tell("quick", [ORIGIN])
    assert sizes(keeper) == [2, 5]
    assert show(keeper, peer, 6, *keeper.told("slow")[ORIGIN]) is None
    assert keeper.tell("slow", [ORIGIN]) == {ORIGIN: (5, 6)}  # both wait for one that extends both
    assert show(keeper, peer, 7, 5, 6) is None
    assert keeper.heads([ORIGIN]) == {ORIGIN: (7,)}


def test_who_tells_no_run_keeps_everything(keeper: CheckpointKeeper, peer: Ledger) -> None:
    for size in range(1, 7):
        show(keeper, peer, size, *([size - 1] if size > 1 else []))
    assert sizes(keeper) == [1, 2, 3, 4, 5, 6]


def test_another_history_of_a_size_that_went_is_refused(
    keeper: CheckpointKeeper, peer: Ledger, folder: Path
) -> None:
    show(keeper, peer, 3)
    keeper.tell("run", [ORIGIN])
    show(keeper, peer, 6, 3)
    keeper.tell("run", [ORIGIN])
    assert sizes(keeper) == [6]
    fork = create(folder / "fork.db")
    while len(fork) < 9:
        fork.record("released", {"what": "another", "who": "peer", "facts": {}})
    for size in (3, 6, 7):
        proofs = {6: fork.consistency_proof(*sorted((6, size)))}
        for given in ({}, proofs):
            shown = Shown(ORIGIN, fork.checkpoint(size), OWN, given)
            problem = keeper.keep_all([shown])[ORIGIN]
            assert isinstance(problem, LedgerTamperedError) or not given
    assert sizes(keeper) == [6]


@pytest.mark.parametrize(
    "verb",
    [
        "DELETE FROM ledger_kept WHERE size = 6",
        "DELETE FROM ledger_kept_extended",
        "UPDATE ledger_kept SET size = 7 WHERE size = 3",
        "UPDATE ledger_kept_extended SET size = 6",
    ],
)
def test_the_database_lets_no_head_go(
    keeper: CheckpointKeeper, peer: Ledger, folder: Path, verb: str
) -> None:
    show(keeper, peer, 3)
    show(keeper, peer, 6, 3)
    with closing(sqlite3.connect(folder / "kept.db")) as database:
        with pytest.raises(sqlite3.DatabaseError, match="is append-only"):
            database.execute(verb)
        database.execute("DELETE FROM ledger_kept WHERE size = 3")


def test_every_database_lets_the_same_go(empty: Ledger, peer: Ledger) -> None:
    for size, since in ((2, ()), (4, (2,)), (7, (4,))):
        assert show(empty.keeper, peer, size, *since) is None
        empty.keeper.tell("run", [ORIGIN])
    assert sizes(empty.keeper) == [7]
    head = schema.kept.delete().where(schema.kept.c.size == 7)
    refused = pytest.raises(LedgerTamperedError, match="is append-only")
    with refused, empty._store.write() as connection:
        connection.execute(head)
    assert empty.verify() == [HISTORY_UNVERIFIABLE]


def test_what_is_no_list_of_sizes_is_damage(keeper: CheckpointKeeper, folder: Path) -> None:
    keeper.tell("run", [ORIGIN])
    with closing(sqlite3.connect(folder / "kept.db")) as database:
        database.execute("UPDATE ledger_kept_told SET sizes = '[1]'")
        database.commit()
    with pytest.raises(LedgerTamperedError, match="is no list of sizes"):
        keeper.told("run")


AS_BEFORE = """
DROP TABLE ledger_kept_told;
DROP TRIGGER ledger_kept_no_delete;
DROP TRIGGER ledger_kept_extended_no_delete;
CREATE TRIGGER ledger_kept_no_delete BEFORE DELETE ON ledger_kept
    BEGIN SELECT RAISE(ABORT, 'ledger_kept is append-only'); END;
CREATE TRIGGER ledger_kept_extended_no_delete BEFORE DELETE ON ledger_kept_extended
    BEGIN SELECT RAISE(ABORT, 'ledger_kept_extended is append-only'); END;
"""
"""What schema 3 had in the place of what schema 4 has."""


@pytest.fixture
def of_schema_3(path: Path, peer: Ledger) -> Path:
    """A ledger as schema 3 left it, with three checkpoints of another one."""
    ledger = create(path)
    for size in (1, 2, 5):
        show(ledger.keeper, peer, size, *([] if size == 1 else [size // 2]))
    ledger.close()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(AS_BEFORE)
        database.execute("UPDATE ledger_meta SET value = '3' WHERE name = 'schema_version'")
        database.commit()
    return path


def shape(path: Path) -> Iterator[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2"
        yield from database.execute(query)


def test_a_ledger_of_schema_3_keeps_what_it_kept_and_lets_go_from_then_on(
    of_schema_3: Path, peer: Ledger, folder: Path
) -> None:
    ledger = reopened(of_schema_3)
    assert ledger.verify() == [HISTORY_UNVERIFIABLE]
    create(folder / "new.db").close()
    assert list(shape(of_schema_3)) == list(shape(folder / "new.db"))
    keeper = ledger.keeper
    for size, since in ((5, ()), (7, (5,)), (8, (7,))):
        assert show(keeper, peer, size, *since) is None
        keeper.tell("run", [ORIGIN])
    assert sizes(keeper) == [1, 2, 8]
    assert ledger.verify() == [HISTORY_UNVERIFIABLE]


def test_killed_at_any_write_of_the_step_a_ledger_is_of_schema_3_or_4(
    of_schema_3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, image, killed = list(shape(of_schema_3)), of_schema_3.read_bytes(), 0
    whole = schema.Connection.exec_driver_sql
    while True:
        left = killed

        def one_fewer(connection: schema.Connection, sql: str, *more: object) -> object:
            nonlocal left
            if sql.startswith(("DROP", "CREATE")):
                left -= 1
                if left < 0:
                    raise Killed
            return whole(connection, sql, *more)

        monkeypatch.setattr(schema.Connection, "exec_driver_sql", one_fewer)
        try:
            reopened(of_schema_3).close()
        except Killed:
            killed += 1
        else:
            break
        finally:
            monkeypatch.setattr(schema.Connection, "exec_driver_sql", whole)
        assert list(shape(of_schema_3)) == before
    assert killed >= 12
    assert reopened(of_schema_3).verify() == [HISTORY_UNVERIFIABLE]
    assert list(shape(of_schema_3)) != before
    assert image[:16] == of_schema_3.read_bytes()[:16]


@pytest.mark.parametrize("schema_version", ["1", "2", "3"])
def test_a_backup_of_an_older_schema_is_restored_and_stays_as_it_is(
    of_schema_3: Path, folder: Path, schema_version: str
) -> None:
    older = {
        "1": "DROP TABLE ledger_kept_extended; DROP TABLE ledger_kept;",
        "2": "DROP TABLE ledger_kept_extended;",
        "3": "",
    }
    with closing(sqlite3.connect(of_schema_3)) as database:
        database.executescript(older[schema_version])
        database.execute(
            "UPDATE ledger_meta SET value = ? WHERE name = 'schema_version'", (schema_version,)
        )
        database.commit()
    before, again = of_schema_3.read_bytes(), folder / "again.sqlite"
    ledger = Ledger.restore(
        of_schema_3, again, signing_key=KEY, who="owner", why="disk broke", checkpoints=()
    )
    assert of_schema_3.read_bytes() == before
    assert ledger.entries()[-1].kind == "restored"
    assert ledger.verify() == [HISTORY_UNVERIFIABLE]
    kept = [Checkpoint.parse(note).size for note in ledger.keeper.all()]
    assert kept == ([] if schema_version == "1" else [1, 2, 5])
    create(folder / "new.db").close()
    assert list(shape(again)) == list(shape(folder / "new.db"))


def test_an_older_backup_that_was_edited_is_refused_and_leaves_nothing(
    of_schema_3: Path, folder: Path
) -> None:
    with closing(sqlite3.connect(of_schema_3)) as database:
        database.executescript("DROP TRIGGER ledger_entries_no_update;")
        database.execute("UPDATE ledger_entries SET body = replace(body, 'hospital-a', 'nobody')")
        database.commit()
    with pytest.raises(LedgerTamperedError):
        Ledger.restore(
            of_schema_3, folder / "again", signing_key=KEY, who="o", why="w", checkpoints=()
        )
    assert not Ledger.is_at(folder / "again")


def test_a_file_of_checkpoints_alone_is_brought_up_to_date_too(folder: Path, peer: Ledger) -> None:
    keeper = CheckpointKeeper.open(folder / "kept.db")
    show(keeper, peer, 2)
    keeper.close()
    with closing(sqlite3.connect(folder / "kept.db")) as database:
        database.executescript(AS_BEFORE)
    again = CheckpointKeeper.open(folder / "kept.db")
    again.tell("run", [ORIGIN])
    show(again, peer, 4, 2)
    again.tell("run", [ORIGIN])
    assert sizes(again) == [4]
