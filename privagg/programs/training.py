"""What a site computes in a round under each plan: its integer contribution, noise included.

Three rules over one secure sum. `DistributedLearner`: one clipped gradient sum and a share of the
noise. `LocalLearner`: several DP-SGD steps, each with all of its noise. `ClientLearner`: plain
local SGD, the whole update clipped, and a share of the noise. The numbers that shape a
contribution come from the plan and the public rule; the records enter only through sums that the
grid has bounded. FedProx's proximal term is part of the last two rules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from privagg.encoding.contribution import Learner
from privagg.encoding.grid import Grid
from privagg.encoding.planned import transform_of
from privagg.encoding.quantize import encode_released
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import ConfigError, DataError, PlanError, PrivaggError
from privagg.privacy.plan import (
    ClientPlan,
    DistributedPlan,
    LocalPlan,
    RecordPlan,
    Rounding,
    TrainingPlan,
)
from privagg.privacy.randomness import Randomness
from privagg.training.data import Records
from privagg.training.declared import ClientRule
from privagg.training.devices import ONE_THREAD, Device
from privagg.training.dpsgd import DpSgd, Places
from privagg.training.draws import Draws, RoundId, noised_update
from privagg.training.models import ParameterLayout, get_parameters, set_parameters
from privagg.training.objective import CLASSES, Objective
from privagg.training.progress import Progress
from privagg.training.rehearsal import RecordsApart, require_records_apart
from privagg.training.torch_state import deterministic_torch, layer_randomness

_Plan = TypeVar("_Plan", bound=RecordPlan)

_Keeps = Callable[[RoundId, FloatVector, Places, IntVector], None]

_OWNERS_LOG = logging.getLogger(__name__)
"""Stays on the site's machine."""


class RecordLearner(Generic[_Plan]):
    """What the two record-level learners share: a trainer on the plan's grid, records kept apart.

    Args:
        plan: what everybody agreed to.
        site: its name in the plan.
        model: its own instance; it belongs to the learner from now on.
        records: the site's own.
        rule: size of physical batches; learning rate and proximal term of local steps.
        objective: each record's loss from its row alone.
        tested: what a test of this model, batch and loss found in this process; made where not
            given.
        device: where it is trained.

    Attributes:
        keep: called with (run, round, attempt), the round's model, the record in each slot and the
            clipped integers before noise, where an owner wants to recompute them; None by default.
            Of several local steps it is told the first alone: later ones start from noised sums.
    """

    keep: _Keeps | None = None

    def __init__(
        self,
        plan: _Plan,
        site: str,
        model: nn.Module,
        records: Records,
        rule: ClientRule,
        *,
        objective: Objective = CLASSES,
        tested: RecordsApart | None = None,
        device: Device = ONE_THREAD,
    ) -> None:
        """Checks that plan, model and records fit each other.

        Raises:
            ConfigError: the model has another number of parameters than the plan.
            DataError: there are more records than the site declared.
            EncodingError: the plan's numbers are outside the grid's proved range.
            ModelError: there are no per-record gradients for the model, or records are not kept
                apart.
            PlanError: the plan is of version 1, which cannot be trained any more.
        """
        _require_dimension(plan, ParameterLayout.of(model).dimension)
        _require_slots(plan, site, records)
        self._plan, self._terms, self._rule = plan, plan.site(site), rule
        self._trainer = DpSgd(
            model,
            records,
            Grid(*plan.gradient_terms(site)),
            physical_batch=rule.physical_batch,
            batches=plan.step_batches(site, rule.physical_batch),
            objective=objective,
            engine=rule.engine,
            device=device.torch,
        )
        self._threads = device.threads
        self._prepare()
        self.records_apart = tested or require_records_apart(self._trainer, device)

    def _prepare(self) -> None:
        """Refuse numbers that an upload could not use now, and not in the first round."""

    def integers(self, parameters: FloatVector, records_at: Places) -> IntVector:
        """The clipped sum of records that lie in given slots, before noise; private.

        Args:
            parameters: float64 `(d,)`, the model.
            records_at: int64 `(slots,)`, the record in each slot, -1 where there is none.

        Returns:
            int64 `(d,)`.

        Raises:
            ConfigError: there are more or fewer slots, or a record that is not there.
            ModelError: the parameters have another length.
        """
        with deterministic_torch(self._threads):
            return self._trainer.slotted_sum(parameters, records_at)

    def _sampled(
        self, parameters: FloatVector, draw: Draws, step: int = 0, *, on_batch: Callable[[], None]
    ) -> IntVector:
        """One step's clipped sum of sampled records, before noise."""
        mask = draw.mask(self._trainer.record_count, self._plan.sampling_rate, step)
        placed = self._trainer.place(mask, draw.slots(step))
        total = self._trainer.slotted_sum(parameters, placed, on_batch)
        if self.keep is not None and step == 0:
            self.keep(draw.round_id, parameters, placed, total)
        return total


class DistributedLearner(RecordLearner[RecordPlan]):
    """Record level, distributed noise: one clipped gradient sum a round, plus a noise share."""

    def contribution(
        self, parameters: FloatVector, randomness: Randomness, round_id: RoundId
    ) -> IntVector:
        """The noised sum of clipped per-record gradients.

        Args:
            parameters: float64 `(d,)`, the round's model.
            randomness: source of sampling and noise.
            round_id: (run, round, attempt), labels for the streams.

        Returns:
            int64 `(n,)` in grid units, the coordinates that the plan sends in this round. Each
            record takes part with probability `sampling_rate` and changes the sum by at most
            `sensitivity_grid` in L2; no record at all is still noise.
        """
        draw = Draws(randomness, round_id, self._terms.name, self._plan)
        progress = Progress(self._terms.name, round_id[1], self._trainer.batches)
        with deterministic_torch(self._threads):
            total = self._sampled(parameters, draw, on_batch=progress.advance)
        mask = transform_of(self._plan, round_id, parameters).mask
        sent = total if mask is None else mask.apply(total)
        return np.asarray(sent + draw.noise(self._plan.upload_dimension))


class LocalLearner(RecordLearner[LocalPlan]):
    """Record level, local noise: several DP-SGD steps a round, every one with all its noise."""

    def _prepare(self) -> None:
        self._upload_grid = Grid(*self._plan.update_terms(self._terms.name))

    def contribution(
        self, parameters: FloatVector, randomness: Randomness, round_id: RoundId
    ) -> IntVector:
        """The weighted update on the upload's grid; a post-processing of the noised steps.

        Args:
            parameters: float64 `(d,)`, the round's model.
            randomness: source of sampling and noise.
            round_id: (run, round, attempt), labels for the streams.

        Returns:
            int64 `(n,)`, at most weight·`update_levels` in every coordinate.
        """
        delta = self.delta(parameters, randomness, round_id)
        values = transform_of(self._plan, round_id, parameters).apply(delta)
        coins = Draws(randomness, round_id, self._terms.name, self._plan).coins()
        compression = self._plan.compression
        rounding = compression.rounding if compression else Rounding.NEAREST
        integers = encode_released(self._upload_grid, values, rounding, coins)
        return np.asarray(integers * self._terms.weight)

    def delta(
        self, parameters: FloatVector, randomness: Randomness, round_id: RoundId
    ) -> FloatVector:
        """The change of the parameters over the round's local steps, float64 `(d,)`.

        Each step's release is the noised integer gradient sum; all else is computed from it, the
        round's model and public numbers, so the steps' events are all there is to charge.

        Args:
            parameters: float64 `(d,)`, the round's model.
            randomness: source of sampling and noise.
            round_id: (run, round, attempt), labels for the streams.
        """
        unit = Fraction(self._plan.clip_norm_l2) / self._plan.sensitivity_grid
        scale = float(unit / self._plan.step_divisor(self._terms))
        local = parameters.astype(np.float64)
        draw = Draws(randomness, round_id, self._terms.name, self._plan)
        batches = self._plan.local_steps * self._trainer.batches
        progress = Progress(self._terms.name, round_id[1], batches)
        with deterministic_torch(self._threads), np.errstate(over="ignore", invalid="ignore"):
            for step in range(self._plan.local_steps):
                total = self._sampled(local, draw, step, on_batch=progress.advance)
                noised = total + draw.noise(self._plan.dimension, step)
                pull = self._rule.prox_mu * (local - parameters)
                local = local - self._rule.learning_rate * (scale * noised + pull)
        return np.asarray(local - parameters)


class ClientLearner:
    """Client level: plain local SGD, the whole update clipped on the grid, plus a noise share.

    Args:
        plan: what everybody agreed to.
        site: its name in the plan.
        model: its own instance; it belongs to the learner from now on.
        records: the site's own.
        rule: how the site trains between two rounds.
        objective: each record's loss.
        tested: not looked at: what is protected is the whole site.
        device: where it is trained.
    """

    def __init__(
        self,
        plan: ClientPlan,
        site: str,
        model: nn.Module,
        records: Records,
        rule: ClientRule,
        *,
        objective: Objective = CLASSES,
        tested: RecordsApart | None = None,
        device: Device = ONE_THREAD,
    ) -> None:
        """Checks that plan, model and records fit each other.

        Raises:
            ConfigError: the model has another number of parameters than the plan.
            EncodingError: the plan's numbers are outside the grid's proved range.
        """
        _require_dimension(plan, ParameterLayout.of(model).dimension)
        self._plan, self._terms, self._device = plan, plan.site(site), device
        self._model = model.to(device.torch)
        self._records, self._rule, self._loss = records, rule, objective.loss
        Grid(*plan.update_terms(site))  # refuses unusable numbers now, not in the first round

    def contribution(
        self, parameters: FloatVector, randomness: Randomness, round_id: RoundId
    ) -> IntVector:
        """The weighted, clipped, noised update.

        Args:
            parameters: float64 `(d,)`, the round's model.
            randomness: source of batches, rounding and noise.
            round_id: (run, round, attempt), labels for the streams.

        Returns:
            int64 `(n,)` in grid units. Replacing all of the site's records by none changes it by
            at most weight·`sensitivity_grid` in L2. An update that is not finite, or that these
            records make impossible to compute, counts as zero: a refusal would depend on them.
        """
        draw = Draws(randomness, round_id, self._terms.name, self._plan)
        try:
            update = self.delta(parameters, randomness, round_id)
        except (PrivaggError, MemoryError):  # says nothing about a record
            raise
        except Exception as error:
            _OWNERS_LOG.warning("the update counts as zero, training failed: %s", error)
            update = np.zeros(self._plan.dimension)
        return noised_update(self._plan, update, draw, released=parameters)

    def delta(
        self, parameters: FloatVector, randomness: Randomness, round_id: RoundId
    ) -> FloatVector:
        """The change of the parameters over the local steps, float64 `(d,)`. Private.

        Args:
            parameters: float64 `(d,)`, the round's model.
            randomness: source of batches and of layers that draw.
            round_id: (run, round, attempt), labels for the streams.
        """
        start = parameters.astype(np.float32).astype(np.float64)
        if len(self._records) == 0:
            return np.zeros_like(start)
        draw = Draws(randomness, round_id, self._terms.name, self._plan)
        set_parameters(self._model, parameters)
        self._model.train()
        anchors = [p.detach().clone() for p in self._model.parameters() if p.requires_grad]
        steps = self._rule.step_count(self._terms.records)
        with deterministic_torch(self._device.threads), layer_randomness(draw.layer_seed()):
            batches = draw.batches(len(self._records), self._rule.batch_size)
            progress = Progress(self._terms.name, round_id[1], steps)
            for _ in range(steps):
                self._sgd_step(next(batches), anchors)
                progress.advance()
        return get_parameters(self._model) - start

    def _sgd_step(self, batch: npt.NDArray[np.int64], anchors: list[torch.Tensor]) -> None:
        x, y = (values.to(self._device.torch) for values in self._records.gather(batch))
        weights = [p for p in self._model.parameters() if p.requires_grad]
        loss = self._loss(self._model(x), y).mean()
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        with torch.no_grad():
            for weight, gradient, anchor in zip(weights, gradients, anchors, strict=True):
                pull = self._rule.prox_mu * (weight - anchor)
                slope = pull if gradient is None else gradient + pull
                weight.sub_(slope, alpha=self._rule.learning_rate)


LEARNERS: dict[type[TrainingPlan], Callable[..., Learner]] = {
    DistributedPlan: DistributedLearner,
    LocalPlan: LocalLearner,
    ClientPlan: ClientLearner,
}
"""What a site computes under each class of plans; one that is not here trains nowhere."""


def make_learner(
    plan: TrainingPlan,
    site: str,
    *,
    model: nn.Module,
    records: Records,
    rule: ClientRule,
    objective: Objective = CLASSES,
    tested: RecordsApart | None = None,
    device: Device = ONE_THREAD,
) -> Learner:
    """The learner that the plan's mode asks for, on the plan's own grid.

    Args:
        plan: what everybody agreed to.
        site: the site's name in the plan.
        model: its own instance of the public model; it belongs to the learner from now on.
        records: the site's own records.
        rule: how the site trains between two rounds.
        objective: each record's loss from its row alone.
        tested: what a test of this model, batch and loss found in this process, on this device;
            without it, one is made where the plan protects records.
        device: where it is trained.

    Raises:
        ConfigError: the model does not fit the plan, or the plan's mode is not known here.
        DataError: there are more records than the site declared.
        PlanError: the plan is of version 1, which cannot be trained any more.
        EncodingError: the plan's numbers are outside the grid's proved range.
        ModelError: there are no per-record gradients for the model, or records are not kept apart.
    """
    if type(plan) not in LEARNERS:
        raise ConfigError(f"no client rule for plans of mode {plan.mode!r}")
    learner = LEARNERS[type(plan)]
    return learner(
        plan, site, model, records, rule, objective=objective, tested=tested, device=device
    )


def _require_slots(plan: RecordPlan, site: str, records: Records) -> None:
    """A slot for whoever is sampled: what every row of the plan's observers rests on."""
    if plan.version == 1:
        raise PlanError(
            "a plan of version 1 places records by rank, so that one record can move others; it "
            "can be verified, not trained: make the plan anew"
        )
    if len(records) > plan.site(site).records:
        raise DataError(
            f"{site!r} has more usable records than the {plan.site(site).records} it declared, so "
            "it takes part in nothing; declare at least as many as there are, or offer fewer"
        )


def _require_dimension(plan: TrainingPlan, dimension: int) -> None:
    if plan.dimension != dimension:
        raise ConfigError(
            f"the plan is for {plan.dimension} parameters, the model has {dimension}; model and "
            "features must be the ones that the plan was made for"
        )
