"""Annexes: the recorded facts of a run under the headings of others, with blanks for people.

Each is a Markdown template beside this file, read like the annex itself: headings, and under each
what `facts` says and whom `lines.asked` asks. A new annex is a new template and its questions.
"""

from __future__ import annotations

import re

from privagg.errors import MissingDependencyError
from privagg.report.annexes import facts
from privagg.report.annexes.lines import asked, bullets, further, plain
from privagg.report.language import say
from privagg.report.model import Report

ANNEXES = ("nist-800-226", "gdpr-35", "model-risk")
"""Name of an annex: `NAME.md.j2` is its template, `annex-NAME.md` its file."""

FACTS = (
    facts.accountants, facts.assumptions, facts.charged, facts.encryption, facts.mechanism,
    facts.model, facts.observers, facts.participants, facts.quality, facts.records, facts.released,
    facts.rounds, facts.searches, facts.spent, facts.traffic, facts.unit, facts.unprotected,
)  # fmt: skip
"""What a template may write: each by its own name, the lines that follow from the report."""


def render_annex(name: str, report: Report) -> str:
    """An annex as Markdown; what people wrote is shown in it, and never markup.

    Args:
        name: one of `ANNEXES`.
        report: whose facts it arranges.

    Raises:
        MissingDependencyError: jinja2 is not installed (`privagg[report]`).
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError(
            "annexes need jinja2, which is not installed; pip install 'privagg[report]'"
        ) from error
    environment = Environment(
        autoescape=False,  # Markdown: `plain` escapes what is not ours
        loader=PackageLoader(__name__, ""),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    lines = {fact.__name__: fact(report) for fact in FACTS}
    text = environment.get_template(f"{name}.md.j2").render(
        report=report, plain=plain, say=say, bullets=bullets, further=further(report),
        asked=lambda *places: asked(report, *places), **lines,
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
