"""`predict`: what a released model says of a table's records, for whoever holds them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privagg.cli import console
from privagg.durable import write_whole
from privagg.errors import ConfigError

if TYPE_CHECKING:
    from privagg.programs.scorecard.card import Card


def predict(
    model: Annotated[
        Path, typer.Argument(help="A scorecard's answers.json, or a model.safetensors.")
    ],
    data: Annotated[
        Path | None, typer.Argument(help="A table with the declared features; no target is needed.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG",
            help="The configuration that the model was trained by; a scorecard needs none.",
        ),
    ] = None,
    written: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a file, do not print.")
    ] = None,
    reasons: Annotated[
        int, typer.Option(min=0, max=20, help="scorecard: columns that cost most points.")
    ] = 3,
    sql: Annotated[
        bool, typer.Option("--sql", help="scorecard: write it as an SQL expression instead.")
    ] = False,
) -> None:
    """Predict each record of a table, as CSV in the table's order.

    A scorecard gives points, the chance of the second class (or the expected amount), and the
    columns that cost the record most points, with how many it lacks to the best bin. It knows its
    columns itself. A model of safetensors is read by the configuration that trained it.

    Predictions say as much about the records as the records do.

    [bold]Examples[/bold]

      privagg predict out/answers.json new.csv

      privagg predict out/answers.json --sql --csv card.sql

      privagg predict out/model.safetensors new.csv --config my.toml --csv predicted.csv
    """
    if sql:
        from privagg.programs.scorecard.sql import sql_of

        _write(sql_of(_card(model)) + "\n", written)
        return
    if data is None:
        raise ConfigError("name the table whose records are predicted, or --sql for the card")
    if model.suffix == ".safetensors":
        rows = _by_training(model, data, config)
    else:
        rows = _by_card(_card(model), data, config, reasons)
    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerows(rows)
    _write(made.getvalue(), written)


def _write(text: str, path: Path | None) -> None:
    if path is None:
        typer.echo(text, nl=False)
        return
    write_whole(path, text.encode())
    console.note(f"written: {path}")


def _card(path: Path) -> Card:
    from privagg.programs.scorecard.card import Card

    try:
        return Card.read(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the scorecard {path}: {error}") from error


def _by_card(card: Card, data: Path, config: Path | None, most: int) -> Iterator[Sequence[Any]]:
    from privagg.programs.questions.columns import Columns
    from privagg.training.declared import TableSource
    from privagg.training.reading import declared
    from privagg.training.tablefile import TableFile

    file = TableFile()
    if config is not None:
        file = _source(config).file
    frame = declared(TableSource(card.data, file), data, target=False)
    records = Columns.read(frame, card.data, target=False)
    value = "expected" if card.is_amount else "chance"
    names = [f"{what}_{n}" for n in range(1, most + 1) for what in ("reason", "lacks")]
    yield ["points", value, *names]
    each = zip(
        card.points(records).tolist(), card.predictions(records).tolist(),
        card.reasons(records, most), strict=True,
    )  # fmt: skip
    for points, chance, found in each:
        told = [part for reason in found for part in reason]
        yield [points, f"{chance:.6g}", *told, *[""] * (2 * most - len(told))]


def _source(config: Path) -> Any:
    from privagg import Federation
    from privagg.config.data import TableData

    section = Federation.from_toml(config).config.data
    if not isinstance(section, TableData):
        raise ConfigError(f"{config} is not about tables; call federation.trained_model() on yours")
    return section.source


def _by_training(model: Path, data: Path, config: Path | None) -> Iterator[Sequence[Any]]:
    if config is None:
        raise ConfigError(
            f"{model} holds numbers alone; name the configuration that it was trained by: --config"
        )
    from privagg import Federation

    federation = Federation.from_toml(config)
    found = federation.predict(data, model=model)
    found = found.reshape(len(found), -1)
    yield [f"prediction_{n}" for n in range(1, found.shape[1] + 1)]
    yield from ([f"{each:.6g}" for each in row] for row in found.tolist())
