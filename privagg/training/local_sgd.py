"""Plain SGD at a site, from a model that everybody has: nothing here is clipped, noised or sent.

LocalSgd       w ← w − η (∇f(w) + μ (w − w₀) + correction)
MetaSgd        w ← w − η ∇_w f(w − α ∇f(w; D); D′)
PersonalSgd    the same with a part of the model that stays at home, both at once or in turn
TaughtSgd      all of the network at home, drawn to the class logits that everybody shares
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from privagg.encoding.vectors import FloatVector
from privagg.errors import ModelError
from privagg.training.data import Records
from privagg.training.declared import ClientRule
from privagg.training.devices import Device
from privagg.training.frozen import named_parameters
from privagg.training.models import get_parameters, set_parameters
from privagg.training.objective import LossFunction
from privagg.training.taught import Taught
from privagg.training.torch_state import deterministic_torch, layer_randomness

LARGEST_LOGIT = 10.0
"""B: logits beyond it count as it, where sites share logits by class."""

_TOGETHER = 4096
"""Records that a network is asked of at once."""

Batches = Iterator[npt.NDArray[np.int64]]

Tensors = Sequence[torch.Tensor]

Arrays = Mapping[str, npt.NDArray[np.float32]]


class LocalSgd:
    """SGD on a site's records; FedProx's pull towards the start is part of each step.

    Args:
        model: its own instance; it belongs to this from now on.
        records: the site's own.
        rule: learning rate η and pull μ.
        loss: each record's.
        device: where it is trained.
    """

    def __init__(
        self,
        model: nn.Module,
        records: Records,
        rule: ClientRule,
        loss: LossFunction,
        device: Device,
    ) -> None:
        self._model, self._device = model.to(device.torch), device
        self._records, self._rule, self._loss = records, rule, loss

    def of(self, model: nn.Module) -> Self:
        """The same steps on another model, which belongs to them from now on."""
        return type(self)(model, self._records, self._rule, self._loss, self._device)

    def train(
        self,
        start: FloatVector,
        batches: Batches,
        steps: int,
        *,
        layer_seed: int = 0,
        correction: FloatVector | None = None,
        on_step: Callable[[], None] = lambda: None,
    ) -> FloatVector:
        """The change of the parameters over the steps, float64 (d,). Private.

        Args:
            start: float64 (d,), the trainable parameters before the first step.
            batches: places of each step's records.
            steps: how many.
            layer_seed: of layers that draw.
            correction: float64 (d,), added to every gradient; none by default.
            on_step: called after each.
        """
        set_parameters(self._model, start)
        self._model.train()
        weights = [p for p in self._model.parameters() if p.requires_grad]
        anchors = [p.detach().clone() for p in weights]
        added = self._like(weights, correction)
        with deterministic_torch(self._device.threads), layer_randomness(layer_seed):
            for number in range(steps):
                self._step(number, batches, weights, anchors, added)
                on_step()
        return get_parameters(self._model) - start.astype(np.float32).astype(np.float64)

    def _like(self, weights: Tensors, vector: FloatVector | None) -> list[torch.Tensor | None]:
        if vector is None:
            return [None] * len(weights)
        parts = torch.from_numpy(vector.astype(np.float32)).to(self._device.torch)
        split = torch.split(parts, [w.numel() for w in weights])
        return [part.view_as(w) for part, w in zip(split, weights, strict=True)]

    def _step(
        self,
        number: int,
        batches: Batches,
        weights: Tensors,
        anchors: Tensors,
        added: Sequence[torch.Tensor | None],
    ) -> None:
        self._move(weights, self._gradients(batches, weights), anchors, added)

    @torch.no_grad()
    def _move(
        self,
        weights: Tensors,
        gradients: Sequence[torch.Tensor | None],
        anchors: Tensors,
        added: Sequence[torch.Tensor | None],
    ) -> None:
        for weight, gradient, anchor, more in zip(weights, gradients, anchors, added, strict=True):
            pull = self._rule.prox_mu * (weight - anchor)
            slope = pull if gradient is None else gradient + pull
            slope = slope if more is None else slope + more
            weight.sub_(slope, alpha=self._rule.learning_rate)

    def _gradients(self, batches: Batches, weights: Tensors) -> tuple[torch.Tensor | None, ...]:
        x, y = self._batch(next(batches))
        loss = self._loss(self._model(x), y).mean()
        return torch.autograd.grad(loss, weights, allow_unused=True)

    def _batch(self, places: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = (values.to(self._device.torch) for values in self._records.gather(places))
        return x, y


class MetaSgd(LocalSgd):
    """Per-FedAvg's local step: the gradient of the loss after one step at home, both orders.

    The Hessian is of the batch D that the inner step is on, as in MAML, not of a third batch.

    Source: Fallah, Mokhtari & Ozdaglar, "Personalized federated learning with theoretical
        guarantees", NeurIPS 2020, Algorithm 1; Finn, Abbeel & Levine, "MAML", ICML 2017.
    """

    def _gradients(self, batches: Batches, weights: Tensors) -> tuple[torch.Tensor | None, ...]:
        named = {n: p for n, p in self._model.named_parameters() if p.requires_grad}
        x, y = self._batch(next(batches))
        loss = self._loss(self._model(x), y).mean()
        slopes = torch.autograd.grad(loss, list(named.values()), create_graph=True)
        rate = self._rule.algorithm.inner_learning_rate or 0.0
        moved = {n: p - rate * g for (n, p), g in zip(named.items(), slopes, strict=True)}
        x, y = self._batch(next(batches))
        outer = self._loss(functional_call(self._model, moved, (x,)), y).mean()
        return torch.autograd.grad(outer, weights, allow_unused=True)


class PersonalSgd(LocalSgd):
    """A part of the model that is no parameter of the round's: FedPer at once, FedRep in turn.

    Args:
        model, records, rule, loss, device: as for `LocalSgd`; the rule's algorithm names the part.
    """

    def __init__(
        self,
        model: nn.Module,
        records: Records,
        rule: ClientRule,
        loss: LossFunction,
        device: Device,
    ) -> None:
        super().__init__(model, records, rule, loss, device)
        self._own = personal_parameters(model, rule.algorithm.personal)

    @property
    def own(self) -> Arrays:
        """The part that stays at home, by its parameters' names: a copy. Private."""
        return {n: p.detach().cpu().numpy().copy() for n, p in self._own.items()}

    @own.setter
    def own(self, values: Arrays) -> None:
        with torch.no_grad():
            for name, parameter in self._own.items():
                parameter.copy_(torch.from_numpy(np.asarray(values[name])))

    def _step(
        self,
        number: int,
        batches: Batches,
        weights: Tensors,
        anchors: Tensors,
        added: Sequence[torch.Tensor | None],
    ) -> None:
        home, first = list(self._own.values()), self._rule.algorithm.personal_steps
        for parameter in home:
            parameter.requires_grad_(True)
        try:
            gradients = self._gradients(batches, [*weights, *home])
        finally:
            for parameter in home:
                parameter.requires_grad_(False)
        if first is None or number >= first:
            self._move(weights, gradients[: len(weights)], anchors, added)
        if first is None or number < first:
            self._move(home, gradients[len(weights) :], home, [None] * len(home))


class TaughtSgd(PersonalSgd):
    """Local steps of the network: each record's loss, and how far its logits lie from its class'.

    f(z, y) + γ · mean((z − table_y)²) / 2, the second where the table knows the class.
    """

    _model: Taught

    def _gradients(self, batches: Batches, weights: Tensors) -> tuple[torch.Tensor | None, ...]:
        x, y = self._batch(next(batches))
        outputs, taught = self._model(x), self._model.table.detach()[y]
        apart = 0.5 * ((outputs - taught[:, :-1]) ** 2).mean(dim=1)
        pull = self._rule.algorithm.strength * torch.where(taught[:, -1] > 0, apart, 0.0)
        loss = (self._loss(outputs, y) + pull).mean()
        return torch.autograd.grad(loss, weights, allow_unused=True)

    def table(self) -> FloatVector:
        """What the network says of the site's records by class, float64 (classes · (outputs + 1),).

        Private; shares add to 1, logits are in parts of `LARGEST_LOGIT`.
        """
        count = len(self._records)
        self._model.eval()
        total = torch.zeros_like(self._model.table, dtype=torch.float64)
        with torch.no_grad(), deterministic_torch(self._device.threads):
            for some in np.array_split(np.arange(count), -(-count // _TOGETHER)):
                x, y = self._batch(some)
                outputs = self._model(x).clamp(-LARGEST_LOGIT, LARGEST_LOGIT) / LARGEST_LOGIT
                hot = functional.one_hot(y, len(total)).to(torch.float64)
                total[:, :-1] += hot.T @ outputs.to(torch.float64)
                total[:, -1] += hot.sum(dim=0)
        return np.asarray(total.cpu().numpy().ravel() / count)


def personal_parameters(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters that stay at home, by name.

    Args:
        model: of any site.
        patterns: names, with `*` and `?` as in file names.

    Raises:
        ModelError: as `privagg.training.frozen.named_parameters`.
    """
    return named_parameters(
        model, patterns, setting="training.algorithm.personal", either="shared or at home"
    )


def keep_home(model: nn.Module, patterns: Sequence[str]) -> None:
    """Takes the personal part out of what a round's model is: no gradient, no upload.

    Args:
        model: changed in place.
        patterns: as for `personal_parameters`.

    Raises:
        ModelError: as `personal_parameters`, or nothing is left to share.
    """
    for parameter in personal_parameters(model, patterns).values():
        parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ModelError(
            "training.algorithm.personal names every parameter, so that nothing is shared; leave "
            "one out"
        )


SGD: dict[str, type[LocalSgd]] = {
    "per-fedavg": MetaSgd,
    "fedper": PersonalSgd,
    "fedrep": PersonalSgd,
    "class-logits": TaughtSgd,
}
"""The local steps of an algorithm; `LocalSgd` where it is not here."""
