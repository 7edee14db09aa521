"""From ledgers to what an outsider reads: JSON, a page, a PDF, a registry's draft, annexes."""

from privagg.report.build import build_report, runs_of
from privagg.report.model import FORMAT, Report, json_schema
from privagg.report.write import FORMATS, write_formats, write_report

__all__ = [
    "FORMAT",
    "FORMATS",
    "Report",
    "build_report",
    "json_schema",
    "runs_of",
    "write_formats",
    "write_report",
]
