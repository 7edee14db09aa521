"""Losses' gradients at a model's outputs, the same bits on every machine and in every batch.

Made of +, -, *, / and comparisons alone, element by element, which IEEE 754 rounds in one way, and
of sums of integers that float64 holds exactly in every order. Nothing is contracted: each
operation is a call of its own.
"""

from __future__ import annotations

import torch

LARGEST_FALL = 32.0
"""exp(-32) is below 2^-46: what lies lower counts as this."""

_SQUARINGS = 6
_TERMS = 10
_UNITS = 2.0**40


def falling_exp(t: torch.Tensor) -> torch.Tensor:
    """exp(t), within a relative 2^-25 of it, elementwise.

    Args:
        t: float64, in [-`LARGEST_FALL`, 0].
    """
    part = t * 2.0**-_SQUARINGS
    found = torch.ones_like(t)
    for order in range(_TERMS, 0, -1):  # Horner
        found = found * part * (1.0 / order) + 1.0
    for _ in range(_SQUARINGS):
        found = found * found
    return found


def class_slope(outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The gradient of `losses.class_loss` at the outputs.

    Args:
        outputs: logits, float64 `(B, 1)` or `(B, k)`, finite, k <= 2^13.
        classes: int64 `(B,)`.

    Returns:
        float64 `(B, k)`, within 2^-25 of the slope; row i is a function of row i alone.
    """
    rows = torch.arange(len(outputs))
    if outputs.shape[1] == 1:
        sign = 1.0 - 2.0 * classes.to(torch.float64)[:, None]
        fall = falling_exp(-outputs.abs().clamp(max=LARGEST_FALL))
        return sign * torch.where(outputs * sign > 0, torch.ones_like(fall), fall) / (1.0 + fall)
    below = (outputs - outputs.amax(1, keepdim=True)).clamp(min=-LARGEST_FALL)
    weights = torch.round(falling_exp(below) * _UNITS)  # integers: their sum has one value
    total = weights.sum(1, keepdim=True)
    weights[rows, classes] -= total[:, 0]
    return weights / total
