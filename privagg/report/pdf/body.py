"""The pages behind the first one: spending, cost, accountants, observers, plan, rounds, ledgers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from privagg.report import plots, view
from privagg.report.drawing import PRINT, Plot
from privagg.report.figures import epsilon_text
from privagg.report.model import LedgerFacts
from privagg.report.page import Page
from privagg.report.pdf.sheet import (
    BODY,
    CODE,
    HEADING,
    LABEL,
    LEFT,
    MEASURE,
    NOTE,
    SMALL,
    STRONG,
    Sheet,
    Type,
    aspect,
    tint,
)
from privagg.report.pdf.table import Cell, Column, Table, cells, epsilon_cell

GAP = 8.0
READING = 140.0
"""Width of a paragraph that is comfortable to read."""

MOST_RECIPE = 1800
"""Characters of the recipe that are printed."""


def heading(sheet: Sheet, title: str, *, room: float = 40.0) -> None:
    """A section's title, with room below it for the beginning of the section."""
    sheet.y += 9
    sheet.need(room)
    sheet.section(title)
    sheet.y += sheet.text(LEFT, sheet.y, MEASURE, title, HEADING) + 1.2


def flow(
    sheet: Sheet, text: str, type_: Type = BODY, width: float = READING, x: float = LEFT
) -> None:
    """A paragraph that may go on on the next sheet."""
    for line in sheet.lines(width, text, type_):
        sheet.need(type_.line)
        sheet.y += sheet.text(x, sheet.y, width, line or " ", type_)


def spending(sheet: Sheet, page: Page) -> None:
    """What each site spent, round by round."""
    sheet.new_page()
    sheet.section("Spending, round by round")
    sheet.y += sheet.text(LEFT, sheet.y, MEASURE, "Spending, round by round", HEADING) + 1.2
    flow(sheet, page.spending_text)
    sheet.y += 3
    shown = [
        plots.epsilon_plot(site, page.report.run, i, PRINT) for i, site in enumerate(page.plotted)
    ]
    _grid(sheet, shown, columns=3)


def _grid(sheet: Sheet, shown: Sequence[Plot], columns: int) -> None:
    width = (MEASURE - GAP * (columns - 1)) / columns
    for start in range(0, len(shown), columns):
        row = shown[start : start + columns]
        tallest = max(aspect(plot) for plot in row) * width + 6
        sheet.need(tallest)
        for i, plot in enumerate(row):
            sheet.plot(plot, LEFT + i * (width + GAP), sheet.y, width)
        sheet.y += tallest + 3


def quality(sheet: Sheet, page: Page) -> None:
    """The model's quality on public records, and what the run took."""
    report = page.report
    heading(sheet, "The model, and what it took", room=90)
    flow(sheet, page.quality_text)
    sheet.y += 3
    made = (
        plots.metric_plot(report.rounds, page.public_table, PRINT),
        plots.time_plot(report.rounds, PRINT),
        plots.bytes_plot(report.rounds, [site.name for site in report.sites], PRINT),
    )
    drawn = [plot for plot in made if plot is not None]
    beside = drawn.pop() if len(drawn) % 2 and page.totals else None
    _grid(sheet, drawn, columns=2)
    _totals(sheet, page, beside)
    if report.model:
        flow(sheet, f"Released model {report.model.file}, SHA-256 {report.model.sha256}.", SMALL)
    else:
        flow(sheet, "The coordinator's ledger records no released model.", SMALL)


def _totals(sheet: Sheet, page: Page, beside: Plot | None) -> None:
    """The table of time and traffic, to the right of a plot where one is left over."""
    if not page.totals:
        return
    width = (MEASURE - GAP) / 2
    below = aspect(beside) * width + 6 if beside else 0.0
    sheet.need(max(below, 56.0))
    top = sheet.y
    if beside:
        sheet.plot(beside, LEFT, top, width)
    columns = (Column("Stage", 0.46), Column("over the run", 0.25, "R"),
               Column("mean of a round", 0.29, "R"))  # fmt: skip
    table = Table(sheet, columns, x=LEFT + width + GAP if beside else LEFT, width=width)
    rows = [cells(*row) for row in page.totals]
    table.set(rows, title="Time on encrypted data, and traffic", breaks=False)
    sheet.y = max(sheet.y, top + below) + 4


def number(sheet: Sheet, page: Page) -> None:
    """The certified interval beside what other accountants say."""
    heading(sheet, "The number, and what others would say", room=75)
    flow(sheet, page.number_text)
    for i, group in enumerate(page.comparisons):
        plot = plots.accountant_plot(group.representative, i, view.ACCOUNTANTS, PRINT)
        sheet.y += 3
        rows = [_accountant(figure) for figure in group.figures]
        columns = (Column("Accountant", 0.52), Column("ε, rounded up", 0.25, "R"),
                   Column("against proven", 0.23, "R"))  # fmt: skip
        width = (MEASURE - GAP) / 2
        below = aspect(plot) * width + 6 if plot else 0.0
        sheet.need(max(below, 12.0 + 13.0 * len(rows)))
        top = sheet.y
        if plot:
            sheet.plot(plot, LEFT, top, width)
        x = LEFT + width + GAP if plot else LEFT
        table = Table(sheet, columns, x=x, width=width)
        table.set(rows, title=f"{group.sites}, at δ = {group.delta}", breaks=False)
        sheet.y = max(sheet.y, top + below) + 2


def _accountant(figure: view.Comparison) -> tuple[Cell, ...]:
    notes = [f"proven lower end {figure.lower}"] if figure.lower else []
    note = "; ".join([*notes, *([figure.note] if figure.note else [])])
    against = "proven" if figure.certified else figure.relative
    warned = SMALL.coloured("warn") if figure.below else SMALL
    return (
        Cell(figure.name, note=note, type=STRONG),
        epsilon_cell(figure.epsilon),
        Cell(f"▼ {against}" if figure.below else against, type=warned),
    )


def observers(sheet: Sheet, page: Page) -> None:
    """The observer matrix of each group of sites, and the assumptions."""
    heading(sheet, "Who could learn what", room=75)
    flow(sheet, page.observers_text)
    for i, matrix in enumerate(page.matrices):
        sheet.y += 6 if i else 3
        _matrix(sheet, matrix)
    if len(page.matrices) == view.MOST_GROUPS:
        flow(sheet, f"Shown are the first {view.MOST_GROUPS} groups of sites; the JSON report has "
             "the matrix of every site.", SMALL)  # fmt: skip
    sheet.y += 5
    sheet.need(30)
    sheet.y += sheet.text(LEFT, sheet.y, MEASURE, "Assumptions", LABEL) + 1
    flow(sheet, page.assumptions_text)
    sheet.y += 1.5
    for i, text in enumerate(page.report.assumptions, 1):
        sheet.need(sheet.height(READING, text, SMALL))
        sheet.text(LEFT, sheet.y, 6, f"{i}.", SMALL.coloured("muted"))
        sheet.y += sheet.text(LEFT + 6, sheet.y, READING, text, SMALL) + 0.8


def _matrix(sheet: Sheet, matrix: view.Matrix) -> None:
    some = " (some k left out here; the JSON report has them all)" if matrix.shortened else ""
    title = (
        f"{matrix.sites}: ε for one {matrix.unit} at δ = {matrix.delta}, by observer and number k "
        f"of colluding sites{some}"
    )
    first = 58.0
    each = min(22.0, (MEASURE - first) / max(len(matrix.columns), 1))
    columns = [
        Column("Observer", first),
        *(Column(f"k = {k}", each, "R", inset=6.0) for k in matrix.columns),
    ]
    rows = []
    for row in matrix.rows:
        found: list[Cell] = [Cell(row.observer, row.sees, row.notes, type=STRONG)]
        for cell in row.cells:
            if cell is None:
                found.append(Cell("–", type=SMALL.coloured("muted")))
                continue
            made = epsilon_cell(cell.epsilon, over=cell.over, heat=cell.heat)
            found.append(Cell(made.text, footnotes=cell.notes, type=made.type, fill=made.fill))
        rows.append(found)
    width = first + each * len(matrix.columns)
    sheet.need(18 + 13.0 * min(len(rows), 5))
    Table(sheet, columns, x=LEFT, width=width).set(rows, title=title)


def plan(sheet: Sheet, page: Page) -> None:
    """The plan, the scheme, who can open, the randomness, the recipe."""
    report = page.report
    heading(sheet, "The plan everybody agreed to", room=80)
    flow(sheet, f"Settings that the guarantees depend on. Plan digest {report.plan_digest}", SMALL,
         width=MEASURE)  # fmt: skip
    sheet.y += 2
    columns = (Column("Setting", 0.6), Column("Value", 0.4, "R"))
    Table(sheet, columns, x=LEFT, width=112, padding=0.8).set([cells(*row) for row in page.plan])
    unsafe = "" if report.scheme.protects else " (unsafe: does not encrypt)"
    bits = report.scheme.security_bits
    level = f"Security level {bits} bits. " if bits else ""
    parts = (
        (f"Encryption: {report.scheme.name}{unsafe}",
         f"{report.scheme.explanation}\n{level}Key {report.scheme.key_id}"),
        (f"Who can open the sum: {report.custody.value}", report.custody_plainly),
        ("Randomness", report.generator),
    )  # fmt: skip
    for title, text in parts:
        sheet.y += 4
        sheet.need(16)
        sheet.y += sheet.text(LEFT, sheet.y, MEASURE, title, LABEL) + 0.6
        flow(sheet, text, SMALL, width=MEASURE)


def searches(sheet: Sheet, page: Page) -> None:
    """Searches over hyperparameters and what they cost."""
    heading(sheet, "Searches over settings")
    flow(sheet, page.tuning_text)
    for search in page.searches:
        sheet.y += 3
        sheet.need(30)
        sheet.y += sheet.text(LEFT, sheet.y, MEASURE, search.name, LABEL) + 0.6
        flow(sheet, search.sentence, SMALL)
        sheet.y += 1.5
        if not search.costs:
            flow(sheet, "Nothing was charged to this run's data sets by the runs it names.", SMALL)
            continue
        heads = ("Charges", "ε of all its runs", "proven lower end")
        columns = (Column("Site", 0.4), *(Column(head, 0.2, "R") for head in heads))
        title = f"What the search cost each data set, at δ = {search.delta}"
        rows = [cells(site, charges, epsilon, lower or "–")
                for site, charges, epsilon, lower in search.costs]  # fmt: skip
        Table(sheet, columns, x=LEFT, width=120).set(rows, title=title)


def rounds(sheet: Sheet, page: Page) -> None:
    """Every attempt at a round."""
    heading(sheet, "Rounds")
    flow(sheet, "Every attempt at a round, as the coordinator recorded it. Metrics are of the "
         "public table.", SMALL)  # fmt: skip
    sheet.y += 1.5
    columns = [Column("Round", 1.1), Column("Outcome", 2.1), Column("Contributions", 1.5),
               Column("Missing or refused", 3.0), *(Column(m, 1.1, "R") for m in page.measures),
               Column("Sent up", 1.2, "R"), Column("Encryption", 1.2, "R")]  # fmt: skip
    rows = []
    for r in page.rounds:
        if r.gap:
            blank = [Cell("")] * (len(columns) - 2)
            rows.append([Cell("…"), Cell(r.number, type=NOTE), *blank])
            continue
        fill = None if r.opened else tint("warn", 0.1)
        texts = (r.number, r.outcome, r.cohort, r.missing, *r.metrics, r.sent, r.seconds)
        row = [Cell(text, type=SMALL, fill=fill) for text in texts]
        row[1] = Cell(r.outcome, note=r.reason, fill=fill)
        rows.append(row)
    Table(sheet, columns, x=LEFT, width=MEASURE, padding=0.65).set(rows)


def ledgers(sheet: Sheet, page: Page) -> None:
    """What each institution's ledger says, and the checkpoints."""
    heading(sheet, "Ledgers", room=60)
    flow(sheet, page.ledgers_text)
    sheet.y += 2
    columns = (Column("Site", 2.2), Column("Data set", 2.2), Column("Declared records", 1.4, "R"),
               Column("ε before", 1, "R"), Column("ε of this run", 1.2, "R"),
               Column("ε after", 1, "R"), Column("Budget", 1, "R"))  # fmt: skip
    rows = []
    for bar, site in zip(page.bars, page.report.sites, strict=True):
        before, run = epsilon_text(site.epsilon_before_run), epsilon_text(site.committed.epsilon)
        named = cells(site.name, site.dataset, f"{site.declared_records}", before, run)
        rows.append((*named, epsilon_cell(bar.spent, over=bar.over), Cell(bar.budget)))
    title = "Institutions as they stood in the plan, and what their ledgers say"
    Table(sheet, columns, x=LEFT, width=MEASURE).set(rows, title=title)
    for site in page.report.sites:
        _ledger(sheet, site.name, site.ledger)
    _ledger(sheet, "Coordinator", page.report.coordinator)


def _ledger(sheet: Sheet, title: str, facts: LedgerFacts) -> None:
    sheet.y += 3.5
    sheet.need(26)
    sheet.y += sheet.text(LEFT, sheet.y, MEASURE, title, LABEL) + 0.6
    entries = f"{facts.entries} entries, Merkle root and signing key:"
    flow(sheet, entries, SMALL, width=MEASURE)
    flow(sheet, f"{facts.root}\n{facts.public_key}", CODE, width=MEASURE)
    if facts.checkpoint:
        flow(sheet, "Signed checkpoint:", SMALL, width=MEASURE)
        flow(sheet, facts.checkpoint.rstrip("\n"), CODE, width=MEASURE)


def statements(sheet: Sheet, page: Page) -> None:
    """Named people's statements, identity keys, versions."""
    report = page.report
    heading(sheet, "Statements and identities")
    flow(sheet, page.statements_text)
    sheet.y += 2
    if report.attestations:
        columns = (Column("Who", 0.28), Column("About", 0.22), Column("Statement", 0.5))
        rows = [cells(a.who, a.about or "the run", a.what) for a in report.attestations]
        Table(sheet, columns, x=LEFT, width=MEASURE).set(rows)
        sheet.y += 4
    parties = (Column("Party", 0.26), Column("Key", 0.74))
    keys = [(Cell(name, type=STRONG), Cell(key, type=CODE))
            for name, key in sorted(report.parties.items())]  # fmt: skip
    title = "Ed25519 public keys the parties pinned for each other"
    Table(sheet, parties, x=LEFT, width=MEASURE).set(keys, title=title)


def recipe(sheet: Sheet, page: Page) -> None:
    """The training recipe and the scheme's parameters, as they stand in the plan; long ones cut."""
    heading(sheet, "Training recipe and scheme parameters")
    for title, value in (("Scheme parameters", page.report.scheme.parameters),
                         ("Training recipe", page.report.plan.get("recipe") or {})):  # fmt: skip
        sheet.need(14)
        sheet.y += sheet.text(LEFT, sheet.y, MEASURE, title, LABEL) + 0.6
        written = json.dumps(value, ensure_ascii=False, sort_keys=True)
        if len(written) > MOST_RECIPE:
            written = f"{written[:MOST_RECIPE]}… (cut here; the JSON report has all of it)"
        flow(sheet, written, CODE, width=MEASURE)
        sheet.y += 3
    versions = " · ".join(f"{n} {v}" for n, v in sorted(page.report.versions.items()))
    closing = (
        f"Format {page.report.format} · {versions}. Every ε is rounded up. This document was made "
        "from the JSON report of the same name, which carries the event behind each figure; it "
        "makes no statement about the law."
    )
    sheet.y += 2
    flow(sheet, closing, NOTE, width=MEASURE)


SECTIONS: tuple[Callable[[Sheet, Page], None], ...] = (
    spending, quality, number, observers, plan, searches, rounds, ledgers, statements, recipe,
)  # fmt: skip
"""In the order in which they are set."""
