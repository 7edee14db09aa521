"""A report arranged for a page: the same facts, grouped and written for a person."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from privagg.privacy.plan import AgreedPlan, SumsPlan, TrainingPlan
from privagg.report.answered import asked_names
from privagg.report.figures import (
    count_text,
    delta_text,
    epsilon_text,
    joined,
    lower_text,
    relative_text,
)
from privagg.report.language import say, told
from privagg.report.model import AccountantFigure, ObserverRow, Report, SiteReport
from privagg.report.plan_text import (
    compression_text,
    mode_text,
    openings_text,
    readable_plan,
)
from privagg.report.sentences import share_of_budget, worst_row
from privagg.report.words import factor_text

USERS, READERS = "Users of the model", "Readers of the answers"
OBSERVERS = {
    "model-users": USERS,
    "sites": USERS,
    "aggregator": "Aggregator",
    "key-holder": "Key holder",
    "aggregator+key-holder": "Aggregator with key holder",
    "personal": "Whoever is served a site's own model",
}
"""Row of the matrix by observer; `sites` is `model-users` with k colluding sites."""

ACCOUNTANTS = {
    "certified": "Certified, proven",
    "rdp": "RDP of dp-accounting",
    "pld": "PLD of dp-accounting",
}

MOST_COLUMNS = 13
MOST_SITE_PLOTS = 24
MOST_GROUPS = 12

PLAN_LABELS = {
    "mode": "Way of being private",
    "rounds": "Rounds planned",
    "dimension": "Model parameters",
    "sampling_rate": "Sampling rate q",
    "local_steps": "Local steps a round",
    "clip_norm_l2": "Clip norm (L2)",
    "noise_multiplier": "Noise multiplier",
    "delta": "δ of the job",
    "dropouts": "Sites that may fail in a round",
    "colluders": "Colluding sites the charge allows for",
    "cohort_size": "Clients asked in a round (0: all)",
    "protects_unit": "Unit protected",
    "sensitivity_grid": "Sensitivity in grid units",
    "clip_norm_grid": "Clip norm in grid units",
    "update_bound": "Clamp of an update",
    "update_levels": "Grid levels of an update",
    "scheme": "Aggregation scheme",
    "custody": "Who can open the sum",
    "strict": "Key holder adds again before opening",
}


@dataclass(frozen=True)
class BudgetBar:
    """One site's spending as a bar. Shares are per cent of the bar's full width.

    Attributes:
        site: its name.
        dataset: its data set; empty where that has the site's name.
        records: the declared number of records, in words.
        spent: epsilon after this run.
        budget: the budget's epsilon, or that there is none.
        delta: at which both hold.
        run: epsilon of what was charged in this run alone.
        before_share: what was spent before the run.
        run_share: what the run added.
        infinite: no guarantee is left.
        over: more is spent than the budget allows.
        bounded: there is a finite budget.
    """

    site: str
    dataset: str
    records: str
    spent: str
    budget: str
    delta: str
    run: str
    before_share: float
    run_share: float
    infinite: bool
    over: bool
    bounded: bool


@dataclass(frozen=True)
class Cell:
    """An epsilon in the matrix, written.

    Attributes:
        epsilon: rounded up to three digits.
        exact: every digit, for the pointer.
        heat: 0 at the matrix's smallest epsilon, 1 at its largest and at infinity, by logarithm.
        over: it lies above the site's budget, and is finite.
        infinite: nothing is guaranteed.
        notes: numbers of the assumptions that only this cell needs.
    """

    epsilon: str
    exact: str
    heat: float
    over: bool
    infinite: bool
    notes: tuple[int, ...]


@dataclass(frozen=True)
class MatrixRow:
    """One observer against every number of colluding sites.

    Attributes:
        observer: in words.
        sees: what reaches the observer, alone and with colluding sites.
        notes: numbers of the assumptions that every cell needs.
        cells: one for each column; None where there is no such case.
    """

    observer: str
    sees: str
    notes: tuple[int, ...]
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Matrix:
    """The observer matrix that a group of sites shares.

    Attributes:
        sites: their names, in words.
        delta: at which every figure holds.
        unit: what is protected.
        columns: numbers of colluding sites, ascending.
        rows: the observers.
        shortened: columns were left out.
    """

    sites: str
    delta: str
    unit: str
    columns: tuple[int, ...]
    rows: tuple[MatrixRow, ...]
    shortened: bool


@dataclass(frozen=True)
class Comparison:
    """One accountant's figure in a table.

    Attributes:
        name: the accountant's, in words.
        epsilon: nine digits, rounded up, or that there is no figure.
        lower: the proven lower end; empty where there is none.
        relative: how far the figure lies from the proven one, in per cent.
        certified: the figure is proven.
        below: the figure lies below the proven lower end.
        note: the method, or why there is no figure.
    """

    name: str
    epsilon: str
    lower: str
    relative: str
    certified: bool
    below: bool
    note: str


@dataclass(frozen=True)
class ComparisonGroup:
    """Accountants' figures for the sites whose committed event is the same.

    Attributes:
        sites: their names, in words.
        delta: at which every figure holds.
        representative: the first of the sites, whose figures are drawn.
        figures: one for each accountant.
    """

    sites: str
    delta: str
    representative: SiteReport
    figures: tuple[Comparison, ...]


def budget_bars(report: Report) -> tuple[BudgetBar, ...]:
    """Spending against budget for each site, in roster order."""
    return tuple(_budget_bar(site) for site in report.sites)


def _budget_bar(site: SiteReport) -> BudgetBar:
    after, before = site.epsilon_after_run, site.epsilon_before_run
    limit = site.budget.epsilon if site.budget else None
    infinite = after.is_infinite()
    bounded = limit is not None and limit.is_finite() and limit > 0
    over = bounded and limit is not None and after > limit
    full = max(limit, after) if bounded and limit is not None and not infinite else after
    usable = not infinite and full > 0
    return BudgetBar(
        site=site.name,
        dataset="" if site.dataset == site.name else site.dataset,
        records=count_text(site.declared_records, "declared record"),
        spent=epsilon_text(after),
        budget=_limit_text(limit),
        delta=delta_text(site.budget.delta) if site.budget else delta_text(site.committed.delta),
        run=epsilon_text(site.committed.epsilon),
        before_share=float(before / full * 100) if usable else 0.0,
        run_share=float((after - before) / full * 100) if usable else 100.0,
        infinite=infinite,
        over=over,
        bounded=bounded,
    )


def _limit_text(limit: Decimal | None) -> str:
    if limit is None:
        return say("none set")
    return say("no limit") if limit.is_infinite() else epsilon_text(limit)


def closest_to_budget(report: Report) -> tuple[SiteReport, ...]:
    """The sites that get a plot of their own: all, or those closest to their budget; roster order.

    Where there are too many, the others stand in the tables and in the JSON report.
    """
    ranked = sorted(report.sites, key=share_of_budget, reverse=True)
    shown = {site.name for site in ranked[:MOST_SITE_PLOTS]}
    return tuple(site for site in report.sites if site.name in shown)


def headline_rows(report: Report) -> tuple[tuple[str, str, str, str], ...]:
    """(who, epsilon, factor on odds, remark): the weakest figure of any site against each."""
    wanted = (
        ("model-users", 0, READERS if asked_names(report) else USERS, "see every opened sum"),
        ("sites", 1, "One other site", "subtracts its own share of the noise"),
        ("aggregator", 0, "The aggregator", ""),
        ("aggregator", 1, "Aggregator with one site", ""),
        ("key-holder", 0, "The key holder", ""),
        ("aggregator+key-holder", 0, "Aggregator with key holder", ""),
    )
    found = []
    for observer, colluding, who, remark in wanted:
        row = worst_row(report, observer, colluding)
        if row is not None:
            sees = remark or re.sub(r"\b1 colluders\b", "1 colluder", row.sees)
            figures = epsilon_text(row.epsilon), factor_text(row.epsilon)
            found.append((say(who), *figures, told(sees)))
    return tuple(found)


def matrices(report: Report) -> tuple[Matrix, ...]:
    """One matrix for each group of sites whose rows are alike, for the first groups."""
    numbers = {text: i + 1 for i, text in enumerate(report.assumptions)}
    groups: dict[object, list[SiteReport]] = {}
    for site in report.sites:
        limit = site.budget.epsilon if site.budget else None
        groups.setdefault((site.guarantees, limit), []).append(site)
    users = READERS if asked_names(report) else USERS
    return tuple(_matrix(sites, numbers, users) for sites in list(groups.values())[:MOST_GROUPS])


def _matrix(sites: Sequence[SiteReport], numbers: dict[str, int], users: str) -> Matrix:
    site = sites[0]
    limit = site.budget.epsilon if site.budget else Decimal("Infinity")
    by_row: dict[str, dict[int, int]] = {}
    for index, row in enumerate(site.guarantees):
        label = OBSERVERS.get(row.observer, row.observer)
        by_row.setdefault(label, {}).setdefault(row.colluding_sites, index)
    every = sorted({k for cells in by_row.values() for k in cells})
    columns = _spread(every, MOST_COLUMNS)
    coldest, hottest = _scale(site)
    rows = []
    for label, indices in by_row.items():
        members = [site.guarantees[i] for i in indices.values()]
        common = [a for a in members[0].assumptions if all(a in m.assumptions for m in members)]
        cells: list[Cell | None] = []
        for k in columns:
            if k not in indices:
                cells.append(None)
                continue
            row = site.guarantees[indices[k]]
            special = [a for a in row.assumptions if a not in common and a in numbers]
            cells.append(
                Cell(
                    epsilon=epsilon_text(row.epsilon),
                    exact=format(row.epsilon, "f"),
                    heat=_heat(row.epsilon, coldest, hottest),
                    over=row.epsilon > limit and row.epsilon.is_finite(),
                    infinite=row.epsilon.is_infinite(),
                    notes=tuple(sorted(numbers[a] for a in special)),
                )
            )
        sees = _sees(members)
        notes = tuple(sorted(numbers[a] for a in common if a in numbers))
        name = told(users if label == USERS else label)
        rows.append(MatrixRow(observer=name, sees=sees, notes=notes, cells=tuple(cells)))
    return Matrix(
        sites=joined([s.name for s in sites], most=12),
        delta=delta_text(site.committed.delta),
        unit=say(site.unit.value),
        columns=tuple(columns),
        rows=tuple(rows),
        shortened=len(columns) < len(every),
    )


def _scale(site: SiteReport) -> tuple[Decimal, Decimal]:
    found = [row.epsilon for row in site.guarantees if row.epsilon.is_finite() and row.epsilon > 0]
    return min(found, default=Decimal(1)), max(found, default=Decimal(1))


def _heat(epsilon: Decimal, coldest: Decimal, hottest: Decimal) -> float:
    if epsilon.is_infinite():
        return 1.0
    if epsilon <= coldest or hottest == coldest:
        return 0.0
    # The rows of one matrix may span several powers of ten.
    return round(math.log(epsilon / coldest) / math.log(hottest / coldest), 3)


def _sees(rows: Sequence[ObserverRow]) -> str:
    """What a row's observer sees: alone, and (where that is another thing) with k sites."""
    alone, together = rows[0].sees, re.sub(r"\b\d+\b", "k", rows[-1].sees)
    if alone in (rows[-1].sees, together):
        return told(alone)
    return say("{alone}; with k sites: {together}", alone=told(alone), together=told(together))


def _spread(values: Sequence[int], most: int) -> list[int]:
    if len(values) <= most:
        return list(values)
    step = (len(values) - 1) / (most - 1)
    return sorted({values[round(i * step)] for i in range(most)})


def comparisons(report: Report) -> tuple[ComparisonGroup, ...]:
    """Accountants side by side, once for each distinct committed event, for the first of them."""
    groups: dict[object, list[SiteReport]] = {}
    for site in report.sites:
        groups.setdefault((site.committed.event, site.accountants), []).append(site)
    return tuple(_comparison(sites) for sites in list(groups.values())[:MOST_GROUPS])


def _comparison(sites: Sequence[SiteReport]) -> ComparisonGroup:
    figures = sites[0].accountants
    proven = next((f for f in figures if f.certified and f.epsilon is not None), None)
    return ComparisonGroup(
        sites=joined([s.name for s in sites], most=12),
        delta=delta_text(figures[0].delta) if figures else "",
        representative=sites[0],
        figures=tuple(_compared(figure, proven) for figure in figures),
    )


def _compared(figure: AccountantFigure, proven: AccountantFigure | None) -> Comparison:
    value, relative, below = figure.epsilon, "", False
    if proven is not None and proven.epsilon is not None and value is not None:
        relative = "" if figure.certified else relative_text(value, proven.epsilon)
        below = proven.epsilon_lower is not None and value < proven.epsilon_lower
    return Comparison(
        name=accountant_name(figure.name),
        epsilon=epsilon_text(value, 9) if value is not None else say("no figure"),
        lower=lower_text(figure.epsilon_lower, 9) if figure.epsilon_lower else "",
        relative=relative,
        certified=figure.certified,
        below=below,
        note=told(figure.note),
    )


def accountant_name(name: str) -> str:
    """An accountant's name for a person."""
    return say(ACCOUNTANTS[name]) if name in ACCOUNTANTS else name


def plan_rows(report: Report) -> tuple[tuple[str, str], ...]:
    """(label, value) for the plan's scalar settings: `PLAN_LABELS`, then what its mode adds."""
    plan = readable_plan(report)
    known = {*PLAN_LABELS, *TrainingPlan.model_fields}
    fields: Iterable[str] = type(plan).model_fields if isinstance(plan, AgreedPlan) else ()
    own = {name: name.replace("_", " ").capitalize() for name in fields if name not in known}
    own.pop("openings", None)
    shown = {**report.plan, "mode": mode_text(plan, report.plan.get("mode"))}
    rows = tuple(
        (say(label), _plain_value(shown[key]))
        for key, label in (PLAN_LABELS | own).items()
        if key in report.plan
    )
    if isinstance(plan, SumsPlan):
        opened = openings_text(plan)
        rows += tuple((say("Opened in round {n}", n=n), text) for n, text in opened)
    compressed = compression_text(plan) if plan is not None else ""
    return (*rows, (say("Uploads"), compressed)) if compressed else rows


def _plain_value(value: object) -> str:
    if isinstance(value, bool):
        return say("yes") if value else say("no")
    return str(value)
