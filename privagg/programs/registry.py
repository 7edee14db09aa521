"""Programs by name, found through entry points; privagg's own are registered as anybody else's are.

A program is imported only when it is asked for: where its job runs, and where its report is
recomputed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from privagg.errors import ConfigError, ProgramMissingError
from privagg.programs.sums_program import AnsweringProgram, ShardsProgram, SumsProgram

GROUP = "privagg.programs"

QUESTIONS = "questions"
"""The program that `[[questions]]` make up."""


def program_names() -> tuple[str, ...]:
    """Names of every installed program, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


@cache
def program(name: str) -> type[AnsweringProgram]:
    """The program called `name`.

    Args:
        name: as its package registers it.

    Raises:
        ProgramMissingError: no installed package registers that name, or what it names is gone.
        ConfigError: several packages register it, or it is something else.
    """
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise ProgramMissingError(
            f"no program is called {name!r}; installed: {', '.join(program_names()) or 'none'}. "
            f"A package registers its own in the entry points' group {GROUP!r}"
        )
    if len({entry.value for entry in found}) > 1:
        raise ConfigError(
            f"several packages register a program called {name!r} "
            f"({', '.join(entry.value for entry in found)}); uninstall all but one"
        )
    try:
        loaded = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ProgramMissingError(f"program {name!r} is registered but broken: {error}") from error
    kinds = (SumsProgram, ShardsProgram)
    if not (isinstance(loaded, type) and issubclass(loaded, kinds) and loaded.name == name):
        raise ConfigError(
            f"{found[0].value} is not a privagg SumsProgram or ShardsProgram called {name!r}"
        )
    return loaded


def program_of(recipe: Mapping[str, Any]) -> AnsweringProgram:
    """The program that a plan pins.

    Args:
        recipe: of the plan; untrusted.

    Raises:
        ValueError: it pins none, or what it pins is not what the program asks.
        ConfigError: as `program`, or as the program's `of`.
    """
    name, asked = recipe.get("program"), recipe.get("asked")
    if not isinstance(name, str) or not isinstance(asked, dict):
        raise ValueError("the plan's recipe names no program")
    return program(name).of(asked)
