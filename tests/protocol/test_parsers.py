"""Hostile bytes against every parser; `make nightly` runs the same for hours."""

from __future__ import annotations

import pytest

from privagg.errors import ConfigError
from tests.benchmarks.fuzz import wanted_count
from tests.parsers import Parser, attack, parsers

PARSERS = parsers()


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_answers_hostile_bytes_with_a_named_error_in_time(name: str) -> None:
    if name != "app":  # no app is honest bytes: each is refused
        PARSERS[name].parse(PARSERS[name].honest)
    assert attack(PARSERS[name], wanted_count(600), seed=3) == []


@pytest.mark.parametrize("name", ["configuration", "party.toml", "pins.toml"])
def test_a_number_of_more_digits_than_python_reads_is_a_named_error(name: str) -> None:
    with pytest.raises(ConfigError):
        PARSERS[name].parse(b"name = " + b"9" * 5000)


def test_the_harness_sees_a_parser_that_crashes_or_takes_much_memory() -> None:
    assert attack(Parser(b"1", int), 40, seed=3)
    assert attack(Parser(b"1", lambda data: bytes(2**26)), 1, seed=3)
