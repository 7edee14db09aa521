"""A run as it happens: a line a round, and under it a progress bar where there is a terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from privagg.cli.console import note, print_json_line
from privagg.report.figures import byte_text, count_text, epsilon_text, second_text
from privagg.training.measures import BASE_RATE, LABELS, by_class, figure_text, overall
from privagg.training.progress import Progress as Work
from privagg.training.progress import watching

if TYPE_CHECKING:
    from privagg.run.results import RoundReport

MOST_SITE_COLUMNS = 4

SHOWN_SITES = 6


class RoundLines:
    """Prints one line for each attempt at a round.

    A terminal that is too narrow is spared sizes and times, then each site's own epsilon.

    Args:
        out: where to.
        rounds: planned rounds.
        sites: names in roster order.
        shown: names of the public table's figures that are shown, three; none where no table was
            declared public.
        ledgers_here: False where the sites' ledgers lie on other machines. Then epsilon of this run
            alone is printed, by its plan; and sites do not say how long they took.
    """

    def __init__(
        self,
        out: Console,
        rounds: int,
        sites: tuple[str, ...],
        *,
        shown: tuple[str, ...],
        ledgers_here: bool = True,
    ) -> None:
        self.out = out
        self.rounds = rounds
        self.sites = sites
        self.shown = shown
        self.ledgers_here = ledgers_here
        self.one_by_one = ledgers_here and len(sites) <= MOST_SITE_COLUMNS
        self.times = True
        if self._too_wide():
            self.times = False
        if self._too_wide():
            self.one_by_one = False
        self.progress = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(bar_width=40), MofNCompleteColumn(),
            TimeRemainingColumn(), console=out, transient=True,
        )  # fmt: skip
        self.task = self.progress.add_task("training", total=rounds)
        self.batches = self.progress.add_task("", total=1, visible=False)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows the bars while inside; nothing at all where output is piped."""
        if not self.out.is_terminal:
            yield
            return
        with self.progress, watching(self._at_a_site):
            yield

    def _at_a_site(self, found: Work) -> None:
        """A batch was computed at one of this process's sites."""
        self.progress.update(
            self.batches, description=f"round {found.round}, {found.site}, batches",
            completed=found.done, total=found.of, visible=found.done < found.of,
        )  # fmt: skip

    def header(self) -> None:
        """The columns' names."""
        self.out.print(Text(self._header(), style="dim"), soft_wrap=True)

    def __call__(self, report: RoundReport) -> None:
        """One attempt has ended."""
        outcome = report.outcome
        seconds = outcome.seconds
        opened = outcome.outcome == "opened"
        self.out.print(
            Text(self._columns(
                f"{outcome.round}/{self.rounds}",
                f"{len(outcome.survivors) if opened else len(outcome.upload_bytes)}"
                f"/{len(outcome.cohort)}",
                tuple(_measured(name, report.metrics) for name in self.shown),
                self._spending(report),
                byte_text(sum(outcome.bytes_up.values())),
                *((second_text(report.encrypt_seconds),) if self.ledgers_here else ()),
                second_text(seconds.get("add", 0.0)),
                second_text(seconds.get("open", 0.0)),
            ), style="" if opened else "yellow"),
            soft_wrap=True,
        )  # fmt: skip
        for site, why in outcome.refusals.items():
            self.out.print(Text(f"        {site}: {why}", style="yellow"), soft_wrap=True)
        if opened:
            self.progress.update(self.task, completed=outcome.round)
        else:
            self.out.print(Text(f"        stopped, nothing was opened: {outcome.reason}",
                                style="yellow"), soft_wrap=True)  # fmt: skip

    def _header(self) -> str:
        return self._columns(
            "round", "sites", tuple(LABELS.get(name, name) for name in self.shown),
            self._site_names(), "sent", *(("encrypt",) if self.ledgers_here else ()), "add", "open",
        )  # fmt: skip

    def _too_wide(self) -> bool:
        return self.out.is_terminal and len(self._header()) > self.out.width

    def _columns(
        self, number: str, sites: str, measured: tuple[str, ...], spent: str, sent: str,
        *stages: str,
    ) -> str:  # fmt: skip
        metric = "{:>8}  {:>9}  {:>5}  ".format(*measured) if self.shown else ""
        times = f"  {sent:>8}" + "".join(f"{stage:>9}" for stage in stages) if self.times else ""
        return f"{number:>7}  {sites:>6}  {metric}{spent}{times}"

    def _site_names(self) -> str:
        if self.one_by_one:
            return "  ".join(f"{f'ε {name}'[:22]:>{self._width(name)}}" for name in self.sites)
        return f"{'ε of budget':>26}" if self.ledgers_here else f"{'ε of this run':>18}"

    @staticmethod
    def _width(name: str) -> int:
        return min(max(len(name) + 2, 10), 22)

    def _spending(self, report: RoundReport) -> str:
        if not self.ledgers_here:
            return f"{_range(list(report.committed.values())):>18}"
        pairs = {name: _share(*report.epsilon[name]) for name in self.sites}
        if self.one_by_one:
            return "  ".join(f"{pairs[name]:>{self._width(name)}}" for name in self.sites)
        if len(set(pairs.values())) == 1:
            text = f"{next(iter(pairs.values()))} at all {len(pairs)}"
        else:
            text = _range([report.epsilon[name][0] for name in self.sites])
        return f"{text:>26}"


def _range(spent: list[Decimal]) -> str:
    low, high = epsilon_text(min(spent)), epsilon_text(max(spent))
    return low if low == high else f"{low} to {high}"


def _share(spent: Decimal, budget: Decimal) -> str:
    return f"{epsilon_text(spent)}/{epsilon_text(budget)}"


def _measured(name: str, metrics: Mapping[str, float]) -> str:
    """A figure of the public table; accuracy and what guessing would reach in percent."""
    if name not in metrics:
        return "–"
    percent = name in ("accuracy", BASE_RATE)
    return f"{metrics[name]:.1%}" if percent else figure_text(name, metrics[name])


def result_lines(metrics: Mapping[str, float]) -> list[str]:
    """A run's figures on the public table: those of the whole, then of each class; or nothing."""
    found = overall(metrics)
    if not found:
        return []
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in found.items())
    lines = [f"on the public table: {figures}"]
    if classes := by_class(metrics):
        shares = ", ".join(
            f"class {each.number} {each.recall:.4g} ({count_text(each.count, 'record')})"
            for each in classes
        )
        lines.append(f"recall: {shares}")
    return lines


def spending_line(report: Path) -> str:
    """What the sites' ledgers say now, over all jobs, as a report has it.

    Args:
        report: its JSON.
    """
    from privagg.report import Report
    from privagg.report.figures import epsilon_text

    sites = Report.from_json(report.read_bytes()).sites
    spent = [
        f"{site.name} {epsilon_text(site.epsilon_after_run)}"
        + (f" of {epsilon_text(site.budget.epsilon)}" if site.budget else "")
        for site in sites[:SHOWN_SITES]
    ]
    more = len(sites) - SHOWN_SITES
    return f"ε spent over all jobs: {', '.join(spent)}" + (f" and {more} more" if more > 0 else "")


def json_lines(rounds: int) -> Callable[[RoundReport], None]:
    """A line of JSON for each attempt, for a machine that watches."""

    def print_attempt(report: RoundReport) -> None:
        outcome = report.outcome
        print_json_line(
            {
                "round": outcome.round, "of": rounds, "attempt": outcome.attempt,
                "outcome": outcome.outcome, "reason": outcome.reason,
                "cohort": list(outcome.cohort), "survivors": list(outcome.survivors),
                "refusals": dict(outcome.refusals), "metrics": dict(report.metrics),
                "epsilon": {
                    name: {"spent": format(spent, "f"), "budget": format(budget, "f")}
                    for name, (spent, budget) in report.epsilon.items()
                },
                "committed": {n: format(e, "f") for n, e in report.committed.items()},
                "bytes_up": dict(outcome.bytes_up), "bytes_down": dict(outcome.bytes_down),
                "seconds": {"encrypt": report.encrypt_seconds, **outcome.seconds},
            }
        )  # fmt: skip

    return print_attempt


class Terminated(BaseException):
    """SIGTERM came: the process is to end, wherever it is."""


@contextmanager
def stopping_when_terminated() -> Iterator[None]:
    """Makes SIGTERM raise `Terminated` at once: whoever sends it (a scheduler, a shutdown) does not
    wait for a round, and what is under way is kept durably.
    """

    def end(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # signals come to that one only
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stopping_between_rounds(
    on_round: Callable[[RoundReport], None],
) -> Iterator[Callable[[RoundReport], None]]:
    """Makes the first Ctrl-C wait for the round's end, where the model so far can still be kept.

    Args:
        on_round: called after each attempt at a round.

    Yields:
        `on_round`, which after a Ctrl-C raises KeyboardInterrupt once it was called.
    """
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        note("stopping after this round; Ctrl-C again stops at once, and the run can be resumed")

    def then_stop(report: RoundReport) -> None:
        on_round(report)
        if asked.is_set():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals come to that one only
        yield on_round
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield then_stop
    finally:
        signal.signal(signal.SIGINT, before)
