"""Paper: a cursor on A4 sheets, text in a few types, lines, bars and plots.

Lengths are in millimetres, sizes of type in points. Fonts are those that come with matplotlib, so
that the same PDF is made on every machine. All text passes through `Sheet.text`; it is drawn as
characters and never read as markup.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from privagg.errors import MissingDependencyError
from privagg.report.drawing import PRINT, Plot

if TYPE_CHECKING:
    from fpdf import FPDF

WIDTH, HEIGHT = 210.0, 297.0
LEFT, RIGHT, TOP, BOTTOM = 19.0, 19.0, 17.0, 19.0
MEASURE = WIDTH - LEFT - RIGHT
"""Width of the type area."""

POINT = 25.4 / 72
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Type:
    """A way of setting text. `leading` is the line's height over the size."""

    family: Literal["serif", "sans", "mono"]
    size_pt: float
    bold: bool = False
    colour: str = "ink"
    leading: float = 1.32

    @property
    def line(self) -> float:
        """Height of a line in millimetres."""
        return self.size_pt * self.leading * POINT

    def scaled(self, factor: float) -> Type:
        """The same at another size."""
        return replace(self, size_pt=self.size_pt * factor)

    def coloured(self, colour: str) -> Type:
        """The same in another colour."""
        return replace(self, colour=colour)


TITLE = Type("serif", 23, bold=True, leading=1.12)
HEADING = Type("serif", 15, bold=True, leading=1.2)
LABEL = Type("sans", 8, bold=True)
LEAD = Type("serif", 12.4, leading=1.28)
BODY = Type("serif", 10.4, leading=1.3)
SMALL = Type("sans", 7.4, leading=1.36)
STRONG = Type("sans", 7.4, bold=True, leading=1.36)
NOTE = Type("sans", 6.5, colour="muted", leading=1.36)
KICKER = Type("sans", 7, colour="muted")
CODE = Type("mono", 6.1, leading=1.45)

FONTS = {
    ("serif", ""): "STIXGeneral.ttf",
    ("serif", "B"): "STIXGeneralBol.ttf",
    ("sans", ""): "DejaVuSans.ttf",
    ("sans", "B"): "DejaVuSans-Bold.ttf",
    ("mono", ""): "DejaVuSansMono.ttf",
}

RANGES = {"serif": "U+0020-00B1, U+00B4-00B8, U+00BA-FFFF"}
"""STIX has three of the raised digits only; all ten then come from the fallback, alike."""


def colour(name: str) -> tuple[int, int, int]:
    """One of the report's colours, as printed."""
    value = PRINT.colours[name].lstrip("#")
    return (int(value[0:2], 16), int(value[2:4], 16), int(value[4:6], 16))


def tint(name: str, share: float) -> tuple[int, int, int]:
    """A colour thinned with white; `share` in [0, 1] is how much of it is left."""
    red, green, blue = (round(255 - (255 - part) * share) for part in colour(name))
    return (red, green, blue)


def clean(text: str) -> str:
    """Text without characters that draw nothing; a mark stands in their place."""
    return _CONTROL.sub("\ufffd", text)


class Sheet:
    """Sheets of paper and a cursor `y` that moves down them.

    Args:
        title: of the document; running_title: at the foot of every page but the first.
        made: the document's date, which is the report's own.
    """

    def __init__(self, *, title: str, running_title: str, made: datetime) -> None:
        self.pdf = _document(clean(running_title))
        self.pdf.set_title(clean(title))
        self.pdf.set_creation_date(made)
        self.pdf.set_producer("privagg")
        self.pdf.set_lang("en")
        self.pdf.set_auto_page_break(False)
        self.pdf.c_margin = 0
        self.silent = False
        self.scale = 1.0
        self._broken: dict[tuple[float, str, Type], list[str]] = {}
        self.new_page()

    def finished(self) -> bytes:
        """The document's bytes."""
        return bytes(self.pdf.output())

    # --- the cursor -------------------------------------------------------------------------------

    def new_page(self) -> None:
        """Go to the top of a new sheet."""
        self.pdf.add_page()
        self.y = TOP

    @property
    def room(self) -> float:
        """Height left on this sheet."""
        return HEIGHT - BOTTOM - self.y

    def need(self, height: float) -> None:
        """Go to a new sheet unless this one has room for `height`."""
        if self.room < height and self.y > TOP:
            self.new_page()

    def section(self, title: str, level: int = 0) -> None:
        """An entry of the document's outline, here."""
        if not self.silent:
            self.pdf.set_y(self.y)
            self.pdf.start_section(clean(title), level=level, strict=False)

    # --- marks ------------------------------------------------------------------------------------

    def text(
        self, x: float, y: float, width: float, text: str, type_: Type, align: str = "L"
    ) -> float:
        """Set text in a column that begins at (x, y); return its height."""
        type_ = self._use(type_)
        lines = self.lines(width, text, type_)
        if not self.silent:
            for i, line in enumerate(lines):
                self.pdf.set_xy(x, y + i * type_.line)
                self.pdf.cell(width, type_.line, line, align=align)
        return len(lines) * type_.line

    def lines(self, width: float, text: str, type_: Type) -> list[str]:
        """How text breaks into lines of this width, in a type already scaled."""
        place = (round(width, 6), text, type_)
        if place not in self._broken:
            self._set(type_)
            found = self.pdf.multi_cell(
                width, type_.line, clean(text), align="L", dry_run=True, output="LINES"
            )
            assert isinstance(found, list)
            self._broken[place] = found
        return self._broken[place]

    def height(self, width: float, text: str, type_: Type) -> float:
        """Height of text in a column."""
        type_ = type_.scaled(self.scale)
        return len(self.lines(width, text, type_)) * type_.line

    def width(self, text: str, type_: Type) -> float:
        """Length of text on one line."""
        self._set(type_.scaled(self.scale))
        return self.pdf.get_string_width(clean(text))

    def rule(
        self, x: float, y: float, width: float, name: str = "rule", weight: float = 0.2
    ) -> None:
        """A horizontal line."""
        if not self.silent:
            self.pdf.set_draw_color(*colour(name))
            self.pdf.set_line_width(weight)
            self.pdf.line(x, y, x + width, y)

    def box(
        self, x: float, y: float, width: float, height: float, fill: tuple[int, int, int]
    ) -> None:
        """A filled rectangle."""
        if not self.silent and width > 0:
            self.pdf.set_fill_color(*fill)
            self.pdf.rect(x, y, width, height, style="F")

    def plot(self, plot: Plot, x: float, y: float, width: float) -> float:
        """A plot with its title above; return the height of both."""
        below = self.text(x, y, width, plot.title, LABEL) + 1
        height = width * aspect(plot)
        if not self.silent:
            source = io.BytesIO(plot.svg.replace("<svg ", _NAMESPACE, 1).encode())
            self.pdf.image(source, x=x, y=y + below, w=width, h=height, alt_text=plot.alt)
        return below + height

    def _use(self, type_: Type) -> Type:
        scaled = type_.scaled(self.scale)
        self._set(scaled)
        self.pdf.set_text_color(*colour(scaled.colour))
        return scaled

    def _set(self, type_: Type) -> None:
        self.pdf.set_font(type_.family, "B" if type_.bold else "", type_.size_pt)


_NAMESPACE = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '


def aspect(plot: Plot) -> float:
    """Height over width of a plot."""
    box = re.search(r'viewBox="([^"]*)"', plot.svg)
    assert box is not None
    _, _, width, height = (float(part) for part in box.group(1).split())
    return height / width


@cache
def _document_class() -> Any:
    try:
        from fpdf import FPDF
    except ImportError as error:
        raise MissingDependencyError(
            "the PDF report needs fpdf2, which is not installed; pip install 'privagg[report]', "
            "or ask for the JSON report only"
        ) from error

    class Document(FPDF):
        """A4 with the run's name and the page's number at the foot."""

        running_title = ""

        def footer(self) -> None:
            self.set_font("sans", "", 6.5)
            self.set_text_color(*colour("muted"))
            self.set_xy(LEFT, HEIGHT - 12)
            self.cell(MEASURE - 20, 4, self.running_title)
            self.set_xy(WIDTH - RIGHT - 20, HEIGHT - 12)
            self.cell(20, 4, f"{self.page_no()} / {{nb}}", align="R")

    return Document


def _document(running_title: str) -> FPDF:
    made: FPDF = _document_class()(format="A4")
    made.running_title = running_title  # type: ignore[attr-defined]
    folder = _font_folder()
    for (family, style), file in FONTS.items():
        made.add_font(family, style, folder / file, unicode_range=RANGES.get(family))
    made.set_fallback_fonts(["sans"], exact_match=False)
    return made


def _font_folder() -> Path:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError(
            "the PDF report needs matplotlib, for plots and fonts, which is not installed; "
            "pip install 'privagg[report]', or ask for the JSON report only"
        ) from error
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
