"""Models that follow from opened sums, as files: which one a file holds, and reading it."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from privagg.errors import ConfigError, validation_faults
from privagg.training.table import TableSchema


class ModelFile(BaseModel):
    """What every such file says.

    Args:
        format: of the file, a name and a number.
        run: that made it.
        plan_digest: of the plan that every site agreed to.
        data: the columns that it was made of, as declared, and its target.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    what: ClassVar[str]
    """How a refusal calls it."""

    format: str
    run: str = ""
    plan_digest: str = ""
    data: TableSchema

    @classmethod
    def is_in(cls, facts: Any) -> bool:
        """Whether JSON values say that they are of this kind, of whatever number.

        Args:
            facts: as for `read`.
        """
        inside = facts.get("model", facts) if isinstance(facts, dict) else None
        named = inside.get("format") if isinstance(inside, dict) else None
        kind = str(cls.model_fields["format"].default).partition("/")[0]
        return isinstance(named, str) and named.startswith(f"{kind}/")

    @classmethod
    def read(cls, facts: Any) -> Self:
        """The model of a file's JSON values; whoever wrote it.

        Args:
            facts: those of the model, or of an `answers.json` with it.

        Raises:
            ConfigError: they are none.
        """
        inside = facts.get("model") if isinstance(facts, dict) and "answers" in facts else facts
        try:
            return cls.model_validate(inside)
        except ValidationError as error:
            raise ConfigError(validation_faults(error, whole=cls.what)) from error
