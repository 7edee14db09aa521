"""From a configuration to the plan that everybody pins, its noise calibrated."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal
from math import ceil
from typing import Any

from pydantic import JsonValue, ValidationError

from privagg.config import CompressionSection, Config
from privagg.configdata import AppData
from privagg.errors import PlanError
from privagg.privacy.accountant import Accountant
from privagg.privacy.calibration import calibrate
from privagg.privacy.plan import ClientPlan, DistributedPlan, LocalPlan, SiteTerms, TrainingPlan
from privagg.privacy.plan.compression import Compression, Rounding, rounded_sensitivity
from privagg.secure.registry import scheme as find_scheme
from privagg.secure.scheme import Requirement

PLANS: dict[str, type[TrainingPlan]] = {
    "record-distributed": DistributedPlan,
    "record-local": LocalPlan,
    "client": ClientPlan,
}


def build_plan(config: Config, *, dimension: int, accountant: Accountant) -> TrainingPlan:
    """The plan that a configuration stands for.

    Args:
        config: the checked configuration.
        dimension: d, trainable parameters of its model.
        accountant: whose epsilon the noise is calibrated to.

    Returns:
        A plan whose committed events cost every data set at most `privacy.epsilon`.

    Raises:
        PlanError: the settings contradict each other.
        CalibrationError: no noise meets the target.
    """
    facts = _plan_facts(config, dimension)
    sigma = config.privacy.noise_multiplier
    if sigma is None:
        sigma = _calibrated(config, _validate(config, {**facts, "noise_multiplier": 1}), accountant)
    if config.privacy.mode == "record-local" and config.training.update_bound is None:
        facts["update_bound"] = _reachable_update(config, sigma)
    plan = _validate(config, {**facts, "noise_multiplier": sigma})
    _check_limit(config, plan, accountant)
    return plan


def _check_limit(config: Config, plan: TrainingPlan, accountant: Accountant) -> None:
    """A noise multiplier given by hand still has to keep the job within `privacy.epsilon`."""
    privacy = config.privacy
    if privacy.noise_multiplier is None or plan.noise is None:
        return
    spent = accountant.epsilon(plan.total_committed(_heaviest(plan)), privacy.delta).upper
    if spent > privacy.epsilon:
        raise PlanError(
            f"privacy.noise_multiplier = {privacy.noise_multiplier} costs epsilon {spent}, more "
            f"than privacy.epsilon = {privacy.epsilon}; raise the noise or epsilon, or leave "
            "noise_multiplier out to have it calibrated"
        )


def _heaviest(plan: TrainingPlan) -> str:
    """The site with the largest weight, which spends most."""
    return max(plan.sites, key=lambda site: site.weight).name


def _calibrated(config: Config, plan: TrainingPlan, accountant: Accountant) -> Decimal:
    """The noise multiplier at which the site with the largest weight spends `epsilon`."""
    heaviest = _heaviest(plan)
    return calibrate(
        lambda candidate: plan.with_noise(candidate).total_committed(heaviest),
        epsilon=config.privacy.epsilon,
        delta=config.privacy.delta,
        accountant=accountant,
    )


def _plan_facts(config: Config, dimension: int) -> dict[str, Any]:
    privacy, training = config.privacy, config.training
    facts: dict[str, Any] = {
        "mode": privacy.mode,
        "sites": [
            SiteTerms(
                name=site.name,
                dataset=site.dataset,
                records=site.records,
                weight=site.weight or (site.records if privacy.mode == "record-local" else 1),
            )
            for site in config.sites
        ],
        "dimension": dimension,
        "rounds": training.rounds,
        "clip_norm_l2": privacy.clip_norm_l2,
        "sensitivity_grid": privacy.sensitivity_grid,
        "delta": privacy.delta,
        "dropouts": privacy.dropouts,
        "colluders": privacy.colluders,
        "custody": config.secure.custody,
        "scheme": config.secure.scheme,
        "scheme_protects": find_scheme(config.secure.scheme).protects,
        "strict": config.secure.strict,
        "recipe": _recipe(config),
    }
    if privacy.mode != "client":
        facts["sampling_rate"] = training.sampling_rate
    if privacy.mode == "record-local":
        facts["local_steps"] = training.local_steps
        facts["update_bound"] = training.update_bound or 1
    if privacy.mode == "client":
        facts["protects_unit"] = privacy.unit
        facts["cohort_size"] = training.cohort_size
    if config.compression is not None:
        _add_compression(facts, config, config.compression, dimension)
    return facts


def _add_compression(
    facts: dict[str, Any], config: Config, section: CompressionSection, dimension: int
) -> None:
    """The section as the plan's terms, and the grid and the sensitivity that follow from it."""
    mode = config.privacy.mode
    usual = Rounding.TRUNCATE if mode == "record-distributed" else Rounding.STOCHASTIC
    kept = ceil(section.keep * dimension)
    try:
        terms = Compression(
            bits=section.bits,
            rounding=section.rounding or usual,
            rotation=section.rotation,
            kept=kept if section.keep < 1 else None,
            mask=section.mask,
        )
    except ValidationError as error:
        raise PlanError(f"compression: {_first_fault(error)}") from error
    facts["compression"] = terms
    if mode == "client":
        steps = config.privacy.sensitivity_grid
        if section.bits is not None:
            steps = terms.finest_grid(dimension)
        facts["clip_norm_grid"] = steps
        facts["sensitivity_grid"] = rounded_sensitivity(
            terms.rounding, steps, terms.upload_dimension(dimension)
        )
    if mode == "record-local" and terms.largest_coordinate is not None:
        facts["update_levels"] = terms.largest_coordinate


def _recipe(config: Config) -> dict[str, JsonValue]:
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
        "data": config.data.model_dump(mode="json"),
        "local_steps": training.local_steps,
        "local_learning_rate": training.local_learning_rate,
        "local_batch_size": training.local_batch_size,
        "proximal_mu": training.proximal_mu,
        "physical_batch": training.physical_batch,
        "optimizer": training.optimizer.model_dump(mode="json"),
    }


def _reachable_update(config: Config, noise_multiplier: Decimal) -> Decimal:
    """A public bound on a local update's coordinates that clamping practically never touches.

    Every step moves a coordinate by the learning rate times at most C * batch / (q * records)
    from the gradient, where a batch stays within twice its expectation or eight records, and by
    a few noise standard deviations. The clamp is post-processing: too small a bound costs
    accuracy, never privacy.
    """
    training, privacy = config.training, config.privacy
    expected = min(training.sampling_rate * site.records for site in config.sites)
    gradient = privacy.clip_norm_l2 * (2 + 8 / expected)
    noise = 10 * privacy.clip_norm_l2 * noise_multiplier / expected
    steps = Decimal(repr(training.local_learning_rate)) * training.local_steps
    return Context(prec=12, rounding=ROUND_CEILING).plus(steps * (gradient + noise))


def uncompressed(config: Config, plan: TrainingPlan) -> TrainingPlan:
    """The plan as it would be without the configuration's compression, with the same noise.

    For comparing sizes; its own noise would be calibrated afresh.

    Args:
        config: the checked configuration.
        plan: what `build_plan` made of it.
    """
    plain = config.model_copy(update={"compression": None})
    facts = _plan_facts(plain, plan.dimension)
    if isinstance(plan, LocalPlan):
        facts["update_bound"] = plan.update_bound
    return _validate(plain, {**facts, "noise_multiplier": plan.noise_multiplier})


def _validate(config: Config, facts: dict[str, Any]) -> TrainingPlan:
    try:
        return PLANS[config.privacy.mode].model_validate(facts)
    except ValidationError as error:
        raise PlanError(_first_fault(error)) from error


def _first_fault(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False)[0]
    message = details["msg"].removeprefix("Value error, ")
    place = ".".join(str(part) for part in details["loc"])
    return f"{place}: {message}" if place else message


def requirement_of(plan: TrainingPlan, *, security_bits: int) -> Requirement:
    """What a plan's sum asks of a secure aggregation scheme."""
    return Requirement(
        length=plan.upload_dimension,
        upload_bound=plan.upload_bound,
        sum_bound=plan.sum_bound,
        addends=plan.addends,
        security_bits=security_bits,
    )
