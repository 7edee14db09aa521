"""A run's rounds arranged for a page: a row for each attempt, totals of time and traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from privagg.report.figures import byte_text, count_text, joined, second_text
from privagg.report.language import say, told
from privagg.report.model import Report, RoundReport
from privagg.training.measures import BASES, CHIEF, by_class, figure_text

MOST_ROUNDS = 120


@dataclass(frozen=True)
class RoundRow:
    """One attempt at a round, written.

    Attributes:
        number: the round, and its attempt where that is not the first.
        outcome: `opened` or `stopped`; empty in a gap.
        reason: why it was stopped.
        cohort: how many of the sites asked are in the opened sum.
        missing: what kept the others away, or their names.
        metrics: figures of the public table, in the order of `metric_names`.
        sent: bytes that all parties sent.
        seconds: time spent on encrypting or masking, adding and opening.
        opened: True where a sum was opened.
        gap: the row stands for rounds that are left out.
    """

    number: str
    outcome: str
    reason: str
    cohort: str
    missing: str
    metrics: tuple[str, ...]
    sent: str
    seconds: str
    opened: bool
    gap: bool = False


def round_rows(report: Report) -> tuple[RoundRow, ...]:
    """Every round; of a long run the first and last ones and all that were stopped."""
    rounds, measures = report.rounds, metric_names(report)
    if len(rounds) <= MOST_ROUNDS:
        return tuple(_round_row(r, measures) for r in rounds)
    edge = MOST_ROUNDS // 4
    stopped = [i for i, r in enumerate(rounds) if r.outcome == "stopped"][: MOST_ROUNDS // 2]
    shown = sorted({*range(edge), *stopped, *range(len(rounds) - edge, len(rounds))})
    rows: list[RoundRow] = []
    previous = -1
    for index in shown:
        if index != previous + 1:
            left_out = say(
                "{rounds} left out here; the JSON report has them",
                rounds=count_text(index - previous - 1, "round"),
            )
            rows.append(RoundRow(left_out, "", "", "", "", (), "", "", opened=True, gap=True))
        rows.append(_round_row(rounds[index], measures))
        previous = index
    return tuple(rows)


def metric_names(report: Report) -> tuple[str, ...]:
    """Metrics that change from round to round, the chief ones first; at most four."""
    names = {name for r in report.rounds for name in r.metrics or {}} - {*BASES.values()}
    first = [name for name in CHIEF if name in names]
    return tuple((first + sorted(names - set(first)))[:4])


def class_rows(report: Report) -> tuple[tuple[str, str, str], ...]:
    """(class, public records, recall) of the released model; none where it was not recorded."""
    found = by_class(report.model.metrics) if report.model is not None else ()
    names = _class_names(report)
    return tuple(
        (
            names[each.number] if each.number < len(names) else say("class {n}", n=each.number),
            count_text(each.count, "record"),
            f"{each.recall:.3f}",
        )
        for each in found
    )


def _class_names(report: Report) -> tuple[str, ...]:
    """The classes or labels as the plan's recipe lists them, in order; else nothing."""
    target: object = report.plan
    for key in ("recipe", "data", "target"):
        target = target.get(key) if isinstance(target, dict) else None
    facts = target if isinstance(target, dict) else {}
    found = facts.get("classes") or facts.get("labels")
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _round_row(r: RoundReport, measures: Sequence[str]) -> RoundRow:
    missing = [name for name in r.cohort if name not in r.survivors]
    refused = [f"{x.site}: {told(x.message)}" for x in r.refusals]
    metrics = r.metrics or {}
    return RoundRow(
        number=f"{r.round}"
        if r.attempt <= 1
        else say("{n} (attempt {n2})", n=r.round, n2=r.attempt),
        outcome=say(r.outcome),
        reason=told(r.reason or ""),
        cohort=say("{n} of {n2}", n=len(r.survivors) or say("none"), n2=len(r.cohort)),
        missing=say("; ").join(refused) if refused else joined(missing),
        metrics=tuple(figure_text(m, metrics[m]) if m in metrics else "–" for m in measures),
        sent=byte_text(sum(r.bytes_up.values())),
        seconds=second_text(r.seconds.encrypt + r.seconds.add + r.seconds.open),
        opened=r.outcome == "opened",
    )


def total_rows(report: Report) -> tuple[tuple[str, str, str], ...]:
    """(what, over the run, mean of a round) for time spent on uploads and sums, and for traffic."""
    rounds = report.rounds
    if not rounds:
        return ()
    seconds = [r.seconds for r in rounds]
    stages = (
        (say("Encrypting or masking, all sites"), [s.encrypt for s in seconds]),
        (say("Checking and adding"), [s.add for s in seconds]),
        (say("Opening"), [s.open for s in seconds]),
    )
    rows = [(name, second_text(sum(v)), second_text(sum(v) / len(v))) for name, v in stages]
    for name, amounts in (
        (say("Sent by all parties"), [sum(r.bytes_up.values()) for r in rounds]),
        (say("Received by all parties"), [sum(r.bytes_down.values()) for r in rounds]),
    ):
        mean = round(sum(amounts) / len(amounts))
        rows.append((name, byte_text(sum(amounts)), byte_text(mean)))
    exchanges = sum(r.exchanges for r in rounds)
    rows.append((say("Exchanges of messages"), f"{exchanges}", f"{exchanges / len(rounds):.3g}"))
    return tuple(rows)
