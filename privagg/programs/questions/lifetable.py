"""Life tables with noise: survival at the ends of intervals, and the log-rank test of groups.

Records are known by interval alone, so those censored within one are counted as exposed for half
of it (the actuarial estimate). What noise does to a figure is its gradient in the noised counts
times their standard deviation, exact to first order.

Source: Kalbfleisch & Prentice, "The statistical analysis of failure time data", 2nd ed., 2002,
sections 1.4 and 1.5 (Greenwood's formula, log-rank test with ties).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, exp, lgamma, log, sqrt
from typing import NamedTuple, Self

import numpy as np

from privagg.programs.questions.columns import FloatArray

LEAST_EXPOSED = 4.0
"""In deviations of the noise: where fewer are under observation, nothing is told. Whether there are
is seen in noised counts, so with less the intervals would hold less often than they say."""


class LifeTable(NamedTuple):
    """The noised counts of one group over K intervals.

    Attributes:
        events: float64 (K,), events in each interval.
        censored: float64 (K,), records that were last seen in it without one.
        beyond: records that were seen after the last interval.
        stddev: of the noise of each count.
    """

    events: FloatArray
    censored: FloatArray
    beyond: float
    stddev: float

    @classmethod
    def of(cls, cells: FloatArray, stddev: float) -> Self:
        """From its counts in one row: events, censored, beyond.

        Args:
            cells: float64 (2K + 1,).
            stddev: of the noise of each of them.
        """
        events, censored = cells[:-1].reshape(2, -1)
        return cls(events, censored, float(cells[-1]), stddev)

    @property
    def intervals(self) -> int:
        """K."""
        return len(self.events)

    @property
    def exposed(self) -> FloatArray:
        """float64 (K,): records under observation, those censored in the interval for half."""
        leaving = self.events + self.censored
        return np.cumsum(leaving[::-1])[::-1] + self.beyond - self.censored / 2

    @property
    def exposed_by(self) -> FloatArray:
        """float64 (K, 2K + 1): how `exposed` depends on the counts."""
        later = np.triu(np.ones((self.intervals, self.intervals)))
        whole = np.ones((self.intervals, 1))
        return np.hstack([later, later - np.eye(self.intervals) / 2, whole])

    @property
    def told(self) -> int:
        """How many intervals, from the first, have more records exposed than noise hides."""
        noise = self.stddev * np.sqrt((self.exposed_by**2).sum(axis=1))
        hidden = self.exposed <= np.maximum(LEAST_EXPOSED * noise, 0.0)
        return int(np.argmax(hidden)) if hidden.any() else self.intervals

    def upto(self, intervals: int) -> LifeTable:
        """The first intervals alone: whoever left later was seen beyond them."""
        later = self.events[intervals:].sum() + self.censored[intervals:].sum()
        return LifeTable(
            self.events[:intervals], self.censored[:intervals], self.beyond + later, self.stddev
        )


class Curve(NamedTuple):
    """A survival curve at the ends of the intervals that are told.

    Attributes:
        raw: float64 (m,), as it follows from the counts; the noise may raise it above 1, or again.
        noise: float64 (m,), its standard deviation by the noise.
        sampling: float64 (m,), by Greenwood's formula.
    """

    raw: FloatArray
    noise: FloatArray
    sampling: FloatArray


def survival_curve(table: LifeTable) -> Curve:
    """The curve of a group, as far as the noise leaves something to say.

    Args:
        table: its counts.
    """
    m = table.told
    exposed, events = table.exposed[:m], table.events[:m]
    passed = 1.0 - events / exposed
    # others[k, j]: the curve at the end of interval j without the factor of interval k <= j.
    others = np.triu(np.cumprod(np.where(np.eye(m, dtype=bool), 1.0, passed), axis=1))
    by = table.exposed_by[:m] * (events / exposed**2)[:, None]
    by[:, : table.intervals] -= np.eye(m, table.intervals) / exposed[:, None]
    slope = np.einsum("kj,kc->jc", others, by)
    share = np.clip(passed, 0.0, 1.0)
    return Curve(
        np.asarray(np.cumprod(passed), dtype=np.float64),
        table.stddev * np.sqrt((slope**2).sum(axis=1)),
        np.sqrt((others**2 * (share * (1 - share) / exposed)[:, None]).sum(axis=0)),
    )


class LogRank(NamedTuple):
    """The log-rank test of g groups.

    Attributes:
        statistic: chi-square with g - 1 degrees of freedom where all groups survive alike; its
            variance is that of sampling and noise together.
        norm: of the standardised differences, observed less expected, by sampling alone.
        noise: the most that the noise deviates in any direction of these.
        freedom: g - 1.
    """

    statistic: float
    norm: float
    noise: float
    freedom: int


def log_rank(groups: Sequence[LifeTable]) -> LogRank | None:
    """Compare the survival of groups; None where the noise, or a lack of events, hides it.

    Args:
        groups: two or more life tables over the same intervals.
    """
    m = min(table.told for table in groups)
    tables, stddev = [table.upto(m) for table in groups], groups[0].stddev
    if m == 0:
        return None
    exposed = np.stack([table.exposed for table in tables])
    events = np.stack([table.events for table in tables])
    at_risk, happened = exposed.sum(axis=0), events.sum(axis=0)
    share = exposed / at_risk
    differences = (events - share * happened).sum(axis=1)[:-1]
    ties = np.clip((at_risk - happened) / np.maximum(at_risk - 1, 1), 0, 1) * happened
    variance = _covariance(share, ties)[:-1, :-1]
    slopes = []
    for place, table in enumerate(tables):
        # A count of this group moves its own share, and all shares by the total.
        to_shares = -share * happened / at_risk
        to_shares[place] += happened / at_risk
        slope = -np.einsum("gk,kc->gc", to_shares, table.exposed_by)
        slope[:, :m] -= share
        slope[place, :m] += 1.0
        # What was put beyond is a sum of several noised counts.
        slope[:, -1] *= sqrt(1 + 2 * (groups[place].intervals - m))
        slopes.append(slope[:-1])
    noise = stddev**2 * sum(np.einsum("gc,hc->gh", slope, slope) for slope in slopes)
    if np.linalg.eigvalsh(variance).min() <= 0:
        return None
    root = np.linalg.inv(np.linalg.cholesky(variance))
    standard, hidden = root @ differences, root @ noise @ root.T
    statistic = float(standard @ np.linalg.solve(np.eye(len(hidden)) + hidden, standard))
    most = sqrt(max(float(np.linalg.eigvalsh(hidden).max()), 0.0))
    return LogRank(statistic, float(np.linalg.norm(standard)), most, len(groups) - 1)


def _covariance(share: FloatArray, weight: FloatArray) -> FloatArray:
    """float64 (g, g): of the events in each group, intervals added up."""
    spread = np.einsum("gk,hk,k->gh", share, share, weight)
    return np.asarray(np.diag((share * weight).sum(axis=1)) - spread, dtype=np.float64)


def chi_square_tail(value: float, freedom: int) -> float:
    """The probability that a chi-square variable lies above `value`.

    Args:
        value: at least 0.
        freedom: its degrees of freedom, at least 1.
    """
    half, degrees = value / 2, 1 + (freedom + 1) % 2
    tail = erfc(sqrt(half)) if degrees == 1 else exp(-half)
    while degrees < freedom and half > 0:
        tail += exp(degrees / 2 * log(half) - half - lgamma(degrees / 2 + 1))
        degrees += 2
    return min(tail, 1.0)


def chi_square_quantile(level: float, freedom: int) -> float:
    """Below which a chi-square variable lies with probability `level`.

    Args:
        level: in (0, 1).
        freedom: its degrees of freedom, at least 1.
    """
    low, high = 0.0, freedom + 40.0 * sqrt(freedom) + 1500.0
    for _ in range(80):
        middle = (low + high) / 2
        above = chi_square_tail(middle, freedom) > 1 - level
        low, high = (middle, high) if above else (low, middle)
    return high
