"""The plots of answers: survival curves, bars of counts, and other figures with their intervals.

A figure is drawn by what it is called, whoever asked: `count`, `quantile ...`, `survival at ...`,
`... ratio`, `correlation`, `mean`, `points`, `effect`, `importance`, `share of positives`. Dark or
thick is the interval for these records, light or thin the one for the population.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from privagg.report.answered import category_name, figure_name, group_name, number_text
from privagg.report.drawing import COLOURS, Plot, canvas, finish, shortened, styled
from privagg.report.language import say
from privagg.report.model import Answered, AnsweredFigure, Answers, Ends
from privagg.report.rowplots import Row, Scale, rows_svg

MOST_ROWS = 40
"""Figures in one plot; the table below it has all."""

SERIES = ("series-1", "series-2", "series-3", "series-4")
SURVIVAL = "survival at "

BEYOND = 0.15
"""Part of a curve's last step that is drawn after it, so that its interval there is seen."""

BANDS = "Dark: for these records. Light: for the population."
BARS = "Thick: for these records. Thin: for the population."

LARGEST = 1e12
"""Of what is drawn: a report may come from anywhere, and axes have few digits."""


def answer_plots(answers: Answers | None) -> tuple[tuple[Plot, ...], ...]:
    """The plots of each answer, in their order; none where its figures are not drawn.

    Args:
        answers: of a report; None where nothing was answered.
    """
    if answers is None:
        return ()
    return tuple(_plots(each, number) for number, each in enumerate(answers.answers, 1))


def _plots(answer: Answered, number: int) -> tuple[Plot, ...]:
    kinds: dict[str, list[AnsweredFigure]] = {}
    for figure in answer.figures:
        if figure.value is not None and not _drawable(figure):
            continue
        ratio = "ratio" if figure.what.endswith(" ratio") else ""
        at = SURVIVAL if figure.what.startswith(SURVIVAL) else ""
        quantile = "quantile" if figure.what.startswith("quantile ") else ""
        kinds.setdefault(at or ratio or quantile or figure.what, []).append(figure)
    name, found = f"answer-{number}", list[Plot | None]()
    if SURVIVAL in kinds:
        found.append(_curves(kinds[SURVIVAL], name, str(answer.question.get("time", ""))))
    elif "ratio" in kinds:
        found.append(_intervals(kinds["ratio"], f"{name}-ratios", kinds["ratio"][0].what))
    elif "correlation" in kinds:
        found.append(_intervals(kinds["correlation"], f"{name}-correlations", "correlation"))
    elif "mean" in kinds and len(kinds["mean"]) > 1:
        found.append(_intervals(kinds["mean"], f"{name}-means", "mean"))
    elif "quantile" in kinds:
        found.append(_intervals(kinds["quantile"], f"{name}-quantiles", ""))
    elif "points" in kinds:
        found.append(_intervals(kinds["points"], f"{name}-points", "points"))
    elif "effect" in kinds:
        found.append(_intervals(kinds["effect"], f"{name}-effects", "effect"))
    elif "importance" in kinds:
        found.append(_intervals(kinds["importance"], f"{name}-importance", "importance"))
    elif len(kinds.get("share of positives", ())) > 1:
        found.append(_reliability(kinds["share of positives"], f"{name}-reliability"))
    elif len(kinds.get("count", ())) > 1:
        found.append(_intervals(kinds["count"], f"{name}-counts", "count"))
    return tuple(plot for plot in found if plot is not None)


def _drawable(figure: AnsweredFigure) -> bool:
    ends = [end for each in (figure.records, figure.population) if each for end in _ends(each)]
    return all(abs(value) <= LARGEST for value in (figure.value or 0.0, *ends))


def _ends(ends: Ends) -> tuple[float, float]:
    return float(ends.low), float(ends.high)


def _curves(figures: Sequence[AnsweredFigure], name: str, unit: str) -> Plot | None:
    """A step curve for each group with the band of its intervals, as far as it is told."""
    groups: dict[str, list[tuple[float, AnsweredFigure]]] = {}
    for figure in figures:
        try:
            time = float(figure.what.removeprefix(SURVIVAL))
        except ValueError:
            return None
        label = group_name(figure)
        if figure.value is not None and 0 < time <= LARGEST:
            groups.setdefault(label, []).append((time, figure))
    if not groups:
        return None
    with styled(name):
        drawn, axes = canvas(4.4, 2.75, legend=any(groups))
        ends_at = list[float]()
        for colour, (label, told) in zip(SERIES, groups.items(), strict=False):
            times = [0.0, *(time for time, _ in told)]
            times.append(times[-1] + BEYOND * (times[-1] - times[-2]))
            for which, alpha in (("population", 0.14), ("records", 0.3)):
                bands = [getattr(figure, which) for _, figure in told]
                ends = [(1.0, 1.0), *(_ends(each) if each else (0.0, 1.0) for each in bands)]
                lows, highs = zip(*ends, ends[-1], strict=True)
                axes.fill_between(
                    times, lows, highs, step="post", color=COLOURS[colour], alpha=alpha, lw=0
                )
            heights = [1.0, *(figure.value for _, figure in told)]
            axes.step(
                times, [*heights, heights[-1]], where="post", color=COLOURS[colour], linewidth=1.5,
                label=shortened(label, 28),
            )  # fmt: skip
            axes.plot(
                times[1:-1], heights[1:], "o", color=COLOURS[colour], markersize=2.6, clip_on=False
            )
            ends_at.append(times[-1])
        axes.set_ylim(0, 1.02)
        axes.set_xlim(0, max(ends_at))
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
        axes.grid(axis="y")
        axes.set_xlabel(shortened(unit))
        if any(groups):
            drawn.legend(loc="upper left", ncols=2, handlelength=1.2, columnspacing=1.2)
        spoken = [figure for told in groups.values() for _, figure in told]
        return finish(drawn, name, say(BANDS), _alt(spoken))


def _intervals(figures: Sequence[AnsweredFigure], name: str, what: str) -> Plot | None:
    """A row for each figure: bars for counts, else points; its two intervals over it.

    A figure without an interval has no row: as a mere point it would look certain.
    """
    shown = [each for each in figures if each.records or each.population]
    told = [each for each in shown if each.value is not None][:MOST_ROWS]
    if not told:
        return None
    ratio, counted = what.endswith("ratio"), what in ("count", "importance")
    if ratio and any(each.value is None or each.value <= 0 for each in told):
        return None
    names, beside = _names(told)
    mark = 1.0 if ratio else 0.0 if told[0].what in ("points", "effect") else None
    rows = [Row(*each) for each in zip(
        names, [float(each.value or 0.0) for each in told],
        (tuple(_lines(each, ratio=ratio)) for each in told), strict=True,
    )]  # fmt: skip
    svg = rows_svg(
        rows, Scale(ratio=ratio, bars=counted, mark=mark),
        below=say(what) if what else "", beside=beside,
    )  # fmt: skip
    return Plot(name, say(BARS), _alt(told), svg)


def _lines(figure: AnsweredFigure, *, ratio: bool) -> Iterator[tuple[float, float, float, str]]:
    """A figure's intervals, the wide one first; of a ratio no end lies at 0."""
    for ends, width, colour in (
        (figure.population, 1.3, "muted"), (figure.records, 3.2, "series-1"),
    ):  # fmt: skip
        if ends is not None:
            low, high = _ends(ends)
            yield max(low, float(figure.value or 0.0) * 1e-3) if ratio else low, high, width, colour


def _names(told: Sequence[AnsweredFigure]) -> tuple[list[str], str]:
    """What each row is called, and what all of them together."""
    columns, beside = tuple(told[0].group), ""
    if len(columns) > 1 and all(tuple(figure.group) == columns for figure in told):
        names = [say(", ").join(map(category_name, each.group.values())) for each in told]
        beside = shortened(say(", ").join(columns), 40)
    else:
        names = [group_name(figure) or figure_name(figure) for figure in told]
    return [shortened(name, 36) for name in names], beside


def _reliability(figures: Sequence[AnsweredFigure], name: str) -> Plot | None:
    """Shares of positives over the scores that were given, beside the line where both agree."""
    places = list[tuple[float, AnsweredFigure]]()
    for figure in figures:
        low, _, high = figure.group.get("score", "").partition(" to ")
        try:
            middle = (float(low) + float(high)) / 2
        except ValueError:
            return None
        if figure.value is not None and 0 <= middle <= 1:
            places.append((middle, figure))
    if len(places) < 2:
        return None
    with styled(name):
        drawn, axes = canvas(4.4, 2.75, named=True)
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=0.8)
        for middle, figure in places:
            for ends, width, colour in (
                (figure.population, 1.3, "muted"), (figure.records, 3.2, "series-1"),
            ):  # fmt: skip
                if ends is not None:
                    axes.plot([middle] * 2, _ends(ends), color=COLOURS[colour], linewidth=width,
                              solid_capstyle="butt")  # fmt: skip
            axes.plot([middle], [figure.value], "o", color=COLOURS["ink"], markersize=3.6)
        axes.set_xlim(0, min(1.0, places[-1][0] + 0.1))
        axes.set_ylim(0, 1.02)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.grid(axis="y")
        axes.set_xlabel(say("score"))
        axes.set_ylabel(say("share of positives"))
        return finish(drawn, name, say(BARS), _alt([figure for _, figure in places]))


def _alt(figures: Sequence[AnsweredFigure]) -> str:
    spoken = [
        say("{figure} {value}", figure=figure_name(figure), value=number_text(figure.value))
        for figure in figures[:MOST_ROWS]
    ]
    return say("{amounts}.", amounts=say("; ").join(spoken))
