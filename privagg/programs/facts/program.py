"""What a table's declaration needs to say, asked of the records: ranges, categories, gaps, classes.

Nobody guesses a range, or reads it off the data unpaid: each column is a question of a few rounds,
and all columns together are one job with one budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from privagg.programs.content import Content
from privagg.programs.facts.categories import CategoryFacts
from privagg.programs.facts.cells import Cells
from privagg.programs.facts.numbers import NumberFacts
from privagg.programs.questions.columns import LARGEST_END
from privagg.programs.questions.program import AskedTogether, Questions
from privagg.training.features import UNKNOWN, CategoricalFeature, Feature, NumericFeature

if TYPE_CHECKING:
    import pandas as pd

AnyFact = Annotated[NumberFacts | CategoryFacts, Field(discriminator="kind")]


class AskedFacts(AskedTogether):
    """Whose facts are asked: public, and pinned with the plan.

    Args:
        questions: a column each, by its name and kind.
    """

    questions: tuple[AnyFact, ...] = Field(min_length=1, max_length=1000)


class Facts(Questions):
    """Facts of columns, asked together; each as `NumberFacts` or `CategoryFacts` says."""

    name = "facts"
    asks: ClassVar[type[Content]] = AskedFacts  # of `data` only the columns' names are used

    def cells(self, frame: pd.DataFrame) -> Cells:
        """A table as it is asked.

        Args:
            frame: has all columns that are asked about.
        """
        questions = self.content.questions
        numbers = [each.name for each in questions if isinstance(each, NumberFacts)]
        texts = [each.name for each in questions if isinstance(each, CategoryFacts)]
        return Cells.of(frame, numbers, texts)


def undeclared(columns: Iterable[AnyFact]) -> tuple[Feature, ...]:
    """Columns as features that say nothing of their values, for files to be read by.

    Args:
        columns: those that are asked about, but for the target.
    """
    return tuple(
        NumericFeature(name=each.name, range=(-LARGEST_END, LARGEST_END))
        if isinstance(each, NumberFacts)
        else CategoricalFeature(name=each.name, categories=UNKNOWN)
        for each in columns
    )
