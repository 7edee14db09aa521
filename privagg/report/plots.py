"""The plots of a report: what each site spent, what it took, what other accountants say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal

from privagg.report.axes import (
    EDGE,
    GAP,
    LINE,
    Axes,
    Key,
    Names,
    Scale,
    between,
    stepped,
    text_length,
)
from privagg.report.drawing import Plot, shortened, thinned
from privagg.report.figures import byte_unit, delta_text, epsilon_text, relative_text
from privagg.report.language import say
from privagg.report.model import RoundReport, SiteReport
from privagg.training.measures import BASES, LABELS, SHARES, chief

MOST_POINTS = 240
MOST_DOTS = 60
MOST_BARS = 60
MOST_SITES = 24

WIDTH, HEIGHT = 316.8, 183.6
"""Of a plot, in points; a site's is one of three beside each other."""

ROW = 17.3
"""Of a row of a plot, in points, at least."""


def epsilon_plot(site: SiteReport, run: str, number: int) -> Plot:
    """What `site` had spent after each charge of this run, against its budget.

    Args:
        site: whose ledger is drawn.
        run: only charges of this run are drawn.
        number: makes the plot's name unique in the page.
    """
    points = [point for point in site.history if point.run == run]
    finite = [point for point in points if point.epsilon_after.is_finite()]
    before = float(site.epsilon_before_run) if site.epsilon_before_run.is_finite() else 0.0
    levels = [before, *(float(point.epsilon_after) for point in finite)]
    spent = [(float(i), levels[i]) for i in thinned(len(levels), MOST_POINTS)]
    last = max(len(points), 1)
    bounded = site.budget is not None and site.budget.epsilon.is_finite()
    budget = site.budget.epsilon if bounded and site.budget else None
    top = max(1.22 * max(*levels, float(budget or 0)), 1e-3)
    scale = Scale(0, top, most=6 if finite or not points else 0)  # there is none to infinity
    axes = Axes(187.2, 133.2, Scale(0, last, whole=True), scale, below=say("rounds charged"))
    axes.area(between([(x, before) for x, _ in spent], spent), "series-1", 0.22)
    axes.line(stepped(spent), "series-1", 1.6)
    if before > 0:
        axes.box((0, last), (0, before), "muted", 0.18)
        axes.text((0, before / 2), say("earlier runs"), by=(4, 3))
    for place, point in enumerate(points, 1):
        if point.outcome == "aborted" and point.epsilon_after.is_finite():
            axes.mark((place, float(point.epsilon_after)), "warn", 2.2, "cross")
    if budget is not None:
        axes.line([(0, float(budget)), (last, float(budget))], "ink", 1.1, dashed=True)
        text = say("budget {budget}", budget=epsilon_text(budget))
        axes.text((last, float(budget)), text, "end", by=(-3, -3))
    if len(finite) < len(points):
        axes.box((len(finite), last), (0, top), "warn", 0.1)
        axes.text((last / 2, top / 2), "ε = ∞", "middle", "warn")
    return Plot(f"spent-{number}", site.name, _epsilon_alt(site, len(points)), axes.svg())


def _epsilon_alt(site: SiteReport, charges: int) -> str:
    budget = say("no budget")
    if site.budget:
        budget = say("a budget of {epsilon}", epsilon=epsilon_text(site.budget.epsilon))
    return say(
        "{site}: epsilon rose from {before} to {after} over {n} charges, against {budget}.",
        site=site.name,
        before=epsilon_text(site.epsilon_before_run),
        after=epsilon_text(site.epsilon_after_run),
        n=charges,
        budget=budget,
    )


_GUESSES = {
    "accuracy": "base rate: always its largest class",
    "rmse": "base RMSE: always the mean",
    "c_index": "base C-index: any order without a model",
}


def metric_plot(rounds: Sequence[RoundReport], table: str) -> Plot | None:
    """The main metric on the public table after each opened round; stopped rounds are crosses."""
    opened = [(i + 1, r) for i, r in enumerate(rounds) if r.outcome == "opened" and r.metrics]
    measure = chief({name: value for _, r in opened for name, value in (r.metrics or {}).items()})
    if measure is None:
        return None
    series = [(i, r.metrics[measure]) for i, r in opened if r.metrics and measure in r.metrics]
    stopped = [i + 1 for i, r in enumerate(rounds) if r.outcome == "stopped"]
    label = say("Accuracy") if measure == "accuracy" else LABELS[measure]
    share = measure in SHARES

    values = [value for _, value in series]
    base = (opened[-1][1].metrics or {}).get(BASES.get(measure, ""))
    low, high = _reach(values if base is None else [*values, base], share=share)
    keys = [Key(say(_GUESSES[measure]), "muted", "dashes")] if base is not None else []
    if stopped:
        keys.append(Key(say("stopped: nothing was opened"), "warn", "cross"))
    x = Scale(0.5, max(len(rounds), 1) + 0.5, most=8, whole=True)
    axes = Axes(
        WIDTH, HEIGHT, x, Scale(low, high, most=8, share=share),
        below=say("attempt at a round"), keys=keys,
    )  # fmt: skip
    if base is not None:
        axes.line(((x.low, base), (x.high, base)), "muted", 1.0, dashed=True)
    kept = [series[i] for i in thinned(len(series), MOST_POINTS)]
    axes.line(kept, "series-1", 1.5)
    for point in kept if len(kept) <= MOST_DOTS else ():
        axes.mark(point, "series-1")
    axes.mark(series[-1], "series-1", 2.5)
    for place in stopped:
        axes.mark((place, low), "warn", 2.7, "cross")
    alt = _metric_in_words(label, table, values, base, len(stopped), share=share)
    return Plot("metric", say("{label} on the public table", label=label), alt, axes.svg())


def _reach(values: Sequence[float], *, share: bool) -> tuple[float, float]:
    """The ends of a scale for these values; of a share none is beyond the whole."""
    low, high = min(values), max(values)
    pad = max((high - low) * 0.2, 0.02 if share else 0.02 * abs(high)) or 1.0
    return low - pad, min(high + pad, 1.0) if share and high <= 1 else high + pad


def _metric_in_words(
    label: str,
    table: str,
    values: Sequence[float],
    base: float | None,
    stopped: int,
    *,
    share: bool,
) -> str:
    def text(value: float) -> str:
        return f"{value:.1%}" if share else f"{value:.4g}"

    return say(
        "{label} on {table} went from {first} to {last} over {n} opened rounds; {n2} were stopped."
        if base is None
        else "{label} on {table} went from {first} to {last}, beside a base rate of {base} "
        "over {n} opened rounds; {n2} were stopped."
        if share
        else "{label} on {table} went from {first} to {last}, beside {base} for always naming "
        "the mean, over {n} opened rounds; {n2} were stopped.",
        label=label,
        table=table,
        first=text(values[0]),
        last=text(values[-1]),
        base="" if base is None else text(base),
        n=len(values),
        n2=stopped,
    )


STAGES = (("encrypt", "series-1"), ("add", "series-2"), ("open", "series-4"))


def time_plot(rounds: Sequence[RoundReport]) -> Plot | None:
    """Time that each round spent on uploads and sums, by stage; long runs are binned by mean."""
    parts = [(s.encrypt, s.add, s.open) for s in (r.seconds for r in rounds)]
    longest = max((sum(stages) for stages in parts), default=0.0)
    if not longest:
        return None
    divisor, unit = (1.0, say("seconds")) if longest >= 1 else (1e-3, say("milliseconds"))
    size = math.ceil(len(parts) / MOST_BARS)
    bins = [parts[i : i + size] for i in range(0, len(parts), size)]
    means = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in bins]
    centres = [1 + size * i + (size - 1) / 2 for i in range(len(bins))]
    highest = max(map(sum, means)) / divisor
    axes = Axes(
        WIDTH, HEIGHT, Scale(0.3, len(parts) + 0.7, most=8, whole=True), Scale(0, 1.04 * highest),
        below=say("attempt at a round"),
        beside=unit if size == 1 else say("{unit} (mean of {n})", unit=unit, n=size),
        keys=[Key(say(label), colour) for label, colour in STAGES],
    )  # fmt: skip
    for centre, mean in zip(centres, means, strict=True):
        floor, reach = 0.0, (centre - 0.41 * size, centre + 0.41 * size)
        for (_, colour), height in zip(STAGES, mean, strict=True):
            axes.box(reach, (floor, floor := floor + height / divisor), colour)
    totals = [sum(column) for column in zip(*parts, strict=True)]
    spoken = say(", ").join(
        f"{say(label)} {total:.3g} s" for (label, _), total in zip(STAGES, totals, strict=True)
    )
    alt = say("Over all rounds: {times}.", times=spoken)
    return Plot("time", say("Time spent on uploads and sums"), alt, axes.svg())


def bytes_plot(rounds: Sequence[RoundReport], sites: Sequence[str]) -> Plot | None:
    """Bytes each site sent and received over the run."""
    totals = [
        (s, sum(r.bytes_up.get(s, 0) for r in rounds), sum(r.bytes_down.get(s, 0) for r in rounds))
        for s in sites
    ]
    if not any(up or down for _, up, down in totals):
        return None
    shown = sorted(totals, key=lambda row: -row[1])[:MOST_SITES]
    divisor, unit = byte_unit(max(max(up, down) for _, up, down in totals))
    amounts = [(up / divisor, down / divisor) for _, up, down in shown]
    directions = (say("sent"), "series-1"), (say("received"), "series-3")
    axes = Axes(
        WIDTH, max(HEIGHT, ROW * len(shown) + 4 * LINE),
        Scale(0, 1.04 * max(map(max, amounts))), Names([shortened(site) for site, _, _ in shown]),
        below=say("{unit} over the run", unit=say(unit)),
        keys=[Key(text, colour) for text, colour in directions],
    )  # fmt: skip
    for place, pair in enumerate(amounts):
        for (_, colour), above, amount in zip(directions, (-0.38, 0.02), pair, strict=True):
            axes.box((0, amount), (place + above, place + above + 0.36), colour)
    sentence = "{site} sent {sent} and received {received} {unit}"
    spoken = [
        say(sentence, site=site, sent=f"{up:.3g}", received=f"{down:.3g}", unit=say(unit))
        for (site, _, _), (up, down) in zip(shown, amounts, strict=True)
    ]
    alt = say("{amounts}.", amounts=say("; ").join(spoken))
    return Plot("bytes", say("Bytes by site and direction"), alt, axes.svg())


def accountant_plot(site: SiteReport, number: int, label: Callable[[str], str]) -> Plot | None:
    """The certified interval of the committed epsilon beside what other accountants say.

    Args:
        site: whose figures are drawn.
        number: makes the plot's name unique in the page.
        label: an accountant's name for a person.

    Returns:
        None where no figure is proven and finite.
    """
    figures = [a for a in site.accountants if a.epsilon is not None and a.epsilon.is_finite()]
    proven = next((a for a in figures if a.certified), None)
    if proven is None or proven.epsilon is None:
        return None
    upper = float(proven.epsilon)
    lower = float(proven.epsilon_lower if proven.epsilon_lower is not None else proven.epsilon)
    values = [float(a.epsilon) for a in figures if a.epsilon is not None]
    names = [shortened(label(a.name), 22) for a in figures]
    beside = [_difference(a.epsilon, proven.epsilon, a.certified) for a in figures]
    room = WIDTH - EDGE - GAP - max(map(text_length, names))
    needed = (max(map(text_length, beside)) + GAP) / room  # of the scale, right of any figure
    spread = max(max(values) - min(values), upper * 1e-3) or 1.0
    low = min(values) - 0.12 * spread
    axes = Axes(
        WIDTH, 1.75 * ROW * len(figures) + 3 * LINE,
        Scale(low, (max(values) - needed * low) / (1 - needed)), Names(names),
        below=say("ε at δ = {delta}", delta=delta_text(proven.delta)),
    )  # fmt: skip
    rows = (-0.5, len(figures) - 0.5)
    axes.box((lower, upper), rows, "series-1", 0.25)
    axes.line([(upper, row) for row in rows], "series-1", 1.2)
    for place, (told, value, text) in enumerate(zip(figures, values, beside, strict=True)):
        below = value < lower
        colour, kind = (
            ("series-1", "diamond") if told.certified else
            ("warn", "triangle") if below else ("muted", "dot")
        )  # fmt: skip
        axes.mark((value, place), colour, 3.2, kind)
        axes.text((value, place), text, colour="warn" if below else "ink", by=(GAP, 3))
    spoken = say("; ").join(
        f"{a.name} {epsilon_text(a.epsilon, 6)}" for a in figures if a.epsilon is not None
    )
    alt = say("Epsilon by accountant: {figures}.", figures=spoken)
    return Plot(f"accountants-{number}", say("Proven interval and peers"), alt, axes.svg())


def _difference(value: Decimal | None, proven: Decimal, certified: bool) -> str:
    if value is None:
        return ""
    if certified:
        return say("{epsilon}  proven", epsilon=epsilon_text(value, 9))
    return f"{epsilon_text(value, 9)}  {relative_text(value, proven)}"
