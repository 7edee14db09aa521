"""Networks of linear layers in a row, neuron by neuron: which are alike, and where they lie.

A hidden neuron may stand at any place of its layer; what the network computes stays the same. So a
network of fewer neurons lies in a larger one wherever each of its neurons has a place: parameter by
parameter, an index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import ConfigError, ModelError
from privagg.training.saving import read_tensors

_NEURON_BY_NEURON = (nn.Flatten, nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU,
                     nn.Softplus, nn.Sigmoid, nn.Tanh, nn.Dropout)  # fmt: skip


@dataclass(frozen=True)
class Layers:
    """The shape of such a network; its parameters are each layer's weights, then its biases.

    Args:
        sizes: inputs, each hidden layer's neurons, outputs.
    """

    sizes: tuple[int, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """A model's shape.

        Raises:
            ModelError: it is another kind of network, or has no hidden layer.
        """
        kinds = list(model) if isinstance(model, nn.Sequential) else [model]
        linear = [one for one in kinds if isinstance(one, nn.Linear)]
        others = [one for one in kinds if not isinstance(one, (nn.Linear, *_NEURON_BY_NEURON))]
        trained = all(p.requires_grad for p in model.parameters())
        if others or len(linear) < 2 or any(one.bias is None for one in linear) or not trained:
            found = f"; it has {type(others[0]).__name__}" if others else ""
            raise ModelError(
                "neurons are matched in linear layers in a row, each with biases and all of it "
                f"trained, as 'mlp' has for classes and numbers, and not in this model{found}"
            )
        return cls((linear[0].in_features, *(one.out_features for one in linear)))

    @property
    def hidden(self) -> tuple[int, ...]:
        """Neurons of each hidden layer."""
        return self.sizes[1:-1]

    @property
    def slots(self) -> int:
        """Hidden neurons in all."""
        return sum(self.hidden)

    @property
    def dimension(self) -> int:
        """Parameters."""
        return sum(into * (ins + 1) for ins, into in pairwise(self.sizes))

    def neurons(self, vector: FloatVector) -> list[tuple[FloatVector, FloatVector]]:
        """Each layer's weights, a row for each neuron, and its biases.

        Args:
            vector: float64 (d,), the parameters.
        """
        found, at = [], 0
        for ins, into in pairwise(self.sizes):
            weights, biases = np.split(vector[at : at + into * (ins + 1)], [into * ins])
            found.append((weights.reshape(into, ins), biases))
            at += into * (ins + 1)
        return found

    def places(self, chosen: Sequence[IntVector]) -> IntVector:
        """Where the parameters of a network lie in this one, int64.

        Args:
            chosen: for each hidden layer, the place of each of its neurons, int64.
        """
        ends = np.arange(self.sizes[0]), np.arange(self.sizes[-1])
        found, at = [], 0
        for (ins, into), (before, own) in zip(
            pairwise(self.sizes), pairwise([ends[0], *chosen, ends[1]]), strict=True
        ):
            weights = np.add.outer(own * ins, before).ravel()
            found += [at + weights, at + into * ins + own]
            at += into * (ins + 1)
        return np.concatenate(found)

    def by_parameter(self, values: FloatVector) -> FloatVector:
        """Values of hidden neurons, for each parameter that of its neuron, float64 (d,).

        A weight or a bias is its own neuron's, but for the last layer: a weight of it is that of
        the hidden neuron that it leaves, and its biases have 1.

        Args:
            values: float64 (slots,).
        """
        each = np.split(values, np.cumsum(self.hidden)[:-1])
        found = []
        for ins, own in zip(self.sizes, each, strict=False):
            found += [np.repeat(own, ins), own]
        outputs = self.sizes[-1]
        return np.concatenate([*found, np.tile(each[-1], outputs), np.ones(outputs)])


def matched(
    own: Layers, vector: FloatVector, slots: Layers, published: FloatVector
) -> list[IntVector]:
    """For each hidden layer, the slot of each of a network's own neurons; none has two.

    Layer by layer, the assignment whose squared distances are least in sum: of a neuron's weights
    and bias from those of the slot, over the inputs that this network has.

    Args:
        own: the network's shape, nowhere wider than `slots`.
        vector: its parameters, float64.
        slots: the published shape.
        published: its parameters, float64 (d,).

    Raises:
        ValueError: a value is not finite.
    """
    from scipy.optimize import linear_sum_assignment  # loading it takes longer than matching

    before, found = np.arange(own.sizes[0]), list[IntVector]()
    layers = zip(own.neurons(vector)[:-1], slots.neurons(published)[:-1], strict=True)
    for (weights, biases), (theirs, others) in layers:
        mine = np.column_stack([weights, biases])
        there = np.column_stack([theirs[:, before], others])
        _, before = linear_sum_assignment(_squared_distances(mine, there))
        found.append(np.asarray(before, dtype=np.int64))
    return found


def _squared_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of every row from every row; a term that no choice changes is left out."""
    return np.asarray((b * b).sum(axis=1) - 2 * a @ b.T)


def resized(model: nn.Module, layers: Layers) -> nn.Module:
    """The same kind of network with other numbers of neurons.

    Args:
        model: one that `Layers.of` takes; untouched.
        layers: the other's shape.
    """
    made, at = deepcopy(model), 0
    assert isinstance(made, nn.Sequential)  # `Layers.of` refuses another
    for place, layer in enumerate(made):
        if isinstance(layer, nn.Linear):
            made[place] = nn.Linear(layers.sizes[at], layers.sizes[at + 1])
            at += 1
    return made


def read_network(path: Path, model: nn.Module) -> tuple[Layers, FloatVector]:
    """A network of a site's own, of a model's kind and nowhere wider.

    Args:
        path: a safetensors file, its names the model's.
        model: one that `Layers.of` takes.

    Returns:
        Its shape, and its parameters, float64.

    Raises:
        ConfigError: the file is not there, or holds another kind of network, or a wider one.
    """
    published, tensors = Layers.of(model), read_tensors(path)[0]
    names = [name for name, _ in model.named_parameters()]
    shapes = [tuple(tensors[name].shape) if name in tensors else () for name in names]
    rows = [shape[0] for shape in shapes[1::2] if shape]
    sizes = (published.sizes[0], *rows)
    own = Layers(sizes)
    expected = [shape for ins, into in pairwise(sizes) for shape in ((into, ins), (into,))]
    fits = set(tensors) == set(names) and shapes == expected and sizes[-1] == published.sizes[-1]
    if not (fits and all(0 < a <= b for a, b in zip(own.hidden, published.hidden, strict=True))):
        told = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
        raise ConfigError(
            f"{path} holds {told}; a site's own network is {', '.join(names)} with the published "
            f"model's {sizes[0]} inputs and {published.sizes[-1]} outputs, and with at most "
            f"{' and '.join(map(str, published.hidden))} hidden neurons; nothing was spent"
        )
    vector = torch.cat([tensors[name].double().flatten() for name in names]).numpy()
    if not math.isfinite(float(np.abs(vector).sum())):
        raise ConfigError(f"{path} holds values that are not finite; nothing was spent")
    return own, vector
