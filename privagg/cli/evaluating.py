"""`evaluate`: how well an opened model does on records that no run trains with."""

from __future__ import annotations

from typing import Annotated

import typer

from privagg.cli.asking import Csv, Plots, on_this_machine, tell
from privagg.cli.training import (
    AsJson,
    ConfigPath,
    open_federation,
)


def evaluate(
    config: ConfigPath,
    table: Csv = None,
    plots: Plots = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with an evaluation that was cut off.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the trained model on the records that every site holds out, for its own charge.

    With \\[evaluation] private = true, a keyed hash of each record says whether it is held out, and
    no run trains with it. This opens sums with noise over those records: area under the ROC curve,
    its points, calibration, accuracy beside the base rate, confusion, Brier score and log-loss, for
    several labels of each; of grades the table of pairs and how many grades the model is off; of
    amounts the error's quantiles. By site and by declared subgroup where \\[evaluation] says so.
    Every site's owner approves it first. Evaluating again is charged again.

    [bold]Examples[/bold]

      privagg check my.toml                            what it costs, beside training

      privagg approve my.toml --all-sites --job evaluation

      privagg evaluate my.toml

      privagg evaluate my.toml --csv figures.csv --json > figures.json
    """
    federation = open_federation(config)
    result = on_this_machine(federation, federation.evaluating, resume, as_json=as_json)
    tell(result, table, plots, as_json=as_json)
    if result.outcome != "finished":
        raise typer.Exit(2)
