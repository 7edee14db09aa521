"""Grades: classes with an order, by one score and a threshold between each two of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field
from pydantic import model_validator as after_model

from privagg.training.features import Category, FloatArray, require_distinct
from privagg.training.measures import grade_figures
from privagg.training.targets.base import Encoded, Remark
from privagg.training.targets.classes import (
    Grouped,
    class_figures,
    class_remarks,
    encode_classes,
)

if TYPE_CHECKING:
    import pandas as pd
    import torch


class Ordinal(Grouped):
    """One of several classes in an order, such as mild, moderate, severe.

    A model gives a logit for each threshold: that the grade is above it. In a built-in model all of
    them are one score plus a constant each; the loss is the mean of the thresholds' logistic
    losses, which no order of the constants makes infinite, as noise may give them any.

    Args:
        name: the column.
        classes: the values from the lowest to the highest, at least three.
        class_weights: what a record of each class counts in the loss; see `Grouped`.

    Source: Cao, Mirjalili & Raschka 2020 (CORAL); McCullagh 1980 for one slope.
    """

    kind: Literal["ordinal"]
    classes: tuple[Category, ...] = Field(min_length=3)

    @after_model(mode="after")
    def _distinct(self) -> Self:
        require_distinct(self.classes, f"classes of {self.name!r}")
        return self

    @property
    def class_count(self) -> int:
        """See `Grouped.class_count`."""
        return len(self.classes)

    def read(self, frame: pd.DataFrame) -> Encoded:
        """See `TargetKind.read`: grades from 0, int64 `(n,)`."""
        return encode_classes(frame[self.name], self.classes)

    def categories(self, column: str) -> tuple[str, ...]:
        """See `TargetKind.categories`."""
        return tuple(map(str, self.classes))

    def remarks(self, frame: pd.DataFrame) -> Iterator[Remark]:
        """See `TargetKind.remarks`: cells of no class, and whether all are of one."""
        column = frame[self.name]
        return class_remarks(encode_classes(column, self.classes), column, self.name)

    @property
    def outputs(self) -> int:
        """See `TargetKind.outputs`: a logit for each threshold."""
        return self.class_count - 1

    @property
    def one_slope(self) -> bool:
        """See `TargetKind.one_slope`."""
        return True

    def per_record_loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """See `TargetKind.per_record_loss`: mean logistic loss over the thresholds."""
        from privagg.training.losses import threshold_loss

        return self.weighted(threshold_loss(outputs, encoded), encoded)

    @property
    def predicted(self) -> str:
        """See `TargetKind.predicted`."""
        return "class probabilities, from the lowest class to the highest"

    @property
    def measures(self) -> tuple[str, ...]:
        """See `TargetKind.measures`."""
        return ("accuracy", "mae")

    def predictions(self, outputs: FloatArray) -> FloatArray:
        """See `TargetKind.predictions`: probabilities of all classes, `(n, classes)`."""
        above = _above(outputs)
        whole, none = np.ones((len(outputs), 1)), np.zeros((len(outputs), 1))
        edges = np.concatenate([whole, above, none], axis=1)
        return np.asarray(edges[:, :-1] - edges[:, 1:])

    def figures(self, outputs: FloatArray, encoded: Encoded) -> dict[str, float]:
        """See `TargetKind.figures`: of the median grade: accuracy, and how many grades it is off.

        Beside them the share of the largest class, and the distance of the best constant answer.
        """
        chosen = (_above(outputs) > 0.5).sum(axis=1)
        classes = np.asarray(encoded, np.int64)
        return {**class_figures(chosen, classes), **grade_figures(chosen, classes)}


def _above(outputs: FloatArray) -> FloatArray:
    """The probability of being above each threshold, falling from the lowest to the highest."""
    with np.errstate(over="ignore"):
        chances = 1.0 / (1.0 + np.exp(-outputs))
    return np.asarray(np.minimum.accumulate(chances, axis=1))
