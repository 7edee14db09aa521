"""`tune`: a search over settings, every candidate charged."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from privagg.cli import console
from privagg.cli.training import (
    TERMINATED,
    AsJson,
    ConfigPath,
    open_federation,
    places,
    print_places,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from privagg.run.listing import ListedRun
    from privagg.run.tuning import Candidate, Search, SearchResult


def tune(
    config: ConfigPath,
    resume: Annotated[
        str | None, typer.Option(metavar="SEARCH", help="Go on with a search that was cut off.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run every candidate of the configured grid and select one on the public table.

    Each candidate is an ordinary run and charged in full; privacy.epsilon is what one may cost.
    Before anything is spent, all of them together are held against every budget. The ledgers
    record the search before its first run, and the report says what it cost.

    The same command again is another search, charged again: it says first what that comes to. What
    the earlier one selected stays in its own folder, see `privagg runs`. A search that was cut off
    (Ctrl-C, SIGTERM, a kill) goes on with --resume: no candidate is run or charged twice.

    [bold]Examples[/bold]

      privagg tune my.toml

      privagg tune my.toml --resume three-hospitals-search-5f0c9a1b2d3e

      privagg runs my.toml     what was selected, and where its files lie
    """
    federation = open_federation(config)
    from privagg.cli.live import Terminated, stopping_when_terminated

    out = console.console()
    metric = federation.config.tuning.metric if federation.config.tuning else ""

    def report(candidate: Candidate) -> None:
        facts = _facts(candidate)
        if as_json:
            console.print_json_line(facts)
            return
        settings = ", ".join(f"{key} = {value}" for key, value in facts["settings"].items())
        value = facts["metrics"].get(metric)
        shown = f"{metric} {value:.4g}" if value is not None else facts["outcome"]
        out.print(Text(f"{settings}: {shown}"), soft_wrap=True)

    def begin(search: Search) -> None:
        begun.append(search.name)
        _say_costs(search, federation.runs())

    begun: list[str] = []
    try:
        with stopping_when_terminated():
            result = federation.tune(on_begin=begin, on_candidate=report, resume=resume)
    except (KeyboardInterrupt, Terminated) as error:
        way = f"go on with: privagg tune {quote(str(config))} --resume {begun[0]}" if begun else ""
        charged = "what was charged stays charged, and nothing is charged twice"
        code = console.fail(None, f"interrupted; {charged}; {way}" if begun else "interrupted")
        raise typer.Exit(TERMINATED if isinstance(error, Terminated) else code) from error
    if as_json:
        console.print_json_line(_summary(result))
    else:
        _print(result)


def _say_costs(search: Search, known: Iterable[ListedRun]) -> None:
    """What was selected before and stays, and what another search comes to."""
    from privagg.report.figures import epsilon_text

    for earlier in known:
        if earlier.ending == "selected" and earlier.files:
            folder = next(iter(earlier.files.values())).parent
            console.note(f"an earlier search selected {earlier.reason}; it stays in {folder}")
    if not search.costs:
        return
    site = max(search.costs, key=lambda name: search.costs[name][1])
    before, after, budget = (epsilon_text(figure) for figure in search.costs[site])
    console.note(
        f"{len(search.candidates)} candidates, each charged in full, bring {site} from ε {before} "
        f"to at most {after} of its budget of {budget}"
    )


def _facts(candidate: Candidate) -> dict[str, Any]:
    result = candidate.result
    assert result is not None
    return {
        "run": candidate.run,
        "settings": {key: str(value) for key, value in candidate.settings.items()},
        "outcome": result.outcome,
        "metrics": result.metrics,
    }


def _summary(result: SearchResult) -> dict[str, Any]:
    best = result.best.result
    assert best is not None
    return {
        "search": result.name,
        "candidates": len(result.candidates),
        "metric": result.metric,
        "selected": _facts(result.best),
        "model": str(best.model),
        "report_json": str(best.report_json),
        "bundle": str(best.bundle),
    }


def _print(result: SearchResult) -> None:
    out, facts = console.console(), _summary(result)
    settings = ", ".join(f"{k} = {v}" for k, v in facts["selected"]["settings"].items())
    out.print()
    out.print(
        Text(f"selected of {len(result.candidates)} by {result.metric}: {settings}"), soft_wrap=True
    )
    if result.best.result is not None:
        print_places(out, [("search", result.name), *places(result.best.result)])
