"""How well a model does on records that were declared public. On any other it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from privagg.encoding.vectors import FloatVector
from privagg.errors import DataError, PrivacyError
from privagg.training.data import Records
from privagg.training.measures import BASE_RATE, ClassFigure, flat
from privagg.training.models import per_record_loss, set_parameters
from privagg.training.torch_state import deterministic_torch

_BLOCK = 1024


@dataclass(frozen=True)
class Metrics:
    """What a model does on a public table.

    Args:
        count: number of records.
        accuracy: share of records whose most probable class is theirs (threshold 0.5 for one
            logit).
        loss: mean loss.
        auc: area under the ROC curve for two classes; None for more, or where one class is absent.
        base_rate: share of the largest class: the accuracy of always answering with it.
        classes: every class of which there is a record.
    """

    count: int
    accuracy: float
    loss: float
    auc: float | None
    base_rate: float
    classes: tuple[ClassFigure, ...]

    @property
    def figures(self) -> dict[str, float]:
        """What is recorded after a round; without an AUC where there is none."""
        found = {"accuracy": self.accuracy, BASE_RATE: self.base_rate, "loss": self.loss}
        return found if self.auc is None else {**found, "auc": self.auc}

    @property
    def all_figures(self) -> dict[str, float]:
        """What is recorded with a released model: also each class by itself."""
        return {**self.figures, **flat(self.classes)}


def predict_logits(model: nn.Module, parameters: FloatVector, x: torch.Tensor) -> torch.Tensor:
    """The model's logits; no layer draws.

    Args:
        model: a model of its own; its parameters are set.
        parameters: float64 `(d,)`.
        x: inputs, float32 `(n, *input_shape)`.

    Returns:
        float32 `(n, k)`.
    """
    set_parameters(model, parameters)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), deterministic_torch():
            return torch.cat([model(block) for block in torch.split(x, _BLOCK)])
    finally:
        model.train(was_training)


def evaluate(model: nn.Module, parameters: FloatVector, records: Records) -> Metrics:
    """Accuracy, loss and AUC on public records, beside what guessing would reach.

    Args:
        model: a model of its own, not one that a site trains with.
        parameters: float64 `(d,)`.
        records: at least one record, declared public by their owner.

    Raises:
        PrivacyError: the records are not declared public; a metric on them would be a release.
        DataError: there is no record.
    """
    _require_public(records)
    if len(records) == 0:
        raise DataError("the public table has no usable record; nothing can be measured on it")
    x, y = records.gather(np.arange(len(records)))
    logits = predict_logits(model, parameters, x)
    score = _score(logits)
    chosen = logits.argmax(dim=1) if logits.shape[1] > 1 else (logits[:, 0] > 0).to(torch.int64)
    right = (chosen == y).numpy()
    classes = tuple(_of_class(int(number), y.numpy(), right) for number in np.unique(y.numpy()))
    return Metrics(
        count=len(records),
        accuracy=float(right.mean()),
        loss=float(per_record_loss(logits, y).to(torch.float64).mean()),
        auc=None if score is None else roc_auc(score, y.numpy() == 1),
        base_rate=max(each.count for each in classes) / len(records),
        classes=classes,
    )


def _of_class(
    number: int, labels: npt.NDArray[np.int64], right: npt.NDArray[np.bool_]
) -> ClassFigure:
    of_it = labels == number
    return ClassFigure(number, int(of_it.sum()), float(right[of_it].mean()))


def roc_auc(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve: how often a positive outranks a negative, ties counting half.

    Args:
        scores: `(n,)`, higher for more likely positive; infinite ones of a model that diverged too,
            which scikit-learn's function refuses.
        positive: `(n,)`.

    Returns:
        The area, or None where one class is absent.

    Source: Mann & Whitney 1947 (the U statistic, with mid-ranks).
    """
    positives, total = int(positive.sum()), len(positive)
    if positives in (0, total):
        return None
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    mid_rank = last - (sizes - 1) / 2.0
    rank_sum = float(mid_rank[group][positive].sum())
    wins = rank_sum - positives * (positives + 1) / 2.0
    return wins / (positives * (total - positives))


def _require_public(records: Records) -> None:
    if not records.public:
        raise PrivacyError(
            "accuracy on records that are not declared public is a release and is not charged; "
            "evaluate on a table declared public"
        )


def _score(logits: torch.Tensor) -> npt.NDArray[np.float64] | None:
    if logits.shape[1] == 1:
        return logits[:, 0].numpy().astype(np.float64)
    if logits.shape[1] == 2:
        return (logits[:, 1] - logits[:, 0]).numpy().astype(np.float64)
    return None
