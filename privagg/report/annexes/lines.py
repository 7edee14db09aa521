"""What stands under an annex's headings: lines of three kinds, a fact, a statement, a blank.

A fact names the places in `report.json` that it is read from. A statement is a named person's,
repeated as given. A blank says what a person has to fill in. There is no fourth kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from privagg.report.language import say, told
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
        return told(PLACES[self.place])


Line = Fact | Said | Blank


def asked(report: Report, *places: str) -> tuple[Line, ...]:
    """What people said about these questions, and a blank for each that nobody answered."""
    lines: list[Line] = []
    for place in places:
        given = answers(report, place)
        lines += [_said(a) for a in given] or [Blank(place)]
    return tuple(lines)


def further(report: Report) -> tuple[Line, ...]:
    """The statements that answer none of the questions."""
    said = tuple(_said(a) for a in unplaced(report))
    return said or (Fact(say("No further statement of a person is recorded."), ("/attestations",)),)


def _said(attestation: Attestation) -> Said:
    return Said(attestation.who, attestation.what)


def plain(text: str) -> str:
    """Text on one line as Markdown that shows it as it is."""
    return _MARKUP.sub(r"\\\1", " ".join(clean(text).split()))


def bullets(lines: Sequence[Line], blank: str) -> str:
    """Lines as a list in Markdown, `blank` said of each blank; empty where there are none."""
    return "\n".join(_line(line, blank) for line in lines)


def _line(line: Line, blank: str) -> str:
    if isinstance(line, Fact):
        where = say("(report: {places})", places=_pointers(line.sources))
        return f"- {plain(line.text)} *{where}*"
    if isinstance(line, Said):
        said = say("{who} states: “{what}”", who=f"**{plain(line.who)}**", what=plain(line.what))
        return f"- {said}"
    answered = f'`about = "{line.place}"`'
    where = say("(or in the configuration, as a statement with {about})", about=answered)
    return f"- ☐ *{told(blank)}* {plain(line.question)} *{where}*"


def _pointers(sources: Sequence[str]) -> str:
    shown = say(", ").join(f"`{source}`" for source in sources[:3])
    more = len(sources) - 3
    return say("{items} and {n} more", items=shown, n=more) if more > 0 else shown
