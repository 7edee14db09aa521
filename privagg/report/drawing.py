"""What a plot is, on the page and on paper.

A plot's colours are CSS variables, so on the page they follow light, dark and print; `on_paper`
puts colours in their place. Text stays text, so it can be searched, selected and read aloud.
Nothing in a plot is a name's own markup.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

from privagg.report.shown import clean


@dataclass(frozen=True)
class Plot:
    """An SVG element with what a screen reader says about it.

    Attributes:
        name: unique in the page.
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
    # A text has no plain quotes, so what is replaced is an attribute.
    coloured = re.sub(r'"var\(--([a-z0-9-]+)\)"', lambda found: f'"{PAPER[found[1]]}"', plot.svg)
    opening, shapes = coloured.split(' aria-hidden="true">', 1)
    return (
        opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" role="img" ', 1)
        + f' font-family="DejaVu Sans">\n<title>{escape(clean(plot.title))}</title>'
        + f"\n<desc>{escape(clean(plot.alt))}</desc>{shapes}"
    )


def thinned(count: int, most: int) -> list[int]:
    """At most `most` + 1 indices into `count` points, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / most) for i in range(most + 1)})


def shortened(name: str, most: int = 18) -> str:
    """A name that fits a tick label."""
    name = clean(name)
    return name if len(name) <= most else name[: most - 1] + "…"
