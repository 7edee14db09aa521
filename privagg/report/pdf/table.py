"""Tables that repeat their head on every sheet they reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from privagg.report.pdf.sheet import (
    LABEL,
    NOTE,
    SMALL,
    STRONG,
    Sheet,
    Type,
    tint,
)

PADDING = 1.15
GUTTER = 3.0
MOST_CHARACTERS = 480
"""Longer text in a cell is cut; the JSON report has it whole."""


@dataclass(frozen=True)
class Column:
    """A column's head, its share of the width, its alignment (`L` or `R`), its right margin."""

    title: str
    share: float
    align: str = "L"
    inset: float = 0.0


@dataclass(frozen=True)
class Cell:
    """Text with a smaller note below, numbers of footnotes, and a fill."""

    text: str
    note: str = ""
    footnotes: tuple[int, ...] = ()
    type: Type = SMALL
    fill: tuple[int, int, int] | None = None


def cells(*texts: str) -> tuple[Cell, ...]:
    """A row of plain cells, the first one set strong."""
    return tuple(Cell(text, type=SMALL if i else STRONG) for i, text in enumerate(texts))


class Table:
    """Sets rows on a sheet, in a column of the page that begins at `x`."""

    def __init__(
        self,
        sheet: Sheet,
        columns: Sequence[Column],
        *,
        x: float,
        width: float,
        padding: float = PADDING,
    ) -> None:
        self.sheet, self.columns, self.x, self.padding = sheet, columns, x, padding
        total = sum(column.share for column in columns)
        self.widths = [width * column.share / total for column in columns]

    def set(self, rows: Sequence[Sequence[Cell]], *, title: str = "", breaks: bool = True) -> None:
        """Set all rows below the cursor, and move it below them.

        Args:
            breaks: False where the caller has made room for all of them.
        """
        sheet = self.sheet
        width = sum(self.widths)
        if title:
            height = sheet.height(width, title, LABEL)
            if breaks:
                sheet.need(height + 20)
            sheet.y += sheet.text(self.x, sheet.y, width, title, LABEL) + 1.2
        self._head()
        for row in rows:
            row = [_cut(cell) for cell in row]
            height = self._height(row)
            if breaks and sheet.room < height:
                sheet.new_page()
                self._head()
            self._row(row, height)

    def _head(self) -> None:
        head = [Cell(column.title, type=NOTE) for column in self.columns]
        self._row(head, self._height(head), rule="muted")

    def _height(self, row: Sequence[Cell]) -> float:
        return (
            max(self._cell_height(cell, self._inner(i)) for i, cell in enumerate(row))
            + 2 * self.padding
        )

    def _inner(self, i: int) -> float:
        gutter = self.columns[i].inset or (GUTTER if i < len(self.widths) - 1 else 0)
        return self.widths[i] - gutter

    def _cell_height(self, cell: Cell, width: float) -> float:
        below = self.sheet.height(width, cell.note, NOTE) if cell.note else 0.0
        return self.sheet.height(width, cell.text, cell.type) + below

    def _row(self, row: Sequence[Cell], height: float, rule: str = "rule") -> None:
        sheet, x = self.sheet, self.x
        for i, (cell, column) in enumerate(zip(row, self.columns, strict=True)):
            inner = self._inner(i)
            if cell.fill is not None:
                start = x - 1.2 if column.align == "L" else x
                sheet.box(start, sheet.y, self.widths[i] - 0.6, height, cell.fill)
            below = sheet.text(x, sheet.y + self.padding, inner, cell.text, cell.type, column.align)
            if cell.footnotes:
                self._footnotes(cell, x, inner, column.align)
            if cell.note:
                sheet.text(x, sheet.y + self.padding + below, inner, cell.note, NOTE, column.align)
            x += self.widths[i]
        sheet.y += height
        sheet.rule(self.x, sheet.y, sum(self.widths), rule)

    def _footnotes(self, cell: Cell, x: float, inner: float, align: str) -> None:
        numbers = ", ".join(map(str, cell.footnotes))
        small = NOTE.scaled(0.74)
        length = self.sheet.width(cell.text, cell.type)
        start = x + inner + 0.5 if align == "R" else x + min(length, inner) + 0.6
        self.sheet.text(start, self.sheet.y + self.padding - 0.2, 30, numbers, small)


def _cut(cell: Cell) -> Cell:
    if len(cell.text) <= MOST_CHARACTERS and len(cell.note) <= MOST_CHARACTERS:
        return cell
    text, note = (
        part if len(part) <= MOST_CHARACTERS else f"{part[:MOST_CHARACTERS]}… (cut here)"
        for part in (cell.text, cell.note)
    )
    return Cell(text, note, cell.footnotes, cell.type, cell.fill)


def epsilon_cell(text: str, *, over: bool = False, heat: float | None = None) -> Cell:
    """An epsilon; in the colour of a warning where it is infinite or above a budget."""
    warned = over or text == "∞"
    fill = None if heat is None else tint("warn" if warned else "series-1", 0.05 + 0.4 * heat)
    shown = f"▲ {text}" if over else text
    return Cell(shown, type=SMALL.coloured("warn") if warned else SMALL, fill=fill)
