"""Programs that answer, the coordinator's half: every opened sum is kept for the answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from privagg.durable import write_whole
from privagg.encoding.vectors import FloatVector, sum_of_text, sum_text
from privagg.errors import ConfigError
from privagg.privacy.plan import SumsPlan
from privagg.programs.answers import answer_facts
from privagg.programs.program import ANSWERS_NAME, Opened, Result
from privagg.programs.sums_program import AnsweringProgram, NoisySum

FORMAT = "privagg-answers/1"


class Answering:
    """A `AnsweringProgram` as a `Program`: every opened sum is kept, and moves the public state on.

    Args:
        program: the job's.
        plan: likewise.
        epsilon: what it costs each data set, for the file.
    """

    file_name = ANSWERS_NAME
    keeps_sums = True

    def __init__(self, program: AnsweringProgram, plan: SumsPlan, epsilon: Decimal) -> None:
        self._program, self._plan, self._epsilon = program, plan, epsilon
        self._run, self._sums = "", list[NoisySum]()

    def begin(self) -> FloatVector:
        """See `Program.begin`."""
        return self._program.begin()

    def fold(self, state: FloatVector, opened: Opened) -> FloatVector:
        """See `Program.fold`: the opened sum is kept, and the program takes its step."""
        self._run, number, _ = opened.round_id
        found = NoisySum.of(self._plan, number, opened.total, opened.contributors)
        self._sums.append(found)
        return self._program.step(number, state, found)

    def figures(self, state: FloatVector) -> Mapping[str, float]:
        """See `Program.figures`: none."""
        return {}

    def kept(self) -> dict[str, Any]:
        """See `Program.kept`: the run, its opened sums and whose integers are in each."""
        sums = [
            {"contributors": list(each.contributors), "opened": sum_text(each.total)}
            for each in self._sums
        ]
        return {"run": self._run, "sums": sums} if sums else {}

    def resume(self, kept: Mapping[str, Any]) -> None:
        """See `Program.resume`."""
        if not kept:
            return
        plan = self._plan
        try:
            self._sums = [
                NoisySum.of(
                    plan,
                    number,
                    sum_of_text(each["opened"], plan.openings[number - 1].length),
                    each["contributors"],
                )
                for number, each in enumerate(kept["sums"], 1)
            ]
            self._run = str(kept["run"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ConfigError(f"the journal keeps no opened sums: {error}") from error

    def finish(self, state: FloatVector, output: Path, *, measured: bool) -> Result | None:
        """See `Program.finish`: `answers.json`; None where no sum was opened."""
        if not self._sums:
            return None
        data = (json.dumps(self._facts(), indent=2, ensure_ascii=False) + "\n").encode()
        path = output / ANSWERS_NAME
        write_whole(path, data)
        return Result("answers", path, hashlib.sha256(data).hexdigest(), state)

    def _facts(self) -> dict[str, JsonValue]:
        plan = self._plan
        facts: dict[str, JsonValue] = {
            "format": FORMAT,
            "run": self._run,
            "plan_digest": plan.digest,
            "unit": plan.unit.value,
            "epsilon": format(self._epsilon, "f"),
            "delta": format(plan.delta, "f"),
            "level": self._program.level,
            "contributors": list(contributors_of(plan, self._sums)),
            "answers": [answer_facts(answer) for answer in self._program.answers(self._sums)],
        }
        if (model := self._program.model(self._sums)) is not None:
            facts["model"] = {**model, "run": self._run, "plan_digest": plan.digest}
        return facts


def contributors_of(plan: SumsPlan, sums: list[NoisySum]) -> tuple[str, ...]:
    """Whose integers are in any of the sums, in the plan's order.

    Args:
        plan: the job's.
        sums: that were opened.
    """
    there = {name for each in sums for name in each.contributors}
    return tuple(name for name in plan.names if name in there)
