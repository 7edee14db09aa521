"""Training by gradients, the coordinator's half: the server optimiser steps along opened means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from privagg.encoding.vectors import FloatVector
from privagg.programs.centring import Centring
from privagg.programs.optimizers import OptimizerSpec, make_optimizer
from privagg.programs.program import MODEL_NAME, Opened, Result
from privagg.training.data import Records
from privagg.training.evaluate import Metrics, evaluate
from privagg.training.modelcard import header_text
from privagg.training.models import Centre, ParameterLayout, get_parameters
from privagg.training.objective import LossFunction
from privagg.training.saving import load_model, save_model
from privagg.training.targets import TargetKind


def _centring_of(model: nn.Module) -> Centring | None:
    """What opens a centred model's means; None where the model has no centre."""
    if not any(isinstance(layer, Centre) for layer in model.modules()):
        return None
    (width,), (outputs, _) = ParameterLayout.of(model).shapes
    return Centring(outputs, width, Centre.constant)


class GradientTraining:
    """The first program: the state is a model's parameters, float64 (d,).

    Args:
        model: of its own; holds the public initial parameters.
        optimizer: how an opened mean moves them.
        public: the table declared public; None where there is none.
        target: what is predicted; classes by default, as many as the model tells apart.
        loss: what is trained with; the target's own by default.
        card: what the model's file says of it, in its header; nothing by default.
    """

    file_name = MODEL_NAME
    keeps_sums = False

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerSpec,
        public: Records | None = None,
        target: TargetKind | None = None,
        loss: LossFunction | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._public, self._target, self._loss = model, public, target, loss
        self._header = {"privagg": header_text(card)} if card else {}
        self._initial = get_parameters(model)
        self._optimizer = make_optimizer(optimizer)
        self._centring = _centring_of(model)

    def begin(self) -> FloatVector:
        """See `Program.begin`: the public initial parameters, or the first of two intercepts."""
        return self._initial if self._centring is None else self._centring.begin()

    def fold(self, state: FloatVector, opened: Opened) -> FloatVector:
        """See `Program.fold`: one step of the server optimiser, or an opening of features' means.

        A centre that was opened stays: steps move what comes after it.
        """
        centring, downhill = self._centring, opened.update
        if centring is None:
            return self._optimizer.step(state, downhill)
        if centring.done:
            first: FloatVector | None = downhill[centring.width :]
        else:
            state, first = centring.probe(downhill)
        if first is None:
            return state
        centre, moved = np.split(state, [centring.width])
        return np.concatenate([centre, self._optimizer.step(moved, first)])

    def figures(self, state: FloatVector) -> Mapping[str, float]:
        """See `Program.figures`: of the model that would be released now."""
        measured = self._evaluate(self.released(state))
        return {} if measured is None else measured.figures

    def kept(self) -> dict[str, Any]:
        """See `Program.kept`: the optimiser's state, and what is known of features' means."""
        own = {} if self._centring is None else {"centring": self._centring.state()}
        return {**self._optimizer.state(), **own}

    def resume(self, kept: Mapping[str, Any]) -> None:
        """See `Program.resume`."""
        self._optimizer.load(dict(kept))
        if self._centring is not None:
            self._centring.load(kept.get("centring", {}))

    def finish(self, state: FloatVector, output: Path, *, measured: bool) -> Result:
        """See `Program.finish`: the model, averaged where the optimiser averages."""
        return self.release(self.released(state), output, measured=measured)

    def release(self, parameters: FloatVector, output: Path, *, measured: bool) -> Result:
        """Write these parameters as the model that the training ends with.

        Args:
            parameters: float64 (d,), of one of its rounds.
            output, measured: as for `finish`.

        Raises:
            ConfigError: it cannot be written.
        """
        path = output / MODEL_NAME
        found = self._evaluate(parameters) if measured else None
        digest = self.save(parameters, path)
        figures = {} if found is None else found.all_figures
        return Result("model", path, digest, parameters, figures)

    def save(self, parameters: FloatVector, path: Path) -> str:
        """Write a model's file; the same parameters give the same bytes.

        Args:
            parameters: float64 (d,).
            path: the file.

        Returns:
            SHA-256 (hex) of the file.

        Raises:
            ConfigError: it cannot be written.
        """
        return save_model(self._model, parameters, path, self._header)

    def read(self, path: Path) -> FloatVector:
        """The parameters, float64 (d,), of a file that `save` wrote.

        Raises:
            ConfigError: it is not there, or no such file.
            ModelError: it holds another model's parameters.
        """
        return get_parameters(load_model(self._model, path))

    def released(self, state: FloatVector) -> FloatVector:
        """The model, float64 (d,), that would be released now.

        Args:
            state: after the last round that was opened.
        """
        average, centring = self._optimizer.average, self._centring
        if centring is not None and not centring.done:
            return self._initial  # an intercept that was asked for is no model
        if average is None:
            return state
        return average if centring is None else np.concatenate([state[: centring.width], average])

    def _evaluate(self, parameters: FloatVector) -> Metrics | None:
        if self._public is None:
            return None
        return evaluate(self._model, parameters, self._public, self._target, self._loss)
