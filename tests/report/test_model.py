"""The format: strict, bounded, digit for digit, and its published schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest

from privagg.errors import VerificationError
from privagg.report import Report, json_schema

GetReport = Callable[[str], Report]


@pytest.mark.parametrize("name", ["three-hospitals", "infinite", "weighted", "plaintext"])
def test_json_reads_back_to_the_same_report_and_the_same_bytes(
    report: GetReport, name: str
) -> None:
    text = report(name).to_json()
    again = Report.from_json(text)
    assert again == report(name)
    assert again.to_json() == text


def test_epsilon_is_a_string_of_digits_in_json(report: GetReport) -> None:
    facts = json.loads(report("three-hospitals").to_json())
    spent = facts["sites"][0]["epsilon_after_run"]
    assert isinstance(spent, str)
    assert Decimal(spent) == report("three-hospitals").sites[0].epsilon_after_run


def _altered(report: Report, change: Callable[[dict[str, Any]], None]) -> str:
    facts = json.loads(report.to_json())
    change(facts)
    return json.dumps(facts)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.update(surprise=1),
        lambda f: f.update(format="privagg-report/2"),
        lambda f: f.update(plan_digest="xyz"),
        lambda f: f["sites"][0].update(epsilon_after_run="NaN"),
        lambda f: f["sites"][0].update(epsilon_after_run="-1"),
        lambda f: f["sites"][0]["committed"].update(epsilon="a lot"),
        lambda f: f["sites"][0]["history"][0].update(outcome="refunded"),
        lambda f: f["rounds"][0]["bytes_up"].update({"st-anna": -5}),
        lambda f: f["rounds"][0]["seconds"].update(open="Infinity"),
        lambda f: f.pop("assumptions"),
        lambda f: f.update(federation="x" * 10_000),
    ],
)
def test_what_is_not_in_the_format_is_refused(
    report: GetReport, change: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(VerificationError, match="not a privagg-report/1 report"):
        Report.from_json(_altered(report("smooth"), change))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "privagg-report/1"}', "null"])
def test_what_is_no_report_is_refused_by_name(text: str) -> None:
    with pytest.raises(VerificationError):
        Report.from_json(text)


def test_an_overlong_report_is_refused_unread() -> None:
    with pytest.raises(VerificationError, match="are not read"):
        Report.from_json(b" " * (64 * 2**20 + 1))


def test_the_published_schema_is_the_one_of_the_code() -> None:
    published = resources.files("privagg.report").joinpath("schema.json").read_text("utf-8")
    assert json.loads(published) == json_schema()


def test_the_schema_closes_every_object_that_the_format_defines() -> None:
    for name, definition in {**json_schema()["$defs"], "Report": json_schema()}.items():
        if definition.get("type") == "object":
            assert definition["additionalProperties"] is False, name
