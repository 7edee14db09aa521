"""SCAFFOLD, option II: each site corrects its steps by how its gradients differ from everybody's.

    step         w ← w − η (g − c_i + c)
    own variate  c_i ← c_i − c − Δ_i / (K η)
    server's     c = Σ c_i / N = −Σ Δ_i / (N K η)

Everybody takes part, and the server adds the mean update as it is, so that c follows from two
models in a row: −(x_r − x_{r−1}) / (K η). Nothing is opened besides, and no further ε is spent. Δ_i
is what the site uploaded, so the variates' mean is c exactly, noise included. At record level the
upload has to be private by the site's own noise, as it is under `record-local`: a variate made of
an upload that holds one share of a distributed noise would carry more of each record into all later
rounds than is charged for.

Source: Karimireddy, Kale, Mohri, Reddi, Stich & Suresh, "SCAFFOLD: stochastic controlled averaging
    for federated learning", ICML 2020; Noble, Bellet & Dieuleveut, "Differentially private
    federated learning on heterogeneous data", AISTATS 2022 (variates of noised updates).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.privacy.plan import ClientPlan, LocalPlan
from privagg.privacy.randomness import Randomness
from privagg.programs.clients import ClientLearner
from privagg.programs.home import Home, Remembered
from privagg.programs.training import LocalLearner
from privagg.training.declared import ClientRule
from privagg.training.draws import RoundId


@dataclass(frozen=True)
class Variates:
    """A site's variate and the server's before a round.

    Args:
        own: c_i, float64 (d,).
        server: c, float64 (d,).
        scale: K η.
    """

    own: FloatVector
    server: FloatVector
    scale: float

    @classmethod
    def before(cls, home: Home, round_id: RoundId, model: FloatVector, scale: float) -> Variates:
        """What the rounds so far left; zeros before the first.

        Args:
            home: the site's own.
            round_id: (run, round, attempt).
            model: float64 (d,), that the round starts from.
            scale: K η.
        """
        kept = home.load(*round_id[:2])
        if kept is None:
            return cls(np.zeros_like(model), np.zeros_like(model), scale)
        return cls(np.asarray(kept["own"]), -(model - kept["model"]) / scale, scale)

    @property
    def correction(self) -> FloatVector:
        """What is added to every gradient, float64 (d,)."""
        return self.server - self.own

    def keep(
        self, home: Home, round_id: RoundId, model: FloatVector, released: FloatVector
    ) -> None:
        """Keep the next round's.

        Args:
            home, round_id, model: as for `before`.
            released: float64 (d,), the update as uploaded, in model units.
        """
        own = self.own - self.server - released / self.scale
        home.save(round_id, {"own": own, "model": model})


def _released(plan: ClientPlan | LocalPlan, site: str, sent: IntVector) -> FloatVector:
    """An upload's integers in model units."""
    return np.asarray(sent * float(plan.unit_per_grid / plan.site(site).weight))


def scale_of(rule: ClientRule, steps: int) -> float:
    """K η."""
    return steps * rule.learning_rate


class ScaffoldClient(ClientLearner):
    """SCAFFOLD where whole sites are protected; arguments as for `ClientLearner`."""

    def contribution(
        self, parameters: FloatVector, randomness: Randomness, round_id: RoundId
    ) -> IntVector:
        """See `ClientLearner.contribution`; it leaves the next round's variate at home."""
        sent = super().contribution(parameters, randomness, round_id)
        released = _released(self._plan, self._terms.name, sent)
        self._variates(round_id, parameters).keep(self.home, round_id, parameters, released)
        return sent

    def _variates(self, round_id: RoundId, parameters: FloatVector) -> Variates:
        scale = scale_of(self._rule, self._rule.step_count(self._terms.records))
        return Variates.before(self.home, round_id, parameters, scale)

    def _trained(
        self,
        parameters: FloatVector,
        randomness: Randomness,
        round_id: RoundId,
        correction: FloatVector | None = None,
    ) -> FloatVector:
        variates = self._variates(round_id, parameters)
        return super()._trained(parameters, randomness, round_id, variates.correction)


class ScaffoldLocal(LocalLearner):
    """SCAFFOLD where records are protected by each site's own noise; as for `LocalLearner`.

    The variates are computed from uploads, which the steps' noise made private, and from models
    that everybody has: a post-processing of what was charged.
    """

    home: Home

    def _prepare(self) -> None:
        super()._prepare()
        self.home = Remembered()
        self._correction: FloatVector | None = None

    def contribution(
        self, parameters: FloatVector, randomness: Randomness, round_id: RoundId
    ) -> IntVector:
        """See `LocalLearner.contribution`; it leaves the next round's variate at home."""
        scale = scale_of(self._rule, self._plan.local_steps)
        variates = Variates.before(self.home, round_id, parameters, scale)
        self._correction = variates.correction
        sent = super().contribution(parameters, randomness, round_id)
        released = _released(self._plan, self._terms.name, sent)
        variates.keep(self.home, round_id, parameters, released)
        return sent

    def _pull(self, local: FloatVector, parameters: FloatVector) -> FloatVector:
        pull = super()._pull(local, parameters)
        return pull if self._correction is None else pull + self._correction
