"""Where a local run keeps its parties: a folder for each, under the run's output folder.

    OUT/parties/<party>/   as on a machine of its own, see `privagg.party.folder`
    OUT/                   what the coordinator makes: models, reports, bundles

Before there were party folders, the same files lay by kind. Whoever finds them there reads nothing
and spends nothing: beside a new, empty ledger a spent budget would look whole. `adopt` carries
them over.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from shlex import quote

from privagg.durable import sync_folder
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
one of the last two kinds is left, nothing is opened."""

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
        LedgerError: a file is in use, cannot be moved, or lies at its new place already.
    """
    moved = []
    for old, new in _moves(output) if _earlier_ledgers(output) else ():
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
    for name in {old.partition("/")[0] for old, _ in _EARLIER if "/" in old}:
        with suppress(OSError):  # not there, or something else lies in it
            (output / name).rmdir()
    return moved


def _require_adopted(output: Path) -> None:
    found = _earlier_ledgers(output)
    if found:
        raise LedgerError(
            f"ledgers lie in {output} where earlier versions kept them: "
            f"{', '.join(str(path.relative_to(output)) for path in found)}. A party now keeps its "
            f"files in {output / _PARTIES}/<party>/, where these budgets would appear unspent; "
            f"nothing was read or spent. Carry them over: privagg ledger adopt {quote(str(output))}"
        )


def _earlier_ledgers(output: Path) -> list[Path]:
    kinds = [pattern for pattern, _ in _EARLIER[-2:]]
    return [path for pattern in reversed(kinds) for path in sorted(output.glob(pattern))]


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
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=DELETE")  # what the write-ahead log holds, moves
            database.execute("BEGIN EXCLUSIVE")
            beside = [path.with_name(path.name + end) for end in _SQLITE_BESIDE]
            left = [str(each) for each in beside if each.exists()]
            if left:
                raise LedgerError(f"{', '.join(left)} lies beside {path}: it is in use")
            yield
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise LedgerError(
            f"{path} cannot be moved: {error}; end whatever uses it, then try again"
        ) from error
