"""Annexes: every line is a fact with its place, a named person's statement, or a blank."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from privagg.report import Report, annexes
from privagg.report.annexes import ANNEXES, FACTS, render_annex
from privagg.report.annexes.lines import plain
from privagg.report.figures import epsilon_text
from privagg.report.model import Attestation
from privagg.report.places import PLACES
from privagg.report.registry import registry_yaml

GetReport = Callable[[str], Report]
EVERY = ["three-hospitals", "plaintext", "seven-sites", "infinite", "weighted"]


def _bullets(name: str, report: Report) -> list[str]:
    return [x for x in render_annex(name, report).splitlines() if x.startswith("- ")]


def _said(who: str, what: str) -> str:
    return f"- **{plain(who)}** states: “{plain(what)}”"


def _blanks(name: str, report: Report) -> set[str]:
    """The questions that an annex leaves to be filled in."""
    found = [re.search(r'☐ .*about = "([^"]+)"', line) for line in _bullets(name, report)]
    return {match[1] for match in found if match}


def _at(document: Any, pointer: str) -> Any:
    """The value at an RFC 6901 pointer; KeyError or IndexError where there is none."""
    for step in pointer.split("/")[1:]:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


@pytest.mark.parametrize("name", EVERY)
def test_every_fact_names_places_that_the_report_has(report: GetReport, name: str) -> None:
    made = report(name)
    document = json.loads(made.to_json())
    for facts in FACTS:
        for fact in facts(made):
            assert fact.sources
            for pointer in fact.sources:
                _at(document, pointer)


def test_every_fact_is_told_by_an_annex() -> None:
    """A fact that no template writes would be read by nobody; every template writes known ones."""
    folder = Path(annexes.__file__).parent
    text = "".join((folder / f"{name}.md.j2").read_text() for name in ANNEXES)
    assert {fact.__name__ for fact in FACTS} <= set(re.findall(r"\w+", text))


@pytest.mark.parametrize("kind", ANNEXES)
def test_every_line_is_one_of_three(report: GetReport, kind: str) -> None:
    made = report("three-hospitals")
    lines = _bullets(kind, made)
    assert len(lines) > 20
    for line in lines:
        fact = line.endswith("*") and "*(report: `/" in line
        said = re.fullmatch(r"- \*\*[^*]+\*\* states: “.+”", line) is not None
        blank = line.startswith("- ☐ *To be filled by a person:* ")
        assert fact + said + blank == 1, line


def test_figures_are_those_of_the_place_they_name(report: GetReport) -> None:
    made = report("three-hospitals")
    told = render_annex("nist-800-226", made)
    document = json.loads(made.to_json())
    checked = 0
    for fact in (fact for facts in FACTS for fact in facts(made)):
        place = _at(document, fact.sources[0])
        if isinstance(place, dict) and "observer" in place:
            site = made.sites[int(fact.sources[0].split("/")[2])]
            rows = (site.committed, *site.guarantees)
            epsilon = next(r.epsilon for r in rows if format(r.epsilon, "f") == place["epsilon"])
            assert f"ε = {epsilon_text(epsilon)}" in fact.text
            assert plain(fact.text) in told
            checked += 1
    assert checked > 6


def test_a_statement_fills_the_blank_it_was_made_for_and_no_other(report: GetReport) -> None:
    made = report("three-hospitals")
    officer = "Dr. M. Weiss, data protection officer"
    assert _said(officer, "Article 9(2)(j), research.") in _bullets("gdpr-35", made)
    blanks = _blanks("gdpr-35", made)
    assert "gdpr-35.legal-basis" not in blanks
    assert "gdpr-35.purposes" in blanks
    general = _said(officer, "No person is in two tables.")
    assert all(general in _bullets(name, made) for name in ANNEXES)


def test_without_statements_every_question_is_a_blank_somewhere(report: GetReport) -> None:
    made = report("smooth")
    asked = {place for name in ANNEXES for place in _blanks(name, made)}
    registry = {place for place in PLACES if place.startswith("registry.")}
    assert asked == set(PLACES) - registry
    assert not any("** states: " in render_annex(name, made) for name in ANNEXES)


def test_what_people_wrote_is_shown_and_never_markup(report: GetReport) -> None:
    hostile = "# <img src=x onerror=alert(1)> [x](javascript:1) **b** | `c` \n\n## d"
    said = (Attestation(who="Eve <b>", what=hostile),)
    made = report("smooth").model_copy(update={"attestations": said, "federation": hostile})
    for name in ANNEXES:
        text = render_annex(name, made)
        assert re.search(r"(?<!\\)[<>|]", text) is None
        assert re.search(r"(?<!\\)\[x", text) is None
        assert "\n## d" not in text
    assert "\n## d" not in registry_yaml(made)
    assert re.search(r"(?<!\\)<img", registry_yaml(made).replace("\\\\", "\\")) is None


def test_infinity_and_missing_encryption_are_said(report: GetReport) -> None:
    infinite = render_annex("gdpr-35", report("infinite"))
    assert "ε = ∞ at δ = 10⁻⁵: nothing is guaranteed" in infinite
    plaintext = render_annex("gdpr-35", report("plaintext"))
    assert "Contributions were not encrypted: the scheme plaintext protects nothing." in plaintext
