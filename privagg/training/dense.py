"""Dense models in exact arithmetic: engine `exact-dense`.

Inputs, activations, weights and the loss's gradients at the layers' outputs are integers, with one
power of two as scale (a record's own; a weight's is public). So every matrix product is a sum of
integers that float64 holds exactly in every order, and all else is computed element by element by
operations that IEEE 754 rounds in one way. What a record contributes is then a function of that
record and of public values: no row, no neighbour, batch size, number of threads or library moves a
bit of it, and its owner can recompute a site's integers on another machine. The argument is
`proofs/exact-dense.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import ConfigError, ModelError
from privagg.kernels import rounding
from privagg.training.ghost.clipping import add_up, clip, require_batch, require_grid
from privagg.training.ghost.integers import is_compiled, root
from privagg.training.ghost.pieces import Factors, Formed, Left, Piece
from privagg.training.models import Centre
from privagg.training.objective import Objective

BITS = 20
"""Of inputs, activations and weights."""

SLOPE_BITS = 21
"""Of the loss's gradients at layers' outputs."""

MOST_INPUTS = 2**13
"""2^13 products of two numbers of 20 bits stay within 2^53."""

MOST_OUTPUTS = 2**11
"""2^11 squares of numbers of 21 bits stay within 2^53, and so do products with weights."""

_LARGEST_BITS = 40
LARGEST = 2.0**_LARGEST_BITS
"""A record with a larger value somewhere counts as one that is not finite; units stay above 2^-61,
so that products of two are ordinary numbers of float32."""

_ROWS = 256


class Whole(NamedTuple):
    """Numbers as integers times a power of two.

    Args:
        integers: float32, which holds them exactly, `(B, k)`.
        unit: powers of two, float64 `(B, 1)`.
        usable: bool `(B,)`, False where a number was not finite or beyond `LARGEST`: zeros.
        norms: of the integers, float64 `(B,)`; exact roots, rounded once, where a row's squares
            add up to at most 2^53.
    """

    integers: torch.Tensor
    unit: torch.Tensor
    usable: torch.Tensor
    norms: torch.Tensor

    def times(self, weight: torch.Tensor) -> torch.Tensor:
        """The exact product with integers, float64 `(B, o)`.

        A few records at a time, so that what is made of them stays in caches; transposed, as a
        matrix of few columns takes longer than one of few rows.

        Args:
            weight: integers of at most 2^20, float64 `(o, k)`.
        """
        products = weight.new_empty(len(weight), len(self.integers))
        for start in range(0, len(self.integers), _ROWS):
            part = slice(start, start + _ROWS)
            torch.mm(weight, self.integers[part].double().t(), out=products[:, part])
        return products.t()


def whole(values: torch.Tensor, bits: int) -> Whole:
    """Rounds each row to integers of at most 2^bits, by the row's own power of two.

    Args:
        values: float32 or float64 `(B, k)`.
        bits: at most 21.
    """
    if not is_compiled():
        return _whole(values, bits)
    integers = torch.empty(values.shape, dtype=torch.float32)
    found = rounding.blocks(values.contiguous().numpy(), bits, _LARGEST_BITS, integers.numpy())
    unit, usable, norms = map(torch.from_numpy, found)
    return Whole(integers, unit[:, None], usable, norms)


def _whole(values: torch.Tensor, bits: int) -> Whole:
    """The same by torch alone: the same bits, in several passes."""
    most = torch.maximum(values.amax(1), -values.amin(1)).double()
    usable = most <= LARGEST  # NaN is not
    most = most.clamp(min=1 / LARGEST).where(usable, torch.ones_like(most))
    # A number over its mantissa is a power of two above it, which division gives exactly.
    unit = (most / torch.frexp(most).mantissa)[:, None] * 2.0**-bits
    integers = (values * (1.0 / unit).to(values.dtype)).round_()
    integers = integers.masked_fill_(~usable[:, None], 0.0).float()
    return Whole(integers, unit, usable, root(integers.double().square_().sum(1)))


class DenseEngine:
    """One pass both ways through linear layers with ReLU between them, then exact ghost clipping.

    Args:
        model: a `Sequential` of Flatten, linear layers and ReLU, as `logistic` and `mlp` are.
        objective: a loss whose gradient at the outputs is known in exact arithmetic.
        grid: C and S.

    Raises:
        ConfigError: the grid is finer than there is room for, the loss has no such gradient, or the
            model is not on the CPU, whose arithmetic alone is looked at in the proof.
        ModelError: there is another layer, or one wider than there is room for.
    """

    def __init__(self, model: nn.Module, objective: Objective, grid: Grid) -> None:
        require_grid(grid)
        if objective.slope is None:
            raise ConfigError(
                "engine 'exact-dense' knows the gradients of classes' losses alone; set "
                'training.engine = "exact" for another target, or for a loss of your own'
            )
        self._slope, self._grid = objective.slope, grid
        self._steps = grid.sensitivity_grid
        self._before, self._linear = _parts(model)
        self._versions: list[int] = []
        self._made: list[Whole] = []
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        if any(not parameter.is_cpu for parameter in self._trainable):
            raise ConfigError(
                "engine 'exact-dense' computes on the CPU alone; set device = \"cpu\" in "
                'party.toml, or training.engine = "exact"'
            )

    def require_room(self, physical_batch: int) -> None:
        """See `Engine.require_room`."""
        require_batch(physical_batch)

    def batch_sum(self, x: torch.Tensor, y: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """See `Engine.batch_sum`; each record's integers are a function of that record alone."""
        with torch.no_grad():
            pieces, usable = self._pieces(x, y)
            clip(pieces, self._grid, kept & usable)
            return add_up(pieces, self._trainable)

    def batch_gradients(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.float32]:
        """See `Engine.batch_gradients`: formed from the factors; NaN where one is not finite."""
        with torch.no_grad():
            pieces, usable = self._pieces(x, y)
            rows = {id(piece.parameter): piece.gradients() for piece in pieces}
            parts = [
                rows[id(p)] if id(p) in rows else torch.zeros(len(x), p.numel())
                for p in self._trainable
            ]
            found = torch.cat(parts, dim=1).masked_fill_(~usable[:, None], torch.nan)
            return np.asarray(found.numpy(), dtype=np.float32)

    def batch_bits(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.int32]:
        """See `Engine.batch_bits`: factors, and the integers."""
        with torch.no_grad():
            pieces, usable = self._pieces(x, y)
            found = [piece.floats() for piece in pieces]
            clip(pieces, self._grid, usable)
            found += [piece.integers() for piece in pieces]
            return np.asarray(torch.cat(found, dim=1).numpy()).view(np.int32)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """See `Engine.silent`: there is no hook."""
        yield

    def _pieces(self, x: torch.Tensor, y: torch.Tensor) -> tuple[list[Piece], torch.Tensor]:
        """What the parameters' gradients are made of, and which records are within range."""
        weights = self._weights()
        inputs, outputs = self._forward(self._before(x), weights)
        slopes = self._backward(self._slope(outputs, y), inputs, weights)
        pieces: list[Piece] = []
        for layer, a, g in zip(self._linear, inputs, slopes, strict=True):
            if isinstance(layer.weight, nn.Parameter) and layer.weight.requires_grad:
                # The unit of what entered goes to the right factor: products keep their value.
                unit = g.unit * a.unit
                right = (g.integers * unit.float())[:, None]
                left = Left(a.integers[:, None], self._steps, norms=a.norms)
                norms = g.norms * unit[:, 0]
                pieces.append(Factors(layer.weight, left, right, norms=norms))
            if layer.bias is not None and layer.bias.requires_grad:
                rows = g.integers * g.unit.float()
                pieces.append(Formed(layer.bias, rows, norms=g.norms * g.unit[:, 0]))
        usable = torch.stack([part.usable for part in (*inputs, *slopes)]).all(0)
        return pieces, usable

    def _weights(self) -> list[Whole]:
        """The layers' weights as integers, each of one unit; public as the weights are."""
        versions = [layer.weight._version for layer in self._linear]
        if versions != self._versions:
            rows = [whole(layer.weight.reshape(1, -1), BITS) for layer in self._linear]
            self._made = [
                row._replace(integers=row.integers.view_as(layer.weight).double())
                for row, layer in zip(rows, self._linear, strict=True)
            ]
            self._versions = versions
        return self._made

    def _forward(
        self, x: torch.Tensor, weights: Sequence[Whole]
    ) -> tuple[list[Whole], torch.Tensor]:
        """What enters each layer, and the outputs."""
        entered: list[Whole] = []
        values = x
        for layer, weight in zip(self._linear, weights, strict=True):
            a = whole(values.relu_() if entered else values, BITS)
            entered.append(a)
            values = a.times(weight.integers).mul_(a.unit * weight.unit)
            if layer is not self._linear[-1]:
                values = values.float()  # finer than the next block, and half the memory
            if layer.bias is not None:
                values += layer.bias
        return entered, values

    def _backward(
        self, slope: torch.Tensor, entered: Sequence[Whole], weights: Sequence[Whole]
    ) -> list[Whole]:
        """The loss's gradient at each layer's outputs, given that at the last one's."""
        found = [whole(slope, SLOPE_BITS)]
        for a, weight in zip(entered[:0:-1], weights[:0:-1], strict=True):
            g = found[0]
            values = g.times(weight.integers.t()).mul_(g.unit * weight.unit).float()
            open_at = values.where(a.integers > 0, torch.zeros_like(values))
            found.insert(0, whole(open_at, SLOPE_BITS))
        return found


def _parts(model: nn.Module) -> tuple[nn.Sequential, list[nn.Linear]]:
    """What only arranges inputs, and the linear layers that ReLU stands between.

    Raises:
        ModelError: there is another layer, one wider than there is room for, or a shared one.
    """
    named = model.named_modules(remove_duplicate=False)
    layers = [(path, layer) for path, layer in named if path and "." not in path]
    if type(model) is not nn.Sequential:
        layers = [("", model)]
    before = nn.Sequential()
    while layers and type(layers[0][1]) in (nn.Flatten, Centre):
        before.append(layers.pop(0)[1])
    linear: list[nn.Linear] = []
    known: set[int] = set()
    for turn, (path, layer) in enumerate(layers):
        if type(layer) is not (nn.ReLU if turn % 2 else nn.Linear):
            raise _refused(path, layer)
        if isinstance(layer, nn.Linear):
            if layer.in_features > MOST_INPUTS or layer.out_features > MOST_OUTPUTS:
                raise _refused(path, layer, f"of {layer.in_features} by {layer.out_features}")
            own = {id(parameter) for parameter in layer.parameters()}
            if own & known:
                raise _refused(path, layer, "with a parameter of another layer")
            known |= own
            linear.append(layer)
    if len(layers) % 2 == 0:
        raise _refused(*(layers[-1] if layers else ("", model)))
    return before, linear


def _refused(path: str, layer: nn.Module, how: str = "where it stands") -> ModelError:
    return ModelError(
        f"engine 'exact-dense' computes linear layers of their own, of at most {MOST_INPUTS} "
        f"inputs and {MOST_OUTPUTS} outputs, with ReLU between them, as 'logistic' and 'mlp' have; "
        f"it has no rule for layer {path!r} ({type(layer).__name__}) {how}; "
        'set training.engine = "exact"'
    )
