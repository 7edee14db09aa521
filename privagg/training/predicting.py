"""What a trained model says about a table's records, for whoever holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from privagg.training.declared import TableSource
from privagg.training.evaluate import predict_logits
from privagg.training.models import get_parameters
from privagg.training.reading import declared


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
        DataError: the file cannot be read, or a declared feature is missing.
    """
    frame = declared(source, Path(path), target=False)
    x = np.concatenate([f.encode(frame[f.name]) for f in source.schema.features], axis=1)
    inputs = torch.from_numpy(x.astype(np.float32))
    outputs = predict_logits(model, get_parameters(model), inputs).to(torch.float64)
    return source.schema.target.predictions(outputs.numpy())
