"""The largest uploads fit, the clamp practically never binds, and the schemes hold the line."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privagg.config.plan import requirement_of
from privagg.encoding.grid import Grid
from privagg.errors import CapacityError
from privagg.privacy.plan import DistributedPlan, SiteTerms
from privagg.privacy.randomness import DeterministicRandomness
from privagg.privacy.unit import Custody
from privagg.secure.facts import check_contribution
from privagg.secure.registry import scheme, scheme_names


def plan_for(records: int, rate: Decimal, sites: int = 3) -> DistributedPlan:
    return DistributedPlan(
        sites=tuple(SiteTerms(name=f"s{i}", records=records) for i in range(sites)),
        dimension=4,
        rounds=10,
        clip_norm_l2=Decimal(1),
        sensitivity_grid=2**10,
        noise_multiplier=Decimal(1),
        delta=Decimal("1e-5"),
        custody=Custody.AUTHORITY,
        scheme="plaintext",
        sampling_rate=rate,
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 10**9), st.decimals("0.000001", "1", places=6))
def test_the_clamp_binds_less_than_once_in_ten_trillion_batches(
    records: int, rate: Decimal
) -> None:
    """The binomial tail beyond the batch that the bound allows, at the declared size."""
    plan = plan_for(records, rate)
    batch = plan.contribution_bound(plan.sites[0]) // plan.sensitivity_grid
    assert stats.binom.sf(batch, records, float(rate)) < 1e-13


def test_the_worst_batch_and_noise_stay_within_the_upload_bound() -> None:
    """Every record at full length along one axis, more of them than the clamp allows."""
    plan = plan_for(100, Decimal(1))
    assert plan.noise is not None
    grid = Grid(1.0, plan.sensitivity_grid, plan.contribution_bound(plan.sites[0]))
    rows = np.zeros((150, 4))
    rows[:, 0] = -7.0
    total = grid.clamp(grid.sum_records(rows))
    assert total.tolist() == [-100 * 2**10, 0, 0, 0]
    worst = total - plan.noise.bound
    requirement = requirement_of(plan, security_bits=128)
    assert np.array_equal(check_contribution(worst, requirement), worst)
    with pytest.raises(CapacityError):
        check_contribution(worst - 1, requirement)
    noise = plan.noise.sample(DeterministicRandomness(2).stream(), 100_000)
    assert int(np.abs(noise).max()) <= plan.noise.bound
    assert len(plan.sites) * plan.upload_bound == plan.sum_bound
    noiseless = plan.sum_bound - len(plan.sites) * plan.noise.bound
    draws = plan.rounds * plan.upload_dimension
    assert plan.sum_tail == noiseless + plan.noise.sum_tail(len(plan.sites), draws)


def test_only_a_scheme_that_loses_nothing_but_the_value_is_asked_for_the_tail() -> None:
    plan = plan_for(100, Decimal(1))
    assert requirement_of(plan, security_bits=128).sum_bound == plan.sum_bound
    asked = requirement_of(plan, security_bits=128, by_tail=True)
    assert asked.sum_bound == plan.sum_tail < plan.sum_bound
    assert [name for name in scheme_names() if scheme(name).by_tail] == ["masked"]
