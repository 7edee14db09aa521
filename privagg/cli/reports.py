"""`report`: the files of a run, made again from its ledgers or from its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privagg.cli import console
from privagg.errors import ConfigError

if TYPE_CHECKING:
    from privagg.report import Report


def report(
    source: Annotated[
        Path, typer.Argument(help="A federation's output folder, or a report.json.")
    ] = Path("out"),
    run: Annotated[str | None, typer.Option(help="Which run; the last one by default.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the files.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the JSON report instead of writing files.")
    ] = False,
) -> None:
    """Write report.json and report.html from the ledgers of a run.

    Nothing is needed but the ledgers; neither torch nor the encryption libraries.

    [bold]Examples[/bold]

      privagg report out                       the last run, into out/

      privagg report out --run demo-3f9a --output /tmp/r

      privagg report out/report.json           the page again, from the JSON alone
    """
    made = _from_json(source) if source.is_file() else _from_ledgers(source, run)
    if as_json:
        typer.echo(made.to_json(), nl=False)
        return
    from privagg.report.write import write_files

    folder = output or (source.parent if source.is_file() else source)
    json_path, html_path = write_files(folder, made)
    out = console.console()
    out.print(f"report   {json_path}", markup=False, soft_wrap=True)
    if html_path is None:
        console.note("no page: it needs jinja2 and matplotlib; pip install 'privagg[report]'")
    else:
        out.print(f"page     {html_path}", markup=False, soft_wrap=True)


def _from_json(path: Path) -> Report:
    from privagg.report import Report

    try:
        return Report.from_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _from_ledgers(folder: Path, run: str | None) -> Report:
    from privagg.privacy.ledger import Ledger
    from privagg.report import build_report, runs_of

    files = {path.stem: path for path in sorted((folder / "ledgers").glob("*.sqlite"))}
    if "coordinator" not in files:
        raise ConfigError(
            f"{folder} holds no ledgers/coordinator.sqlite; name the output folder of a federation "
            "(`federation.output` in its configuration), or a report.json"
        )
    opened = {name: Ledger.open(path) for name, path in files.items()}
    coordinator = opened.pop("coordinator")
    runs = runs_of(coordinator)
    if not runs:
        raise ConfigError(f"the coordinator's ledger in {folder} records no run yet")
    return build_report(run=run or runs[-1], coordinator=coordinator, sites=opened)
