"""The PDF: the page's words and figures on sheets, the same bytes every time, nothing off them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from privagg.report import Report, render, view
from privagg.report.drawing import PAPER, on_paper
from privagg.report.model import Attestation
from privagg.report.plots import epsilon_plot
from privagg.report.render import RUNNING_NAME, render_html, render_pdf
from tests.report.conftest import poppler

GetReport = Callable[[str], Report]
GetPdf = Callable[[str], bytes]
NAMES = ["three-hospitals", "plaintext", "seven-sites", "infinite", "weighted"]
MARGIN = 19 / 25.4 * 72
A4 = (595.276, 841.89)
LEAST_HEIGHT = 5.0  # points, of a word on the first two sheets

HOSTILE = (
    '#import "@preview/x:1.0.0": * #eval("1") *b* _u_ @l <l> $x_1$ `r` // c \\ [x](http://y) '
    '= h "</p></body></html><img src="/etc/hosts"/> &lol; ]]> <!ENTITY a "b"> var(--ink)'
)


def _page(html: str) -> ElementTree.Element:
    """The body of the page without what a reader of paper does not see."""
    body = ElementTree.fromstring(html[html.index("<body>") : html.rindex("</html>")])
    for parent in list(body.iter()):
        for child in list(parent):
            if child.tag == "nav" or child.get("aria-hidden") == "true":
                parent.remove(child)
    return body


def _squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def _printed(pdf: bytes) -> str:
    """Everything that is printed, without white space and without what each sheet repeats."""
    sheets = poppler("pdftotext", pdf, "-raw").split("\f")
    bare = [re.sub(r"\d+ / \d+\s*$", "", sheet) for sheet in sheets]
    repeated = bare[1].split("\n")[0] if len(bare) > 2 else ""
    return _squeezed("".join(sheet.removeprefix(repeated) for sheet in bare))


@pytest.mark.parametrize("name", NAMES)
def test_paper_has_every_word_of_the_page(
    html: Callable[[str], str], pdf: GetPdf, name: str
) -> None:
    printed = _printed(pdf(name))
    texts = [_squeezed(text) for text in _page(html(name)).itertext()]
    assert sum(map(len, texts)) > 4000
    for text in filter(None, texts):
        assert text in printed or text == "Privacyreport", text  # set in capitals


@pytest.mark.parametrize("name", NAMES)
def test_paper_has_no_figure_that_the_page_has_not(
    html: Callable[[str], str], pdf: GetPdf, name: str
) -> None:
    page = " ".join(ElementTree.fromstring(html(name)[html(name).index("<body>") : -8]).itertext())
    figures = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])")
    printed = set(figures.findall(poppler("pdftotext", pdf(name))))
    assert len(printed) > 10
    assert printed <= set(figures.findall(page))


def test_equal_reports_give_equal_bytes_on_any_day(
    report: GetReport, pdf: GetPdf, tmp_path: Path
) -> None:
    made = pdf("infinite")
    assert made.startswith(b"%PDF-")
    source = tmp_path / "report.json"
    source.write_text(report("infinite").to_json(), "utf-8")
    script = (
        "import sys, pathlib; from privagg.report import Report, render\n"
        "made = Report.from_json(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "sys.stdout.buffer.write(render.render_pdf(made))"
    )
    root = Path(__file__).parents[2]
    around = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": str(root)}
    again = subprocess.run(
        [sys.executable, "-c", script, str(source)], cwd=tmp_path, env=around, check=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert again.stdout == made


def test_the_document_says_what_it_is(report: GetReport, pdf: GetPdf) -> None:
    made = report("three-hospitals")
    told = poppler("pdfinfo", pdf("three-hospitals"), "-isodates")
    assert f"Privacy report: {made.federation}, run {made.run}" in told
    assert made.generated.strftime("%Y-%m-%dT%H:%M:%S") in told
    assert re.search(r"Tagged: +yes", told)
    assert b"/Lang(en)" in pdf("three-hospitals")


def test_every_font_is_in_the_file(pdf: GetPdf) -> None:
    rows = poppler("pdffonts", pdf("seven-sites")).splitlines()[2:]
    assert {re.split(r"[+-]", row.split()[0])[1] for row in rows} == {
        "DejaVuSans", "DejaVuSansMono", "LibertinusSerif",
    }  # fmt: skip
    for row in rows:
        assert re.search(r"\byes\s+yes\s+yes\b", row), row


@pytest.mark.parametrize("name", ["three-hospitals", "seven-sites", "infinite", "crowd"])
def test_the_summary_fits_one_sheet(report: GetReport, pdf: GetPdf, name: str) -> None:
    if name == "crowd":
        made = report("smooth")
        site = made.sites[0]
        many = tuple(site.model_copy(update={"name": f"hospital-number-{i}"}) for i in range(40))
        printed = render_pdf(made.model_copy(update={"sites": many}))
    else:
        printed = pdf(name)
    sheets = poppler("pdftotext", printed).split("\f")
    assert "In plain words" in sheets[0]
    assert "whose word it stays; not proved" in " ".join(sheets[0].split())
    assert "What this does not protect" in sheets[1]
    assert "against keys you got elsewhere" in " ".join(sheets[1].split())
    assert name == "crowd" or min(_heights(printed)) > LEAST_HEIGHT


def _heights(pdf: bytes) -> list[float]:
    """How high each line of words stands on the first two sheets, in points."""
    words = poppler("pdftotext", pdf, "-bbox", "-l", "2")
    found = re.findall(r'yMin="([\d.]+)" xMax="[\d.]+" yMax="([\d.]+)">\w{4,}<', words)
    assert len(found) > 100
    return [float(bottom) - float(top) for top, bottom in found]


def _off_the_sheet(pdf: bytes) -> list[str]:
    """Words that reach beyond the side margins, or off the top or bottom of a sheet."""
    words = re.findall(
        r'<word xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)">([^<]*)',
        poppler("pdftotext", pdf, "-bbox"),
    )
    assert len(words) > 300
    return [
        word
        for left, top, right, bottom, word in words
        if float(left) < MARGIN - 1
        or float(right) > A4[0] - MARGIN + 1
        or float(top) < 0
        or float(bottom) > A4[1]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_leaves_the_sheet(pdf: GetPdf, name: str) -> None:
    assert _off_the_sheet(pdf(name)) == []


def test_infinity_and_missing_encryption_are_announced(pdf: GetPdf) -> None:
    infinite = poppler("pdftotext", pdf("infinite"))
    assert "No guarantee." in infinite
    assert "∞" in infinite
    assert "Nothing was encrypted." in poppler("pdftotext", pdf("plaintext"))


def _hostile(report: Report) -> Report:
    """The report with markup of every kind in every name that another party chooses."""
    sites = tuple(
        site.model_copy(update={"name": f"{i} {HOSTILE}", "dataset": HOSTILE + "V" * 300})
        for i, site in enumerate(report.sites)
    )
    said = (Attestation(who=HOSTILE, what=HOSTILE * 3 + "W" * 900, about=HOSTILE),)
    return report.model_copy(
        update={
            "federation": HOSTILE, "run": HOSTILE, "outcome": "stopped", "reason": HOSTILE,
            "sites": sites, "attestations": said, "parties": {HOSTILE: "0f" * 32},
            "generator": HOSTILE, "custody_plainly": HOSTILE, "versions": {HOSTILE: HOSTILE},
            "plan": {**report.plan, "recipe": {HOSTILE: [HOSTILE * 3, {HOSTILE: HOSTILE}]}},
        }
    )  # fmt: skip


def test_hostile_names_are_printed_as_they_are(report: GetReport) -> None:
    made = _hostile(report("three-hospitals"))
    pdf = render_pdf(made)
    printed = _squeezed(poppler("pdftotext", pdf, "-raw"))
    assert printed.count(_squeezed(HOSTILE)) >= 12
    assert _squeezed(json.dumps(HOSTILE)) in printed  # in the recipe
    assert "W" * 900 in printed
    assert _off_the_sheet(pdf) == []
    assert _squeezed(HOSTILE) in _squeezed("".join(_page(render_html(made)).itertext()))


def test_nothing_that_is_not_ours_reaches_typst_as_its_source(
    report: GetReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typst

    sources: list[bytes] = []
    compiled = typst.compile

    def spy(source: bytes, **options: object) -> object:
        sources.append(source)
        return compiled(source, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(typst, "compile", spy)
    render_pdf(report("smooth"))
    render_pdf(_hostile(report("smooth")))
    ours = render._FILES.joinpath("paper.typ").read_bytes()
    assert sources == [ours, ours]
    for word in (b"#import", b"#include", b"eval(", b"read(", b"plugin("):
        assert word not in ours


def test_a_long_name_stays_on_one_line_at_the_head_of_a_sheet(report: GetReport) -> None:
    long = report("smooth").model_copy(update={"federation": "n" * 700})
    head = poppler("pdftotext", render_pdf(long), "-raw", "-f", "2").split("\n")[0]
    assert head == f"{'n' * (RUNNING_NAME - 1)}… · run {long.run}"


def test_a_table_repeats_its_head_on_every_sheet(report: GetReport) -> None:
    made = report("three-hospitals")
    rounds = tuple(made.rounds[i % 12].model_copy(update={"round": i + 1}) for i in range(100))
    sheets = poppler(
        "pdftotext", render_pdf(made.model_copy(update={"rounds": rounds})), "-layout"
    ).split("\f")
    reached = [
        sheet for sheet in sheets if re.search(r"^ *\d+ +(opened|stopped)", sheet, re.MULTILINE)
    ]
    assert len(reached) > 1
    assert all("Missing or refused" in sheet for sheet in reached)


def test_plots_on_paper_have_its_colours_and_their_words(report: GetReport) -> None:
    made = report("three-hospitals")
    drawn = on_paper(epsilon_plot(made.sites[0], made.run, 0))
    root = ElementTree.fromstring(drawn)
    assert "var(--" not in drawn
    assert PAPER["series-1"] in drawn
    assert "rounds charged" in {text.strip() for text in root.itertext()}


def test_the_matrix_on_paper_is_the_report_s(report: GetReport, pdf: GetPdf) -> None:
    words = poppler("pdftotext", pdf("seven-sites")).split()
    for matrix in view.matrices(report("seven-sites")):
        for row in matrix.rows:
            assert {cell.epsilon for cell in row.cells if cell} <= set(words)
