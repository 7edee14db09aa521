"""No form of a report claims what no computation can show."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from privagg.report import FORMATS, Report
from tests.report.conftest import poppler

GetReport = Callable[[str], Report]

CLAIMS = re.compile(
    r"anonym|complian|compl(?:y|ies|ied)\b|conform|unhackable|risk-free|perfectly|fully private|"
    r"cannot be (?:re-)?identified|gdpr-ready|lawful|guaranteed privacy|privacy is guaranteed|"
    r"100 ?%|impossible to",
    re.IGNORECASE,
)
WORLDS = ["three-hospitals", "seven-sites", "infinite"]


def _markupless(text: str) -> str:
    """The words of a page, without its style sheet (which has widths of 100%)."""
    return re.sub(r"<style>.*?</style>|<svg.*?</svg>|style=\"[^\"]*\"", "", text, flags=re.DOTALL)


def _claims(text: str) -> list[str]:
    return [found.group() for found in CLAIMS.finditer(text)]


@pytest.mark.parametrize("form", [name for name in FORMATS if name not in ("html", "pdf")])
def test_no_form_claims_more_than_is_known(report: GetReport, form: str) -> None:
    for name in WORLDS:
        text = FORMATS[form][1](report(name))
        assert isinstance(text, str)
        assert _claims(_own_words(text)) == []


def _own_words(text: str) -> str:
    """Without the points of the text that a form follows, and without what others are to write."""
    points = ("#", "Headings:", "- ☐")
    return "\n".join(line for line in text.splitlines() if not line.startswith(points))


def test_page_and_pdf_claim_no_more(
    html: Callable[[str], str], pdf: Callable[[str], bytes]
) -> None:
    for name in WORLDS:
        assert _claims(_markupless(html(name))) == []
        assert _claims(poppler("pdftotext", pdf(name))) == []


@pytest.mark.parametrize("claim", ["is anonymous", "GDPR compliant", "complies with", "100 % safe"])
def test_the_search_finds_such_claims(claim: str) -> None:
    assert CLAIMS.search(f"The model {claim}.")
