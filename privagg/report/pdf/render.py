"""A report's PDF: one page in plain words, then everything behind it."""

from __future__ import annotations

from privagg.report.model import Report
from privagg.report.page import arranged
from privagg.report.pdf import body, front
from privagg.report.pdf.sheet import Sheet


def render_pdf(report: Report) -> bytes:
    """The PDF for `report`; equal reports give equal bytes with the same library versions.

    Raises:
        MissingDependencyError: fpdf2 or matplotlib is not installed (`privagg[report]`).
    """
    page = arranged(report)
    sheet = Sheet(
        title=f"Privacy report: {report.federation}, run {report.run}",
        running_title=f"{report.federation} · run {report.run}",
        made=report.generated,
    )
    front.summary(sheet, page)
    for section in body.SECTIONS:
        section(sheet, page)
    return sheet.finished()
