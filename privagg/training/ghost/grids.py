"""The grid that a model's factors need: chosen from its shapes, before anything is agreed.

A side of T positions and k values a position errs by about sqrt(T k / (12 S)) of a record's
gradient, so that what is well rounded with one position is far too coarse with hundreds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from privagg.training.ghost.layers import Breakdown
from privagg.training.ghost.pieces import LARGEST_FACTORED_GRID, Factors
from privagg.training.ghost.taps import Taps

USUAL_GRID = 2**16
"""S where nothing asks for more."""

_UNITS_A_VALUE = 64  # a side errs by at most 3.6 %, as with 1,024 values at the usual grid


@dataclass(frozen=True)
class Side:
    """The side of a factored gradient that a grid rounds most.

    Args:
        parameter: its name in the model.
        positions: T, of a record.
        width: k, values at a position.
    """

    parameter: str
    positions: int
    width: int

    def error(self, sensitivity_grid: int) -> float:
        """About how far rounding moves a long record's gradient, as a part of it."""
        return math.sqrt(self.positions * self.width / (12 * sensitivity_grid))

    @property
    def grid(self) -> int:
        """S at which that is at most 3.6 %, a power of two from 2^16 to 2^22."""
        least = _UNITS_A_VALUE * self.positions * self.width
        return min(LARGEST_FACTORED_GRID, max(USUAL_GRID, 1 << (least - 1).bit_length()))


def coarsest(model: nn.Module, input_shape: tuple[int, ...]) -> Side | None:
    """Which side of which weight is rounded most; None where all gradients are formed.

    Args:
        model: is hooked by it, so belongs to nobody else.
        input_shape: of one record's input; zeros of it are put through the model.
    """
    try:
        breakdown = Breakdown(model.train(), USUAL_GRID)
        taps = Taps(breakdown.layers.items())
        uses = taps.caught(lambda: model(torch.zeros(1, *input_shape)).sum())
        with torch.no_grad():
            pieces = breakdown.pieces(uses, 1)
    except Exception:  # cannot be trained as it is: the test before training says why, by layer
        return None
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    sides = [
        Side(names[id(piece.parameter)], *piece.widest)
        for piece in pieces
        if isinstance(piece, Factors)
    ]
    return max(sides, key=lambda side: side.positions * side.width, default=None)
