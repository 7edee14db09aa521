"""Opacus' rules, by which the gradients of layers that are not factored here are formed.

Loading Opacus takes as long as loading torch: it happens once a model has such a layer.
"""

from __future__ import annotations

import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer
from opacus.layers import DPGRU, DPLSTM, DPRNN
from opacus.layers.dp_rnn import RNNLinear
from torch import nn

from privagg.errors import ModelError
from privagg.training.ghost.taps import Use


def holds_its_cells(layer: nn.Module) -> bool:
    """Whether the layer's own parameters are those of the cells below it, which have the rules."""
    return type(layer) in (DPRNN, DPGRU, DPLSTM)


def is_linear(layer: nn.Module) -> bool:
    """Whether the layer computes what `nn.Linear` does, and may be factored as that."""
    return type(layer) is RNNLinear


def has_rule(layer: nn.Module) -> bool:
    """Whether Opacus has a rule for layers of this kind, which covers all that is below it."""
    return type(layer) in GradSampleModule.GRAD_SAMPLERS


def prepare(path: str, layer: nn.Module) -> None:
    """Ready a layer whose gradients are formed by functorch, there being no rule for its kind.

    Args:
        path: where the layer stands in its model.
        layer: it is changed in place.

    Raises:
        ModelError: its gradients cannot be formed.
    """
    try:
        prepare_layer(layer)
    except Exception as error:  # Opacus raises several kinds, some of its own
        raise ModelError(
            f"Opacus has no per-record gradients for layer {path!r} ({type(layer).__name__}): "
            f"{error}; replace the layer by one that Opacus supports (opacus.layers has recurrent "
            "and attention layers)"
        ) from error


def gradients(layer: nn.Module, call: Use) -> dict[nn.Parameter, torch.Tensor]:
    """The per-record gradients of one call of a layer, each `(B, ...)`."""
    rule = GradSampleModule.GRAD_SAMPLERS.get(type(layer), ft_compute_per_sample_gradient)
    found: dict[nn.Parameter, torch.Tensor] = rule(layer, [call.entered], call.gradient)
    return found
