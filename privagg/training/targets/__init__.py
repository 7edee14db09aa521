"""What can a model predict of a record? One file for each kind of target."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from privagg.training.targets.amounts import Regression
from privagg.training.targets.base import Encoded, Remark, Spent, TargetKind
from privagg.training.targets.classes import ClassKind, NumberedClasses, Target
from privagg.training.targets.grades import Ordinal
from privagg.training.targets.hazards import TimeToEvent
from privagg.training.targets.labels import MultiLabel


def kind(value: Any) -> str:
    """The kind that a section says; a section that says none is about classes."""
    given = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "binary" if given is None else str(given)


AnyTarget = Annotated[
    Annotated[Target, Tag("binary")]
    | Annotated[Target, Tag("multiclass")]
    | Annotated[Regression, Tag("regression")]
    | Annotated[Ordinal, Tag("ordinal")]
    | Annotated[MultiLabel, Tag("multi-label")]
    | Annotated[TimeToEvent, Tag("time-to-event")],
    Discriminator(kind),
]
"""What `[data.target]` can be."""

__all__ = [
    "AnyTarget",
    "ClassKind",
    "Encoded",
    "MultiLabel",
    "NumberedClasses",
    "Ordinal",
    "Regression",
    "Remark",
    "Spent",
    "Target",
    "TargetKind",
    "TimeToEvent",
]
