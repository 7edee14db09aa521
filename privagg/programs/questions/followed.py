"""Records that are followed until an event, or until they are seen last without one."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, model_validator

from privagg.errors import ConfigError
from privagg.programs.questions.columns import (
    Codes,
    Columns,
    FloatArray,
    categories_of,
    range_of,
)
from privagg.programs.questions.question import Question
from privagg.training.table import TableSchema
from privagg.training.targets.intervals import Intervals, ends_of, require_ascending

Category = Annotated[str, BeforeValidator(lambda given: str(given))]
"""A category as text; `event_is = 1` names the category 1."""


class Seen(NamedTuple):
    """How each of some records was seen last.

    Attributes:
        known: bool (r,), false where time or event is missing: such a record counts nowhere.
        interval: int64 (r,), in which it was; one more than the last where it was later.
        event: bool (r,), whether it had the event then.
    """

    known: npt.NDArray[np.bool_]
    interval: Codes
    event: npt.NDArray[np.bool_]


class Followed(Question, ABC):
    """A question on the time to an event, over declared intervals that begin at 0.

    A time that is an interval's end lies in it.

    Args:
        time: a column with a declared range, from 0 or more: how long a record was followed.
        event: a column with declared categories: how it was seen last.
        event_is: the category that is the event; after any other one nothing is known.
        until: where the last interval ends; by default where the range of `time` does.
        intervals: how many of one width, or the ends of all, ascending.
    """

    time: str
    event: str
    event_is: Category = "yes"
    until: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    intervals: Intervals = 10

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        require_ascending(self.intervals, self.until)
        return self

    def ends(self, schema: TableSchema) -> FloatArray:
        """Where the intervals end, float64 (K,), ascending.

        Raises:
            ConfigError: time or event is not declared as the question needs it.
        """
        low, high = range_of(schema, self.time)
        labels = categories_of(schema, self.event)
        if self.event_is not in labels:
            raise ConfigError(
                f"question {self.name!r} has event_is = {self.event_is!r}, which is no category of "
                f"{self.event!r}, so nobody would have the event; its categories are "
                f"{', '.join(labels)}. Nothing was spent"
            )
        ends = ends_of(self.intervals, high if self.until is None else self.until)
        if not 0 <= low < ends[0] or not ends[-1] <= high:
            raise ConfigError(
                f"question {self.name!r} has intervals from 0 to {ends[-1]:g}, the first until "
                f"{ends[0]:g}, and {self.time!r} is declared from {low:g} to {high:g}; times begin "
                "at 0 or more, within the first interval, and the last ends within their range. "
                "Nothing was spent"
            )
        return ends

    def seen(self, schema: TableSchema, records: Columns) -> Seen:
        """How each record was seen last.

        Args:
            schema: the public declaration.
            records: some of a site's.
        """
        labels, time = categories_of(schema, self.event), records.numbers(self.time)
        code = records.codes(self.event)
        known = ~np.isnan(time) & (code < len(labels))
        interval = np.searchsorted(self.ends(schema), np.where(known, time, 0.0), side="left")
        return Seen(known, interval.astype(np.int64), code == labels.index(self.event_is))
