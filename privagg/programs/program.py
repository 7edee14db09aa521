"""What a job is: a public state, what the sites add to a sum for it, and what becomes of the sum.

    state ──asked──▶ sites: integers from records ──secure sum──▶ fold ──▶ next state … ──▶ result

A `Program` is the coordinator's half, public facts only. The sites' half is a `Learner`
(`privagg.encoding.contribution`): a state in, bounded and noised integers out. Charge, receipts,
attempts, resuming, observers, report and `verify` ask neither: they go by the plan, which states
for each round what is opened, how far one unit moves it, with which noise and as which event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from privagg.encoding.planned import RoundId
from privagg.encoding.vectors import FloatVector, IntVector

MODEL_NAME = "model.safetensors"
"""What a run leaves a model in."""

ANSWERS_NAME = "answers.json"
"""What a run leaves answers in."""


@dataclass(frozen=True)
class Opened:
    """What a round gave.

    Attributes:
        round_id: (run, round, attempt).
        total: int64 (n,), the opened sum, noise included.
        update: float64 (d,), what it means under the plan.
        contributors: whose integers are in it, in roster order.
    """

    round_id: RoundId
    total: IntVector
    update: FloatVector
    contributors: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What a job ends with.

    Attributes:
        what: what it is, in a word: `model` or `answers`.
        path: the file that it was written to.
        sha256: of the file, hex.
        state: float64 (d,), the public state that it stands for.
        figures: on the table declared public; empty where there is none.
    """

    what: str
    path: Path
    sha256: str
    state: FloatVector
    figures: Mapping[str, float] = field(default_factory=dict)


class Program(Protocol):
    """The coordinator's half of a job. Pure: nothing but opened sums and public facts go in."""

    file_name: str
    """What `finish` writes, in the run's folder."""

    keeps_sums: bool
    """Whether the run's record holds every opened sum, so that anybody recomputes the result."""

    def begin(self) -> FloatVector:
        """The public state that round 1 starts from, float64 (d,)."""

    def fold(self, state: FloatVector, opened: Opened) -> FloatVector:
        """The state after a round that was opened.

        Args:
            state: float64 (d,), the one that the round started from.
            opened: what it gave.
        """

    def figures(self, state: FloatVector) -> Mapping[str, float]:
        """What is known of a state from the table declared public; empty where there is none."""

    def kept(self) -> dict[str, Any]:
        """What it keeps besides the state, JSON values; `resume` takes it up again."""

    def resume(self, kept: Mapping[str, Any]) -> None:
        """Take up what `kept` gave.

        Raises:
            ConfigError: it is another program's, or damaged.
        """

    def finish(self, state: FloatVector, output: Path, *, measured: bool) -> Result | None:
        """Write what the job ends with.

        Args:
            state: float64 (d,), after the last opened round.
            output: the folder.
            measured: whether any round was; figures are given only then.

        Returns:
            None where too little was opened for any result.

        Raises:
            ConfigError: it cannot be written.
        """
