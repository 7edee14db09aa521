"""Releases beyond Gaussian rounds: covered by an event, near what others compute, never below."""

from __future__ import annotations

from decimal import Decimal

import dp_accounting
import pytest
from dp_accounting import rdp
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from privagg.errors import CertificationError, PrivacyError
from privagg.privacy.accountants import CertifiedAccountant, RdpAccountant
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.releases import DiscreteGaussianSum, TreeAggregation

DELTA = Decimal("1e-6")


def complete_nodes_above(leaf: int, steps: int) -> int:
    """Count, one by one, the complete dyadic intervals of 1 ... steps that hold a leaf."""
    found, length = 0, 1
    while length <= steps:
        start = (leaf - 1) // length * length
        found += start + length <= steps
        length *= 2
    return found


@given(steps=st.integers(1, 300))
def test_a_leaf_is_below_at_most_so_many_nodes(steps: int) -> None:
    most = max(complete_nodes_above(leaf, steps) for leaf in range(1, steps + 1))
    assert TreeAggregation(steps=steps, noise_multiplier="1").nodes == most


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 1000, 1024])
def test_a_tree_costs_what_a_renyi_accountant_says(steps: int) -> None:
    tree = TreeAggregation(steps=steps, noise_multiplier="9")
    # Their name for: a unit is replaced by one that contributes zero.
    peer = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    peer.compose(dp_accounting.SingleEpochTreeAggregationDpEvent(9.0, steps))
    theirs = Decimal(peer.get_epsilon(float(DELTA)))
    ours = RdpAccountant().epsilon(tree.event(), DELTA).upper
    assert theirs <= ours <= theirs * Decimal("1.0000001")
    exact = tree.epsilon(DELTA)
    assert exact.lower is not None
    assert theirs * Decimal("0.8") < exact.lower <= exact.upper < theirs


def test_restarted_trees_compose() -> None:
    once = TreeAggregation(steps=100, noise_multiplier="9")
    thrice = TreeAggregation(steps=100, trees=3, noise_multiplier="9")
    assert thrice.event().terms == once.event().repeated(3).terms


@pytest.mark.parametrize(
    ("stddev", "sensitivity", "rounds"), [("1", 1, 1), ("2", 1, 10), ("8", 2, 3), ("60", 30, 5)]
)
def test_one_share_lies_just_above_a_discretised_accountant(
    stddev: str, sensitivity: int, rounds: int
) -> None:
    release = DiscreteGaussianSum(
        share_stddev_grid=stddev, sensitivity_l2_grid=sensitivity, rounds=rounds
    )
    one = privacy_loss_distribution.from_discrete_gaussian_mechanism(
        float(stddev), sensitivity, value_discretization_interval=1e-3, pessimistic_estimate=False
    )
    # Optimistic, so below the truth but for the noise of doubles.
    theirs = Decimal(one.self_compose(rounds).get_epsilon_for_delta(float(DELTA)))
    ours = release.epsilon(DELTA)
    assert ours.certified
    assert theirs * Decimal("0.999") <= ours.upper <= theirs * Decimal("1.18")


@given(
    shares=st.integers(2, 50),
    stddev=st.sampled_from(["20", "45.5", "300"]),
    dimension=st.integers(1, 10**6),
    rate=st.sampled_from(["1", "0.1"]),
)
def test_a_sum_is_covered_by_a_slightly_worse_gaussian(
    shares: int, stddev: str, dimension: int, rate: str
) -> None:
    release = DiscreteGaussianSum(
        shares=shares, share_stddev_grid=stddev, sensitivity_l2_grid=64, dimension=dimension,
        sampling_rate=rate, rounds=7,
    )  # fmt: skip
    event = release.event()
    (term,) = event.terms
    planned = Decimal(shares).sqrt() * Decimal(stddev) / 64
    assert planned * Decimal("0.99") < term.mechanism.noise_multiplier < planned
    assert term.count == 7
    assert 0 < event.distance < Decimal("1e-29")


def test_a_sum_of_shares_costs_hardly_more_than_the_continuous_gaussian() -> None:
    release = DiscreteGaussianSum(
        shares=10, share_stddev_grid="50", sensitivity_l2_grid=50, dimension=1000,
        sampling_rate="0.01", rounds=1000,
    )  # fmt: skip
    noise = Mechanism.of(Decimal("0.01"), Decimal(10).sqrt())
    smooth = CertifiedAccountant().epsilon(DpEvent.once(noise, count=1000), DELTA)
    found = release.epsilon(DELTA).upper
    assert smooth.upper < found < smooth.upper * Decimal("1.0001")


def test_coarse_noise_has_renyi_orders_and_no_covering_event() -> None:
    release = DiscreteGaussianSum(share_stddev_grid="1", sensitivity_l2_grid=1)
    assert "renyi" in release.epsilon(DELTA).method
    with pytest.raises(PrivacyError, match="finer grid"):
        release.event()


def test_shares_too_coarse_to_add_up_are_refused() -> None:
    with pytest.raises(PrivacyError, match="too coarse to be added up"):
        DiscreteGaussianSum(shares=5, share_stddev_grid="0.1", sensitivity_l2_grid=1).epsilon(DELTA)
    with pytest.raises(CertificationError, match="strictly between"):
        DiscreteGaussianSum(share_stddev_grid="3", sensitivity_l2_grid=1).epsilon(Decimal(0))


@pytest.mark.parametrize(
    "facts", [{"steps": 0}, {"noise_multiplier": "0"}, {"noise_multiplier": "NaN"}, {"rate": "1"}]
)
def test_what_is_no_tree_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TreeAggregation.model_validate({"steps": 3, "noise_multiplier": "1", **facts})
