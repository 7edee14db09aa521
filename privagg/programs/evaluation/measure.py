"""How a kind of target is measured: what a record adds, and what follows from the opened sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from privagg.programs.answers import Answer, Figure
from privagg.programs.evaluation.estimates import Cells, FloatArray
from privagg.training.targets import Encoded

Codes = npt.NDArray[np.int64]


class Scores(NamedTuple):
    """What a model says of some records, and what is so.

    Attributes:
        outputs: float64 `(r, k)`, of the model.
        targets: as the target reads them, of the same records.
    """

    outputs: FloatArray
    targets: Encoded


class Measure(ABC):
    """One kind of target. In the last round every group of records has sums of its own; a round
    before it may open something of all records together, from which public knots follow.
    """

    parts: tuple[Fraction, ...] = (Fraction(1),)
    """Of the budget, for each round; they add to 1."""

    only_ones: ClassVar[bool] = False
    """Whether a record adds nothing but ones, so that integer Laplace noise can hide it."""

    @abstractmethod
    def width(self, number: int) -> int:
        """How many floats a record adds in round `number`, in one group."""

    @abstractmethod
    def square(self, number: int) -> Fraction:
        """What the squares of these floats add up to at most."""

    @abstractmethod
    def ones(self, number: int) -> int:
        """In how many cells a record counts, in one group: 1 each, beside what else it adds."""

    def knots(self, number: int) -> int:
        """How many public knots round `number` starts from."""
        return 0

    def place(self, opened: FloatArray) -> FloatArray:
        """Public knots for the last round, from what the one before opened, noise and all."""
        return np.zeros(0)

    @abstractmethod
    def rows(self, number: int, knots: FloatArray, scores: Scores) -> FloatArray:
        """What each record adds, float64 `(r, width)`, by its own outputs and target alone.

        Args:
            number: of the round.
            knots: that it starts from.
            scores: of some records.
        """

    @abstractmethod
    def cells(
        self, opened: FloatArray, variance: float, group: dict[str, str], level: float
    ) -> Cells:
        """The last round's sums of one group.

        Args:
            opened: float64 `(width,)`, the rows' sum with noise.
            variance: of the noise of each.
            group: what the records have in common.
            level: of the intervals.
        """

    @abstractmethod
    def figures(self, knots: FloatArray, cells: Cells) -> tuple[Figure, ...]:
        """What the last round says of one group of records.

        Args:
            knots: that the round started from.
            cells: of the group.
        """

    def curves(self, knots: FloatArray, cells: Cells) -> tuple[Answer, ...]:
        """What else is said of all records together; by default nothing.

        Args:
            knots, cells: as for `figures`.
        """
        return ()


def in_cells(cell: Codes, width: int) -> FloatArray:
    """float64 `(r, width)`: 1 in each record's cell.

    Args:
        cell: int64 `(r,)`, each in [0, width).
        width: cells.
    """
    return np.asarray(cell[:, None] == np.arange(width), dtype=np.float64)


def some_of(width: int, places: slice | list[int]) -> npt.NDArray[np.bool_]:
    """Which counts are added, bool `(width,)`: those at `places`."""
    found = np.zeros(width, dtype=np.bool_)
    found[places] = True
    return found
