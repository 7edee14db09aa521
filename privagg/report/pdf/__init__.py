"""The report as a PDF: the same facts and plots as the page, set for paper."""

from privagg.report.pdf.render import render_pdf

__all__ = ["render_pdf"]
