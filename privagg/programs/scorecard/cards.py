"""Cards of several classes, each of one class against all others, as a file."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from privagg.errors import ConfigError, validation_faults
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.scorecard.card import Card
from privagg.training.table import TableSchema

LEAST_CHANCE = float(np.finfo(np.float64).tiny)
"""Of a class, before they are brought to a sum of 1."""


class Cards(BaseModel):
    """A card of each class.

    Args:
        format: of the file.
        run: that made them.
        plan_digest: of the plan that every site agreed to.
        cards: in the order of the classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["privagg-scorecards/1"] = "privagg-scorecards/1"
    run: str = ""
    plan_digest: str = ""
    cards: tuple[Card, ...] = Field(min_length=3)

    @model_validator(mode="after")
    def _of_one_table(self) -> Self:
        labels = [each.label for each in self.cards]
        if None in labels or len(set(labels)) < len(labels):
            raise ValueError("every card is of a class of its own")
        if any(each.data != self.cards[0].data for each in self.cards):
            raise ValueError("cards are of the same columns and target")
        return self

    @staticmethod
    def are_in(facts: Any) -> bool:
        """Whether the JSON values of a file hold cards of several classes."""
        inside = _inside(facts)
        return isinstance(inside, dict) and "cards" in inside

    @classmethod
    def read(cls, facts: Any) -> Self:
        """Cards from the JSON values of their file; whoever wrote it.

        Args:
            facts: those of cards, or of an `answers.json` with some.

        Raises:
            ConfigError: they are none.
        """
        try:
            return cls.model_validate(_inside(facts))
        except ValidationError as error:
            raise ConfigError(validation_faults(error, whole="the scorecards")) from error

    @property
    def data(self) -> TableSchema:
        """The columns that they were made of, as declared, and their target."""
        return self.cards[0].data

    def points(self, records: Columns) -> FloatArray:
        """The points of each record on each card, float64 (r, C)."""
        return np.stack([each.points(records) for each in self.cards], axis=1)

    def predictions(self, records: Columns) -> FloatArray:
        """The chance of each class, float64 (r, C): what the cards say, brought to a sum of 1."""
        chances = np.stack([each.predictions(records) for each in self.cards], axis=1)
        chances = np.maximum(chances, LEAST_CHANCE)
        return np.asarray(chances / chances.sum(axis=1)[:, None])


def _inside(facts: Any) -> Any:
    return facts.get("model") if isinstance(facts, dict) and "answers" in facts else facts
