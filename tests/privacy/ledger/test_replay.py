"""A ledger's rules, held against an owner who signs what its own software would refuse to write."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from privagg.errors import LedgerTamperedError
from privagg.privacy.accountants import RdpAccountant
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.entries import (
    Charge,
    Consumed,
    Created,
    Entry,
    KeyRotated,
    Payload,
    Realised,
    UploadStored,
    payload_of,
    timestamp,
)
from privagg.privacy.ledger.replay import Replay
from tests.privacy.ledger.conftest import DELTA, KEY, RECORDS, clock, request_for


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, ...]:
    """Round 0 trained, round 1 aborted after its charge, round 2 charged and no more."""
    path = tmp_path_factory.mktemp("replay") / "ledger.db"
    ledger = Ledger.create(
        path, "hospital-a", signing_key=KEY, accountant=RdpAccountant(), clock=clock
    )
    ledger.set_budget(RECORDS, Decimal(8), DELTA, who="officer", why="approved")
    ledger.consume(ledger.charge(request_for(0)))
    aborted = ledger.charge(request_for(1))
    place = {
        "run": aborted.charge.run,
        "round": aborted.charge.round,
        "attempt": aborted.charge.attempt,
    }
    ledger.record("aborted", {**place, "reason": "nobody answered"})
    ledger.charge(request_for(2))
    return ledger.bundle().bodies


@pytest.fixture
def log(bodies: tuple[bytes, ...]) -> Replay:
    made = Replay()
    for body in bodies:
        made.add(body)
    return made


def charges(log: Replay) -> list[tuple[int, Charge]]:
    return list(log.charges.items())


def consumed(log: Replay, charge: Charge, index: int) -> Consumed:
    names = ("run", "round", "attempt", "dataset", "unit")
    return Consumed(**{name: getattr(charge, name) for name in names}, charge=index)


def later(log: Replay, **changes: object) -> Charge:
    """The last charge once more, as a further round's, with other figures."""
    _, charge = charges(log)[-1]
    spent = log.accounts[charge.key].epsilon_spent
    facts = {"round": 3, "epsilon_before": spent, "epsilon_after": spent, **changes}
    return charge.model_copy(update=facts)


def upload(log: Replay) -> UploadStored:
    index, charge = charges(log)[2]
    return UploadStored(
        run=charge.run, round=charge.round, attempt=charge.attempt,
        charge=index, sha256="ab" * 32, length_bytes=3,
    )  # fmt: skip


def realised(log: Replay) -> Payload:
    _, charge = charges(log)[0]
    names = ("run", "attempt", "dataset", "unit", "event")
    facts = {name: getattr(charge, name) for name in names}
    return payload_of(Realised.kind, {**facts, "round": 77, "attested_by": "me", "facts": {}})


def entry(log: Replay, payload: Payload, *, index: int | None = None, state: str = "") -> bytes:
    """The next entry with this payload, as its owner would sign it; by default in its place."""
    place = log.size if index is None else index
    return Entry(place, timestamp(clock(), payload), payload, state or log.state.digest()).body()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (lambda log: charges(log)[2][1], "is a second 'charge' entry"),
        (lambda log: consumed(log, charges(log)[2][1], 1), "receipt that was never given"),
        (
            lambda log: consumed(log, charges(log)[2][1], charges(log)[1][0]),
            "receipt that was never given",
        ),
        (lambda log: consumed(log, charges(log)[1][1], charges(log)[1][0]), "an aborted attempt"),
        (upload, "uploads what was never trained"),
        (realised, "realises what was never charged"),
        (
            lambda log: Created(
                owner="hospital-b",
                origin=log.state.origin,
                verifier=log.state.owner_verifier,
                software="x",
            ),
            "created once, by entry 0",
        ),
        (
            lambda log: KeyRotated(
                old_verifier=log.state.owner_verifier[:-4] + "AAA=",
                new_verifier=log.state.owner_verifier,
                who="me",
                why="so",
            ),
            "rotates a key that was not the ledger's",
        ),
        (lambda log: later(log, epsilon_budget=Decimal(9)), "held against the budget"),
        (lambda log: later(log, delta=Decimal("1e-4")), "held against the budget"),
        (lambda log: later(log, epsilon_before=Decimal("0.001")), "says that epsilon was 0.001"),
        (lambda log: later(log, epsilon_after=Decimal("8.001")), "beyond its budget 8"),
        (lambda log: later(log, dataset="elsewhere"), "without a budget"),
    ],
)
def test_an_entry_that_breaks_a_rule_is_named(
    log: Replay, payload: Callable[[Replay], Payload], reason: str
) -> None:
    with pytest.raises(LedgerTamperedError, match=reason):
        log.add(entry(log, payload(log)))


def test_an_entry_stands_in_its_place(log: Replay) -> None:
    index, charge = charges(log)[2]
    with pytest.raises(LedgerTamperedError, match="says that it is entry"):
        log.add(entry(log, consumed(log, charge, index), index=log.size + 1))


def test_an_entry_commits_to_the_running_totals(log: Replay) -> None:
    index, charge = charges(log)[2]
    with pytest.raises(LedgerTamperedError, match="the running totals it commits to differ"):
        log.add(entry(log, consumed(log, charge, index), state="ab" * 32))


def test_what_keeps_the_rules_is_taken(log: Replay) -> None:
    index, charge = charges(log)[2]
    size = log.size
    log.add(entry(log, consumed(log, charge, index)))
    log.add(entry(log, upload(log)))
    assert log.size == size + 2
