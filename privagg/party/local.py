"""Where a local run keeps its parties: a folder for each, under the run's output folder.

    OUT/parties/<party>/   as on a machine of its own, see `privagg.party.folder`
    OUT/                   what the coordinator makes: models, reports, bundles

Before there were party folders, the same files lay by kind. Whoever finds anything there, or cannot
look, reads nothing and spends nothing: beside a new, empty ledger a spent budget would look whole.
`adopt` carries them over, and leaves a file in the place of their folder: a program of before finds
no room there for a ledger of its own.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from shlex import quote

from privagg.durable import sync_folder, write_whole
from privagg.errors import LedgerError
from privagg.party.folder import PartyFile, PartyFolder
from privagg.privacy.ledger import Ledger
from privagg.protocol.names import COORDINATOR

_PARTIES = "parties"
_EARLIER = (
    ("keys/*.pem", "identity.pem"),
    ("owners/*.pem", "owner.pem"),
    ("ledgers/*.records", "ledger.records"),
    ("checkpoints.sqlite", "checkpoints.sqlite"),
    ("keyholder/*-checkpoints.sqlite", "openings-checkpoints.sqlite"),
    ("keyholder/*.sqlite", "openings.sqlite"),
    ("ledgers/*.sqlite", "ledger.sqlite"),
)
"""Earlier place -> name in the party's folder, in the order in which they are carried over: while
anything is left in one of these folders, nothing is opened."""

_FOLDERS = ("ledgers", "keyholder", "owners", "keys")
_GONE = "ledgers"
_GONE_TEXT = b"The ledgers of this folder lie in parties/<party>/ledger.sqlite.\n"

_SQLITE_BESIDE = ("-wal", "-shm", "-journal")


def local_folder(output: Path, party: str) -> PartyFolder:
    """The folder of a party of a local run; it need not exist yet.

    Args:
        output: the run's output folder.
        party: whose.

    Raises:
        LedgerError: ledgers of the earlier layout lie there; nothing was read or spent.
    """
    _require_adopted(output)
    return PartyFolder(output / _PARTIES / party)


def local_ledgers(output: Path) -> dict[str, Ledger]:
    """The ledgers of a local run by party, open for reading.

    Args:
        output: the run's output folder.

    Raises:
        LedgerError: as `local_folder`, or one cannot be read.
    """
    _require_adopted(output)
    folders = [PartyFolder(path.parent) for path in (output / _PARTIES).glob("*/ledger.sqlite")]
    return {each.root.name: Ledger.open(each.ledger) for each in sorted(folders, key=str)}


def adopt(output: Path) -> list[Path]:
    """Carry what lies under an output folder as it lay before there were party folders over.

    Each file is renamed, durably, once SQLite has nothing beside it any more and while nobody else
    can write to it. So a budget stands in one place at any moment, and after a kill the same call
    carries over what is left.

    Args:
        output: the output folder.

    Returns:
        The new places, in the order of the moves; empty where there was nothing to carry over.

    Raises:
        LedgerError: a file is in use, damaged, cannot be moved, is a link, or lies at its new
            place already; or something else lies there.
    """
    moved, lies = [], _earlier_files(output)
    moves = _moves(output) if lies else []
    _require_movable(output, lies, [old for old, _ in moves])
    for old, _ in moves:  # all of them before the first move, so that none is half carried over
        with _nobody_writes(old):
            pass
    for old, new in moves:
        if new.exists():
            raise LedgerError(
                f"{old} and {new} both exist, and neither is replaced: look with `privagg ledger "
                "show` which one the charges stand in, and move the other away"
            )
        try:
            new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if new.name != "identity.pem":  # keys come first: none is made anew
                PartyFolder.create(new.parent, PartyFile(name=new.parent.name))
            with _nobody_writes(old):
                os.rename(old, new)
            for folder in (new.parent, new.parent.parent, output, old.parent):
                sync_folder(folder)
        except OSError as error:
            raise LedgerError(f"cannot move {old} to {new}: {error.strerror}") from error
        moved.append(new)
    for name in _FOLDERS:
        with suppress(FileNotFoundError, NotADirectoryError):
            (output / name).rmdir()
    if moved:
        write_whole(output / _GONE, _GONE_TEXT)
    return moved


def _require_adopted(output: Path) -> None:
    found = _earlier_files(output)
    if found:
        shown = ", ".join(str(path.relative_to(output)) for path in found[:12])
        raise LedgerError(
            f"ledgers lie in {output} where earlier versions kept them: {shown}. A party now keeps "
            f"its files in {output / _PARTIES}/<party>/, where these budgets would appear unspent; "
            f"nothing was read or spent. Carry them over: privagg ledger adopt {quote(str(output))}"
        )


def _earlier_files(output: Path) -> list[Path]:
    """Everything in the folders of the earlier layout.

    Raises:
        LedgerError: one cannot be looked into; a budget that nobody sees is no budget unspent.
    """
    found: list[Path] = []
    for name in _FOLDERS:
        try:
            with os.scandir(output / name) as entries:
                found += sorted(Path(entry.path) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise LedgerError(
                f"cannot look into {output / name}, where earlier versions kept ledgers and keys: "
                f"{error.strerror}; nothing was read or spent"
            ) from error
    return found


def _require_movable(output: Path, lies: list[Path], known: list[Path]) -> None:
    """Refuse links, which lead to what others may share, and what is none of ours."""
    links = [p for p in (*(output / name for name in _FOLDERS), *lies, *known) if p.is_symlink()]
    if links:
        raise LedgerError(
            f"{links[0]} is a link, and what it leads to may be another folder's too: where it is "
            "not, put the file itself in its place, then try again; nothing was moved"
        )
    beside = {Path(f"{path}{end}") for path in known for end in _SQLITE_BESIDE}
    strange = [path for path in lies if path not in {*known, *beside}]
    if strange:
        raise LedgerError(
            f"{strange[0]} is no file that privagg made there, or lacks the ledger that it belongs "
            "to; find out what it is and move it away, then try again; nothing was moved"
        )


def _moves(output: Path) -> list[tuple[Path, Path]]:
    """(place, new place) of every file of the earlier layout, in order."""
    moves: dict[Path, Path] = {}
    for pattern, name in _EARLIER:
        for path in sorted(output.glob(pattern)):
            _, star, end = pattern.rpartition("*")
            party = path.name.removesuffix(end) if star else COORDINATOR
            if end.startswith("-") and not path.with_name(f"{party}.sqlite").exists():
                continue  # no opener's checkpoints, but what an opener of such a name opened
            moves.setdefault(path, output / _PARTIES / party / name)
    return list(moves.items())


@contextmanager
def _nobody_writes(path: Path) -> Iterator[None]:
    """Hold a database's write lock, all of it being in its one file meanwhile."""
    if path.suffix == ".pem":
        yield
        return
    try:
        there = f"{path.resolve().as_uri()}?mode=rw"  # never made anew
        connection = sqlite3.connect(there, timeout=0, isolation_level=None, uri=True)
        with closing(connection) as database:
            database.execute("PRAGMA journal_mode=DELETE")  # what the write-ahead log holds, moves
            database.execute("BEGIN EXCLUSIVE")
            if (found := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise _damaged(path, found)
            beside = [path.with_name(path.name + end) for end in _SQLITE_BESIDE]
            left = [str(each) for each in beside if each.exists()]
            if left:
                raise LedgerError(f"{', '.join(left)} lies beside {path}: it is in use")
            yield
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(path, error) from error
        used = error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        advice = (
            "end whatever uses it, then try again"
            if used
            else "look at its permissions and at the disk"
        )
        raise LedgerError(f"{path} cannot be moved: {error}; {advice}") from error


def _damaged(path: Path, found: object) -> LedgerError:
    fault = " ".join(str(found).split())
    return LedgerError(
        f"{path} is damaged ({fault}) and is left where it is; put a whole copy in its place, "
        "such as `privagg ledger backup` made, then try again"
    )
