"""One world, report, page and PDF of each kind, made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from privagg.report import Report
from privagg.report.html import render_html
from privagg.report.pdf import render_pdf
from privagg.report.pdf.sheet import Sheet, Type
from tests.report.worlds import WORLDS, World


@dataclass
class Printed:
    """A PDF, and every text that was drawn in it: (x, y, width, height, text)."""

    pdf: bytes = b""
    marks: list[tuple[float, float, float, float, str]] = field(default_factory=list)

    @property
    def said(self) -> str:
        """All texts, one a line, in the order in which they were drawn."""
        return "\n".join(mark[4] for mark in self.marks)


def recording(monkeypatch: pytest.MonkeyPatch) -> Printed:
    """Collects what sheets draw from now on."""
    seen = Printed()
    drawn = Sheet.text

    def text(
        sheet: Sheet, x: float, y: float, width: float, text: str, type_: Type, align: str = "L"
    ) -> float:
        height = drawn(sheet, x, y, width, text, type_, align)
        if not sheet.silent:
            seen.marks.append((x, y, width, height, text))
        return height

    monkeypatch.setattr(Sheet, "text", text)
    return seen


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    made: dict[str, World] = {}

    def get(name: str) -> World:
        if name not in made:
            made[name] = WORLDS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture(scope="session")
def report(world: Callable[[str], World]) -> Callable[[str], Report]:
    made: dict[str, Report] = {}

    def get(name: str) -> Report:
        if name not in made:
            made[name] = world(name).report()
        return made[name]

    return get


@pytest.fixture(scope="session")
def html(report: Callable[[str], Report]) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def get(name: str) -> str:
        if name not in made:
            made[name] = render_html(report(name))
        return made[name]

    return get


@pytest.fixture(scope="session")
def printed(report: Callable[[str], Report]) -> Callable[[str], Printed]:
    made: dict[str, Printed] = {}

    def get(name: str) -> Printed:
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                made[name] = recording(patch)
                made[name].pdf = render_pdf(report(name))
        return made[name]

    return get
