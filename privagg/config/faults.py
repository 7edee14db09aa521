"""What is wrong with a configuration, in the words of the file and with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from privagg.errors import LONGEST_VALUE, fault_text, fault_words

MOST_FAULTS = 5

_NAME = (
    "a name takes letters (no umlauts), digits, dots, dashes and underscores, up to 64 of them, "
    "and begins with a letter or digit"
)
_CODE = (
    "this is code of your own, 'package.module:function'; where one of privagg's losses is meant, "
    "write it as `loss` of a [data.target] of kind 'regression'"
)
_QUOTED = re.compile(r"'([^']*)'")

Keys = Mapping[str, tuple[Any, ...]]
"""The keys of a section, each with the choices that it has; none where it is not of a few words."""


def explain(error: ValidationError, values: Mapping[str, Any], model: type[BaseModel]) -> str:
    """The first faults of a file, each with its key, what was expected and what to do.

    Args:
        error: what the checking found.
        values: the file, as read.
        model: what the file was checked against; its keys are what spelling is compared with.
    """
    known = _sections(model)
    by_place: dict[tuple[str, str], list[ErrorDetails]] = {}
    for fault in error.errors(include_url=False):
        place = _as_written(fault["loc"], values, missing=fault["type"] == "missing")
        by_place.setdefault(place, []).append(fault)
    told = list(by_place.items())[:MOST_FAULTS]
    return "; ".join(_told(*place, faults, known) for place, faults in told)


def _told(
    section: str, place: str, faults: Sequence[ErrorDetails], known: Mapping[str, Keys]
) -> str:
    """What is wrong at one place; several faults there are the kinds that it could have been."""
    fault = faults[0]
    if fault["type"] == "extra_forbidden":
        return f"unknown key {place!r}; {_advice(section, str(fault['loc'][-1]), known)}"
    if fault["type"] == "missing":
        section, _, key = place.rpartition(".")
        choices = " or ".join(map(repr, known.get(section, {}).get(key, ())))
        return f"{place!r} is missing; add it{f': {choices}' if choices else ''}"
    if fault["type"] == "string_pattern_mismatch":
        rule = _CODE if fault["loc"][-1] == "loss" else _NAME
        return f"{place!r}: {rule} (got {fault['input'][:LONGEST_VALUE]!r})"
    if fault["type"] in ("tuple_type", "list_type") and isinstance(fault["input"], Mapping):
        return f"{place!r} should be a list; write [[{place}]] in double brackets, once for each"
    others = dict.fromkeys(fault_words(one).removeprefix("should be ") for one in faults[1:])
    text = fault_text(fault)
    kinds = ", or ".join([fault_words(fault), *others])
    where = f"{place!r}: " if place else ""
    return f"{where}{text.replace(fault_words(fault), kinds, 1)}{_meant(fault)}"


def _meant(fault: ErrorDetails) -> str:
    """Which of the choices was probably meant."""
    given = fault.get("ctx", {}).get("tag", fault["input"])
    listed = fault.get("ctx", {}).get("expected_tags", fault.get("ctx", {}).get("expected", ""))
    choices = _QUOTED.findall(str(listed))
    near = get_close_matches(given.lower(), choices, n=1) if isinstance(given, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""


def _as_written(
    location: Sequence[str | int], values: Mapping[str, Any], *, missing: bool
) -> tuple[str, str]:
    """A fault's section and its whole place, as the file spells them.

    An entry of a list stands by its name, or by its number from 1 where the name is at fault.
    What the file does not spell is a kind that the checker went into (`table`, `numeric`), or the
    key that is missing.
    """
    keys: list[str] = []
    place: list[str] = []
    here: Any = values
    last = len(location) - 1
    for depth, part in enumerate(location):
        if isinstance(part, int):
            here = here[part] if part < len(here) else None  # one that should follow
            name = here.get("name") if isinstance(here, Mapping) else None
            own = depth < last and location[depth + 1] == "name"
            place[-1] += f"[{name}]" if isinstance(name, str) and not own else f"[#{part + 1}]"
        elif isinstance(here, Mapping) and part in here:
            here = here[part]
            keys.append(part)
            place.append(part)
        elif depth == last and missing:
            place.append(part)
    return ".".join(keys[:-1]), ".".join(place)


def _advice(section: str, key: str, known: Mapping[str, Keys]) -> str:
    """What a key was probably meant to be: a near one here, or the same one in its own section."""
    if key in known.get(section, ()):
        return "it belongs to another `kind` of this section; remove it or change `kind`"
    near = get_close_matches(key, sorted(known.get(section, ())), n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    homes = [f"[{home}]" if home else "the top" for home, keys in known.items() if key in keys]
    if homes:
        return f"a key of that name belongs in {' or '.join(homes)}"
    return "remove it or correct its spelling"


def _sections(model: type[BaseModel], name: str = "") -> dict[str, Keys]:
    """The keys of every section, by the section's name as it stands in the file."""
    found: dict[str, Keys] = {
        name: {key: _choices(field.annotation) for key, field in model.model_fields.items()}
    }
    for key, field in model.model_fields.items():
        inner = f"{name}.{key}" if name else key
        for part in _models(field.annotation):
            for section, keys in _sections(part, inner).items():
                found[section] = {**found.get(section, {}), **keys}
    return found


def _choices(annotation: Any) -> tuple[Any, ...]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(each.value for each in annotation)
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    arguments = get_args(annotation)
    for part in arguments[:1] if get_origin(annotation) is Annotated else arguments:
        yield from _models(part)
