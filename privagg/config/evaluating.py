"""Evaluations on held-out records: of an opened model, and of a training's models between rounds.

Both are jobs of sums beside the training, each with its own plan, approval and charge.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from privagg.config.asking import SumsSetup
from privagg.config.data import TableData
from privagg.config.private import PrivateEvaluationSection
from privagg.config.schema import Config
from privagg.config.setup import Setup
from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError
from privagg.privacy.plan import SumsPlan
from privagg.programs.evaluation import Evaluation, OpenedModel
from privagg.programs.evaluation.held import HeldRecords, digest_of
from privagg.programs.program import MODEL_NAME
from privagg.programs.questions.columns import Columns
from privagg.training.heldout import HeldOut
from privagg.training.models import get_parameters
from privagg.training.saving import load_model, require_opened

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class HeldOutSetup(SumsSetup):
    """A job over the records that the configuration holds out of training.

    Args:
        config, base, source, accountant, pinned, allowed, given, given_public: as for `Setup`.
    """

    @classmethod
    def configured(cls, config: Config) -> bool:
        """Whether a configuration evaluates on held-out records of declared columns."""
        return config.private_evaluation is not None and isinstance(config.data, TableData)

    def require_there(self) -> None:
        """See `SumsSetup.require_there`."""
        if not self.configured(self.config):
            raise ConfigError(
                f"{self.source or 'the configuration'} holds no records out; write [evaluation] "
                "with private = true and its epsilon, and train with it, before you evaluate"
            )

    @property
    def terms(self) -> PrivateEvaluationSection:
        """What is evaluated, and what it may cost."""
        assert self.config.private_evaluation is not None  # refused by `of`
        return self.config.private_evaluation

    @property
    def rule(self) -> HeldOut:
        """Which records are held out."""
        assert self.config.held_out is not None
        return self.config.held_out

    def read_lines(self, site: str, table: pd.DataFrame) -> HeldRecords:
        """See `SumsSetup.read_lines`: the usable lines that are held out of training."""
        schema = self.schema
        usable = table.loc[schema.usable(table)]
        inputs, targets = schema.encode(usable)
        held = self.rule.mask(inputs, schema.columns)
        columns = Columns.read(usable, schema)
        return HeldRecords(
            self.plan.names.index(site),
            inputs[held],
            targets[held],
            {name: columns.codes(name)[held] for name in self.terms.subgroups},
        )

    def _references(self) -> tuple[str, ...]:
        """A model of somebody's own is code, here as in training."""
        return Setup._references(self)


@dataclass(frozen=True, eq=False)
class EvaluateSetup(HeldOutSetup):
    """An opened model on the records that the configuration holds out.

    Args:
        config, base, source, accountant, pinned, allowed, given, given_public: as for `Setup`.
    """

    job: ClassVar[str] = "evaluation"
    command: ClassVar[str] = "evaluate"
    epsilon_key: ClassVar[str] = "evaluation.epsilon"

    @classmethod
    def is_in(cls, setup: Setup) -> bool:
        """See `SumsSetup.is_in`: a model is there, too, as the plan names it."""
        return cls.configured(setup.config) and cls._model_path(setup).is_file()

    @property
    def epsilon(self) -> Decimal:
        """See `SumsSetup.epsilon`."""
        return self.terms.cost_of(self.config.privacy.epsilon)

    @property
    def model_sha256(self) -> str:
        """SHA-256 (hex) of the file of the evaluated model, as the plan pins it."""
        digest = self.sums.content.model.sha256
        assert digest is not None  # of one that was opened
        return digest

    @property
    def model_path(self) -> Path:
        """The file of the evaluated model; it need not be there yet."""
        return self._model_path(self)

    @staticmethod
    def _model_path(setup: Setup) -> Path:
        if setup.opened is not None:
            return setup.opened
        private = setup.config.private_evaluation
        if private is None or private.model is None:
            return setup.output / MODEL_NAME
        return setup.base / private.model

    @property
    def sums(self) -> Evaluation:
        """See `SumsSetup.sums`.

        Raises:
            ConfigError: there is no model, or another than the one that is pinned.
            ModelError: it has another shape than the configuration's.
        """
        return self._chosen[0]

    @property
    def plan(self) -> SumsPlan:
        """See `SumsSetup.plan`; of two kinds of noise the one that leaves less in any cell."""
        return self._chosen[1]

    @cached_property
    def _chosen(self) -> tuple[Evaluation, SumsPlan]:
        model, parameters = self._model
        usual = self.config.evaluated(model)
        program = Evaluation(usual, parameters, self.code)
        if self.terms.noise != "auto" or not program.only_ones:
            return program, self.planned(program)
        laplace = usual.model_copy(update={"noise": "laplace"})
        return self.quieter(program, lambda: Evaluation(laplace, parameters, self.code))

    @property
    def _model(self) -> tuple[OpenedModel, FloatVector]:
        """The model and its parameters."""
        path = self.model_path
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            advice = "train one first, or name its file as evaluation.model"
            if self.opened is not None:
                advice = "name the file of one that was trained: --model FILE"
            raise ConfigError(
                f"there is no model {path} to evaluate ({error.strerror}); {advice}. Nothing was "
                "spent"
            ) from error
        if self.terms.model_sha256 not in (None, digest):
            raise ConfigError(
                f"the model {path} has SHA-256 {digest}, and evaluation.model_sha256 names "
                f"{self.terms.model_sha256}; name the file that is meant. Nothing was spent"
            )
        parameters = get_parameters(load_model(self.fresh_model(), path))
        require_opened(path)
        return self._opened(digest, parameters), parameters

    @property
    def foreseen(self) -> EvaluateSetup:
        """The same before there is a model: what it will cost, under a plan of another digest."""
        if self.model_path.exists():
            return self
        return ForeseenEvaluation.of(self)

    def _opened(self, digest: str, parameters: FloatVector) -> OpenedModel:
        return OpenedModel(
            spec=self.config.training.model,
            seed=self.config.federation.seed,
            sha256=digest,
            parameters=len(parameters),
            parameters_sha256=digest_of(parameters),
        )


@dataclass(frozen=True, eq=False)
class ForeseenEvaluation(EvaluateSetup):
    """An evaluation whose model is not trained yet; it is looked at and never run.

    Args:
        config, base, source, accountant, pinned, allowed, given, given_public: as for `Setup`.
    """

    @property
    def _model(self) -> tuple[OpenedModel, FloatVector]:
        """One that is not trained."""
        parameters = get_parameters(self.fresh_model())
        return self._opened("0" * 64, parameters), parameters


@dataclass(frozen=True, eq=False)
class RoundsSetup(HeldOutSetup):
    """The models of a training, evaluated between its rounds while it lasts.

    Its plan names no model: those come to be while it runs, and what a record adds is bounded
    whatever they are.

    Args:
        config, base, source, accountant, pinned, allowed, given, given_public: as for `Setup`.
    """

    job: ClassVar[str] = "rounds"
    command: ClassVar[str] = "run"
    epsilon_key: ClassVar[str] = "evaluation.rounds.epsilon"

    @classmethod
    def is_in(cls, setup: Setup) -> bool:
        """See `SumsSetup.is_in`."""
        return cls.configured(setup.config)

    @classmethod
    def configured(cls, config: Config) -> bool:
        """See `HeldOutSetup.configured`: between rounds, too."""
        private = config.private_evaluation
        return super().configured(config) and private is not None and private.rounds is not None

    def require_there(self) -> None:
        """See `SumsSetup.require_there`."""
        if not self.configured(self.config):
            raise ConfigError(
                f"{self.source or 'the configuration'} evaluates no round; write "
                "[evaluation.rounds] with every and its epsilon below [evaluation] with private = "
                "true"
            )

    @property
    def epsilon(self) -> Decimal:
        """See `SumsSetup.epsilon`."""
        assert self.terms.rounds is not None  # refused by `of`
        return self.terms.rounds.cost_of(self.config.privacy.epsilon)

    @cached_property
    def sums(self) -> Evaluation:
        """See `SumsSetup.sums`; round 1 starts from the model that training starts from."""
        parameters = get_parameters(self.fresh_model())
        model = OpenedModel(
            spec=self.config.training.model,
            seed=self.config.federation.seed,
            parameters=len(parameters),
        )
        return Evaluation(self.config.evaluated_rounds(model), parameters, self.code)
