"""What enters each layer and the loss's gradient at what leaves it, from one pass both ways.

Gradients are asked for at the layers' outputs alone, so that autograd forms none of a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from privagg.errors import ModelError


@dataclass(frozen=True)
class Use:
    """One call of a layer.

    Args:
        entered: the layer's input, `(B, ...)`.
        gradient: the loss's gradient at its output, `(B, ...)`.
    """

    entered: torch.Tensor
    gradient: torch.Tensor


class Taps:
    """Hooks on some layers, silent outside of `caught`.

    Args:
        layers: path in the model -> layer; each takes and gives one tensor.
    """

    def __init__(self, layers: Iterable[tuple[str, nn.Module]]) -> None:
        self._open = False
        self._entered: list[tuple[str, torch.Tensor, GradientEdge]] = []
        for path, layer in layers:
            layer.register_forward_hook(self._noting(path))

    def _noting(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(layer: nn.Module, entered: tuple[Any, ...], left: Any) -> None:
            if not self._open:
                return
            if not (len(entered) == 1 and all(map(torch.is_tensor, (*entered, left)))):
                raise ModelError(
                    f"layer {path!r} ({type(layer).__name__}) has parameters of its own and takes "
                    "or gives something else than one tensor, so its gradients are not known "
                    "record by record; put the parameters into a layer of torch.nn or opacus.layers"
                )
            # A trained parameter is float32, but for a test that looks without rounding.
            width = next((p.dtype for p in layer.parameters() if p.requires_grad), torch.float32)
            if left.requires_grad and left.dtype != width:
                raise ModelError(
                    f"layer {path!r} ({type(layer).__name__}) computes in {left.dtype}, and "
                    "per-record gradients are clipped in float32; take autocast, half or double "
                    "precision out of the model"
                )
            if left.requires_grad:
                # An edge alone: what left the layer is freed as soon as autograd is done with it.
                self._entered.append((path, entered[0].detach(), get_gradient_edge(left)))

        return note

    def caught(self, loss: Callable[[], torch.Tensor]) -> dict[str, list[Use]]:
        """Runs a forward and a backward pass: path -> the calls that the loss depends on, in order.

        Args:
            loss: computes the model's loss of a batch, a number.
        """
        with self._opened():
            found = loss()
            entered = list(self._entered)
        edges = [edge for _, _, edge in entered]
        gradients = torch.autograd.grad([found], edges, allow_unused=True) if edges else ()
        uses: dict[str, list[Use]] = {}
        for (path, inputs, _), gradient in zip(entered, gradients, strict=True):
            if gradient is not None:
                uses.setdefault(path, []).append(Use(inputs, gradient))
        return uses

    @contextmanager
    def _opened(self) -> Iterator[None]:
        self._open = True
        try:
            yield
        finally:
            self._open = False
            self._entered.clear()
