"""What every benchmark ends with: a table for people, and rows as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]
Column = str | Callable[[Row], str]


def show(title: str, columns: Mapping[str, Column], rows: Sequence[Row], caption: str = "") -> None:
    """Print rows as a table.

    Args:
        title: above the table.
        columns: heading -> key of the row, or a function of the row that gives the text.
        rows: in order.
        caption: below the table.
    """
    table = Table(title=title, caption=caption or None, caption_justify="left")
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(_text(column, row) for column in columns.values()))
    console = Console()
    # A log or a pipe has no width of its own; cells that wrap at 80 columns are hard to read there.
    (console if console.is_terminal else Console(width=132)).print(table)


def write_json(path: Path | None, rows: Sequence[Row]) -> None:
    """Write rows as a JSON list where a path is given; each row stands by itself."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(rows), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _text(column: Column, row: Row) -> str:
    if callable(column):
        return column(row)
    value = row.get(column)
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
