"""Annexes: the recorded facts of a run under the headings of others, with blanks for people.

Each is a file of headings beside this one, which `privagg.report.forms` reads; under each stands
what `facts` says and whom `lines.asked` asks. A new annex is a new file, and is made only from a
text that could be read in full. China's compliance audit (个人信息保护合规审计管理办法, order 18 of
2025) has none: the points of the audit, which are its annex, could not be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from privagg.report.annexes import facts
from privagg.report.annexes.lines import Fact, asked, bullets, further, plain
from privagg.report.forms import FORMS, Section
from privagg.report.language import say, told
from privagg.report.model import Report

ANNEXES = tuple(FORMS)
"""Name of an annex: `NAME.toml` has its headings, `annex-NAME.md` is its file."""

FACTS: Mapping[str, Callable[[Report], tuple[Fact, ...]]] = MappingProxyType(
    {
        fact.__name__: fact
        for fact in (
            facts.accountants, facts.agreement, facts.approved, facts.assumptions,
            facts.attributes, facts.charged, facts.contribution, facts.encryption, facts.events,
            facts.history, facts.institutions, facts.keys, facts.ledgers, facts.model, facts.noise,
            facts.observers, facts.quality, facts.ratio, facts.regularisation, facts.released,
            facts.resources, facts.rounds, facts.searches, facts.software, facts.spent,
            facts.target, facts.traffic, facts.unit, facts.unprotected, facts.users,
        )
    }
)  # fmt: skip
"""What a file of headings may name -> the lines that follow from the report."""

KINDS = (
    "Every line below is one of three. A fact carries the place in `report.json` that it is read "
    "from; `privagg verify` recomputes that report from the ledgers. A statement carries the name "
    "of the person who made it; it is repeated as given and was not checked. A box ☐ is to be "
    "filled by a person. This annex arranges records; it makes no statement about the law and "
    "takes no decision."
)


def render_annex(name: str, report: Report) -> str:
    """An annex as Markdown; what people wrote is shown in it, and never markup.

    Args:
        name: one of `ANNEXES`.
        report: whose facts it arranges.
    """
    form = FORMS[name]
    parts = [
        f"# {told(form.title)}",
        say(
            "Federation {federation}, run {run}.",
            federation=plain(report.federation),
            run=plain(report.run),
        ),
        say("Headings: {source}.", source=told(form.source)),
        say(KINDS),
        *(_section(section, form.blank, report) for section in form.sections),
        f"## {say('Further statements of named people')}",
        bullets(further(report), form.blank),
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(parts)).strip() + "\n"


def _section(section: Section, blank: str, report: Report) -> str:
    lines = [line for name in section.facts for line in FACTS[name](report)]
    under = bullets([*lines, *asked(report, *section.asked)], blank)
    return f"{'#' * section.level} {told(section.heading)}\n\n{under}"
