"""`runs`: what was bought, run by run."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from privagg.cli import console
from privagg.cli.training import AsJson
from privagg.training.measures import CHIEF, LABELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from privagg.run.listing import ListedRun


def runs(
    where: Annotated[
        Path,
        typer.Argument(
            metavar="[OUT or CONFIG]",
            help="An output folder, a configuration, a trial's folder or a coordinator's.",
        ),
    ] = Path("out"),
    as_json: AsJson = False,
) -> None:
    """List every run and search: how it ended, what it cost, and where its files lie.

    Read from the signed ledgers and the folders as they are; spends nothing. ε is that of the run
    alone, an upper bound, for the site that it cost most; it stays charged also where the files
    are gone. All runs together: `privagg ledger show`.

    [bold]Examples[/bold]

      privagg runs                      of out/

      privagg runs my.toml              of the output folder that it names

      privagg runs trial                of a deployment on this machine

      privagg runs coordinator --json   at a deployment's coordinator, as JSON

      privagg report out --run demo-3f9a     the report of one of them, made again
    """
    from privagg.run.listing import runs_at
    from privagg.run.outputs import settle

    config = where if where.is_file() else None
    folder = _output_of(where) if config else where
    if (folder / "parties").is_dir():
        settle(folder)
    found = runs_at(folder)
    if as_json:
        console.print_json([_facts(each) for each in found])
        return
    out = console.console()
    if not found:
        out.print(f"{folder}: no run yet", markup=False, soft_wrap=True)
        return
    _print_table(found)
    for each in found:
        for line in _lines(each, config):
            name = Text(f"{each.name}  ", style="dim")
            out.print(name.append(line, style="not dim"), soft_wrap=True)


def _output_of(config: Path) -> Path:
    from privagg.config.schema import load_config

    return config.resolve().parent / load_config(config).federation.output


def _print_table(found: list[ListedRun]) -> None:
    from privagg.report.figures import delta_text

    out = console.console()
    deltas = {(e.largest.delta, e.largest.unit) for e in found if e.largest is not None}
    same = len(deltas) == 1
    measured = {name for each in found for name in each.metrics}
    figures = tuple(name for name in CHIEF if name in measured) or ("accuracy", "auc")
    heads = tuple(LABELS[name] for name in figures)
    columns = ("run", "began, UTC", "ended", "how", "rounds", "ε at most", *heads)
    console.table(out, columns, [_row(each, figures, same) for each in found], left=(0, 1, 2, 3))
    out.print()
    if same:
        ((delta, unit),) = deltas
        what = f"the unit is a {unit}, at δ = {delta_text(delta)}; of the run alone, largest site"
        out.print(Text(f"ε: {what}", style="dim"), soft_wrap=True)
    if any(not c.by_ledger for each in found for c in each.charged.values()):
        text = "≤: of a site whose ledger lies elsewhere, by the plan for every attempt asked of it"
        out.print(Text(text, style="dim"), soft_wrap=True)


def _row(each: ListedRun, figures: tuple[str, ...], same: bool) -> tuple[str, ...]:
    def figure(name: str) -> str:
        return f"{each.metrics[name]:.4g}" if name in each.metrics else ""

    began, ended = (time[:16].replace("T", " ") for time in (each.began, each.ended))
    return (
        ("  " if each.search else "") + each.name,
        began,
        ended[11:] if began[:10] == ended[:10] else ended,
        f"{each.ending} of {each.candidates}" if each.ending == "selected" else each.ending,
        f"{each.opened}/{each.rounds}" if each.rounds else "",
        _epsilon(each, same),
        *map(figure, figures),
    )


def _epsilon(each: ListedRun, same: bool) -> str:
    from privagg.report.figures import delta_text, epsilon_text

    largest = each.largest
    if largest is None:
        return ""
    terms = "" if same else f" (δ {delta_text(largest.delta)}, {largest.unit})"
    return ("" if largest.by_ledger else "≤ ") + epsilon_text(largest.epsilon) + terms


def _lines(each: ListedRun, config: Path | None) -> Iterator[str]:
    """What a table has no room for: why it ended so, how it goes on, where its files are."""
    if each.candidates:
        yield f"selected {each.reason}" if each.ending == "selected" else each.reason
    elif each.ending in ("stopped", "failed"):
        where = f"in round {each.last}" if each.last else "before its first round"
        yield f"{each.ending} {where}: {each.reason}"
    elif each.ending == "interrupted":
        yield f"interrupted in round {min(each.last + 1, each.rounds)} of {each.rounds}"
    elif each.ending == "unrecorded":
        yield "the coordinator's ledger does not know it; sites' ledgers were charged for it"
    if each.resumed:
        yield f"goes on with: {_resume(each, config)}"
    about = f"{each.mode}, {each.program or each.model}; " if each.mode else ""
    if each.files:
        folder = next(iter(each.files.values())).parent
        shown = f"; shown in {folder.parent.parent}" if each.is_shown else ""
        yield f"{about}{', '.join(each.files)} in {folder}{shown}"
    elif each.is_gone:
        yield "its files are gone or were never written; what it was charged stays charged"


def _resume(each: ListedRun, config: Path | None) -> str:
    if each.resumed == "app":
        return f"private_grid(grid, resume={each.name!r})"
    if each.deployment is not None:
        file, folder = (quote(str(path)) for path in each.deployment)
        return f"privagg run {file} --runtime flower --deployment {folder} --resume {each.name}"
    file = quote(str(config)) if config else "CONFIG"
    if each.search:
        return f"its search: privagg tune {file} --resume {each.search}"
    from privagg.config.jobs import command_of, job_asking

    command = command_of(job_asking(each.program))
    return f"privagg {command} {file} --resume {each.name}"


def _facts(each: ListedRun) -> dict[str, Any]:
    def text(value: Decimal) -> str:
        return format(value, "f")

    return {
        "run": each.name,
        "search": each.search or None,
        "candidates": each.candidates,
        "began": each.began or None,
        "ended": each.ended or None,
        "mode": each.mode or None,
        "model": each.model or None,
        "program": each.program or None,
        "rounds": each.rounds,
        "opened": each.opened,
        "last_round": each.last,
        "ending": each.ending,
        "reason": each.reason,
        "resumed": each.resumed or None,
        "charged": {
            site: {
                "epsilon": text(charged.epsilon),
                "delta": text(charged.delta),
                "unit": charged.unit,
                "by_ledger": charged.by_ledger,
            }
            for site, charged in each.charged.items()
        },
        "metrics": dict(each.metrics),
        "files": {label: str(path) for label, path in each.files.items()},
        "shown": each.is_shown,
        "files_gone": each.is_gone,
    }
