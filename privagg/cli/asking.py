"""`ask`: questions to the sites' records, before or beside training."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from privagg.cli import console
from privagg.cli.training import (
    AsJson,
    ConfigPath,
    Deployment,
    Runtime,
    open_federation,
    places,
    prepare_kernels,
    print_places,
    require_runtime,
    telling_how_to_go_on,
)
from privagg.durable import write_whole
from privagg.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from privagg.config.asking import SumsSetup
    from privagg.federation import Federation
    from privagg.report.model import AnsweredFigure, Answers
    from privagg.run.results import RunResult

Csv = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="Write the figures as CSV too.")
]

Plots = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write the report's plots as SVG, too.")
]

CSV_COLUMNS = (
    "question", "figure", "group", "value", "raw", "records_low", "records_high",
    "population_low", "population_high", "records_error", "population_error", "level",
)  # fmt: skip


def ask(
    config: ConfigPath,
    table: Csv = None,
    plots: Plots = None,
    facts: Annotated[
        bool,
        typer.Option("--for", help="Ask \\[facts]: what this file should declare of its columns."),
    ] = False,
    written: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="With --for: write the proposed sections."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="With --for: add the proposed sections to this file.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with an asking that was cut off.")
    ] = None,
    runtime: Runtime = "local",
    deployment: Deployment = None,
    as_json: AsJson = False,
) -> None:
    """Ask the configuration's questions: counts, means, regressions; then write the answers.

    All [[questions]] are answered by opened sums with noise, under the budgets that training is
    charged to; together they cost \\[ask] epsilon. Every site's owner approves them first. A record
    is one line of a site's file. Asking again is charged again.

    Each figure has two intervals: for these records (the noise alone, whose size is known exactly)
    and for the population that they are a sample of (noise and sampling).

    With --for, \\[facts] is asked instead: ranges, categories, gaps and classes of columns of which
    nothing is declared yet. What follows from the answers is printed as sections for the file.

    [bold]Examples[/bold]

      privagg check my.toml                            what the questions cost, beside training

      privagg approve my.toml --all-sites --job questions

      privagg ask my.toml

      privagg ask my.toml --csv answers.csv --plots plots --json > answers.json

      privagg ask my.toml --runtime flower --deployment coordinator

      privagg ask --for my.toml --apply                ranges and categories that nobody knows
    """
    from privagg.config.asking import AskSetup
    from privagg.config.facts import FactsSetup

    require_runtime(runtime, deployment)
    federation = open_federation(config, deployment)
    _require_facts_alone(facts, written, apply)
    setup = federation.beside(FactsSetup.job if facts else AskSetup.job)
    if apply:
        _require_appendable(federation, config)
    if runtime == "flower":
        result = over_flower(federation, setup, config, deployment, resume, as_json=as_json)
    else:
        result = on_this_machine(federation, setup, resume, as_json=as_json)
    sections, kept = "", None
    if facts and result.answers is not None:
        sections, kept = federation.proposed(result), result.answers.with_name("facts.toml")
        write_whole(kept, sections.encode())
    tell(result, table, plots, sections, as_json=as_json)
    if sections and written is not None:
        write_whole(written, sections.encode())
    if sections and apply and kept is not None:
        if result.missing:
            raise ConfigError(
                f"{config} is as it was: ledgers did not come, and the asking is resumed under the "
                f"file that it was begun with (--resume {result.run}). What was proposed is kept "
                f"in {kept}"
            )
        _add(config, sections, kept)
        if runtime == "flower":
            _tell_how_to_join_again(config, deployment or federation.setup.output / "trial")
    if result.outcome != "finished":
        raise typer.Exit(2)


def ask_here(federation: Federation, *, as_json: bool) -> None:
    """Ask on this machine, and print the answers.

    Args:
        federation: asks questions.
        as_json: print them as a line of JSON.
    """
    result = on_this_machine(federation, federation.asking, None, as_json=as_json)
    answers = _answers(result)
    if as_json:
        console.print_json_line(_as_json(result, answers, ""))
    elif answers is not None:
        _print_answers(console.console(), answers)


def on_this_machine(
    federation: Federation, setup: SumsSetup, resume: str | None, *, as_json: bool
) -> RunResult:
    """Do a job of sums, once everything that can be refused is not.

    Args:
        federation: whose job it is.
        setup: the job.
        resume: a run of it that was cut off.
        as_json: nothing is printed.
    """
    from privagg.cli.askview import print_questions
    from privagg.cli.live import stopping_when_terminated

    with telling_how_to_go_on(federation):
        federation.check_ready(resume, job=setup.job)
        prepare_kernels(setup.parameters)
        if not as_json:
            print_questions(console.console(), setup)
        with stopping_when_terminated():
            return federation.ask(resume=resume, job=setup.job)


def over_flower(
    federation: Federation,
    setup: SumsSetup,
    config: Path,
    deployment: Path | None,
    resume: str | None,
    *,
    as_json: bool,
) -> RunResult:
    """Do a job of sums over a deployment; what came of it, as its coordinator wrote it down.

    Args:
        federation: whose job it is.
        setup: the job.
        config: the configuration's path.
        deployment: the coordinator's folder, or a trial's; None starts a trial on this machine.
        resume: a run of it that was cut off.
        as_json: nothing but JSON is printed.
    """
    import numpy as np

    from privagg.cli.askview import print_questions
    from privagg.cli.flowerrun import follow_on_flower
    from privagg.flower.submit import submit_run
    from privagg.run.results import RunResult

    if not as_json:
        print_questions(console.console(), setup)
    facts = follow_on_flower(
        federation, config, deployment, setup.job,
        lambda folder: submit_run(folder, resume=resume, job=setup.job), as_json=as_json,
    )  # fmt: skip
    result = RunResult(facts["run"], facts["outcome"], facts["reason"], np.empty(0))
    for name in ("answers", "report_json", "report_html", "bundle"):
        setattr(result, name, Path(facts[name]) if facts.get(name) else None)
    result.missing = dict(facts.get("missing", {}))
    return result


def _require_facts_alone(facts: bool, written: Path | None, apply: bool) -> None:
    if (written or apply) and not facts:
        raise ConfigError("--write and --apply go with --for, which asks for facts to declare")


def _require_appendable(federation: Federation, path: Path) -> None:
    """Refuse, before anything is charged, a file that proposed sections cannot be added to."""
    from privagg.config.data import UndeclaredData
    from privagg.config.proposed import require_room

    data = federation.config.data
    if not isinstance(data, UndeclaredData):
        raise ConfigError(
            f"{path} declares [[data.features]] already, and --apply replaces nothing; ask without "
            "it, and change them yourself. Nothing was spent"
        )
    sections = '[[data.features]]\nname = "any"\nrange = [0, 1]\n'
    if "target" not in data.model_fields_set:
        sections += '[data.target]\nname = "other"\npositive = "== 1"\n'
    require_room(path.read_text(encoding="utf-8-sig"), sections)


def _add(path: Path, sections: str, kept: Path) -> None:
    """Add proposed sections to a configuration.

    Raises:
        ConfigError: it could not be used with them; it is as it was.
    """
    from privagg.config.proposed import with_proposed

    try:
        whole = with_proposed(path.read_text(encoding="utf-8-sig"), sections)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. {path} is as it was; what was proposed is kept in {kept}: add what it "
            "lacks, and write both into the file"
        ) from error
    write_whole(path, whole.encode())
    console.note(f"added to {path}: look at it, then `privagg check {path}`")


def _tell_how_to_join_again(config: Path, root: Path) -> None:
    """How parties of a deployment go on with the columns declared.

    Args:
        config: declares them now.
        root: the coordinator's folder, or a trial's.
    """
    if (root / "party.toml").is_file():
        console.note(
            f"next: every party puts the new {config.name} in the place of the earlier one, and "
            f"there: privagg deploy party NAME {config.name}; once the new cards are everywhere: "
            "privagg deploy join NAME *.card --replace, and privagg approve --party NAME. Keys "
            "and ledgers stay"
        )
        return
    console.note(
        f"next: stop its parts, privagg deploy trial {config} {root} --replace; keys and ledgers "
        f"stay. Then: privagg approve {config} --all-sites --deployment {root}"
    )


def tell(
    result: RunResult,
    table: Path | None,
    plots: Path | None,
    sections: str = "",
    *,
    as_json: bool,
) -> None:
    """What was answered, and where it lies.

    Args:
        result: how the job ended.
        table: where the figures are written as CSV, if anywhere.
        plots: where the report's plots are written, likewise.
        sections: of a configuration, as they are proposed.
        as_json: for a machine.
    """
    from privagg.cli.live import spending_line

    answers = _answers(result)
    if answers is not None and table is not None:
        write_whole(table, _as_csv(answers).encode())
    drawn = _draw(answers, plots) if answers is not None and plots is not None else []
    if as_json:
        console.print_json(_as_json(result, answers, sections))
        return
    out = console.console()
    if answers is not None:
        _print_answers(out, answers)
    if result.outcome != "finished":
        out.print(Text(f"the job was {result.outcome}: {result.reason}", style="yellow"),
                  soft_wrap=True)  # fmt: skip
    found = [("run", result.run), *places(result)]
    if table is not None and answers is not None:
        found.append(("csv", str(table)))
    found += [("plot", str(path)) for path in drawn]
    out.print()
    if sections:
        out.print(Text(sections), soft_wrap=True)
    if result.report_json is not None:
        out.print(Text(spending_line(result.report_json), style="dim"), soft_wrap=True)
    print_places(out, found)


def _answers(result: RunResult) -> Answers | None:
    """The answers as the report has them; None where nothing was opened."""
    from privagg.report import Report

    if result.report_json is None:
        return None
    return Report.from_json(result.report_json.read_bytes()).answers


def _draw(answers: Answers, folder: Path) -> list[Path]:
    """The report's plots of answers as files, in the order of the questions."""
    from privagg.report.answerplots import answer_plots
    from privagg.report.drawing import on_paper

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for plot in (plot for each in answer_plots(answers) for plot in each):
        written.append(folder / f"{plot.name}.svg")
        write_whole(written[-1], on_paper(plot).encode())
    return written


def _print_answers(out: Console, answers: Answers) -> None:
    from privagg.report.answered import told_answer
    from privagg.report.language import told

    for answer in answers.answers:
        console.heading(out, told(str(answer.question["name"])))
        found = told_answer(answer.figures, answers.level)
        for line in found.sentences:
            out.print(Text(line), soft_wrap=True)
        if found.rows:
            console.table(out, found.columns, found.rows, left=(0,))


def _as_json(result: RunResult, answers: Answers | None, sections: str) -> dict[str, Any]:
    def text(path: Path | None) -> str | None:
        return None if path is None else str(path)

    return {
        "run": result.run,
        "outcome": result.outcome,
        "reason": result.reason,
        "answers": None if answers is None else answers.model_dump(mode="json"),
        "proposed": sections or None,
        "answers_json": text(result.answers),
        "report_json": text(result.report_json),
        "report_html": text(result.report_html),
        "bundle": text(result.bundle),
    }


def _as_csv(answers: Answers) -> str:
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for answer in answers.answers:
        for figure in answer.figures:
            writer.writerow([answer.question["name"], *_cells(figure), answers.level])
    return made.getvalue()


def _cells(figure: AnsweredFigure) -> Iterator[Any]:
    yield figure.what
    yield ", ".join(f"{column}={category}" for column, category in figure.group.items())
    yield "" if figure.value is None else figure.value
    yield figure.raw
    for ends in (figure.records, figure.population):
        yield "" if ends is None else ends.low
        yield "" if ends is None else ends.high
    errors = figure.standard_errors
    yield "" if errors is None else errors.records
    yield "" if errors is None else errors.population
