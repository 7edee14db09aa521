"""A batch's integers by exact ghost clipping: engine `exact`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import ConfigError
from privagg.training.ghost.clipping import add_up, clip, require_batch, require_grid
from privagg.training.ghost.layers import Breakdown
from privagg.training.ghost.pieces import Piece
from privagg.training.ghost.taps import Taps
from privagg.training.objective import Objective


class ExactEngine:
    """One forward and one backward pass; then integers, their norms, and their sum.

    Args:
        model: as it will train; it is hooked from now on.
        objective: each record's loss from its row alone.
        grid: C and S.

    Raises:
        ConfigError: the grid is finer than there is room for, or the model's device has no float64.
        ModelError: there is no rule for a layer.
    """

    def __init__(self, model: nn.Module, objective: Objective, grid: Grid) -> None:
        require_grid(grid)
        self._model, self._loss, self._grid = model, objective.loss, grid
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        _require_float64(self._trainable)
        self._breakdown = Breakdown(model, grid.sensitivity_grid)
        self._taps = Taps(self._breakdown.layers.items())

    def require_room(self, physical_batch: int) -> None:
        """See `Engine.require_room`."""
        require_batch(physical_batch)

    def batch_sum(self, x: torch.Tensor, y: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """See `Engine.batch_sum`; each record's integer norm is at most S, exactly."""
        pieces = self._pieces(x, y)
        with torch.no_grad():
            clip(pieces, self._grid, kept)
            return add_up(pieces, self._trainable)

    def batch_gradients(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.float32]:
        """See `Engine.batch_gradients`: formed from what training catches."""
        rows = {id(piece.parameter): piece.gradients() for piece in self._pieces(x, y)}
        parts = [
            rows[id(p)] if id(p) in rows else p.new_zeros(len(x), p.numel())
            for p in self._trainable
        ]
        return np.asarray(torch.cat(parts, dim=1).cpu().numpy(), dtype=np.float32)

    def batch_bits(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.int32]:
        """See `Engine.batch_bits`: inputs and output gradients, norms, and the integers."""
        pieces = self._pieces(x, y)
        with torch.no_grad():
            found = [piece.floats() for piece in pieces]
            found += [p.float_squares()[:, None].view(torch.float32) for p in pieces]
            clip(pieces, self._grid, torch.ones(len(x), dtype=torch.bool, device=x.device))
            found += [piece.integers() for piece in pieces]
        return np.asarray(torch.cat(found, dim=1).cpu().numpy()).view(np.int32)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """See `Engine.silent`: hooks note nothing outside of a batch anyway."""
        yield

    def _pieces(self, x: torch.Tensor, y: torch.Tensor) -> list[Piece]:
        # A sum, so that no record's gradient is divided by how many there are.
        uses = self._taps.caught(lambda: self._loss(self._model(x), y).sum())
        with torch.no_grad():
            return self._breakdown.pieces(uses, len(x))


def _require_float64(parameters: list[nn.Parameter]) -> None:
    """Refuses a device without the arithmetic in which norms are exact, such as Apple's."""
    try:
        torch.zeros(1, dtype=torch.float64, device=parameters[0].device)
    except (TypeError, RuntimeError) as error:
        raise ConfigError(
            f"engine 'exact' checks norms in float64, which {parameters[0].device.type!r} lacks "
            f'({error}); train on another device, or set training.engine = "opacus"'
        ) from error
