"""Labels that teachers voted for, as a file, and students that anybody fits to them.

The file is public, as the opened sum is that it follows from: a student of any architecture, at
the coordinator, at a site or with whoever is handed it, costs nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from privagg.programs.distill.asked import require_rows
from privagg.programs.distill.teachers import Classes, chances, fitted, inputs_of
from privagg.programs.modelfile import ModelFile
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.training.features import Category
from privagg.training.table import TableSchema


class Labels(ModelFile):
    """Public records and how the teachers voted on them.

    Args:
        format, run, plan_digest, data: as for `ModelFile`.
        student: the kind of model that is fitted by default.
        queries: of each record the cells.
        votes: of each record what share of the teachers said each class; noise is in it, so that
            it may be below 0 or above 1.
    """

    what: ClassVar[str] = "the labels"

    format: Literal["privagg-labels/1"] = "privagg-labels/1"
    student: str
    queries: tuple[tuple[Category, ...], ...] = Field(min_length=1)
    votes: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        count = len(self.data.target.prediction_names)
        if len(self.votes) != len(self.queries) or any(len(each) != count for each in self.votes):
            raise ValueError(f"votes are {count} shares for each query")
        return self

    @classmethod
    def read(cls, facts: Any) -> Self:
        """See `ModelFile.read`; its queries are records of the declared table."""
        found = super().read(facts)
        require_rows(found.data, found.queries)
        return found

    @property
    def classes(self) -> Classes:
        """The class with most votes of each query, int64 (m,)."""
        return np.asarray(np.argmax(np.array(self.votes), axis=1), np.int64)

    def predictions(self, records: Columns, kind: str | None = None) -> FloatArray:
        """The chance of each class, float64 (r, classes), by a student that is fitted here.

        Args:
            records: of a table with the same columns.
            kind: of the student; by default the one that the labels name.

        Raises:
            ProgramMissingError: no such kind is installed.
        """
        inputs = inputs_of(queries_of(self.data, self.queries), self.data)
        model = fitted(kind or self.student, 0, inputs, self.classes)
        count = len(self.data.target.prediction_names)
        return chances(model, inputs_of(records, self.data), count)


def queries_of(data: TableSchema, queries: Sequence[Sequence[Category]]) -> Columns:
    """Queries as records of the declared table, read as a site's are.

    Args:
        data: the declaration.
        queries: of each the cells of `data.features`.
    """
    import pandas as pd

    names = [each.name for each in data.features]
    cells = {name: [row[at] for row in queries] for at, name in enumerate(names)}
    frame = pd.DataFrame({name: pd.Series(each, dtype=object) for name, each in cells.items()})
    return Columns.read(frame.replace("", None), data, target=False)
