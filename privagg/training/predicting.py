"""What a trained model says about a table's records, for whoever holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from privagg.errors import DataError
from privagg.training.data import read_frame
from privagg.training.evaluate import predict_logits
from privagg.training.models import get_parameters
from privagg.training.table import TableSchema


def predict_table(
    model: nn.Module, schema: TableSchema, path: str | Path
) -> npt.NDArray[np.float64]:
    """Predictions of every record of a table; they are as private as the records.

    Args:
        model: trained, with the outputs that the target takes.
        schema: the public declaration that the model was trained by.
        path: a `.csv` or `.parquet` file with every declared feature; the target is not needed.

    Returns:
        As `TargetKind.predictions` has them, in the file's order. No record is left out: a missing
        cell is filled as declared, also under `drop_missing`.

    Raises:
        ConfigError: no such file, or another ending.
        DataError: the file cannot be read, or a declared feature is missing.
    """
    frame = read_frame(path)
    missing = [feature.name for feature in schema.features if feature.name not in frame.columns]
    if missing:
        raise DataError(
            f"column(s) {', '.join(map(repr, missing))} declared but not in {path}, which has: "
            f"{', '.join(map(str, frame.columns))}; the model needs every feature"
        )
    x = np.concatenate([f.encode(frame[f.name]) for f in schema.features], axis=1)
    inputs = torch.from_numpy(x.astype(np.float32))
    outputs = predict_logits(model, get_parameters(model), inputs).to(torch.float64)
    return schema.target.predictions(outputs.numpy())
