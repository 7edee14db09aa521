"""Per-record losses: one function each, a record's loss from its own row alone."""

from __future__ import annotations

from collections.abc import Sequence

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


def squared_loss(outputs: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Half the squared error, float32 `(B,)`.

    Args:
        outputs: float32 `(B, 1)`.
        places: float32 `(B,)`.
    """
    return 0.5 * (outputs[:, 0] - places) ** 2


def huber_loss(outputs: torch.Tensor, places: torch.Tensor, delta: float) -> torch.Tensor:
    """Half the squared error up to `delta`, a straight line beyond, float32 `(B,)`.

    Args:
        outputs: float32 `(B, 1)`.
        places: float32 `(B,)`.
        delta: in the same unit.

    Source: Huber 1964.
    """
    return functional.huber_loss(outputs[:, 0], places, reduction="none", delta=delta)


def poisson_loss(outputs: torch.Tensor, amounts: torch.Tensor, most: float) -> torch.Tensor:
    """Negative log-likelihood of a Poisson count, but for a constant, float32 `(B,)`.

    Args:
        outputs: logarithms of the expected amounts, float32 `(B, 1)`.
        amounts: float32 `(B,)`, at least 0, in the unit of the expected ones.
        most: the largest logarithm that can be meant; beyond it the loss goes on straight.
    """
    return _exp(outputs[:, 0], most) - amounts * outputs[:, 0]


def gamma_loss(outputs: torch.Tensor, amounts: torch.Tensor, least: float) -> torch.Tensor:
    """Half a gamma variable's deviance, but for what depends on its amount alone, float32 `(B,)`.

    Args:
        outputs: logarithms of the expected amounts, float32 `(B, 1)`.
        amounts: float32 `(B,)`, above 0, in the unit of the expected ones.
        least: the smallest logarithm that can be meant; below it the loss goes on straight.
    """
    return amounts * _exp(-outputs[:, 0], -least) + outputs[:, 0]


def threshold_loss(outputs: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
    """Mean logistic loss over the thresholds between grades, float32 `(B,)`.

    Args:
        outputs: logits that the grade is above each threshold, float32 `(B, k - 1)`.
        grades: int64 `(B,)`, from 0 to k - 1.
    """
    above = grades[:, None] > torch.arange(outputs.shape[1], device=outputs.device)
    return _mean_logistic(outputs, above)


def labels_loss(
    outputs: torch.Tensor, labels: torch.Tensor, weights: Sequence[float]
) -> torch.Tensor:
    """Mean logistic loss over labels that do not exclude each other, float32 `(B,)`.

    Args:
        outputs: logits, float32 `(B, m)`.
        labels: 1 where a record has a label, else 0, int64 `(B, m)`.
        weights: of having each label, beside 1 of not having it.
    """
    return _mean_logistic(outputs, labels, torch.tensor(weights, device=outputs.device))


def hazard_loss(logits: torch.Tensor, seen: torch.Tensor, happened: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of discrete hazards, all intervals of a record added, float32 `(B,)`.

    Args:
        logits: of the hazard in each interval, float32 `(B, K)`.
        seen: the part of each interval that counts, 1 in that of the event, `(B, K)`.
        happened: 1 in the interval of the event, else 0, `(B, K)`.
    """
    return (functional.softplus(logits) * seen - logits * happened).sum(dim=1)


def _mean_logistic(
    outputs: torch.Tensor, yes: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    each = functional.binary_cross_entropy_with_logits(
        outputs, yes.to(outputs.dtype), pos_weight=weights, reduction="none"
    )
    return each.mean(dim=1)


def _exp(values: torch.Tensor, most: float) -> torch.Tensor:
    """exp up to `most`, then its tangent: a gradient that stays finite and points back."""
    return values.clamp(max=most).exp() * (1.0 + functional.relu(values - most))
