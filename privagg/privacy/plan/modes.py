"""The ways to be private, by name: the one table that plans are read and made by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from privagg.errors import NoiseError, PlanError
from privagg.privacy.plan.agreed import AgreedPlan
from privagg.privacy.plan.base import Plan
from privagg.privacy.plan.training import TrainingPlan

_MODES: dict[str, type[AgreedPlan]] = {}

P = TypeVar("P", bound=AgreedPlan)


def plan_mode(kind: type[P]) -> type[P]:
    """Class decorator: makes a plan class known under the default of its `mode`.

    Raises:
        PlanError: another class has that mode already.
    """
    mode = kind.model_fields["mode"].default
    if _MODES.setdefault(mode, kind) is not kind:
        raise PlanError(f"two plan classes have the mode {mode!r}; give one another name")
    return kind


def mode_names() -> tuple[str, ...]:
    """Every mode of training there is, in the order of their registration."""
    return tuple(mode for mode, kind in _MODES.items() if issubclass(kind, TrainingPlan))


def plan_class(mode: object) -> type[TrainingPlan]:
    """The plan class of a mode of training (untrusted input).

    Raises:
        PlanError: there is no such mode.
    """
    kind = _kind(mode)
    if not issubclass(kind, TrainingPlan):
        raise PlanError(f"nothing is trained by {mode!r}; there are {', '.join(mode_names())}")
    return kind


def load_plan(facts: Any) -> Plan:
    """A plan from its JSON facts (untrusted input).

    Raises:
        PlanError: the facts are not a plan this version understands.
    """
    if not isinstance(facts, Mapping):
        raise PlanError(f"not a plan: {type(facts).__name__} where an object is due")
    try:
        return cast(Plan, _kind(facts.get("mode")).model_validate(facts))
    except (NoiseError, PlanError, ValueError) as error:
        raise PlanError(f"not a plan: {error}") from error


def _kind(mode: object) -> type[AgreedPlan]:
    if not isinstance(mode, str) or mode not in _MODES:
        raise PlanError(f"no mode is called {mode!r:.80}; there are {', '.join(_MODES)}")
    return _MODES[mode]
