"""What a model's outputs are held against in training: each record's own loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from privagg.training.losses import class_loss
from privagg.training.targets import Encoded, NumberedClasses, TargetKind

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs float32 (B, k), targets (B, ...)) -> (B,), each record's loss from its row alone."""


def _any_class(draw: np.random.Generator, count: int, outputs: int) -> Encoded:
    return NumberedClasses(count=max(2, outputs)).examples(draw, count)


@dataclass(frozen=True)
class Objective:
    """A loss, and targets to test it with before any record is looked at.

    Args:
        loss: each record's loss from its row alone.
        examples: synthetic targets, from public randomness, their count and how many outputs the
            model has; by default as many classes, or two.
    """

    loss: LossFunction
    examples: Callable[[np.random.Generator, int, int], Encoded] = _any_class

    @classmethod
    def of(cls, target: TargetKind) -> Objective:
        """What a declared target says."""
        return cls(target.loss, lambda draw, count, outputs: target.examples(draw, count))


CLASSES = Objective(class_loss)
"""Of as many classes as the model has outputs; two where it has one."""
