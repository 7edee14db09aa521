"""Per-record losses: one function each, a record's loss from its own row alone."""

from __future__ import annotations

import torch
from torch.nn import functional


def class_loss(outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Logistic loss for one logit, cross-entropy for several, float32 `(B,)`.

    Args:
        outputs: logits, float32 `(B, 1)` or `(B, k)`.
        classes: int64 `(B,)`.
    """
    if outputs.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(
            outputs[:, 0], classes.to(outputs.dtype), reduction="none"
        )
    return functional.cross_entropy(outputs, classes, reduction="none")
