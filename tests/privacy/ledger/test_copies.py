"""Export, backup, restoring, new versions of the tables, new keys."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.errors import LedgerError, LedgerTamperedError, ReceiptError
from privagg.privacy.accountants import RdpAccountant
from privagg.privacy.ledger import Bundle, Ledger, Verifier, schema
from privagg.privacy.ledger.replay import HISTORY_UNVERIFIABLE
from tests.privacy.ledger.conftest import (
    DELTA,
    KEY,
    OTHER_KEY,
    RECORDS,
    clock,
    create,
    reopened,
    request_for,
)

ORIGIN = "privagg.ledger/hospital-a"
OWN, OTHER = Verifier.of(ORIGIN, KEY), Verifier.of(ORIGIN, OTHER_KEY)
THIRD_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture
def used(ledger: Ledger) -> Ledger:
    """Two rounds, the first of them uploaded."""
    for round_ in range(2):
        receipt = ledger.charge(request_for(round_))
        ledger.consume(receipt)
    ledger.store_upload(ledger.charge(request_for(0)), b"upload")
    return ledger


def restored(
    source: Path, location: Path, key: Ed25519PrivateKey = KEY, checkpoints: Sequence[str] = ()
) -> Ledger:
    return Ledger.restore(
        source,
        location,
        signing_key=key,
        checkpoints=checkpoints,
        who="officer",
        why="disk failed",
        accountant=RdpAccountant(),
        clock=clock,
    )


def test_a_bundle_says_what_the_ledger_says(used: Ledger, folder: Path) -> None:
    file = folder / "bundle.jsonl"
    used.export(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    bundle = Bundle.read(file)
    assert bundle == used.bundle()
    assert bundle.verify(verifier=OWN) == [HISTORY_UNVERIFIABLE]
    findings = bundle.verify(
        verifier=OWN, checkpoint=used.checkpoint(3), accountant=RdpAccountant()
    )
    assert findings == []
    replayed = bundle.replay()
    assert replayed.accounts[RECORDS].charges == 2
    assert replayed.roots[-1] == used.root()
    assert replayed.owner == "hospital-a"


def test_copies_overwrite_nothing(used: Ledger, folder: Path) -> None:
    file = folder / "there"
    file.write_text("precious")
    for copy in (used.export, used.backup):
        with pytest.raises(LedgerError, match="exists already"):
            copy(file)
    with pytest.raises(LedgerError, match="cannot write"):
        used.export(folder / "no such folder" / "bundle")
    assert file.read_text() == "precious"
    with pytest.raises(LedgerError, match="cannot read"):
        Bundle.read(folder / "absent")


def test_a_backup_is_the_whole_log(used: Ledger, folder: Path) -> None:
    file = folder / "backup.db"
    used.backup(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(found.name for found in folder.glob("backup*")) == ["backup.db"]
    copy = restored(file, folder / "new.db")
    assert copy.verify(used.checkpoint()) == []
    assert copy.stored_upload("run", 0, 0) is None  # the state of a round is not restored
    assert [entry.kind for entry in copy.entries()][len(used) :] == ["restored"]
    # Receipts, used ones and unused ones, keep their meaning.
    assert copy.charge(request_for(1)) == used.charge(request_for(1))
    with pytest.raises(ReceiptError, match="used before"):
        copy.consume(used.charge(request_for(1)))
    following = copy.charge(request_for(2))
    assert following.charge.epsilon_before == used.spent(RECORDS).epsilon.upper


def test_a_bundle_restores_all_but_the_uploads(used: Ledger, folder: Path) -> None:
    used.export(folder / "bundle.jsonl")
    copy = restored(folder / "bundle.jsonl", folder / "new.db")
    assert copy.verify(used.checkpoint()) == []
    assert copy.stored_upload("run", 0, 0) is None
    assert copy.charge(request_for(0)) == used.charge(request_for(0))
    assert copy.charge(request_for(2)).charge.epsilon_before == used.spent(RECORDS).epsilon.upper


def test_going_on_from_an_old_copy_is_found_by_whoever_kept_a_checkpoint(
    used: Ledger, folder: Path
) -> None:
    used.backup(folder / "old.db")
    used.charge(request_for(2))
    kept = used.checkpoint()
    copy = restored(folder / "old.db", folder / "new.db")
    copy.charge(request_for(7))
    with pytest.raises(LedgerTamperedError, match="forked"):
        copy.verify(kept)


def test_a_copy_that_lacks_what_others_saw_is_not_restored(used: Ledger, folder: Path) -> None:
    used.backup(folder / "old.db")
    before = used.checkpoint()
    used.charge(request_for(2))
    with pytest.raises(LedgerTamperedError, match="rolled back"):
        restored(folder / "old.db", folder / "new.db", checkpoints=[before, used.checkpoint()])
    assert len(restored(folder / "old.db", folder / "new.db", checkpoints=[before])) == 8


def test_a_copy_is_restored_by_its_key_into_an_empty_place_only(used: Ledger, folder: Path) -> None:
    used.backup(folder / "backup.db")
    used.export(folder / "bundle.jsonl")
    for source in (folder / "backup.db", folder / "bundle.jsonl"):
        with pytest.raises(LedgerError, match="signed by key"):
            restored(source, folder / "new.db", key=OTHER_KEY)
    existing = create(folder / "existing.db", key=KEY)
    with pytest.raises(LedgerError, match="already"):
        restored(folder / "backup.db", folder / "existing.db")
    assert len(existing) == 1
    with pytest.raises(LedgerError, match="cannot read"):
        restored(folder / "absent", folder / "new.db")
    # What failed left nothing behind that would stand in the way.
    assert restored(folder / "backup.db", folder / "new.db").verify() == [HISTORY_UNVERIFIABLE]


def test_an_edited_copy_is_not_restored(used: Ledger, folder: Path) -> None:
    used.export(folder / "bundle.jsonl")
    text = (folder / "bundle.jsonl").read_text().replace('"epsilon":"8"', '"epsilon":"80"')
    (folder / "edited.jsonl").write_text(text)
    with pytest.raises(LedgerTamperedError):
        restored(folder / "edited.jsonl", folder / "new.db")
    used.backup(folder / "backup.db")
    with closing(sqlite3.connect(folder / "backup.db")) as connection:
        connection.execute("DROP TRIGGER ledger_entries_no_update")
        connection.execute(
            "UPDATE ledger_entries SET subject = subject || ' ' WHERE kind = 'consumed'"
        )
        connection.commit()
    with pytest.raises(LedgerTamperedError):
        restored(folder / "backup.db", folder / "new.db")


def test_a_rotated_key_signs_on_and_the_old_one_no_more(
    used: Ledger, again: Callable[[], Ledger], location: Path | str
) -> None:
    early = used.charge(request_for(0))
    unused = used.charge(request_for(2))
    stale = again()
    used.rotate_key(OTHER_KEY, who="officer", why="yearly")
    with pytest.raises(LedgerError, match="signed by key"):
        stale.charge(request_for(3))
    with pytest.raises(LedgerError, match="signed by key"):
        again()
    later = used.charge(request_for(3))
    renewed = reopened(location, key=OTHER_KEY)
    assert renewed.charge(request_for(3)) == later
    assert renewed.charge(request_for(0)) == early
    assert renewed.consume(unused).kind == "consumed"
    later.check(OTHER)
    early.check(OWN)
    with pytest.raises(ReceiptError):
        later.check(OWN)
    assert renewed.verify(early.checkpoint) == []
    renewed.close()


def test_the_rotating_checkpoint_needs_both_signatures(used: Ledger) -> None:
    used.rotate_key(OTHER_KEY, who="officer", why="yearly")
    used.charge(request_for(2))
    used.rotate_key(THIRD_KEY, who="officer", why="lost laptop")
    bundle = used.bundle()
    for verifier in (OWN, OTHER, Verifier.of(ORIGIN, THIRD_KEY)):
        assert bundle.verify(verifier=verifier) == [HISTORY_UNVERIFIABLE]
    rotations = [n for n, note in enumerate(bundle.notes) if note.count("\n— ") == 2]
    assert len(rotations) == 2
    for place in rotations:
        text, old, new = bundle.notes[place].split("— ")
        for left in (old, new):  # neither a stolen new key nor the old one alone rotates
            notes = (*bundle.notes[:place], f"{text}— {left}", *bundle.notes[place + 1 :])
            with pytest.raises(LedgerTamperedError, match="no signature by key"):
                Bundle(bundle.bodies, notes).verify()


def test_a_thief_of_the_old_key_cannot_take_over_after_rotation(used: Ledger) -> None:
    used.rotate_key(OTHER_KEY, who="officer", why="key was stolen")
    with pytest.raises(LedgerError, match="present key"):
        used.rotate_key(OTHER_KEY, who="officer", why="again")


def schema_1(path: Path) -> None:
    path.touch(0o600)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((VECTORS / "schema-1.sql").read_text())
        connection.execute("PRAGMA journal_mode=WAL")


def test_a_ledger_of_schema_1_is_brought_up_to_date(path: Path) -> None:
    schema_1(path)
    with pytest.raises(LedgerError, match="open it once with its signing key"):
        Ledger.open(path)
    ledger = reopened(path)
    assert ledger.verify() == [HISTORY_UNVERIFIABLE]
    assert ledger.spent(RECORDS).charges == 3
    assert ledger.stored_upload("run", 1, 0) == b"upload 1"
    # What is new in schemas 2 and 3 works, and is protected.
    assert ledger.keeper.latest("privagg.ledger/peer") is None
    assert ledger.keeper.heads(["privagg.ledger/peer"]) == {}
    assert (
        ledger.charge(request_for(3)).charge.epsilon_before
        == ledger.history(RECORDS)[2].epsilon_after
    )
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        (version,) = connection.execute(
            "SELECT value FROM ledger_meta WHERE name = 'schema_version'"
        ).fetchone()
    assert {"ledger_kept", "ledger_kept_no_update", "ledger_kept_no_delete"} <= names
    assert {"ledger_kept_extended", "ledger_kept_extended_no_delete"} <= names
    assert version == str(schema.SCHEMA_VERSION)


def test_a_ledger_from_the_future_is_left_alone(path: Path) -> None:
    create(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE ledger_meta SET value = '99' WHERE name = 'schema_version'")
        connection.commit()
    with pytest.raises(LedgerError, match="schema version 99"):
        reopened(path)


def test_the_ledger_moves_between_databases(used: Ledger, folder: Path) -> None:
    used.backup(folder / "backup.db")
    copy = restored(folder / "backup.db", folder / "moved.db")
    copy.set_budget(RECORDS, Decimal(9), DELTA, who="officer", why="moved")
    assert copy.spent(RECORDS).event == used.spent(RECORDS).event
