"""What is an outsider told of a run? JSON from its ledgers; from that a page, a PDF and drafts.

Read `model` first (the format of `report.json`), then `build` (from ledgers to it, with
`accounting` for every epsilon), then `page` and `render` (from it to what a person reads).
`sentences` holds the words and `language` says them in the language asked for; `annexes` and
`registry` put other people's headings over the same facts.
"""

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
