"""Names that others choose, in what people read: page, PDF, annexes and the registry's draft."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from privagg.report import FORMATS, Report
from privagg.report.model import Attestation
from privagg.report.render import render_pdf
from tests.report.conftest import poppler
from tests.report.worlds import WORLDS

TURNED = "St. Anna \u202e250.0 = \u03b5"
"""Shown as "St. Anna ε = 0.052", and so is everything after it on its line."""
UNSHOWN = "\x00\x1b\u2028\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return WORLDS["smooth"](tmp_path_factory.mktemp("world")).report()


def _named(report: Report, name: str) -> Report:
    """The report with one site, the federation and a statement called `name`."""
    old = report.sites[0].name
    site = report.sites[0].model_copy(update={"name": name, "dataset": name})
    rounds = tuple(
        r.model_copy(
            update={
                "bytes_up": {name if k == old else k: v for k, v in r.bytes_up.items()},
                "bytes_down": {name if k == old else k: v for k, v in r.bytes_down.items()},
                "cohort": (name, *r.cohort[1:]),
            }
        )
        for r in report.rounds
    )
    said = (Attestation(who=name, what=name),)
    return report.model_copy(
        update={
            "federation": name, "sites": (site, *report.sites[1:]), "rounds": rounds,
            "attestations": said, "summary": (f"{name}: \u03b5 = 9.81", *report.summary),
        }
    )  # fmt: skip


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in ("json", "pdf")])
def test_no_name_turns_round_the_figures_after_it(honest: Report, form: str) -> None:
    made = FORMATS[form][1](_named(honest, TURNED + UNSHOWN))
    assert isinstance(made, str)
    assert "St. Anna \ufffd250.0 = ε" in made.replace("\u00a0", " ")
    assert not set(UNSHOWN) & set(made)


def test_nor_on_paper_and_no_character_stops_the_press(honest: Report) -> None:
    pdf = render_pdf(_named(honest, TURNED + UNSHOWN))
    said = poppler("pdftotext", pdf).replace("\u00a0", " ")
    assert "St. Anna \ufffd250.0 = ε" in said
    assert not set(UNSHOWN) & set(said)


def test_a_page_stays_one_document_whatever_the_names(honest: Report) -> None:
    page = FORMATS["html"][1](_named(honest, "</body></html>]]><![CDATA[ &lol; \x00\x08\ufffe"))
    assert isinstance(page, str)
    body = ElementTree.fromstring(page[page.index("<body>") : page.rindex("</html>")])
    assert body.findall("main/section")[-1].get("id") == "cost"
