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
    import pandas as pd

    from privagg.programs.distill.labels import Labels
    from privagg.programs.fedboost.ensemble import Ensemble
    from privagg.programs.scorecard.card import Card
    from privagg.programs.scorecard.cards import Cards
    from privagg.programs.trees.model import Trees
    from privagg.training.table import TableSchema

MODEL_HELP = (
    "The answers.json of a scorecard, boosted trees, an ensemble or labels, or a model.safetensors."
)


def predict(
    model: Annotated[Path, typer.Argument(help=MODEL_HELP)],
    data: Annotated[
        Path, typer.Argument(help="A table with the model's columns; no target is needed.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG",
            help="Whose [data.file] says how the table is written; a model of your own code is "
            "made by it.",
        ),
    ] = None,
    written: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a file, do not print.")
    ] = None,
    reasons: Annotated[
        int, typer.Option(min=0, max=20, help="scorecard: columns that cost most points.")
    ] = 3,
    student: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Labels of `distill`: the model that is fitted to them."),
    ] = None,
) -> None:
    """Predict each record of a table, as CSV in the table's order.

    The file knows its columns, their ranges and categories. A scorecard gives points, the chance of
    the second class (or the expected amount), and the columns that cost the record most points,
    with how many it lacks to the best bin; boosted trees and other models what their target says,
    such as a chance for each class; an ensemble of `fedboost` the weighed mean of its predictors,
    whose columns the table holds. To labels of `distill` a student is fitted first, of the kind
    they name or of --student: logistic, forest, network or an installed one. A table that lacks a
    column, or whose column holds something else, is refused.

    Predictions say as much about the records as the records do.

    [bold]Examples[/bold]

      privagg predict out/answers.json new.csv

      privagg predict out/model.safetensors new.csv --csv predicted.csv
    """
    if student is not None and model.suffix == ".safetensors":
        raise ConfigError(f"--student is for labels of `distill`, and {model} holds none")
    if model.suffix != ".safetensors":
        rows = _by_answers(model, data, config, reasons, student)
    elif config is not None:
        rows = _by_training(config, data, model)
    else:
        from privagg.training.predicting import predict_frame, read_model

        described, module = read_model(model)
        schema = described.table_schema
        found = predict_frame(module, schema, _read(schema, data, None))
        rows = _rows(schema.target.prediction_names, found)
    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerows(rows)
    if written is None:
        typer.echo(made.getvalue(), nl=False)
        return
    write_whole(written, made.getvalue().encode())
    console.note(f"written: {written}")


def read_answer(path: Path) -> Card | Cards | Trees | Ensemble | Labels:
    """A scorecard, one of each class, boosted trees, an ensemble, or labels, from their file.

    Raises:
        ConfigError: it cannot be read.
    """
    from privagg.programs.distill.labels import Labels
    from privagg.programs.fedboost.ensemble import Ensemble
    from privagg.programs.scorecard.card import Card
    from privagg.programs.scorecard.cards import Cards
    from privagg.programs.trees.model import Trees

    facts, kinds = _facts(path), (Labels, Trees, Ensemble)
    for kind in kinds:
        if kind.is_in(facts):
            return kind.read(facts)
    return Cards.read(facts) if Cards.are_in(facts) else Card.read(facts)


def _facts(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the model {path}: {error}") from error


def _by_answers(
    model: Path, data: Path, config: Path | None, most: int, student: str | None
) -> Iterator[Sequence[Any]]:
    from privagg.programs.distill.labels import Labels
    from privagg.programs.fedboost.ensemble import Ensemble
    from privagg.programs.questions.columns import Columns
    from privagg.programs.scorecard.cards import Cards
    from privagg.programs.trees.model import Trees

    made = read_answer(model)
    if student is not None and not isinstance(made, Labels):
        raise ConfigError(f"--student is for labels of `distill`, and {model} holds none")
    frame = _read(made.data, data, config)
    if isinstance(made, Labels):
        records = Columns.read(frame, made.data, target=False)
        return _rows(made.data.target.prediction_names, made.predictions(records, student))
    if isinstance(made, Trees | Ensemble):
        records = Columns.read(frame, made.data, target=False)
        return _rows(made.names, made.predictions(records))
    return _by_cards(made, frame) if isinstance(made, Cards) else _by_card(made, frame, most)


def _read(schema: TableSchema, data: Path, config: Path | None) -> pd.DataFrame:
    """A table with a model's columns; what its owner should know of it goes to stderr."""
    from privagg.training.declared import TableSource
    from privagg.training.predicting import fitting
    from privagg.training.tablefile import TableFile

    file = TableFile()
    if config is not None:
        from privagg import Federation

        file = getattr(Federation.from_toml(config).config.data, "file", file)
    frame, found = fitting(TableSource(schema, file), data)
    for each in found:
        if each.severity != "note":
            console.note(f"column {each.column!r}: {each.message}")
    return frame


def _by_card(card: Card, frame: pd.DataFrame, most: int) -> Iterator[Sequence[Any]]:
    from privagg.programs.questions.columns import Columns

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


def _by_cards(cards: Cards, frame: pd.DataFrame) -> Iterator[Sequence[Any]]:
    """Of several classes: the likeliest one, the chance of each, and the points on its card."""
    from privagg.programs.questions.columns import Columns

    records = Columns.read(frame, cards.data, target=False)
    labels = [str(each.label) for each in cards.cards]
    yield ["class", *(f"{what}_{each}" for what in ("chance", "points") for each in labels)]
    chances, points = cards.predictions(records), cards.points(records)
    for chance, own in zip(chances.tolist(), points.tolist(), strict=True):
        likeliest = labels[chance.index(max(chance))]
        yield [likeliest, *(f"{each:.6g}" for each in chance), *own]


def _by_training(config: Path, data: Path, model: Path) -> Iterator[Sequence[Any]]:
    from privagg import Federation

    federation = Federation.from_toml(config)
    found = federation.predict(data, model=model)
    return _rows(federation.config.data.target.prediction_names, found)


def _rows(names: Sequence[str], found: Any) -> Iterator[Sequence[Any]]:
    yield names
    yield from ([f"{each:.6g}" for each in row] for row in found.reshape(len(found), -1).tolist())
