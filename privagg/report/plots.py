"""The plots of a report: what each site spent, what it took, what other accountants say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from privagg.report.drawing import (
    COLOURS,
    Plot,
    canvas,
    few_ticks,
    finish,
    shortened,
    styled,
    thinned,
    whole_numbers,
)
from privagg.report.figures import byte_unit, delta_text, epsilon_text, relative_text
from privagg.report.language import say
from privagg.report.model import RoundReport, SiteReport
from privagg.training.measures import BASES, LABELS, SHARES, chief

MOST_POINTS = 240
MOST_BARS = 60
MOST_SITES = 24


def epsilon_plot(site: SiteReport, run: str, number: int) -> Plot:
    """What `site` had spent after each charge of this run, against its budget.

    Args:
        site: whose ledger is drawn.
        run: only charges of this run are drawn.
        number: makes the plot's name unique in the page.
    """
    points = [point for point in site.history if point.run == run]
    finite = [point for point in points if point.epsilon_after.is_finite()]
    name, title = f"spent-{number}", site.name
    with styled(name):
        figure, axes = canvas(2.6, 1.85)
        before = float(site.epsilon_before_run) if site.epsilon_before_run.is_finite() else 0.0
        levels = [before, *(float(point.epsilon_after) for point in finite)]
        kept = thinned(len(levels), MOST_POINTS)
        heights = [levels[i] for i in kept]
        axes.fill_between(kept, heights, before, step="post", color=COLOURS["series-1"], alpha=0.22)
        axes.step(kept, heights, where="post", color=COLOURS["series-1"], linewidth=1.6)
        last = max(len(points), 1)
        if before > 0:
            axes.fill_between([0, last], [before] * 2, color=COLOURS["muted"], alpha=0.18, lw=0)
            axes.text(last * 0.02, before / 2, say("earlier runs"), va="center", fontsize=7.5)
        _mark_aborted(axes, points)
        top = _budget_line(axes, site, levels, last)
        if len(finite) < len(points):
            axes.axvspan(
                len(finite), last, facecolor="none", hatch="////", edgecolor=COLOURS["rule"]
            )
            axes.text(
                last / 2, top / 2, "ε = ∞", ha="center", va="center", fontsize=13,
                color=COLOURS["warn"],
            )  # fmt: skip
        axes.set_xlim(0, last)
        axes.set_ylim(0, top)
        if finite or not points:
            axes.grid(axis="y")
            axes.yaxis.set_major_locator(few_ticks())
        else:  # there is no scale to infinity
            axes.set_yticks([])
        whole_numbers(axes.xaxis, 5)
        axes.set_xlabel(say("rounds charged"))
        return finish(figure, name, title, _epsilon_alt(site, len(points)))


def _mark_aborted(axes: Any, points: Sequence[Any]) -> None:
    aborted = [
        (i + 1, float(point.epsilon_after))
        for i, point in enumerate(points)
        if point.outcome == "aborted" and point.epsilon_after.is_finite()
    ]
    if aborted:
        axes.plot(
            *zip(*aborted, strict=True), "x", color=COLOURS["warn"], markersize=4.5,
            markeredgewidth=1.3, clip_on=False, zorder=5,
        )  # fmt: skip


def _budget_line(axes: Any, site: SiteReport, levels: Sequence[float], last: int) -> float:
    """Draw the budget, if there is a finite one; return the top of the axis."""
    highest = max(levels)
    if site.budget is None or not site.budget.epsilon.is_finite():
        return max(highest * 1.15, 1e-3)
    budget = float(site.budget.epsilon)
    axes.axhline(budget, color=COLOURS["ink"], linewidth=1.1, linestyle=(0, (4, 2)))
    axes.annotate(
        say("budget {budget}", budget=epsilon_text(site.budget.epsilon)), (last * 0.98, budget),
        xytext=(0, 1.5), textcoords="offset points", ha="right", va="bottom", fontsize=8,
    )  # fmt: skip
    return max(highest, budget) * 1.22


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

    with styled("metric"):
        figure, axes = canvas(4.4, 2.55)
        kept = [series[i] for i in thinned(len(series), MOST_POINTS)]
        marker = "o" if len(kept) <= 60 else ""
        axes.plot(
            *zip(*kept, strict=True), color=COLOURS["series-1"], linewidth=1.5, marker=marker,
            markersize=2.8,
        )  # fmt: skip
        end, value = series[-1]
        axes.plot([end], [value], "o", color=COLOURS["series-1"], markersize=5)
        values = [v for _, v in series]
        base = (opened[-1][1].metrics or {}).get(BASES.get(measure, ""))
        if base is not None:
            axes.axhline(base, color=COLOURS["muted"], linewidth=1, linestyle="--",
                         label=say(_GUESSES[measure]))  # fmt: skip
        shown = values if base is None else [*values, base]
        low, high = min(shown), max(shown)
        pad = max((high - low) * 0.2, 0.02 if share else 0.02 * abs(high))
        bottom, top = low - pad, min(high + pad, 1.0 + pad / 2 if share else math.inf)
        axes.set_ylim(bottom, top)
        axes.set_xlim(0.5, max(len(rounds), 1) + 0.5)
        if stopped:
            axes.plot(
                stopped, [bottom] * len(stopped), "x", color=COLOURS["warn"], clip_on=False,
                markersize=5.5, markeredgewidth=1.5, label=say("stopped: nothing was opened"),
            )  # fmt: skip
        if stopped or base is not None:
            axes.legend(loc="best")
        if share:
            axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}" if y <= 1.0001 else "")
        axes.grid(axis="y")
        whole_numbers(axes.xaxis, 8)
        axes.set_xlabel(say("attempt at a round"))
        alt = _metric_in_words(label, table, values, base, len(stopped), share=share)
        return finish(figure, "metric", say("{label} on the public table", label=label), alt)


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
    with styled("time"):
        figure, axes = canvas(4.4, 2.55, named=True, legend=True)
        floor = [0.0] * len(means)
        for stage, (label, colour) in enumerate(STAGES):
            heights = [mean[stage] / divisor for mean in means]
            axes.bar(
                centres, heights, bottom=floor, width=0.82 * size, color=COLOURS[colour],
                label=say(label), linewidth=0,
            )  # fmt: skip
            floor = [f + h for f, h in zip(floor, heights, strict=True)]
        axes.set_ylabel(unit if size == 1 else say("{unit} (mean of {n})", unit=unit, n=size))
        axes.set_xlabel(say("attempt at a round"))
        axes.set_xlim(0.3, len(parts) + 0.7)
        axes.grid(axis="y")
        whole_numbers(axes.xaxis, 8)
        figure.legend(loc="upper left", ncols=3, handlelength=0.9, columnspacing=1.2)
        totals = [sum(column) for column in zip(*parts, strict=True)]
        spoken = say(", ").join(
            f"{say(label)} {total:.3g} s" for (label, _), total in zip(STAGES, totals, strict=True)
        )
        alt = say("Over all rounds: {times}.", times=spoken)
        return finish(figure, "time", say("Time spent on uploads and sums"), alt)


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
    with styled("bytes"):
        names = [shortened(row[0]) for row in shown]
        figure, axes = canvas(4.4, max(2.55, 0.24 * len(shown) + 1.0), names, legend=True)
        for offset, index, colour, label in (
            (-0.2, 1, "series-1", say("sent")),
            (0.2, 2, "series-3", say("received")),
        ):
            amounts = [float(row[index]) / divisor for row in shown]
            places = [i + offset for i in range(len(shown))]
            axes.barh(places, amounts, height=0.36, color=COLOURS[colour], label=label)
        axes.set_yticks(range(len(shown)), names)
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.invert_yaxis()
        axes.set_xlabel(say("{unit} over the run", unit=say(unit)))
        axes.grid(axis="x")
        figure.legend(loc="upper left", ncols=2, handlelength=0.9, columnspacing=1.2)
        sentence = "{site} sent {sent} and received {received} {unit}"
        amounts_of = [
            say(sentence, site=s, sent=f"{up / divisor:.3g}", received=f"{down / divisor:.3g}",
                unit=say(unit))
            for s, up, down in shown
        ]  # fmt: skip
        alt = say("{amounts}.", amounts=say("; ").join(amounts_of))
        return finish(figure, "bytes", say("Bytes by site and direction"), alt)


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
    name = f"accountants-{number}"
    with styled(name):
        names = [shortened(label(a.name), 22) for a in figures]
        figure, axes = canvas(4.4, max(0.42 * len(figures) + 0.75, 1.6), names)
        values = [float(a.epsilon) for a in figures if a.epsilon is not None]
        spread = max(max(values) - min(values), upper * 1e-3)
        axes.axvspan(lower, upper, color=COLOURS["series-1"], alpha=0.25, lw=0)
        axes.axvline(upper, color=COLOURS["series-1"], linewidth=1.2)
        for i, (figure_of, value) in enumerate(zip(figures, values, strict=True)):
            below = value < lower
            colour = "series-1" if figure_of.certified else "warn" if below else "muted"
            axes.plot([value], [i], "D" if figure_of.certified else "v" if below else "o",
                      color=COLOURS[colour], markersize=6)  # fmt: skip
            axes.annotate(
                _difference(figure_of.epsilon, proven.epsilon, figure_of.certified),
                (value, i), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8,
                color=COLOURS["warn" if below else "ink"],
            )  # fmt: skip
        axes.set_yticks(range(len(figures)), names)
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.set_ylim(len(figures) - 0.5, -0.5)
        axes.set_xlim(min(values) - 0.12 * spread, max(values) + 0.75 * spread)
        axes.xaxis.set_major_locator(few_ticks())
        axes.set_xlabel(say("ε at δ = {delta}", delta=delta_text(proven.delta)))
        axes.grid(axis="x")
        spoken = say("; ").join(
            f"{a.name} {epsilon_text(a.epsilon, 6)}" for a in figures if a.epsilon is not None
        )
        alt = say("Epsilon by accountant: {figures}.", figures=spoken)
        return finish(figure, name, say("Proven interval and peers"), alt)


def _difference(value: Decimal | None, proven: Decimal, certified: bool) -> str:
    if value is None:
        return ""
    if certified:
        return say("{epsilon}  proven", epsilon=epsilon_text(value, 9))
    return f"{epsilon_text(value, 9)}  {relative_text(value, proven)}"
