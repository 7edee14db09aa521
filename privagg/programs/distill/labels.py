"""Labels that teachers voted for, as a file, and students that anybody fits to them.

The file is public, as the opened sum is that it follows from: a student of any architecture, at
the coordinator, at a site or with whoever is handed it, costs nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from privagg.errors import ConfigError, validation_faults
from privagg.programs.distill.asked import require_rows
from privagg.programs.distill.teachers import Classes, chances, fitted, inputs_of
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.training.features import Category
from privagg.training.table import TableSchema

_FORMAT = "privagg-labels/"


class Labels(BaseModel):
    """Public records and how the teachers voted on them.

    Args:
        format: of the file.
        run: that made it.
        plan_digest: of the plan that every site agreed to.
        data: the columns, as declared, and the target.
        student: the kind of model that is fitted by default.
        queries: of each record the cells.
        votes: of each record what share of the teachers said each class; noise is in it, so that
            it may be below 0 or above 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["privagg-labels/1"] = "privagg-labels/1"
    run: str = ""
    plan_digest: str = ""
    data: TableSchema
    student: str
    queries: tuple[tuple[Category, ...], ...] = Field(min_length=1)
    votes: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        count = len(self.data.target.prediction_names)
        if len(self.votes) != len(self.queries) or any(len(each) != count for each in self.votes):
            raise ValueError(f"votes are {count} shares for each query")
        return self

    @staticmethod
    def are_in(facts: Any) -> bool:
        """Whether JSON values say that they are of labels.

        Args:
            facts: as for `read`.
        """
        inside = facts.get("model", facts) if isinstance(facts, dict) else None
        named = inside.get("format") if isinstance(inside, dict) else None
        return isinstance(named, str) and named.startswith(_FORMAT)

    @classmethod
    def read(cls, facts: Any) -> Self:
        """Labels from the JSON values of their file; whoever wrote it.

        Args:
            facts: those of labels, or of an `answers.json` with some.

        Raises:
            ConfigError: they are none.
        """
        inside = facts.get("model") if isinstance(facts, dict) and "answers" in facts else facts
        try:
            found = cls.model_validate(inside)
        except ValidationError as error:
            raise ConfigError(validation_faults(error, whole="the labels")) from error
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
