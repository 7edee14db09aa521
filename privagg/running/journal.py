"""How far a run is, kept so that a killed coordinator goes on: model, optimiser, round, request.

    state.json      after each finished round: its number, the model, the optimiser's state
    attempt.json    the attempt under way: round, attempt, cohort
    opening.frame   the opening request of that attempt, once it is about to be sent

Each file is written whole or not at all. `state.json` is written last, so that a round counts as
finished only with everything that follows from it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from privagg.deployment.layout import write_whole
from privagg.errors import ConfigError
from privagg.round import RoundOutcome
from privagg.running.results import FloatVector

VERSION = 1


@dataclass(frozen=True)
class Progress:
    """A finished round, and what the next one starts from.

    Args:
        plan_digest, key_id: of the run; another plan or key cannot go on with it.
        round: the last finished round.
        parameters: float64 (d,), the model after it.
        optimizer: state of the server optimiser after it.
        metrics: figures on the public table.
        close, cohort: what tells the round's sites how it ended; posted again where a killed
            coordinator goes on, as it may not have been sent. A site records it once.
        over: how the run ended, empty while it goes on; then only the ledgers are asked for.
        reason: why it stopped.
    """

    plan_digest: str
    key_id: str
    round: int
    parameters: FloatVector
    optimizer: dict[str, Any]
    metrics: dict[str, float]
    close: bytes = b""
    cohort: tuple[str, ...] = ()
    over: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Attempt:
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

    def begun(self, result: RoundOutcome) -> None:
        """See `RoundJournal.begun`."""
        self._request.unlink(missing_ok=True)
        facts = {"round": result.round, "attempt": result.attempt, "cohort": list(result.cohort)}
        write_whole(self._attempt, json.dumps(facts).encode(), secret=True)

    def asking(self, request: bytes) -> None:
        """See `RoundJournal.asking`."""
        write_whole(self._request, request, secret=True)

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
        if not self._state.exists():
            return None
        try:
            facts = json.loads(self._state.read_bytes())
            if facts.pop("version") != VERSION:
                raise ValueError("it is another version's")
            raw = base64.b64decode(facts.pop("parameters"), validate=True)
            parameters = np.frombuffer(raw, dtype="<f8").astype(np.float64)
            close = base64.b64decode(facts.pop("close"), validate=True)
            cohort = tuple(facts.pop("cohort"))
            return Progress(parameters=parameters, close=close, cohort=cohort, **facts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"the journal {self._state} cannot be used: {error}") from error

    def attempt(self, after: int) -> Attempt | None:
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
            return Attempt(facts["round"], facts["attempt"], tuple(facts["cohort"]), request)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"the journal {self._attempt} cannot be used: {error}") from error
