"""Several questions in one opening: each has its part of a record's integers, and of the budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isqrt, sqrt
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import ConfigError
from privagg.privacy.plan import OpeningTerms, SumsPlan
from privagg.programs.questions.asked import AnyQuestion, Figure, Question
from privagg.programs.questions.columns import Columns
from privagg.programs.sums import IntMatrix
from privagg.training.table import TableSchema

SENSITIVITY_GRID = 2**20
"""S: integers lose less than a millionth of what a record adds to a question with a fair share."""

MOST_NUMBERS = 2**16
"""Integers in one opening: the opened sum stands in one entry of the coordinator's ledger, and with
S as it is their squares stay below 2^63 together."""

SMALLEST_SCALE = 2**8


class Asked(BaseModel):
    """What is asked of whom: public, and pinned with the plan as its recipe.

    Args:
        data: the columns, as declared.
        questions: in the order of their answers.
        level: of the intervals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: TableSchema
    questions: tuple[AnyQuestion, ...] = Field(min_length=1, max_length=1000)
    level: float = Field(default=0.95, gt=0.5, lt=1)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [question.name for question in self.questions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two questions have one name: {', '.join(twice)}")
        return self

    @property
    def recipe(self) -> dict[str, JsonValue]:
        """What a plan pins of it; `of_recipe` reads it back."""
        return {"program": "questions", "asked": self.model_dump(mode="json")}


@dataclass(frozen=True)
class Answer:
    """What became of one question.

    Attributes:
        question: what was asked.
        figures: what follows from the opened sums.
    """

    question: Question
    figures: tuple[Figure, ...]


class Questions:
    """Questions that one opening answers: a `RecordProgram`, and what is made of the sum.

    A record adds, for question j of share w_j, the integers trunc(S_j·x_j): x_j its row, of norm
    at most 1, and S_j = floor(S·sqrt(w_j / Σw)). So all of a record's integers have norm at most S,
    and question j is answered as if it had been asked alone under the fraction w_j / Σw of the
    budget (of a Gaussian's, which is 1/variance).

    Args:
        asked: what is asked, of which columns.

    Raises:
        ConfigError: a question needs a column that is not declared so; nothing was spent.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._widths = [question.width(asked.data) for question in asked.questions]
        if sum(self._widths) > MOST_NUMBERS:
            raise ConfigError(
                f"the questions have {sum(self._widths)} cells together, at most {MOST_NUMBERS} "
                "fit one opening; ask fewer, or with fewer bins. Nothing was spent"
            )
        whole = sum((Fraction(question.share) for question in asked.questions), Fraction(0))
        self._scales = [
            _root(SENSITIVITY_GRID**2 * Fraction(question.share) / whole)
            for question in asked.questions
        ]
        if min(self._scales) < SMALLEST_SCALE:
            least = min(asked.questions, key=lambda question: question.share)
            raise ConfigError(
                f"the share {least.share} of question {least.name!r} is too small beside "
                f"{float(whole):g} of all together to be answered; give it more. Nothing was spent"
            )

    def openings(self, noise_multiplier: Decimal) -> tuple[OpeningTerms, ...]:
        """The rounds that a plan states: one.

        Args:
            noise_multiplier: of the opening.
        """
        return (
            OpeningTerms(
                length=sum(self._widths),
                sensitivity_grid=SENSITIVITY_GRID,
                largest_grid=max(self._scales),
                noise_multiplier=noise_multiplier,
            ),
        )

    def integers(self, number: int, state: FloatVector, records: Columns) -> IntMatrix:
        """See `RecordProgram.integers`."""
        asked = self.asked
        parts = [
            np.trunc(question.rows(asked.data, records) * float(scale)).astype(np.int64)
            for question, scale in zip(asked.questions, self._scales, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    def answers(
        self, plan: SumsPlan, total: IntVector, contributors: Sequence[str]
    ) -> tuple[Answer, ...]:
        """The answers, as anybody recomputes them from the opened sum.

        Args:
            plan: the job's.
            total: int64 (n,), the opened sum.
            contributors: whose integers are in it; each added a share of the noise.
        """
        noise, schema, level = plan.in_round(1).noise, self.asked.data, self.asked.level
        deviation = sqrt(noise.stddev_grid**2 * len(contributors)) if noise else 0.0
        return tuple(
            Answer(question, question.answer(schema, sums / scale, deviation / scale, level))
            for question, sums, scale in self._parts(total)
        )

    def _parts(self, total: IntVector) -> Iterator[tuple[Question, FloatVector, int]]:
        start = 0
        for question, width, scale in zip(
            self.asked.questions, self._widths, self._scales, strict=True
        ):
            yield question, total[start : start + width].astype(np.float64), scale
            start += width


def of_recipe(recipe: object) -> Questions:
    """The questions that a plan pins.

    Raises:
        ValueError: it pins none (untrusted input).
        ConfigError: as `Questions`.
    """
    if not isinstance(recipe, dict) or recipe.get("program") != "questions":
        raise ValueError("the plan's recipe is not one of questions")
    return Questions(Asked.model_validate(recipe.get("asked")))


def _root(square: Fraction) -> int:
    """floor(sqrt(square))."""
    return isqrt(square.numerator // square.denominator)
