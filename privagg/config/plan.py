"""From a configuration to the plan that everybody pins, its noise calibrated."""

from __future__ import annotations

from decimal import Decimal
from math import ceil
from typing import Any

from pydantic import JsonValue, ValidationError

from privagg.config.data import AppData
from privagg.config.schema import Config
from privagg.errors import PlanError, validation_faults
from privagg.privacy.accountant import Accountant
from privagg.privacy.calibration import calibrate
from privagg.privacy.plan import Compression, Plan, SiteTerms, TrainingPlan, plan_class
from privagg.programs.evaluation.rounds import LOOKS
from privagg.secure.registry import scheme as find_scheme
from privagg.secure.scheme import Requirement

CONTINUES = "continues"
"""In a plan's recipe: the run whose model training goes on with, and its file's SHA-256."""

FROZEN = "frozen_sha256"
"""In a plan's recipe: the digest of what of its model is not trained (`training.frozen`)."""


def rounds_factors(config: Config) -> bool:
    """Whether a record's gradient is rounded in factors, whose grid follows from the model."""
    return config.privacy.mode != "client" and config.training.engine != "opacus"


def build_plan(
    config: Config, *, dimension: int, accountant: Accountant, frozen: str | None = None
) -> TrainingPlan:
    """The plan that a configuration stands for.

    Args:
        config: the checked configuration.
        dimension: d, trainable parameters of its model.
        accountant: whose epsilon the noise is calibrated to.
        frozen: SHA-256 (hex) of what of its model is not trained; None where all of it is.

    Returns:
        A plan whose committed events cost every data set at most what training may cost.

    Raises:
        PlanError: the settings contradict each other.
        CalibrationError: no noise meets the target.
    """
    sigma = config.privacy.noise_multiplier
    if sigma is None:
        sigma = _calibrated(config, _plan(config, dimension, Decimal(1)), accountant)
    plan = _plan(config, dimension, sigma, frozen)
    _check_limit(config, plan, accountant)
    return plan


def _check_limit(config: Config, plan: TrainingPlan, accountant: Accountant) -> None:
    """A noise multiplier given by hand still has to keep the job within `privacy.epsilon`."""
    privacy = config.privacy
    if privacy.noise_multiplier is None or plan.noise_multiplier == 0:
        return
    costs = (plan.total_committed(site) for site in charged_most(plan))
    spent = max(accountant.epsilon(event, privacy.delta).upper for event in costs)
    if spent > config.training_epsilon:
        left = (
            " without the shares of evaluations"
            if config.training_epsilon < privacy.epsilon
            else ""
        )
        raise PlanError(
            f"privacy.noise_multiplier = {privacy.noise_multiplier} costs epsilon {spent}, more "
            f"than privacy.epsilon = {privacy.epsilon}{left}; raise the noise or epsilon, or leave "
            "noise_multiplier out to have it calibrated"
        )


def charged_most(plan: Plan) -> tuple[str, ...]:
    """Sites one of which spends most: nobody with as large a weight is there whenever they are.

    Where the roster never changes that is the site with the largest weight.
    """
    found: list[SiteTerms] = []
    for site in sorted(plan.sites, key=lambda site: -site.weight):
        first, last = site.presence(plan.rounds)
        spans = [other.presence(plan.rounds) for other in found]
        if not any(begin <= first and last <= end for begin, end in spans):
            found.append(site)
    return tuple(site.name for site in found)


def _calibrated(config: Config, plan: TrainingPlan, accountant: Accountant) -> Decimal:
    """The noise multiplier at which the site that spends most spends `epsilon`."""

    def needed(site: str) -> Decimal:
        return calibrate(
            lambda candidate: plan.with_noise(candidate).total_committed(site),
            epsilon=config.training_epsilon,
            delta=config.privacy.delta,
            accountant=accountant,
        )

    return max(map(needed, charged_most(plan)))


def _plan(
    config: Config, dimension: int, noise_multiplier: Decimal, frozen: str | None = None
) -> TrainingPlan:
    """The plan with this noise: what its class makes of the settings, each by its name."""
    kind = plan_class(config.privacy.mode)
    settings: dict[str, Any] = {
        **dict(config.secure),
        **dict(config.training),
        **dict(config.privacy),
        "sites": [
            SiteTerms(
                name=site.name,
                dataset=site.dataset,
                records=site.records,
                weight=site.weight or kind.usual_weight(site.records),
                first_round=site.first_round,
                last_round=site.last_round,
            )
            for site in config.sites
        ],
        "dimension": dimension,
        "noise_multiplier": noise_multiplier,
        "scheme_protects": find_scheme(config.secure.scheme).protects,
        "compression": _compression(config, kind, dimension),
        "recipe": {**recipe_of(config), **({FROZEN: frozen} if frozen else {})},
    }
    try:
        return kind.from_settings(settings)
    except ValidationError as error:
        raise PlanError(validation_faults(error, whole="the plan")) from error


def _compression(config: Config, kind: type[TrainingPlan], dimension: int) -> Compression | None:
    """The section as the plan's terms."""
    section = config.compression
    if section is None:
        return None
    try:
        return Compression(
            bits=section.bits,
            rounding=section.rounding or kind.usual_rounding,
            rotation=section.rotation,
            kept=ceil(section.keep * dimension) if section.keep < 1 else None,
            mask=section.mask,
        )
    except ValidationError as error:
        raise PlanError(f"compression: {validation_faults(error, whole='the plan')}") from error


def recipe_of(config: Config) -> dict[str, JsonValue]:
    """What is trained and how, pinned with the plan; no path and no secret in it."""
    training = config.training
    if isinstance(config.data, AppData):
        return {
            "federation": config.federation.name,
            "model": {"kind": "Flower app"},
            "data": config.data.model_dump(mode="json"),
        }
    return {
        "federation": config.federation.name,
        "seed": config.federation.seed,
        "model": training.model.model_dump(mode="json"),
        "data": _without_paths(config.data.model_dump(mode="json", exclude={"file"})),
        **({"loss": training.loss} if training.loss else {}),
        **_continued(config),
        "local_steps": training.local_steps,
        "local_learning_rate": training.local_learning_rate,
        "local_batch_size": training.local_batch_size,
        "proximal_mu": training.proximal_mu,
        "physical_batch": training.physical_batch,
        **_engine(config),
        "optimizer": training.optimizer.model_dump(mode="json"),
        **_algorithm(config),
        **_held_out(config),
        **_looks(config),
    }


def _continued(config: Config) -> dict[str, JsonValue]:
    """Which run's model training goes on with; nothing where it begins by itself."""
    before = config.training.continues
    return {CONTINUES: {"run": before.run, "sha256": before.sha256}} if before is not None else {}


def _engine(config: Config) -> dict[str, JsonValue]:
    """How gradients of records are clipped; Opacus' hooks where nothing is said, as it once was."""
    return {"engine": config.training.engine} if rounds_factors(config) else {}


def _algorithm(config: Config) -> dict[str, JsonValue]:
    """What is done besides; nothing where nothing is, as plans had it before there was a choice."""
    algorithm = config.training.algorithm
    named = algorithm.kind != "fedavg"
    return {"algorithm": algorithm.model_dump(mode="json")} if named else {}


def _held_out(config: Config) -> dict[str, JsonValue]:
    """Which records are left out of training; nothing where all are trained with."""
    return {} if config.held_out is None else {"held_out": config.held_out.model_dump(mode="json")}


def _looks(config: Config) -> dict[str, JsonValue]:
    """When the model is evaluated between the rounds; nothing where it is not."""
    schedule = config.schedule
    return {} if schedule is None else {LOOKS: schedule.model_dump(mode="json")}


def _without_paths(data: dict[str, Any]) -> dict[str, Any]:
    """What a plan pins of the data: where an answers file lies is each party's own matter."""
    weights = data.get("target", {}).get("class_weights")
    if not isinstance(weights, dict):
        return data
    pinned = {key: weights[key] for key in weights if key != "answers"}
    return {**data, "target": {**data["target"], "class_weights": pinned}}


def uncompressed(config: Config, plan: TrainingPlan) -> TrainingPlan:
    """The plan as it would be without the configuration's compression, with the same noise.

    For comparing sizes; its own noise would be calibrated afresh.

    Args:
        config: the checked configuration.
        plan: what `build_plan` made of it.
    """
    bits = plan.compression and plan.compression.bits
    plain = config.model_copy(update={"compression": None})
    plain = plain.filled("privacy.sensitivity_grid", None if bits else plan.sensitivity_grid)
    return _plan(plain, plan.dimension, plan.noise_multiplier)


def requirement_of(plan: Plan, *, security_bits: int, by_tail: bool = False) -> Requirement:
    """What a plan's sum asks of a secure aggregation scheme.

    Args:
        plan: the agreed plan.
        security_bits: lowest classical security level accepted.
        by_tail: whether the range may be what sums keep to but for 2^-64; see `Scheme.by_tail`.
    """
    return Requirement(
        length=plan.upload_dimension,
        upload_bound=plan.upload_bound,
        sum_bound=plan.sum_tail if by_tail else plan.sum_bound,
        addends=plan.addends,
        security_bits=security_bits,
    )
