"""Training by gradients, the coordinator's half: the server optimiser steps along opened means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from privagg.encoding.vectors import FloatVector
from privagg.programs.optimizers import OptimizerSpec, make_optimizer
from privagg.programs.program import MODEL_NAME, Opened, Result
from privagg.training.data import Records
from privagg.training.evaluate import Metrics, evaluate
from privagg.training.models import get_parameters
from privagg.training.objective import LossFunction
from privagg.training.saving import save_model
from privagg.training.targets import TargetKind


class GradientTraining:
    """The first program: the state is a model's parameters, float64 (d,).

    Args:
        model: of its own; holds the public initial parameters.
        optimizer: how an opened mean moves them.
        public: the table declared public; None where there is none.
        target: what is predicted; classes by default, as many as the model tells apart.
        loss: what is trained with; the target's own by default.
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
    ) -> None:
        self._model, self._public, self._target, self._loss = model, public, target, loss
        self._initial = get_parameters(model)
        self._optimizer = make_optimizer(optimizer)

    def begin(self) -> FloatVector:
        """See `Program.begin`: the public initial parameters."""
        return self._initial

    def fold(self, state: FloatVector, opened: Opened) -> FloatVector:
        """See `Program.fold`: one step of the server optimiser."""
        return self._optimizer.step(state, opened.update)

    def figures(self, state: FloatVector) -> Mapping[str, float]:
        """See `Program.figures`: of the model that would be released now."""
        measured = self._evaluate(self._released(state))
        return {} if measured is None else measured.figures

    def kept(self) -> dict[str, Any]:
        """See `Program.kept`: the optimiser's state."""
        return self._optimizer.state()

    def resume(self, kept: Mapping[str, Any]) -> None:
        """See `Program.resume`."""
        self._optimizer.load(dict(kept))

    def finish(self, state: FloatVector, output: Path, *, measured: bool) -> Result:
        """See `Program.finish`: the model, averaged where the optimiser averages."""
        released, path = self._released(state), output / MODEL_NAME
        found = self._evaluate(released) if measured else None
        digest = save_model(self._model, released, path)
        figures = {} if found is None else found.all_figures
        return Result("model", path, digest, released, figures)

    def _released(self, state: FloatVector) -> FloatVector:
        average = self._optimizer.average
        return state if average is None else average

    def _evaluate(self, parameters: FloatVector) -> Metrics | None:
        if self._public is None:
            return None
        return evaluate(self._model, parameters, self._public, self._target, self._loss)
