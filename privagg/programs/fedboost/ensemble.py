"""A weighed ensemble as a file, and what it says of a record."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from privagg.programs.fedboost.asked import (
    MOST_PREDICTORS,
    Asked,
    Predictor,
    require_fitting,
)
from privagg.programs.modelfile import ModelFile
from privagg.programs.questions.columns import Columns, FloatArray


class Ensemble(ModelFile):
    """Predictors with their weights.

    Args:
        format, run, plan_digest, data: as for `ModelFile`.
        predictors: as they were asked about; a column's values come with the table.
        weights: of each, parts of 1.
    """

    what: ClassVar[str] = "the ensemble"

    format: Literal["privagg-ensemble/1"] = "privagg-ensemble/1"
    predictors: tuple[Predictor, ...] = Field(min_length=2, max_length=MOST_PREDICTORS)
    weights: tuple[float, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        require_fitting(Asked(data=self.data, predictors=self.predictors))
        if len(self.weights) != len(self.predictors) or min(self.weights) < 0:
            raise ValueError("each predictor has a weight, 0 or more")
        if abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError("weights are parts of 1")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What a prediction is called: a chance, or how likely the column's value is."""
        return ("likelihood",) if self.predictors[0].chances else ("chance",)

    def predictions(self, records: Columns) -> FloatArray:
        """The chance of the target's second class, or the density of a column's value.

        Args:
            records: of a table with the same columns.

        Returns:
            float64 (r, 1): the weighed mean over the predictors that say something of a record;
            NaN where none does.
        """
        said = np.stack([each.says(records) for each in self.predictors])
        weights = np.array(self.weights)[:, None] * np.isfinite(said)
        whole = weights.sum(axis=0)
        mean = (weights * np.nan_to_num(said)).sum(axis=0) / np.where(whole > 0, whole, 1.0)
        return np.where(whole > 0, mean, np.nan)[:, None]
