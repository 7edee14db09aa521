"""Questions, the coordinator's half: one opening, and the answers that follow from its sum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from privagg.durable import write_whole
from privagg.encoding.vectors import FloatVector, IntVector, sum_of_text, sum_text
from privagg.errors import ConfigError
from privagg.privacy.plan import SumsPlan
from privagg.programs.program import ANSWERS_NAME, Opened, Result
from privagg.programs.questions.asked import Figure, Interval
from privagg.programs.questions.program import Answer, Questions

FORMAT = "privagg-answers/1"


class Asking:
    """Questions as a `Program`: the state is empty, and what is kept is the opened sum.

    Args:
        questions: what is asked.
        plan: the job's.
        epsilon: what it costs each data set, for the file.
    """

    file_name = ANSWERS_NAME
    keeps_sums = True

    def __init__(self, questions: Questions, plan: SumsPlan, epsilon: Decimal) -> None:
        self._questions, self._plan, self._epsilon = questions, plan, epsilon
        self._run, self._contributors = "", tuple[str, ...]()
        self._total: IntVector | None = None

    def begin(self) -> FloatVector:
        """See `Program.begin`: nothing."""
        return np.empty(0)

    def fold(self, state: FloatVector, opened: Opened) -> FloatVector:
        """See `Program.fold`: the opened sum is kept."""
        self._run, self._contributors = opened.round_id[0], opened.contributors
        self._total = opened.total
        return state

    def figures(self, state: FloatVector) -> Mapping[str, float]:
        """See `Program.figures`: none."""
        return {}

    def kept(self) -> dict[str, Any]:
        """See `Program.kept`: the opened sum, its run and whose integers are in it."""
        if self._total is None:
            return {}
        return {
            "run": self._run,
            "contributors": list(self._contributors),
            "opened": sum_text(self._total),
        }

    def resume(self, kept: Mapping[str, Any]) -> None:
        """See `Program.resume`."""
        if not kept:
            return
        try:
            total = sum_of_text(kept["opened"], self._plan.upload_dimension)
            self._run, self._contributors = str(kept["run"]), tuple(kept["contributors"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the journal keeps no opened sum: {error}") from error
        self._total = total

    def finish(self, state: FloatVector, output: Path, *, measured: bool) -> Result | None:
        """See `Program.finish`: `answers.json`; None where no sum was opened."""
        if self._total is None:
            return None
        data = (json.dumps(self._facts(self._total), indent=2, ensure_ascii=False) + "\n").encode()
        path = output / ANSWERS_NAME
        write_whole(path, data)
        return Result("answers", path, hashlib.sha256(data).hexdigest(), state)

    def _facts(self, total: IntVector) -> dict[str, JsonValue]:
        plan = self._plan
        answers = self._questions.answers(plan, total, self._contributors)
        return {
            "format": FORMAT,
            "run": self._run,
            "plan_digest": plan.digest,
            "unit": plan.unit.value,
            "epsilon": format(self._epsilon, "f"),
            "delta": format(plan.delta, "f"),
            "level": self._questions.asked.level,
            "contributors": list(self._contributors),
            "answers": [answer_facts(answer) for answer in answers],
        }


def answer_facts(answer: Answer) -> dict[str, JsonValue]:
    """An answer as JSON values: its question, and every figure with both intervals."""
    return {
        "question": answer.question.model_dump(mode="json"),
        "figures": [_figure_facts(figure) for figure in answer.figures],
    }


def _figure_facts(figure: Figure) -> dict[str, JsonValue]:
    return {
        "what": figure.what,
        "group": dict(figure.group),
        "value": figure.value,
        "raw": figure.raw,
        "records": _ends(figure.records),
        "population": _ends(figure.population),
    }


def _ends(interval: Interval) -> dict[str, JsonValue] | None:
    """None where nothing bounds the figure."""
    if not (isfinite(interval.low) and isfinite(interval.high)):
        return None
    return {"low": interval.low, "high": interval.high}
