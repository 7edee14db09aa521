"""How the command line speaks: plain when piped, coloured in a terminal, JSON where asked."""

from __future__ import annotations

import json
import re
import sys
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import category

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from privagg.errors import PrivaggError

PIPED_WIDTH = 140

_OPENING, _CLOSING, _WIDE = "(（“《【", ")，。；：、！？）”》】…", "\u2e80-\ufaff\uff10-\uff5e"
_PARTS = re.compile(
    rf"\s+|[{_OPENING}]*(?:(?![{_OPENING}{_CLOSING}])[{_WIDE}]|[^\s{_WIDE}{_OPENING}{_CLOSING}]+)?"
    rf"[{_CLOSING}]*"
)
"""What a line is not broken inside of: a wide character or a word, each with its marks."""

_debug = False


def show_traceback(wanted: bool) -> None:
    """Whether `fail` prints the traceback too."""
    global _debug
    _debug = wanted


def console(*, stderr: bool = False) -> Console:
    """A console that neither colours nor cuts lines when its output goes to a file or a pipe."""
    made = Console(stderr=stderr, highlight=False, emoji=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, emoji=False, width=PIPED_WIDTH)
    return made


def fail(error: Exception | None, message: str | None = None) -> int:
    """Say on stderr what went wrong and what to do; return the exit code.

    A deliberate refusal (`PrivaggError`) carries its own message and code; anything else is a
    fault of privagg's, exits with 1 and asks for a report.
    """
    out = console(stderr=True)
    if _debug and error is not None:
        out.print(Text("".join(traceback.format_exception(error)).rstrip(), style="dim"))
    line = Text("error: ", style="bold red")
    if isinstance(error, PrivaggError) or error is None:
        line.append(message or str(error), style="not bold default")
        out.print(line, soft_wrap=True)
        return error.exit_code if isinstance(error, PrivaggError) else 130
    line.append(f"{type(error).__name__}: {error}", style="not bold default")
    out.print(line, soft_wrap=True)
    out.print(
        "This is a fault in privagg, not in what you asked for. Whatever was charged to a ledger "
        "stays charged. Please report it with what `--debug` (before the verb) prints.",
        soft_wrap=True,
    )
    return 1


def note(message: str) -> None:
    """A remark on stderr, so that it never mixes with output that a machine reads."""
    console(stderr=True).print(Text(message, style="dim"), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout, as is: no colours, no wrapping."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: Any) -> None:
    """One JSON document on one line of stdout, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def heading(out: Console, text: str) -> None:
    """A bold line with air above it."""
    out.print()
    out.print(Text(text, style="bold"))


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns; between wide characters a line may end anywhere.

    None begins with what closes a sentence or a bracket, nor ends with what opens one.
    """
    if cell_len(text) == len(text):
        return textwrap.wrap(text, width)
    lines, line = [], ""
    for part in _PARTS.findall(text):
        if line and cell_len(line + part.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += part if line else part.lstrip()
    return [*lines, line.rstrip()] if line.strip() else lines


def plain(text: str) -> str:
    """A stranger's text without anything that could steer a terminal."""
    return "".join(
        sign if sign.isprintable() or category(sign) == "Zs" else "\N{REPLACEMENT CHARACTER}"
        for sign in text
    )


def facts(out: Console, pairs: Iterable[tuple[str, str]]) -> None:
    """Label and value side by side; values are text, whatever they contain."""
    pairs = list(pairs)
    indent = max((cell_len(label) for label, _ in pairs), default=0) + 3
    for label, value in pairs:
        lines = [
            part
            for line in value.splitlines() or [""]
            for part in wrapped(plain(line.strip()), max(out.width - indent, 30)) or [""]
        ]
        for number, line in enumerate(lines):
            start = set_cell_size(label if number == 0 else "", indent)
            out.print(Text(start, style="dim").append(line, style="not dim"), soft_wrap=True)


def table(
    out: Console, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[int]
) -> None:
    """A plain table; the columns numbered in `left` are aligned left, all others right.

    Args:
        out: where it is printed.
        columns: headings.
        rows: one text for each column.
        left: indices of columns.
    """
    made = [list(row) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *made, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "   ".join(
            set_cell_size(cell, width) if number in left else " " * (width - cell_len(cell)) + cell
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    out.print(Text(line(columns), style="dim"), soft_wrap=True)
    for row in made:
        out.print(Text(line(row)), soft_wrap=True)
