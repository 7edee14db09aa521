"""How plots are drawn: matplotlib shapes as SVG, coloured by the medium that shows them.

On the page, shapes and text carry placeholder colours that become CSS variables, so they follow
light, dark and print; text stays text, so it can be searched, selected and read aloud. For the PDF
the colours are those of print and text becomes outlines. Matplotlib is imported inside the
functions only: JSON reports and verification work without it. Nothing in a plot is a name's own
markup.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from privagg.errors import MissingDependencyError

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

STYLE: dict[str, Any] = {
    "text.parse_math": False,
    "text.usetex": False,
    "font.size": 8.5,
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


@dataclass(frozen=True)
class Medium:
    """Where a plot will be shown.

    Attributes:
        colours: what each name in `COLOURS` becomes.
        outlines: text as outlines, for readers of SVG that have no fonts of their own.
        patterns: whether hatching can be shown.
    """

    colours: Mapping[str, str]
    outlines: bool
    patterns: bool

    def hatch(self, axes: Any, start: float, end: float) -> None:
        """Mark a stretch of the horizontal axis as one without any guarantee."""
        if self.patterns:
            axes.axvspan(start, end, facecolor="none", hatch="////", edgecolor=COLOURS["rule"])
        else:
            axes.axvspan(start, end, facecolor=COLOURS["wash"], edgecolor="none")


SCREEN = Medium({name: f"var(--{name})" for name in COLOURS}, outlines=False, patterns=True)
"""A page with our style sheet."""

PRINT = Medium(
    {
        "ink": "#000000", "muted": "#444b55", "rule": "#cfd4da", "paper": "#ffffff",
        "series-1": "#0072b2", "series-2": "#e69f00", "series-3": "#009e73",
        "series-4": "#b05f8f", "warn": "#b8480a", "wash": "#f4f5f3",
    },
    outlines=True,
    patterns=False,
)  # fmt: skip
"""Paper: the colours that the style sheet has for print."""


def canvas(width_in: float, height_in: float) -> tuple[Any, Any]:
    """A figure of this size with one set of axes, both transparent."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "plots are drawn with matplotlib, which is not installed; "
            "pip install 'privagg[report]', or ask for the JSON report only"
        ) from error
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, axes


def styled(name: str, medium: Medium) -> Any:
    """The settings to draw the plot `name` under; it comes out the same every time."""
    import matplotlib as mpl

    fonttype = "path" if medium.outlines else "none"
    settings: dict[Any, Any] = {**STYLE, "svg.fonttype": fonttype, "svg.hashsalt": name}
    return mpl.rc_context(settings)


def finish(figure: Any, medium: Medium, name: str, title: str, alt: str) -> Plot:
    """The drawn figure as a plot for `medium`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(name, title, alt, _inline(buffer.getvalue(), name, medium))


def _inline(document: str, name: str, medium: Medium) -> str:
    """A standalone SVG document as an element: own ids, the medium's colours, the page's font."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    if not medium.outlines:  # in a page, other plots have ids too
        svg = re.sub(r'\bid="', f'id="{name}-', svg)
        svg = re.sub(r"url\(#", f"url(#{name}-", svg)
        svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg)
    svg = re.sub(r"font: ([\d.]+)px '[^;\"]*", r"font-size: \1px", svg)
    opening = r'<svg viewBox="\1" aria-hidden="true">'
    svg = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', opening, svg)
    for variable, placeholder in COLOURS.items():
        svg = svg.replace(placeholder, medium.colours[variable])
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
    return name if len(name) <= most else name[: most - 1] + "…"
