"""An opened model on the sites' own held-out records: what a record adds, and what is answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from math import isqrt, sqrt
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError, WrongRoundError
from privagg.privacy.plan import OpeningTerms, SumsPlan
from privagg.privacy.plan.arithmetic import sqrt_floor_decimal
from privagg.privacy.plan.sums import norm_of
from privagg.programs.answers import Answer, count_figure
from privagg.programs.content import Content, OfContent
from privagg.programs.evaluation.estimates import Cells, FloatArray
from privagg.programs.evaluation.held import HeldRecords, OpenedModel, digest_of
from privagg.programs.evaluation.measure import Codes, Measure, Scores
from privagg.programs.evaluation.measures import measure_of
from privagg.programs.evaluation.rounds import RoundsMeasure, Schedule
from privagg.programs.questions.columns import categories_of
from privagg.programs.questions.question import OTHER
from privagg.programs.sums import IntMatrix
from privagg.programs.sums_program import NoisySum, SumsProgram
from privagg.training.factories import ApprovedCode
from privagg.training.heldout import HeldOut

SENSITIVITY_GRID = 2**20
MOST_NUMBERS = 2**16
"""As of questions: what one entry of a ledger holds."""

SITE = "site"


class Evaluated(Content):
    """Which model is evaluated on what: public, and pinned with the plan.

    Args:
        model: which is evaluated.
        held_out: which records are evaluated on, and were left out of training.
        sites: their names, where figures are given by site; else none.
        subgroups: columns with declared categories by which figures are given.
        threshold: probability from which on a record of two classes is called positive.
        bins: of the scores.
        noise: of the opened sums; `laplace` where a record adds nothing but ones.
        schedule: when a training's models are evaluated between its rounds; None of one that is
            over.
    """

    model: OpenedModel
    held_out: HeldOut
    sites: tuple[str, ...] = Field(default=(), max_length=1000)
    subgroups: tuple[str, ...] = Field(default=(), max_length=100)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    bins: int = Field(default=8, ge=2, le=100)
    noise: Literal["gaussian", "laplace"] = "gaussian"
    schedule: Schedule | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was pinned before there was other noise, or a schedule, looks as it did."""
        usual = {("noise", "gaussian"), ("schedule", None)}
        facts: dict[str, Any] = handler(self)
        return {k: v for k, v in facts.items() if isinstance(v, dict | list) or (k, v) not in usual}

    @model_validator(mode="after")
    def _one_model_or_a_schedule(self) -> Self:
        if self.model.pinned == (self.schedule is not None):
            raise ValueError("either one model is pinned by its digests, or a schedule of rounds")
        if self.schedule is not None and (self.sites or self.subgroups or self.noise != "gaussian"):
            raise ValueError("rounds are compared over all records, with Gaussian noise")
        return self

    @field_validator("sites", "subgroups")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return names


class Family(NamedTuple):
    """Groups that every record is in one of.

    Attributes:
        name: column that they are by; `SITE`; empty of all records together.
        labels: of the groups.
    """

    name: str
    labels: tuple[str, ...]


class Evaluation(OfContent, SumsProgram):
    """How well an opened model does, from sums over held-out records in all their groups.

    In the last round a record adds a row to the sums of all records, to those of its site and to
    those of its category in each declared column: in m families of groups, so that one record's
    integers have norm at most S. The sums over a family's groups say again what those of all
    records do, and both are taken together by their noise.

    Args:
        content: what is evaluated.
        parameters: float64 `(d,)`, the model's, for whoever sends them round; not for an auditor.
        code: what may be imported for a model of somebody's own.

    Raises:
        ConfigError: what is asked does not fit the declared table; nothing was spent.

    Attributes:
        rounds: what compares a training's rounds, where they are evaluated; else None.
    """

    name = "evaluation"
    asks = Evaluated
    content: Evaluated

    def __init__(
        self,
        content: Evaluated,
        parameters: FloatVector | None = None,
        code: ApprovedCode | None = None,
    ) -> None:
        super().__init__(content)
        self._parameters, self._code = parameters, code or ApprovedCode()
        target, threshold = content.data.target, content.threshold
        self.rounds = None
        if content.schedule is not None:
            self.rounds = RoundsMeasure(content.schedule, target, threshold)
        self._measure: Measure = self.rounds or measure_of(
            target, threshold=threshold, bins=content.bins
        )
        self._laplace = content.noise == "laplace"
        if self._laplace and not self._measure.only_ones:
            raise ConfigError(
                "evaluation.noise 'laplace' is for models of which a record adds nothing but ones "
                "(data.target.kind ordinal); take 'gaussian' or 'auto'. Nothing was spent"
            )
        self._families = tuple(self._grouped())
        if self._length(self._rounds) > MOST_NUMBERS:
            raise ConfigError(
                f"the evaluation opens {self._length(self._rounds)} numbers, at most "
                f"{MOST_NUMBERS} fit one opening; take fewer subgroups or bins. Nothing was spent"
            )

    @property
    def only_ones(self) -> bool:
        """Whether a record adds nothing but ones, so that integer Laplace noise can hide it."""
        return self._measure.only_ones

    def openings(self, noise_multiplier: Decimal) -> tuple[OpeningTerms, ...]:
        """See `SumsProgram.openings`."""
        found = list[OpeningTerms]()
        for number, part in enumerate(self._measure.parts, 1):
            moves = (1,) * (self._measure.ones(number) * self._rows(number))
            rest = part**2 if self._laplace else part
            terms = OpeningTerms(
                state=self.content.model.parameters + self._measure.knots(number),
                length=self._length(number),
                sensitivity_grid=norm_of(moves) if self._laplace else SENSITIVITY_GRID,
                largest_grid=self._scale(number),
                noise_multiplier=sqrt_floor_decimal(Fraction(noise_multiplier) ** 2 / rest),
                moves=moves if self._laplace else None,
            )
            found.append(terms)
        return tuple(found)

    def largest_stddev(self, plan: SumsPlan) -> float:
        """Of the noise of any cell, in records, when every site contributes.

        Args:
            plan: the job's, or one of another noise to compare with.
        """
        found = []
        for number in range(1, self._rounds + 1):
            noise = plan.in_round(number).noise
            stddev = sqrt(noise.stddev_grid**2 * plan.addends) if noise else 0.0
            found.append(stddev / self._scale(number))
        return max(found)

    def begin(self) -> FloatVector:
        """See `SumsProgram.begin`: the model's parameters.

        Raises:
            ConfigError: they are not at hand.
        """
        if self._parameters is None:
            raise ConfigError(
                "an evaluation needs the model that it is of; write [evaluation] with private = "
                "true and call `privagg evaluate`. Nothing was spent"
            )
        return self._parameters

    def require_state(self, number: int, state: FloatVector) -> None:
        """See `SumsProgram.require_state`: no other model than the pinned one is evaluated."""
        pinned = self.content.model
        found = digest_of(state[: pinned.parameters])
        if pinned.pinned and found != pinned.parameters_sha256:
            raise WrongRoundError(
                f"the round brings a model whose parameters have SHA-256 {found}, and the plan "
                f"evaluates the one with {pinned.parameters_sha256} (file {pinned.sha256}); "
                "nothing was charged"
            )

    def integers(self, number: int, state: FloatVector, records: HeldRecords) -> IntMatrix:
        """See `SumsProgram.integers`; a record is one of `HeldRecords`."""
        from privagg.programs.evaluation.scoring import model_outputs

        content, size = self.content, self.content.model.parameters
        target, code = content.data.target, self._code
        outputs = model_outputs(content.model, target, state[:size], records.inputs, code)
        scores = Scores(outputs, records.targets)
        own = self._measure.rows(number, state[size:], scores)
        added = np.trunc(own * float(self._scale(number))).astype(np.int64)
        if number < self._rounds:
            return added
        families = [
            _in_groups(_group(family, records), len(family.labels), added)
            for family in self._families
        ]
        return np.concatenate(families, axis=1)

    def step(self, number: int, state: FloatVector, found: NoisySum) -> FloatVector:
        """See `SumsProgram.step`: public knots follow the parameters."""
        knots = self._measure.place(found.total / float(self._scale(number)))
        return np.concatenate([state[: self.content.model.parameters], knots])

    def answers(self, sums: Sequence[NoisySum]) -> tuple[Answer, ...]:
        """See `SumsProgram.answers`; of a job that was cut short, how many records there are."""
        if self.rounds is not None:
            stddev = max(each.stddev for each in sums) / self._scale(1)
            return (self.rounds.answer(self.looks(sums), stddev**2, self.level),)
        scale = float(self._scale(len(sums)))
        opened, stddev = sums[-1].total / scale, sums[-1].normal_stddev(self.level) / scale
        if len(sums) < self._rounds:
            each = self._measure.ones(len(sums))
            noise = stddev * float(np.sqrt(len(opened))) / each
            figure = count_figure(float(opened.sum()) / each, {}, noise, self.level)
            return (Answer({"name": "all records", "about": "how many records"}, (figure,)),)
        before = self._rounds - 1
        knots = np.zeros(0)
        if before:
            knots = self._measure.place(sums[before - 1].total / float(self._scale(before)))
        return tuple(self._answered(knots, opened, stddev**2))

    def looks(self, sums: Sequence[NoisySum]) -> list[FloatArray]:
        """What each look at a training opened, in records, for `rounds` to decide by.

        Args:
            sums: what rounds 1, 2, ... opened.
        """
        return [each.total / float(self._scale(1)) for each in sums]

    # --- groups ---------------------------------------------------------------------------------

    def _grouped(self) -> Iterator[Family]:
        """Every family of groups, that of all records first.

        Raises:
            ConfigError: a column has no declared categories.
        """
        content = self.content
        yield Family("", ("",))
        if content.sites:
            yield Family(SITE, content.sites)
        for column in content.subgroups:
            yield Family(column, (*categories_of(content.data, column), OTHER))

    def _answered(self, knots: FloatArray, opened: FloatArray, variance: float) -> Iterator[Answer]:
        """All answers; what is said of all records comes from every family's sums.

        Args:
            knots: public, that the last round started from.
            opened: float64 (n,), in records.
            variance: of the noise of each.
        """
        ends = np.cumsum([len(family.labels) for family in self._families])
        groups = np.split(opened.reshape(-1, self._measure.width(self._rounds)), ends[:-1])
        weights = [1 / len(each) for each in groups]
        whole = sum(w * each.sum(axis=0) for w, each in zip(weights, groups, strict=True))
        cells = self._cells(whole / sum(weights), variance / sum(weights), {})
        figures = self._measure.figures(knots, cells)
        yield Answer({"name": "all records", "about": "how well the model does"}, figures)
        yield from self._measure.curves(knots, cells)
        for family, sums in zip(self._families[1:], groups[1:], strict=True):
            found = [
                self._measure.figures(knots, self._cells(own, variance, {family.name: label}))
                for label, own in zip(family.labels, sums, strict=True)
            ]
            yield Answer(
                {
                    "name": f"by {family.name}",
                    "about": f"how well the model does by {family.name}",
                },
                tuple(figure for figures in found for figure in figures),
            )

    def _cells(self, opened: FloatArray, variance: float, group: dict[str, str]) -> Cells:
        return self._measure.cells(opened, variance, group, self.level)

    # --- sizes ----------------------------------------------------------------------------------

    @property
    def _rounds(self) -> int:
        return len(self._measure.parts)

    def _length(self, number: int) -> int:
        """How many integers a record adds in a round."""
        groups = sum(len(family.labels) for family in self._families)
        return self._measure.width(number) * (groups if number == self._rounds else 1)

    def _scale(self, number: int) -> int:
        """Integers a unit: m rows of that many, truncated, have norm at most S."""
        if self._laplace:
            return 1
        square = self._rows(number) * self._measure.square(number)
        return isqrt(int(SENSITIVITY_GRID**2 / square))

    def _rows(self, number: int) -> int:
        """To how many groups a record adds."""
        return len(self._families) if number == self._rounds else 1


def _group(family: Family, records: HeldRecords) -> Codes:
    """In which of a family's groups each record is, int64 (r,)."""
    if not family.name:
        return np.zeros(len(records), dtype=np.int64)
    if family.name == SITE:
        return np.full(len(records), records.site, dtype=np.int64)
    return records.codes[family.name]


def _in_groups(group: Codes, count: int, rows: IntMatrix) -> IntMatrix:
    """Each row at its group's place among zeros, int64 (r, count · width)."""
    placed = np.zeros((len(rows), count, rows.shape[1]), dtype=np.int64)
    placed[np.arange(len(rows)), group] = rows
    return placed.reshape(len(rows), -1)
