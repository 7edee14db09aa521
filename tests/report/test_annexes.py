"""Annexes: every line is a fact with its place, a named person's statement, or a blank."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from privagg.report import Report
from privagg.report.annexes import ANNEXES, Annex, markdown
from privagg.report.annexes.lines import Blank, Fact, Line, Said
from privagg.report.figures import epsilon_text
from privagg.report.model import Attestation
from privagg.report.places import PLACES
from privagg.report.registry import registry_yaml

GetReport = Callable[[str], Report]
EVERY = ["three-hospitals", "plaintext", "seven-sites", "infinite", "weighted"]


def _lines(annex: Annex) -> list[Line]:
    return [line for section in annex.sections for line in section.lines]


def _at(document: Any, pointer: str) -> Any:
    """The value at an RFC 6901 pointer; KeyError or IndexError where there is none."""
    for step in pointer.split("/")[1:]:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


@pytest.mark.parametrize("name", EVERY)
def test_every_fact_names_places_that_the_report_has(report: GetReport, name: str) -> None:
    made = report(name)
    document = json.loads(made.to_json())
    for build in ANNEXES.values():
        for line in _lines(build(made)):
            if isinstance(line, Fact):
                assert line.sources
                for pointer in line.sources:
                    _at(document, pointer)


@pytest.mark.parametrize("kind", list(ANNEXES))
def test_every_line_is_one_of_three(report: GetReport, kind: str) -> None:
    made = report("three-hospitals")
    text = markdown(ANNEXES[kind](made), made)
    bullets = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(bullets) == len(_lines(ANNEXES[kind](made)))
    for line in bullets:
        fact = line.endswith("*") and "*(report: `/" in line
        said = re.fullmatch(r"- \*\*[^*]+\*\* states: “.+”", line) is not None
        blank = line.startswith("- ☐ *To be filled by a person:* ")
        assert fact + said + blank == 1, line


def test_figures_are_those_of_the_place_they_name(report: GetReport) -> None:
    made = report("three-hospitals")
    facts = [x for x in _lines(ANNEXES["nist-800-226"](made)) if isinstance(x, Fact)]
    document = json.loads(made.to_json())
    checked = 0
    for fact in facts:
        place = _at(document, fact.sources[0])
        if isinstance(place, dict) and "observer" in place:
            site = made.sites[int(fact.sources[0].split("/")[2])]
            rows = (site.committed, *site.guarantees)
            epsilon = next(r.epsilon for r in rows if format(r.epsilon, "f") == place["epsilon"])
            assert f"ε = {epsilon_text(epsilon)}" in fact.text
            checked += 1
    assert checked > 6


def test_a_statement_fills_the_blank_it_was_made_for_and_no_other(report: GetReport) -> None:
    made = report("three-hospitals")
    lines = _lines(ANNEXES["gdpr-35"](made))
    assert Said("Dr. M. Weiss, data protection officer", "Article 9(2)(j), research.") in lines
    blanks = {line.place for line in lines if isinstance(line, Blank)}
    assert "gdpr-35.legal-basis" not in blanks
    assert "gdpr-35.purposes" in blanks
    general = Said("Dr. M. Weiss, data protection officer", "No person is in two tables.")
    assert all(general in _lines(build(made)) for build in ANNEXES.values())


def test_without_statements_every_question_is_a_blank_somewhere(report: GetReport) -> None:
    made = report("smooth")
    asked = {
        line.place
        for build in ANNEXES.values()
        for line in _lines(build(made))
        if isinstance(line, Blank)
    }
    registry = {place for place in PLACES if place.startswith("registry.")}
    assert asked == set(PLACES) - registry
    assert not any(isinstance(x, Said) for f in ANNEXES.values() for x in _lines(f(made)))


def test_what_people_wrote_is_shown_and_never_markup(report: GetReport) -> None:
    hostile = "# <img src=x onerror=alert(1)> [x](javascript:1) **b** | `c` \n\n## d"
    said = (Attestation(who="Eve <b>", what=hostile),)
    made = report("smooth").model_copy(update={"attestations": said, "federation": hostile})
    for build in ANNEXES.values():
        text = markdown(build(made), made)
        assert re.search(r"(?<!\\)[<>|]", text) is None
        assert re.search(r"(?<!\\)\[x", text) is None
        assert "\n## d" not in text
    assert "\n## d" not in registry_yaml(made)
    assert re.search(r"(?<!\\)<img", registry_yaml(made).replace("\\\\", "\\")) is None


def test_infinity_and_missing_encryption_are_said(report: GetReport) -> None:
    infinite = markdown(ANNEXES["gdpr-35"](report("infinite")), report("infinite"))
    assert "ε = ∞ at δ = 10⁻⁵: nothing is guaranteed" in infinite
    plaintext = markdown(ANNEXES["gdpr-35"](report("plaintext")), report("plaintext"))
    assert "Contributions were not encrypted: the scheme plaintext protects nothing." in plaintext
