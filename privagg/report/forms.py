"""The headings of the annexes, one file each: what others ask for, in their order.

`annexes/NAME.toml` reads like the annex itself. Under every heading it names facts, which
`annexes.facts` tells, and asks what only a person can say.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType

NAMES = ("nist-800-226", "gdpr-35", "model-risk", "pipl-55", "eu-ai-act-iv", "edpb-28-2024")


@dataclass(frozen=True)
class Section:
    """One heading.

    Attributes:
        heading: begins with the point's number, where the text numbers its points.
        level: of the heading, 2 or 3.
        facts: names in `annexes.FACTS`, in order.
        asked: name of a question -> the question.
    """

    heading: str
    level: int = 2
    facts: tuple[str, ...] = ()
    asked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Form:
    """A whole annex without a report.

    Attributes:
        title: of the annex.
        source: whose headings they are. The copy that was read is named at the top of the file.
        sections: in order.
        blank: what is said of a question that nobody answered.
    """

    title: str
    source: str
    sections: tuple[Section, ...]
    blank: str = "To be filled by a person:"


def _read(name: str) -> Form:
    file = resources.files("privagg.report").joinpath("annexes", f"{name}.toml")
    table = tomllib.loads(file.read_text("utf-8"))
    sections = tuple(
        Section(**{**each, "facts": tuple(each.get("facts", ()))}) for each in table.pop("section")
    )
    return Form(sections=sections, **table)


FORMS: Mapping[str, Form] = MappingProxyType({name: _read(name) for name in NAMES})
"""Name of an annex -> its headings."""
