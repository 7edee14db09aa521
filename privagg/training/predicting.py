"""What a trained model says about a table's records, for whoever holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from privagg.errors import DataError, PrivaggError
from privagg.training.declared import TableSource
from privagg.training.evaluate import predict_logits
from privagg.training.inspection import Finding, check_features
from privagg.training.modelcard import ModelCard
from privagg.training.models import filled_model, get_parameters
from privagg.training.reading import declared
from privagg.training.saving import read_tensors
from privagg.training.table import TableSchema

LEAST_STRANGE = 5
"""Cells of a column that are all strange, from which on it is taken to be another column."""


def predict_table(
    model: nn.Module, source: TableSource, path: str | Path
) -> npt.NDArray[np.float64]:
    """Predictions of every record of a table; they are as private as the records.

    Args:
        model: trained, with the outputs that the target takes.
        source: the public declaration that the model was trained by, and how the table is written.
        path: a table with every declared feature; the target is not needed.

    Returns:
        As `TargetKind.predictions` has them, in the file's order. No record is left out: a missing
        cell is filled as declared, also under `drop_missing`.

    Raises:
        ConfigError: no such file, or another ending.
        DataError: the file cannot be read, or lacks a column, or one holds something else.
    """
    return predict_frame(model, source.schema, fitting(source, Path(path))[0])


def predict_frame(
    model: nn.Module, schema: TableSchema, frame: pd.DataFrame
) -> npt.NDArray[np.float64]:
    """The same of a table that was read.

    Args:
        model: as for `predict_table`.
        schema: the public declaration that it was trained by.
        frame: every declared feature, by its declared name.
    """
    x = np.concatenate([f.encode(frame[f.name]) for f in schema.features], axis=1)
    inputs = torch.from_numpy(x.astype(np.float32))
    outputs = predict_logits(model, get_parameters(model), inputs).to(torch.float64)
    return schema.target.predictions(outputs.numpy())


def read_model(path: Path) -> tuple[ModelCard, nn.Module]:
    """A trained model from its file alone; no code that the file names is run.

    Args:
        path: a `model.safetensors`; whoever wrote it.

    Raises:
        ConfigError: it cannot be read, does not say what it is, or is of somebody's own code.
        ModelError: its tensors are not the model's.
    """
    tensors, header = read_tensors(path)
    try:
        card = ModelCard.read(header)
        card.require_built_in()
        return card, filled_model(card.model, card.shape, card.table_schema.target, tensors)
    except PrivaggError as error:
        raise type(error)(f"cannot use the model {path}: {error}") from error


def fitting(source: TableSource, path: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """A table that a model is to predict, if its columns are those that the model knows.

    Args:
        source: the declaration that the model was trained by, and how the table is written.
        path: of the table.

    Returns:
        The table, and what its owner should know: cells that count as missing, or clamp.

    Raises:
        ConfigError, DataError: it cannot be read; a column is missing, or holds something else
            than was declared: no number at all where numbers are, no declared category at all.
    """
    frame = declared(source, path, target=False)
    found = check_features(source.schema, frame)
    for each in found:
        there = int(frame[each.column].notna().sum())
        if each.severity == "error" and each.count == there and there >= LEAST_STRANGE:
            raise DataError(
                f"column {each.column!r} of {path} holds something else than the model was "
                f"trained on: {each.message}"
            )
    return frame, found
