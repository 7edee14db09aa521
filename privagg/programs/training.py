"""What a site computes where records are protected: its integer contribution, noise included.

`DistributedLearner`: one clipped gradient sum and a share of the noise. `LocalLearner`: several
DP-SGD steps, each with all of its noise, FedProx's proximal term among them. The numbers that shape
a contribution come from the plan and the public rule; the records enter only through sums that the
grid has bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Generic, TypeVar

import numpy as np
from torch import nn

from privagg.encoding.grid import Grid
from privagg.encoding.planned import transform_of
from privagg.encoding.quantize import encode_released
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import DataError, PlanError
from privagg.privacy.plan import LocalPlan, RecordPlan, Rounding
from privagg.privacy.randomness import Randomness
from privagg.training.data import Records
from privagg.training.declared import ClientRule
from privagg.training.devices import ONE_THREAD, Device
from privagg.training.dpsgd import DpSgd, Places
from privagg.training.draws import Draws, RoundId
from privagg.training.models import require_dimension
from privagg.training.objective import CLASSES, Objective
from privagg.training.progress import Progress
from privagg.training.rehearsal import RecordsApart, require_records_apart
from privagg.training.torch_state import deterministic_torch

_Plan = TypeVar("_Plan", bound=RecordPlan)

_Keeps = Callable[[RoundId, FloatVector, Places, IntVector], None]


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
        require_dimension(plan, model)
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
                step_of = scale * noised + self._pull(local, parameters)
                local = local - self._rule.learning_rate * step_of
        return np.asarray(local - parameters)

    def _pull(self, local: FloatVector, parameters: FloatVector) -> FloatVector:
        """What a step adds to its noised gradient: public facts and what this site released."""
        return np.asarray(self._rule.prox_mu * (local - parameters))


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
