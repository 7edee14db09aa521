"""`evaluate`: how well an opened model does on records that no run trains with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privagg.cli.asking import Csv, Plots, on_this_machine, over_flower, tell
from privagg.cli.training import (
    AsJson,
    ConfigPath,
    Deployment,
    Runtime,
    open_federation,
    require_runtime,
)
from privagg.errors import ConfigError

if TYPE_CHECKING:
    from privagg.federation import Federation
    from privagg.run.results import RunResult


def evaluate(
    config: ConfigPath,
    table: Csv = None,
    plots: Plots = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with an evaluation that was cut off.")
    ] = None,
    runtime: Runtime = "local",
    deployment: Deployment = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="flower: the opened model; by default the one evaluated last."
        ),
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

      privagg evaluate my.toml --runtime flower --deployment coordinator --model model.safetensors
    """
    require_runtime(runtime, deployment)
    if model is not None and runtime != "flower":
        raise ConfigError("--model belongs to --runtime flower; here evaluation.model names it")
    federation = open_federation(config, deployment)
    if runtime == "flower":
        result = _on_flower(federation, config, deployment, model, resume, as_json=as_json)
    else:
        result = on_this_machine(federation, federation.evaluating, resume, as_json=as_json)
    tell(result, table, plots, as_json=as_json)
    if result.outcome != "finished":
        raise typer.Exit(2)


def _on_flower(
    federation: Federation,
    config: Path,
    deployment: Path | None,
    model: Path | None,
    resume: str | None,
    *,
    as_json: bool,
) -> RunResult:
    """Evaluate over a deployment, once its coordinator's ledger says that the model was opened."""
    from privagg.cli.flowerrun import coordinator_at
    from privagg.config.evaluating import EvaluateSetup
    from privagg.party.released import require_released

    folder = coordinator_at(federation, deployment)
    opened = replace(federation.setup, opened=model or folder.evaluated)
    setup = EvaluateSetup.of(opened)
    require_released(setup, folder)
    if model is not None:
        folder.keep_evaluated(model, setup.model_sha256)
    federation.setup = opened
    return over_flower(federation, setup, config, deployment, resume, as_json=as_json)
