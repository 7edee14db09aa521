"""What a site computes where whole sites or people are protected: an update, clipped at once.

Whatever happens in local training, the update passes one clip on the grid, so the algorithms that
change local training change no bound. What a site keeps at home between rounds depends on all of
its records, as the update does; that is why such algorithms are of this level alone.
"""

from __future__ import annotations

import logging

import numpy as np
from torch import nn

from privagg.encoding.grid import Grid
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import PrivaggError
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import Randomness
from privagg.programs.home import Home, Remembered, alike
from privagg.training.data import Records
from privagg.training.declared import ClientRule
from privagg.training.devices import ONE_THREAD, Device
from privagg.training.draws import Draws, RoundId, noised_update
from privagg.training.local_sgd import SGD, LocalSgd, PersonalSgd
from privagg.training.models import require_dimension
from privagg.training.objective import CLASSES, Objective
from privagg.training.progress import Progress
from privagg.training.rehearsal import RecordsApart

_OWNERS_LOG = logging.getLogger(__name__)
"""Stays on the site's machine."""


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

    Attributes:
        home: where state of the site's own lies, for algorithms that have any.
    """

    home: Home

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
        require_dimension(plan, model, self.extra_coordinates(model))
        self._plan, self._terms = plan, plan.site(site)
        self._records, self._rule, self.home = records, rule, Remembered()
        kind = SGD.get(rule.algorithm.kind, LocalSgd)
        self._sgd = kind(model, records, rule, objective.loss, device)
        Grid(*plan.update_terms(site))  # refuses unusable numbers now, not in the first round

    @staticmethod
    def extra_coordinates(model: nn.Module) -> int:
        """Values of a round's state, and of its sum, beside the model's.

        Args:
            model: of any site.
        """
        return 0

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

        Without any record it is zero, whatever the site keeps at home: what is hidden is whether
        it has records.

        Args:
            parameters: float64 `(d,)`, the round's model.
            randomness: source of batches and of layers that draw.
            round_id: (run, round, attempt), labels for the streams.
        """
        if len(self._records) == 0:
            return np.zeros(self._plan.dimension)
        return self._trained(parameters, randomness, round_id)

    def _trained(
        self,
        parameters: FloatVector,
        randomness: Randomness,
        round_id: RoundId,
        correction: FloatVector | None = None,
    ) -> FloatVector:
        """`delta` of a site that has records."""
        draw = Draws(randomness, round_id, self._terms.name, self._plan)
        steps = self._rule.step_count(self._terms.records)
        progress = Progress(self._terms.name, round_id[1], steps)
        return self._sgd.train(
            parameters,
            draw.batches(len(self._records), self._rule.batch_size),
            steps,
            layer_seed=draw.layer_seed(),
            correction=correction,
            on_step=progress.advance,
        )


class PersonalClient(ClientLearner):
    """FedPer and FedRep: a part of the model never leaves the site, and goes on where it was.

    Source: Arivazhagan, Aggarwal, Singh & Choudhary, "Federated learning with personalization
        layers", arXiv 1912.00818; Collins, Hassani, Mokhtari & Shakkottai, "Exploiting shared
        representations for personalized federated learning", ICML 2021. Li et al., "FedBN", ICLR
        2021, is the first with the scales of layers that normalise as the personal part.
    """

    _sgd: PersonalSgd

    def __init__(self, *args: object, **options: object) -> None:
        """See `ClientLearner`."""
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._initial = self._sgd.own

    def _trained(
        self,
        parameters: FloatVector,
        randomness: Randomness,
        round_id: RoundId,
        correction: FloatVector | None = None,
    ) -> FloatVector:
        kept = self.home.load(*round_id[:2])
        self._sgd.own = kept if kept and alike(kept, self._initial) else self._initial
        update = super()._trained(parameters, randomness, round_id, correction)
        own = self._sgd.own
        if all(np.isfinite(each).all() for each in own.values()):
            self.home.save(round_id, own)
        return update
