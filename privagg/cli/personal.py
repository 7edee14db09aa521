"""`personalise`: an opened model is trained on at home, on a site's own records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from privagg.cli import console
from privagg.cli.recompute import opened_site


def personalise(
    model: Annotated[Path, typer.Argument(help="An opened model, such as out/model.safetensors.")],
    config: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="The configuration that trained it.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="With --config: which site of a run on this machine.")
    ] = None,
    party: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A site's folder, on that site's own machine."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of SGD.")] = 50,
    learning_rate: Annotated[float, typer.Option(help="Of each step.")] = 0.1,
    batch_size: Annotated[int, typer.Option(min=1, help="Records of each step.")] = 32,
    pull: Annotated[
        float, typer.Option(min=0, help="λ of λ/2 · |w − w_opened|², towards the opened model.")
    ] = 0.0,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the records to measure on.")
    ] = 0.2,
    output: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="By default in the site's own folder."),
    ] = None,
) -> None:
    """Train an opened model on at home, on one site's records. Nothing leaves.

    Under every mode, after any run; no budget is touched, as nobody else learns anything. The
    personal model is as private as the site's records: epsilon is infinite for whoever is shown it
    or what it predicts. --pull keeps it near the opened model (Ditto, MR-MTL). Where a part of
    the model stayed at home (training.algorithm fedper or fedrep), it is put in first.

    A personal model that may be served to others is a run of its own: a configuration with this
    site alone, privacy.mode record-local and \\[training.continues] from the opened model. Its
    ledger charges it.

    [bold]Examples[/bold]

      privagg personalise out/model.safetensors --config my.toml --site north

      privagg personalise model.safetensors --party north --pull 0.5    in a deployment, at north
    """
    from privagg.party import personal

    folder, setup = opened_site(config, site, party)
    rule = personal.HomeRule(steps, learning_rate, batch_size, pull, held_out)
    made = personal.personalise(setup, folder, model, rule, output=output)
    out = console.console()
    console.heading(out, f"{folder.party().name}'s own model")
    told = [
        (name, f"{made.opened[name]:.4f} as opened, {value:.4f} personal")
        for name, value in made.personal.items()
    ]
    facts = [("written", str(made.path)), ("charged", "nothing; the model stays at the site")]
    console.facts(out, [*told, *facts, ("keep to yourself", personal.NOT_CHARGED)])
