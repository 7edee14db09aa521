"""How far a run is, kept so that a killed coordinator can resume: model, optimiser, round, request.

    state.json      after each finished round: its number, the model, the optimiser's state
    attempt.json    the attempt under way: round, attempt, cohort
    opening.frame   the opening request of that attempt, once it is about to be sent
    key.frame       the key holder's statement of the run's key; key-5.frame that of round 5 on
    left/NAME       the ledger that a site sent as it left
    driving         held by the process that drives the run

Where the optimiser is somebody else's (a Flower strategy), its state cannot be kept. It is told
again what every round opened, and for that each round has files of its own:

    rounds/7.asked    what round 7 was asked with, before anything of it was sent
    rounds/7.opening  the key holder's answer, the sum under its signature; compressed (zlib)
    rounds/7.ended    how the round ended

Each file is written whole or not at all. `state.json` and `.ended` are written last, so that a
round counts as finished only with everything that follows from it.
"""

from __future__ import annotations

import base64
import fcntl
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from privagg.durable import write_whole
from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError, RunInProgressError
from privagg.protocol.job import RoundOutcome
from privagg.run.results import outcome_facts, outcome_of

VERSION = 2
LOCK_NAME = "driving"

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Progress:
    """A finished round, and what the next one starts from.

    Args:
        plan_digest, key_id: of the run; another plan or key cannot resume it.
        round: the last finished round.
        parameters: float64 (d,), the model after it.
        kept: what its program keeps besides, the optimiser's state for one.
        metrics: figures on the public table.
        close, cohort: what tells the round's sites how it ended; posted again where a killed
            coordinator resumes, as it may not have been sent. A site records it once.
        over: how the run ended, empty while it lasts; then only the ledgers are asked for.
        reason: why it stopped.
    """

    plan_digest: str
    key_id: str
    round: int
    parameters: FloatVector
    kept: dict[str, Any]
    metrics: dict[str, float]
    close: bytes = b""
    cohort: tuple[str, ...] = ()
    over: str = ""
    reason: str = ""


@dataclass(frozen=True)
class UnfinishedAttempt:
    """An attempt that was under way.

    Args:
        round, attempt: where.
        cohort: the sites that were asked.
        request: the opening request, where it was about to be sent.
    """

    round: int
    attempt: int
    cohort: tuple[str, ...]
    request: bytes | None


@dataclass(frozen=True)
class Asked:
    """What a round of somebody else's optimiser was asked with.

    Args:
        plan_digest, key_id: of the run.
        model_sha256: SHA-256 (hex) of the model, float64 little-endian.
        settings: settings of the sites' training beyond the plan.
    """

    plan_digest: str
    key_id: str
    model_sha256: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """How such a round ended.

    Args:
        outcome: in summary.
        answer: the key holder's, from which the update follows; empty where nothing was opened.
        close: what tells the round's sites how it ended.
    """

    outcome: RoundOutcome
    answer: bytes
    close: bytes


@contextmanager
def alone(folder: Path, run: str) -> Iterator[None]:
    """Hold a run's folder: two coordinators of one run would sign two stories of it."""
    with (folder / LOCK_NAME).open("a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunInProgressError(
                f"another process drives run {run!r} already; wait for it, or stop it before you "
                "resume the run; nothing was spent"
            ) from error
        yield


class Journal:
    """The journal of one run; a `RoundJournal`.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = folder / "state.json"
        self._attempt = folder / "attempt.json"
        self._request = folder / "opening.frame"
        self._rounds = folder / "rounds"

    def begun(self, result: RoundOutcome) -> None:
        """See `RoundJournal.begun`."""
        self._request.unlink(missing_ok=True)
        facts = {"round": result.round, "attempt": result.attempt, "cohort": list(result.cohort)}
        write_whole(self._attempt, json.dumps(facts).encode(), secret=True)

    def asking(self, request: bytes) -> None:
        """See `RoundJournal.asking`."""
        write_whole(self._request, request, secret=True)

    def _key(self, first: int) -> Path:
        return self._folder / ("key.frame" if first == 1 else f"key-{first}.frame")

    def keep_key(self, frame: bytes, first: int = 1) -> None:
        """The run's key is stated; its rounds from `first` on are under it and no other."""
        write_whole(self._key(first), frame, secret=True)

    def keep_left(self, site: str, frame: bytes) -> None:
        """A site leaves, and sent its ledger."""
        folder = self._folder / "left"
        folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(folder / site, frame, secret=True)

    def left(self, site: str) -> bytes | None:
        """What a site sent as it left; None where nothing is kept of it.

        Raises:
            ConfigError: the file cannot be read.
        """
        return _read_whole(self._folder / "left" / site)

    def key(self, first: int = 1) -> bytes | None:
        """The statement of the key from round `first` on; None where there is none yet.

        Raises:
            ConfigError: the file cannot be read.
        """
        return _read_whole(self._key(first))

    def finished(self, progress: Progress) -> None:
        """A round is over, with all that follows from it."""
        facts = {
            "version": VERSION,
            **vars(progress),
            "parameters": base64.b64encode(progress.parameters.astype("<f8").tobytes()).decode(),
            "close": base64.b64encode(progress.close).decode(),
        }
        write_whole(self._state, json.dumps(facts).encode(), secret=True)

    def progress(self) -> Progress | None:
        """The last finished round; None where there is none yet.

        Raises:
            ConfigError: the file is damaged or another version's.
        """

        def read(facts: dict[str, Any]) -> Progress:
            raw = base64.b64decode(facts.pop("parameters"), validate=True)
            parameters = np.frombuffer(raw, dtype="<f8").astype(np.float64)
            close = base64.b64decode(facts.pop("close"), validate=True)
            cohort = tuple(facts.pop("cohort"))
            return Progress(parameters=parameters, close=close, cohort=cohort, **facts)

        return self._read(self._state, read)

    def attempt(self, after: int) -> UnfinishedAttempt | None:
        """The attempt that was under way after round `after`; None where there was none.

        Raises:
            ConfigError: the file is damaged.
        """
        if not self._attempt.exists():
            return None
        try:
            facts = json.loads(self._attempt.read_bytes())
            if facts["round"] != after + 1:
                return None
            request = self._request.read_bytes() if self._request.exists() else None
            return UnfinishedAttempt(
                facts["round"], facts["attempt"], tuple(facts["cohort"]), request
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"the journal {self._attempt} cannot be used: {error}") from error

    # --- rounds of somebody else's optimiser ------------------------------------------------------

    @property
    def for_replay(self) -> bool:
        """Whether the run was begun by an optimiser that is told its rounds again."""
        return self._rounds.is_dir()

    def keep_for_replay(self) -> None:
        """Begin such a run, or resume it."""
        self._rounds.mkdir(mode=0o700, parents=True, exist_ok=True)

    def asks(self, number: int, asked: Asked) -> None:
        """A round is about to begin."""
        data = json.dumps({"version": VERSION, **vars(asked)}).encode()
        write_whole(self._rounds / f"{number}.asked", data, secret=True)

    def asked(self, number: int) -> Asked | None:
        """What a round was asked with; None where it never began.

        Raises:
            ConfigError: the file is damaged or another version's.
        """
        return self._read(self._rounds / f"{number}.asked", lambda facts: Asked(**facts))

    def ended(self, outcome: RoundOutcome) -> None:
        """A round is over, after its last attempt."""
        place = self._rounds / str(outcome.round)
        if outcome.answer:
            # The integers in it are of 64 bits and use a third of them.
            data = zlib.compress(outcome.answer, level=1)
            write_whole(place.with_suffix(".opening"), data, secret=True)
        facts = {
            "version": VERSION,
            "outcome": outcome_facts(outcome),
            "close": base64.b64encode(outcome.close).decode(),
        }
        write_whole(place.with_suffix(".ended"), json.dumps(facts).encode(), secret=True)

    def end_of(self, number: int) -> Ended | None:
        """How a round ended; None where it has not ended.

        Raises:
            ConfigError: a file is damaged, missing or another version's.
        """
        place = self._rounds / str(number)

        def read(facts: dict[str, Any]) -> Ended:
            outcome = outcome_of(facts["outcome"])
            opened = outcome.outcome == "opened"
            kept = place.with_suffix(".opening").read_bytes() if opened else b""
            answer = zlib.decompress(kept) if opened else b""
            return Ended(outcome, answer, base64.b64decode(facts["close"], validate=True))

        return self._read(place.with_suffix(".ended"), read)

    @staticmethod
    def _read(path: Path, parse: Callable[[dict[str, Any]], Kept]) -> Kept | None:
        if not path.exists():
            return None
        try:
            facts = json.loads(path.read_bytes())
            if facts.pop("version") != VERSION:
                raise ValueError("it is another version's")
            return parse(facts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            raise ConfigError(f"the journal {path} cannot be used: {error}") from error


def _read_whole(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.exists() else None
    except OSError as error:
        raise ConfigError(f"the journal {path} cannot be used: {error}") from error
