"""A kill at any instant loses no charge and doubles none; writers together never overspend."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from privagg.errors import BudgetExceededError, LedgerError, ReceiptError
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.replay import HISTORY_UNVERIFIABLE
from privagg.privacy.ledger.store import Store
from tests.faults import Killed
from tests.privacy.ledger import postgres, writers
from tests.privacy.ledger.conftest import (
    DELTA,
    EVENT,
    RECORDS,
    create,
    reopened,
    request_for,
)

REALISED = {
    **{"run": "run", "round": 0, "attempt": 0, "dataset": "table", "unit": "record"},
    **{"event": EVENT, "attested_by": "coordinator"},
}


EVERY = pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.nightly)])
"""By day a kill at every fourth statement, at night at each."""


def a_round(location: Path | str) -> None:
    """What a site does in a round, written as a restart would run it again."""
    ledger = reopened(location)
    with ledger.together():
        receipt = ledger.charge(request_for(0))
        # Where it was killed after training began, a real site would go on with a new attempt.
        with suppress(ReceiptError):
            ledger.consume(receipt)
    if ledger.stored_upload("run", 0, 0) is None:
        ledger.store_upload(receipt, b"upload")
    ledger.record("realised", REALISED)
    ledger.close()


def die_at(step: int) -> None:
    """Kill this process at its `step`-th chance: each statement of a transaction that writes, and
    each commit, just before it.
    """
    passed = 0

    def tick(connection: Connection, *_: object) -> None:
        nonlocal passed
        passed += bool(connection.get_execution_options().get("privagg_ledger_writing"))
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)

    original = Store.__init__

    def listening(self: Store, *arguments: object, **named: object) -> None:
        original(self, *arguments, **named)  # type: ignore[arg-type]
        for name in ("before_cursor_execute", "commit"):
            event.listen(self.engine, name, tick)

    Store.__init__ = listening  # type: ignore[method-assign]


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Run `work` in a child that dies at `step`; False where it came to its end."""

    def doomed() -> None:
        die_at(step)
        work()

    _, status = os.waitpid(writers.fork(doomed), 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def check_round(location: Path | str) -> None:
    """Whatever was killed, the ledger verifies, and the round can be completed exactly once."""
    ledger = reopened(location)
    assert ledger.verify() == [HISTORY_UNVERIFIABLE]
    assert ledger.spent(RECORDS).charges <= 1
    kinds = [entry.kind for entry in ledger.entries()]
    assert ("charge" in kinds) == ("consumed" in kinds), "they are written together"
    ledger.close()
    a_round(location)
    ledger = reopened(location)
    kinds = [entry.kind for entry in ledger.entries()]
    assert kinds == ["created", "budget", "charge", "consumed", "upload", "realised"]
    assert ledger.stored_upload("run", 0, 0) == b"upload"
    ledger.close()


def with_budget(location: Path | str) -> None:
    ledger = create(location)
    ledger.set_budget(RECORDS, Decimal(8), DELTA, who="officer", why="approved")
    ledger.close()


@EVERY
def test_killed_at_statements_of_a_round_sqlite(folder: Path, stride: int) -> None:
    base = folder / "base.db"
    with_budget(base)
    step = 1 - stride
    while True:
        step += stride
        path = folder / f"{step}.db"
        shutil.copy(base, path)
        died = killed_at(step, lambda path=path: a_round(path))  # type: ignore[misc]
        check_round(path)
        if not died:
            break
        for file in folder.glob(f"{step}.db*"):
            file.unlink()
    assert step > 40


def test_of_what_is_written_together_an_error_undoes_its_own_write_and_a_kill_all(
    folder: Path,
) -> None:
    path = folder / "site.db"
    with_budget(path)
    ledger = reopened(path)
    said = {"what": "model", "who": "site", "facts": {}}
    with pytest.raises(LedgerError, match="nothing was charged"), ledger.together():
        ledger.record("released", said)
        other = reopened(path)
        assert len(other) == 2, "not before the end"
        assert len(ledger) == 3, "but for whoever writes it"
        other.close()
        ledger.record("realised", REALISED)
    assert [entry.kind for entry in ledger.entries()] == ["created", "budget", "released"]
    with pytest.raises(Killed), ledger.together(), ledger.together():
        ledger.record("released", said)
        receipt = ledger.charge(request_for(0))
        raise Killed
    assert len(ledger) == 3
    with pytest.raises(ReceiptError, match="not given out"):
        ledger.consume(receipt)
    assert ledger.verify() == [HISTORY_UNVERIFIABLE]
    assert ledger.charge(request_for(0)).index == 3
    ledger.close()


def the_next_round(location: Path | str) -> None:
    """Round 1 is stored, which ends round 0; then it is over as well."""
    ledger = reopened(location)
    receipt = ledger.charge(request_for(1))
    with suppress(ReceiptError):
        ledger.consume(receipt)
    ledger.store_upload(receipt, b"of round 1")
    ledger.forget_uploads("run", through=(1, 0))
    ledger.close()


@EVERY
def test_killed_at_statements_where_uploads_are_forgotten(folder: Path, stride: int) -> None:
    """The bytes of a round are there until those of the next one are, and there is one of each."""
    base, seen = folder / "base.db", set[tuple[bool, bool]]()
    with_budget(base)
    a_round(base)
    step, died = 1 - stride, True
    while died:
        step += stride
        path = folder / f"{step}.db"
        shutil.copy(base, path)
        died = killed_at(step, lambda path=path: the_next_round(path))  # type: ignore[misc]
        ledger = reopened(path)
        assert ledger.verify() == [HISTORY_UNVERIFIABLE]
        stored = [ledger.stored_upload("run", number, 0) for number in (0, 1)]
        assert stored[0] in (b"upload", None)
        assert stored[1] in (b"of round 1", None)
        logged = [ledger.recorded("upload", ("run", number, 0)) for number in (0, 1)]
        assert logged[0]
        assert logged[1] == (stored[0] is None), "round 0 goes with the upload of round 1"
        seen.add((stored[0] is not None, stored[1] is not None))
        for number in (0, 1):
            receipt = ledger.charge(request_for(number))
            if logged[number]:
                assert not ledger.cut_off(receipt)
                with pytest.raises(ReceiptError, match="used before"):
                    ledger.consume(receipt)
                with pytest.raises(LedgerError, match="second release"):
                    ledger.store_upload(receipt, b"fresh noise")
        ledger.close()
    if stride == 1:
        assert seen == {(True, False), (False, True), (False, False)}
    assert seen >= {(True, False), (False, False)}


def test_killed_at_statements_of_a_round_postgresql(server: postgres.Server) -> None:
    # The rules are the same as on SQLite, so every seventh statement has to do.
    step, died = 1, True
    while died:
        url = server.database()
        with_budget(url)
        died = killed_at(step, lambda url=url: a_round(url))  # type: ignore[misc]
        check_round(url)
        step += 7
    assert step > 40


@EVERY
def test_killed_at_statements_of_its_creation(folder: Path, stride: int) -> None:
    step, died = 1 - stride, True
    while died:
        step += stride
        path = folder / f"{step}.db"
        died = killed_at(step, lambda path=path: create(path).close())  # type: ignore[misc]
        try:
            ledger = create(path)
        except LedgerError:
            ledger = reopened(path)
        assert [entry.kind for entry in ledger.entries()] == ["created"]
        assert ledger.verify() == [HISTORY_UNVERIFIABLE]
        ledger.close()
    assert step > 20


@pytest.mark.parametrize(("kills", "budget"), [(0, 40), (12, 40), (8, 1000)])
def test_writers_spend_the_budget_exactly(
    location: Path | str, folder: Path, kills: int, budget: int
) -> None:
    writers.create(location, budget).close()
    outcome = writers.run(
        location, folder, writers=4, charges=15, kills=kills, seed=kills, gap_s=0.05
    )
    writers.check(location, outcome, budget=budget, asked=60)


def test_a_server_that_crashes_loses_nothing_it_confirmed() -> None:
    if postgres.programs() is None:
        pytest.skip("no PostgreSQL server: install Debian's package `postgresql`")
    with postgres.running() as server:
        url = server.database()
        with_budget(url)
        ledger = reopened(url)
        receipts = [ledger.charge(request_for(round_)) for round_ in range(3)]
        server.stop()
        with pytest.raises(LedgerError, match="cannot be used"):
            ledger.charge(request_for(3))
        server.start()
        assert [ledger.charge(request_for(round_)) for round_ in range(3)] == receipts
        assert ledger.spent(RECORDS).charges == 3
        assert ledger.verify() == [HISTORY_UNVERIFIABLE]
        ledger.close()


def test_threads_share_one_ledger(path: Path) -> None:
    ledger = writers.create(path, 20)
    granted: list[str] = []
    refused: list[str] = []

    def work(writer: int) -> None:
        for number in range(8):
            try:
                granted.append(ledger.charge(writers.charge_of(writer, number)).entry_hash)
            except BudgetExceededError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(set(granted)), len(refused)) == (20, 12)
    assert ledger.spent(writers.BUDGET).epsilon.upper == 20


def test_a_fork_does_not_share_its_parents_connections(location: Path | str) -> None:
    with_budget(location)
    ledger = reopened(location)
    ledger.charge(request_for(0))
    children = [
        writers.fork(lambda i=i: _charge_some(ledger, i))
        for i in range(3)  # type: ignore[misc]
    ]
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert ledger.spent(RECORDS).charges == 16
    assert ledger.verify() == [HISTORY_UNVERIFIABLE]


def _charge_some(ledger: Ledger, child: int) -> None:
    for round_ in range(5):
        ledger.charge(request_for(round_, run=f"child-{child}"))


def test_a_locked_ledger_says_so_and_spends_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("privagg.privacy.ledger.store.BUSY_TIMEOUT_S", 0.05)
    with_budget(path)
    holder, other = Store(path, read_only=False), reopened(path)
    with holder.write(), pytest.raises(LedgerError, match="locked"):
        other.charge(request_for(0))
    assert other.spent(RECORDS).charges == 0
    assert other.charge(request_for(0)).charge.epsilon_before == 0
