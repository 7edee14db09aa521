"""What a target says of itself; a new kind is one class in one file, named in `AnyTarget`.

A target is read from one record's own cells and public numbers alone, as the features are. Its loss
is a record's own, so that each record's gradient can be clipped; its figures and predictions are
computed from a model's outputs by whoever may see the records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from privagg.training.features import BoolArray, FloatArray
from privagg.training.measures import BASES

if TYPE_CHECKING:
    import pandas as pd
    import torch

Encoded = npt.NDArray[np.int64] | npt.NDArray[np.float32]
"""Targets of n records as a loss takes them, `(n,)` or `(n, m)`."""


@dataclass(frozen=True)
class Remark:
    """What an owner should know of a target's column; for the owner's eyes only.

    Attributes:
        column: its name.
        severity: as of an `inspection.Finding`.
        message: what was found and what follows from it.
        count: records concerned.
        of_model: says something to whoever trains a model, and nothing to whoever counts.
    """

    column: str
    severity: Literal["error", "warning", "note"]
    message: str
    count: int
    of_model: bool = False


def by_share(count: int, of: int) -> Literal["error", "warning"]:
    """How grave it is that so many of some cells or records are lost: most of them change what is
    learned, and keep a site from joining.

    Args:
        count: of those that are lost.
        of: how many there are, missing cells not counted.
    """
    return "error" if 2 * count > of else "warning"


class Spent(NamedTuple):
    """What an asking cost each data set, where a target rests on its answers.

    Attributes:
        run: the asking.
        epsilon, delta: what it was charged.
    """

    run: str
    epsilon: Decimal
    delta: Decimal


class TargetKind(BaseModel, ABC):
    """What a model predicts of a record; public, the same for every site.

    Args:
        name: the column, or what several columns together are called.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)

    # --- how it is read -------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns that it is read from."""
        return (self.name,)

    @abstractmethod
    def read(self, frame: pd.DataFrame) -> Encoded:
        """Each record's target, from its own cells: int64 or float32, `(n,)` or `(n, m)`.

        Every number is at least 0; where a record has no target it is -1 or NaN.

        Args:
            frame: a table with all `columns`.
        """

    def known(self, encoded: Encoded) -> BoolArray:
        """Which records have a target, bool `(n,)`.

        Args:
            encoded: as `read` gives them.
        """
        return np.asarray((encoded.reshape(len(encoded), -1) >= 0).all(axis=1), dtype=np.bool_)

    def categories(self, column: str) -> tuple[str, ...]:
        """What the numbers of one of its columns stand for, for counts by it; else nothing.

        Args:
            column: one of `columns`, read by itself.
        """
        return ()

    def range_of(self, column: str) -> tuple[float, float] | None:
        """The declared range of one of its columns, where that holds amounts.

        Args:
            column: one of `columns`.
        """
        return None

    @abstractmethod
    def remarks(self, frame: pd.DataFrame) -> Iterator[Remark]:
        """What the owner of a table should know of its targets.

        Args:
            frame: a table with all `columns`.
        """

    @abstractmethod
    def require_telling(self, encoded: Encoded) -> None:
        """Refuses public targets on which any model would seem right.

        Args:
            encoded: of at least one record that was declared public, each known.

        Raises:
            ValueError: what is wrong with them and what to check.
        """

    # --- what it rests on -----------------------------------------------------------------------

    def settled(self, base: Path) -> Self:
        """The same, once a file of charged answers that it rests on has been read.

        Args:
            base: folder that relative paths start from.

        Raises:
            ConfigError: the file is not there, or not as agreed.
        """
        return self

    @property
    def settled_by(self) -> str | None:
        """SHA-256 (hex) of the file of charged answers that it rests on; None where on none."""
        return None

    def spent(self, base: Path) -> Spent | None:
        """What the answers that it rests on cost; None where it rests on public facts alone.

        Args:
            base: folder that relative paths start from.

        Raises:
            ConfigError: as `settled`.
        """
        return None

    # --- what is learned ------------------------------------------------------------------------

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many numbers a model gives for a record, k."""

    @property
    def one_slope(self) -> bool:
        """Whether a built-in model's outputs differ by constants alone."""
        return False

    @abstractmethod
    def per_record_loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Each record's loss from its own row alone, float32 `(B,)`.

        Args:
            outputs: of the model, float32 `(B, k)`.
            encoded: as `read` gives them.
        """

    @property
    def exact_slope(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None:
        """The loss's gradient at the outputs as an `objective.Slope`, where there is one."""
        return None

    @abstractmethod
    def examples(self, draw: np.random.Generator, count: int) -> Encoded:
        """Synthetic targets, for tests of a loss before any record is looked at.

        Args:
            draw: public randomness.
            count: how many.
        """

    # --- what comes of it -----------------------------------------------------------------------

    @property
    @abstractmethod
    def predicted(self) -> str:
        """What `predictions` are, in a few words."""

    @property
    @abstractmethod
    def prediction_names(self) -> tuple[str, ...]:
        """What each column of `predictions` is called in a table."""

    @property
    @abstractmethod
    def measures(self) -> tuple[str, ...]:
        """Names of the figures that a model can be selected by, the chief one first."""

    @property
    def shown(self) -> tuple[str, str, str]:
        """The figures that a running job shows: the chief one, that of a guess, and one more."""
        first, second, *_ = (*self.measures, "auc")
        return first, BASES[first], second

    @abstractmethod
    def predictions(self, outputs: FloatArray) -> FloatArray:
        """What is predicted of each record, float64 `(n,)` or `(n, m)`.

        Args:
            outputs: of the model, float64 `(n, k)`.
        """

    @abstractmethod
    def figures(self, outputs: FloatArray, encoded: Encoded) -> dict[str, float]:
        """How good predictions are, each figure beside what a guess without a model reaches.

        Args:
            outputs: of the model, float64 `(n, k)`.
            encoded: the known targets of the same records.
        """

    def describe(self) -> dict[str, Any]:
        """What a saved model says of its outputs: plain values."""
        facts = self.model_dump(mode="json", exclude={"class_weights", "label_weights"})
        return {"target": facts, "outputs": self.outputs, "predictions": self.predicted}


def outside_range(column: str, values: FloatArray, ends: tuple[float, float]) -> Iterator[Remark]:
    """Whether values lie outside their declared range, and whether any lies inside.

    Args:
        column: where they stand.
        values: float64 `(n,)`, NaN where missing.
        ends: the range.
    """
    low, high = ends
    below, above = int((values < low).sum()), int((values > high).sum())
    outside = below + above
    if not outside:
        return
    lie = "value lies" if outside == 1 else "values lie"
    message = f"{outside} {lie} outside the public range [{low:g}, {high:g}] (clamped)"
    if max(below, above) == int((~np.isnan(values)).sum()):  # they all clamp to one value
        message += " and none inside it: the column says nothing here; check range and unit"
    yield Remark(column, "warning", message, outside)
