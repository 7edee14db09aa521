"""Several labels of one record, each yes or no, that do not exclude each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field
from pydantic import model_validator as after_model

from privagg.training.features import Category, FloatArray
from privagg.training.measures import label_figures
from privagg.training.targets.base import Encoded, Remark, TargetKind
from privagg.training.targets.classes import Target
from privagg.training.targets.weights import Weight

if TYPE_CHECKING:
    import pandas as pd
    import torch


class MultiLabel(TargetKind):
    """Yes or no in each of several columns; a record lacking one of them is left out.

    Args:
        name: what the labels together are called.
        labels: the columns, at least two, in the order of a model's outputs.
        positive: as for one yes or no: what counts as yes, in every column.
        label_weights: what a yes counts in the loss of each label, beside 1 for a no.
    """

    kind: Literal["multi-label"]
    labels: tuple[str, ...] = Field(min_length=2, max_length=1000)
    positive: Category | tuple[Category, ...]
    label_weights: tuple[Weight, ...] | None = None

    @after_model(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels of {self.name!r} must differ, got {list(self.labels)}")
        _ = self._each  # refuses a rule that cannot be read
        if self.label_weights is not None and len(self.label_weights) != len(self.labels):
            raise ValueError(
                f"label_weights of {self.name!r} has {len(self.label_weights)} numbers for "
                f"{len(self.labels)} labels; give one for each"
            )
        return self

    @property
    def _each(self) -> tuple[Target, ...]:
        return tuple(Target(name=label, positive=self.positive) for label in self.labels)

    @property
    def columns(self) -> tuple[str, ...]:
        """See `TargetKind.columns`: one a label."""
        return self.labels

    def read(self, frame: pd.DataFrame) -> Encoded:
        """See `TargetKind.read`: 0 and 1, int64 `(n, m)`."""
        return np.stack([each.encode(frame[each.name]) for each in self._each], axis=1)

    def categories(self, column: str) -> tuple[str, ...]:
        """See `TargetKind.categories`."""
        return ("no", "yes")

    def remarks(self, frame: pd.DataFrame) -> Iterator[Remark]:
        """See `TargetKind.remarks`: of each label by itself."""
        for each in self._each:
            yield from each.remarks(frame)

    def require_telling(self, encoded: Encoded) -> None:
        """See `TargetKind.require_telling`: some label is yes here and no there."""
        if not (encoded != encoded[:1]).any():
            raise ValueError(
                f"the public table's {len(encoded)} usable records have all labels alike, so that "
                "any model would seem right; check `positive`, or use another table"
            )

    @property
    def outputs(self) -> int:
        """See `TargetKind.outputs`: a logit a label."""
        return len(self.labels)

    def per_record_loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """See `TargetKind.per_record_loss`: mean logistic loss over the labels."""
        from privagg.training.losses import labels_loss

        return labels_loss(outputs, encoded, self.label_weights or (1.0,) * len(self.labels))

    def examples(self, draw: np.random.Generator, count: int) -> Encoded:
        """See `TargetKind.examples`: yes and no as likely."""
        return draw.integers(0, 2, (count, len(self.labels)))

    @property
    def predicted(self) -> str:
        """See `TargetKind.predicted`."""
        return "the probability of each label"

    @property
    def measures(self) -> tuple[str, ...]:
        """See `TargetKind.measures`."""
        return ("accuracy", "auc")

    @property
    def prediction_names(self) -> tuple[str, ...]:
        """See `TargetKind.prediction_names`."""
        return tuple(f"chance_{label}" for label in self.labels)

    def predictions(self, outputs: FloatArray) -> FloatArray:
        """See `TargetKind.predictions`: `(n, labels)`."""
        with np.errstate(over="ignore"):
            return np.asarray(1.0 / (1.0 + np.exp(-outputs)))

    def figures(self, outputs: FloatArray, encoded: Encoded) -> dict[str, float]:
        """See `TargetKind.figures`: means over the labels, and how many records have each.

        Accuracy beside that of each label's commoner answer; the AUC of labels that have both.
        """
        return label_figures(outputs, np.asarray(encoded, np.int64))
