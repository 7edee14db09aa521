"""What lies as it lay before party folders is refused by name, and carried over whole."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from privagg.errors import BudgetExceededError, LedgerError
from privagg.federation import Federation
from privagg.party.local import adopt, local_folder, local_ledgers
from privagg.privacy.ledger import BudgetKey, CheckpointKeeper, Ledger
from tests.attacks.test_approval import demo
from tests.commands import call

SITES = ("riverside", "hillcrest", "lakeview")
MINE = BudgetKey("riverside", "record")


def earlier_place(output: Path, party: str, name: str) -> Path:
    """Where a file of a party's folder lay before there were such folders."""
    return (
        output
        / {
            "identity.pem": f"keys/{party}.pem",
            "owner.pem": f"owners/{party}.pem",
            "ledger.sqlite": f"ledgers/{party}.sqlite",
            "ledger.records": f"ledgers/{party}.records",
            "openings.sqlite": f"keyholder/{party}.sqlite",
            "openings-checkpoints.sqlite": f"keyholder/{party}-checkpoints.sqlite",
            "checkpoints.sqlite": "checkpoints.sqlite",
        }[name]
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose one run has spent its budget, laid out as it was earlier."""
    path = demo(tmp_path_factory.mktemp("made"), ("budget_epsilon = 3", "budget_epsilon = 1"))
    for words in (("approve", "--all-sites", "--yes"), ("run",)):
        command = [sys.executable, "-m", "privagg", words[0], str(path), *words[1:]]
        subprocess.run(command, check=True, capture_output=True)
    for folder in (path.parent / "parties").iterdir():
        (folder / "party.toml").unlink()
        shutil.rmtree(folder / "out", ignore_errors=True)  # earlier versions kept none there
        for file in folder.iterdir():
            place = earlier_place(path.parent, folder.name, file.name)
            place.parent.mkdir(exist_ok=True)
            file.rename(place)
        folder.rmdir()
    (path.parent / "parties").rmdir()
    return path


@pytest.fixture
def spent(made: Path, tmp_path: Path) -> Path:
    """The configuration in a copy of that folder."""
    shutil.copytree(made.parent, tmp_path / "out")
    return tmp_path / "out" / made.name


def files_in(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file()
    }


def test_a_budget_spent_under_the_earlier_layout_never_looks_unspent(spent: Path) -> None:
    before = files_in(spent.parent)
    federation = Federation.from_toml(spent)
    asks = (
        lambda: federation.run(),
        lambda: federation.check_ready(),
        lambda: federation.approve(who="Dr. Ito", why="again"),
        lambda: federation.withdraw(who="Dr. Ito", why="again"),
        lambda: local_ledgers(spent.parent),
    )
    for ask in asks:
        with pytest.raises(LedgerError, match=r"ledgers/riverside\.sqlite.*privagg ledger adopt"):
            ask()
    asked = [("run", spent), ("check", spent), ("approve", spent, "--all-sites", "--yes")]
    for words in (*asked, ("report", spent.parent), ("bundle", spent.parent)):
        answer = call(*words)
        assert answer.code == 2
        assert f"privagg ledger adopt {spent.parent}" in answer.err
    assert files_in(spent.parent) == before
    assert call("ledger", "adopt", spent.parent).code == 0
    assert local_ledgers(spent.parent)["riverside"].spent(MINE).charges == 2
    assert call("ledger", "verify", spent.parent / "parties/riverside/ledger.sqlite").code == 0
    with pytest.raises(BudgetExceededError, match="of which earlier runs spent"):
        Federation.from_toml(spent).run()


def test_what_is_carried_over_is_whole_and_nothing_is_left(spent: Path) -> None:
    before, output = files_in(spent.parent), spent.parent
    adopt(output)
    after = files_in(output)
    for party in ("coordinator", "key-holder", *SITES):
        for name in sorted(path.name for path in (output / "parties" / party).iterdir()):
            if name != "party.toml":
                place = earlier_place(output, party, name)
                assert not place.exists()
                if name.endswith((".pem", ".records")):
                    held = before[str(place.relative_to(output))]
                    assert after[f"parties/{party}/{name}"] == held
    assert not any((output / name).exists() for name in ("keys", "owners", "keyholder"))
    assert "parties/<party>/ledger.sqlite" in (output / "ledgers").read_text()
    with pytest.raises(FileExistsError):  # what an earlier version would do first
        (output / "ledgers").mkdir(parents=True, exist_ok=True)
    assert CheckpointKeeper.read(local_folder(output, "key-holder").opener_checkpoints).all()
    assert CheckpointKeeper.read(local_folder(output, "coordinator").checkpoints).all()
    assert adopt(output) == []


def test_what_the_write_ahead_log_holds_comes_along(spent: Path) -> None:
    """A process was killed after it had charged: the charge lies in the log beside the ledger."""
    path = spent.parent / "ledgers" / "riverside.sqlite"
    code = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1])\n"
        "database.execute('PRAGMA journal_mode=WAL')\n"
        "database.execute('CREATE TABLE late (what TEXT)')\n"
        "database.execute(\"INSERT INTO late VALUES ('charge')\")\n"
        "database.commit()\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert path.with_name(path.name + "-wal").stat().st_size > 0
    adopt(spent.parent)
    with closing(sqlite3.connect(local_folder(spent.parent, "riverside").ledger)) as database:
        assert database.execute("SELECT what FROM late").fetchall() == [("charge",)]
    assert not list(spent.parent.rglob("*-wal"))


def test_after_a_kill_at_any_point_it_is_refused_or_whole(
    spent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, charged = os.rename, 0
    total = sum(1 for _ in files_in(spent.parent))

    def killed_after(count: int) -> None:
        left = [count]

        def once(old: Path, new: Path) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            rename(old, new)

        monkeypatch.setattr("privagg.party.local.os.rename", once)

    for _ in range(total):
        killed_after(1)
        try:
            adopt(spent.parent)
        except KeyboardInterrupt:
            with pytest.raises(LedgerError, match="privagg ledger adopt"):
                local_folder(spent.parent, "riverside")
            continue
        charged = local_ledgers(spent.parent)["riverside"].spent(MINE).charges
        break
    assert charged == 2
    assert {*local_ledgers(spent.parent)} == {"coordinator", *SITES}


@pytest.mark.parametrize("damage", [b"no database", None])
def test_a_damaged_ledger_is_told_as_such_and_nothing_is_made(
    spent: Path, damage: bytes | None
) -> None:
    path = spent.parent / "ledgers" / "riverside.sqlite"
    whole = path.read_bytes()
    spoiled = whole[:16384] + b"\xff" * (len(whole) - 16384)  # all pages but the first
    path.write_bytes(spoiled if damage is None else damage)
    before = set(files_in(spent.parent))
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"riverside\.sqlite is damaged.*whole copy") as told:
            adopt(spent.parent)
        assert "end whatever" not in str(told.value)
        assert set(files_in(spent.parent)) == before
        assert not (spent.parent / "parties").exists()
    path.write_bytes(whole)
    adopt(spent.parent)
    assert local_ledgers(spent.parent)["riverside"].spent(MINE).charges == 2


def test_a_ledger_in_use_is_not_moved(spent: Path) -> None:
    path = spent.parent / "ledgers" / "riverside.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match=r"riverside\.sqlite cannot be moved.*end whatever"):
            adopt(spent.parent)
        database.execute("ROLLBACK")
    adopt(spent.parent)
    assert Ledger.open(local_folder(spent.parent, "riverside").ledger).spent(MINE).charges == 2


def test_of_two_ledgers_neither_is_replaced(spent: Path) -> None:
    """Somebody ran an earlier version beside a new one: both hold charges."""
    adopt(spent.parent)
    new = local_folder(spent.parent, "riverside").ledger
    (spent.parent / "ledgers").unlink()  # by hand: it is a file that says where they went
    (spent.parent / "ledgers").mkdir()
    Ledger.open(new).backup(spent.parent / "ledgers" / "riverside.sqlite")
    with pytest.raises(LedgerError, match="both exist, and neither is replaced"):
        adopt(spent.parent)
    with pytest.raises(LedgerError, match="nothing was read or spent"):
        Federation.from_toml(spent).run()
    assert Ledger.open(new).spent(MINE).charges == 2


def test_a_folder_that_cannot_be_looked_into_is_no_empty_one(
    spent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refused(path: object = ".") -> object:
        if Path(str(path)).name == "ledgers":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refused)
    for asked in (Federation.from_toml(spent).run, lambda: adopt(spent.parent)):
        with pytest.raises(LedgerError, match="cannot look into .*ledgers"):
            asked()


@pytest.mark.parametrize("name", ["ledgers", "ledgers/riverside.sqlite", "keys"])
def test_links_are_not_carried_over(spent: Path, name: str, tmp_path: Path) -> None:
    """What a link leads to may be another output folder's too, whose budget would look unspent."""
    place, elsewhere = spent.parent / name, tmp_path / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    before = files_in(spent.parent)
    with pytest.raises(LedgerError, match="is a link.*nothing was moved"):
        adopt(spent.parent)
    assert files_in(spent.parent) == before
    with pytest.raises(LedgerError, match="nothing was read or spent"):
        Federation.from_toml(spent).run()


@pytest.mark.parametrize(
    "left", ["ledgers/riverside.sqlite-wal", "ledgers/riverside.records", "ledgers/A.SQLITE"]
)
def test_whatever_is_left_in_the_earlier_folders_is_looked_at(spent: Path, left: str) -> None:
    for name in ("ledgers", "keyholder", "owners", "keys"):
        shutil.rmtree(spent.parent / name)
    (spent.parent / left).parent.mkdir()
    (spent.parent / left).write_bytes(b"something")
    with pytest.raises(LedgerError, match="nothing was read or spent"):
        Federation.from_toml(spent).check_ready()
