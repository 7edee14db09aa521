"""A question: what a record adds for it, round by round, and what follows from the opened sums.

A question turns a record into a row of floats of L2 norm at most 1 and reads its answer from the
sum of the rows, which carries noise of a known standard deviation. Most need one sum (`OneSum`);
one that iterates, as a regression by Newton's steps does, has a public state that each opened sum
moves on. Rows are made by operations on each record's own numbers that IEEE arithmetic rounds
alike wherever a record stands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from privagg.programs.answers import Figure
from privagg.programs.questions.columns import Codes, Columns, FloatArray
from privagg.training.table import TableSchema

OTHER = "other or missing"


class Found(NamedTuple):
    """What a round opened for one question.

    Attributes:
        sums: float64 (width,), the rows' sum with noise.
        stddev: of the noise of each of them, or as much more as makes normal intervals hold where
            it is not normal (`NoisySum.normal_stddev`).
    """

    sums: FloatArray
    stddev: float


class Question(BaseModel, ABC):
    """One question; what it needs of the records is declared and public.

    Args:
        name: how the answer is called.
        share: of the asking's budget, relative to the other questions' shares; a question of
            several rounds has it spread evenly over them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    share: Decimal = Field(default=Decimal(1), gt=0, le=1000)

    @property
    def ones(self) -> int:
        """k where a row is 1/√k in k places at most and 0 elsewhere: its noise may be Laplace.

        0 where it adds other amounts: as small whole numbers these would be rounded too coarsely.
        """
        return 0

    @property
    @abstractmethod
    def about(self) -> str:
        """What it asks of the records, in a few words; English, as reports translate it."""

    @property
    def round_count(self) -> int:
        """How many sums it needs, each of one round."""
        return 1

    def fitted(self, records: int, epsilon: Fraction) -> Self:
        """The question with what it leaves to be chosen chosen, by public facts alone.

        Args:
            records: of all sites, as declared.
            epsilon: the part of the asking's that is its own.
        """
        return self

    @abstractmethod
    def width(self, schema: TableSchema, number: int) -> int:
        """Floats in a row of round `number`.

        Raises:
            ConfigError: a column is not declared as the question needs it.
        """

    def begin(self, schema: TableSchema) -> FloatArray:
        """The public state that round 1 starts from, float64 (d,); by default there is none."""
        return np.zeros(0)

    def state_length(self, schema: TableSchema, number: int) -> int:
        """d, float64 values in the public state that round `number` starts from."""
        return len(self.begin(schema))

    @abstractmethod
    def rows(
        self, schema: TableSchema, number: int, state: FloatArray, records: Columns
    ) -> FloatArray:
        """What each record adds in a round.

        Args:
            schema: the public declaration.
            number: of the round, from 1.
            state: float64 (d,), its public state.
            records: some of a site's.

        Returns:
            float64 (r, width), of L2 norm at most 1 but for rounding.
        """

    def step(self, schema: TableSchema, number: int, state: FloatArray, found: Found) -> FloatArray:
        """The state that round `number + 1` starts from; only public facts go in.

        Args:
            schema, number, state: as for `rows`.
            found: what the round opened.
        """
        return state

    @abstractmethod
    def answer(
        self, schema: TableSchema, found: Sequence[Found], level: float
    ) -> tuple[Figure, ...]:
        """The figures that follow from the opened sums.

        Args:
            schema: the public declaration.
            found: what rounds 1, 2, ... opened for it: of all its rounds, or, where the asking was
                cut short, of the first of them, one at least.
            level: of both intervals, in (0, 1).
        """

    def work(self, schema: TableSchema) -> int:
        """What its answer takes beside what every opened integer does, about, in microseconds."""
        return 0


class OneSum(Question, ABC):
    """A question that one sum answers."""

    @abstractmethod
    def cells(self, schema: TableSchema) -> int:
        """See `Question.width`."""

    @abstractmethod
    def values(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `Question.rows`."""

    @abstractmethod
    def read(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`.

        Args:
            schema, level: as there.
            sums: float64 (width,), the rows' sum with noise.
            stddev: of the noise of each of them.
        """

    def width(self, schema: TableSchema, number: int) -> int:
        """See `Question.width`."""
        return self.cells(schema)

    def rows(
        self, schema: TableSchema, number: int, state: FloatArray, records: Columns
    ) -> FloatArray:
        """See `Question.rows`."""
        return self.values(schema, records)

    def answer(
        self, schema: TableSchema, found: Sequence[Found], level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`."""
        return self.read(schema, *found[0], level)


def one_hot(cell: Codes, width: int) -> FloatArray:
    """float64 (r, width): 1 in each record's cell.

    Args:
        cell: int64 (r,), each in [0, width).
        width: cells.
    """
    return np.asarray(cell[:, None] == np.arange(width), dtype=np.float64)
