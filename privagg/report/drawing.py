"""How plots are drawn: matplotlib shapes as SVG, coloured by what shows them.

Shapes and text carry placeholder colours that become CSS variables, so on the page they follow
light, dark and print; `on_paper` puts colours in their place. Text stays text, so it can be
searched, selected and read aloud. Matplotlib is imported inside the functions only: JSON reports
and verification work without it. Nothing in a plot is a name's own markup.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from privagg.errors import MissingDependencyError
from privagg.report.shown import clean

COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "rule": "#030303",
    "paper": "#040404",
    "series-1": "#050505",
    "series-2": "#060606",
    "series-3": "#070707",
    "series-4": "#080808",
    "warn": "#090909",
    "wash": "#0a0a0a",
}
"""CSS variable -> placeholder that matplotlib draws with."""

FONT = 8.5
"""Size of a plot's text, in points."""

BELOW = 32
"""Room below the axes, for numbers and what they are, in points."""

STYLE: dict[str, Any] = {
    "text.parse_math": False,
    "text.usetex": False,
    "font.size": FONT,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.color": COLOURS["rule"],
    "hatch.linewidth": 0.8,
}


@dataclass(frozen=True)
class Plot:
    """An SVG element with what a screen reader says about it.

    Attributes:
        name: unique in the page; prefixes every id in the SVG.
        title: one line; stands above the plot.
        alt: what the plot shows, in words and numbers.
        svg: the element; safe to embed.
    """

    name: str
    title: str
    alt: str
    svg: str


PAPER = {
    "ink": "#000000", "muted": "#444b55", "rule": "#cfd4da", "paper": "#ffffff",
    "series-1": "#0072b2", "series-2": "#e69f00", "series-3": "#009e73",
    "series-4": "#b05f8f", "warn": "#b8480a", "wash": "#f4f5f3",
}  # fmt: skip
"""CSS variable -> its colour on paper, as the style sheet has it for print."""


def on_paper(plot: Plot) -> str:
    """The plot as a document of its own, in the colours of paper and the font it was drawn for."""
    coloured = re.sub(r"var\(--([a-z0-9-]+)\)", lambda found: PAPER[found[1]], plot.svg)
    return coloured.replace(
        "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" font-family="DejaVu Sans" ', 1
    )


NUMBERS = ("0.0000",)
"""As long as a scale's numbers are."""


def canvas(
    width_in: float,
    height_in: float,
    labels: Sequence[str] = NUMBERS,
    *,
    named: bool = False,
    legend: bool = False,
) -> tuple[Any, Any]:
    """A figure of this size with one set of axes, both transparent.

    Args:
        width_in, height_in: inches.
        labels: what stands left of the axes, at its ticks.
        named: whether a name stands beside them, too.
        legend: whether there is one above.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "plots are drawn with matplotlib, which is not installed; "
            "pip install 'privagg[report]', or ask for the JSON report only"
        ) from error
    figure = Figure(figsize=(width_in, height_in))
    figure.patch.set_visible(False)
    # Room by the length of texts: matplotlib's layouts draw all of it several times.
    beside = max(map(text_length, labels)) + 8 + (14 if named else 0)
    wide, high = 72 * width_in, 72 * height_in
    figure.subplots_adjust(
        beside / wide, BELOW / high, 1 - 10 / wide, 1 - (22 if legend else 6) / high
    )
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, axes


def text_length(text: str) -> float:
    """About how long a text is on a plot, in points."""
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return FONT * (wide + 0.56 * (len(text) - wide))


def styled(name: str) -> Any:
    """The settings to draw the plot `name` under; it comes out the same every time."""
    import matplotlib as mpl

    settings: dict[Any, Any] = {**STYLE, "svg.fonttype": "none", "svg.hashsalt": name}
    return mpl.rc_context(settings)


def finish(figure: Any, name: str, title: str, alt: str) -> Plot:
    """The drawn figure as a plot.

    Args:
        figure: a matplotlib figure, drawn under `styled(name)`.
        name: unique in the page; prefixes every id.
        title: one line; stands above the plot.
        alt: what the plot shows, in words and numbers.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with warnings.catch_warnings():  # text stays text: what shows it has the glyphs
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # `savefig` would draw twice; one drawing lays out and prints as well.
        printer: Any = FigureCanvasSVG(figure)
        printer.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return Plot(name, title, alt, _inline(buffer.getvalue(), name))


def _inline(document: str, name: str) -> str:
    """A standalone SVG document as an element: own ids, the page's colours and its font."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg)
    svg = re.sub(r"font: ([\d.]+)px '[^;\"]*", r"font-size: \1px", svg)
    opening = r'<svg viewBox="\1" aria-hidden="true">'
    svg = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', opening, svg)
    for variable, placeholder in COLOURS.items():
        svg = svg.replace(placeholder, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", svg)


def thinned(count: int, most: int) -> list[int]:
    """At most `most` + 1 indices into `count` points, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / most) for i in range(most + 1)})


def whole_numbers(axis: Any, most: int = 6) -> None:
    """Ticks at whole numbers only, about `most` of them."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))


def few_ticks() -> Any:
    """A locator of about four ticks."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4, min_n_ticks=2)


def shortened(name: str, most: int = 18) -> str:
    """A name that fits a tick label."""
    name = clean(name)
    return name if len(name) <= most else name[: most - 1] + "…"
