"""The application and its door: a deliberate refusal becomes one `error:` line, never a trace."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Annotated

import click
import typer

from privagg import __version__
from privagg.cli import (
    algorithms,
    approve,
    asking,
    demo,
    deploy,
    evaluating,
    exporting,
    ledgers,
    numbers,
    personal,
    predicting,
    recompute,
    reports,
    runs,
    training,
    tuning,
    verify,
)
from privagg.cli.console import fail, show_traceback
from privagg.errors import PrivaggError

HELP = """Train one model across institutions whose data never leaves them.

Each contribution is clipped, noised and encrypted or masked before it goes; every
round's (ε, δ) is charged to each institution's ledger before anybody
trains; a report says what was spent, and against whom it holds.

[bold]First steps[/bold]

  privagg demo             three hospitals, one model; look at out/
  privagg init my.toml     write a commented configuration
  privagg check my.toml    noise, ε a round and sizes, before training
  privagg approve my.toml --all-sites    the owner decides
  privagg ask my.toml      counts, means, quantiles first, where it has questions
  privagg run my.toml      train
  privagg evaluate my.toml how well the model does on records held out
  privagg runs my.toml     what was bought: every run, its ε, its files

[bold]On several machines[/bold]

  privagg deploy           everybody's keys, start the parts, how it ended

[bold]Numbers without training[/bold]

  privagg epsilon -q 0.2 -s 10 -n 10000 -d 1e-9
  privagg calibrate -e 1 -d 1e-5 -q 0.2 -n 40

[bold]For whoever receives a report[/bold]

  privagg verify out/bundle.privagg.zip

Each verb explains itself: privagg run --help.

Exit codes: 0 done, 1 unexpected or does not verify, 2 refused or stopped,
3 a claim that `verify --require` names is not proved.
"""

app = typer.Typer(
    name="privagg",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    suggest_commands=False,  # click suggests already
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("init")(training.init)
app.command("check")(training.check)
app.command("approve")(approve.approve)
app.command("ask")(asking.ask)
app.command("run")(training.run)
app.command("evaluate")(evaluating.evaluate)
app.command("predict")(predicting.predict)
app.command("export")(exporting.export)
app.command("personalise")(personal.personalise)
app.command("tune")(tuning.tune)
app.command("demo")(demo.demo)
app.add_typer(deploy.app, name="deploy")
app.command("epsilon")(numbers.epsilon)
app.command("calibrate")(numbers.calibrate)
app.add_typer(ledgers.app, name="ledger")
app.command("algorithms")(algorithms.algorithms)
app.command("runs")(runs.runs)
app.command("recompute")(recompute.recompute)
app.command("report")(reports.report)
app.command("bundle")(verify.bundle)
app.command("verify")(verify.verify)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"privagg {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show an error's traceback.", is_eager=True)
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and leave.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options of every verb."""
    show_traceback(debug)


def _let_paragraphs_flow(command: click.Command) -> None:
    """Take the line ends of the source out of help texts; the terminal's width breaks their lines.

    Indented lines, which are examples, and headings stand as they are.
    """
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    command.help = "\n\n".join(
        text if re.search(r"^( |\[)", text, re.MULTILINE) else text.replace("\n", " ")
        for text in paragraphs
    )
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _let_paragraphs_flow(inner)


def main() -> None:
    """Run the command line; the entry point of the `privagg` script."""
    command = typer.main.get_command(app)
    _let_paragraphs_flow(command)
    try:
        command()
    except PrivaggError as error:
        sys.exit(fail(error))
    except Exception as error:
        sys.exit(fail(error))
