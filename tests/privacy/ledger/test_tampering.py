"""Whoever can write the file but lacks the key changes nothing unnoticed; nor does the key's owner,
once somebody else has kept a checkpoint.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.accountants import CertifiedAccountant, RdpAccountant
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import Bundle, Ledger, Verifier
from privagg.privacy.ledger.checkpoint import Checkpoint
from privagg.privacy.ledger.entries import payload_of
from privagg.privacy.ledger.replay import HISTORY_UNVERIFIABLE, KEY_UNVERIFIABLE
from privagg.privacy.ledger.schema import APPEND_ONLY, WRITE_ONCE
from tests.privacy.ledger.conftest import DELTA, KEY, OTHER_KEY, RECORDS, clock, request_for

ORIGIN = "privagg.ledger/hospital-a"
OWN = Verifier.of(ORIGIN, KEY)
TABLES = [
    *("ledger_meta", "ledger_entries", "ledger_nodes", "ledger_checkpoints", "ledger_tree"),
    *("ledger_accounts", "ledger_uploads", "ledger_kept", "ledger_kept_extended"),
]


def fill(path: Path, *, key=KEY, rounds: int = 3) -> Ledger:
    ledger = Ledger.create(
        path, "hospital-a", signing_key=key, accountant=RdpAccountant(), clock=clock
    )
    ledger.set_budget(RECORDS, Decimal(8), DELTA, who="officer", why="approved")
    for round_ in range(rounds):
        receipt = ledger.charge(request_for(round_))
        ledger.consume(receipt)
        if round_ == 0:
            ledger.store_upload(receipt, b"the bytes that were sent")
    return ledger


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ledger with a peer's checkpoint, its log folded into the one file."""
    folder = tmp_path_factory.mktemp("honest")
    ledger = fill(folder / "ledger.db")
    peer = fill(folder / "peer.db", key=OTHER_KEY, rounds=1)
    other, proof = Verifier.of(ORIGIN, OTHER_KEY), peer.consistency_proof(2)
    ledger.keeper.keep(ORIGIN, peer.checkpoint(2), verifier=other)
    ledger.keeper.keep(ORIGIN, peer.checkpoint(), verifier=other, proof=proof)
    ledger.close()
    with closing(sqlite3.connect(folder / "ledger.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(folder / "copy.db"),))
    return folder / "copy.db"


def read(path: Path) -> Ledger:
    return Ledger.open(path, verifier=OWN, accountant=RdpAccountant())


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in TABLES
        }


def unlocked(path: Path) -> sqlite3.Connection:
    """The database without its triggers: what an attacker with the file starts from."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    names = connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall()
    for (name,) in names:
        connection.execute(f"DROP TRIGGER {name}")
    return connection


def test_an_honest_ledger_verifies(honest: Path) -> None:
    ledger = read(honest)
    assert ledger.verify() == [HISTORY_UNVERIFIABLE]
    assert ledger.verify(ledger.checkpoint(4)) == []
    assert Ledger.open(honest, accountant=RdpAccountant()).verify() == [
        KEY_UNVERIFIABLE,
        HISTORY_UNVERIFIABLE,
    ]


@pytest.mark.parametrize("table", [table.name for table in (*APPEND_ONLY, *WRITE_ONCE)])
def test_the_database_itself_refuses_to_rewrite(honest: Path, folder: Path, table: str) -> None:
    path = folder / "ledger.db"
    shutil.copy(honest, path)
    with closing(sqlite3.connect(path)) as connection:
        column = connection.execute(f"SELECT * FROM {table}").description[-1][0]
        statements = [f"UPDATE {table} SET {column} = {column}"]
        if table != "ledger_uploads":
            statements += [
                f"DELETE FROM {table}",
                f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
            ]
        for statement in statements:
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


def test_missing_triggers_are_reported(honest: Path, folder: Path) -> None:
    path = folder / "ledger.db"
    shutil.copy(honest, path)
    with closing(unlocked(path)):
        pass
    findings = read(path).verify()
    assert any("ledger_entries_no_update is missing" in finding for finding in findings)


def mutate(rng: np.random.Generator, value: object) -> object:
    """One random edit of a database value, never to itself."""
    if isinstance(value, int):
        return value + int(rng.choice([-1, 1, 256]))
    assert value is None or isinstance(value, (str, bytes))
    data = value.encode() if isinstance(value, str) else bytes(value or b"")
    place = int(rng.integers(len(data))) if data else 0
    style = rng.integers(3) if data else 1
    if style == 0:
        changed = data[:place] + bytes([data[place] ^ (1 << int(rng.integers(7)))])
        changed += data[place + 1 :]
    elif style == 1:
        changed = data[:place] + bytes([int(rng.integers(32, 127))]) + data[place:]
    else:
        changed = data[:place] + data[place + 1 :]
    return (
        changed.decode("utf-8", "replace") if isinstance(value, str) or value is None else changed
    )


def edit(rng: np.random.Generator, connection: sqlite3.Connection) -> str:
    """One random edit: a value, a deleted row, two rows' contents swapped, a truncation."""
    table = str(rng.choice(TABLES))
    rows = connection.execute(f"SELECT * FROM {table}").fetchall()
    names = [item[0] for item in connection.execute(f"SELECT * FROM {table}").description]
    style = rng.integers(6)
    row = rows[int(rng.integers(len(rows)))]
    where = " AND ".join(f"{name} IS ?" for name in names)
    if style == 0 and not table.startswith(("ledger_uploads", "ledger_kept")):
        connection.execute(f"DELETE FROM {table} WHERE {where}", row)
        return f"delete {table} {row[:2]}"
    if style == 1 and table in ("ledger_entries", "ledger_nodes", "ledger_checkpoints"):
        column = names[-1]
        other = rows[int(rng.integers(len(rows)))]
        for one, two in ((row, other), (other, row)):
            condition = " AND ".join(f"{name} IS ?" for name in names[:-1])
            connection.execute(
                f"UPDATE {table} SET {column} = ? WHERE {condition}", (two[-1], *one[:-1])
            )
        return f"swap {table} {row[:2]} {other[:2]}"
    if style == 2:
        size = int(rng.integers(1, len(rows) + 1))
        connection.execute("DELETE FROM ledger_entries WHERE idx >= ?", (size,))
        connection.execute("DELETE FROM ledger_checkpoints WHERE size > ?", (size,))
        return f"truncate to {size}"
    column = int(rng.integers(len(names)))
    changed = mutate(rng, row[column])
    connection.execute(
        f"UPDATE OR REPLACE {table} SET {names[column]} = ? WHERE {where}", (changed, *row)
    )
    return f"edit {table}.{names[column]}: {row[column]!r} -> {changed!r}"


def test_none_of_250_random_edits_of_the_database_is_missed(honest: Path, folder: Path) -> None:
    rng = np.random.default_rng(20260102)
    before = contents(honest)
    checked = 0
    for number in range(250):
        path = folder / f"{number}.db"
        shutil.copy(honest, path)
        with closing(unlocked(path)) as connection:
            described = edit(rng, connection)
        if contents(path) == before:
            continue
        checked += 1
        with pytest.raises(LedgerError):
            ledger = read(path)
            try:
                findings = ledger.verify()
            finally:
                ledger.close()
            pytest.fail(f"edit {number} was missed: {described}; found {findings}")
        path.unlink()
    assert checked > 200


def test_a_flipped_byte_of_the_file_is_found_or_changes_nothing(honest: Path, folder: Path) -> None:
    rng = np.random.default_rng(7)
    before = contents(honest)
    image = honest.read_bytes()
    used = np.flatnonzero(np.frombuffer(image, dtype=np.uint8))  # most of the pages is room
    found = 0
    for number in range(100):
        place = int(rng.choice(used) if number % 2 else rng.integers(len(image)))
        flipped = image[:place] + bytes([image[place] ^ (1 << int(rng.integers(8)))])
        path = folder / f"{number}.db"
        path.write_bytes(flipped + image[place + 1 :])
        try:
            ledger = read(path)
            try:
                ledger.verify()
            finally:
                ledger.close()
        except LedgerError:
            found += 1
        else:
            assert contents(path) == before, f"the byte at {place} was missed"
        path.unlink()
    assert found > 10


@pytest.fixture(scope="module")
def lines(honest: Path) -> list[bytes]:
    return list(read(honest).bundle().to_bytes())


def verify(data: bytes) -> None:
    Bundle.parse(data).verify(verifier=OWN, accountant=RdpAccountant())


def test_every_single_bit_position_of_an_entry_and_its_checkpoint_counts(
    lines: list[bytes],
) -> None:
    # One charge and one checkpoint, every byte, one bit each; then 600 places anywhere.
    rng = np.random.default_rng(11)
    data = b"".join(lines)
    starts = np.cumsum([0, *map(len, lines)])
    charge = range(starts[3], starts[4])
    checkpoint = range(starts[-2], starts[-1])
    places = [*charge, *checkpoint, *rng.integers(0, len(data), 600)]
    verify(data)
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(LedgerTamperedError):
            verify(bytes(flipped))


def test_deleted_swapped_repeated_and_cut_lines_are_found(lines: list[bytes]) -> None:
    for place in range(len(lines)):
        for changed in (
            lines[:place] + lines[place + 1 :],
            lines[: place + 1] + lines[place:],
            lines[:place] + lines[place + 1 : place + 2] + lines[place : place + 1]
            + lines[place + 2 :],
            lines[:place],
        ):  # fmt: skip
            if changed != lines:
                with pytest.raises(LedgerTamperedError):
                    verify(b"".join(changed))


def test_a_swapped_key_is_found(folder: Path) -> None:
    forged = fill(folder / "forged.db", key=OTHER_KEY)
    assert HISTORY_UNVERIFIABLE in forged.verify()
    with pytest.raises(LedgerTamperedError, match="key was swapped"):
        forged.bundle().verify(verifier=OWN)
    with pytest.raises(LedgerError, match="signed by key"):
        read(folder / "forged.db")


def test_a_rollback_passes_only_where_nobody_kept_a_checkpoint(folder: Path) -> None:
    ledger = fill(folder / "ledger.db", rounds=1)
    ledger.backup(folder / "old.db")
    ledger.charge(request_for(1))
    kept = ledger.checkpoint()
    rolled_back = read(folder / "old.db")
    assert rolled_back.verify() == [HISTORY_UNVERIFIABLE]
    with pytest.raises(LedgerTamperedError, match="rolled back"):
        rolled_back.verify(kept)
    with pytest.raises(LedgerTamperedError, match="rolled back"):
        rolled_back.bundle().verify(verifier=OWN, checkpoint=kept)


def test_a_fork_by_the_keys_owner_is_found_by_a_kept_checkpoint(folder: Path) -> None:
    ledger = fill(folder / "ledger.db", rounds=1)
    kept = ledger.checkpoint()
    fork = Ledger.create(
        folder / "fork.db",
        "hospital-a",
        signing_key=KEY,
        accountant=RdpAccountant(),
        clock=clock,
    )
    fork.set_budget(RECORDS, Decimal(100), DELTA, who="officer", why="approved")
    for round_ in range(5):
        fork.charge(request_for(round_))
    assert fork.verify() == [HISTORY_UNVERIFIABLE]
    with pytest.raises(LedgerTamperedError, match="forked"):
        fork.verify(kept)


def test_a_checkpoint_of_another_ledger_or_signer_proves_nothing(folder: Path) -> None:
    ledger = fill(folder / "ledger.db", rounds=1)
    stranger = Ledger.create(folder / "b.db", "hospital-b", signing_key=KEY, clock=clock)
    with pytest.raises(LedgerTamperedError, match="hospital-b"):
        ledger.verify(stranger.checkpoint())
    forged = fill(folder / "forged.db", key=OTHER_KEY, rounds=1)
    with pytest.raises(LedgerTamperedError, match="no signature by key"):
        ledger.verify(forged.checkpoint())


EDITS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "totals": lambda c: c.execute(
        "UPDATE ledger_accounts SET body = replace(body, '\"charges\":3', '\"charges\":1')"
    ),
    "budget": lambda c: c.execute(
        'UPDATE ledger_accounts SET body = replace(body, \'"epsilon_budget":"8"\', '
        '\'"epsilon_budget":"9"\')'
    ),
    "digest": lambda c: c.execute("UPDATE ledger_accounts SET digest = ?", ("0" * 64,)),
    "dropped account": lambda c: c.execute("DELETE FROM ledger_accounts"),
    "last entry": lambda c: c.execute(
        "UPDATE ledger_entries SET body = replace(body, 'run', 'ruN') "
        "WHERE idx = (SELECT MAX(idx) FROM ledger_entries)"
    ),
    "another last entry": lambda c: c.execute(
        "UPDATE ledger_entries SET body = replace(body, '\"round\":2', '\"round\":1') "
        "WHERE idx = (SELECT MAX(idx) FROM ledger_entries)"
    ),
    "another signer": lambda c: c.execute(
        "UPDATE ledger_checkpoints SET note = ? WHERE size = (SELECT MAX(size) FROM ledger_tree)",
        (_signed_by_another(c),),
    ),
    "tree": lambda c: c.execute("UPDATE ledger_tree SET size = size - 1"),
    "a tree of another type": lambda c: c.execute("UPDATE ledger_tree SET frontier = 'text'"),
    "a size of another type": lambda c: c.execute("UPDATE ledger_tree SET size = 'text'"),
    "two trees": lambda c: c.execute(
        "INSERT INTO ledger_tree SELECT id + 1, size, frontier FROM ledger_tree"
    ),
    "totals of another type": lambda c: c.execute("UPDATE ledger_accounts SET body = x'ff'"),
    "last checkpoint": lambda c: c.execute(
        "DELETE FROM ledger_checkpoints WHERE size = (SELECT MAX(size) FROM ledger_checkpoints)"
    ),
}


def _signed_by_another(connection: sqlite3.Connection) -> str:
    """The last checkpoint, word for word, under a key that is not the ledger's."""
    query = "SELECT note FROM ledger_checkpoints ORDER BY size DESC LIMIT 1"
    (note,) = connection.execute(query).fetchone()
    return Checkpoint.parse(note).sign(OTHER_KEY)


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_ledger_stops_at_its_next_use_without_a_full_verification(
    honest: Path, folder: Path, name: str
) -> None:
    path = folder / "ledger.db"
    shutil.copy(honest, path)
    with closing(unlocked(path)) as connection:
        EDITS[name](connection)
    with pytest.raises(LedgerTamperedError):
        Ledger.open(path, signing_key=KEY, accountant=RdpAccountant()).charge(request_for(9))


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE ledger_meta SET value = x'ff' WHERE name = 'origin'",
        "UPDATE ledger_nodes SET hash = 'text'",
    ],
)
def test_a_value_of_another_type_is_an_error_with_a_name(
    honest: Path, folder: Path, edit: str
) -> None:
    path = folder / "ledger.db"
    shutil.copy(honest, path)
    with closing(unlocked(path)) as connection:
        connection.execute(edit)
    with pytest.raises(LedgerError):
        read(path).inclusion_proof(0)
    with pytest.raises(LedgerError):
        read(path).verify()


def test_a_replaced_charge_is_found_when_its_receipt_is_used(honest: Path, folder: Path) -> None:
    path = folder / "ledger.db"
    shutil.copy(honest, path)
    ledger = Ledger.open(path, signing_key=KEY, accountant=RdpAccountant())
    ledger.charge(request_for(9))
    ledger.charge(request_for(10))
    with closing(unlocked(path)) as connection:
        connection.execute(
            "UPDATE ledger_entries SET body = replace(body, '\"round\":9', '\"round\":8') "
            "WHERE body LIKE '%\"round\":9%'"
        )
    with pytest.raises(LedgerTamperedError):
        ledger.charge(request_for(9))


class Flattering(RdpAccountant):
    """Claims the name of the honest accountant, and halves the figures of one round."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """Half of what it is where the event has as many rounds."""
        bound = super().epsilon(event, delta)
        if sum(term.count for term in event.terms) != self._rounds:
            return bound
        return EpsilonBound(bound.upper / 2, None, bound.method, certified=False)


@pytest.mark.parametrize("flattered", [1, 3])
def test_a_figure_below_what_the_events_cost_is_found(folder: Path, flattered: int) -> None:
    ledger = Ledger.create(
        folder / "ledger.db",
        "hospital-a",
        signing_key=KEY,
        accountant=Flattering(flattered),
        clock=clock,
    )
    ledger.set_budget(RECORDS, Decimal(8), DELTA, who="officer", why="approved")
    for round_ in range(3):
        ledger.charge(request_for(round_))
    honest = RdpAccountant()
    bundle = ledger.bundle()
    with pytest.raises(LedgerTamperedError, match="its events cost"):
        bundle.verify(verifier=OWN, accountant=honest, every_charge=True)
    if flattered == 3:
        with pytest.raises(LedgerTamperedError, match="its events cost"):
            read(folder / "ledger.db").verify()
    else:
        assert bundle.verify(verifier=OWN, accountant=honest) == [HISTORY_UNVERIFIABLE]
    others = bundle.verify(verifier=OWN, accountant=CertifiedAccountant())
    assert others[-1].endswith("was bounded by 'rdp' and not recomputed by 'certified'")


def test_an_upload_that_was_never_logged_is_found(honest: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(honest, tmp_path / "ledger.db"))
    with closing(sqlite3.connect(path)) as connection, connection:
        (logged,) = connection.execute("SELECT subject FROM ledger_uploads").fetchone()
        other = logged.replace(",0,", ",1,", 1)
        assert other != logged
        connection.execute("INSERT INTO ledger_uploads VALUES (?, 'run', x'00')", (other,))
    ledger = read(path)
    assert ledger.stored_upload("run", 0, 0) is not None
    with pytest.raises(LedgerTamperedError, match="not the one that was logged"):
        ledger.stored_upload("run", 1, 0)


def test_an_upload_for_another_attempt_than_the_one_charged_is_found(folder: Path) -> None:
    """The writer never writes it; an owner who writes by hand could hide an uncharged round."""
    ledger = fill(folder / "ledger.db")
    charged = next(entry for entry in ledger.entries() if entry.kind == "charge")
    facts = {"run": "run", "round": 9, "attempt": 0, "charge": charged.index}
    upload = payload_of("upload", {**facts, "sha256": "00" * 32, "length_bytes": 1})
    with ledger._writing() as (connection, head):
        ledger._append(connection, head, upload)
    with pytest.raises(LedgerTamperedError, match="never trained"):
        ledger.bundle().replay()
