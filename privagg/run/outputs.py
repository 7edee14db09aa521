"""Where runs leave their files: each in a folder of its own, copies of the latest one's above them.

    OUT/runs/<run>/   all that one run or search leaves: model, report, bundle, statements;
                      nothing of another one is ever written there
    OUT/              copies of the latest one's model, report and bundle, until the next takes
                      their place; beside them a copy of the latest answers, as what was asked
                      takes the place of no model

A run's folder is whole before anything above it is touched. Then `show_latest` makes OUT show what
the coordinator's ledger says has ended last; the ledger and the folders alone decide, so that after
a kill at any write, or on a full disk, the same call later finishes what was begun. They are copies
and not links: every file system has them, and to change or delete one leaves the other as it is.
"""

from __future__ import annotations

import fcntl
import filecmp
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from privagg.audit.bundle import NAME as BUNDLE_NAME
from privagg.audit.bundle import ReportBundle
from privagg.durable import sync_folder
from privagg.errors import ConfigError, PrivaggError
from privagg.party.local import local_folder
from privagg.privacy.ledger import Entry, Ledger
from privagg.privacy.ledger.entries import (
    Released,
    RoundEnded,
    RunFinished,
    RunStarted,
    Tuning,
)
from privagg.privacy.plan import SumsPlan
from privagg.programs.program import ANSWERS_NAME, MODEL_NAME
from privagg.protocol.names import COORDINATOR, RUN_ID
from privagg.protocol.statements import FILE_NAME, StatementStore
from privagg.report.source import LedgerView
from privagg.report.write import FORMATS, JSON_NAME

RUNS = "runs"
WHOLE = (MODEL_NAME, BUNDLE_NAME, JSON_NAME)
"""What the folder of a run holds at least, once it has ended."""
UNKNOWN = "of-unknown-run"

_RUN = re.compile(RUN_ID)
_SHOWN = re.compile(
    "|".join(
        "{}([.][A-Za-z-]{{2,12}})?[.]{}".format(*map(re.escape, name.split(".", 1)))
        for name in (MODEL_NAME, BUNDLE_NAME, *(name for name, _ in FORMATS.values()))
    )
)
"""What OUT shows of the latest run: model, bundle, and its report in every form and language."""


@dataclass(frozen=True)
class Ended:
    """A run or a search that has ended.

    Attributes:
        name: the search's, or the run's; its folder is called so.
        run: whose model and report it left: a search's selected run.
    """

    name: str
    run: str


def run_folder(output: Path, run: str) -> Path:
    """Where all files of a local run or search lie; it need not exist yet.

    Args:
        output: the federation's output folder.
        run: name of the run or search.

    Raises:
        ConfigError: nothing can be called so.
    """
    if not _RUN.fullmatch(run):
        raise ConfigError(
            f"no run can be called {run!r}: up to 128 letters, digits, '.', '_' and '-', the first "
            "a letter or digit"
        )
    return output / RUNS / run


def make_run_folder(output: Path, run: str) -> Path:
    """The folder of a run that begins.

    Raises:
        ConfigError: as `run_folder`, another run's files lie there, or it cannot be made.
    """
    folder = run_folder(output, run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(
                f"{folder} holds the files of a run of this name already, and none is replaced; "
                "nothing was spent. Choose another name"
            )
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder


def last_ended(entries: Iterable[Entry]) -> Ended | None:
    """What ended last and left a result, by the coordinator's ledger; None where nothing did.

    A search counts once it has selected, its candidates do not, nor what was asked. What stopped
    before any sum was opened is passed over for what ended earlier with one.
    """
    candidates: set[str] = set()
    opened: set[str] = set()
    found: list[Ended] = []
    for entry in entries:
        said = entry.payload
        if isinstance(said, RunStarted) and answering(said):
            candidates.add(said.run)
        elif isinstance(said, Tuning):
            candidates.update(said.runs)
        elif isinstance(said, RoundEnded) and said.outcome == "opened":
            opened.add(said.run)
        elif isinstance(said, RunFinished):
            if said.outcome != "failed" and said.run not in candidates:
                found.append(Ended(said.run, said.run))
        elif isinstance(said, Released) and "selected_run" in said.facts:
            found.append(Ended(str(said.facts["search"]), str(said.facts["selected_run"])))
    found = [ended for ended in found if ended.run in opened] or found
    return found[-1] if found else None


def answering(started: RunStarted) -> str:
    """The program whose answers a run is for, by its recorded plan; empty where it trains.

    Args:
        started: as the coordinator recorded it.
    """
    stored = started.facts.get("plan")
    with suppress(ValueError, RecursionError):
        plan = json.loads(stored) if isinstance(stored, str) else stored
        if isinstance(plan, dict) and plan.get("mode") == SumsPlan.model_fields["mode"].default:
            recipe = plan.get("recipe")
            return str(recipe.get("program", "")) if isinstance(recipe, dict) else ""
    return ""


def _show_answers(output: Path, entries: Iterable[Entry]) -> None:
    """Make OUT show the answers that were released last; each run's own folder keeps its own."""
    released = [
        str(entry.payload.facts["run"])
        for entry in entries
        if isinstance(entry.payload, Released) and entry.payload.what == "answers"
    ]
    path = run_folder(output, released[-1]) / ANSWERS_NAME if released else None
    if path is not None and path.is_file() and not _same(path, output / ANSWERS_NAME):
        _copy(path.parent, output, [ANSWERS_NAME])


def show_latest(output: Path, coordinator: LedgerView) -> Path | None:
    """Make OUT show what ended last; whatever lies there is kept in its own run's folder first.

    Where everything is as it should be, nothing is written.

    Args:
        output: the federation's output folder.
        coordinator: its coordinator's ledger.

    Returns:
        The folder whose files OUT shows; None where nothing has ended that left its files in one.

    Raises:
        ConfigError: OUT cannot be written to; nothing is lost, and the next call tries again.
    """
    latest = last_ended(coordinator.entries())
    folder = run_folder(output, latest.name) if latest else None
    try:
        if (output / RUNS).is_dir():
            with _alone(output / RUNS):
                _show_answers(output, coordinator.entries())
        if folder is None or not all((folder / name).is_file() for name in WHOLE):
            return None
        with _alone(folder.parent):
            names = _shown_in(folder, output)
            if any(not _same(folder / name, output / name) for name in names):
                _keep_what_is_shown(output, coordinator)
                _copy(folder, output, names)
    except OSError as error:
        raise ConfigError(
            f"the files lie in {folder or output / RUNS}; {output} cannot show them: "
            f"{error.strerror}. Once it can be written to, `privagg runs {output}` puts them there"
        ) from error
    return folder


def settle(output: Path) -> None:
    """`show_latest` for whoever comes later; nothing where there is no coordinator's ledger.

    Raises:
        LedgerError: the ledger cannot be read.
        ConfigError: as `show_latest`.
    """
    ledger = local_folder(output, COORDINATOR).ledger
    if (output / RUNS).is_dir() and ledger.exists():
        show_latest(output, Ledger.open(ledger))


def places_of(output: Path, coordinator: LedgerView, run: str) -> tuple[Path, ...]:
    """The folders that a report or bundle made anew belongs into: the run's own, and OUT.

    Args:
        output: the federation's output folder.
        coordinator: its coordinator's ledger.
        run: whose report it is.

    Returns:
        The run's folder first; OUT too, unless it shows another run.
    """
    latest = last_ended(coordinator.entries())
    own = run_folder(output, latest.name if latest and latest.run == run else run)
    shown = output / JSON_NAME
    return (own, output) if not shown.exists() or _run_in(shown.read_bytes()) == run else (own,)


def statements_of(output: Path, run: str) -> StatementStore:
    """What the parties signed in a run; earlier versions kept it of all runs together, in OUT."""
    own = run_folder(output, run)
    return StatementStore.beside(own if (own / FILE_NAME).exists() else output)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait while another process does the same, on file systems that know locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _shown_in(*folders: Path) -> list[str]:
    """Names of files that OUT shows, `report.json` last."""
    found = {path.name for folder in folders for path in folder.iterdir()}
    return sorted(filter(_SHOWN.fullmatch, found), key=lambda name: (name == JSON_NAME, name))


def _copy(folder: Path, output: Path, names: Iterable[str]) -> None:
    """Every copy is complete before the first takes its place."""
    parts = {name: output / f".{name}.latest" for name in names if (folder / name).is_file()}
    try:
        for name, part in parts.items():
            _copy_file(folder / name, part)
        for name in names:
            if name in parts:
                os.replace(parts[name], output / name)
            else:
                (output / name).unlink(missing_ok=True)
        sync_folder(output)
    finally:
        for part in output.glob(".*.latest"):
            part.unlink(missing_ok=True)


def _keep_what_is_shown(output: Path, coordinator: LedgerView) -> None:
    """Files in OUT that no run's folder holds: an earlier version's, or changed by somebody."""
    for path in (output / name for name in _shown_in(output)):
        kept = (output / RUNS).glob(f"*/{path.name}")
        if not path.is_file() or any(_same(path, other) for other in kept):
            continue
        run = owner_of(path, coordinator)
        folder = run_folder(output, run) if _RUN.fullmatch(run) else output / RUNS / UNKNOWN
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / path.name
        if place.exists():
            place = folder / f"{path.stem}-{_digest(path)[:8]}{path.suffix}"
        part = place.with_name(f".{place.name}.kept")
        try:
            _copy_file(path, part)
            os.replace(part, place)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(folder)


def owner_of(path: Path, coordinator: LedgerView) -> str:
    """Which run a file is of: what it says itself, else whose report.json lies beside it.

    Args:
        path: a model, bundle or report.
        coordinator: the ledger that knows models by their digest.

    Returns:
        The run's name as the file or the ledger has it, unchecked; empty where nothing says so.
    """
    found = ""
    if path.name == ANSWERS_NAME:
        return _run_in(path.read_bytes())
    if path.name == MODEL_NAME:
        digest = _digest(path)
        for entry in coordinator.entries():
            said = entry.payload
            if isinstance(said, Released) and said.facts.get("model_sha256") == digest:
                found = str(said.facts.get("run", ""))
    elif path.name == BUNDLE_NAME:
        with suppress(PrivaggError):
            found = _run_in(ReportBundle.read(path).files[JSON_NAME])
    report = path.with_name(JSON_NAME)
    return found or (_run_in(report.read_bytes()) if report.is_file() else "")


def _run_in(report: bytes) -> str:
    with suppress(ValueError, RecursionError):
        said = json.loads(report)
        if isinstance(said, dict) and isinstance(run := said.get("run"), str):
            return run
    return ""


def _copy_file(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _same(one: Path, other: Path) -> bool:
    """Whether two places hold the same bytes, or neither anything."""
    there = [path for path in (one, other) if path.exists()]
    if len(there) < 2:
        return not there
    filecmp.clear_cache()  # it goes by times, which two writes may share
    return filecmp.cmp(one, other, shallow=False)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
