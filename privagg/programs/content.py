"""A program that is asked one declared thing: what is said of it, pinned of it and made from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from privagg.programs.sums_program import AnsweringProgram
from privagg.training.table import TableSchema


class Content(BaseModel):
    """What is asked of a declared table: public, and pinned with the plan.

    Args:
        data: the columns, as declared.
        level: of the intervals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: TableSchema
    level: float = Field(default=0.95, gt=0.5, lt=1)


class OfContent(AnsweringProgram):
    """A program that follows from its content alone; beside `SumsProgram` or `ShardsProgram`.

    Args:
        content: what is asked, as `asks` checks it.

    Raises:
        ConfigError: it does not fit the declared table; nothing was spent.
    """

    asks: ClassVar[type[Content]]
    """What its content is."""

    content: Content

    def __init__(self, content: Any) -> None:
        self.content = content

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Self:
        """See `AnsweringProgram.of`."""
        return cls(cls.asks.model_validate(asked))

    @property
    def asked(self) -> dict[str, JsonValue]:
        """See `AnsweringProgram.asked`."""
        return self.content.model_dump(mode="json")

    @property
    def level(self) -> float:
        """See `AnsweringProgram.level`."""
        return self.content.level
