"""What an opened model says of a record: the sites' part, which alone needs torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from privagg.encoding.vectors import FloatVector
from privagg.programs.evaluation.held import OpenedModel, digest_of
from privagg.training.factories import ApprovedCode
from privagg.training.models import build_model, set_parameters
from privagg.training.targets import TargetKind
from privagg.training.torch_state import deterministic_torch


def model_outputs(
    opened: OpenedModel,
    target: TargetKind,
    parameters: FloatVector,
    inputs: npt.NDArray[np.float32],
    code: ApprovedCode,
) -> npt.NDArray[np.float64]:
    """What a model says of each record, computed from that record alone.

    A matrix product over a batch rounds a row by where it stands and what stands beside it. So
    every record goes through the model by itself, from memory that is laid out alike each time.

    Args:
        opened: the model.
        target: what it predicts.
        parameters: float64 `(d,)`, public.
        inputs: float32 `(n, width)`.
        code: what may be imported for a model of somebody's own.

    Returns:
        float64 `(n, k)`.

    Raises:
        ValueError: these are not the parameters of the one that is pinned.
    """
    if opened.pinned and digest_of(parameters) != opened.parameters_sha256:
        raise ValueError("the public state holds other parameters than the pinned model's")
    model = build_model(opened.spec, inputs.shape[1:], target, seed=opened.seed, code=code)
    set_parameters(model, parameters)
    model.eval()
    with torch.no_grad(), deterministic_torch():
        rows = [model(torch.tensor(one[None])).to(torch.float64).numpy()[0] for one in inputs]
    return np.stack(rows) if rows else np.empty((0, target.outputs))
