"""What is distilled: public inputs, and the kinds of the models that vote and that learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from privagg.errors import ConfigError
from privagg.programs.content import Content
from privagg.training.features import (
    CategoricalFeature,
    Category,
    NumericFeature,
    as_number,
)
from privagg.training.table import TableSchema
from privagg.training.targets import ClassKind

MOST_CELLS = 10**6
"""Of all queries together: they stand in the plan."""

_GAP = ""
"""How a query writes a missing cell."""


class Asked(Content):
    """What is asked.

    Args:
        data: the columns, as declared; the target has classes.
        queries: public records without a target; of each the cells of `data.features`, in their
            order, an empty text where one is missing.
        shards: of each site: so many teachers vote there.
        teachers: the kind of all sites' teachers, or site -> its own; see
            `privagg.programs.distill.teachers`.
        votes: `whole`, each teacher's for one class a query; or `shared` out among the classes by
            how likely it finds them, which tells doubt and is bounded alike.
        student: the kind of model that `privagg predict` fits to the labels where no other is
            asked for.
    """

    queries: tuple[tuple[Category, ...], ...] = Field(min_length=1, max_length=10**5)
    shards: int = Field(ge=1, le=10**4)
    teachers: str | dict[str, str] = "logistic"
    votes: Literal["whole", "shared"] = "whole"
    student: str = "logistic"

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if len(self.queries) * len(self.data.features) > MOST_CELLS:
            raise ValueError(
                f"{len(self.queries)} queries of {len(self.data.features)} columns are more than "
                f"{MOST_CELLS} cells; ask fewer"
            )
        if not self.teachers:
            raise ValueError("teachers names no kind; name one for each site, or one for all")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of teachers, each once."""
        named = (self.teachers,) if isinstance(self.teachers, str) else self.teachers.values()
        return tuple(sorted(set(named)))


def require_fitting(asked: Asked) -> None:
    """Refuse queries that do not fit the declared columns, or a target without classes.

    Args:
        asked: the settings.

    Raises:
        ConfigError: the query and the cell; nothing was spent.
    """
    if not isinstance(asked.data.target, ClassKind):
        raise ConfigError(
            f"teachers vote for classes, and the target {asked.data.target.name!r} has none. "
            "Nothing was spent"
        )
    require_rows(asked.data, asked.queries)


def require_rows(data: TableSchema, queries: tuple[tuple[Category, ...], ...]) -> None:
    """Refuse queries that do not fit the declared columns.

    Args:
        data: the declaration.
        queries: cells.

    Raises:
        ConfigError: as `require_fitting`.
    """
    for number, query in enumerate(queries, 1):
        if len(query) != len(data.features):
            names = ", ".join(each.name for each in data.features)
            raise ConfigError(
                f"query {number} has {len(query)} cells, and the declared columns are "
                f"{len(data.features)}: {names}. Nothing was spent"
            )
        if strange := next(_strange(data, query), None):
            raise ConfigError(
                f"query {number}: {strange}; write '' for a missing cell. Nothing was spent"
            )


def _strange(data: TableSchema, query: tuple[Category, ...]) -> Iterator[str]:
    for feature, cell in zip(data.features, query, strict=True):
        if cell == _GAP:
            continue
        if isinstance(feature, CategoricalFeature):
            if not any(_equal(cell, each) for each in feature.categories):
                yield f"{cell!r} is no declared category of {feature.name!r}"
        elif not _readable(cell, feature):
            yield f"{cell!r} is no number for {feature.name!r}"


def _equal(cell: Category, category: Category) -> bool:
    number = as_number(category)
    if number is not None:
        return as_number(cell) == number
    return str(cell).strip().casefold() == str(category).strip().casefold()


def _readable(cell: Category, feature: NumericFeature) -> bool:
    return feature.since is not None or as_number(cell) is not None
