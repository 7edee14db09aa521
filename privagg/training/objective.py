"""What a model's outputs are held against in training: each record's own loss.

A loss of one's own is code, imported where an approval names it, and tested as a model is: what a
record counts may depend on its own row of outputs and its own target alone. Evidence, not a proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from privagg.errors import ConfigError, ModelError
from privagg.training.factories import ApprovedCode
from privagg.training.losses import class_loss
from privagg.training.slopes import class_slope
from privagg.training.targets import Encoded, NumberedClasses, TargetKind
from privagg.training.torch_state import layer_randomness

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs float32 (B, k), targets (B, ...)) -> (B,), each record's loss from its row alone."""

Slope = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs float64 (B, k), targets (B, ...)) -> float64 (B, k): a loss's gradient at the outputs,
as `slopes` computes it."""

_ROWS = 6
_SEED = 20_261_128  # public: nothing here is secret


def _any_class(draw: np.random.Generator, count: int, outputs: int) -> Encoded:
    return NumberedClasses(count=max(2, outputs)).examples(draw, count)


@dataclass(frozen=True)
class Objective:
    """A loss, and targets to test it with before any record is looked at.

    Args:
        loss: each record's loss from its row alone.
        examples: synthetic targets, from public randomness, their count and how many outputs the
            model has; by default as many classes, or two.
        slope: its gradient at the outputs, where that is known in exact arithmetic.
    """

    loss: LossFunction
    examples: Callable[[np.random.Generator, int, int], Encoded] = _any_class
    slope: Slope | None = None

    @classmethod
    def of(cls, target: TargetKind, own: str | None, code: ApprovedCode) -> Objective:
        """What a declared target says, with a loss of one's own where one is named.

        Args:
            target: settled.
            own: `package.module:function`, called as `LossFunction` is; None for the target's.
            code: what may be imported.

        Raises:
            ApprovalError: `own` is not among `code`; nothing was imported.
            ModelError: it cannot be imported, or mixes records.
        """
        usual = cls(
            target.per_record_loss,
            lambda draw, n, outputs: target.examples(draw, n),
            target.exact_slope,
        )
        if own is None:
            return usual
        try:
            made = replace(usual, loss=code.load(own), slope=None)
        except (ConfigError, ImportError, AttributeError) as error:
            raise ModelError(
                f"loss {own!r} cannot be imported ({error}); it must read "
                "'package.module:function' and be importable from where privagg runs"
            ) from error
        require_loss_apart(own, made, target.outputs)
        return made


CLASSES = Objective(class_loss, slope=class_slope)
"""Of as many classes as the model has outputs; two where it has one."""


def require_loss_apart(name: str, objective: Objective, outputs: int) -> None:
    """Refuses a loss in which a record's part depends on other records, or on their number.

    It is called with synthetic outputs and targets. There must be one loss a record, none may have
    a gradient with respect to another record's outputs, none may differ in a bit when other records
    lie beside it or when it is called again, and none may depend on the batch's size.

    Args:
        name: as the configuration names it.
        objective: with the loss.
        outputs: how many numbers a model gives for a record.

    Raises:
        ModelError: it mixes records, draws, keeps state, or gives something else.
    """
    draw = np.random.default_rng(_SEED)
    (x, y), *others = [_batch(draw, objective, outputs) for _ in range(3)]
    leaf = x.clone().requires_grad_(True)
    with layer_randomness(0):
        before = torch.default_generator.get_state()
        first = _called(name, objective, leaf, y)
        if not torch.equal(before, torch.default_generator.get_state()):
            raise ModelError(f"loss {name!r} draws random numbers; a record's loss must not")
    if not bool(torch.isfinite(first).all()):
        raise ModelError(f"loss {name!r} is not finite for ordinary outputs: {first.tolist()}")
    _require_gradients_apart(name, first, leaf)
    strange = [(torch.full_like(x, value), y) for value in (0.0, 1e4, math.inf, math.nan)]
    for other_x, other_y in [*others, *strange, (x, y)]:
        for record in range(_ROWS):
            beside_x, beside_y = other_x.clone(), other_y.clone()
            beside_x[record], beside_y[record] = x[record], y[record]
            found = _called(name, objective, beside_x, beside_y)
            if not torch.equal(found[record], first[record]):
                raise _mixing(name, "it changes with the records beside it, or from call to call")
    for record in range(_ROWS):
        alone = _called(name, objective, x[record : record + 1], y[record : record + 1])[0]
        if not torch.allclose(alone, first[record], rtol=1e-4, atol=1e-6):
            raise _mixing(name, "it changes with the number of records in a batch")


def _require_gradients_apart(name: str, losses: torch.Tensor, outputs: torch.Tensor) -> None:
    if not losses.requires_grad:
        raise ModelError(f"loss {name!r} has no gradient with respect to a model's outputs")
    for record in range(len(losses)):
        (slope,) = torch.autograd.grad(losses[record], outputs, retain_graph=True)
        if bool((slope[torch.arange(len(losses)) != record] != 0).any()):
            raise _mixing(name, "its gradient reaches other records' outputs")


def _batch(
    draw: np.random.Generator, objective: Objective, outputs: int
) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.from_numpy(2.0 * draw.standard_normal((_ROWS, outputs)).astype(np.float32))
    return x, torch.from_numpy(objective.examples(draw, _ROWS, outputs))


def _called(name: str, objective: Objective, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    try:
        found = objective.loss(x, y)
    except Exception as error:  # a stranger's code may raise anything; name whose it was
        raise ModelError(
            f"loss {name!r} fails on outputs {tuple(x.shape)} with targets {tuple(y.shape)} "
            f"({y.dtype}): {error}"
        ) from error
    if not isinstance(found, torch.Tensor) or found.shape != (len(x),):
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ModelError(
            f"loss {name!r} gives {shape} for {len(x)} records, expected ({len(x)},): each "
            "record's own loss, with no mean or sum over records (reduction='none')"
        )
    return found


def _mixing(name: str, how: str) -> ModelError:
    return ModelError(
        f"loss {name!r} mixes records: {how}, so no bound on one record's influence holds; look "
        "for means, ranks, pairs or normalisation over the batch axis"
    )
