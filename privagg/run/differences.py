"""Where what a run was begun with differs from what it would be resumed with, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MOST_SHOWN = 3
_MISSING = "nothing"


def told_differences(
    then: Mapping[str, Any], now: Mapping[str, Any], others: Sequence[str] = ()
) -> str:
    """The first few differences, and how many more there are; empty where there are none.

    Args:
        then, now: nested settings.
        others: differences elsewhere, in words.
    """
    found = [f"{place}: {a} then, {b} now" for place, a, b in _different(then, now)] + [*others]
    more = len(found) - MOST_SHOWN
    return "; ".join(found[:MOST_SHOWN]) + (f"; {more} more" if more > 0 else "")


def _different(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Where nested settings differ: the place, then and now."""
    before, after = dict(_leaves(then)), dict(_leaves(now))
    for place in sorted(before.keys() | after.keys()):
        pair = before.get(place, _MISSING), after.get(place, _MISSING)
        if pair[0] != pair[1]:
            yield place, *pair


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every value in nested settings, under its dotted name."""
    if isinstance(value, Mapping) and value.keys() == {"float"}:
        yield place, repr(float.fromhex(value["float"]))  # as exact settings write floats
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for number, inner in enumerate(value, start=1):
            yield from _leaves(inner, f"{place}[{number}]")
    else:
        text = repr(value)
        yield place, text if len(text) <= 80 else f"{text[:77]}..."
