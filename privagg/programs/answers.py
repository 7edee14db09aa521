"""What a program over sums answers: figures, each with its two intervals, and the noise alone.

*For these records*: what the records say, noise aside; the noise's variance is exactly known. *For
the population*: what holds where the records are a sample of it; noise and sampling together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from statistics import NormalDist
from typing import NamedTuple

from pydantic import JsonValue

LEAST_DEVIATIONS = 3.0
"""A figure that divides by a count is given only where this lies so many deviations above 0."""


class Interval(NamedTuple):
    """Lowest and highest value at the stated level."""

    low: float
    high: float


class StandardErrors(NamedTuple):
    """Standard deviations of an estimate: by the noise alone, and with sampling."""

    records: float
    population: float


@dataclass(frozen=True)
class Figure:
    """One number of an answer.

    Attributes:
        what: `count`, `sum`, `mean`, `variance` or `quantile 0.5`.
        group: column -> category that it is of; empty where it is of all records.
        value: after post-processing; None where the noise leaves nothing to say.
        raw: as it was opened; for a count the noised count itself. Of a figure that is not told it
            is no estimate of it, but what the noise left too small: the noised count that it would
            be divided by, or 0 where it is not known.
        records: for these records: the noise alone.
        population: for the population: noise and sampling.
        errors: of a regression's coefficient; None of what is read by its intervals alone.
    """

    what: str
    group: dict[str, str]
    value: float | None
    raw: float
    records: Interval
    population: Interval
    errors: StandardErrors | None = None


@dataclass(frozen=True)
class Answer:
    """What became of one question.

    Attributes:
        question: what was asked, JSON values; `name` says how the answer is called, and
            `about` what was asked.
        figures: what follows from the opened sums.
    """

    question: Mapping[str, JsonValue]
    figures: tuple[Figure, ...]


def deviations(level: float) -> float:
    """z such that a normal variable is within z deviations with probability `level`.

    Args:
        level: in (0, 1).
    """
    return NormalDist().inv_cdf((1 + level) / 2)


def around(
    value: float, deviation: float, level: float, limits: tuple[float, float] = (-inf, inf)
) -> Interval:
    """The interval, as far as it lies where the figure can be: that loses no coverage.

    Where noise brought the estimate beyond its limits, the interval reaches from the nearest one
    that can be too, so that no interval is shorter than the noise allows.

    Args:
        value: the estimate.
        deviation: its standard deviation.
        level: of the interval, in (0, 1).
        limits: least and most that the figure can be.
    """
    reach, (least, most) = deviations(level) * deviation, limits
    near = min(max(value, least), most)
    return Interval(max(min(value, near) - reach, least), min(max(value, near) + reach, most))


def possible_variance(variance: float, noise: float, level: float, most: float = inf) -> float:
    """A variance for how far sampling goes: as it came out, or the most that it may be.

    Where the noise left nothing above 0, records may vary all the same, as far as the end of the
    interval; taken as 0 they would make the population's interval as short as these records'.

    Args:
        variance: as it was opened.
        noise: its standard deviation.
        level: of the intervals, in (0, 1).
        most: that it can be.
    """
    return variance if variance > 0 else min(deviations(level) * noise, most)


def count_figure(raw: float, group: dict[str, str], noise: float, level: float) -> Figure:
    """A count; the population's interval is that of a Poisson count of the same mean.

    Args:
        raw: as it was opened.
        group: column -> category that it is of.
        noise: its standard deviation.
        level: of both intervals, in (0, 1).
    """
    value, sampling = max(raw, 0.0), sqrt(max(raw, 0.0) + noise**2)
    return Figure(
        "count",
        group,
        value,
        raw,
        around(raw, noise, level, (0.0, inf)),
        around(raw, sampling, level, (0.0, inf)),
    )


def answer_facts(answer: Answer) -> dict[str, JsonValue]:
    """An answer as JSON values: its question, and every figure with both intervals.

    Args:
        answer: what became of one question.
    """
    return {
        "question": dict(answer.question),
        "figures": [_figure_facts(figure) for figure in answer.figures],
    }


def _figure_facts(figure: Figure) -> dict[str, JsonValue]:
    errors = figure.errors
    return {
        "what": figure.what,
        "group": dict(figure.group),
        "value": figure.value,
        "raw": figure.raw,
        "records": _ends(figure.records),
        "population": _ends(figure.population),
        "standard_errors": None if errors is None else errors._asdict(),
    }


def _ends(interval: Interval) -> dict[str, JsonValue] | None:
    """None where nothing bounds the figure."""
    if not (isfinite(interval.low) and isfinite(interval.high)):
        return None
    return {"low": interval.low, "high": interval.high}
