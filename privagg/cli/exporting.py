"""`export`: a released model in a form that runs without privagg."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from privagg.cli import console
from privagg.cli.predicting import MODEL_HELP, read_answer
from privagg.durable import write_whole
from privagg.errors import ConfigError


class Form(StrEnum):
    """What a model can be written as."""

    ONNX = "onnx"
    SQL = "sql"


def export(
    model: Annotated[Path, typer.Argument(help=MODEL_HELP)],
    form: Annotated[
        Form, typer.Option("--format", help="onnx, or of a scorecard sql too.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="By default beside the model."),
    ] = None,
) -> None:
    """Write a model as ONNX, or a scorecard as SQL, for programs that do not have privagg.

    ONNX: an input for each declared column, (N, 1), float64 of numbers (NaN: missing) and strings
    of texts (empty: missing); `predictions` come out, and a scorecard's `points`. Values out of
    range, codes for "not measured" and unknown categories are treated as privagg treats them, so
    that a table needs no preparation. Of scorecards, boosted trees, logistic and mlp; the extra
    privagg\\[onnx] writes it.

    SQL: an expression that gives a row's points, a CASE for each column; of several classes one
    for each.

    [bold]Examples[/bold]

      privagg export out/model.safetensors --format onnx

      privagg export out/answers.json --format sql --output card.sql
    """
    data = f"{_sql(model)}\n".encode() if form is Form.SQL else _onnx(model)
    place = output or model.with_suffix(f".{form.value}")
    write_whole(place, data)
    console.note(f"written: {place}")


def _sql(model: Path) -> str:
    from privagg.programs.scorecard.card import Card
    from privagg.programs.scorecard.cards import Cards
    from privagg.programs.scorecard.sql import sql_of, sql_of_cards

    made = None if model.suffix == ".safetensors" else read_answer(model)
    if isinstance(made, Cards):
        return sql_of_cards(made)
    if isinstance(made, Card):
        return sql_of(made)
    raise ConfigError(f"{model} is no scorecard; only scorecards are written as SQL")


def _onnx(model: Path) -> bytes:
    try:
        from privagg.programs.distill.labels import Labels
        from privagg.programs.fedboost.ensemble import Ensemble
        from privagg.programs.scorecard import onnx as cards
        from privagg.programs.trees import onnx as trees
        from privagg.programs.trees.model import Trees
        from privagg.training import onnxmodel
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}; install privagg[onnx]") from error
    if model.suffix != ".safetensors":
        made = read_answer(model)
        if isinstance(made, Labels):
            raise ConfigError(
                f"{model} holds labels of public records, and no model: `privagg predict` fits one"
            )
        if isinstance(made, Ensemble):
            raise ConfigError(
                f"{model} holds weights of predictors that are files or columns of their own; "
                "export each and weigh what they say, or use `privagg predict`"
            )
        return trees.onnx_of(made) if isinstance(made, Trees) else cards.onnx_of(made)
    from privagg.training.predicting import read_model

    return onnxmodel.onnx_of(*read_model(model))
