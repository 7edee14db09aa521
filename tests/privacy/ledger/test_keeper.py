"""Keeping a peer's checkpoints: growth is taken, rollback and fork are not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.ledger import Checkpoint, CheckpointKeeper, Ledger, Verifier, merkle
from privagg.privacy.ledger.keeper import MAX_BRANCHES, Shown
from privagg.privacy.ledger.ledger import ORIGIN_PREFIX
from tests.privacy.ledger.conftest import (
    DELTA,
    KEY,
    OTHER_KEY,
    RECORDS,
    create,
    request_for,
)

ORIGIN = "privagg.ledger/hospital-a"
OWN = Verifier.of(ORIGIN, KEY)


@pytest.fixture
def peer(folder: Path) -> Ledger:
    """Another institution's ledger of a few entries."""
    ledger = create(folder / "peer.db")
    ledger.set_budget(RECORDS, Decimal(8), DELTA, who="officer", why="approved")
    for round_ in range(4):
        ledger.charge(request_for(round_))
    return ledger


@pytest.fixture
def keeper(folder: Path) -> CheckpointKeeper:
    return CheckpointKeeper.open(folder / "kept.db")


def test_checkpoints_are_kept_as_the_log_grows(
    peer: Ledger, keeper: CheckpointKeeper, folder: Path
) -> None:
    assert keeper.latest(ORIGIN) is None
    keeper.keep(ORIGIN, peer.checkpoint(3), verifier=OWN)
    keeper.keep(ORIGIN, peer.checkpoint(6), verifier=OWN.encode(), proof=peer.consistency_proof(3))
    keeper.keep(ORIGIN, peer.checkpoint(6), verifier=OWN)
    keeper.close()
    again = CheckpointKeeper.open(folder / "kept.db")
    assert again.latest(ORIGIN) == peer.checkpoint()
    assert again.all(ORIGIN) == [peer.checkpoint(3), peer.checkpoint(6)]
    assert peer.verify(again.latest(ORIGIN)) == []


def test_a_later_checkpoint_needs_its_proof(peer: Ledger, keeper: CheckpointKeeper) -> None:
    keeper.keep(ORIGIN, peer.checkpoint(3), verifier=OWN)
    with pytest.raises(LedgerError, match="consistency proof from 3 to 6"):
        keeper.keep(ORIGIN, peer.checkpoint(6), verifier=OWN)
    with pytest.raises(LedgerTamperedError, match="not proved"):
        keeper.keep(ORIGIN, peer.checkpoint(6), verifier=OWN, proof=peer.consistency_proof(2))
    assert keeper.latest(ORIGIN) == peer.checkpoint(3)


def test_an_earlier_checkpoint_is_a_rollback_unless_proved_otherwise(
    peer: Ledger, keeper: CheckpointKeeper
) -> None:
    keeper.keep(ORIGIN, peer.checkpoint(6), verifier=OWN)
    with pytest.raises(LedgerError, match="rolled back") as raised:
        keeper.keep(ORIGIN, peer.checkpoint(4), verifier=OWN)
    assert not isinstance(raised.value, LedgerTamperedError)  # the proof may still come
    keeper.keep(ORIGIN, peer.checkpoint(4), verifier=OWN, proof=peer.consistency_proof(4, 6))
    assert keeper.latest(ORIGIN) == peer.checkpoint(6)
    assert keeper.all() == [peer.checkpoint(4), peer.checkpoint(6)]


def test_no_ledger_is_empty(keeper: CheckpointKeeper) -> None:
    """Every log extends an empty one: whoever kept that would ask for nothing ever after."""
    empty = Checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT).sign(KEY)
    with pytest.raises(LedgerTamperedError, match="0 entries"):
        keeper.keep(ORIGIN, empty, verifier=OWN)
    assert keeper.sizes([ORIGIN]) == {}


def test_a_fork_is_found(peer: Ledger, keeper: CheckpointKeeper, folder: Path) -> None:
    fork = create(folder / "fork.db")
    fork.set_budget(RECORDS, Decimal(9), DELTA, who="officer", why="another history")
    for round_ in range(6):
        fork.charge(request_for(round_))
    keeper.keep(ORIGIN, peer.checkpoint(6), verifier=OWN)
    with pytest.raises(LedgerTamperedError, match="forked"):
        keeper.keep(ORIGIN, fork.checkpoint(6), verifier=OWN)
    with pytest.raises(LedgerTamperedError, match="not proved"):
        keeper.keep(ORIGIN, fork.checkpoint(8), verifier=OWN, proof=fork.consistency_proof(6))


def test_only_the_pinned_key_and_the_named_ledger_count(
    peer: Ledger, keeper: CheckpointKeeper
) -> None:
    with pytest.raises(LedgerTamperedError, match="no signature by key"):
        keeper.keep(ORIGIN, peer.checkpoint(), verifier=Verifier.of(ORIGIN, OTHER_KEY))
    with pytest.raises(LedgerTamperedError, match="was given for the ledger"):
        keeper.keep("privagg.ledger/hospital-b", peer.checkpoint(), verifier=OWN)
    assert keeper.all() == []


def test_many_ledgers_are_kept_at_once_each_by_its_own_memory(
    keeper: CheckpointKeeper, folder: Path
) -> None:
    ledgers = {}
    for number in range(5):
        name = f"hospital-{number}"
        ledgers[ORIGIN_PREFIX + name] = ledger = create(folder / f"{name}.db", owner=name)
        for step in range(number):
            ledger.set_budget(RECORDS, Decimal(9 + step), DELTA, who="officer", why="approved")
    first = [
        Shown(origin, ledger.checkpoint(1), Verifier.of(origin, KEY))
        for origin, ledger in ledgers.items()
    ]
    assert keeper.keep_all(first) == {}
    assert keeper.sizes(ledgers) == dict.fromkeys(ledgers, 1)
    grown = [
        Shown(
            origin,
            ledger.checkpoint(),
            Verifier.of(origin, OTHER_KEY if origin.endswith("4") else KEY),
            {} if len(ledger) < 3 else {1: ledger.consistency_proof(1)},
            (7,) if origin.endswith("3") else (1,),
        )
        for origin, ledger in ledgers.items()
    ]
    problems = keeper.keep_all(grown)
    assert {origin[-1]: str(error).split(";")[0][:28] for origin, error in problems.items()} == {
        "1": "a consistency proof from 1 t",
        "3": "no checkpoint of 7 entries o",
        "4": "no signature by key 'privagg",
    }
    sizes = {origin[-1]: size for origin, size in keeper.sizes(ledgers).items()}
    assert sizes == {"0": 1, "1": 1, "2": 3, "3": 1, "4": 1}
    assert keeper.sizes(["privagg.ledger/unknown"]) == {}


def test_what_was_kept_in_the_meantime_waits_for_a_checkpoint_that_extends_both(
    peer: Ledger, keeper: CheckpointKeeper, folder: Path
) -> None:
    """Two rounds overlap: each was told of 2 entries, and only a third one can be told of both."""
    keeper.keep(ORIGIN, peer.checkpoint(2), verifier=OWN)
    for size in (5, 3):
        proofs = {2: peer.consistency_proof(2, size)}
        assert keeper.keep_all([Shown(ORIGIN, peer.checkpoint(size), OWN, proofs, (2,))]) == {}
    assert keeper.heads([ORIGIN]) == {ORIGIN: (3, 5)}
    one = {5: peer.consistency_proof(5, 6)}
    problems = keeper.keep_all([Shown(ORIGIN, peer.checkpoint(6), OWN, one)])
    assert "from 3 to 6" in str(problems[ORIGIN])
    both = {**one, 3: peer.consistency_proof(3, 6)}
    assert keeper.keep_all([Shown(ORIGIN, peer.checkpoint(6), OWN, both)]) == {}
    assert keeper.heads([ORIGIN]) == {ORIGIN: (6,)}
    late = {6: peer.consistency_proof(4, 6)}
    assert keeper.keep_all([Shown(ORIGIN, peer.checkpoint(4), OWN, late, (6,))]) == {}
    assert keeper.heads([ORIGIN]) == {ORIGIN: (6,)}


def test_a_contradiction_is_named_though_another_proof_is_missing(
    peer: Ledger, keeper: CheckpointKeeper, folder: Path
) -> None:
    """Or who left one proof out could show a second history and be waited for."""
    fork = create(folder / "fork.db")
    for step in range(8):
        fork.set_budget(RECORDS, Decimal(9 + step), DELTA, who="officer", why="another history")
    keeper.keep(ORIGIN, peer.checkpoint(2), verifier=OWN)
    for size in (5, 3):
        proofs = {2: peer.consistency_proof(2, size)}
        assert keeper.keep_all([Shown(ORIGIN, peer.checkpoint(size), OWN, proofs, (2,))]) == {}
    shown = Shown(ORIGIN, fork.checkpoint(), OWN, {5: fork.consistency_proof(5)})
    assert isinstance(keeper.keep_all([shown])[ORIGIN], LedgerTamperedError)


def test_of_what_was_kept_by_an_earlier_version_the_largest_is_to_be_extended(
    peer: Ledger, keeper: CheckpointKeeper, folder: Path
) -> None:
    keeper.keep(ORIGIN, peer.checkpoint(2), verifier=OWN)
    keeper.keep(ORIGIN, peer.checkpoint(5), verifier=OWN, proof=peer.consistency_proof(2, 5))
    keeper.close()
    with closing(sqlite3.connect(folder / "kept.db")) as database:
        database.execute("DROP TABLE ledger_kept_extended")
    again = CheckpointKeeper.open(folder / "kept.db")
    assert again.heads([ORIGIN]) == {ORIGIN: (5,)}
    assert again.all() == [peer.checkpoint(2), peer.checkpoint(5)]


def test_no_more_branches_wait_than_a_message_holds(peer: Ledger, keeper: CheckpointKeeper) -> None:
    for step in range(20):
        peer.set_budget(RECORDS, Decimal(9 + step), DELTA, who="officer", why="approved")
    waiting = [Shown(ORIGIN, peer.checkpoint(size), OWN, {}, ()) for size in range(2, 12)]
    assert "too many" in str(keeper.keep_all(waiting)[ORIGIN])
    assert keeper.heads([ORIGIN]) == {ORIGIN: tuple(range(2, 2 + MAX_BRANCHES))}


@pytest.mark.parametrize("since", [None, (3,)])
def test_what_is_shown_twice_is_held_against_what_was_kept_a_moment_before(
    peer: Ledger, keeper: CheckpointKeeper, folder: Path, since: tuple[int, ...] | None
) -> None:
    fork = create(folder / "fork.db")
    for step in range(5):
        fork.set_budget(RECORDS, Decimal(9 + step), DELTA, who="officer", why="another history")
    keeper.keep(ORIGIN, peer.checkpoint(3), verifier=OWN)
    true = Shown(ORIGIN, peer.checkpoint(6), OWN, {3: peer.consistency_proof(3)}, since)
    false = Shown(ORIGIN, fork.checkpoint(6), OWN, {3: fork.consistency_proof(3)}, since)
    problems = keeper.keep_all([true, true, false])
    assert isinstance(problems[ORIGIN], LedgerTamperedError)
    assert "forked" in str(problems[ORIGIN])
    assert keeper.all() == [peer.checkpoint(3), peer.checkpoint(6)]


def test_more_ledgers_than_one_statement_takes_are_found(
    keeper: CheckpointKeeper, peer: Ledger
) -> None:
    keeper.keep(ORIGIN, peer.checkpoint(), verifier=OWN)
    names = [f"privagg.ledger/site-{number}" for number in range(1000)]
    assert keeper.sizes([*names, ORIGIN]) == {ORIGIN: 6}


def test_a_ledger_keeps_its_peers_checkpoints_itself(ledger: Ledger, peer: Ledger) -> None:
    ledger.keeper.keep(ORIGIN, peer.checkpoint(3), verifier=OWN)
    ledger.keeper.keep(ORIGIN, peer.checkpoint(), verifier=OWN, proof=peer.consistency_proof(3))
    assert ledger.keeper.latest(ORIGIN) == peer.checkpoint()
    assert len(ledger) == 2


def test_proofs_and_checkpoints_outside_the_log_are_refused(peer: Ledger) -> None:
    with pytest.raises(LedgerError, match="no checkpoint of size"):
        peer.checkpoint(7)
    with pytest.raises(LedgerError, match="has 6 entries"):
        peer.inclusion_proof(0, 7)
    with pytest.raises(LedgerError, match="no entry 6"):
        peer.inclusion_proof(6)
    with pytest.raises(LedgerError, match="no consistency proof"):
        peer.consistency_proof(0)
