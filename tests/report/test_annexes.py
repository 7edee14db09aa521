"""Annexes: every line is a fact with its place, a named person's statement, or a blank."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from privagg.report import FORMATS, Report
from privagg.report.annexes import ANNEXES, FACTS, render_annex
from privagg.report.annexes.lines import plain
from privagg.report.figures import epsilon_text
from privagg.report.forms import FORMS
from privagg.report.language import speaking
from privagg.report.model import Attestation
from privagg.report.places import PLACES, REGISTRY
from privagg.report.registry import registry_yaml
from tests.commands import call

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
    for facts in FACTS.values():
        for fact in facts(made):
            assert fact.sources
            for pointer in fact.sources:
                _at(document, pointer)
    for told in (render_annex(kind, made) for kind in ANNEXES):
        for pointer in re.findall(r"`(/[^`]+)`", told):
            _at(document, pointer)


def test_every_fact_is_told_by_an_annex() -> None:
    """A fact that no annex names would be read by nobody; every annex names known ones."""
    named = {fact for form in FORMS.values() for each in form.sections for fact in each.facts}
    assert named == set(FACTS)


def test_every_question_is_asked_once_and_named_after_its_annex() -> None:
    asked = [(kind, p) for kind in ANNEXES for each in FORMS[kind].sections for p in each.asked]
    assert len({place for _, place in asked}) == len(asked) == len(PLACES) - len(REGISTRY)
    assert all(place.startswith(f"{kind.removesuffix('-800-226')}.") for kind, place in asked)


POINTS = {
    "pipl-55": [
        *("Article 55(1)", "Article 55(2)", "Article 55(3)", "Article 55(4)", "Article 55(5)"),
        *("the record of the processing", "Article 56(1)", "Article 56(2)", "Article 56(3)"),
        "Article 56, second paragraph",
    ],
    "eu-ai-act-iv": [
        *(f"1({letter})" for letter in "abcdefgh"),
        *(f"2({letter})" for letter in "abcdefgh"),
        *(f"{number}." for number in range(1, 10)),
    ],
    "edpb-28-2024": [
        *(f"41({letter})" for letter in "abcde"),
        *("42", "43(i)", "43(ii)", "44 and 46", "50", "51", "52(i)", "52(ii)", "53", "54", "55"),
        *(f"58({letter})" for letter in "abcdf"),
        *(f"58(e)({roman})" for roman in ("i", "ii", "iii", "iv")),
    ],
}
"""Every point of the text, by its number in the text."""

LISTED = {
    "50": ["i", "ii", "iii"],
    "51": ["i", "ii", "iii", "iv"],
    "55": ["i", "ii", "iii", "iv", "v"],
}
"""Paragraphs of the EDPB's opinion that list points of their own -> these points."""


@pytest.mark.parametrize("kind", POINTS)
def test_every_point_of_the_law_has_a_heading_with_a_fact_or_a_question(kind: str) -> None:
    sections = FORMS[kind].sections
    for point in POINTS[kind]:
        (found,) = [
            each for each in sections if re.search(rf"(^|: ){re.escape(point)}(?!\w)", each.heading)
        ]
        parts = [each for each in sections if each.heading.startswith(f"{point[:-1]}(")]
        assert found.facts or found.asked or parts, point
    leaves = [each for each in sections if each.level == 3 or each.facts or each.asked]
    assert all(each.asked for each in leaves)
    assert len(leaves) <= len(POINTS[kind])


PIPL = {
    "第五十五条": [
        "处理敏感个人信息",
        "利用个人信息进行自动化决策",
        "委托处理个人信息、向其他个人信息处理者提供个人信息、公开个人信息",
        "向境外提供个人信息",
        "其他对个人权益有重大影响的个人信息处理活动",
        "对处理情况进行记录",
    ],
    "第五十六条": [
        "个人信息的处理目的、处理方式等是否合法、正当、必要",
        "对个人权益的影响及安全风险",
        "所采取的保护措施是否合法、有效并与风险程度相适应",
        "个人信息保护影响评估报告和处理情况记录应当至少保存三年",
    ],
}
"""Article -> its points in the law's own words."""


def test_in_chinese_the_points_of_chinas_law_are_in_its_words(report: GetReport) -> None:
    with speaking("zh"):
        told = render_annex("pipl-55", report("smooth"))
    assert "标题依据：《中华人民共和国个人信息保护法》" in told
    headings = [line for line in told.splitlines() if line.startswith("### ")]
    words = [(article, point) for article, points in PIPL.items() for point in points]
    assert len(headings) == len(words)
    for heading, (article, point) in zip(headings, words, strict=True):
        assert heading.startswith(f"### {article}")
        assert heading.endswith(point)


def test_every_listed_point_of_a_paragraph_is_asked_for() -> None:
    for paragraph, points in LISTED.items():
        (found,) = [
            s for s in FORMS["edpb-28-2024"].sections if s.heading.startswith(f"{paragraph} ")
        ]
        assert list(found.asked) == [f"edpb-28-2024.{paragraph}{point}" for point in points]


@pytest.mark.parametrize("kind", ANNEXES)
def test_every_line_is_one_of_three(report: GetReport, kind: str) -> None:
    made = report("three-hospitals")
    lines = _bullets(kind, made)
    assert len(lines) > 20
    for line in lines:
        fact = line.endswith("*") and "*(report: `/" in line
        said = re.fullmatch(r"- \*\*[^*]+\*\* states: “.+”", line) is not None
        blank = line.startswith(f"- ☐ *{FORMS[kind].blank}* ")
        assert fact + said + blank == 1, line


def test_figures_are_those_of_the_place_they_name(report: GetReport) -> None:
    made = report("three-hospitals")
    told = render_annex("nist-800-226", made) + render_annex("edpb-28-2024", made)
    document = json.loads(made.to_json())
    checked = 0
    for fact in (fact for facts in FACTS.values() for fact in facts(made)):
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
    assert asked == set(PLACES) - set(REGISTRY)
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


def _changed(made: Report, **facts: Any) -> Report:
    return Report.from_json(json.dumps({**json.loads(made.to_json()), **facts}))


@pytest.mark.parametrize("kind", ANNEXES)
def test_an_annex_is_the_same_from_the_ledgers_and_from_the_json(
    report: GetReport, kind: str
) -> None:
    made = report("three-hospitals")
    assert render_annex(kind, _changed(made)) == render_annex(kind, made)


@pytest.mark.parametrize("kind", ANNEXES)
def test_a_changed_figure_changes_the_annex_and_no_other_line(report: GetReport, kind: str) -> None:
    made = report("three-hospitals")
    document = json.loads(made.to_json())
    document["model"]["metrics"] = {"accuracy": 0.125}
    document["versions"]["numpy"] = "99.1"
    other = _changed(made, model=document["model"], versions=document["versions"])
    before, after = _bullets(kind, made), _bullets(kind, other)
    new = {line for line in after if line not in before}
    assert all("accuracy 0.125" in line or "numpy 99.1" in line for line in new)
    told = {fact for each in FORMS[kind].sections for fact in each.facts}
    assert bool(new) == bool(told & {"quality", "software"})
    assert len(before) == len(after)


def test_what_the_points_of_new_texts_need_is_computed_from_the_report(report: GetReport) -> None:
    made = report("three-hospitals")
    edpb = render_annex("edpb-28-2024", made)
    assert "declared 569 records together and the model has 31 parameters: 18.4 for each" in edpb
    weakest = max(
        row.epsilon
        for site in made.sites
        for row in site.guarantees
        if (row.observer, row.colluding_sites) == ("model-users", 0)
    )
    users = [line for line in _bullets("edpb-28-2024", made) if "for its answers alike" in line]
    assert len(users) == 4
    assert all(f"ε = {epsilon_text(weakest)}" in line for line in users)
    assert "charges to these data sets of 1 run: earlier-run." in edpb
    assert "What the model predicts is not recorded." in edpb
    trained = {"kind": "table", "target": {"name": "malignant", "kind": "binary"}}
    recipe = {"data": trained, "optimizer": {"kind": "sgd", "weight_decay": 0.25}}
    told = render_annex("edpb-28-2024", _changed(made, plan={**made.plan, "recipe": recipe}))
    assert "is the attribute malignant (binary)." in told
    assert "the optimiser's weight decay is 0.25." in told


def test_an_annex_names_its_source_and_says_nothing_of_the_law(report: GetReport) -> None:
    numbers = {
        "pipl-55": "中华人民共和国个人信息保护法",
        "eu-ai-act-iv": "Regulation (EU) 2024/1689",
        "edpb-28-2024": "Opinion 28/2024",
    }
    for kind in ANNEXES:
        head = render_annex(kind, report("smooth")).partition("\n## ")[0]
        assert numbers.get(kind, "") in head
        assert "makes no statement about the law and takes no decision" in head


def test_help_has_a_line_for_every_annex() -> None:
    told = call("report", "--help").out
    for name in (name for name in FORMATS if name.startswith("annex-")):
        assert re.search(rf"\n[ │]*{name}  +[^ \n]", told), name
