"""`privagg epsilon --mechanism`: releases that are no Gaussian rounds themselves."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from pydantic import ValidationError

from privagg.errors import ConfigError, validation_faults
from privagg.privacy.releases import (
    DiscreteGaussianSum,
    IntegerLaplaceSum,
    Release,
    TreeAggregation,
)

GAUSSIAN, DISCRETE, TREE = "gaussian", "discrete-gaussian", "tree-aggregation"
LAPLACE = "integer-laplace"
MECHANISMS = (GAUSSIAN, DISCRETE, LAPLACE, TREE)


def described(
    mechanism: str,
    *,
    rates: Sequence[Decimal],
    multipliers: Sequence[Decimal],
    rounds: Sequence[int],
    shares: int,
    sensitivity_grid: Decimal | None,
    dimension: int,
    steps: int | None,
    moves: Sequence[int],
) -> Release:
    """The release that the options describe.

    Args:
        mechanism: one of `MECHANISMS`, but not `gaussian`.
        rates: sampling rates, one.
        multipliers: noise multipliers, one.
        rounds: numbers of rounds, or of trees, one.
        shares: parties that add noise; discrete Gaussian and integer Laplace only.
        sensitivity_grid: L2, in grid units; discrete Gaussian only, and required there.
        dimension: coordinates; discrete Gaussian only.
        steps: leaves of a tree; trees only, and required there.
        moves: the most that a unit moves each integer by; integer Laplace only. None given: one
            integer, by 1.

    Raises:
        ConfigError: several groups of rounds, an option that is missing or does not belong here,
            or a value out of range.
    """
    if mechanism not in MECHANISMS:
        raise ConfigError(
            f"no proof is known for the mechanism {mechanism!r}; choose {', '.join(MECHANISMS)}"
        )
    if max(len(rates), len(multipliers), len(rounds)) > 1:
        raise ConfigError(f"--mechanism {mechanism} takes one group of rounds")
    (rate,), (multiplier,), (count,) = rates, multipliers, rounds
    try:
        if mechanism == TREE:
            if steps is None:
                raise ConfigError(
                    "--mechanism tree-aggregation needs --steps, the leaves of a tree"
                )
            if rate != 1:
                raise ConfigError("tree aggregation has no proof under sampling; leave the rate 1")
            return TreeAggregation(steps=steps, trees=count, noise_multiplier=multiplier)
        if mechanism == LAPLACE:
            if rate != 1:
                raise ConfigError(
                    "integer Laplace noise has no proof under sampling; leave the rate 1"
                )
            return IntegerLaplaceSum(
                moves=tuple(moves) or (1,), noise_multiplier=multiplier, shares=shares, rounds=count
            )
        if sensitivity_grid is None:
            raise ConfigError("--mechanism discrete-gaussian needs --sensitivity-grid")
        return DiscreteGaussianSum(
            shares=shares,
            share_stddev_grid=multiplier * sensitivity_grid,
            sensitivity_l2_grid=sensitivity_grid,
            dimension=dimension,
            sampling_rate=rate,
            rounds=count,
        )
    except ValidationError as error:
        raise ConfigError(validation_faults(error)) from error
