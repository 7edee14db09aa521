"""Programs over sums that answer: as what a statistic, or anybody's own job, is written.

One class is a whole job: what its rounds open (`openings`), what a record adds at the sites
(`integers` of a `SumsProgram`) or a shard of records (`votes` of a `ShardsProgram`), how an opened
sum moves the public state on (`step`) and what follows from all of them (`answers`). Everything
else is the same for every program: plan, approval, charge, receipts, attempts, resume, report, and
an auditor who calls `answers` on the opened sums of the record.
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
from privagg.errors import ConfigError
from privagg.privacy.laplace_law import LARGEST_SHAPE, LaplaceLaw
from privagg.privacy.laplace_noise import IntegerLaplace
from privagg.privacy.plan import OpeningTerms, SumsPlan
from privagg.privacy.plan.sums import norm_of
from privagg.privacy.randomness import ByteStream
from privagg.programs.answers import Answer, deviations
from privagg.programs.sums import IntMatrix, Placed

_AT_THE_END = 1e-6
"""Noise is whole, so an interval's end is a value it takes: floats must not leave it outside."""

# Microseconds: answers of any kind, and for each opened integer.
_ANY_ANSWER, _OPENED = 5000, 40


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


class AnsweringProgram(ABC):
    """A job that opens noised sums and answers from them; what its sums are over, subclasses say.

    Pure but for the records that it is handed: it keeps nothing between calls, or every guarantee
    that rests on one record moving one vector is lost. `tests/programs/contract.py` looks for what
    is not so.
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

    @classmethod
    def chosen(
        cls, asked: Mapping[str, Any], records: int, epsilon: Fraction, delta: Fraction
    ) -> Mapping[str, Any]:
        """What is asked, with what it leaves open chosen by public facts alone.

        Args:
            asked: as for `of`.
            records: of all sites, as declared.
            epsilon, delta: what the job may cost each data set.

        Raises:
            ValueError, ConfigError: as `of`.
        """
        return asked

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

    def require_sites(self, names: Sequence[str]) -> None:
        """Refuse what is said of sites that are not there; by default nothing is said of any.

        Args:
            names: of the plan's sites.

        Raises:
            ConfigError: what should be said; nothing was spent.
        """
        return

    def at(self, site: str) -> Self:
        """The program as one site runs it; by default it is the same at all of them.

        Another site's may compute integers in another way, by public facts alone: openings, state
        and answers are those of this one.

        Args:
            site: its name in the plan.

        Raises:
            ConfigError: it cannot be run here; nothing was spent.
        """
        return self

    def begin(self) -> FloatVector:
        """The public state that round 1 starts from, float64 (d,); by default there is none."""
        return np.zeros(0)

    def require_state(self, number: int, state: FloatVector) -> None:
        """Refuse a round's public state that what is asked rules out; at a site, before its charge.

        By default every state is taken: the guarantee holds under any.

        Args:
            number: of the round.
            state: float64 (d,), that it would start from.

        Raises:
            WrongRoundError: what it should be; nothing is charged.
        """
        return

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

    def model(self, sums: Sequence[NoisySum]) -> dict[str, JsonValue] | None:
        """A model that follows from the opened sums, as JSON values; None where none does.

        Args:
            sums: as for `answers`.
        """
        return None

    def work(self) -> int:
        """What `answers` takes, about, in microseconds of processor time: an auditor counts it
        before it answers, so state no less than the largest."""
        return _ANY_ANSWER + _OPENED * sum(each.length for each in self.openings(Decimal(1)))


class SumsProgram(AnsweringProgram):
    """Sums over records: each adds a vector of integers that follows from it alone.

    `privagg.programs.sums.SumsLearner` holds every row against the plan whatever it does.
    """

    @abstractmethod
    def integers(self, number: int, state: FloatVector, records: Any) -> IntMatrix | Placed:
        """See `RecordProgram.integers`; the records are `Columns` of a site's table."""


class ShardsProgram(AnsweringProgram):
    """Sums over shards: each votes by what its own records say, together.

    Every opening states `shards`; `opening_of_votes` makes one. The records are dealt by the
    engine, and `privagg.programs.shards.ShardsLearner` holds every vector against the plan.
    """

    @abstractmethod
    def votes(self, number: int, state: FloatVector, shard: Any, draws: ByteStream) -> IntVector:
        """What one shard adds in a round.

        A function of these four alone: nothing kept from other shards or earlier rounds, no
        chance but `draws`.

        Args:
            number: of the round, from 1.
            state: float64 (d,), the round's public state.
            shard: its records, `Columns` of a site's table, in an order that follows from their
                values; there may be none.
            draws: random bytes of the shard's own, secret.

        Returns:
            int64 (n,), n as the plan's opening of this round says; none below 0.
        """


def openings_of(program: AnsweringProgram, noise_multiplier: Decimal) -> tuple[OpeningTerms, ...]:
    """What a program opens, of the kind that it is.

    Args:
        program: over records or over shards.
        noise_multiplier: see `AnsweringProgram.openings`.

    Raises:
        ConfigError: an opening is over shards and the program over records, or the other way round.
        ValueError: no plan has such an opening (pydantic's are).
    """
    openings = program.openings(noise_multiplier)
    of_shards = isinstance(program, ShardsProgram)
    for number, terms in enumerate(openings, 1):
        if (terms.shards is not None) != of_shards:
            raise ConfigError(
                f"program {program.name!r} is over {'shards' if of_shards else 'records'}, and its "
                f"opening {number} states {'no' if of_shards else terms.shards} shards; "
                "`opening_of_votes` makes one of a ShardsProgram, no other states any. "
                "Nothing was spent"
            )
    return openings


def opening_of_votes(
    *, length: int, votes: int, weight: int, shards: int, noise_multiplier: Decimal, state: int = 0
) -> OpeningTerms:
    """One round in which every shard casts votes, each `weight` in one place or shared out.

    Another set of votes lies sqrt(2) `weight` away for each of them, sqrt(2 `votes`) `weight` for
    all at once, and that is the sensitivity that the noise is for.

    Args:
        length: n, integers that a shard adds.
        votes: m, how many a shard casts.
        weight: grid units of one.
        shards: of each site.
        noise_multiplier: of the round.
        state: d, float64 values in the public state that the round starts from.

    Raises:
        ValidationError: no plan has such an opening.

    Source: Papernot, Abadi, Erlingsson, Goodfellow & Talwar, "Semi-supervised knowledge transfer
        for deep learning from private training data", ICLR 2017 (votes of models on disjoint
        parts); Papernot, Song, Mironov, Raghunathan, Talwar & Erlingsson, "Scalable private
        learning with PATE", ICLR 2018 (Gaussian noise, one record changes two counts by one).
    """
    return OpeningTerms(
        state=state,
        length=length,
        sensitivity_grid=norm_of([weight] * (2 * votes)),
        largest_grid=weight,
        shards=shards,
        noise_multiplier=noise_multiplier,
    )
