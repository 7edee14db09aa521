"""`algorithms`: what of federated learning's literature is here, and what is not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from privagg.cli import console
from privagg.cli.training import AsJson
from privagg.programs.literature import ALGORITHMS, NOT_HERE, markdown


def algorithms(
    as_json: AsJson = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="The two tables as README has them.")
    ] = False,
) -> None:
    """List the literature's algorithms: mode, what a round opens, what leaks, where it differs.

    What is not here stands below, with the reason. Reads and spends nothing.

    [bold]Examples[/bold]

      privagg algorithms

      privagg algorithms --json
    """
    if as_json:
        rows = {"here": [asdict(each) for each in ALGORITHMS]}
        console.print_json({**rows, "not_here": [asdict(each) for each in NOT_HERE]})
        return
    if as_markdown:
        typer.echo("\n".join(markdown()))
        return
    out = console.console()
    for each in ALGORITHMS:
        console.heading(out, each.name)
        facts = {
            "how": each.how.replace("`", ""), "modes": ", ".join(each.modes),
            "a round opens": each.opened, "leaks besides": each.leaks, "paper": each.paper,
            "differs": each.differs,
        }  # fmt: skip
        console.facts(out, [(name, text) for name, text in facts.items() if text])
    console.heading(out, "not here")
    console.facts(out, [(each.name, each.reason.replace("`", "")) for each in NOT_HERE])
