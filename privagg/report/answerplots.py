"""The plots of answers: survival curves, bars of counts, and other figures with their intervals.

A figure is drawn by what it is called, whoever asked: `count`, `quantile ...`, `survival at ...`,
`... ratio`, `correlation`, `mean`, `points`, `effect`, `importance`, `share of positives`. Dark or
thick is the interval for these records, light or thin the one for the population.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from privagg.report.answered import category_name, figure_name, group_name, number_text
from privagg.report.axes import LINE, Axes, Key, Names, Scale, between, stepped
from privagg.report.drawing import Plot, shortened
from privagg.report.language import say
from privagg.report.model import Answered, AnsweredFigure, Answers, Ends

MOST_ROWS = 40
"""Figures in one plot; the table below it has all."""

WIDTH, HEIGHT, ROW = 316.8, 198.0, 19.4
"""Of a plot and of a row in one, in points."""

PAD = 0.05
"""Of a scale, beyond the outermost end of an interval."""

SERIES = ("series-1", "series-2", "series-3", "series-4")
SURVIVAL = "survival at "

BEYOND = 0.15
"""Part of a curve's last step that is drawn after it, so that its interval there is seen."""

SHARES = Scale(0, 1.02, share=True)
"""Of a share, drawn with room for a line at the whole."""

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
    ends = {label: _stretched([0.0, *(time for time, _ in told)]) for label, told in groups.items()}
    series = dict(zip(groups, SERIES, strict=False))
    axes = Axes(
        WIDTH, HEIGHT, Scale(0, max(ends[label][-1] for label in series), most=8), SHARES,
        below=shortened(unit),
        keys=[Key(shortened(label, 28), series[label], "line") for label in series if label],
    )  # fmt: skip
    for label, colour in series.items():
        told, times = groups[label], ends[label]
        for which, opacity in (("population", 0.14), ("records", 0.3)):
            bands = [getattr(figure, which) for _, figure in told]
            reach = [(1.0, 1.0), *(_ends(each) if each else (0.0, 1.0) for each in bands)]
            lows, highs = (
                [*zip(times, (*side, side[-1]), strict=True)] for side in zip(*reach, strict=True)
            )
            axes.area(between(lows, highs), colour, opacity)
        heights = [1.0, *(float(figure.value or 0.0) for _, figure in told)]
        points = [*zip(times, (*heights, heights[-1]), strict=True)]
        axes.line(stepped(points), colour, 1.5)
        for point in points[1:-1]:
            axes.mark(point, colour, 1.6)
    spoken = [figure for told in groups.values() for _, figure in told]
    return Plot(name, say(BANDS), _alt(spoken), axes.svg())


def _stretched(times: Sequence[float]) -> list[float]:
    """With a last one beyond them, so that the last interval is seen."""
    return [*times, times[-1] + BEYOND * (times[-1] - times[-2])]


def _intervals(figures: Sequence[AnsweredFigure], name: str, what: str) -> Plot | None:
    """A row for each figure: bars for counts, else points; its two intervals over it.

    A figure without an interval has no row: as a mere point it would look certain.
    """
    shown = [each for each in figures if each.records or each.population]
    told = [each for each in shown if each.value is not None][:MOST_ROWS]
    if not told:
        return None
    ratio, counted = what.endswith("ratio"), what in ("count", "importance")
    if ratio and any((each.value or 0.0) < 1 / LARGEST for each in told):
        return None
    names, beside = _names(told)
    mark = 1.0 if ratio else 0.0 if told[0].what in ("points", "effect") else None
    rows = [(float(each.value or 0.0), [*_lines(each, ratio=ratio)]) for each in told]
    reach = [
        end for value, lines in rows for end in (value, *(e for line in lines for e in line[:2]))
    ]
    marks = [*([0.0] if counted else ()), *([] if mark is None else [mark])]
    axes = Axes(
        WIDTH, ROW * len(rows) + 3 * LINE, _scale([*reach, *marks], ratio=ratio, counted=counted),
        Names(names), below=say(what) if what else "", beside=beside,
    )  # fmt: skip
    if mark is not None:
        axes.line([(mark, -0.5), (mark, len(rows) - 0.5)], "muted", 0.8)
    for place, (value, lines) in enumerate(rows):
        if counted:
            axes.box((0.0, value), (place - 0.3, place + 0.3), "series-1", 0.45)
        for low, high, width, colour in lines:
            axes.line([(low, place), (high, place)], colour, width)
        axes.mark((value, place), "ink")
    return Plot(name, say(BARS), _alt(told), axes.svg())


def _scale(numbers: Sequence[float], *, ratio: bool, counted: bool) -> Scale:
    """A scale for these numbers and a little beyond; counts begin at 0 where none is below."""
    low, high = min(numbers), max(numbers)
    if ratio:
        wider = (high / low) ** PAD if high > low else 1 + PAD
        return Scale(low / wider, high * wider, ratio=True)
    pad = PAD * (high - low) or abs(high) * PAD or 1.0
    return Scale(low - (0.0 if counted else pad), high + pad)


def _lines(
    figure: AnsweredFigure, *, ratio: bool = False
) -> Iterator[tuple[float, float, float, str]]:
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
        first, _, last = figure.group.get("score", "").partition(" to ")
        try:
            middle = (float(first) + float(last)) / 2
        except ValueError:
            return None
        if figure.value is not None and 0 <= middle <= 1:
            places.append((middle, figure))
    if len(places) < 2:
        return None
    axes = Axes(
        WIDTH, HEIGHT, Scale(0, min(1.0, places[-1][0] + 0.1), most=8, share=True), SHARES,
        below=say("score"), beside=say("share of positives"),
    )  # fmt: skip
    end = axes.x.high
    axes.line([(0, 0), (end, end)], "muted", 0.8)
    for middle, figure in places:
        for low, high, width, colour in _lines(figure):
            axes.line([(middle, low), (middle, high)], colour, width)
        axes.mark((middle, float(figure.value or 0.0)), "ink")
    return Plot(name, say(BARS), _alt([figure for _, figure in places]), axes.svg())


def _alt(figures: Sequence[AnsweredFigure]) -> str:
    spoken = [
        say("{figure} {value}", figure=figure_name(figure), value=number_text(figure.value))
        for figure in figures[:MOST_ROWS]
    ]
    return say("{amounts}.", amounts=say("; ").join(spoken))
