"""The PDF: the same bytes every time, nothing off the sheet, the summary on one page."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from privagg.report import Report, plots, view
from privagg.report.drawing import PRINT
from privagg.report.model import Attestation
from privagg.report.page import arranged
from privagg.report.pdf import body, front, render_pdf
from privagg.report.pdf.sheet import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Sheet, clean
from tests.report.conftest import Printed, recording
from tests.report.worlds import MADE

GetReport = Callable[[str], Report]
GetPrinted = Callable[[str], Printed]


def _sheet() -> Sheet:
    return Sheet(title="t", running_title="r", made=MADE)


def test_equal_reports_give_equal_bytes(report: GetReport, printed: GetPrinted) -> None:
    made = printed("infinite").pdf
    assert made.startswith(b"%PDF-")
    assert made.rstrip().endswith(b"%%EOF")
    assert render_pdf(Report.from_json(report("infinite").to_json())) == made


@pytest.mark.parametrize("name", ["three-hospitals", "seven-sites", "infinite"])
def test_nothing_leaves_the_sheet(printed: GetPrinted, name: str) -> None:
    for x, y, width, height, text in printed(name).marks:
        assert x >= LEFT - 0.01, text
        assert x + width <= WIDTH - RIGHT + 30.01, text  # footnotes have a wide box
        assert y + height <= HEIGHT - BOTTOM + 0.01, text


def test_the_pdf_says_what_the_report_says(report: GetReport, printed: GetPrinted) -> None:
    made = report("three-hospitals")
    lines = printed("three-hospitals").said.split("\n")
    said = "\n".join(lines).replace("\u00a0", " ")
    for sentence in (*made.summary, *made.unprotected, *made.assumptions):
        assert sentence in said
    for matrix in view.matrices(made):
        for row in matrix.rows:
            assert {c.epsilon for c in row.cells if c} <= set(lines)
    assert "1 of 3 contributions; the plan needs 2" in said
    assert "learning rate" in said
    for statement in made.attestations:
        assert statement.what in said
    assert made.coordinator.root in said


@pytest.mark.parametrize("name", ["three-hospitals", "seven-sites", "infinite", "crowd"])
def test_the_summary_fits_one_sheet(report: GetReport, name: str) -> None:
    made = report("smooth" if name == "crowd" else name)
    if name == "crowd":
        site = made.sites[0]
        many = tuple(site.model_copy(update={"name": f"hospital-number-{i}"}) for i in range(40))
        made = made.model_copy(update={"sites": many})
    sheet = _sheet()
    front.summary(sheet, arranged(made))
    assert sheet.pdf.page_no() == 1
    assert sheet.room >= 0


def test_infinity_and_missing_encryption_are_announced(
    report: GetReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = recording(monkeypatch)
    front.summary(_sheet(), arranged(report("infinite")))
    front.summary(_sheet(), arranged(report("plaintext")))
    assert "No guarantee." in spy.said
    assert "∞" in spy.said
    assert "Nothing was encrypted." in spy.said


def test_hostile_text_is_drawn_as_it_is(report: GetReport, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = recording(monkeypatch)
    hostile = "**b** __u__ [x](http://y) <b> $x_1$ 日本 \x00\x1b\u2028" + "W" * 900
    said = (Attestation(who=hostile, what=hostile * 4),)
    made = report("smooth").model_copy(update={"attestations": said, "federation": hostile[:120]})
    sheet = _sheet()
    front.summary(sheet, arranged(made))
    body.statements(sheet, arranged(made))
    assert sheet.finished().startswith(b"%PDF-")
    assert "**b** __u__ [x](http://y) <b> $x_1$" in spy.said
    assert "… (cut here)" in spy.said
    assert clean("a\x00b\u2028\nc") == "a\ufffdb\ufffd\nc"


def test_a_table_repeats_its_head_on_every_sheet(
    report: GetReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = recording(monkeypatch)
    made = report("three-hospitals")
    rounds = tuple(made.rounds[i % 12].model_copy(update={"round": i + 1}) for i in range(100))
    sheet = _sheet()
    body.rounds(sheet, arranged(made.model_copy(update={"rounds": rounds})))
    assert sheet.pdf.page_no() > 1
    assert [mark[4] for mark in spy.marks].count("Contributions") == sheet.pdf.page_no()


def test_plots_for_paper_are_outlines_in_printed_colours(report: GetReport) -> None:
    made = report("three-hospitals")
    svg = plots.epsilon_plot(made.sites[0], made.run, 0, PRINT).svg
    assert "<text" not in svg
    assert "var(--" not in svg
    assert PRINT.colours["series-1"] in svg


def test_a_reader_of_pdf_finds_the_words(printed: GetPrinted, tmp_path: Path) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("poppler's pdftotext is not installed")
    path = tmp_path / "report.pdf"
    path.write_bytes(printed("seven-sites").pdf)
    text = subprocess.run(
        ["pdftotext", "-layout", str(path), "-"], check=True, capture_output=True, timeout=60
    ).stdout.decode()
    words = re.sub(r"\s+", " ", text)
    assert "What is guaranteed, against whom" in words
    assert "Krebsregister Süd <b>&</b> $x_1$" in words
    assert "at δ = 10⁻⁵" in words
    assert re.search(r"\b1 ?/ ?\d", words)
