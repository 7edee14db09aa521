"""FedMA over sums: each site matches its neurons to published slots at home, then all are added.

The server publishes L neuron slots, the hidden neurons of its model. A site has a network of its
own, in an order of its own and perhaps narrower. In each round it

    starts     from the slots that its neurons had last; in its first round, from its own network
    trains     K local steps
    matches    its neurons to the slots, layer by layer: least squared distance, none to two
    sends      (Δ in the slots' order, β C / sqrt(L) for each slot that it fills), clipped together

and the server divides: a neuron moves by Σ Δ over the sites that fill its slot,

    share p̂ = Σ counts · sqrt(L) / (β C N)          mean Δ / max(p̂, least)

`least` is one site's share, or the noise of p̂ where that is more: what nobody fills stays. Counts
add at most β C to the vector's length, however many slots are filled; update and counts are one
vector under one clip, so sensitivity, noise and event are those of any client-level round.

Source: Wang, Yurochkin, Sun, Papailiopoulos & Khazaeni, "Federated learning with matched
    averaging", ICLR 2020. There the server sees every client's weights, matches them, and makes a
    slot where none is near; layers are matched one after the other, trained on in between.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import Randomness
from privagg.programs.clients import ClientLearner
from privagg.programs.gradient import GradientTraining
from privagg.programs.home import alike
from privagg.programs.program import Opened
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.draws import RoundId
from privagg.training.neurons import Layers, matched, read_network, resized


class FedmaClient(ClientLearner):
    """A site's part.

    Args:
        plan: with a coordinate more for each slot.
        site, model: as for `ClientLearner`.
        *args, **more: likewise.
    """

    def __init__(self, plan: ClientPlan, site: str, model: nn.Module, *args: Any, **more: Any):
        """See `ClientLearner`.

        Raises:
            ModelError: the model has no neurons to match.
        """
        super().__init__(plan, site, model, *args, **more)
        self._model, self._slots = model, Layers.of(model)
        self._own, self._first = self._slots, None  # type: Layers, FloatVector | None

    @staticmethod
    def extra_coordinates(model: nn.Module) -> int:
        """See `ClientLearner.extra_coordinates`: a slot's count, each.

        Raises:
            ModelError: as `Layers.of`.
        """
        return Layers.of(model).slots

    def bring(self, path: Path) -> None:
        """Begin with a network of the site's own, of its own widths.

        Args:
            path: its file.

        Raises:
            ConfigError: it is no such network, or a wider one than is published.
        """
        self._own, self._first = read_network(path, self._model)
        self._sgd = self._sgd.of(resized(self._model, self._own))

    def _start(self, published: FloatVector, round_id: RoundId) -> FloatVector:
        kept = self.home.load(*round_id[:2])
        if kept and alike(kept, _by_layer([np.arange(width) for width in self._own.hidden])):
            return published[self._slots.places([kept[name] for name in sorted(kept, key=int)])]
        return published if self._first is None else self._first

    def _trained(
        self,
        parameters: FloatVector,
        randomness: Randomness,
        round_id: RoundId,
        correction: FloatVector | None = None,
    ) -> FloatVector:
        published = parameters[: self._slots.dimension]
        start = self._start(published, round_id)
        trained = start + super()._trained(start, randomness, round_id, correction)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite counts as zero
            chosen = self._matched(trained, published)
            self.home.save(round_id, _by_layer(chosen))
            places, update = self._slots.places(chosen), np.zeros(len(published))
            update[places] = trained - published[places]
            return self._with_counts(update, chosen)

    def _matched(self, trained: FloatVector, published: FloatVector) -> list[IntVector]:
        return matched(self._own, trained, self._slots, published)

    def _with_counts(self, update: FloatVector, chosen: list[IntVector]) -> FloatVector:
        clip, share = float(self._plan.clip_norm_l2), self._rule.algorithm.count_share
        longest, norm = clip * math.sqrt(1.0 - share**2), float(np.linalg.norm(update))
        counts = [np.zeros(width) for width in self._slots.hidden]
        for filled, slots in zip(counts, chosen, strict=True):
            filled[slots] = count_unit(self._rule.algorithm, clip, self._slots)
        return np.concatenate([update * min(1.0, longest / max(norm, longest)), *counts])


def _by_layer(slots: list[IntVector]) -> dict[str, IntVector]:
    return {str(number): each for number, each in enumerate(slots)}


def count_unit(algorithm: AlgorithmSpec, clip: float, slots: Layers) -> float:
    """What a filled slot adds to its count, in units of the update: β C / sqrt(L).

    Args:
        algorithm: the counts' share β.
        clip: C.
        slots: the published shape, of L slots.
    """
    return algorithm.count_share * clip / math.sqrt(slots.slots)


class Fedma(GradientTraining):
    """The coordinator's part: the state is the model, then each slot's share as last opened.

    Args:
        model: with the slots.
        *args, **options: as for `GradientTraining`.
        algorithm: the counts' share β.
        plan: what everybody agreed to.
    """

    def __init__(
        self, model: nn.Module, *args: Any, algorithm: AlgorithmSpec, plan: ClientPlan,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(model, *args, **options)
        self._slots, self._plan = Layers.of(model), plan
        self._unit = count_unit(algorithm, float(plan.clip_norm_l2), self._slots)

    def begin(self) -> FloatVector:
        """See `Program.begin`: the model; nobody fills a slot yet."""
        return np.append(super().begin(), np.zeros(self._slots.slots))

    def fold(self, state: FloatVector, opened: Opened) -> FloatVector:
        """See `Program.fold`: a step of the model, each neuron by the sites that have it."""
        model, _ = np.split(state, [self._slots.dimension])
        mean, counts = np.split(opened.update, [self._slots.dimension])
        shares = np.clip(counts / self._unit, 0.0, 1.0)
        filled = np.maximum(shares, self._least(opened))
        return np.append(
            self._optimizer.step(model, mean / self._slots.by_parameter(filled)), shares
        )

    def _least(self, opened: Opened) -> float:
        """The share of the lightest site, or the noise of a share where that is more."""
        planned = self._plan.in_round(opened.round_id[1])
        names = opened.contributors
        total = float(planned.divisor(names))
        lightest = min(planned.site(name).weight for name in names) / total
        noise = planned.noise
        if noise is None:
            return lightest
        spread = float(noise.stddev_grid) * math.sqrt(len(names)) * float(planned.unit_per_grid)
        return min(1.0, max(lightest, spread / total / self._unit))

    def released(self, state: FloatVector) -> FloatVector:
        """See `GradientTraining.released`."""
        average = self._optimizer.average
        return state[: self._slots.dimension] if average is None else average
