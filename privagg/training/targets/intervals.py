"""Declared intervals that a time to an event is told by; they begin at 0."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field, FiniteFloat

from privagg.training.features import FloatArray

Intervals = (
    Annotated[int, Field(ge=1, le=1000)]
    | Annotated[tuple[FiniteFloat, ...], Field(max_length=1000)]
)
"""How many of one width, or where each ends."""


def require_ascending(intervals: Intervals, until: float | None) -> None:
    """Refuses ends that are no ends of intervals.

    Args:
        intervals: as declared.
        until: where the last one ends, if that is said apart.

    Raises:
        ValueError: they do not ascend from above 0, or end elsewhere.
    """
    if isinstance(intervals, int):
        return
    ends = (0.0, *intervals)
    if len(ends) == 1 or any(after <= before for before, after in pairwise(ends)):
        raise ValueError(
            "`intervals` lists where each ends, above 0 and in ascending order, got "
            f"{list(intervals)}"
        )
    if until not in (None, ends[-1]):
        raise ValueError(
            f"`intervals` end at {ends[-1]:g} and `until` says {until:g}; leave it out"
        )


def ends_of(intervals: Intervals, last: float) -> FloatArray:
    """Where the intervals end, float64 `(K,)`, ascending.

    Args:
        intervals: as declared.
        last: where the last one ends, if their number alone is declared.
    """
    if not isinstance(intervals, int):
        return np.array(intervals, dtype=np.float64)
    ends = np.arange(1.0, intervals + 1) * (last / intervals)
    ends[-1] = last
    return ends
