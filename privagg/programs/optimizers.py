"""Server optimisers: how the mean update of a round moves the model. Plain numpy, no data.

All of them are post-processing of what a round released, so none changes a guarantee. They share
one convention: `update` already points downhill. FedAvg passes the mean delta, FedSGD minus the
mean gradient, and `sgd` at learning rate 1 on a mean delta is FedAvg itself.
"""

from __future__ import annotations

import base64
import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError

State = dict[str, JsonValue]

Fraction01 = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Schedule(BaseModel):
    """The learning rate over the rounds, as a multiple of the base rate; t counts from 0.

    Args:
        kind: `constant`: 1; `inverse-time`: 1/(1 + decay·t); `inverse-sqrt`: 1/sqrt(1 + decay·t);
            `cosine`: from 1 down to `final` over `rounds` rounds (half a cosine), then `final`.
        decay: of the inverse schedules.
        rounds: of `cosine`: how many rounds the way down takes.
        final: of `cosine`: the last multiple.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["constant", "inverse-time", "inverse-sqrt", "cosine"] = "constant"
    decay: NonNegative = 0.0
    rounds: int | None = Field(default=None, gt=0)
    final: NonNegative = 0.0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "cosine") != (self.rounds is not None):
            raise ValueError("`rounds` belongs to the schedule 'cosine', and 'cosine' needs it")
        if self.decay and not self.kind.startswith("inverse"):
            raise ValueError(f"`decay` belongs to the inverse schedules, not to {self.kind!r}")
        if self.final and self.kind != "cosine":
            raise ValueError(f"`final` belongs to the schedule 'cosine', not to {self.kind!r}")
        return self

    def factor(self, t: int) -> float:
        """The multiple of the base learning rate in step t = 0, 1, …"""
        if self.kind == "inverse-time":
            return 1.0 / (1.0 + self.decay * t)
        if self.kind == "inverse-sqrt":
            return 1.0 / math.sqrt(1.0 + self.decay * t)
        if self.kind == "cosine" and self.rounds is not None:
            done = min(t / self.rounds, 1.0)
            return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))
        return 1.0


class OptimizerSpec(BaseModel):
    """Which server optimiser runs, with public numbers only.

    Args:
        kind: `sgd` (FedSGD, FedAvg), `momentum` (FedAvgM), `adagrad`, `adam`, `yogi` (FedOpt) or
            `rmsprop`.
        learning_rate: the base rate, η.
        momentum: of `momentum` (default 0.9) and `rmsprop` (default 0).
        nesterov: of `momentum`: looks ahead.
        beta1: decay of the mean of updates in `adagrad`, `adam`, `yogi`; default 0.9, and 0 for
            `adagrad`.
        beta2: decay of the mean of squares in `adam`, `yogi`, `rmsprop`.
        tau: adaptivity, added to the root of the mean of squares.
        initial_square: the accumulator of squares before the first step; default tau², as the
            paper asks, and 0 for `rmsprop` and under bias correction.
        bias_correction: of `adam`: divides both means by what their zero start takes away.
        weight_decay: adds the gradient of weight_decay/2·|x|² to the update; looks at no data.
        radius_l2: keeps the parameters in the ball of this radius around 0 by projection.
        schedule: the learning rate over the rounds.
        average_from: averages the parameters after steps t >= average_from (Polyak and Ruppert's
            tail average), t counted from 0; None keeps no average.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sgd", "momentum", "adagrad", "adam", "yogi", "rmsprop"] = "sgd"
    learning_rate: Positive = 1.0
    momentum: Fraction01 | None = None
    nesterov: bool = False
    beta1: Fraction01 | None = None
    beta2: Fraction01 = 0.99
    tau: Positive = 1e-3
    initial_square: NonNegative | None = None
    bias_correction: bool = False
    weight_decay: NonNegative = 0.0
    radius_l2: Positive | None = None
    schedule: Schedule = Schedule()
    average_from: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _each_option_has_a_reader(self) -> Self:
        readers = {
            "momentum": ("momentum", "rmsprop"),
            "nesterov": ("momentum",),
            "beta1": ("adagrad", "adam", "yogi"),
            "beta2": ("adam", "yogi", "rmsprop"),
            "tau": ("adagrad", "adam", "yogi", "rmsprop"),
            "initial_square": ("adagrad", "adam", "yogi", "rmsprop"),
            "bias_correction": ("adam",),
        }
        for option, kinds in readers.items():
            if option in self.model_fields_set and self.kind not in kinds:
                raise ValueError(f"{option!r} is an option of {', '.join(kinds)}, not {self.kind}")
        if self.bias_correction and self.initial_square:
            raise ValueError("bias correction assumes initial_square 0; leave one of them out")
        return self

    @property
    def start_square(self) -> float:
        """The accumulator of squares before the first step."""
        if self.initial_square is not None:
            return self.initial_square
        return 0.0 if self.kind == "rmsprop" or self.bias_correction else self.tau**2


def packed(vector: FloatVector) -> str:
    """A vector as text, exact and safe for JSON."""
    return base64.b64encode(vector.astype("<f8").tobytes()).decode("ascii")


def unpacked(text: JsonValue, name: str) -> FloatVector:
    """The vector that `packed` wrote; ConfigError, with this name, where it is damaged."""
    try:
        raw = base64.b64decode(str(text), validate=True)
        return np.frombuffer(raw, dtype="<f8").astype(np.float64)
    except ValueError as error:
        raise ConfigError(f"optimiser state {name!r} is damaged: {error}") from error


class ServerOptimizer(ABC):
    """One optimiser with its state; `step` is the only thing that moves it."""

    _slot_names: tuple[str, ...] = ()

    def __init__(self, spec: OptimizerSpec) -> None:
        """Takes the public settings; the state starts empty."""
        self.spec = spec
        self.steps = 0
        self._slots: dict[str, FloatVector] = {}
        self._average: FloatVector | None = None
        self._averaged = 0

    @property
    def average(self) -> FloatVector | None:
        """The tail average of the parameters so far, float64 `(d,)`; None before it starts."""
        return None if self._average is None else self._average.copy()

    def step(self, parameters: FloatVector, update: FloatVector) -> FloatVector:
        """The parameters of the next round.

        Args:
            parameters: float64 `(d,)`.
            update: float64 `(d,)`, pointing downhill: a mean delta, or minus a mean gradient.

        Returns:
            float64 `(d,)`, new memory.

        Raises:
            ConfigError: lengths differ from each other or from the state's.
        """
        slots = self._slots or self._fresh(len(parameters))
        shapes = {parameters.shape, update.shape} | {slot.shape for slot in slots.values()}
        if parameters.ndim != 1 or len(shapes) > 1:
            raise ConfigError(
                f"parameters {parameters.shape}, update {update.shape} and the optimiser's state "
                f"must be vectors of one length, got {sorted(shapes)}"
            )
        self._slots = slots
        rate = self.spec.learning_rate * self.spec.schedule.factor(self.steps)
        downhill = update.astype(np.float64) - self.spec.weight_decay * parameters
        moved = self._project(parameters + rate * self._direction(downhill))
        self._fold_average(moved)
        self.steps += 1
        return moved

    def state(self) -> State:
        """Everything needed to resume later, exact and safe for JSON."""
        average = None if self._average is None else packed(self._average)
        return {
            "kind": self.spec.kind,
            "steps": self.steps,
            "slots": {name: packed(vector) for name, vector in self._slots.items()},
            "average": average,
            "averaged": self._averaged,
        }

    def load(self, state: State) -> None:
        """Goes on from what `state` returned.

        Raises:
            ConfigError: the state is another optimiser's, or damaged.
        """
        slots, steps, averaged = state.get("slots"), state.get("steps"), state.get("averaged")
        if state.get("kind") != self.spec.kind or not isinstance(slots, dict):
            raise ConfigError(
                f"state of optimiser {state.get('kind')!r} cannot be loaded into "
                f"{self.spec.kind!r}; resume with the settings the run was started with"
            )
        if not isinstance(steps, int) or not isinstance(averaged, int) or min(steps, averaged) < 0:
            raise ConfigError("optimiser state has no valid step counts; it is damaged")
        vectors = {name: unpacked(text, name) for name, text in slots.items()}
        text = state.get("average")
        average = None if text is None else unpacked(text, "average")
        lengths = {len(vector) for vector in vectors.values()}
        if average is not None:
            lengths.add(len(average))
        if (vectors and set(vectors) != set(self._slot_names)) or len(lengths) > 1:
            raise ConfigError(
                f"optimiser state holds {sorted(vectors)} of lengths {sorted(lengths)}; expected "
                f"{sorted(self._slot_names)} of one length: it is damaged"
            )
        self.steps, self._averaged, self._slots, self._average = steps, averaged, vectors, average

    @abstractmethod
    def _direction(self, update: FloatVector) -> FloatVector:
        """The step at learning rate 1; advances the slots."""

    def _fresh(self, dimension: int) -> dict[str, FloatVector]:
        start = {"square": self.spec.start_square}
        return {name: np.full(dimension, start.get(name, 0.0)) for name in self._slot_names}

    def _project(self, parameters: FloatVector) -> FloatVector:
        radius = self.spec.radius_l2
        if radius is None or (norm := float(np.linalg.norm(parameters))) <= radius:
            return parameters
        return np.asarray(parameters * (radius / norm))

    def _fold_average(self, parameters: FloatVector) -> None:
        if self.spec.average_from is None or self.steps < self.spec.average_from:
            return
        self._averaged += 1
        previous = np.zeros_like(parameters) if self._average is None else self._average
        self._average = previous + (parameters - previous) / self._averaged


class Sgd(ServerOptimizer):
    """x + η·update. On mean deltas FedAvg, on minus mean gradients FedSGD (McMahan et al. 2017)."""

    def _direction(self, update: FloatVector) -> FloatVector:
        return update


class Momentum(ServerOptimizer):
    """b ← μ·b + update; x + η·b, or with Nesterov x + η·(update + μ·b): FedAvgM.

    Source: Hsu, Qi & Brown 2019, section 4.2.
    """

    _slot_names = ("buffer",)

    def _direction(self, update: FloatVector) -> FloatVector:
        decay = 0.9 if self.spec.momentum is None else self.spec.momentum
        buffer = self._slots["buffer"] = decay * self._slots["buffer"] + update
        return np.asarray(update + decay * buffer) if self.spec.nesterov else buffer


class _Adaptive(ServerOptimizer):
    """x + η·m/(√v + τ) with m ← β1·m + (1−β1)·update.

    Source: Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2.
    """

    _slot_names = ("mean", "square")
    _default_beta1 = 0.9

    def _direction(self, update: FloatVector) -> FloatVector:
        beta1 = self._default_beta1 if self.spec.beta1 is None else self.spec.beta1
        mean = self._slots["mean"] = beta1 * self._slots["mean"] + (1.0 - beta1) * update
        square = self._slots["square"] = self._next_square(self._slots["square"], update**2)
        if self.spec.bias_correction:
            t = self.steps + 1
            mean, square = mean / (1.0 - beta1**t), square / (1.0 - self.spec.beta2**t)
        return np.asarray(mean / (np.sqrt(square) + self.spec.tau))

    @abstractmethod
    def _next_square(self, square: FloatVector, new: FloatVector) -> FloatVector:
        """The accumulator of squares after this round's square."""


class Adagrad(_Adaptive):
    """v ← v + update²: FedAdagrad (Reddi et al. 2021, Algorithm 2), without momentum by default."""

    _default_beta1 = 0.0

    def _next_square(self, square: FloatVector, new: FloatVector) -> FloatVector:
        return square + new


class Adam(_Adaptive):
    """v ← β2·v + (1−β2)·update²: FedAdam (Reddi et al. 2021, Algorithm 2)."""

    def _next_square(self, square: FloatVector, new: FloatVector) -> FloatVector:
        return self.spec.beta2 * square + (1.0 - self.spec.beta2) * new


class Yogi(_Adaptive):
    """v ← v − (1−β2)·update²·sign(v − update²): FedYogi (Reddi et al. 2021, Algorithm 2)."""

    def _next_square(self, square: FloatVector, new: FloatVector) -> FloatVector:
        return np.asarray(square - (1.0 - self.spec.beta2) * new * np.sign(square - new))


class RmsProp(ServerOptimizer):
    """v ← β2·v + (1−β2)·update²; b ← μ·b + update/(√v + τ); x + η·b (Hinton 2012, lecture 6)."""

    _slot_names = ("buffer", "square")

    def _direction(self, update: FloatVector) -> FloatVector:
        square = self.spec.beta2 * self._slots["square"] + (1.0 - self.spec.beta2) * update**2
        scaled = update / (np.sqrt(square) + self.spec.tau)
        buffer = (self.spec.momentum or 0.0) * self._slots["buffer"] + scaled
        self._slots["square"], self._slots["buffer"] = square, buffer
        return np.asarray(buffer)


_KINDS: dict[str, type[ServerOptimizer]] = {
    "sgd": Sgd,
    "momentum": Momentum,
    "adagrad": Adagrad,
    "adam": Adam,
    "yogi": Yogi,
    "rmsprop": RmsProp,
}


def make_optimizer(spec: OptimizerSpec) -> ServerOptimizer:
    """A fresh optimiser for these settings."""
    return _KINDS[spec.kind](spec)
