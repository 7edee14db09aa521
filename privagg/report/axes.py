"""Axes of a plot: scales with their ticks, and shapes in the scales' own numbers, as SVG.

Ticks are whole multiples of 1, 2, 2.5 or 5 times a power of ten, told exactly and only as densely
as their texts have room; margins come from the lengths of texts. So nothing overlaps, and equal
numbers give equal bytes. Colours are CSS variables of the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from itertools import chain, count, pairwise, product
from math import ceil, floor, log10

from privagg.report.shown import clean

FONT = 8.5
"""Size of a plot's text, in points; one line of it takes `LINE`."""

LINE, GAP, EDGE = 14.0, 6.0, 10.0
"""In points: a line of text, the gap between text and axes, what is left free at the end."""

DASHES = ' stroke-dasharray="4 2"'

LEADS = tuple(map(Decimal, ("1", "2", "2.5", "5")))

Point = tuple[float, float]
Tick = tuple[float, str]


def text_length(text: str) -> float:
    """About how long a text is on a plot, in points."""
    return FONT * sum(1.0 if ord(each) >= 0x1100 or each in WIDE else 0.64 for each in text)


WIDE = "%@mwMW"
"""About as wide as they are high, as is what other scripts write from U+1100 on."""


@dataclass(frozen=True)
class Scale:
    """Numbers along one side of a plot.

    Attributes:
        low, high: its ends; low is less, and above 0 where it is a ratio.
        most: at most so many steps between ticks; 0 for none.
        whole: whether ticks lie at whole numbers only.
        share: whether numbers are told in per cent.
        ratio: whether it is logarithmic.
    """

    low: float
    high: float
    most: int = 6
    whole: bool = False
    share: bool = False
    ratio: bool = False

    def part(self, number: float) -> float:
        """Where a number lies between the ends, from 0 to 1; beyond them it lies on them."""
        told = (self.low, number, self.high)
        low, at, high = map(log10, told) if self.ratio else told
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def ticks(self) -> Iterator[list[Tick]]:
        """Ways to set ticks, each sparser than the last."""
        if self.most:
            powers = self._powers() if self.ratio and self.high > 8 * self.low else ()
            yield from chain(powers, self._multiples())

    def _multiples(self) -> Iterator[list[Tick]]:
        low, high = (Decimal(repr(end)) * (100 if self.share else 1) for end in self._ends())
        for power in count(floor(log10((high - low) / self.most))):
            for step in (lead.scaleb(power) for lead in LEADS):
                if high - low <= self.most * step and not (self.whole and step % 1):
                    inside = range(ceil(low / step), floor(high / step) + 1)
                    yield [self._tick(step * each) for each in inside]

    def _powers(self) -> Iterator[list[Tick]]:
        low, high = self._ends()
        powers = range(floor(log10(low)), ceil(log10(high)) + 1)
        for leads, every in (((1, 2, 5), 1), *(((1,), every) for every in range(1, len(powers)))):
            found = [Decimal(lead).scaleb(power) for power, lead in product(powers[::every], leads)]
            yield [self._tick(each) for each in found if low <= each <= high]

    def _ends(self) -> tuple[float, float]:
        return float(self.low), float(self.high)

    def _tick(self, number: Decimal) -> Tick:
        if self.share:
            return float(number / 100), f"{number:f}%"
        plain = not number or 1e-4 <= abs(number) < 1e6
        text = (f"{number:f}" if plain else f"{number:g}") if number else "0"
        return float(number), text.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Names:
    """Rows from above to below; a row's place is its number, from 0.

    Attributes:
        names: what each is called, plain text.
    """

    names: Sequence[str]

    def part(self, place: float) -> float:
        """Where a place lies, from 0 below to 1 above."""
        return 1.0 - (place + 0.5) / len(self.names)

    def ticks(self) -> Iterator[list[Tick]]:
        """Each row has its name."""
        yield list(enumerate(self.names))


@dataclass(frozen=True)
class Key:
    """What a legend says of one kind of shape.

    Attributes:
        text: plain.
        colour: the shape's.
        kind: `bar`, `line`, `dashes` or `cross`.
    """

    text: str
    colour: str
    kind: str = "bar"


class Axes:
    """A plot that shapes are drawn into; what lies beyond a scale is drawn at its end.

    Args:
        width, height: of all of it, in points.
        x, y: what its sides are. Grid lines stand at the numbers of y; where y has names, of x.
        below, beside: what x and y are called; plain text, may be empty.
        keys: of the legend above, in lines as long as they fit.
    """

    def __init__(
        self,
        width: float,
        height: float,
        x: Scale,
        y: Scale | Names,
        *,
        below: str = "",
        beside: str = "",
        keys: Sequence[Key] = (),
    ) -> None:
        self.x, self.y, self._height, self._width = x, y, height, width
        legend, lines = _legend(keys, width)
        self._up = next(y.ticks(), [])
        beside_room = LINE if beside else 0.0
        self._left = GAP + beside_room + max((text_length(text) for _, text in self._up), default=0)
        self._top = EDGE / 2 + LINE * lines
        self._bottom = height - LINE - GAP / 2 - (LINE if below else 0.0)
        self._shapes = [*self._grid(), *legend, *_named(below, beside, self._box(), height)]

    def _box(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of the axes."""
        return self._left, self._width - EDGE, self._top, self._bottom

    def _grid(self) -> Iterator[str]:
        left, right, top, bottom = self._box()
        rows = isinstance(self.y, Names)
        for number, text in self._across():
            x = self._x(number)
            ends = ((x, top), (x, bottom)) if rows else ((x, bottom), (x, bottom + 2.5))
            yield _segment(*ends, "rule" if rows else "muted", 0.6)
            yield _text((x, bottom + GAP + FONT - 2), text, "middle")
        for number, text in self._up:
            y = self._y(number)
            if not rows:
                yield _segment((left, y), (right, y), "rule", 0.6)
            yield _text((left - GAP + 1, y + 3), text, "end", "ink" if rows else "muted")
        yield _segment((left, bottom), (right, bottom), "muted", 0.6)
        if not rows:
            yield _segment((left, top), (left, bottom), "muted", 0.6)

    def _across(self) -> list[Tick]:
        """The densest ticks of x whose texts keep apart."""
        for ticks in self.x.ticks():
            ends = [(self._x(at), text_length(text) / 2 + GAP / 2) for at, text in ticks]
            if all(a + half < b - other for (a, half), (b, other) in pairwise(ends)):
                return ticks
        return []

    def _x(self, number: float) -> float:
        left, right, _, _ = self._box()
        return left + (right - left) * self.x.part(number)

    def _y(self, number: float) -> float:
        _, _, top, bottom = self._box()
        return bottom - (bottom - top) * self.y.part(number)

    def _at(self, point: Point) -> Point:
        return self._x(point[0]), self._y(point[1])

    def line(
        self, points: Iterable[Point], colour: str, width: float, *, dashed: bool = False
    ) -> None:
        """A line from point to point.

        Args:
            points: in numbers of the scales.
            colour: a CSS variable, as everywhere here.
            width: in points of the drawing.
            dashed: whether it is broken.
        """
        self._shapes.append(
            f'<polyline points="{_pairs(map(self._at, points))}" fill="none" '
            f'stroke="var(--{colour})" stroke-width="{width}"{DASHES if dashed else ""}/>'
        )

    def area(self, points: Iterable[Point], colour: str, opacity: float) -> None:
        """What a line around it encloses.

        Args:
            points: of the line, in numbers of the scales.
            colour: of the area.
            opacity: from 0 to 1.
        """
        self._shapes.append(
            f'<polygon points="{_pairs(map(self._at, points))}" fill="var(--{colour})" '
            f'fill-opacity="{opacity}"/>'
        )

    def box(self, x: Point, y: Point, colour: str, opacity: float = 1.0) -> None:
        """A rectangle.

        Args:
            x, y: the two numbers of each scale that it lies between.
            colour: of its area.
            opacity: from 0 to 1.
        """
        corners = ((x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]))
        self.area(corners, colour, opacity)

    def mark(self, point: Point, colour: str, radius: float = 1.8, kind: str = "dot") -> None:
        """A sign at a point.

        Args:
            point: in numbers of the scales.
            colour: of all of it.
            radius: in points of the drawing.
            kind: `dot`, `diamond`, `triangle` or `cross`.
        """
        self._shapes.append(_mark(self._at(point), colour, radius, kind))

    def text(
        self, point: Point, text: str, anchor: str = "start", colour: str = "ink",
        by: Point = (0.0, 3.0),
    ) -> None:  # fmt: skip
        """A text beside a point.

        Args:
            point: in numbers of the scales.
            text: plain.
            anchor: which part of it stands there: `start`, `middle` or `end`.
            colour: of the letters.
            by: how far right and down of the point, in points of the drawing.
        """
        x, y = self._at(point)
        self._shapes.append(_text((x + by[0], y + by[1]), text, anchor, colour))

    def svg(self) -> str:
        """The element, safe to embed."""
        opening = (
            f'<svg viewBox="0 0 {self._width:.1f} {self._height:.1f}" font-size="{FONT}" '
            'aria-hidden="true">'
        )
        return "\n".join([opening, *self._shapes, "</svg>"])


def stepped(points: Sequence[Point]) -> list[Point]:
    """A line that keeps each height until the next point."""
    corners = [(after[0], before[1]) for before, after in pairwise(points)]
    return [points[0], *chain.from_iterable(zip(corners, points[1:], strict=True))]


def between(lows: Sequence[Point], highs: Sequence[Point]) -> list[Point]:
    """The edge of what lies between two stepped lines."""
    return [*stepped(lows), *reversed(stepped(highs))]


def _segment(start: Point, end: Point, colour: str, width: float, *, dashed: bool = False) -> str:
    """A straight line, in points of the drawing."""
    return (
        f'<line x1="{start[0]:.2f}" y1="{start[1]:.2f}" x2="{end[0]:.2f}" y2="{end[1]:.2f}" '
        f'stroke="var(--{colour})" stroke-width="{width}"{DASHES if dashed else ""}/>'
    )


def _text(place: Point, text: str, anchor: str, colour: str = "muted", more: str = "") -> str:
    """A text, in points of the drawing."""
    return (
        f'<text x="{place[0]:.2f}" y="{place[1]:.2f}" text-anchor="{anchor}" '
        f'fill="var(--{colour})"{more}>{escape(clean(text))}</text>'
    )


def _pairs(points: Iterable[Point]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)


def _mark(at: Point, colour: str, radius: float, kind: str) -> str:
    (x, y), r = at, radius
    if kind == "dot":
        return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{r}" fill="var(--{colour})"/>'
    if kind == "cross":
        rising, falling = (
            f"M{x - r:.2f},{y + turn * r:.2f} {x + r:.2f},{y - turn * r:.2f}" for turn in (1, -1)
        )
        return f'<path d="{rising} {falling}" stroke="var(--{colour})" stroke-width="1.4"/>'
    corners = [(x - r, y - r), (x + r, y - r), (x, y + r)] if kind == "triangle" else [
        (x - r, y), (x, y - r), (x + r, y), (x, y + r)
    ]  # fmt: skip
    return f'<polygon points="{_pairs(corners)}" fill="var(--{colour})"/>'


def _legend(keys: Sequence[Key], width: float) -> tuple[list[str], int]:
    """The shapes of a legend, and how many lines it takes."""
    parts, x, lines = list[str](), 0.0, 1 if keys else 0
    for key in keys:
        long = 2 * LINE + text_length(key.text)
        if x and x + long > width:
            x, lines = 0.0, lines + 1
        y = EDGE / 2 + LINE * (lines - 0.5)
        middle = (x + LINE / 2, y - 3)
        if key.kind == "cross":
            parts.append(_mark(middle, key.colour, 2.6, "cross"))
        else:
            ends = (x + 1, y - 3), (x + LINE - 3, y - 3)
            thick = 7 if key.kind == "bar" else 1.5
            parts.append(_segment(*ends, key.colour, thick, dashed=key.kind == "dashes"))
        parts.append(_text((x + LINE, y), key.text, "start", "ink"))
        x += long
    return parts, lines


def _named(
    below: str, beside: str, box: tuple[float, float, float, float], height: float
) -> Iterator[str]:
    left, right, top, bottom = box
    if below:
        yield _text(((left + right) / 2, height - 6), below, "middle")
    if beside:
        middle = (top + bottom) / 2
        turned = f' transform="rotate(-90 {FONT:.1f} {middle:.1f})"'
        yield _text((FONT, middle), beside, "middle", more=turned)
