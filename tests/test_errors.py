"""What a model's checking found, in one line."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from privagg.errors import validation_faults


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
    assert place.startswith("part.sizes.1: Input should be a valid integer")
    assert place.endswith("(got 'x')")
    assert name == f"part.name: a name of 5 letters at most (got {'b' * 80!r})"


def test_a_whole_that_is_wrong_is_named_and_not_repeated() -> None:
    assert faults([1, 2], whole="the card").startswith("the card: Input should be ")
    assert "got" not in faults([1, 2])
    assert faults({}) == "part: Field required"


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
