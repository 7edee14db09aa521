"""`tune`: a search over settings, every candidate charged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from privagg.cli import console
from privagg.cli.training import AsJson, ConfigPath, open_federation, places, print_places

if TYPE_CHECKING:
    from privagg.run.tuning import Candidate, SearchResult


def tune(config: ConfigPath, as_json: AsJson = False) -> None:
    """Run every candidate of the configured grid and select one on the public table.

    Each candidate is an ordinary run and charged in full; privacy.epsilon is what one may cost.
    Before anything is spent, all of them together are held against every budget. The ledgers
    record the search before its first run, and the report says what it cost.

    [bold]Example[/bold]

      privagg tune my.toml
    """
    federation = open_federation(config)
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

    try:
        result = federation.tune(on_candidate=report)
    except KeyboardInterrupt as error:
        message = "interrupted; every round charged so far stays charged in the sites' ledgers"
        raise typer.Exit(console.fail(None, message)) from error
    if as_json:
        console.print_json_line(_summary(result))
    else:
        _print(result)


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
