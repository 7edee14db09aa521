"""What answers to `[facts]` propose to declare: TOML that says which figures it rests on."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from privagg.config.schema import parse_config
from privagg.errors import ConfigError
from privagg.training.features import as_number

_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?")


def proposed(answers: Mapping[str, Any], *, target_declared: bool) -> str:
    """The sections that follow from answers, each with the figures that it rests on.

    Args:
        answers: of a run that asked for facts, as in its `answers.json`.
        target_declared: `[data]` has its target already, so that none is proposed.
    """
    head = (
        f"# Proposed by {answers['run']}, which asked the records with privacy: ε "
        f"{answers['epsilon']} at δ {answers['delta']},\n"
        "# charged to each data set. All figures have noise; in brackets stand "
        f"{100 * answers['level']:g} % intervals for these records."
    )
    sections = [
        _of_numbers(answer) if answer["question"]["kind"] == "number"
        else _of_categories(answer, target_declared)
        for answer in answers["answers"]
    ]  # fmt: skip
    return "\n\n".join([head, *sections]) + "\n"


def require_room(text: str, sections: str) -> None:
    """Refuse a file that proposed sections cannot be added to, before anything is asked.

    Args:
        text: the file's.
        sections: such as would be proposed.

    Raises:
        ConfigError: they would contradict what is there.
    """
    try:
        tomllib.loads(_joined(text, sections))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            "the proposed sections cannot be written into this file: [data] must be a section of "
            f"its own, without features ({error}). Nothing was spent; ask without --apply, and "
            "write them yourself"
        ) from error


def with_proposed(text: str, sections: str) -> str:
    """A configuration with the proposed sections at its end.

    Args:
        text: the file's.
        sections: as `proposed` gives them.

    Raises:
        ConfigError: it could not be used so.
    """
    joined = _joined(text, sections)
    parse_config(tomllib.loads(joined), source="with the proposed sections")
    return joined


def _joined(text: str, sections: str) -> str:
    return f"{text.rstrip()}\n\n{sections}"


def _of_numbers(answer: Mapping[str, Any]) -> str:
    name, found = answer["question"]["name"], {each["what"]: each for each in answer["figures"]}
    missing = f"# missing: {_with_ends(found['count'])}"
    low, high = found.get("low end"), found.get("high end")
    if low is None or high is None:
        return f"{_nothing(name)}\n{missing}"
    quantiles = [each for what, each in found.items() if what.startswith("quantile")]
    told = [f"#   {each['what']}: {_with_ends(each)}" for each in quantiles]
    return "\n".join(
        [
            f"[[data.features]]\nname = {_toml(name)}",
            f"range = [{_toml(low['value'])}, {_toml(high['value'])}]",
            *told,
            missing,
        ]
    )


def _of_categories(answer: Mapping[str, Any], target_declared: bool) -> str:
    question, figures = answer["question"], answer["figures"]
    name = question["name"]
    named = [(each["group"][name], each) for each in figures if name in each["group"]]
    told = [f"#   {text}: {_with_ends(each)}" for text, each in named]
    told += [f"# {what}: {_with_ends(each)}" for what, each in _rest(figures)]
    values = [_value(text) for text, _ in named]
    if question["target"]:
        lines = _target(name, values, target_declared)
    elif values:
        listed = ", ".join(map(_toml, values))
        lines = [f"[[data.features]]\nname = {_toml(name)}\ncategories = [{listed}]"]
    else:
        lines = [_nothing(name)]
    return "\n".join([*lines, *told])


def _target(name: str, values: Sequence[Any], declared: bool) -> list[str]:
    """The target; of two classes the rarer one is called positive."""
    if declared:
        return [f"# the classes of {_toml(name)}, as its records have them:"]
    if len(values) > 2:
        listed = ", ".join(map(_toml, values))
        return [f"[data.target]\nname = {_toml(name)}\nclasses = [{listed}]"]
    if len(values) == 2:
        rule = _toml(f"== {values[-1]}")
        return [f"[data.target]\nname = {_toml(name)}\npositive = {rule}"]
    return [f"# too few records for the noise to tell the classes of {_toml(name)}: declare them"]


def _rest(figures: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for each in figures:
        if each["what"] == "others":
            yield "any other category", each
        elif "missing" in each["group"] and each["what"] == "count":
            yield "missing", each


def _nothing(name: str) -> str:
    return f"# too few records for the noise to propose anything for {_toml(name)}: declare it"


def _with_ends(figure: Mapping[str, Any]) -> str:
    value, ends = figure["value"], figure["records"]
    told = "not known" if value is None else f"about {value:.4g}"
    return told if ends is None else f"{told} ({ends['low']:.4g} to {ends['high']:.4g})"


def _value(text: str) -> str | int | float:
    """A category as a file spells it: a number where it is compared as one."""
    number = as_number(text)
    if number is None or not _NUMBER.fullmatch(text):
        return text
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _toml(value: str | int | float) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)
