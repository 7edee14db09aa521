"""Just enough YAML to write a document of mappings, lists, texts and numbers.

Texts are double-quoted as JSON has them, or literal blocks where they have several lines, so that
no reader takes one for a number, a date or markup. A key without a value stays as a comment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

# What YAML 1.2 (5.1) lets stand unescaped, without the marks that some readers take for line ends.
_UNPRINTABLE = re.compile("[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")


@dataclass(frozen=True)
class Missing:
    """Stands for a value nobody recorded; becomes a comment."""

    why: str


Value = str | int | Decimal | Missing | Sequence[str] | Mapping[str, "Value"]


def to_yaml(document: Mapping[str, Value]) -> str:
    """The document as YAML text with a final newline."""
    return "\n".join(_mapping(document, 0)) + "\n"


def _mapping(values: Mapping[str, Value], depth: int) -> Iterator[str]:
    for key, value in values.items():
        yield from _entry(key, value, depth)


def _entry(key: str, value: Value, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, Missing):
        yield f"{indent}# {key}: {_clean(value.why)}"
    elif isinstance(value, Mapping):
        present = [v for v in value.values() if not isinstance(v, Missing)]
        yield f"{indent}{key}:" if present else f"{indent}# {key}:"
        yield from _mapping(value, depth + 1)
    elif isinstance(value, str):
        yield from _text(f"{indent}{key}:", value, depth + 1)
    elif isinstance(value, Sequence):
        yield f"{indent}{key}:"
        yield from (f"{indent}  - {_quoted(item)}" for item in value)
    else:  # an exponent without a point would be read as text
        yield (
            f"{indent}{key}: {value:f}" if isinstance(value, Decimal) else f"{indent}{key}: {value}"
        )


def _text(head: str, value: str, depth: int) -> Iterator[str]:
    lines = [_clean(line) for line in value.split("\n")]
    if len(lines) == 1 or lines[0].startswith(" "):
        yield f"{head} {_quoted(value)}"
        return
    yield f"{head} |"
    yield from ("  " * depth + line if line else "" for line in lines)


def _quoted(text: str) -> str:
    return json.dumps(_clean(text), ensure_ascii=False)


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)
