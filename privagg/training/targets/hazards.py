"""Time to an event: the hazard of each declared interval, of those who are still followed then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field
from pydantic import model_validator as after_model

from privagg.training.features import BoolArray, Category, FloatArray, numeric_values
from privagg.training.measures import concordance, hazard_figures
from privagg.training.targets.base import Encoded, Remark, TargetKind, by_share
from privagg.training.targets.classes import ClassNumbers, Target
from privagg.training.targets.intervals import Intervals, ends_of, require_ascending

if TYPE_CHECKING:
    import pandas as pd
    import torch

LARGEST_LOGIT = 1e6
"""Of a hazard, in figures and predictions; a model that diverged has no other."""


class Periods(NamedTuple):
    """What each record says of each interval; numpy arrays or tensors, both `(n, K)`.

    Attributes:
        seen: the part of the interval that the record was followed for, 1 where it had the event.
        happened: 1 in the interval of the event, else 0.
    """

    seen: Any
    happened: Any


class TimeToEvent(TargetKind):
    """How long until an event, for people of whom some are seen last without one.

    A model gives, for each interval, how far the logit of its hazard lies from where it starts: the
    probability of the event in that interval, of those who reach it. In a built-in model all of
    them are one score plus a constant each. A person's loss is the sum over the intervals that it
    was followed in, up to its own, so that its gradient over all of them is one, and clipped whole.
    An interval in which it was seen last without the event counts for the part that it was
    followed: exactly right for a hazard that does not change within the interval.

    A record is a person, on one line. Whoever is followed beyond the last interval counts as seen
    at its end without the event; a time that is an interval's end lies in it. A record without a
    time, with a negative one, or without a cell for the event is left out.

    Args:
        name: what time and event together are called.
        time: the column that says how long a record was followed, from 0.
        event: the column that says how it was seen last.
        event_is: what counts as the event there, as `positive` does of two classes; after any other
            cell nothing is known.
        until: the longest follow-up, in the unit of `time`, from public knowledge: where the last
            interval ends.
        intervals: how many of one width, or the ends of all, ascending, and then no `until`.
        typical: the share of people with the event until then that a model starts from, public.

    Source: Gensheimer & Narasimhan 2019, "A scalable discrete-time survival model for neural
    networks", PeerJ 7:e6257; Singer & Willett 1993 for one slope.
    """

    kind: Literal["time-to-event"]
    time: str = Field(min_length=1)
    event: str = Field(min_length=1)
    event_is: Category | tuple[Category, ...]
    until: float | None = Field(default=None, gt=0)
    intervals: Intervals = 8
    typical: float = Field(default=0.5, ge=0.001, le=0.999)

    @after_model(mode="after")
    def _consistent(self) -> Self:
        if self.time == self.event:
            raise ValueError(f"time and event of {self.name!r} are one column, {self.time!r}")
        if isinstance(self.intervals, int) and self.until is None:
            raise ValueError(
                f"{self.name!r} needs `until`, the longest follow-up in the unit of {self.time!r}, "
                "or the ends of all intervals"
            )
        require_ascending(self.intervals, self.until)
        _ = self._events  # refuses a rule that cannot be read
        return self

    @property
    def ends(self) -> FloatArray:
        """Where the intervals end, float64 `(K,)`, ascending, in the unit of the time column."""
        return ends_of(self.intervals, self.until or 0.0)

    @property
    def last(self) -> float:
        """Where the last interval ends."""
        return float(self.ends[-1])

    @property
    def starting_logits(self) -> FloatArray:
        """Of the hazards where a model's outputs are 0, float64 `(K,)`: one hazard at all times."""
        widths = np.diff(self.ends, prepend=0.0) / self.last
        return np.asarray(np.log(np.expm1(-np.log1p(-self.typical) * widths)))

    @property
    def _events(self) -> Target:
        return Target(name=self.event, positive=self.event_is)

    # --- how it is read -------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[str, ...]:
        """See `TargetKind.columns`: time, then event."""
        return (self.time, self.event)

    def read(self, frame: pd.DataFrame) -> Encoded:
        """See `TargetKind.read`: float32 `(n, 2)`, time in parts of the last end, and 1 or 0."""
        times, events = numeric_values(frame[self.time]), self._events_in(frame)
        parts = np.where(times >= 0, np.minimum(times, self.last) / self.last, np.nan)
        return np.stack([parts, events], axis=1).astype(np.float32)

    def _events_in(self, frame: pd.DataFrame) -> ClassNumbers:
        """1 with the event, 0 without, -1 where that is missing."""
        found = self._events.encode(frame[self.event])
        later = numeric_values(frame[self.time]) > self.last
        return np.where(later & (found == 1), 0, found)

    def categories(self, column: str) -> tuple[str, ...]:
        """See `TargetKind.categories`: of the event."""
        return ("no", "yes") if column == self.event else ()

    def range_of(self, column: str) -> tuple[float, float] | None:
        """See `TargetKind.range_of`: of the time."""
        return (0.0, self.last) if column == self.time else None

    def remarks(self, frame: pd.DataFrame) -> Iterator[Remark]:
        """See `TargetKind.remarks`: times that are none, or later than all; whether none has it."""
        times, events = numeric_values(frame[self.time]), self._events_in(frame)
        given = ~frame[self.time].isna().to_numpy(dtype=bool)
        strange = int((given & ~(times >= 0)).sum())
        if strange:
            cells = "cell is no time" if strange == 1 else "cells are no times"
            message = f"{strange} {cells} from 0 (left out)"
            yield Remark(self.time, by_share(strange, int(given.sum())), message, strange)
        later = int((times > self.last).sum())
        if later:
            lie = "record is" if later == 1 else "records are"
            message = (
                f"{later} {lie} followed beyond {self.last:g}, the end of the last interval, and "
                "count as seen then without the event"
            )
            whole = later == int((times >= 0).sum())
            if whole:
                message += ": the column says nothing here; check `until` and its unit"
            yield Remark(self.time, "warning" if whole else "note", message, later)
        known = self.known(self.read(frame))
        if known.any() and not (events[known] == 1).any():
            message = (
                f"no record has the event until {self.last:g}, so that nothing here says when it "
                "comes; check `event_is` and `until`, or accept it where it is so"
            )
            yield Remark(self.event, "error", message, int(known.sum()), of_model=True)

    def require_telling(self, encoded: Encoded) -> None:
        """See `TargetKind.require_telling`: of some two it is known who had the event first."""
        times, events = encoded.astype(np.float64).T
        if concordance(np.zeros(len(encoded)), times, events > 0) is None:
            raise ValueError(
                f"of no two of the public table's {len(encoded)} usable records it is known who "
                "had the event first, so that any model would seem right; check `event_is` and "
                "`until`, or use another table"
            )

    # --- what is learned ------------------------------------------------------------------------

    @property
    def outputs(self) -> int:
        """See `TargetKind.outputs`: one an interval."""
        return self.intervals if isinstance(self.intervals, int) else len(self.intervals)

    @property
    def one_slope(self) -> bool:
        """See `TargetKind.one_slope`."""
        return True

    def per_record_loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """See `TargetKind.per_record_loss`: all of a person's intervals together."""
        from privagg.training.losses import hazard_loss

        logits = outputs + outputs.new_tensor(self.starting_logits)
        parts = encoded.new_tensor(self._parts)
        return hazard_loss(logits, *_periods(encoded[:, 0], encoded[:, 1], parts))

    @property
    def _parts(self) -> FloatArray:
        """The intervals' ends as `read` writes times, 0 first, `(K + 1,)`."""
        return np.append(0.0, (self.ends / self.last).astype(np.float32).astype(np.float64))

    def examples(self, draw: np.random.Generator, count: int) -> Encoded:
        """See `TargetKind.examples`: at any time, with the event or without."""
        times, events = draw.uniform(0, 1, count), draw.integers(0, 2, count)
        return np.stack([times, events], axis=1).astype(np.float32)

    # --- what comes of it -----------------------------------------------------------------------

    @property
    def predicted(self) -> str:
        """See `TargetKind.predicted`."""
        return "the probability of no event until each interval's end"

    @property
    def measures(self) -> tuple[str, ...]:
        """See `TargetKind.measures`."""
        return ("c_index", "log_likelihood")

    @property
    def prediction_names(self) -> tuple[str, ...]:
        """See `TargetKind.prediction_names`."""
        return tuple(f"no_event_until_{end:g}" for end in self.ends)

    def predictions(self, outputs: FloatArray) -> FloatArray:
        """See `TargetKind.predictions`: survival curves, `(n, K)`."""
        return np.asarray(np.exp(-np.cumsum(np.logaddexp(0.0, self.logits(outputs)), axis=1)))

    def figures(self, outputs: FloatArray, encoded: Encoded) -> dict[str, float]:
        """See `TargetKind.figures`: C-index and mean log-likelihood.

        Beside them 0.5, and the log-likelihood of the hazards that all records have together.
        """
        logits, (times, events) = self.logits(outputs), encoded.astype(np.float64).T
        found = hazard_figures(logits, *self.periods(encoded))
        index = concordance(np.logaddexp(0.0, logits).sum(axis=1), times, events > 0)
        return found if index is None else {"c_index": index, "base_c_index": 0.5, **found}

    def logits(self, outputs: FloatArray) -> FloatArray:
        """Of the hazards, float64 `(n, K)`; not a number counts as where a model starts.

        Args:
            outputs: of the model, float64 `(n, K)`.
        """
        shown = np.nan_to_num(outputs, nan=0.0, posinf=LARGEST_LOGIT, neginf=-LARGEST_LOGIT)
        return np.asarray(np.clip(shown, -LARGEST_LOGIT, LARGEST_LOGIT) + self.starting_logits)

    def periods(self, encoded: Encoded) -> Periods:
        """What each record says of each interval, float64 `(n, K)`.

        Args:
            encoded: as `read` gives them, each known.
        """
        times, events = encoded.astype(np.float64).T
        return _periods(times, events, self._parts)

    def seen_last(self, encoded: Encoded) -> tuple[ClassNumbers, BoolArray]:
        """How many intervals each record outlived, int64 `(n,)`, and whether it had the event then.

        One that was seen at an interval's end without the event outlived it.

        Args:
            encoded: as `read` gives them, each known.
        """
        times, event = encoded[:, 0].astype(np.float64), encoded[:, 1] > 0
        ends = self._parts[1:]
        before = np.searchsorted(ends, times, side="left")
        return np.where(event, before, np.searchsorted(ends, times, side="right")).astype(
            np.int64
        ), event

    def describe(self) -> dict[str, Any]:
        """See `TargetKind.describe`: also the intervals' ends, and the logits at outputs of 0."""
        return {
            **super().describe(),
            "ends": self.ends.tolist(),
            "starting_logits": self.starting_logits.tolist(),
        }


def _periods(times: Any, events: Any, parts: Any) -> Periods:
    """What each record says of each interval; numpy arrays or tensors alike.

    Args:
        times, events: `(n,)`, as `TimeToEvent.read` gives them.
        parts: `(K + 1,)`, where the intervals lie.
    """
    after = times[:, None] - parts[:-1]
    followed = (after / (parts[1:] - parts[:-1])).clip(0.0, 1.0)
    here = (after > 0) & (times[:, None] <= parts[1:])
    here[:, 0] |= times <= 0
    happened = here * events[:, None]
    return Periods(followed + (1.0 - followed) * happened, happened)
