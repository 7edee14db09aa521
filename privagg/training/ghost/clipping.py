"""The integers of one batch: every record's norm at most S, in exact arithmetic, then one sum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import ConfigError
from privagg.training.ghost.integers import is_seen, may_hold, root
from privagg.training.ghost.pieces import LARGEST_BATCH, Piece

LARGEST_GRID = 2**26
"""Up to this S, S^2 < 2^53: squared norms are compared among float64's exact integers."""

_TRIES = 5
_FLOAT_ERROR = 2.0**-18  # of norms and products in float32
_TRIES_UNSEEN = 2  # where a look whether more are needed would wait for the device


def require_grid(grid: Grid) -> None:
    """Refuses a grid on which a norm could leave float64's exact integers.

    Raises:
        ConfigError: it is finer than the proof has room for.
    """
    if grid.sensitivity_grid > LARGEST_GRID:
        raise ConfigError(
            f"engine 'exact' has room for a sensitivity_grid of at most 2^26, got "
            f'{grid.sensitivity_grid}; make it smaller, or set training.engine = "opacus"'
        )


def require_batch(physical_batch: int) -> None:
    """Refuses a batch whose sums could leave float64's exact integers.

    Raises:
        ConfigError: it is larger than the proof has room for.
    """
    if physical_batch > LARGEST_BATCH:
        raise ConfigError(
            f"engine 'exact' computes at most {LARGEST_BATCH} records together, got physical_batch "
            f"= {physical_batch}; make it smaller"
        )


def margin_of(pieces: Sequence[Piece], sensitivity: int) -> float:
    """Which part of the clip norm is left for rounding, from the pieces' shapes and S alone.

    Errors of rounding have variance 1/12. So a record's norm, in units of S, grows by a random
    part, here taken five times over, and by half the errors' own squared norm. Too small a margin
    costs a second look at the norms, too large a one a part of every long gradient.
    """
    found = [piece.rounding() for piece in pieces]
    spread = 5 * math.sqrt(max(largest for largest, _ in found) / 12) / sensitivity
    growth = sum(single for _, single in found) / 24 / sensitivity**2
    return min(0.5, min(spread, 8 / math.sqrt(sensitivity)) + growth + _FLOAT_ERROR)


def clip(pieces: Sequence[Piece], grid: Grid, kept: torch.Tensor) -> None:
    """Quantises every record's gradient; afterwards its integer norm over all pieces is at most S.

    What a record becomes depends on its own rows of the pieces alone. A record that is not
    finite, or that is not kept, is zero.

    Args:
        pieces: at least one; of every parameter that takes part in the loss.
        grid: C and S; S at most `LARGEST_GRID`.
        kept: bool `(B,)`, False in rows that hold no record.
    """
    sensitivity, norm = float(grid.sensitivity_grid), float(grid.clip_norm_l2)
    norms = root(_total([piece.float_squares() for piece in pieces]))
    room = sensitivity * (1 - margin_of(pieces, grid.sensitivity_grid))
    scale = (room / norms).clamp_(max=sensitivity / norm).masked_fill_(~kept, 0.0)
    for piece in pieces:
        piece.quantise(scale)
    _clear(pieces, ~torch.isfinite(norms))  # a product with 0 would keep NaN
    limit = sensitivity**2
    squares = _total([piece.squares() for piece in pieces])
    for turn in range(_TRIES if is_seen(squares) else _TRIES_UNSEEN):
        too_long = ~(squares <= limit)
        if not may_hold(too_long):
            return
        # Truncation lowers every factor's entries, so that the first shrink nearly always does.
        shrink = (sensitivity / root(squares)) * (1 - 2.0 ** (2 * turn - 12))
        factor = torch.where(too_long, shrink.nan_to_num(0.0, 0.0, 0.0), torch.ones_like(shrink))
        for piece in pieces:
            piece.shrunk(factor)
        squares = _total([piece.squares() for piece in pieces])
    _clear(pieces, ~(squares <= limit))


def add_up(pieces: Sequence[Piece], trainable: Sequence[nn.Parameter]) -> torch.Tensor:
    """The sum of the records' integers after `clip`, int64 `(d,)`, in the order of `trainable`."""
    found = torch.zeros(
        sum(p.numel() for p in trainable), dtype=torch.int64, device=trainable[0].device
    )
    parts = torch.split(found, [p.numel() for p in trainable])
    places = dict(zip(map(id, trainable), parts, strict=True))
    for piece in pieces:
        places[id(piece.parameter)].copy_(piece.total().reshape(-1))
    return found


def _clear(pieces: Sequence[Piece], rows: torch.Tensor) -> None:
    if may_hold(rows):
        for piece in pieces:
            piece.clear(rows)


def _total(values: list[torch.Tensor]) -> torch.Tensor:
    """Added one after another: below 2^53 exact, as none is negative."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
