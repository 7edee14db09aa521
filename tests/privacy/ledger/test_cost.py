"""What a round asks of its ledger's database: looked up by key, and no more as the log grows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.sql.compiler import SQLCompiler

from privagg.privacy.ledger import CheckpointKeeper, Ledger, Verifier, store
from privagg.privacy.ledger.keeper import Shown
from tests.privacy.ledger.conftest import DELTA, KEY, RECORDS, create, request_for

OWN = Verifier.of("privagg.ledger/hospital-a", KEY)
GROWING = ("ledger_entries", "ledger_nodes", "ledger_checkpoints", "ledger_kept")

Statements = list[tuple[str, Any]]


@pytest.fixture
def ledger(folder: Path) -> Ledger:
    made = create(folder / "own.db")
    made.set_budget(RECORDS, Decimal(80), DELTA, who="officer", why="approved")
    return made


@contextmanager
def statements(of: Ledger | CheckpointKeeper) -> Iterator[Statements]:
    """The statements that are run meanwhile, with their parameters."""
    asked: Statements = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(of._store.engine, "before_cursor_execute", note)
    yield asked
    event.remove(of._store.engine, "before_cursor_execute", note)


def one_round(ledger: Ledger, number: int) -> None:
    receipt = ledger.charge(request_for(number))
    ledger.consume(receipt)
    ledger.store_upload(receipt, b"upload")
    ledger.consistency_proof(2)
    assert ledger.stored_upload("run", number, 0) == b"upload"
    assert ledger.recorded("upload", ("run", number, 0))


def test_a_file_keeps_room_for_the_upload_under_way_alone(ledger: Ledger, folder: Path) -> None:
    def size() -> int:
        return sum(file.stat().st_size for file in folder.iterdir())

    sizes = []
    for number in range(8):
        receipt = ledger.charge(request_for(number))
        ledger.consume(receipt)
        ledger.store_upload(receipt, bytes([number]) * 4_000_000)
        assert size() > 4_000_000
        ledger.forget_uploads("run", through=(number, 0))
        ledger.charge(request_for(number, run="another"))  # as after any further entry
        sizes.append(size())
    assert max(sizes) < 2_000_000  # of it 1 MB is the write-ahead log's
    assert sizes[-1] - sizes[2] < 300_000  # the log itself grows by some KB a round
    assert ledger.verify()[0].startswith("completeness of history")


def plans(path: Path, asked: Statements) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [
            f"{row[3]} <- {statement}"
            for statement, parameters in asked
            if statement.startswith("SELECT")
            for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


def test_a_round_looks_everything_up_by_key(ledger: Ledger, folder: Path) -> None:
    one_round(ledger, 0)
    with statements(ledger) as asked:
        one_round(ledger, 1)
    found = plans(folder / "own.db", asked)
    assert any("ledger_nodes" in plan for plan in found)
    assert [plan for plan in found if plan.startswith(tuple(f"SCAN {t}" for t in GROWING))] == []


def test_a_later_round_asks_the_database_as_often_as_an_early_one(ledger: Ledger) -> None:
    counts = []
    for number in range(20):
        with statements(ledger) as asked:
            one_round(ledger, number)
        counts.append(len(asked))
    assert counts[2] == counts[19]


def test_a_second_ledger_compiles_no_statement_anew(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_round(ledger, 0)
    other = create(folder / "other.db")
    other.set_budget(RECORDS, Decimal(80), DELTA, who="officer", why="approved")
    compiled: list[Any] = []
    start = SQLCompiler.__init__

    def counted(self: Any, dialect: Any, statement: Any, *arguments: Any, **options: Any) -> None:
        compiled.append(statement)
        start(self, dialect, statement, *arguments, **options)

    monkeypatch.setattr(SQLCompiler, "__init__", counted)
    one_round(other, 0)
    assert compiled == []


def test_what_a_process_keeps_of_statements_holds_no_upload(ledger: Ledger) -> None:
    receipt = ledger.charge(request_for(0))
    ledger.consume(receipt)
    store._COMPILED.clear()
    ledger.store_upload(receipt, b"upload")
    kept = [bound.value for each in store._COMPILED.values() for bound in each.binds.values()]
    assert kept
    assert b"upload" not in kept


def test_keeping_checkpoints_looks_them_up_by_key(ledger: Ledger, folder: Path) -> None:
    keeper = CheckpointKeeper.open(folder / "kept.db")
    keeper.keep(OWN.name, ledger.checkpoint(1), verifier=OWN)
    shown = Shown(OWN.name, ledger.checkpoint(2), OWN, {1: ledger.consistency_proof(1)}, (1,))
    with statements(keeper) as asked:
        assert keeper.keep_all([shown]) == {}
    found = plans(folder / "kept.db", asked)
    assert any("ledger_kept" in plan for plan in found)
    assert [plan for plan in found if plan.startswith("SCAN ledger_kept")] == []


def test_an_upload_is_written_in_large_pages(ledger: Ledger, folder: Path) -> None:
    one_round(ledger, 0)
    with closing(sqlite3.connect(folder / "own.db")) as database:
        assert database.execute("PRAGMA page_size").fetchone() == (16384,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
