"""Ledgers to try things on: fixed keys, a fixed clock, a fast accountant."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.privacy.accountants import RdpAccountant
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.ledger import BudgetKey, ChargeRequest, Ledger
from tests.privacy.ledger import postgres

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
DELTA = Decimal("1e-5")
RECORDS = BudgetKey("table", "record")
EVENT = DpEvent.once(Mechanism.of(Decimal("0.01"), Decimal("1.1")), distance=Decimal("1e-30"))


def clock() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def create(
    location: Path | str, *, owner: str = "hospital-a", key: Ed25519PrivateKey = KEY
) -> Ledger:
    return Ledger.create(location, owner, signing_key=key, accountant=RdpAccountant(), clock=clock)


def reopened(location: Path | str, *, key: Ed25519PrivateKey = KEY) -> Ledger:
    return Ledger.open(location, signing_key=key, accountant=RdpAccountant(), clock=clock)


def request_for(
    round_: int,
    *,
    attempt: int = 0,
    run: str = "run",
    key: BudgetKey = RECORDS,
    event: DpEvent = EVENT,
) -> ChargeRequest:
    return ChargeRequest(
        run=run,
        round=round_,
        attempt=attempt,
        dataset=key.dataset,
        unit=key.unit,
        event=event,
        plan_digest="ab" * 32,
        facts={"clip_norm_l2": 1.0, "cohort": ["a", "b"]},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: the many fsyncs then cost nothing.

    What these tests kill is processes, not the operating system, so nothing is lost by it.
    """
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(prefix="privagg-ledger-", dir="/dev/shm"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "ledger.db"


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    if postgres.programs() is None:
        pytest.skip("no PostgreSQL server: install Debian's package `postgresql`")
    with postgres.running() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, path: Path) -> Path | str:
    """Where a new ledger may live: once a file, once a database of a real server."""
    if request.param == "sqlite":
        return path
    started: postgres.Server = request.getfixturevalue("server")
    return started.database()


@pytest.fixture
def empty(location: Path | str) -> Iterator[Ledger]:
    ledger = create(location)
    yield ledger
    ledger.close()


@pytest.fixture
def ledger(empty: Ledger) -> Ledger:
    empty.set_budget(RECORDS, Decimal(8), DELTA, who="officer", why="approved")
    return empty


@pytest.fixture
def again(location: Path | str) -> Iterator[Callable[[], Ledger]]:
    """Opens the ledger anew, as another process would."""
    opened: list[Ledger] = []

    def reopen() -> Ledger:
        opened.append(reopened(location))
        return opened[-1]

    yield reopen
    for ledger in opened:
        ledger.close()
