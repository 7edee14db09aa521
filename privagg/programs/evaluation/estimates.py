"""Figures that are functions of noised sums: a value, and how far noise and sampling move it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt

import numpy as np
import numpy.typing as npt

from privagg.programs.answers import LEAST_DEVIATIONS, Figure, Interval, around, count_figure

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Function = Callable[[FloatArray], float]

_STEP = 0.01
"""Records; counts are of tens to millions, so that a difference over it is exact enough."""


@dataclass(frozen=True)
class Cells:
    """Sums over one group of records, each with noise of its own.

    Attributes:
        values: float64 `(n,)`, in records: counts of cells that exclude each other, then others.
        noise: float64 `(n,)`, variance of the noise of each.
        sampling: float64 `(n,)`, variance of each in samples of as many records about.
        counts: how many of them are counts.
        group: what the records have in common; empty of all.
        level: of both intervals.
    """

    values: FloatArray
    noise: FloatArray
    sampling: FloatArray
    counts: int
    group: dict[str, str]
    level: float

    @property
    def total(self) -> float:
        """About how many records there are."""
        return float(self.values[: self.counts].sum())

    def certain(self, some: BoolArray) -> bool:
        """Whether a sum of counts is far enough above its noise to be divided by.

        Args:
            some: which counts are added, bool `(counts,)`.
        """
        deviation = sqrt(float(self.noise[: self.counts][some].sum()))
        found = float(self.values[: self.counts][some].sum())
        return found > max(LEAST_DEVIATIONS * deviation, 0.0)

    def count(self, what: str, some: BoolArray, group: dict[str, str] | None = None) -> Figure:
        """How many records are in some cells together.

        Args:
            what, group: as for `figure`.
            some: as for `certain`.
        """
        raw = float(self.values[: self.counts][some].sum())
        deviation = sqrt(float(self.noise[: self.counts][some].sum()))
        named = {**self.group, **(group or {})}
        return replace(count_figure(raw, named, deviation, self.level), what=what)

    def figure(
        self,
        what: str,
        function: Function,
        *needs: BoolArray,
        limits: tuple[float, float] = (0.0, 1.0),
        sampling: float | None = None,
        group: dict[str, str] | None = None,
    ) -> Figure:
        """A figure by the delta method: its gradient carries noise and sampling to it.

        Args:
            what: its name.
            function: of `values`, smooth near them.
            needs: sums of counts that it divides by, as `certain` has them.
            limits: least and most that it can be.
            sampling: its variance in samples, where that does not follow from the sums'.
            group: what it is of besides.
        """
        named = {**self.group, **(group or {})}
        raw = function(self.values) if all(map(self.certain, needs)) else inf
        slopes = np.array([self._slope(function, place) for place in range(len(self.values))])
        if not (isfinite(raw) and np.isfinite(slopes).all()):
            unknown = Interval(-inf, inf)
            return Figure(what, named, None, self.total, unknown, unknown)
        noise = float((slopes**2 * self.noise).sum())
        if sampling is None:
            sampling = float((slopes**2 * self.sampling).sum())
        return Figure(
            what,
            named,
            min(max(raw, limits[0]), limits[1]),
            raw,
            around(raw, sqrt(noise), self.level, limits),
            around(raw, sqrt(noise + sampling), self.level, limits),
        )

    def share(
        self, what: str, some: BoolArray, whole: BoolArray, group: dict[str, str] | None = None
    ) -> Figure:
        """Which share of the records in some cells is in some of these.

        Args:
            what, group: as for `figure`.
            some: as for `certain`.
            whole: likewise; `some` are among them.
        """
        counts = self.counts
        return self.figure(
            what,
            lambda v: float(v[:counts][some].sum() / v[:counts][whole].sum()),
            whole,
            group=group,
        )

    def mean(self, what: str, place: int, highest: float, sampling: float | None = None) -> Figure:
        """The mean over all records of something between 0 and `highest`.

        Args:
            what: as for `figure`.
            place: of its sum, in parts of `highest`, among `values`.
            highest: the most that a record can have.
            sampling: variance of a record's part; by default the most that its mean allows.
        """
        counts, whole = self.counts, np.ones(self.counts, dtype=np.bool_)
        size = max(self.total, 1.0)
        part = min(max(float(self.values[place]) / size, 0.0), 1.0)
        each = part * (1 - part) if sampling is None else sampling
        return self.figure(
            what,
            lambda v: highest * float(v[place] / v[:counts].sum()),
            whole,
            limits=(0.0, highest),
            sampling=highest**2 * each / size,
        )

    def _slope(self, function: Function, place: int) -> float:
        step = np.zeros(len(self.values))
        step[place] = _STEP
        return (function(self.values + step) - function(self.values - step)) / (2 * _STEP)
