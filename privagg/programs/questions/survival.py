"""Survival by group: Kaplan and Meier's curve over declared intervals, and the log-rank test."""

from __future__ import annotations

from math import inf, sqrt
from typing import Literal

import numpy as np

from privagg.programs.answers import Figure, Interval, around, count_figure, deviations
from privagg.programs.questions.columns import Columns, FloatArray, categories_of, range_of
from privagg.programs.questions.followed import Followed
from privagg.programs.questions.lifetable import (
    LifeTable,
    chi_square_quantile,
    chi_square_tail,
    log_rank,
    survival_curve,
)
from privagg.programs.questions.quantiles import band
from privagg.programs.questions.question import OneSum, one_hot
from privagg.training.table import TableSchema


class Survival(Followed, OneSum):
    """Which share is without the event at the end of each interval, overall or by category.

    A record without time, event or a declared category of `by` is not counted. With `by`, the
    log-rank test tells whether the groups differ.

    Args:
        by: a column with declared categories.
    """

    kind: Literal["survival"] = "survival"
    by: str | None = None

    @property
    def ones(self) -> int:
        """See `Question.ones`."""
        return 1

    @property
    def about(self) -> str:
        """See `Question.about`."""
        asked = f"survival until {self.event}"
        return asked if self.by is None else f"{asked} by {self.by}"

    def _groups(self, schema: TableSchema) -> tuple[str, ...]:
        return ("",) if self.by is None else categories_of(schema, self.by)

    def cells(self, schema: TableSchema) -> int:
        """See `OneSum.cells`: event or censored in each interval, or beyond them, in each group."""
        return len(self._groups(schema)) * (2 * len(self.ends(schema)) + 1)

    def values(self, schema: TableSchema, records: Columns) -> FloatArray:
        """See `OneSum.values`: 1 in one cell, or nothing."""
        seen, count = self.seen(schema, records), len(self.ends(schema))
        group = np.zeros(len(records), np.int64) if self.by is None else records.codes(self.by)
        known = seen.known & (group < len(self._groups(schema)))
        place = seen.interval + np.where(seen.event, 0, count)
        cell = group * (2 * count + 1) + np.where(seen.interval == count, 2 * count, place)
        return one_hot(np.where(known, cell, 0), self.cells(schema)) * known[:, None]

    def read(
        self, schema: TableSchema, sums: FloatArray, stddev: float, level: float
    ) -> tuple[Figure, ...]:
        """See `OneSum.read`: the interval for the population adds Greenwood's variance."""
        ends, groups = self.ends(schema), self._groups(schema)
        tables = [LifeTable.of(row, stddev) for row in sums.reshape(len(groups), -1)]
        last, found = range_of(schema, self.time)[1], list[Figure]()
        for label, table in zip(groups, tables, strict=True):
            group = {} if self.by is None else {self.by: label}
            cells = sqrt(2 * len(ends) + 1)
            count = float(table.events.sum() + table.censored.sum() + table.beyond)
            found.append(count_figure(count, group, stddev * cells, level))
            found += _curve(table, ends, last, group, level)
        return (*found, *(_comparison(tables, level) if len(groups) > 1 else ()))

    def work(self, schema: TableSchema) -> int:
        """See `Question.work`: each step of a curve depends on all before it."""
        return len(self._groups(schema)) * len(self.ends(schema)) ** 2


def _curve(
    table: LifeTable, ends: FloatArray, last: float, group: dict[str, str], level: float
) -> list[Figure]:
    """Survival at each end, and its median; the curve is told as one that never rises."""
    curve = survival_curve(table)
    raw, both = curve.raw, np.hypot(curve.noise, curve.sampling)
    falling = np.minimum.accumulate(raw) + np.maximum.accumulate(raw[::-1])[::-1]
    told, found = np.clip(falling / 2, 0.0, 1.0), list[Figure]()
    for place, end in enumerate(ends):
        what = f"survival at {end:.10g}"
        if place < len(raw):
            value = float(raw[place])
            records = around(value, float(curve.noise[place]), level, (0.0, 1.0))
            population = around(value, float(both[place]), level, (0.0, 1.0))
            found.append(Figure(what, group, float(told[place]), value, records, population))
        else:  # that it is told until here was the noise's choice: no bound from before holds
            value, whole = float(raw[-1]) if len(raw) else 1.0, Interval(0.0, 1.0)
            found.append(Figure(what, group, None, value, whole, whole))
    edges, lost = np.concatenate([[0.0], ends[: len(raw)]]), np.concatenate([[0.0], 1.0 - told])
    reached = bool(lost[-1] >= 0.5)
    median = float(np.interp(0.5, lost, edges)) if reached else float(edges[-1])
    dead, z = np.concatenate([[0.0], 1.0 - raw]), deviations(level)
    records, population = (
        band(edges, dead, np.concatenate([[0.0], z * deviation]), 0.5, last)
        for deviation in (curve.noise, both)
    )
    crossed = median if reached else None
    found.append(Figure("median survival", group, crossed, median, records, population))
    return found


def _comparison(tables: list[LifeTable], level: float) -> list[Figure]:
    """The log-rank statistic and its p-value, in which noise counts as sampling does.

    Raw are those that the counts give as they stand. The intervals hold the statistic that as many
    records give without noise, and without noise or sampling.
    """
    test = log_rank(tables)
    names = "log-rank chi-square", "log-rank p-value"
    if test is None:
        unknown = Interval(-inf, inf), Interval(0.0, 1.0)
        return [
            Figure(what, {}, None, raw, ends, ends)
            for what, raw, ends in zip(names, (0.0, 1.0), unknown, strict=True)
        ]
    reach = sqrt(chi_square_quantile(level, test.freedom))
    records, population = (
        Interval(max(test.norm - reach * each, 0.0) ** 2, (test.norm + reach * each) ** 2)
        for each in (test.noise, sqrt(1 + test.noise**2))
    )
    tails = [
        Interval(*(chi_square_tail(end, test.freedom) for end in reversed(each)))
        for each in (records, population)
    ]
    raw = test.norm**2
    values = test.statistic, chi_square_tail(test.statistic, test.freedom)
    return [
        Figure(names[0], {}, values[0], raw, records, population),
        Figure(names[1], {}, values[1], chi_square_tail(raw, test.freedom), tails[0], tails[1]),
    ]
