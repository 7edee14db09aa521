"""An annex is headings over lines, and a line is one of three: a fact, a statement, a blank.

A fact names the places in `report.json` that it is read from. A statement is a named person's,
repeated as given. A blank says what a person has to fill in. There is no fourth kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from privagg.report.model import Attestation, Report
from privagg.report.places import PLACES, answers, unplaced
from privagg.report.shown import clean

_MARKUP = re.compile(r"([\\`*_\[\]<>|~$#])")


@dataclass(frozen=True)
class Fact:
    """A sentence that follows from the report.

    Attributes:
        sources: JSON pointers (RFC 6901) into `report.json`.
    """

    text: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Said:
    """A statement of a named person."""

    who: str
    what: str


@dataclass(frozen=True)
class Blank:
    """What a person has to fill in, and the name under which the configuration can answer it."""

    place: str

    @property
    def question(self) -> str:
        """What is asked."""
        return PLACES[self.place]


Line = Fact | Said | Blank


@dataclass(frozen=True)
class Section:
    """A heading with its lines.

    Attributes:
        title: the heading.
        lines: what stands under it.
        level: 2, or 3 for a heading within one.
    """

    title: str
    lines: tuple[Line, ...] = ()
    level: int = 2


@dataclass(frozen=True)
class Annex:
    """The recorded facts of one run under somebody's headings.

    Attributes:
        name: as in `annex-NAME.md`.
        title: the first heading.
        source: the publication whose headings these are.
        sections: in the publication's order.
    """

    name: str
    title: str
    source: str
    sections: tuple[Section, ...]


def asked(report: Report, *places: str) -> tuple[Line, ...]:
    """What people said about these questions, and a blank for each that nobody answered."""
    lines: list[Line] = []
    for place in places:
        given = answers(report, place)
        lines += [_said(a) for a in given] or [Blank(place)]
    return tuple(lines)


def other_statements(report: Report) -> Section:
    """The statements that answer none of the questions."""
    said = tuple(_said(a) for a in unplaced(report))
    none = (Fact("No further statement of a person is recorded.", ("/attestations",)),)
    return Section("Further statements of named people", said or none)


def _said(attestation: Attestation) -> Said:
    return Said(attestation.who, attestation.what)


def plain(text: str) -> str:
    """Text on one line as Markdown that shows it as it is."""
    return _MARKUP.sub(r"\\\1", " ".join(clean(text).split()))


def markdown(annex: Annex, report: Report) -> str:
    """The annex as Markdown."""
    blocks = [
        f"# {plain(annex.title)}",
        f"Federation {plain(report.federation)}, run {plain(report.run)}.",
        f"Headings: {annex.source}.",
        "Every line below is one of three. A fact carries the place in `report.json` that it is "
        "read from; `privagg verify` recomputes that report from the ledgers. A statement carries "
        "the name of the person who made it; it is repeated as given and was not checked. A box "
        "☐ is to be filled by a person. This annex arranges records; it makes no statement about "
        "the law and takes no decision.",
    ]
    for section in annex.sections:
        blocks.append(f"{'#' * section.level} {plain(section.title)}")
        if section.lines:
            blocks.append("\n".join(_line(line) for line in section.lines))
    return "\n\n".join(blocks) + "\n"


def _line(line: Line) -> str:
    if isinstance(line, Fact):
        return f"- {plain(line.text)} *(report: {_pointers(line.sources)})*"
    if isinstance(line, Said):
        return f"- **{plain(line.who)}** states: “{plain(line.what)}”"
    return (
        f"- ☐ *To be filled by a person:* {plain(line.question)} *(or in the configuration, "
        f'as a statement with `about = "{line.place}"`)*'
    )


def _pointers(sources: Sequence[str]) -> str:
    shown = [f"`{source}`" for source in sources[:3]]
    return ", ".join(shown) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
