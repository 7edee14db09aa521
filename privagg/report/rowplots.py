"""Rows of a value and its two intervals over one scale, as SVG.

A report on a scorecard has one for each column, so they are written as the few shapes that they
are; `drawing` lays out everything else with matplotlib, which also chooses the ticks here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import log10
from typing import Any

from privagg.report.drawing import FONT, few_ticks, text_length

WIDTH, ROW = 316.8, 19.4
"""In points, as of a drawing 4.4 inches wide."""

LEFT, RIGHT, TOP, SCALE, LABEL = 6.0, 10.0, 5.0, 17.0, 15.0
"""Room beside the rows: for the labels' own gap, at the end, above, for numbers and for a name."""

PAD = 0.05
"""Of the scale, beyond the outermost end."""


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        label: what it is called, plain text.
        value: of the figure.
        ends: low, high and width of each interval, with the CSS variable of its colour; wide first.
    """

    label: str
    value: float
    ends: tuple[tuple[float, float, float, str], ...]


@dataclass(frozen=True)
class Scale:
    """Where numbers lie.

    Attributes:
        ratio: whether it is logarithmic, about 1.
        bars: whether bars reach from 0.
        mark: a number with a line of its own; None of bars.
    """

    ratio: bool
    bars: bool
    mark: float | None


def rows_svg(rows: Sequence[Row], scale: Scale, *, below: str, beside: str) -> str:
    """The element, safe to embed.

    Args:
        rows: from above to below; of a ratio all numbers are above 0.
        scale: of the numbers.
        below, beside: names of the scale and of the rows; plain text, may be empty.
    """
    start = LEFT + max(text_length(row.label) for row in rows) + (LABEL if beside else 0)
    bottom = TOP + ROW * len(rows)
    height = bottom + SCALE + (LABEL if below else 0)
    at, ticks = _placed([end for row in rows for end in _reach(row)], scale, start)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height:.1f}" font-size="{FONT}" aria-hidden="true">']
    for number, text in ticks:
        parts.append(_line(at(number), at(number), TOP, bottom, "rule", 0.6))
        parts.append(_text(at(number), bottom + 12, text, "middle", "muted"))
    if scale.mark is not None:
        parts.append(_line(at(scale.mark), at(scale.mark), TOP, bottom, "muted", 0.8))
    parts.append(_line(start, WIDTH - RIGHT, bottom, bottom, "muted", 0.6))
    for place, row in enumerate(rows):
        parts += _row(row, TOP + ROW * (place + 0.5), start, at, bars=scale.bars)
    if below:
        parts.append(_text((start + WIDTH) / 2, height - 3, below, "middle", "muted"))
    if beside:
        middle = (TOP + bottom) / 2
        turned = f' transform="rotate(-90 {FONT:.1f} {middle:.1f})"'
        parts.append(_text(FONT, middle, beside, "middle", "muted", turned))
    return "\n".join([*parts, "</svg>"])


def _row(
    row: Row, y: float, start: float, at: Callable[[float], float], *, bars: bool
) -> Iterator[str]:
    yield _text(start - LEFT, y + 3, row.label, "end", "ink")
    if bars:
        left, right = sorted((at(0.0), at(row.value)))
        yield (
            f'<rect x="{left:.2f}" y="{y - 0.3 * ROW:.2f}" width="{right - left:.2f}" '
            f'height="{0.6 * ROW:.2f}" fill="var(--series-1)" fill-opacity="0.45"/>'
        )
    for low, high, width, colour in row.ends:
        yield _line(at(low), at(high), y, y, colour, width)
    yield f'<circle cx="{at(row.value):.2f}" cy="{y:.2f}" r="1.8" fill="var(--ink)"/>'


def _placed(
    numbers: Sequence[float], scale: Scale, start: float
) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """Where a number lies, and the ticks that are shown."""
    marks = [0.0] if scale.bars else []
    marks += [] if scale.mark is None else [scale.mark]
    turned: Callable[[float], float] = log10 if scale.ratio else float
    low, high = min(*numbers, *marks), max(*numbers, *marks)
    first, last = turned(low), turned(high)
    pad = PAD * (last - first) or (abs(first) * PAD or 1.0)
    first, last = first - (0.0 if scale.bars else pad), last + pad
    wide = WIDTH - RIGHT - start

    def at(number: float) -> float:
        return start + wide * (turned(number) - first) / (last - first)

    if scale.ratio:
        from matplotlib.ticker import LogLocator

        steps = (1.0, 2.0, 5.0) if high > 8 * low else tuple(range(1, 10))
        found: Any = LogLocator(subs=steps, numticks=12).tick_values(10**first, 10**last)
    else:
        found = few_ticks().tick_values(first, last)
    inside = [each for each in map(float, found) if start <= at(each) <= start + wide]
    return at, [(each, f"{each:g}".replace("-", "\N{MINUS SIGN}")) for each in inside]


def _reach(row: Row) -> Iterator[float]:
    yield row.value
    for low, high, _, _ in row.ends:
        yield from (low, high)


def _line(x: float, x2: float, y: float, y2: float, colour: str, width: float) -> str:
    return (
        f'<line x1="{x:.2f}" x2="{x2:.2f}" y1="{y:.2f}" y2="{y2:.2f}" '
        f'stroke="var(--{colour})" stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str, more: str = "") -> str:
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" fill="var(--{colour})"{more}>'
        f"{escape(text)}</text>"
    )
