"""From ledgers to what an outsider reads: `report.json` and a self-contained `report.html`."""

from privagg.report.build import build_report, runs_of
from privagg.report.model import FORMAT, Report, json_schema
from privagg.report.write import write_report

__all__ = ["FORMAT", "Report", "build_report", "json_schema", "runs_of", "write_report"]
