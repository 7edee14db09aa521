"""Programs over record sums that answer: as what a statistic, or anybody's own job, is written.

One class is a whole job: what its rounds open (`openings`), what a record adds (`integers`, at the
sites), how an opened sum moves the public state on (`step`) and what follows from all of them
(`answers`). Everything else is the same for every program: plan, approval, charge, receipts,
attempts, resume, report, and an auditor who calls `answers` on the opened sums of the record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import sqrt
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import JsonValue

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.privacy.laplace_law import LARGEST_SHAPE, LaplaceLaw
from privagg.privacy.laplace_noise import IntegerLaplace
from privagg.privacy.plan import OpeningTerms, SumsPlan
from privagg.programs.answers import Answer, deviations
from privagg.programs.sums import IntMatrix

_AT_THE_END = 1e-6
"""Noise is whole, so an interval's end is a value it takes: floats must not leave it outside."""


@dataclass(frozen=True)
class NoisySum:
    """What one round opened.

    Attributes:
        total: int64 (n,), the sum of the records' integers, with noise.
        stddev: of the noise of each integer.
        contributors: whose integers are in it, in roster order; each added a share of the noise.
        law: of the noise of each integer where it is integer Laplace; Gaussian otherwise.
    """

    total: IntVector
    stddev: float
    contributors: tuple[str, ...]
    law: LaplaceLaw | None = None

    @classmethod
    def of(cls, plan: SumsPlan, number: int, total: IntVector, contributors: Sequence[str]) -> Self:
        """As a round opened it.

        Args:
            plan: the job's.
            number: of the round, from 1.
            total: int64 (m,), m = `plan.upload_dimension`; what the round does not use is cut off.
            contributors: in roster order.
        """
        noise = plan.in_round(number).noise
        stddev = sqrt(noise.stddev_grid**2 * len(contributors)) if noise else 0.0
        law = None
        if isinstance(noise, IntegerLaplace):
            shape = min(Fraction(len(contributors), noise.shares), Fraction(LARGEST_SHAPE))
            law = LaplaceLaw(noise.scale, shape)
        return cls(total[: plan.openings[number - 1].length], stddev, tuple(contributors), law)

    def normal_stddev(self, level: float) -> float:
        """`stddev`, or that of a normal variable that reaches as far with probability `level`.

        Intervals made from it as from a normal variable's hold single integers of Laplace noise at
        that level, and sums of several, whose law lies between the two.

        Args:
            level: in (0, 1).
        """
        if self.law is None:
            return self.stddev
        own = sqrt(float(self.law.variance))
        reach = self.law.reach(level) + _AT_THE_END
        return self.stddev * max(1.0, reach / (deviations(level) * own))


class SumsProgram(ABC):
    """A job that opens noised sums over records and answers from them.

    Pure but for what `integers` is handed: it keeps nothing between calls, or every guarantee that
    rests on one record moving one row is lost. `tests/programs/contract.py` looks for what is not
    so; `privagg.programs.sums.SumsLearner` holds every row against the plan whatever it does.
    """

    name: ClassVar[str]
    """Under which it is registered in the entry points' group `privagg.programs`."""

    @classmethod
    @abstractmethod
    def of(cls, asked: Mapping[str, Any]) -> Self:
        """The program that its own `asked` describes; what a plan pins goes in too, so it is
        untrusted.

        Args:
            asked: JSON values: `data`, the table as declared; `level`, of the intervals; and the
                program's own settings.

        Raises:
            ValueError: they are not its own (pydantic's are).
            ConfigError: they do not fit the declared table; nothing was spent.
        """

    @property
    @abstractmethod
    def asked(self) -> dict[str, JsonValue]:
        """What `of` makes it from again: public, and pinned with the plan."""

    @property
    @abstractmethod
    def level(self) -> float:
        """Of the intervals, in (0, 1)."""

    @property
    def recipe(self) -> dict[str, JsonValue]:
        """What a plan pins of it; `privagg.programs.registry.program_of` reads it back."""
        return {"program": self.name, "asked": self.asked}

    @abstractmethod
    def openings(self, noise_multiplier: Decimal) -> tuple[OpeningTerms, ...]:
        """What each round opens.

        Args:
            noise_multiplier: that all rounds together would have were they one: rounds whose
                parts of the budget are w_k, adding to 1, have `noise_multiplier / sqrt(w_k)`, or
                `noise_multiplier / w_k` where their noise is integer Laplace.
        """

    def begin(self) -> FloatVector:
        """The public state that round 1 starts from, float64 (d,); by default there is none."""
        return np.zeros(0)

    @abstractmethod
    def integers(self, number: int, state: FloatVector, records: Any) -> IntMatrix:
        """See `RecordProgram.integers`; the records are `Columns` of a site's table."""

    def step(self, number: int, state: FloatVector, found: NoisySum) -> FloatVector:
        """The state that round `number + 1` starts from; only public facts go in.

        Args:
            number: of the round that was opened.
            state: float64 (d,), the one that it started from.
            found: what it opened.
        """
        return state

    @abstractmethod
    def answers(self, sums: Sequence[NoisySum]) -> tuple[Answer, ...]:
        """The answers, as anybody recomputes them from the opened sums.

        Args:
            sums: what rounds 1, 2, ... opened: all, or where the job was cut short the first of
                them, one at least.
        """
