"""Several questions in one asking: each has its part of a record's integers, and of the budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from math import gcd, isqrt, lcm, sqrt
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError
from privagg.privacy.plan import OpeningTerms, SumsPlan
from privagg.privacy.plan.arithmetic import sqrt_floor_decimal
from privagg.privacy.plan.sums import norm_of
from privagg.programs.answers import Answer
from privagg.programs.content import Content, OfContent
from privagg.programs.questions.asked import AnyQuestion
from privagg.programs.questions.columns import Columns
from privagg.programs.questions.question import Found, Question
from privagg.programs.registry import QUESTIONS
from privagg.programs.sums import IntMatrix
from privagg.programs.sums_program import NoisySum, SumsProgram

SENSITIVITY_GRID = 2**20
"""S: integers lose less than a millionth of what a record adds to a question with a fair share."""

MOST_NUMBERS = 2**16
"""Integers in one opening: the opened sum stands in one entry of the coordinator's ledger, and with
S as it is their squares stay below 2^63 together."""

SMALLEST_SCALE = 2**8

LARGEST_MOVES = 256
"""Sum of a record's integers under Laplace noise; shares are split to within one part of it."""


class AskedTogether(Content):
    """What is asked of whom in one asking, of whatever kinds: public, and pinned with the plan.

    Args:
        questions: in the order of their answers.
        noise: of the opened sums; `laplace` where a record adds nothing but ones.
    """

    questions: tuple[Question, ...]
    noise: Literal["gaussian", "laplace"] = "gaussian"

    @model_serializer(mode="wrap")
    def _without_the_usual_noise(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was pinned before there was other noise looks as it did."""
        facts: dict[str, Any] = handler(self)
        return {k: v for k, v in facts.items() if (k, v) != ("noise", "gaussian")}

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [question.name for question in self.questions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two questions have one name: {', '.join(twice)}")
        wide = [question.name for question in self.questions if not question.ones]
        if wide and self.noise == "laplace":
            raise ValueError(
                f"noise 'laplace' is for questions to which a record adds nothing but ones; "
                f"{', '.join(wide)} needs 'gaussian'"
            )
        return self


class Asked(AskedTogether):
    """What `[[questions]]` ask.

    Args:
        questions: of the kinds that a configuration can name.
    """

    questions: tuple[AnyQuestion, ...] = Field(min_length=1, max_length=1000)


class Part(NamedTuple):
    """One question's integers in one round.

    Attributes:
        place: of the question among those asked.
        question: itself.
        width: how many integers they are.
        scale: S_j, integers a unit: exactly what a record adds to a cell under Laplace noise.
        state: d_j, float64 values of the round's public state that are its own.
    """

    place: int
    question: Question
    width: int
    scale: int
    state: int


class Questions(OfContent, SumsProgram):
    """Questions that are answered together, most by one opening.

    Round k asks the questions of k rounds or more; one of share w and r rounds has w/r in each. In
    a round whose parts are w_1, w_2, ... a record adds, for question j, the integers
    trunc(S_j·x_j): x_j its row, of norm at most 1, and S_j = floor(S·sqrt(w_j / Σw)). So all of a
    record's integers have norm at most S, and question j is answered as if it had been asked alone
    under the fraction w_j / Σw of the round's budget (of a Gaussian's, which is 1/variance).

    Under integer Laplace noise, whose budget is ε itself, a record moves k_j integers of question j
    by S_j each (`Question.ones`), with small whole numbers S_j in proportion to w_j / k_j.

    Args:
        content: what is asked, of which columns.

    Raises:
        ConfigError: a question needs a column that is not declared so; nothing was spent.
    """

    name = QUESTIONS
    asks: ClassVar[type[Content]] = Asked
    content: AskedTogether

    def __init__(self, content: AskedTogether) -> None:
        super().__init__(content)
        count = max(question.round_count for question in content.questions)
        self._rounds = [self._parts(number) for number in range(1, count + 1)]

    def openings(self, noise_multiplier: Decimal) -> tuple[OpeningTerms, ...]:
        """See `SumsProgram.openings`: each round has the part of the budget that its questions
        have.
        """
        whole = sum((Fraction(each.share) for each in self.content.questions), Fraction(0))
        square = Fraction(noise_multiplier) ** 2
        laplace, found = self.content.noise == "laplace", list[OpeningTerms]()
        for number, parts in enumerate(self._rounds, 1):
            rest = whole / self._weight(number)
            each = (scale for part in parts for scale in [part.scale] * part.question.ones)
            moves = tuple(sorted(each, reverse=True))
            terms = OpeningTerms(
                state=sum(part.state for part in parts),
                length=sum(part.width for part in parts),
                sensitivity_grid=norm_of(moves) if laplace else SENSITIVITY_GRID,
                largest_grid=max(part.scale for part in parts),
                noise_multiplier=sqrt_floor_decimal(square * (rest**2 if laplace else rest)),
                moves=moves if laplace else None,
            )
            found.append(terms)
        return tuple(found)

    def largest_stddev(self, plan: SumsPlan) -> float:
        """Of the noise of any count, when every site contributes; of questions with `ones` alone.

        Args:
            plan: the job's, or one of another noise to compare with.
        """
        found = []
        for number, parts in enumerate(self._rounds, 1):
            noise = plan.in_round(number).noise
            stddev = sqrt(noise.stddev_grid**2 * plan.addends) if noise else 0.0
            ones = ((sqrt(part.question.ones), self._a_row(part)) for part in parts)
            found.append(stddev * max(root / unit for root, unit in ones))
        return max(found)

    def begin(self) -> FloatVector:
        """See `SumsProgram.begin`: the questions' own states, one after the other."""
        questions = self.content.questions
        return np.concatenate([each.begin(self.content.data) for each in questions])

    def integers(self, number: int, state: FloatVector, records: Columns) -> IntMatrix:
        """See `SumsProgram.integers`."""
        schema = self.content.data
        whole = np.rint if self.content.noise == "laplace" else np.trunc  # there they are S_j
        return np.concatenate(
            [
                whole(part.question.rows(schema, number, own, records) * self._a_row(part)).astype(
                    np.int64
                )
                for part, own in self._states(number, state)
            ],
            axis=1,
        )

    def step(self, number: int, state: FloatVector, found: NoisySum) -> FloatVector:
        """See `SumsProgram.step`: of the questions that are asked again."""
        schema = self.content.data
        opened = self._found(number, found)
        return np.concatenate(
            [np.zeros(0)]
            + [
                part.question.step(schema, number, own, opened[part.place])
                for part, own in self._states(number, state)
                if part.question.round_count > number
            ]
        )

    def answers(self, sums: Sequence[NoisySum]) -> tuple[Answer, ...]:
        """See `SumsProgram.answers`."""
        rounds = [self._found(number, found) for number, found in enumerate(sums, 1)]
        return tuple(
            Answer(
                {**question.model_dump(mode="json"), "about": question.about},
                question.answer(
                    self.content.data,
                    [found[place] for found in rounds if place in found],
                    self.level,
                ),
            )
            for place, question in enumerate(self.content.questions)
        )

    def work(self) -> int:
        """See `AnsweringProgram.work`."""
        schema = self.content.data
        return super().work() + sum(each.work(schema) for each in self.content.questions)

    def _a_row(self, part: Part) -> float:
        """Integers that a row of norm 1 stands for: S_j, or of k_j times S_j their norm."""
        laplace = self.content.noise == "laplace"
        return part.scale * (sqrt(part.question.ones) if laplace else 1.0)

    def _weight(self, number: int) -> Fraction:
        """The shares that round `number` has of all questions' shares."""
        return sum(
            (
                Fraction(each.share) / each.round_count
                for each in self.content.questions
                if each.round_count >= number
            ),
            Fraction(0),
        )

    def _parts(self, number: int) -> list[Part]:
        """What round `number` asks.

        Raises:
            ConfigError: it does not fit one opening, or a share is too small beside the others.
        """
        schema, weight = self.content.data, self._weight(number)
        asked = [
            (place, each)
            for place, each in enumerate(self.content.questions)
            if each.round_count >= number
        ]
        shares = [Fraction(each.share) / each.round_count / weight for _, each in asked]
        laplace = self.content.noise == "laplace"
        scales = (
            _of_ones(shares, [each.ones for _, each in asked])
            if laplace
            else [_root(SENSITIVITY_GRID**2 * share) for share in shares]
        )
        parts = [
            Part(place, each, each.width(schema, number), scale, each.state_length(schema, number))
            for (place, each), scale in zip(asked, scales, strict=True)
        ]
        cells = sum(part.width for part in parts)
        if cells > MOST_NUMBERS:
            raise ConfigError(
                f"the questions have {cells} cells together, at most {MOST_NUMBERS} fit one "
                "opening; ask fewer, or with fewer bins. Nothing was spent"
            )
        least = min(parts, key=lambda part: part.scale)
        if not laplace and least.scale < SMALLEST_SCALE:
            raise ConfigError(
                f"the share {least.question.share} of question {least.question.name!r} is too "
                f"small beside {float(weight):g} of all together to be answered; give it more. "
                "Nothing was spent"
            )
        return parts

    def _states(self, number: int, state: FloatVector) -> Iterator[tuple[Part, FloatVector]]:
        """Each question's part of a round, with its own part of the public state."""
        start = 0
        for part in self._rounds[number - 1]:
            yield part, state[start : start + part.state]
            start += part.state

    def _found(self, number: int, found: NoisySum) -> dict[int, Found]:
        """Place of a question -> what a round opened for it."""
        start, parts, stddev = 0, {}, found.normal_stddev(self.level)
        for part in self._rounds[number - 1]:
            own = found.total[start : start + part.width].astype(np.float64)
            unit = self._a_row(part)
            parts[part.place] = Found(own / unit, stddev / unit)
            start += part.width
        return parts


def whole_parts(shares: Sequence[Fraction]) -> list[int]:
    """Whole numbers in proportion to the shares, at least 1 each.

    Exactly, where that takes a sum of no more than `LARGEST_MOVES`; otherwise rounded to it.

    Args:
        shares: positive, adding to 1.
    """
    common = lcm(*(share.denominator for share in shares))
    exact = [int(share * common) for share in shares]
    divisor = gcd(*exact)
    if sum(exact) <= LARGEST_MOVES * divisor:
        return [part // divisor for part in exact]
    return [max(1, round(share * LARGEST_MOVES)) for share in shares]


def _of_ones(shares: Sequence[Fraction], ones: Sequence[int]) -> list[int]:
    """S_j of questions with these shares, to whose cells a record adds so many times S_j."""
    each = [share / times for share, times in zip(shares, ones, strict=True)]
    return whole_parts([part / sum(each) for part in each])


def _root(square: Fraction) -> int:
    """floor(sqrt(square))."""
    return isqrt(square.numerator // square.denominator)
