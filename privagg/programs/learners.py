"""Both halves of training under each plan and algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from privagg.encoding.contribution import Learner
from privagg.errors import ConfigError
from privagg.privacy.plan import ClientPlan, DistributedPlan, LocalPlan, TrainingPlan
from privagg.programs.adaptive_clip import AdaptiveClient, AdaptiveClip
from privagg.programs.class_logits import ClassLogits, ClassLogitsClient
from privagg.programs.clients import ClientLearner, PersonalClient
from privagg.programs.fedma import Fedma, FedmaClient
from privagg.programs.gradient import GradientTraining
from privagg.programs.halves import Halves
from privagg.programs.optimizers import OptimizerSpec
from privagg.programs.scaffold import ScaffoldClient, ScaffoldLocal
from privagg.programs.training import DistributedLearner, LocalLearner
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.data import Records
from privagg.training.declared import ClientRule
from privagg.training.devices import ONE_THREAD, Device
from privagg.training.objective import CLASSES, LossFunction, Objective
from privagg.training.rehearsal import RecordsApart
from privagg.training.targets import TargetKind

_CLIENTS: dict[str, type[ClientLearner]] = {
    "fedavg": ClientLearner,
    "halves": ClientLearner,
    "per-fedavg": ClientLearner,
    "scaffold": ScaffoldClient,
    "fedper": PersonalClient,
    "fedrep": PersonalClient,
    "adaptive-clip": AdaptiveClient,
    "fedma": FedmaClient,
    "class-logits": ClassLogitsClient,
}

LEARNERS: dict[type[TrainingPlan], dict[str, Callable[..., Learner]]] = {
    DistributedPlan: {"fedavg": DistributedLearner},
    LocalPlan: {"fedavg": LocalLearner, "scaffold": ScaffoldLocal},
    ClientPlan: {**_CLIENTS},
}
"""What a site computes under each class of plans, by algorithm; what is not here trains nowhere."""


def extra_coordinates(algorithm: AlgorithmSpec, model: nn.Module) -> int:
    """Values of a round's state, and of its sum, beside the model's parameters.

    Args:
        algorithm: of the plan.
        model: of any site.

    Raises:
        ModelError: the algorithm does not go with such a model.
    """
    return _CLIENTS[algorithm.kind].extra_coordinates(model)


def make_learner(
    plan: TrainingPlan,
    site: str,
    *,
    model: nn.Module,
    records: Records,
    rule: ClientRule,
    objective: Objective = CLASSES,
    tested: RecordsApart | None = None,
    device: Device = ONE_THREAD,
    network: Path | None = None,
) -> Learner:
    """The learner that the plan's mode and the rule's algorithm ask for, on the plan's own grid.

    Args:
        plan: what everybody agreed to.
        site: the site's name in the plan.
        model: its own instance of the public model; it belongs to the learner from now on.
        records: the site's own records.
        rule: how the site trains between two rounds.
        objective: each record's loss from its row alone.
        tested: what a test of this model, batch and loss found in this process, on this device;
            without it, one is made where the plan protects records.
        device: where it is trained.
        network: file of a network of the site's own, from which `fedma` begins there.

    Raises:
        ConfigError: the model does not fit the plan, or nothing of this mode has this algorithm; a
            network of the site's own cannot be used.
        DataError: there are more records than the site declared.
        PlanError: the plan is of version 1, which cannot be trained any more.
        EncodingError: the plan's numbers are outside the grid's proved range.
        ModelError: there are no per-record gradients for the model, or records are not kept apart.
    """
    kinds = LEARNERS.get(type(plan), {})
    if not kinds:
        raise ConfigError(f"no client rule for plans of mode {plan.mode!r}")
    if rule.algorithm.kind not in kinds:
        raise ConfigError(
            f"algorithm {rule.algorithm.kind!r} is none of mode {plan.mode!r}, which has "
            f"{', '.join(kinds)}"
        )
    learner = kinds[rule.algorithm.kind](
        plan, site, model, records, rule, objective=objective, tested=tested, device=device
    )
    if network is not None:
        if not isinstance(learner, FedmaClient):
            raise ConfigError(
                f"{site!r} names a network of its own ({network}), and only training.algorithm "
                f"'fedma' begins from one, not {rule.algorithm.kind!r}; remove network"
            )
        learner.bring(network)
    return learner


def make_training(
    plan: TrainingPlan,
    algorithm: AlgorithmSpec,
    *,
    model: nn.Module,
    optimizer: OptimizerSpec,
    public: Records | None,
    target: TargetKind,
    loss: LossFunction,
    card: Mapping[str, Any],
) -> GradientTraining:
    """The coordinator's half.

    Args:
        plan: what everybody agreed to.
        algorithm: what is done besides.
        model, optimizer, public, target, loss, card: as for `GradientTraining`; a model that has a
            part at home gets no card, so that nobody predicts by the rest alone.
    """
    told = None if algorithm.personal else card
    if algorithm.kind == "adaptive-clip":
        clip = float(plan.clip_norm_l2)
        return AdaptiveClip(
            model, optimizer, public, target, loss, told, algorithm=algorithm, clip=clip
        )
    if algorithm.kind == "fedma":
        client = ClientPlan.require(plan)
        return Fedma(model, optimizer, public, target, loss, told, algorithm=algorithm, plan=client)
    if algorithm.kind == "class-logits":
        client = ClientPlan.require(plan)
        return ClassLogits(model, optimizer, public, target, loss, told, plan=client)
    if algorithm.kind == "halves":
        return Halves(model, optimizer, public, target, loss, told, sites=plan.names)
    return GradientTraining(model, optimizer, public, target, loss, told)
