"""From a layer's inputs and output gradients to what each record's gradient is made of there.

Linear layers, convolutions and embeddings are factored where that is cheaper than forming their
gradients. All others are formed by Opacus' rules, layer by layer; so are parameters of two layers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from types import ModuleType

import torch
from torch import nn
from torch.nn import functional

from privagg.errors import ModelError
from privagg.training.ghost.pieces import (
    LARGEST_FACTORED_GRID,
    Factors,
    Formed,
    Left,
    Piece,
    Tokens,
)
from privagg.training.ghost.taps import Use

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_KNOWN = (nn.Linear, nn.Embedding, *_CONVOLUTIONS)
_WINDOW_VALUES = 1 << 18  # a megabyte of float32


def layers_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers with trainable parameters of their own, by path.

    Nothing inside a layer that Opacus has no rule for: the rule for its kind covers all of it.
    """
    yield from _below("", model)


def _below(path: str, layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    own = any(p.requires_grad for p in layer.parameters(recurse=False))
    if own and (type(layer) in _KNOWN or not _opacus().holds_its_cells(layer)):
        yield path, layer
        if not _has_rule(layer):
            return
    for name, child in layer.named_children():
        yield from _below(f"{path}.{name}" if path else name, child)


class Breakdown:
    """How the gradients of one model's parameters are made of its layers' inputs and outputs.

    Args:
        model: as it will train.
        sensitivity: S, the integer norm that no record exceeds.

    Raises:
        ModelError: Opacus has no rule for a layer.
    """

    def __init__(self, model: nn.Module, sensitivity: int) -> None:
        self.layers = dict(layers_of(model))
        self._sensitivity = sensitivity
        self._names = {id(p): name for name, p in model.named_parameters()}
        owners = Counter(id(p) for layer in self.layers.values() for p in layer.parameters())
        self._shared = {parameter for parameter, count in owners.items() if count > 1}
        for path, layer in self.layers.items():
            if not _has_rule(layer):
                _opacus().prepare(path, layer)

    def pieces(self, uses: dict[str, list[Use]], count: int) -> list[Piece]:
        """What each trainable parameter's gradients are made of; each parameter at most once.

        Args:
            uses: path -> calls of the layer, from `Taps`; emptied on the way, to free memory.
            count: number of records.

        Raises:
            ModelError: a layer saw another number of rows than there are records.
        """
        pieces: list[Piece] = []
        formed: dict[nn.Parameter, torch.Tensor] = {}
        lefts: dict[object, Left] = {}
        for path in list(uses):
            layer, calls = self.layers[path], uses.pop(path)
            for call in calls:
                self._require_rows(layer, call, count)
            if self._is_factored(layer):
                pieces += self._own(layer, calls, count, lefts)
                continue
            for call in calls:
                for parameter, rows in _opacus().gradients(layer, call).items():
                    if len(rows) != count:
                        raise self._wrong_rows(parameter, len(rows), count)
                    flat = rows.detach().reshape(count, -1)
                    formed[parameter] = formed[parameter] + flat if parameter in formed else flat
        return pieces + [Formed(p, rows) for p, rows in formed.items() if p.requires_grad]

    def _is_factored(self, layer: nn.Module) -> bool:
        if any(id(p) in self._shared for p in layer.parameters()):
            return False
        if isinstance(layer, nn.Conv1d | nn.Conv2d) and type(layer) in _CONVOLUTIONS:
            plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
            return plain and layer.groups == 1
        return type(layer) in _KNOWN or _opacus().is_linear(layer)

    def _own(
        self, layer: nn.Module, calls: Sequence[Use], count: int, lefts: dict[object, Left]
    ) -> list[Piece]:
        """The pieces of a layer of a kind that is known here; it may share a left factor."""
        if isinstance(layer, nn.Embedding):
            return [_embedded(layer, calls, count)]
        if isinstance(layer, nn.Conv1d | nn.Conv2d) and self._forms_convolution(layer, calls):
            return _convolved(layer, calls)
        laid = [_as_positions(layer, call) for call in calls]
        a = torch.cat([a for a, _ in laid], dim=1) if len(laid) > 1 else laid[0][0]
        g = torch.cat([g for _, g in laid], dim=1) if len(laid) > 1 else laid[0][1]
        weight, bias = layer.weight, layer.bias
        pieces: list[Piece] = []
        if isinstance(weight, nn.Parameter) and weight.requires_grad:
            if self._forms(a.shape[1], a.shape[2], g.shape[2]):
                pieces.append(Formed(weight, (g.transpose(1, 2) @ a).flatten(1)))
            else:
                left = lefts.setdefault(_place_of(a), Left(a, self._sensitivity))
                pieces.append(Factors(weight, left, g))
        if isinstance(bias, nn.Parameter) and bias.requires_grad:
            pieces.append(Formed(bias, g.sum(1) if g.shape[1] > 1 else g[:, 0]))
        return pieces

    def _forms_convolution(self, layer: nn.Conv1d | nn.Conv2d, calls: Sequence[Use]) -> bool:
        positions = sum(call.gradient[0, 0].numel() for call in calls)
        return self._forms(positions, layer.weight[0].numel(), len(layer.weight))

    def _forms(self, positions: int, m: int, o: int) -> bool:
        """Whether the gradient itself is about as cheap as its factors; it rounds less."""
        if positions == 1:
            return m * o <= 2 * (m + o)
        return positions * (m + o) >= m * o or self._sensitivity > LARGEST_FACTORED_GRID

    def _require_rows(self, layer: nn.Module, call: Use, count: int) -> None:
        for seen in (len(call.entered), len(call.gradient)):
            if seen != count:
                raise self._wrong_rows(next(layer.parameters()), seen, count)

    def _wrong_rows(self, parameter: nn.Parameter, seen: int, count: int) -> ModelError:
        return ModelError(
            f"parameter {self._names.get(id(parameter), '')!r} got {seen} gradients for {count} "
            "records, so its layer does not see one record in each place of axis 0"
        )


def _place_of(a: torch.Tensor) -> object:
    """The same for tensors that are alive together and show the same memory; unlike any other."""
    where = a.data_ptr()  # 0 on a device without data
    return (where, a.dtype, a.shape, a.stride()) if where else object()


def _embedded(layer: nn.Embedding, calls: Sequence[Use], count: int) -> Piece:
    tokens = torch.cat([call.entered.reshape(count, -1) for call in calls], dim=1)
    g = torch.cat([c.gradient.reshape(count, -1, layer.embedding_dim) for c in calls], dim=1)
    if layer.padding_idx is not None:  # this row is not trained
        g = g.masked_fill((tokens == layer.padding_idx)[:, :, None], 0.0)
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    return Tokens(weight, tokens.long(), g)


def _as_positions(layer: nn.Module, call: Use) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs `(B, T, m)` and output gradients `(B, T, o)` of one call."""
    a, g = call.entered, call.gradient
    count = len(a)
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return _windows(layer, a).transpose(1, 2), g.flatten(2).transpose(1, 2)
    width_in, width_out = a.shape[-1], g.shape[-1]
    positions = math.prod(a.shape[1:-1])
    return a.reshape(count, positions, width_in), g.reshape(count, positions, width_out)


def _convolved(layer: nn.Conv1d | nn.Conv2d, calls: Sequence[Use]) -> list[Piece]:
    """A convolution's gradients, formed; few records at a time, so that windows stay in caches."""
    weight, bias = layer.weight, layer.bias
    pieces: list[Piece] = []
    if isinstance(weight, nn.Parameter) and weight.requires_grad:
        rows = []
        for call in calls:
            g = call.gradient.flatten(2)
            step = max(1, _WINDOW_VALUES // (weight[0].numel() * g.shape[2]))
            parts = zip(torch.split(call.entered, step), torch.split(g, step), strict=True)
            formed = [left @ _windows(layer, a).transpose(1, 2) for a, left in parts]
            rows.append(torch.cat(formed).flatten(1))
        pieces.append(Formed(weight, torch.stack(rows).sum(0) if rows[1:] else rows[0]))
    if isinstance(bias, nn.Parameter) and bias.requires_grad:
        sums = [call.gradient.flatten(2).sum(2) for call in calls]
        pieces.append(Formed(bias, torch.stack(sums).sum(0) if sums[1:] else sums[0]))
    return pieces


def _windows(layer: nn.Conv1d | nn.Conv2d, a: torch.Tensor) -> torch.Tensor:
    """What each output position of a convolution sees, `(B, m, T)`, as `functional.unfold` has it.

    Without dilation by a strided copy, which takes a fifth of its time.
    """
    tail = 2 - len(layer.kernel_size)  # a sequence is an image of one row
    image = a.unsqueeze(2) if tail else a
    kernel, dilation, stride = (
        (*((1,) * tail), *values) for values in (layer.kernel_size, layer.dilation, layer.stride)
    )
    padding = (*((0,) * tail), *(int(size) for size in layer.padding))
    if any(gap != 1 for gap in dilation):
        return functional.unfold(image, kernel, dilation, padding, stride)
    (high, wide), (down, right) = kernel, stride
    padded = functional.pad(image, (padding[1], padding[1], padding[0], padding[0]))
    seen = padded.unfold(2, high, down).unfold(3, wide, right)
    return seen.permute(0, 1, 4, 5, 2, 3).reshape(len(a), image.shape[1] * high * wide, -1)


def _has_rule(layer: nn.Module) -> bool:
    return type(layer) in _KNOWN or _opacus().has_rule(layer)


def _opacus() -> ModuleType:
    """Opacus' rules; they are loaded once a layer of no known kind is met."""
    from privagg.training.ghost import borrowed

    return borrowed
