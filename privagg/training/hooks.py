"""Per-record gradients by Opacus' hooks, each formed in memory: engine `opacus`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleModule
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import ModelError
from privagg.training.objective import Objective


class HooksEngine:
    """Forms every record's gradient, then clips it on the grid.

    Args:
        model: as it will train; it is hooked from now on.
        objective: each record's loss from its row alone.
        grid: clips a record's gradient to C and puts it on S steps.

    Raises:
        ModelError: Opacus has no per-record gradients for a layer.
    """

    def __init__(self, model: nn.Module, objective: Objective, grid: Grid) -> None:
        self._model, self._loss, self._grid = model, objective.loss, grid
        self._hooked = _hook(model)
        self._trainable = [p for p in model.parameters() if p.requires_grad]

    def require_room(self, physical_batch: int) -> None:
        """See `Engine.require_room`: there is no limit."""

    def batch_sum(self, x: torch.Tensor, y: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """See `Engine.batch_sum`; gradients are clipped on the CPU."""
        gradients = self.batch_gradients(x, y)
        gradients[~kept.cpu().numpy()] = 0.0
        return torch.from_numpy(self._grid.sum_records(gradients))

    def batch_bits(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.int32]:
        """See `Engine.batch_bits`: those of the gradients."""
        return self.batch_gradients(x, y).view(np.int32)

    def batch_gradients(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.float32]:
        """See `Engine.batch_gradients`."""
        try:
            # A sum, so that no record's gradient is divided by how many there are.
            with _quiet_hooks():
                torch.autograd.backward([self._loss(self._hooked(x), y).sum()])
            rows = [self._rows_of(parameter, len(x)) for parameter in self._trainable]
            return np.asarray(torch.cat(rows, dim=1).cpu().numpy(), dtype=np.float32)
        finally:
            self._forget_batch()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """See `Engine.silent`."""
        self._hooked.disable_hooks()
        try:
            with _quiet_hooks():
                yield
        finally:
            self._hooked.enable_hooks()

    def _forget_batch(self) -> None:
        """Leaves nothing behind that Opacus would add to the next batch, also after a failure."""
        for parameter in self._trainable:
            parameter.grad = None
            vars(parameter).update(grad_sample=None, _forward_counter=0)
            vars(parameter).pop("_current_grad_sample", None)
        for layer in self._model.modules():
            layer.__dict__.pop("activations", None)
            layer.__dict__.pop("max_batch_len", None)

    def _rows_of(self, parameter: nn.Parameter, count: int) -> torch.Tensor:
        rows = getattr(parameter, "grad_sample", None)
        if rows is None:  # the parameter takes no part in the loss
            return parameter.new_zeros(count, parameter.numel())
        if isinstance(rows, list):
            if any(len(part) != count for part in rows):
                rows = rows[0]
            else:
                rows = torch.stack(rows).sum(dim=0)
        if len(rows) != count:
            name = next(n for n, p in self._model.named_parameters() if p is parameter)
            raise ModelError(
                f"parameter {name!r} got {len(rows)} gradients for {count} records, so its layer "
                "does not see one record in each place of axis 0"
            )
        return torch.as_tensor(rows).detach().reshape(count, -1)


def _hook(model: nn.Module) -> GradSampleModule:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hooked = GradSampleModule(model, batch_first=True, loss_reduction="sum", strict=True)
    except Exception as error:  # Opacus raises several kinds, some of its own
        raise ModelError(
            f"Opacus has no per-record gradients for this model: {error}; replace the layer by one "
            "that Opacus supports (opacus.layers has recurrent and attention layers)"
        ) from error
    return hooked


@contextlib.contextmanager
def _quiet_hooks() -> Iterator[None]:
    """Silences torch's remark that inputs need no gradient, which is how training is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield
