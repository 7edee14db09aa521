"""How well a model does on records that were declared public. On any other it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from privagg.encoding.vectors import FloatVector
from privagg.errors import DataError, PrivacyError
from privagg.training.data import Records, chunks
from privagg.training.measures import overall
from privagg.training.models import set_parameters
from privagg.training.objective import LossFunction
from privagg.training.targets import NumberedClasses, TargetKind
from privagg.training.torch_state import deterministic_torch

_BLOCK = 1024


@dataclass(frozen=True)
class Metrics:
    """What a model does on a public table.

    Args:
        count: number of records.
        all_figures: what is recorded with a released model: the target's figures, each beside that
            of a guess, those of single classes, and the mean loss.
    """

    count: int
    all_figures: dict[str, float]

    @property
    def figures(self) -> dict[str, float]:
        """What is recorded after a round: without those of single classes."""
        return overall(self.all_figures)


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


def evaluate(
    model: nn.Module,
    parameters: FloatVector,
    records: Records,
    target: TargetKind | None = None,
    loss: LossFunction | None = None,
) -> Metrics:
    """The target's figures and the mean loss on public records, beside what guessing would reach.

    Args:
        model: a model of its own, not one that a site trains with.
        parameters: float64 `(d,)`.
        records: at least one record, declared public by their owner.
        target: what is predicted; by default as many classes as there are outputs, or two.
        loss: what was trained with; the target's own by default.

    Raises:
        PrivacyError: the records are not declared public; a metric on them would be a release.
        DataError: there is no record.
    """
    _require_public(records)
    return measured_at_home(model, parameters, records, target, loss)


def measured_at_home(
    model: nn.Module,
    parameters: FloatVector,
    records: Records,
    target: TargetKind | None = None,
    loss: LossFunction | None = None,
) -> Metrics:
    """`evaluate` on any records, for their owner's eyes: the figures are as private as they are.

    Args:
        model, parameters, target, loss: as for `evaluate`.
        records: at least one record.

    Raises:
        DataError: there is no record.
    """
    outputs, y = _predicted(model, parameters, records)
    target = target or NumberedClasses(count=max(2, outputs.shape[1]))
    found = target.figures(outputs.to(torch.float64).numpy(), y.numpy())
    mean = float((loss or target.per_record_loss)(outputs, y).to(torch.float64).mean())
    return Metrics(len(records), {**found, "loss": mean})


def shifted_loss(
    model: nn.Module, parameters: FloatVector, records: Records, loss: LossFunction
) -> float:
    """The mean loss on public records once each output has the constant that lowers it most.

    For classes this is the loss under the table's own mix of them: a model that expects another
    mix, and tells records apart alike, has the same.

    Args:
        model, parameters, records: as for `evaluate`.
        loss: of each record.

    Returns:
        No finite number where the outputs are none.

    Raises:
        PrivacyError, DataError: as `evaluate`.

    Source: Saerens, Latinne & Decaestecker, "Adjusting the outputs of a classifier to new a priori
        probabilities", Neural Computation 14, 2002.
    """
    _require_public(records)
    outputs, y = _predicted(model, parameters, records)
    first = float(loss(outputs, y).mean())
    if not math.isfinite(first):
        return math.nan
    shift = torch.zeros(outputs.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([shift], max_iter=50, line_search_fn="strong_wolfe")

    def mean() -> torch.Tensor:
        solver.zero_grad()
        value = loss(outputs + shift, y).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with deterministic_torch():
        solver.step(mean)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            found = float(loss(outputs + shift, y).mean())
    return min(first, found) if math.isfinite(found) else first


def _predicted(
    model: nn.Module, parameters: FloatVector, records: Records
) -> tuple[torch.Tensor, torch.Tensor]:
    if len(records) == 0:
        raise DataError("the table has no usable record; nothing can be measured on it")
    parts = []
    for some in chunks(len(records), 8 * _BLOCK):
        x, targets = records.gather(some)
        parts.append((predict_logits(model, parameters, x), targets))
    outputs, y = (torch.cat(column) for column in zip(*parts, strict=True))
    return outputs, y


def _require_public(records: Records) -> None:
    if not records.public:
        raise PrivacyError(
            "accuracy on records that are not declared public is a release and is not charged; "
            "evaluate on a table declared public"
        )
