"""Ledgers to try things on: fixed keys, a fixed clock, a fast accountant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.privacy.accountants import RdpAccountant
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.ledger import BudgetKey, ChargeRequest, Ledger

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
DELTA = Decimal("1e-5")
RECORDS = BudgetKey("table", "record")
EVENT = DpEvent.once(Mechanism.of(Decimal("0.01"), Decimal("1.1")), distance=Decimal("1e-30"))


def clock() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


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
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def empty(path: Path) -> Iterator[Ledger]:
    ledger = Ledger.create(
        path, "hospital-a", signing_key=KEY, accountant=RdpAccountant(), clock=clock
    )
    yield ledger
    ledger.close()


@pytest.fixture
def ledger(empty: Ledger) -> Ledger:
    empty.set_budget(RECORDS, Decimal(8), DELTA, who="officer", why="approved")
    return empty


@pytest.fixture
def again(path: Path) -> Callable[[], Ledger]:
    """Opens the ledger anew, as another process would."""

    def reopen() -> Ledger:
        return Ledger.open(path, signing_key=KEY, accountant=RdpAccountant(), clock=clock)

    return reopen
