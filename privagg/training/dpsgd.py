"""Sums of clipped per-record gradients, as integers.

An engine turns a batch into integers: `exact` mostly without forming a gradient, `exact-dense` in
exact arithmetic throughout, `opacus` by its hooks; sampling, clipping in exact arithmetic, noise
and the normaliser are ours. A record's gradient bits depend on its row in a physical batch, so a
row must not follow from how many others were sampled: the sampled records lie in random slots of a
public number of batches, which all run, empty slots filled with synthetic rows
(`proofs/sensitivity.md`). That bits do not depend on *which* others lie beside a record is an
assumption about torch's kernels and the model's layers, which `rehearsal` tests on the model and
machine at hand; of `exact-dense` it is proved.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from privagg.encoding.grid import Grid
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import ConfigError, DataError, ModelError
from privagg.privacy.randomness import ByteStream
from privagg.training.data import Records, in_rows
from privagg.training.declared import EngineName
from privagg.training.dense import DenseEngine
from privagg.training.devices import ONE_THREAD
from privagg.training.draws import place_records
from privagg.training.ghost.engine import ExactEngine
from privagg.training.models import ParameterLayout, set_parameters
from privagg.training.objective import CLASSES, Objective
from privagg.training.torch_state import layer_randomness

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

_OF_NO_RECORD = (MemoryError, torch.OutOfMemoryError, DataError)
"""What says nothing about one record: a round ends with it. A file of records may have changed."""

_OWNERS_LOG = logging.getLogger(__name__)
"""Stays on the site's machine."""


class Engine(Protocol):
    """How the records of a batch become integers; made of a model that it may hook."""

    def require_room(self, physical_batch: int) -> None:
        """Raises ConfigError where so many records together are too many."""

    def batch_sum(self, x: torch.Tensor, y: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """The sum over a batch's records of their clipped gradients, int64 `(d,)`.

        On the model's device nothing waits for it: an accelerator may be at work when it returns.

        Args:
            x: float32 `(B, *input_shape)`, on the model's device as all three.
            y: their targets, `(B, ...)`.
            kept: bool `(B,)`, False in rows that hold no record.
        """

    def batch_gradients(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.float32]:
        """Each record's gradient, float32 `(B, d)`; rows may hold values that are not finite."""

    def batch_bits(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.int32]:
        """All that each record's integers are made of and from, bit for bit: int32 `(B, k)`."""

    def silent(self) -> AbstractContextManager[None]:
        """While it lasts, the model may be used without a hook noticing."""


class _MakesEngine(Protocol):
    def __call__(self, model: nn.Module, objective: Objective, grid: Grid) -> Engine: ...


def _hooks_engine(model: nn.Module, objective: Objective, grid: Grid) -> Engine:
    """Opacus takes as long to load as torch, and is loaded where it is asked for."""
    from privagg.training.hooks import HooksEngine

    return HooksEngine(model, objective, grid)


ENGINES: Mapping[EngineName, _MakesEngine] = {
    "exact": ExactEngine,
    "exact-dense": DenseEngine,
    "opacus": _hooks_engine,
}
"""By the name that a configuration gives."""


class DpSgd:
    """Per-record gradients of one model over one site's records, clipped and summed as integers.

    Made once and used every round: hooking a model costs more than a small batch.
    """

    def __init__(
        self,
        model: nn.Module,
        records: Records,
        grid: Grid,
        *,
        physical_batch: int = 64,
        batches: int | None = None,
        objective: Objective = CLASSES,
        engine: EngineName = "opacus",
        device: torch.device = ONE_THREAD.torch,
    ) -> None:
        """Hooks the model; it must not be trained elsewhere from now on.

        Args:
            model: a model that `models.build_model` made or `models.require_separable` accepted.
            records: the site's own records.
            grid: clips each record's gradient to the plan's norm and puts it on the grid.
            physical_batch: public number of rows of every forward pass, a speed setting.
            batches: public number of forward passes of a step, as `slot_batches` has it from the
                plan. None makes room for all records: a private number, for tests alone.
            objective: each record's loss from its row alone.
            engine: how gradients are clipped: `exact` mostly without forming them, `exact-dense`
                in exact arithmetic throughout, `opacus` after Opacus' hooks have formed each.
            device: where batches are computed and added up; the model is moved there.

        Raises:
            ConfigError: physical_batch or batches is not positive, or the engine has no room for
                them or for the grid, or cannot compute on the device.
            ModelError: Opacus has no per-record gradients for a layer, or a layer draws.
        """
        if physical_batch < 1:
            raise ConfigError(f"physical_batch must be at least 1, got {physical_batch}")
        if batches is None:
            batches = max(1, math.ceil(len(records) / physical_batch))
        if batches < 1:
            raise ConfigError(f"batches must be at least 1, got {batches}")
        self.batches = batches
        self.layout = ParameterLayout.of(model)
        self._records = records
        self.input_shape = records.input_shape
        self._grid = grid
        self.physical_batch = physical_batch
        self.objective, self._loss = objective, objective.loss
        self._model = model
        model.train()
        _require_no_draws(model, records.input_shape)
        _leave_inputs_alone(model)
        # On a card a wrong index ends all that the process computes there, so the CPU is asked.
        self._asked = model if device.type == "cpu" else copy.deepcopy(model)
        self._computable = self._find_computable()
        self._device = device
        model.to(device)
        self.engine = engine
        self._engine: Engine = ENGINES[engine](model, objective, grid)
        self._engine.require_room(physical_batch)
        self._trainable = [p for p in model.parameters() if p.requires_grad]

    @property
    def model(self) -> nn.Module:
        """The hooked model; whoever changes its parameters puts them back."""
        return self._model

    @property
    def order_free(self) -> bool:
        """Whether a record's integers are a function of the record by proof, in every batch."""
        return self.engine == "exact-dense"

    @property
    def dimension(self) -> int:
        """Number of trainable values, d."""
        return self.layout.dimension

    @property
    def record_count(self) -> int:
        """Number of records. Private: it sizes nothing that leaves the site."""
        return len(self._records)

    @property
    def slot_count(self) -> int:
        """Rows of all batches of a step together; public."""
        return self.batches * self.physical_batch

    def gradient_sum(
        self,
        parameters: FloatVector,
        mask: Mask,
        slots: ByteStream,
        on_batch: Callable[[], None] | None = None,
    ) -> IntVector:
        """The sum over sampled records of their clipped gradients, in grid units.

        Args:
            parameters: float64 `(d,)`, public or already protected; used as float32.
            mask: bool `(n,)`, which records were sampled.
            slots: secret; the sampled records are placed in random slots by it.
            on_batch: called after each batch.

        Returns:
            int64 `(d,)`, within the grid's contribution bound. With the other records in the same
            slots, adding or removing one changes it by at most the grid's sensitivity in L2, given
            that a record's gradient does not depend on who is beside it. A record whose gradient is
            not finite, or cannot be computed (a token that an embedding lacks), contributes zero
            and stops nobody: a round that fails in the presence of one record would show that
            record. No record gives zeros.

        Raises:
            ModelError: the parameters have another length.
            ConfigError: the mask has another length than there are records.
        """
        return self.slotted_sum(parameters, self.place(mask, slots), on_batch)

    def place(self, mask: Mask, slots: ByteStream) -> Places:
        """The sampled record in each random slot, int64 `(slot_count,)`, -1 where there is none.

        Args:
            mask, slots: as for `gradient_sum`.

        Raises:
            ConfigError: the mask has another length than there are records.
        """
        if mask.shape != (len(self._records),):
            raise ConfigError(f"mask {mask.shape} does not fit {len(self._records)} records")
        return place_records(slots, np.flatnonzero(mask), self.slot_count)

    def slotted_sum(
        self,
        parameters: FloatVector,
        records_at: Places,
        on_batch: Callable[[], None] | None = None,
    ) -> IntVector:
        """`gradient_sum` of records whose slots are given; every batch runs, also without records.

        Args:
            parameters: float64 `(d,)`, public or already protected; used as float32.
            records_at: int64 `(slot_count,)`, the record in each slot, -1 where there is none.
            on_batch: called after each batch, whoever is in it.

        Raises:
            ModelError: the parameters have another length.
            ConfigError: there are more or fewer slots, or fewer records than are placed.
        """
        if records_at.shape != (self.slot_count,):
            raise ConfigError(f"{records_at.shape} places do not fill {self.slot_count} slots")
        if records_at.max(initial=-1) >= len(self._records):
            raise ConfigError("there are fewer records than were placed: other ones lie here now")
        set_parameters(self._model, parameters)
        total: torch.Tensor | None = None
        for batch in records_at.reshape(self.batches, self.physical_batch):
            found = self._batch_sum(batch)
            total = found if total is None else total.add_(found)
            if on_batch is not None:
                on_batch()
        assert total is not None  # there is at least one batch
        return self._grid.clamp(self._fetched(total))

    def per_record_gradients(self, records_at: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Gradients of one physical batch at the current parameters, each in its record's row.

        Args:
            records_at: int64 `(physical_batch,)`, the record in each row, -1 where there is none.

        Returns:
            float32 `(physical_batch, d)`, zeros in rows without a record and in rows of records
            that the model cannot take; others may hold values that are not finite. Private.
        """
        x, y, taken = self._rows(records_at)
        gradients = self._engine.batch_gradients(x, y)
        gradients[~taken.cpu().numpy()] = 0.0
        return gradients

    def _rows(
        self, records_at: npt.NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs and targets of one physical batch, and in which rows a record lies; else zeros."""
        taken = records_at >= 0
        taken[taken] = self._computable[records_at[taken]]
        x, y = in_rows(self._records, np.where(taken, records_at, -1))
        return self._there(x), self._there(y), self._there(torch.from_numpy(taken))

    def _there(self, values: torch.Tensor) -> torch.Tensor:
        """Values on the device; a card fetches them while the next batch is made."""
        if self._device.type == "cuda":
            return values.pin_memory().to(self._device, non_blocking=True)
        return values.to(self._device)

    def _fetched(self, total: torch.Tensor) -> IntVector:
        """A step's sum on the CPU: the one place where it waits for the device.

        Raises:
            ModelError: the device failed. It says of no record that it counts as zero.
        """
        try:
            return np.asarray(total.cpu().numpy())
        except RuntimeError as error:
            raise ModelError(
                f"device {self._device.type!r} failed within a step ({error}); set device = "
                '"cpu" in party.toml'
            ) from error

    def _sum_at(self, records_at: npt.NDArray[np.int64]) -> torch.Tensor:
        return self._engine.batch_sum(*self._rows(records_at))

    def _batch_sum(self, records_at: npt.NDArray[np.int64]) -> torch.Tensor:
        """One batch; where it fails, halves of its records, each in its own row, until one is left.

        So only who fails counts zero. What fails whatever the parameters are was left out when the
        trainer was made: this is for models that take a record at some parameters and not at
        others, and costs 2 log2(B) batches more for each such record, which takes time that shows.
        """
        try:
            return self._sum_at(records_at)
        except _OF_NO_RECORD:
            raise
        except Exception as error:
            self._fetched(torch.zeros(1, device=self._device))  # what it had to do so far, is done
            _OWNERS_LOG.warning("a batch is computed in parts: %s", error)
        taken = np.flatnonzero(records_at >= 0)
        total = torch.zeros(self.dimension, dtype=torch.int64)
        if len(taken) < 2:
            _OWNERS_LOG.warning("a record counts as zero, its gradient failed")
            return total
        for part in np.array_split(taken, 2):
            others_out = np.full_like(records_at, -1)
            others_out[part] = records_at[part]
            total += self._batch_sum(others_out).cpu()
        return total

    def _find_computable(self) -> Mask:
        """Which records the model takes, bool `(n,)`: asked before any round, so it costs none."""
        found = np.ones(len(self._records), dtype=np.bool_)
        waiting = [
            np.arange(start, min(start + self.physical_batch, len(found)))
            for start in range(0, len(found), self.physical_batch)
        ]
        while waiting:
            indices = waiting.pop()
            try:
                x, y = self._records.gather(indices)
                with torch.no_grad():
                    self._loss(self._asked(x), y)
            except _OF_NO_RECORD:
                raise
            except Exception as error:
                if len(indices) > 1:
                    waiting += np.array_split(indices, 2)
                    continue
                _OWNERS_LOG.warning("a record counts as zero, its gradient failed: %s", error)
                found[indices] = False
        return found

    def batch_gradients(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.float32]:
        """Gradients of one batch of any records at the current parameters, as training gets them.

        Args:
            x: float32 `(m, *input_shape)`.
            y: their targets, `(m, ...)`.

        Returns:
            float32 `(m, d)`; rows may hold values that are not finite.

        Raises:
            ModelError: a layer gave another number of rows than there are records.
        """
        return self._engine.batch_gradients(self._there(x), self._there(y))

    def batch_bits(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.int32]:
        """All that each record's contribution is made of and from, bit for bit: int32 `(m, k)`.

        Args:
            x: float32 `(m, *input_shape)`.
            y: their targets, `(m, ...)`.

        Raises:
            ModelError: a layer gave another number of rows than there are records.
        """
        return self._engine.batch_bits(self._there(x), self._there(y))

    def own_gradient(self, x: torch.Tensor, y: torch.Tensor) -> npt.NDArray[np.float32]:
        """One record's gradient by autograd alone, no record beside it and no hook: float32 `(d,)`.

        Args:
            x: float32 `(1, *input_shape)`.
            y: its target, `(1, ...)`.
        """
        with self._engine.silent():
            loss = self._loss(self._model(self._there(x)), self._there(y)).sum()
            found = torch.autograd.grad(loss, self._trainable, allow_unused=True)
        parts = [
            parameter.new_zeros(parameter.numel()) if gradient is None else gradient.reshape(-1)
            for parameter, gradient in zip(self._trainable, found, strict=True)
        ]
        return np.asarray(torch.cat(parts).cpu().numpy(), dtype=np.float32)

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """What the model gives for any inputs, asked on the CPU: `(m, ...)`.

        Raises:
            Whatever the model raises for inputs that it does not take.
        """
        with torch.no_grad():
            return torch.as_tensor(self._asked(x))


def _require_no_draws(model: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Refuses a model that takes numbers from torch's generator in a forward pass.

    What a record would get depends on its place in the batch, so on who else was sampled; the
    usual coupling argument needs ideal coins, and torch's generator is seeded with 32 bits.
    """
    with layer_randomness(0), torch.no_grad():
        before = torch.default_generator.get_state()
        model(torch.zeros(2, *input_shape))
        drew = not torch.equal(before, torch.default_generator.get_state())
    if drew:
        named = [f"{path!r} ({type(x).__name__})" for path, x in model.named_modules() if _draws(x)]
        raise ModelError(
            f"the model draws random numbers in training: {', '.join(named) or 'in its forward'}; "
            "for record-level privacy set its dropout to 0 (clipping and noise regularise "
            "already), or train at client level"
        )


def _draws(layer: nn.Module) -> bool:
    if "Dropout" in type(layer).__name__:
        return getattr(layer, "p", 1) != 0
    return isinstance(layer, nn.RReLU | nn.FractionalMaxPool2d)


def _leave_inputs_alone(model: nn.Module) -> None:
    """Makes in-place layers return a new tensor: the same values, and hooks cannot see others."""
    for layer in model.modules():
        if getattr(layer, "inplace", False) is True:
            layer.inplace = False  # type: ignore[assignment]
