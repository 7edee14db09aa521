"""`report`: the files of a run, made again from its ledgers or from its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.cells import set_cell_size

from privagg.cli import console
from privagg.cli.options import LanguageName
from privagg.durable import write_whole
from privagg.errors import ConfigError

if TYPE_CHECKING:
    from privagg.report import Report


class Format(str, Enum):
    """What `--format` takes: a form of the report, all annexes, or everything."""

    JSON = "json"
    HTML = "html"
    PDF = "pdf"
    REGISTRY = "registry"
    NIST = "annex-nist-800-226"
    GDPR = "annex-gdpr-35"
    MODEL_RISK = "annex-model-risk"
    PIPL = "annex-pipl-55"
    EU_AI_ACT = "annex-eu-ai-act-iv"
    EDPB = "annex-edpb-28-2024"
    ANNEXES = "annexes"
    ALL = "all"


def report(
    source: Annotated[
        Path, typer.Argument(help="A federation's output folder, or a report.json.")
    ] = Path("out"),
    run: Annotated[
        str | None, typer.Option(help="Which run; by default the one that the folder shows.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the files.")
    ] = None,
    formats: Annotated[
        list[Format] | None,
        typer.Option("--format", "-f", help="Form of the report; repeatable. Default: json, html."),
    ] = None,
    language: LanguageName = "en",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the JSON report instead of writing files.")
    ] = False,
) -> None:
    """Write the report of a run from its ledgers: for machines, for people, for registers.

    Nothing is needed but the ledgers; neither torch nor the encryption libraries. An earlier run's
    files are written into its own folder, out/runs/<run>; those of the run that out/ shows, beside
    it too.

    An annex arranges the recorded facts under the points of a text of others; what only a person
    can say stays a blank, and nothing is said about the law.

    [bold]Annexes[/bold]

      annex-nist-800-226   differential privacy: NIST SP 800-226

      annex-gdpr-35        impact assessment: Article 35 GDPR

      annex-model-risk     model risk management: SR 11-7

      annex-pipl-55        impact assessment: Articles 55 and 56 of China's PIPL

      annex-eu-ai-act-iv   technical documentation: Annex IV of the EU AI Act

      annex-edpb-28-2024   anonymity of a model: EDPB Opinion 28/2024

    [bold]Examples[/bold]

      privagg report out                       the run whose model lies in out/

      privagg report out --format pdf --format annexes

      privagg report out --run demo-3f9a       an earlier run, see `privagg runs`

      privagg report out --run demo-3f9a --output reports

      privagg report out/report.json           the page again, from the JSON alone

      privagg report out --language zh -f html -f pdf     report.zh.html, report.zh.pdf
    """
    from privagg.report.language import speaking

    made = _from_json(source) if source.is_file() else _from_ledgers(source, run)
    if as_json:
        typer.echo(made.to_json(), nl=False)
        return
    own, folder = (output, output) if output else _places(source, made)
    with speaking(language):
        written = _write_chosen(folder, made, formats) if formats else _write_usual(folder, made)
    if own != folder:
        own.mkdir(parents=True, exist_ok=True)
        for path in written:
            write_whole(own / path.name, path.read_bytes())


def _places(source: Path, made: Report) -> tuple[Path, Path]:
    """The folder where a report's files stay, and the one where they are looked for."""
    from privagg.party.local import local_ledgers
    from privagg.protocol.names import COORDINATOR
    from privagg.run.outputs import RUNS, places_of

    output = source.parent if source.is_file() else source
    if source.is_file() and not (output / RUNS).is_dir():
        return output, output
    coordinator = local_ledgers(output).get(COORDINATOR)
    if coordinator is None:
        return output, output
    places = places_of(output, coordinator, made.run)
    return places[0], places[-1]


def _write_chosen(folder: Path, made: Report, chosen: Sequence[Format]) -> Sequence[Path]:
    from privagg.report.write import FORMATS, write_formats

    names: list[str] = []
    for form in chosen:
        if form is Format.ALL:
            names += FORMATS
        elif form is Format.ANNEXES:
            names += [name for name in FORMATS if name.startswith("annex-")]
        else:
            names.append(form.value)
    names = list(dict.fromkeys(names))
    out = console.console()
    written = write_formats(folder, made, names)
    for name, path in zip(names, written, strict=True):
        out.print(f"{name:<20} {path}", markup=False, soft_wrap=True)
    return written


def _write_usual(folder: Path, made: Report) -> Sequence[Path]:
    from privagg.report.language import say
    from privagg.report.write import write_files

    json_path, html_path = write_files(folder, made)
    out = console.console()
    out.print(f"{set_cell_size(say('report'), 9)}{json_path}", markup=False, soft_wrap=True)
    if html_path is None:
        note = "no page: it needs jinja2; pip install 'privagg[report]'"
        console.note(say(note))
        return (json_path,)
    out.print(f"{set_cell_size(say('page'), 9)}{html_path}", markup=False, soft_wrap=True)
    return json_path, html_path


def _from_json(path: Path) -> Report:
    from privagg.report import Report

    try:
        return Report.from_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; correct the path") from error


def _from_ledgers(folder: Path, run: str | None) -> Report:
    from privagg.party.local import local_ledgers
    from privagg.report import build_report, runs_of
    from privagg.run.outputs import last_ended, settle

    settle(folder)
    opened = local_ledgers(folder)
    if "coordinator" not in opened:
        raise ConfigError(
            f"{folder} holds no parties/coordinator/ledger.sqlite; name the output folder of a "
            "federation (`federation.output` in its configuration), or a report.json"
        )
    coordinator = opened.pop("coordinator")
    runs = runs_of(coordinator)
    if not runs:
        raise ConfigError(f"the coordinator's ledger in {folder} records no run yet")
    latest = last_ended(coordinator.entries())
    chosen = run or (latest.run if latest else runs[-1])
    return build_report(run=chosen, coordinator=coordinator, sites=opened)
