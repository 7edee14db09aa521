"""What an ensemble is made of: predictors that everybody knows, and how their weights are found.

A predictor is public, or was released before: nothing of the sites' records is in it but what was
charged for then. Of each record it says how likely that is: the chance of its class, or of its
value of one column.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from privagg.errors import ConfigError
from privagg.programs.content import Content
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.scorecard.card import Card
from privagg.training.features import CategoricalFeature, NumericFeature
from privagg.training.table import TableSchema
from privagg.training.targets import Target

MOST_PREDICTORS = 512

LEAST = 1e-6
"""Of a likelihood: no predictor rules anything out."""

METHOD = 1
"""Of the steps from records to weights: plans pin it, as `verify` computes by it again."""


class Predictor(BaseModel):
    """One predictor of an ensemble; exactly one of `column`, `chances` of one, and `card`.

    Args:
        name: how its weight is called.
        column: a declared column that holds the chance of the target's second class, as each site
            computed it by the public predictor; with `chances`, a column of categories.
        chances: of the column's declared categories, in their order, adding to 1: a density.
        card: a released scorecard, as it stands under `model` in its answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    column: str | None = None
    chances: tuple[float, ...] = ()
    card: Card | None = None

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if (self.card is None) == (self.column is None):
            raise ValueError(f"predictor {self.name!r} takes either a column or a card")
        if self.chances and (min(self.chances) < 0 or abs(sum(self.chances) - 1) > 1e-6):
            raise ValueError(f"chances of predictor {self.name!r} must be 0 or more and add to 1")
        return self

    def says(self, records: Columns) -> FloatArray:
        """The chance of the second class, or of the record's value: float64 (r,), NaN: of none.

        Args:
            records: some; of their target nothing is read.
        """
        if self.card is not None:
            return self.card.predictions(records)
        assert self.column is not None
        if self.chances:
            return np.asarray(np.array([*self.chances, np.nan])[records.codes(self.column)])
        return records.numbers(self.column)

    def likelihood(self, records: Columns, target: FloatArray) -> FloatArray:
        """How likely it finds each record, float64 (r,) within [LEAST, 1]; NaN: it cannot say.

        Args:
            records: some.
            target: 1 of the second class, 0 of the first, NaN of neither; float64 (r,).
        """
        said = self.says(records)
        found = said if self.chances else target * said + (1 - target) * (1 - said)
        return np.asarray(np.maximum(found, LEAST))


class Asked(Content):
    """Whose weights are asked for, and how.

    Args:
        data: the columns, as declared; the target has two classes where chances of classes are
            weighed.
        predictors: two or more.
        rounds: opened sums; each steps once.
        sent: predictors that a round asks of, drawn anew each round by a public seed; by default
            all. Fewer make uploads shorter and weights worse.
        rate: of the step.
        seed: public, of the draw.
        method: `METHOD` of the privagg that made the plan.
    """

    predictors: tuple[Predictor, ...] = Field(min_length=2, max_length=MOST_PREDICTORS)
    rounds: int = Field(default=20, ge=1, le=200)
    sent: int | None = Field(default=None, ge=2)
    rate: float = Field(default=1.0, gt=0, le=10)
    seed: int = Field(default=0, ge=0, lt=2**63)
    method: int = METHOD

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [each.name for each in self.predictors]
        if len(set(names)) < len(names):
            raise ValueError(f"names of predictors must differ, got {names}")
        if self.sent is not None and self.sent > len(names):
            raise ValueError(f"sent = {self.sent}, and there are {len(names)} predictors")
        if self.method != METHOD:
            raise ValueError(
                f"ensembles are made by method {METHOD} here, and this one names {self.method}; "
                "take the version of privagg that its plan was made by"
            )
        return self

    @property
    def of_values(self) -> bool:
        """Whether densities of a column are weighed, rather than chances of classes."""
        return bool(self.predictors[0].chances)


def require_fitting(asked: Asked) -> None:
    """Refuse predictors that do not fit the declared columns.

    Args:
        asked: the settings.

    Raises:
        ConfigError: the predictor by name; nothing was spent.
    """
    kinds = {each.name: each for each in asked.data.features}
    target = asked.data.target
    columns = {each.column for each in asked.predictors}
    if asked.of_values and (len(columns) > 1 or not all(p.chances for p in asked.predictors)):
        _refuse("densities are weighed with densities of the same column alone")
    if not asked.of_values and not (isinstance(target, Target) and target.kind == "binary"):
        _refuse(f"chances are of two classes, and the target {target.name!r} has others")
    for each in asked.predictors:
        feature = kinds.get(each.column or "")
        if each.chances:
            size = len(feature.categories) if isinstance(feature, CategoricalFeature) else 0
            if len(each.chances) != size:
                _refuse(f"{each.name!r} has {len(each.chances)} chances for {size} categories")
        elif each.card is not None:
            _require_its_columns(each.name, each.card, asked.data)
        elif not isinstance(feature, NumericFeature) or not (
            feature.range[0] >= 0 and feature.range[1] <= 1
        ):
            _refuse(f"{each.name!r} needs a declared column with a range within [0, 1]")


def _require_its_columns(name: str, card: Card, data: TableSchema) -> None:
    kinds = {each.name: each for each in data.features}
    for feature in card.data.features:
        if kinds.get(feature.name) != feature:
            _refuse(f"the card {name!r} reads {feature.name!r}, declared otherwise or not at all")
    if card.data.target != data.target or card.is_amount:
        _refuse(f"the card {name!r} predicts something else than {data.target.name!r}")


def _refuse(why: str) -> None:
    raise ConfigError(f"an ensemble cannot be made: {why}. Nothing was spent")
