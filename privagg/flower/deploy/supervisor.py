"""Starts a party's parts, watches them, and stops them in order.

A part that ends by itself is started again after a pause that grows; the reason is reported in
plain words from the end of its log. A node whose SuperLink is not there, or does not accept it yet,
is not an error: it keeps trying, because institutions do not start at the same minute. Any other
part that does not come up is one.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from privagg.errors import DeploymentError
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.processes import Part, plain_line
from privagg.flower.deploy.reach import trouble

STOP_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 15.0
QUICK_SECONDS, MOST_QUICK_ENDS = 20.0, 4
ASK_SECONDS = 8.0
TAIL_BYTES = 4096
READY = "is ready"

Report = Callable[[str], None]

_REASONS = (
    (
        "[code: 2004]",
        "the SuperLink does not accept this node: its key is not registered there (it is once the "
        "coordinator has joined with this party's card and started again), or an earlier "
        "connection with the same key has not expired yet (up to a minute after a crash)",
    ),
    ("CERTIFICATE_VERIFY_FAILED", "the SuperLink's certificate does not verify under ca.pem"),
    ("certificate verify failed", "the SuperLink's certificate does not verify under ca.pem"),
    ("address already in use", "another process listens on its port"),
    ("Connection refused", "the SuperLink does not answer; is it started, and the port open?"),
    ("No space left on device", "the disk is full; make room"),
)
_LEVEL = re.compile(r"^(INFO|WARNING|ERROR) *: *")


@dataclass
class Running:
    """A part while it runs.

    Attributes:
        part: what it is.
        process: its process, leader of a group of its own.
        started: when, in seconds of the monotonic clock.
        offset: where in its log this start begins.
        quick_ends: starts in a row that came to nothing.
        due: when to start it again, where it has ended.
        reported: what was last reported of it; the same is not reported again.
        asked: when it was last asked why it is not ready.
    """

    part: Part
    process: subprocess.Popen[bytes]
    started: float
    offset: int
    quick_ends: int = 0
    due: float | None = None
    reported: str = ""
    asked: float = 0.0

    @property
    def output(self) -> str:
        """What it printed since this start, the last of it."""
        with self.part.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.offset, size - TAIL_BYTES))
            return file.read().decode(errors="replace")

    @property
    def refusal(self) -> str:
        """Why it can never work as things are; empty where it does not say so."""
        lines = self.output.splitlines() if self.part.refused else []
        return next((line for line in lines if line.startswith(self.part.refused)), "")

    @property
    def ready(self) -> bool:
        """Whether it runs and has said that it works."""
        if self.process.poll() is not None:
            return False
        if not self.part.ready:
            return True
        with self.part.log.open("rb") as file:
            file.seek(self.offset)
            return self.part.ready.encode() in file.read(1 << 20)

    @property
    def reason(self) -> str:
        """Why it ended or is not ready, in plain words."""
        if self.part.trouble is not None and (found := self.part.trouble()):
            return found
        if (status := self.process.returncode) is not None and status < 0:
            memory = ", as happens where memory runs out" if status == -signal.SIGKILL else ""
            return f"it was killed by {signal.Signals(-status).name}{memory}"
        text = self.output
        for sign, words in _REASONS:
            if sign in text:
                return words
        lines = [line for raw in text.splitlines() if (line := _LEVEL.sub("", plain_line(raw)))]
        return lines[-1][:300] if lines else f"exit status {self.process.returncode}"


@dataclass
class Supervisor:
    """The running parts of one or several parties.

    Args:
        report: called with one line for each thing that happens.
    """

    report: Report
    running: list[Running] = field(default_factory=list)

    def start(self, parts: Sequence[Part]) -> None:
        """Start parts, in order."""
        for part in parts:
            self.running.append(_start(part))

    def wait_ready(self, seconds: float) -> None:
        """Wait until every part works.

        Raises:
            DeploymentError: one does not within `seconds`; the message says which and why.
        """
        until = time.monotonic() + seconds
        while waiting := [running for running in self.running if not running.ready]:
            self.check()
            if time.monotonic() > until:
                first = waiting[0]
                raise DeploymentError(
                    f"{first.part.title} is not ready after {seconds:.0f} seconds: {first.reason}; "
                    f"see {first.part.log}"
                )
            time.sleep(0.1)

    def check(self) -> None:
        """Look at every part once; start again what has ended and rested.

        Raises:
            DeploymentError: a part that waits for nobody does not come up.
        """
        for place, running in enumerate(self.running):
            if running.process.poll() is None:
                self._look_at(running)
                continue
            if running.due is None:
                self._ended(running)
            elif time.monotonic() >= running.due:
                again = _start(running.part)
                again.quick_ends, again.reported = running.quick_ends, running.reported
                self.running[place] = again

    def _look_at(self, running: Running) -> None:
        part, now = running.part, time.monotonic()
        if not part.ready or running.reported == READY:
            return
        if running.ready:
            running.reported = READY
            self.report(f"{part.title} {READY}")
        elif part.trouble is not None and now - max(running.started, running.asked) > ASK_SECONDS:
            running.asked, found = now, part.trouble()
            if found and found != running.reported:
                running.reported = found
                self.report(f"{part.title} waits: {found}; it keeps trying")

    def _ended(self, running: Running) -> None:
        if running.refusal:
            reason = running.refusal.removeprefix(running.part.refused)
            raise DeploymentError(f"{running.part.title} cannot start: {reason}")
        lasted = time.monotonic() - running.started >= QUICK_SECONDS
        worked = running.reported == READY if running.part.ready else lasted
        running.quick_ends = 1 if worked else running.quick_ends + 1
        if not running.part.patient and running.quick_ends >= MOST_QUICK_ENDS:
            raise DeploymentError(
                f"{running.part.title} ended {running.quick_ends} times in a row: "
                f"{running.reason}; see {running.part.log}"
            )
        pause = min(2.0 ** (running.quick_ends - 1), LONGEST_PAUSE_SECONDS)
        running.due = time.monotonic() + pause
        reason = running.reason
        if reason != running.reported:
            running.reported = reason
            self.report(f"{running.part.title} ended: {reason}; it keeps trying")

    def run(self) -> None:
        """Watch until this process is asked to stop (Ctrl-C, or SIGTERM)."""
        while True:
            self.check()
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop every part, asked politely first; the SuperLink once its nodes have signed off."""
        for last in (False, True):
            leaving = [running.process for running in self.running if running.part.last is last]
            for process in leaving:
                if process.poll() is None:
                    process.terminate()
            until = time.monotonic() + STOP_SECONDS
            for process in leaving:
                _end(process, max(until - time.monotonic(), 0.1))
        self.running.clear()


def _start(part: Part) -> Running:
    part.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with part.log.open("ab") as log:
        offset = log.tell()
        process = subprocess.Popen(
            part.command,
            env=dict(part.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the supervisor's, which stops them in order
        )
    return Running(part, process, time.monotonic(), offset)


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process to end, and insist after a while."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    # The apps that a part started are in its group; with the part, their work is over too.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_superlink(folder: FlowerFolder, supervisor: Supervisor, seconds: float) -> None:
    """Wait until the SuperLink answers under its certificate.

    Args:
        folder: the coordinator's.
        supervisor: of the processes; one that ended ends the waiting too.
        seconds: how long to wait.

    Raises:
        DeploymentError: it does not within `seconds`.
    """
    until = time.monotonic() + seconds
    while True:
        supervisor.check()
        found = trouble(folder)
        if not found:
            return
        if time.monotonic() > until:
            raise DeploymentError(
                f"the SuperLink is not ready after {seconds:.0f} seconds: {found}; see "
                f"{folder.logs / 'superlink.log'}"
            )
        time.sleep(0.1)


@contextmanager
def only_one(folder: FlowerFolder) -> Iterator[None]:
    """Hold a party's folder, so that its parts are started once.

    Raises:
        DeploymentError: they run already.
    """
    path = folder.at("running")
    with ExitStack() as stack:
        file: IO[str] = stack.enter_context(_open(path))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DeploymentError(
                f"the parts of {folder.party.root.name} run already (process "
                f"{path.read_text().strip() or 'unknown'}); stop them first"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def runs_as(folder: FlowerFolder) -> int | None:
    """The process that runs a party's parts; None where none does."""
    try:
        with folder.at("running").open(encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except OSError:
        held = folder.at("running").read_text(encoding="ascii").strip()
        return int(held) if held.isdigit() else 0


def _open(path: Path) -> IO[str]:
    try:
        return path.open("a", encoding="ascii")
    except OSError as error:
        raise DeploymentError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def asked_to_stop() -> Iterator[None]:
    """SIGTERM ends the body as Ctrl-C does, by KeyboardInterrupt."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
