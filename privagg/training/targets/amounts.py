"""Amounts: a number within a declared range, by squared, Huber, Poisson or gamma loss."""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field
from pydantic import model_validator as after_model

from privagg.training.features import FloatArray, numeric_values
from privagg.training.measures import amount_figures
from privagg.training.targets.base import Encoded, Remark, TargetKind, by_share, outside_range

if TYPE_CHECKING:
    import pandas as pd
    import torch

STRAIGHT = 0.1
"""Part of the range beyond which the Huber loss grows in a straight line, unless declared."""

LARGEST_END = 1e100
"""Of a range; its width's square stays far below what floats hold."""

FARTHEST = 1e6
"""The largest amount over the typical one."""


class Regression(TargetKind):
    """An amount; values outside its declared range count as its ends, in training and figures.

    Under `squared` and `huber` the one output is the amount's place in the range, from -1 at its
    low end to 1 at its high end. Under `poisson` (counts, rates) and `gamma` (costs, durations: the
    error grows with the amount) it is the logarithm of the expected amount over `typical`.

    Args:
        name: the column.
        range: lowest and highest amount, in the column's own unit, from public knowledge.
        loss: `squared`, `huber`, `poisson` (range from 0) or `gamma` (range above 0).
        delta: of `huber`: errors beyond it, in the column's unit, count in a straight line; a
            tenth of the range by default.
        typical: of `poisson` and `gamma`: the amount that a model starts from, public; the middle
            of the range by default.
    """

    kind: Literal["regression"]
    range: tuple[float, float]
    loss: Literal["squared", "huber", "poisson", "gamma"] = "squared"
    delta: float | None = Field(default=None, gt=0)
    typical: float | None = Field(default=None, gt=0)

    @after_model(mode="after")
    def _consistent(self) -> Self:
        low, high = self.range
        if not low < high:
            raise ValueError(f"range of {self.name!r} must have low < high, got [{low}, {high}]")
        if max(map(abs, self.range)) > LARGEST_END:
            raise ValueError(
                f"the range {list(self.range)} of {self.name!r} is too wide to be computed with; "
                f"declare ends within ±{LARGEST_END:g}"
            )
        if self.delta is not None and self.loss != "huber":
            raise ValueError(f"delta of {self.name!r} belongs to loss = 'huber', not {self.loss!r}")
        if self.typical is not None and not self._is_log:
            raise ValueError(
                f"typical of {self.name!r} belongs to loss = 'poisson' or 'gamma', "
                f"not {self.loss!r}"
            )
        if self._is_log and (low < 0 or (low == 0 and self.loss == "gamma")):
            least = "0 or more" if self.loss == "poisson" else "above 0"
            raise ValueError(
                f"loss = {self.loss!r} takes amounts that are {least}, and the range of "
                f"{self.name!r} begins at {low:g}; smaller amounts count as its low end"
            )
        if self.typical is not None and not low <= self.typical <= high:
            raise ValueError(f"typical of {self.name!r} must lie in its range [{low}, {high}]")
        if self.typical is not None and high / self.typical > FARTHEST:
            raise ValueError(
                f"typical of {self.name!r} is less than a millionth of its range's high end "
                f"{high:g}; one record there would count as much as a million usual ones"
            )
        return self

    @property
    def _is_log(self) -> bool:
        return self.loss in ("poisson", "gamma")

    @property
    def _unit(self) -> float:
        """The amount at which an output of 0 stands, where outputs are logarithms."""
        return self.typical or sum(self.range) / 2

    # --- how it is read -------------------------------------------------------------------------

    def read(self, frame: pd.DataFrame) -> Encoded:
        """See `TargetKind.read`: float32 `(n,)`, place in the range in [0, 1], or amount / unit."""
        low, high = self.range
        amounts = np.clip(numeric_values(frame[self.name]), low, high)
        encoded = amounts / self._unit if self._is_log else (amounts - low) / (high - low)
        return np.asarray(encoded, dtype=np.float32)

    def amounts(self, encoded: Encoded) -> FloatArray:
        """The amounts in the column's unit, float64 `(n,)`, within the range.

        Args:
            encoded: as `read` gives them.
        """
        low, high = self.range
        values = encoded.astype(np.float64)
        return np.clip(values * self._unit if self._is_log else low + values * (high - low),
                       low, high)  # fmt: skip

    def range_of(self, column: str) -> tuple[float, float] | None:
        """See `TargetKind.range_of`."""
        return self.range

    def remarks(self, frame: pd.DataFrame) -> Iterator[Remark]:
        """See `TargetKind.remarks`: amounts that clamp, cells that are no number."""
        values = numeric_values(frame[self.name])
        strange = int((np.isnan(values) & ~frame[self.name].isna().to_numpy(dtype=bool)).sum())
        if strange:
            cells = "cell is no number" if strange == 1 else "cells are not numbers"
            severity = by_share(strange, int(frame[self.name].notna().sum()))
            yield Remark(self.name, severity, f"{strange} {cells} (left out)", strange)
        yield from outside_range(self.name, values, self.range)
        known = np.clip(values[~np.isnan(values)], *self.range)
        if len(np.unique(known)) == 1:
            message = (
                f"all records have the amount {known[0]:g} within the range, so that nothing here "
                "tells them apart; check `range` and its unit, or accept it where it is so"
            )
            yield Remark(self.name, "error", message, len(known), of_model=True)

    def require_telling(self, encoded: Encoded) -> None:
        """See `TargetKind.require_telling`: not all amounts are the same."""
        if len(np.unique(encoded)) < 2:
            raise ValueError(
                f"the public table's {len(encoded)} usable records all have one amount within "
                f"the range of {self.name!r}, so that any model would seem right; check `range` "
                "and its unit, or use another table"
            )

    # --- what is learned ------------------------------------------------------------------------

    @property
    def outputs(self) -> int:
        """See `TargetKind.outputs`: one."""
        return 1

    def per_record_loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """See `TargetKind.per_record_loss`."""
        from privagg.training import losses

        low, high = self.range
        if self.loss == "squared":
            return losses.squared_loss(outputs, 2.0 * encoded - 1.0)
        if self.loss == "huber":
            delta = STRAIGHT if self.delta is None else self.delta / (high - low)
            return losses.huber_loss(outputs, 2.0 * encoded - 1.0, 2.0 * delta)
        if self.loss == "poisson":
            return losses.poisson_loss(outputs, encoded, log(high / self._unit))
        return losses.gamma_loss(outputs, encoded, log(low / self._unit))

    def examples(self, draw: np.random.Generator, count: int) -> Encoded:
        """See `TargetKind.examples`: anywhere in the range."""
        low, high = (end / self._unit if self._is_log else place
                     for place, end in enumerate(self.range))  # fmt: skip
        return draw.uniform(low, high, count).astype(np.float32)

    # --- what comes of it -----------------------------------------------------------------------

    @property
    def predicted(self) -> str:
        """See `TargetKind.predicted`."""
        return "the amount, in the column's own unit"

    @property
    def measures(self) -> tuple[str, ...]:
        """See `TargetKind.measures`."""
        return ("rmse", "mae", "r2")

    @property
    def prediction_names(self) -> tuple[str, ...]:
        """See `TargetKind.prediction_names`."""
        return ("expected",)

    def predictions(self, outputs: FloatArray) -> FloatArray:
        """See `TargetKind.predictions`: amounts within the range, `(n,)`."""
        low, high = self.range
        places = outputs[:, 0]
        if not self._is_log:
            return np.clip(low + (places + 1.0) / 2.0 * (high - low), low, high)
        with np.errstate(over="ignore"):
            return np.clip(self._unit * np.exp(places), low, high)

    def figures(self, outputs: FloatArray, encoded: Encoded) -> dict[str, float]:
        """See `TargetKind.figures`: RMSE and MAE beside those of the mean, and R²."""
        return amount_figures(self.predictions(outputs), self.amounts(encoded))
