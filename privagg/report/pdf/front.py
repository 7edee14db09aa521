"""The first page: what happened and what it means, in plain words, on one sheet."""

from __future__ import annotations

from collections.abc import Sequence

from privagg.report.page import Page
from privagg.report.pdf.sheet import (
    BODY,
    HEADING,
    KICKER,
    LABEL,
    LEAD,
    LEFT,
    MEASURE,
    NOTE,
    SMALL,
    STRONG,
    TITLE,
    TOP,
    Sheet,
    colour,
    tint,
)
from privagg.report.pdf.table import Cell, Column, Table, epsilon_cell
from privagg.report.view import BudgetBar

SCALES = (1.12, 1.06, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Sizes of type that are tried until the summary fits one sheet."""

MOST_BARS_BESIDE = 4
GAP = 10.0
COLUMN_LEFT = 92.0
COLUMN_RIGHT = MEASURE - COLUMN_LEFT - GAP


def summary(sheet: Sheet, page: Page) -> None:
    """Set the first page, as large as fits one sheet; at the smallest size it may take two."""
    sheet.silent = True
    for scale in SCALES:
        sheet.scale, sheet.y = scale, TOP
        _set(sheet, page)
        if sheet.room >= 0:
            break
    sheet.silent, sheet.y = False, TOP
    sheet.section("In plain words")
    _set(sheet, page)
    sheet.scale = 1.0


def _set(sheet: Sheet, page: Page) -> None:
    _title(sheet, page)
    top = sheet.y
    left = _words(sheet, page, top)
    sheet.y = top
    if len(page.summary_bars) <= MOST_BARS_BESIDE:
        _bars(sheet, page, LEFT + COLUMN_LEFT + GAP, COLUMN_RIGHT, columns=1)
    _headline(sheet, page)
    sheet.y = max(left, sheet.y) + 3
    if len(page.summary_bars) > MOST_BARS_BESIDE:
        _bars(sheet, page, LEFT, MEASURE, columns=3)
        sheet.y += 1
    _listed(sheet, "What this does not protect", page.report.unprotected)
    if page.rests_on:
        _listed(sheet, "What the figures rest on", page.rests_on)
    _check(sheet, page)


def _title(sheet: Sheet, page: Page) -> None:
    report = page.report
    sheet.y += sheet.text(LEFT, sheet.y, MEASURE, "PRIVACY REPORT", KICKER) + 0.8
    sheet.y += sheet.text(LEFT, sheet.y, MEASURE, report.federation, TITLE) + 1.4
    made = f"{report.generated:%d %B %Y, %H:%M} UTC".lstrip("0")
    facts = f"Run {report.run}    Outcome {report.outcome}    Report made {made}"
    sheet.y += sheet.text(LEFT, sheet.y, MEASURE, facts, SMALL.coloured("muted")) + 2.6
    for strong, rest in page.banners:
        height = sheet.height(MEASURE - 8, f"{strong} {rest}", SMALL) + 3
        sheet.box(LEFT, sheet.y, MEASURE, height, tint("warn", 0.1))
        sheet.box(LEFT, sheet.y, 1.1, height, colour("warn"))
        warned = SMALL.coloured("warn")
        sheet.text(LEFT + 4, sheet.y + 1.5, MEASURE - 8, f"{strong} {rest}", warned)
        sheet.y += height + 1.6
    sheet.rule(LEFT, sheet.y, MEASURE)
    sheet.y += 4


def _words(sheet: Sheet, page: Page, top: float) -> float:
    """The sentences of the summary in the left column; return where they end."""
    y = top + sheet.text(LEFT, top, COLUMN_LEFT, "In plain words", HEADING) + 1.6
    for i, sentence in enumerate(page.report.summary):
        unbroken = sentence.replace(" = ", "\u00a0=\u00a0").replace(" δ", "\u00a0δ")
        y += sheet.text(LEFT, y, COLUMN_LEFT, unbroken, BODY if i else LEAD) + 2.0
    return y


def _bars(sheet: Sheet, page: Page, x: float, width: float, *, columns: int) -> None:
    sheet.y += sheet.text(x, sheet.y + 0.6, width, "Spent of each budget", LABEL) + 2.2
    gap = 7.0
    each = (width - gap * (columns - 1)) / columns
    bars = page.summary_bars
    for start in range(0, len(bars), columns):
        tallest = 0.0
        for i, bar in enumerate(bars[start : start + columns]):
            tallest = max(tallest, _bar(sheet, bar, x + i * (each + gap), each))
        sheet.y += tallest + 2.2
    _legend(sheet, page, x)
    sheet.y += 7.5


def _bar(sheet: Sheet, bar: BudgetBar, x: float, width: float) -> float:
    amount = f"ε {bar.spent}{' of ' if bar.bounded else ', '}{bar.budget}"
    beside = sheet.width(amount, SMALL) + 2
    y = sheet.y
    y += sheet.text(x, y, width - beside, bar.site, STRONG)
    sheet.text(x + width - beside, sheet.y, beside, amount, SMALL, "R")
    y += 0.7
    sheet.box(x, y, width, 2.0, tint("rule", 0.55))
    if bar.infinite:
        sheet.box(x, y, width, 2.0, tint("warn", 0.6))
    else:
        before, run = width * bar.before_share / 100, width * bar.run_share / 100
        sheet.box(x, y, before, 2.0, tint("muted", 0.55))
        sheet.box(x + before, y, run, 2.0, colour("warn" if bar.over else "series-1"))
    y += 2.5
    about = " · ".join(part for part in (bar.dataset, bar.records, f"at δ = {bar.delta}") if part)
    y += sheet.text(x, y, width, about + (" · no guarantee left" if bar.infinite else ""), NOTE)
    return y - sheet.y


def _legend(sheet: Sheet, page: Page, x: float) -> None:
    entries = [("this run", colour("series-1"))]
    if page.any_before:
        entries.append(("earlier runs", tint("muted", 0.55)))
    if any(bar.infinite for bar in page.bars):
        entries.append(("no guarantee", tint("warn", 0.6)))
    for label, fill in entries:
        sheet.box(x, sheet.y + 0.5, 2.1, 2.1, fill)
        sheet.text(x + 3, sheet.y, 40, label, NOTE)
        x += sheet.width(label, NOTE) + 7


def _headline(sheet: Sheet, page: Page) -> None:
    if not page.headline:
        return
    x = LEFT + COLUMN_LEFT + GAP
    sheet.y += sheet.text(x, sheet.y, COLUMN_RIGHT, "What is guaranteed, against whom", LABEL)
    delta = f", at δ = {page.headline_delta}" if page.headline_delta else ""
    explained = f"The weakest figure of any site, for what was really done{delta}."
    sheet.y += sheet.text(x, sheet.y + 0.4, COLUMN_RIGHT, explained, NOTE) + 1.2
    table = Table(
        sheet, (Column("Observer", 0.78), Column("ε", 0.22, "R")), x=x, width=COLUMN_RIGHT
    )
    rows = [
        (Cell(who, note=remark, type=STRONG), epsilon_cell(epsilon))
        for who, epsilon, remark in page.headline
    ]
    table.set(rows, breaks=False)


def _check(sheet: Sheet, page: Page) -> None:
    sheet.rule(LEFT, sheet.y, MEASURE)
    sheet.y += 2.6
    sheet.y += (
        sheet.text(
            LEFT,
            sheet.y,
            MEASURE,
            "What is proved, what is somebody's word, and how to check",
            LABEL,
        )
        + 1.4
    )
    words = " ".join((*page.words_of, page.check_text))  # a list would not fit beside many sites
    sheet.y += sheet.text(LEFT, sheet.y, MEASURE, words, SMALL)


def _listed(sheet: Sheet, title: str, items: Sequence[str]) -> None:
    """Short texts in two columns of about the same height."""
    sheet.rule(LEFT, sheet.y, MEASURE)
    sheet.y += 2.6
    sheet.y += sheet.text(LEFT, sheet.y, MEASURE, title, LABEL) + 1.4
    width = (MEASURE - GAP) / 2
    heights = [sheet.height(width - 3, item, SMALL) + 1.1 for item in items]
    split = min(
        range(len(items) + 1), key=lambda i: max(sum(heights[:i]), sum(heights[i:])), default=0
    )
    ends = []
    for x, part in ((LEFT, items[:split]), (LEFT + width + GAP, items[split:])):
        y = sheet.y
        for item in part:
            sheet.text(x, y, 3, "•", SMALL.coloured("muted"))
            y += sheet.text(x + 3, y, width - 3, item, SMALL) + 1.1
        ends.append(y)
    sheet.y = max(ends)
