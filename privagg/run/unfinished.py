"""Local runs that were begun and have not ended: which there are, and what they were begun with.

    OUT/parties/coordinator/out/<run>/   a run's journal (`privagg.run.journal`), and
      begun.json    what the run was begun with; written first
      driving       held by the process that drives the run

The folder is renamed away, and then removed, once the run has ended with all its files. So a run
whose folder is there and that nobody drives was cut off, and can be resumed or given up.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Self

from privagg.config.jobs import command_of
from privagg.config.setup import TRAINING, Setup
from privagg.durable import sync_folder, write_whole
from privagg.errors import ConfigError, ResumeError, RunInProgressError
from privagg.party.local import local_folder
from privagg.protocol.names import COORDINATOR
from privagg.run.differences import told_differences
from privagg.run.journal import Journal, alone

BEGUN_NAME = "begun.json"
VERSION = 1


@dataclass(frozen=True)
class Begun:
    """What a run was begun with; with anything else it is not resumed.

    Args:
        run: its identifier.
        rounds: planned.
        plan_digest: SHA-256 (hex) of the plan.
        generator: name of the sites' source of randomness.
        configuration: every setting that was given.
        code: `module:name` of each factory -> SHA-256 (hex) of its source.
        search: the search that the run is a candidate of; empty where it is of none.
        job: which of the configuration's jobs it does.
        beside: the run during which it is done, and with which it goes on or ends; else empty.
    """

    run: str
    rounds: int
    plan_digest: str
    generator: str
    configuration: dict[str, Any]
    code: dict[str, str]
    search: str = ""
    job: str = TRAINING
    beside: str = ""

    @classmethod
    def of(
        cls, setup: Setup, run: str, *, generator: str, search: str = "", beside: str = ""
    ) -> Self:
        """What a run would be begun with now.

        Args:
            setup, run: what is run, and its identifier.
            generator, search, beside: as for `Begun`.
        """
        return cls(
            run,
            setup.plan.rounds,
            setup.plan.digest,
            generator,
            setup.config.model_dump(mode="json", exclude_unset=True),
            {f"{each.module}:{each.name}": each.sha256 for each in setup.factories()},
            search,
            setup.job,
            beside,
        )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What the run in a folder was begun with.

        Raises:
            ConfigError: the file is damaged or another version's.
        """
        path = folder / BEGUN_NAME
        try:
            facts = json.loads(path.read_bytes())
            if facts.pop("version") != VERSION:
                raise ValueError("it is another version's")
            return cls(**facts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"the journal {path} cannot be used: {error}. If it cannot be repaired, move its "
                "folder away: the run is lost, and its key is erased when the approval ends"
            ) from error

    def write(self, folder: Path) -> None:
        """Write it down, before anything of the run is done."""
        data = json.dumps({"version": VERSION, **asdict(self)}).encode()
        write_whole(folder / BEGUN_NAME, data, secret=True)

    def require_same(self, now: Self) -> None:
        """Refuse to resume the run with anything else.

        Raises:
            ResumeError: names what is different.
        """
        told = told_differences(_compared(self), _compared(now))
        if told:
            raise ResumeError(
                f"run {self.run!r} cannot be resumed: it was begun with something else. {told}. "
                "Put it back as it was, or give the run up; nothing more was spent"
            )


def _compared(begun: Begun) -> dict[str, Any]:
    """Settings first, as they say most; what a search is called is not compared."""
    facts = {**begun.configuration, "source of randomness": begun.generator}
    code = {f"code {name}": digest[:16] for name, digest in begun.code.items()}
    return {**facts, **code, "job": begun.job, "plan": begun.plan_digest[:16]}


@dataclass(frozen=True)
class Unfinished:
    """A local run that was cut off.

    Attributes:
        begun: with what.
        round: the last round that is over; 0 before the first.
    """

    begun: Begun
    round: int

    def __str__(self) -> str:
        return f"{self.begun.run} (after round {self.round} of {self.begun.rounds})"


def journal_folder(output: Path, run: str) -> Path:
    """Where a local run keeps its journal while it lasts.

    Args:
        output: the output folder.
        run: the run's identifier.
    """
    return local_folder(output, COORDINATOR).run_folder(run)


def unfinished_runs(output: Path) -> list[Unfinished]:
    """The local runs that were cut off, by name; not one that another process drives now.

    Args:
        output: the output folder.

    Raises:
        ConfigError: a journal is damaged.
    """
    found = []
    for path in sorted(local_folder(output, COORDINATOR).output.glob(f"[!.]*/{BEGUN_NAME}")):
        folder = path.parent
        try:
            with alone(folder, folder.name):
                if not path.exists():  # it has ended meanwhile
                    continue
                begun, done = Begun.read(folder), Journal(folder).progress()
                if not begun.beside:
                    found.append(Unfinished(begun, 0 if done is None else done.round))
        except RunInProgressError:
            continue
    return found


def require_unfinished(output: Path, run: str) -> Path:
    """The folder of a run that can be resumed or given up.

    Raises:
        ResumeError: there is none of this name; the message lists those that there are.
    """
    folder = journal_folder(output, run)
    if not (folder / BEGUN_NAME).exists():
        listed = ", ".join(map(str, unfinished_runs(output))) or "none"
        raise ResumeError(
            f"there is no run {run!r} to go on with: it has ended, or was never begun in {output}. "
            f"Runs that were cut off there: {listed}"
        )
    return folder


def require_none_unfinished(setup: Setup, *, search: str | None = None) -> None:
    """Refuse a new run where one was cut off, which has been paid for in part.

    Args:
        setup: what is run.
        search: a search that is resumed; its own candidates may have been cut off.

    Raises:
        ResumeError: names those, and says how to go on.
    """
    left = unfinished_runs(setup.output)
    found = [each for each in left if not search or each.begun.search != search]
    if found:
        raise ResumeError(
            f"a run was cut off in {setup.output}, and what it was charged for can still be had: "
            f"{', '.join(map(str, found))}. {ways_on(setup, found[0].begun)}. Nothing was spent"
        )


def ways_on(setup: Setup, begun: Begun) -> str:
    """What to type for a run that was cut off."""
    config = quote(str(setup.source)) if setup.source else "CONFIG"
    end = f"privagg run {config} --abandon {begun.run}"
    tuning = setup.config.tuning
    if begun.search and tuning is not None:
        told = ", ".join(f"{key} = {_setting(begun, key)}" for key in tuning.grid)
        return (
            f"Go on with its search: privagg tune {config} --resume {begun.search}; or finish this "
            f"one alone, by a copy of {config} beside it with {told} and without [tuning]: privagg "
            f"run COPY --resume {begun.run}; or give it up, which keeps its model so far: {end}"
        )
    if begun.job != TRAINING:
        command = command_of(begun.job)
        return f"Go on: privagg {command} {config} --resume {begun.run}; or give it up: {end}"
    return (
        f"Go on: privagg run {config} --resume {begun.run}; or give it up, which keeps its model "
        f"so far: {end}"
    )


def _setting(begun: Begun, key: str) -> str:
    """A dotted setting of what a run was begun with, as a configuration spells it."""
    found: Any = begun.configuration
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return json.dumps(found)


@contextmanager
def new(folder: Path, begun: Begun) -> Iterator[None]:
    """Make and hold a new run's folder, and write down what it begins with.

    A folder in which nothing is written down was left by a process that was killed right here.

    Raises:
        ConfigError: there is such a run already, or the folder cannot be made.
        RunInProgressError: another process begins or drives it.
    """
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
    with alone(folder, begun.run):
        if (folder / BEGUN_NAME).exists():
            raise ConfigError(
                f"there is a run {begun.run!r} already, in {folder}; choose another name"
            )
        begun.write(folder)
        yield


@contextmanager
def resumed(output: Path, now: Begun) -> Iterator[None]:
    """Hold the folder of a run that was cut off.

    Args:
        output: the output folder.
        now: what it would go on with.

    Raises:
        ResumeError: there is no such run, or it was begun with something else.
        RunInProgressError: another process drives it.
    """
    folder = require_unfinished(output, now.run)
    with alone(folder, now.run):
        require_unfinished(output, now.run)  # it may have ended meanwhile
        Begun.read(folder).require_same(now)
        yield


def remove(folder: Path) -> None:
    """Remove the folder of a run that has ended, at once or not at all; then what is left of it.

    Raises:
        ConfigError: it cannot be renamed.
    """
    gone = folder.with_name(f".{folder.name}")
    try:
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(folder, gone)
        sync_folder(folder.parent)
    except OSError as error:
        raise ConfigError(f"cannot remove the journal {folder}: {error.strerror}") from error
    shutil.rmtree(gone, ignore_errors=True)
