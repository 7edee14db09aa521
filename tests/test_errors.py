"""What a model's checking found, in one line."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import PydanticKnownError, core_schema

import privagg
from privagg.errors import WORDS, fault_text, validation_faults

_FAULTS = {
    "@ge": ("greater_than_equal",),
    "@gt": ("greater_than",),
    "@le": ("less_than_equal",),
    "@lt": ("less_than",),
    "@max_digits": ("decimal_max_digits", "decimal_whole_digits"),
    "@decimal_places": ("decimal_max_places",),
    "@max_length": ("string_too_long", "too_long", "bytes_too_long"),
    "@min_length": ("string_too_short", "too_short", "bytes_too_short"),
    "@pattern": ("string_pattern_mismatch",),
    "@tz_constraint": ("timezone_aware",),
    "bool": ("bool_type", "bool_parsing"),
    "bytes": ("bytes_type", "bytes_invalid_encoding"),
    "date": (
        *("date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact"),
    ),
    "datetime": (
        *("datetime_type", "datetime_parsing", "datetime_object_invalid"),
        "datetime_from_date_parsing",
    ),
    "decimal": ("decimal_type", "decimal_parsing", "finite_number"),
    "dict": ("dict_type", "mapping_type", "invalid_key"),
    "enum": ("enum",),
    "float": ("float_type", "float_parsing", "finite_number"),
    "int": (
        *("int_type", "int_parsing", "int_parsing_size", "int_from_float", "finite_number"),
        "bool_type",
    ),
    "is-instance": ("is_instance_of",),
    "json-or-python": ("invalid-json-value",),
    "list": ("list_type", "iterable_type"),
    "literal": ("literal_error",),
    "model": ("model_type", "model_attributes_type", "recursion_loop", "json_invalid", "json_type"),
    "model-fields": ("missing", "extra_forbidden", "invalid_key", "model_attributes_type"),
    "none": ("none_required",),
    "str": ("string_type", "string_unicode"),
    "tagged-union": ("union_tag_invalid", "union_tag_not_found"),
    "tuple": ("tuple_type", "missing", "too_long", "iterable_type"),
}
"""Which faults a part of a schema, or a limit of one, can find (pydantic's documentation)."""

_FAULTLESS = frozenset(
    (
        *("any", "default", "definition-ref", "definitions", "function-after", "function-before"),
        *("function-plain", "function-wrap", "info", "lax-or-strict", "model-field", "no-info"),
        *("nullable", "union", "with-info"),
    )
)
"""Parts that find none themselves; what their functions raise is in our words already."""


class Part(BaseModel):
    sizes: tuple[int, ...] = Field(max_length=3)
    name: str = "a"

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 5:
            raise ValueError("a name of 5 letters at most")
        return name


class Whole(BaseModel, extra="forbid"):
    part: Part


def faults(facts: Any, **how: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(facts)
    return validation_faults(caught.value, **how)


def test_a_fault_says_where_what_and_the_value() -> None:
    said = faults({"part": {"sizes": [1, "x"], "name": "b" * 100}})
    place, name = said.split("; ")
    assert place.startswith("part.sizes.1: should be a whole number")
    assert place.endswith("(got 'x')")
    assert name == f"part.name: a name of 5 letters at most (got {'b' * 80!r})"


def test_a_whole_that_is_wrong_is_named_and_not_repeated() -> None:
    assert faults([1, 2], whole="the card").startswith("the card: should be ")
    assert "got" not in faults([1, 2])
    assert faults({}) == "part: is missing; add it"


def test_values_stay_out_where_they_may_be_secret_and_control_characters_are_escaped() -> None:
    secret = {"part": {"sizes": [], "name": "secret\n"}}
    assert faults(secret, values=False) == "part.name: a name of 5 letters at most"
    assert "\n" not in faults(secret)


def test_a_stranger_s_key_stays_on_one_line_and_short() -> None:
    said = faults({"part": {"sizes": []}, "a\n" * 1000: 1}, values=False)
    assert said.isprintable()
    assert len(said) < 300


def test_beyond_the_first_faults_only_their_number_is_said() -> None:
    assert faults({"part": {"sizes": ["a", "b", "c"]}}, most=1).endswith("(and 2 more)")


def test_every_fault_that_a_model_of_ours_can_find_has_words_of_our_own() -> None:
    """pydantic's own ("Input should be a valid …") never reach a user."""
    for module in pkgutil.walk_packages(privagg.__path__, "privagg."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    kinds: set[str] = set()
    for model in _models(BaseModel):
        if model.__module__.startswith("privagg."):
            kinds |= _kinds(model.__pydantic_core_schema__, set())
    assert {"model", "decimal", "tagged-union", "@pattern"} <= kinds
    unknown = kinds - {*_FAULTS, *_FAULTLESS}
    assert not unknown, "say which faults these can find"
    assert {fault for kind in kinds for fault in _FAULTS.get(kind, ())} <= WORDS.keys()
    assert {fault for found in _FAULTS.values() for fault in found} <= {
        *get_args(core_schema.ErrorType),
        "invalid-json-value",
    }


@pytest.mark.parametrize("kind", get_args(core_schema.ErrorType))
def test_no_fault_s_text_is_pydantic_s(kind: str) -> None:
    context: dict[str, Any] = {}
    known = None
    while known is None:
        try:
            known = PydanticKnownError(kind, context)  # type: ignore[arg-type]
        except TypeError as error:  # it names one thing that it lacks, or that is of another type
            key = str(error).split("'")[1]
            context[key] = 3 if key in context else "x"
    details: Any = {
        "type": kind,
        "loc": ("a",),
        "msg": known.message(),
        "input": [],
        "ctx": context,
    }
    if kind not in ("value_error", "assertion_error"):
        assert fault_text(details) != known.message()
        assert "Input" not in fault_text(details)


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def _kinds(schema: Any, seen: set[int]) -> set[str]:
    """The kinds of a schema's parts, and its limits with an `@`."""
    if id(schema) in seen:
        return set()
    seen.add(id(schema))
    if isinstance(schema, list | tuple):
        return {kind for part in schema for kind in _kinds(part, seen)}
    if not isinstance(schema, dict):
        return set()
    kinds = {schema["type"]} if isinstance(schema.get("type"), str) else set()
    kinds |= {f"@{key}" for key in schema if f"@{key}" in _FAULTS}
    inner = (part for key, part in schema.items() if key not in ("metadata", "serialization"))
    return kinds | {kind for part in inner for kind in _kinds(part, seen)}
