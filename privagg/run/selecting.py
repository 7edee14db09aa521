"""A training whose models are evaluated between its rounds: when it stops, and what it releases.

    training   round 1 … round 5 ─┐      round 6 … round 10 ─┐            release the best one
    rounds                        look 1                     look 2 …

The looks are the rounds of a job of its own (`privagg.config.evaluating.RoundsSetup`), in this
process, each charged before anything is computed. Every decision is read from the opened sums in
the coordinator's ledger, so that a killed coordinator decides as it had, and anybody recomputes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from privagg.encoding.vectors import FloatVector
from privagg.privacy.ledger import Ledger
from privagg.programs.gradient import GradientTraining
from privagg.programs.program import Result
from privagg.protocol.names import COORDINATOR
from privagg.report.selected import ROUND, Looks, looks_of


class Beside(Protocol):
    """The job of the looks, while it lasts."""

    def look(self, number: int, parameters: FloatVector) -> None:
        """Open its next sum, of a model; nothing where its rounds have stopped."""

    def conclude(self) -> None:
        """End it: what was asked for is taken, the rest is not begun; its files are written."""


class Selecting:
    """Looks at a training's models, and says what follows.

    Args:
        run: the training's.
        looks: the name of the job of the looks.
        every: rounds between two looks.
        beside: opens sums; None where it has ended.
        program: the training's.
        ledger: the coordinator's.
        output: the training's own folder, where its evaluated models are kept.
    """

    def __init__(
        self,
        run: str,
        looks: str,
        every: int,
        *,
        beside: Beside | None,
        program: GradientTraining,
        ledger: Ledger,
        output: Path,
    ) -> None:
        self._run, self._looks, self._every = run, looks, every
        self._beside, self._program = beside, program
        self._ledger, self._output = ledger, output

    def due(self, number: int) -> bool:
        """Whether the model after a training's round is evaluated.

        Args:
            number: of the round; 0 before the first.
        """
        return number > 0 and number % self._every == 0

    def look(self, number: int, state: FloatVector) -> str:
        """Evaluate the model of a round that is due, where it has not been.

        Args:
            number: of the training's round that is over.
            state: float64 (d,), after it.

        Returns:
            Why no further round is begun; empty where the training goes on.

        Raises:
            ConfigError: the model cannot be kept.
        """
        place = number // self._every
        parameters = self._program.released(state)
        self._keep(number, parameters)
        if len(self._found().opened) < place and self._beside is not None:
            self._beside.look(place, parameters)
        found = self._found()
        if len(found.opened) < place or not found.stops(place):
            return ""
        return f"stopped early after round {number}: the last evaluations were no better"

    def conclude(self) -> None:
        """End the job of the looks."""
        if self._beside is not None:
            self._beside.conclude()
            self._beside = None

    def finish(self, state: FloatVector, *, measured: bool) -> tuple[Result, int | None]:
        """Write the model of the best round; the last one where no round was evaluated.

        Args:
            state: float64 (d,), after the last round.
            measured: as for `Program.finish`.

        Returns:
            What was written, and which round it is of; None where no figure says so.

        Raises:
            ConfigError: a file cannot be read or written.
        """
        found = self._found()
        if not found.opened:
            return self._program.finish(state, self._output, measured=measured), None
        best = found.best()
        path = self._output / file_of(best)
        parameters = self._program.read(path)
        return self._program.release(parameters, self._output, measured=measured), best

    def facts(self, number: int | None) -> dict[str, Any]:
        """What is recorded of a release, so that anybody finds the sums that it follows from.

        Args:
            number: of the round, as `finish` gave it.
        """
        return {} if number is None else {"selected": {"looks": self._looks, "round": number}}

    def _found(self) -> Looks:
        return looks_of((entry.payload for entry in self._ledger.entries()), self._looks)

    def _keep(self, number: int, parameters: FloatVector) -> None:
        """The model of a round, and its digest in the ledger; once."""
        name = file_of(number)
        digest = self._program.save(parameters, self._output / name)
        facts = {"of": self._run, "round": number, f"{ROUND}_file": name, f"{ROUND}_sha256": digest}
        for entry in self._ledger.entries():
            if getattr(entry.payload, "facts", None) == facts:
                return
        self._ledger.record("released", {"what": ROUND, "who": COORDINATOR, "facts": facts})


def file_of(number: int) -> str:
    """The file in which a round's model is kept, in the training's folder."""
    return f"model-round-{number}.safetensors"
