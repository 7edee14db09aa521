"""Cox's proportional hazards: how columns multiply the hazard, by Newton steps on opened sums.

Round 1 opens how many records leave each interval, with the event or without, which gives a
baseline hazard. In each further round the state is that baseline and the coefficients, both public.
A record is in the risk set of every interval up to its own, of its own for the part that it was
seen, and adds what it has there of the score and of the information, its intervals added up: with
H the hazard that it met in all of them together and d = 1 where it had the event, (d - H) x and
H x xᵀ. Interval by interval it adds d - H alone, which corrects the baseline.

A record is followed until the hazard that it met reaches `largest_hazard`, and no further, by a
rule that looks at nothing later. So all of its intervals together are bounded, whatever the state
is, and a right model expects d - H to be 0 as before.

Source: Aitkin & Clayton 1980, "The fitting of exponential, Weibull and extreme value distributions
to complex censored survival data using GLIM", Applied Statistics 29: Cox's likelihood with a
hazard that is constant in intervals is that of Poisson regression with log H as offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from privagg.programs.answers import LEAST_DEVIATIONS, Figure, count_figure
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.questions.design import INTERCEPT, Design
from privagg.programs.questions.followed import Followed
from privagg.programs.questions.lifetable import LifeTable
from privagg.programs.questions.logistic import ROUNDING, exponentials
from privagg.programs.questions.newton import Opened, joined, moved, predictors, step_of
from privagg.programs.questions.question import Found, one_hot
from privagg.programs.questions.regression import Solution, coefficient_figures, unknown
from privagg.training.features import BoolArray
from privagg.training.table import TableSchema
from privagg.training.targets.intervals import Intervals

PARTS = (0.7, 0.2, 0.1)
"""Of the squared norm, of score, information and baseline where all hazard is met: the score's
noise moves the coefficients, the others' only how fast they are reached."""

STEEPEST = 40.0
"""Of a logarithm of a hazard or a risk: beyond, its record meets nothing, or all at once."""

UNLIKE = 8.0
"""How far a baseline hazard may lie from the mean of all, as a factor: beyond, it is noise."""

RATIO = "hazard ratio"


class Scales(NamedTuple):
    """What a record's parts are multiplied by.

    Attributes:
        score: of the score's entries.
        information: of the information's products.
        baseline: of what it adds interval by interval.
    """

    score: float
    information: float
    baseline: float


class State(NamedTuple):
    """What is public after a round.

    Attributes:
        hazard: float64 (K,), logarithm of the baseline in each interval.
        events: float64 (K,), how many events each has, about.
        coefficients: float64 (m,), the intercept first, which levels the baseline.
    """

    hazard: FloatArray
    events: FloatArray
    coefficients: FloatArray

    @classmethod
    def of(cls, state: FloatArray, intervals: int) -> Self:
        """From one vector, whatever it holds."""
        hazard, events, coefficients = np.split(np.nan_to_num(state), [intervals, 2 * intervals])
        return cls(np.clip(hazard, -STEEPEST, STEEPEST), events, coefficients)


class Moved(NamedTuple):
    """A round, read: where its step started and leads.

    Attributes:
        after: the state that the next round starts from.
        solved: Newton's step; None in round 1.
    """

    after: State
    solved: Solution | None = None


class Cox(Followed):
    """Cox regression of the time to an event on columns, as hazard ratios.

    Only records that lack none of the columns count.

    Args:
        intervals: as for every question on the time to an event; a hazard is constant in each.
        on: declared columns.
        base: column of categories -> the category that the others are compared with; by default
            the first declared.
        largest_hazard: until when a record is followed, in expected events; at 1 all but
            exp(-1) = 37 % have had it.
        rounds: the first is the baseline's, each further one a step of the coefficients.
    """

    kind: Literal["cox"] = "cox"
    intervals: Intervals = 8
    on: tuple[str, ...] = Field(min_length=1, max_length=100)
    base: dict[str, str] = Field(default_factory=dict)
    largest_hazard: float = Field(default=1.0, ge=0.25, le=10)
    rounds: int = Field(default=3, ge=2, le=20)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if len(set(self.on)) < len(self.on) or {self.time, self.event} & set(self.on):
            raise ValueError(
                f"`on` lists each column once, and neither {self.time!r} nor {self.event!r}, got "
                f"{', '.join(self.on)}"
            )
        return self

    @property
    def about(self) -> str:
        """See `Question.about`."""
        return f"Cox regression of {self.event} on {', '.join(self.on)}"

    @property
    def round_count(self) -> int:
        """See `Question.round_count`."""
        return self.rounds

    def design(self, schema: TableSchema) -> Design:
        """The columns `on` as terms."""
        return Design.of(schema, self.on, self.base)

    def width(self, schema: TableSchema, number: int) -> int:
        """See `Question.width`: counts of a life table, or information, score and residuals."""
        design, count = self.design(schema), len(self.ends(schema))
        if number == 1:
            return 2 * count + 1
        return len(design.products.first) + len(design.terms) + count

    def begin(self, schema: TableSchema) -> FloatArray:
        """See `Question.begin`: nothing is known."""
        return np.zeros(2 * len(self.ends(schema)) + len(self.design(schema).terms))

    def scales(self, design: Design) -> Scales:
        """Such that no record's row is longer than 1, at any state.

        The squared norm is convex in the hazards that a record met, interval by interval, which
        are no less than 0 and no more than `largest_hazard` together: it is largest at a corner.
        """
        most = self.largest_hazard
        # (d - H)², the squares of d - H by interval, H²
        corners = np.array(
            [
                (most**2, most**2, most**2),  # no event
                (1.0, 1.0, 0.0),  # the event at once
                ((1 - most) ** 2, (1 - most) ** 2, most**2),  # the hazard in the event's interval
                ((1 - most) ** 2, 1 + most**2, most**2),  # in another
            ]
        )
        score, information, baseline = np.array(PARTS) / most**2
        worst = float((corners @ np.array([score, baseline, information])).max())
        return Scales(
            sqrt(score / worst) / design.longest * ROUNDING,
            sqrt(information / worst) / design.largest * ROUNDING,
            sqrt(baseline / worst) * ROUNDING,
        )

    def rows(
        self, schema: TableSchema, number: int, state: FloatArray, records: Columns
    ) -> FloatArray:
        """See `Question.rows`."""
        design, ends = self.design(schema), self.ends(schema)
        x, known = design.matrix(records)
        seen, count = self.seen(schema, records), len(ends)
        counted = (known & seen.known)[:, None]
        if number == 1:
            place = seen.interval + np.where(seen.event, 0, count)
            cell = np.where(seen.interval == count, 2 * count, place)
            return one_hot(cell, 2 * count + 1) * counted
        now = State.of(state, count)
        linear = np.clip(predictors(x, now.coefficients), -STEEPEST, STEEPEST)
        time = np.where(seen.known, records.numbers(self.time), 0.0)
        met, whole = self._met(ends, now, time, exponentials(linear))
        event = one_hot(seen.interval, count) * (seen.event & whole)[:, None]
        hazard, happened = _added(met), event.max(axis=1)
        scales = self.scales(design)
        parts = (
            design.multiply(x) * (hazard * scales.information)[:, None],
            x * ((happened - hazard) * scales.score)[:, None],
            (event - met) * scales.baseline,
        )
        return np.where(counted, np.concatenate(parts, axis=1), 0.0)

    def _met(
        self, ends: FloatArray, now: State, time: FloatArray, risk: FloatArray
    ) -> tuple[FloatArray, BoolArray]:
        """The hazard that each record met in each interval, (r, K), and whether that was all."""
        total, met, start = np.zeros(len(time)), [], 0.0
        whole = np.ones(len(time), dtype=np.bool_)
        for end, hazard in zip(ends.tolist(), exponentials(now.hazard).tolist(), strict=True):
            part = np.clip((time - start) / (end - start), 0.0, 1.0) * (risk * hazard)
            whole &= total + part <= self.largest_hazard
            after = np.minimum(total + part, self.largest_hazard)
            met.append(after - total)
            total, start = after, end
        return np.stack(met, axis=1), whole

    def step(self, schema: TableSchema, number: int, state: FloatArray, found: Found) -> FloatArray:
        """See `Question.step`."""
        before = State.of(state, len(self.ends(schema)))
        return np.concatenate(self._move(schema, number, before, found).after)

    def answer(
        self, schema: TableSchema, found: Sequence[Found], level: float
    ) -> tuple[Figure, ...]:
        """See `Question.answer`."""
        design, count = self.design(schema), len(self.ends(schema))
        first, stddev = found[0]
        happened, noise = float(first[:count].sum()), stddev * sqrt(count)
        figures = [
            count_figure(float(first.sum()), {}, stddev * sqrt(2 * count + 1), level),
            count_figure(happened, {self.event: self.event_is}, noise, level),
        ]
        state, steps = State.of(self.begin(schema), count), []
        for number, each in enumerate(found, 1):
            move = self._move(schema, number, state, each)
            if move.solved is not None:
                steps.append(step_of(state.coefficients, move.solved))
                last = move.solved
            state = move.after
        if not steps or happened < max(LEAST_DEVIATIONS * noise, len(design.terms)):
            return (*figures, *_of_columns(unknown(design, RATIO)))
        estimate = joined(steps, last)
        return (*figures, *_of_columns(coefficient_figures(design, estimate, level, RATIO)))

    def _move(self, schema: TableSchema, number: int, before: State, found: Found) -> Moved:
        """Read what a round opened: the first is a life table, the others are Newton's steps."""
        if number == 1:
            return Moved(_baseline(LifeTable.of(*found), len(before.coefficients)))
        design = self.design(schema)
        scales, products = self.scales(design), len(design.products.first)
        information, score, residuals = np.split(
            found.sums, [products, products + len(design.terms)]
        )
        opened = Opened(
            design.symmetric(information / scales.information),
            score / scales.score,
            (found.stddev / scales.information, found.stddev / scales.score),
        )
        solved = opened.solve(design, before.coefficients)
        coefficients = moved(before.coefficients, solved)
        residuals, noise = residuals / scales.baseline, found.stddev / scales.baseline
        events = np.maximum(before.events, 0.0)
        # The intercept follows the level; the baseline what each interval deviates from it.
        apart = residuals - events * (residuals.sum() / max(events.sum(), 1e-300))
        change = apart * events / np.maximum(events**2 + noise**2, 1e-300)
        hazard = before.hazard + np.clip(change, -1.0, 1.0)
        return Moved(State(hazard, before.events, coefficients), solved)


def _baseline(table: LifeTable, terms: int) -> State:
    """The hazard of all records, drawn to its mean where an interval's counts are mostly noise."""
    exposed, events = np.maximum(table.exposed, 0.0), np.maximum(table.events, 0.0)
    mean = max(float(events.sum()), 1.0) / max(float(exposed.sum()), 1.0)
    noise = LEAST_DEVIATIONS * table.stddev * sqrt(table.intervals) + 1.0
    hazard = np.clip((events + noise * mean) / (exposed + noise), mean / UNLIKE, mean * UNLIKE)
    return State(np.log(hazard), events, np.zeros(terms))


def _added(parts: FloatArray) -> FloatArray:
    """Sums over axis 1, float64 (r,), in the same order for every record."""
    total = np.zeros(len(parts))
    for place in range(parts.shape[1]):
        total = total + parts[:, place]
    return total


def _of_columns(figures: list[Figure]) -> list[Figure]:
    """All but the intercept's, which only levels the baseline."""
    return [figure for figure in figures if figure.group.get("term") != INTERCEPT]
