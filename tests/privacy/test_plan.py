"""Plans: noise sized for the real weights, every observer's event, no room for wrap-around."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from math import sqrt
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import privagg
from privagg.errors import NoiseError, PlanError
from privagg.privacy.events import DpEvent
from privagg.privacy.noise import total_distance
from privagg.privacy.plan import (
    ClientPlan,
    Compression,
    DistributedPlan,
    LocalPlan,
    Plan,
    Rounding,
    RoundPlan,
    SiteTerms,
    TrainingPlan,
    load_plan,
    training,
)


def sites(*records: int, weights: tuple[int, ...] = ()) -> tuple[SiteTerms, ...]:
    weights = weights or (1,) * len(records)
    return tuple(
        SiteTerms(name=f"s{i}", records=r, weight=w)
        for i, (r, w) in enumerate(zip(records, weights, strict=True))
    )


def distributed(**changes: object) -> DistributedPlan:
    facts: dict[str, object] = {
        "sites": sites(100, 200, 50, 70),
        "dimension": 14,
        "rounds": 10,
        "clip_norm_l2": Decimal("0.5"),
        "noise_multiplier": Decimal(2),
        "delta": Decimal("1e-5"),
        "custody": "authority",
        "scheme": "ckks",
        "sampling_rate": Decimal("0.2"),
        **changes,
    }
    return DistributedPlan.model_validate(facts)


def client(**changes: object) -> ClientPlan:
    facts: dict[str, object] = {
        "sites": sites(*(10,) * 10),
        "dimension": 14,
        "rounds": 10,
        "clip_norm_l2": Decimal("0.5"),
        "noise_multiplier": Decimal(1),
        "delta": Decimal("1e-5"),
        "custody": "authority",
        "scheme": "ckks",
        **changes,
    }
    return ClientPlan.model_validate(facts)


def local(**changes: object) -> LocalPlan:
    facts = {
        **distributed().model_dump(exclude={"mode"}),
        "local_steps": 3,
        "update_bound": Decimal(2),
        **changes,
    }
    return LocalPlan.model_validate(facts)


def multiplier(plan: DistributedPlan | LocalPlan | ClientPlan, site: str = "s0") -> float:
    (term,) = plan.committed_event(site).terms
    return float(term.mechanism.noise_multiplier)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 40),
    dropouts=st.integers(0, 10),
    colluders=st.integers(0, 10),
    sigma=st.decimals("0.4", "50", places=3),
)
def test_what_is_charged_is_the_least_noise_that_can_be_opened(
    n: int, dropouts: int, colluders: int, sigma: Decimal
) -> None:
    if n - dropouts - colluders < 1:
        with pytest.raises(ValidationError, match="leave"):
            distributed(sites=sites(*(50,) * n), dropouts=dropouts, colluders=colluders)
        return
    plan = distributed(
        sites=sites(*(50,) * n), dropouts=dropouts, colluders=colluders, noise_multiplier=sigma
    )
    assert plan.noise is not None
    honest = plan.minimum_survivors - colluders
    left = sqrt(honest) * float(plan.noise.stddev_grid) / plan.sensitivity_grid
    assert multiplier(plan) >= float(sigma) * (1 - 1e-12)
    assert left == pytest.approx(float(sigma), rel=1e-4)
    assert plan.noise_multiplier <= plan.committed_event("s0").terms[0].mechanism.noise_multiplier


def test_ten_clients_one_with_a_thousand_records() -> None:
    """Noise sized for uniform weights would leave the heavy client a multiplier of 0.11."""
    weights = (1000, *(100,) * 9)
    plan = client(sites=sites(*weights, weights=weights), colluders=0)
    assert multiplier(plan, "s0") == pytest.approx(1.0, rel=1e-6)
    assert multiplier(plan, "s1") == pytest.approx(10.0, rel=1e-6)


def test_a_distributed_plan_has_no_weights_to_be_fooled_by() -> None:
    with pytest.raises(ValidationError, match="weights must be 1"):
        distributed(sites=sites(5, 5, weights=(1, 2)))


def test_observers_follow_from_the_shares_that_stay_unknown() -> None:
    plan = distributed()
    rows = {(o.name, o.colluding_sites): o for o in plan.observers("s0", 4)}

    def of(name: str, k: int) -> float:
        return float(rows[name, k].event.terms[0].mechanism.noise_multiplier)

    assert of("sites", 1) == pytest.approx(2.0, rel=1e-6)
    assert of("model-users", 0) == pytest.approx(2.0 * sqrt(4 / 3), rel=1e-6)
    assert of("sites", 3) == pytest.approx(2.0 * sqrt(1 / 3), rel=1e-6)
    for k in range(4):
        assert of("aggregator+key-holder", k) == pytest.approx(2.0 * sqrt(1 / 3), rel=1e-6)
    assert any("attested" in text for text in rows["model-users", 0].assumptions)
    assert not any("attested" in text for text in rows["aggregator+key-holder", 0].assumptions)
    assert any("adds honestly" in text for text in rows["model-users", 0].assumptions)
    strict = distributed(strict=True).observers("s0", 4)
    assert not any("adds honestly" in text for row in strict for text in row.assumptions)


def test_a_row_says_tested_or_proved_as_the_engine_keeps_records_apart() -> None:
    for make in (distributed, local):
        for engine, proved in (("exact", False), ("exact-dense", True)):
            plan = make(recipe={"engine": engine})
            for row in plan.observers("s0", 4):
                said = " ".join(row.assumptions)
                assert ("tested, not proved" in said) is not proved
                assert ("proved for engine exact-dense" in said) is proved


def test_custody_of_the_sites_lets_one_site_open_single_uploads() -> None:
    rows = {(o.name, o.colluding_sites): o for o in distributed(custody="sites").observers("s0", 4)}
    assert "key-holder" not in {name for name, _ in rows}
    event = rows["aggregator", 1].event
    assert float(event.terms[0].mechanism.noise_multiplier) == pytest.approx(2 / sqrt(3), rel=1e-6)
    plain = {
        (o.name, o.colluding_sites): o for o in distributed(scheme="plaintext").observers("s0", 4)
    }
    assert plain["aggregator", 0].event == event


def test_client_sampling_claims_no_amplification() -> None:
    plan = client(cohort_size=4)
    (term,) = plan.committed_event("s3").terms
    assert term.mechanism.kind == "gaussian"
    assert plan.addends == 4
    assert plan.minimum_survivors == 4


def test_local_noise_is_whole_at_every_site() -> None:
    plan = local()
    event = plan.committed_event("s2")
    assert event.terms[0].count == 3
    assert multiplier(plan) == pytest.approx(2.0, rel=1e-6)
    assert {o.event for o in plan.observers("s0", 4)} == {plan.committed_event("s0")}


@settings(max_examples=40, deadline=None)
@given(
    records=st.lists(st.integers(1, 10**6), min_size=2, max_size=12),
    sigma=st.decimals("0.4", "100", places=2),
    rate=st.decimals("0.001", "1", places=3),
)
def test_uploads_at_their_bound_fit_the_sum(
    records: list[int], sigma: Decimal, rate: Decimal
) -> None:
    plan = distributed(sites=sites(*records), noise_multiplier=sigma, sampling_rate=rate)
    assert plan.noise is not None
    uploads = [plan.contribution_bound(site) + plan.noise.bound for site in plan.sites]
    assert max(uploads) == plan.upload_bound
    assert sum(uploads) == plan.sum_bound < 2**62


def test_the_grid_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(PlanError, match="2\\*\\*62"):
        distributed(sites=sites(*(10**9,) * 4), sensitivity_grid=2**31, rounds=1, sampling_rate=1)
    with pytest.raises(NoiseError):
        distributed(noise_multiplier=Decimal("0.5"), sensitivity_grid=2)


@pytest.mark.parametrize(
    ("field", "spellings"),
    [
        ("clip_norm_l2", ["1", "1.0", "1.000", "0.1E+1"]),
        ("noise_multiplier", ["20", "20.0", "2E+1"]),
        ("delta", ["1e-5", "0.00001", "0.000010"]),
        ("sampling_rate", ["0.2", "0.20"]),
    ],
)
def test_equal_plans_have_one_digest_however_their_numbers_are_spelled(
    field: str, spellings: list[str]
) -> None:
    digests = {distributed(**{field: Decimal(text)}).digest for text in spellings}
    assert len(digests) == 1
    assert distributed(**{field: Decimal("0.03125")}).digest not in digests


def test_digest_and_json_agree() -> None:
    plan = distributed()
    again = load_plan(json.loads(plan.canonical_json))
    assert again == plan
    assert again.digest == plan.digest
    assert distributed(rounds=11).digest != plan.digest
    with pytest.raises(PlanError):
        load_plan({"mode": "record-distributed", "surprise": 1})
    with pytest.raises(PlanError):
        load_plan({"mode": "os.system"})


def test_the_mean_divides_by_public_numbers_of_the_survivors() -> None:
    plan = distributed()
    assert plan.divisor(("s0", "s2")) == Fraction(1, 5) * 150
    assert plan.unit_per_grid == Fraction(1, 2) / 2**16
    weighted = client(sites=sites(9, 9, weights=(3, 4)), colluders=0)
    assert weighted.divisor(("s1",)) == 4


def test_no_noise_is_no_privacy() -> None:
    plan = distributed(noise_multiplier=0)
    assert plan.noise is None
    assert not plan.committed_event("s0").is_private


# --- what is charged, to the last part ------------------------------------------------------------


def test_colluders_know_their_own_shares() -> None:
    """Whose shares are known hide nobody: the charge counts on none of them."""
    for plan in (distributed(dropouts=1, colluders=2), client(dropouts=1, colluders=2)):
        assert plan.counted_shares == len(plan.sites) - 3
        assert plan.noise is not None
        sensitivity = plan.sensitivity_grid
        left = (plan.noise.stddev_grid / sensitivity) ** 2 * plan.counted_shares
        assert Fraction(str(multiplier(plan))) ** 2 <= left
        assert multiplier(plan) == pytest.approx(sqrt(left), rel=1e-9)
        assert sqrt(left) == pytest.approx(float(plan.noise_multiplier), rel=1e-4)


def test_a_cohort_has_the_shares_of_those_who_are_asked() -> None:
    plan = client(cohort_size=4, dropouts=1, colluders=1)
    assert plan.counted_shares == 2
    assert plan.noise is not None
    everyone = client(dropouts=1, colluders=1)
    assert everyone.noise is not None
    ratio = float(plan.noise.stddev_grid / everyone.noise.stddev_grid)
    assert ratio == pytest.approx(sqrt(8 / 2), rel=1e-6)


@pytest.mark.parametrize("kept", [None, 5])
def test_the_integer_noises_distance_is_charged_for_every_coordinate(kept: int | None) -> None:
    """Rounded, cut and shared noise is not quite a Gaussian; delta pays for the difference."""
    compression = None if kept is None else Compression(kept=kept)
    for plan in (distributed(compression=compression), client(compression=compression)):
        assert plan.noise is not None
        (stddev, shares) = (plan.noise.stddev_grid, plan.counted_shares)
        coordinates = kept or plan.dimension
        charged = total_distance(stddev_grid=stddev, dimension=coordinates, shares=shares)
        overflow = plan.overflow if isinstance(plan, DistributedPlan) else 0
        assert plan.committed_event("s0").distance == charged + overflow > 0
    # Compressed after its noise, a local update has noise on every coordinate.
    plan = local(compression=compression and Compression(kept=kept, rounding=Rounding.NEAREST))
    assert plan.noise is not None
    step = total_distance(stddev_grid=plan.noise.stddev_grid, dimension=plan.dimension, shares=1)
    assert plan.step_event().distance == step + plan.overflow > 0
    assert plan.committed_event("s0").distance >= 3 * step


@pytest.mark.parametrize("make", [distributed, local, client])
def test_what_was_not_opened_was_not_realised(make: Callable[..., TrainingPlan]) -> None:
    plan = make()
    others = plan.names[1:]
    assert plan.realised_event("s0", others) == DpEvent()
    assert plan.realised_event("s1", others).is_private
    assert plan.realised_event("s1", others).terms


@pytest.mark.parametrize("make", [distributed, local, client])
def test_a_roster_names_everybody_once(make: Callable[..., TrainingPlan]) -> None:
    one, *rest = make().sites
    twin = one.model_copy(update={"dataset": "another"})
    with pytest.raises(ValidationError, match="site names must differ"):
        make(sites=(one, twin, *rest))
    heir = one.model_copy(update={"name": "heir"})
    with pytest.raises(ValidationError, match="each data set has one owner"):
        make(sites=(one, heir, *rest))


def test_a_round_that_nobody_survives_is_none() -> None:
    with pytest.raises(ValidationError, match="dropouts = 4 leaves no contribution of 4"):
        local(dropouts=4)


@pytest.mark.parametrize("make", [distributed, client])
def test_a_site_that_opens_is_not_shown_every_upload(make: Callable[..., TrainingPlan]) -> None:
    with pytest.raises(ValidationError, match="would show every upload to the site that opens"):
        make(strict=True, custody="sites")


def test_updates_that_others_train_need_a_plan_for_whole_clients() -> None:
    plan = client()
    assert ClientPlan.require(plan) is plan
    for other in (distributed(), local()):
        with pytest.raises(PlanError, match=f"one for '{other.mode}'.*privacy.mode = 'client'"):
            ClientPlan.require(other)


def test_a_cohort_is_no_larger_than_the_roster_and_keeps_a_share() -> None:
    with pytest.raises(ValidationError, match="cohort_size 11 exceeds the 10 clients"):
        client(cohort_size=11)
    with pytest.raises(ValidationError, match="leave no honest noise share among 4 sites"):
        client(cohort_size=4, dropouts=2, colluders=2)


def test_sums_that_could_wrap_are_refused_in_every_mode() -> None:
    heavy = (10**9,) * 3
    with pytest.raises(PlanError, match="2\\*\\*62"):
        local(update_levels=2**31, sites=sites(5, 5, 5, weights=heavy))
    with pytest.raises(PlanError, match="2\\*\\*62"):
        client(sites=sites(5, 5, 5, weights=heavy), sensitivity_grid=2**31, noise_multiplier=0)


def test_a_sampled_cohort_may_hold_the_heaviest_clients() -> None:
    plan = client(sites=sites(*(5,) * 4, weights=(1, 2, 3, 4)), cohort_size=2, colluders=0)
    assert plan.noise is not None
    assert plan.sum_bound == (4 + 3) * plan.sensitivity_grid + 2 * plan.noise.bound


def test_who_reads_single_uploads_is_held_off_by_one_share_alone() -> None:
    plan = distributed()
    alone = plan.event_of_shares("s0", 1)

    def rows(**changes: object) -> dict[tuple[str, int], DpEvent]:
        return {
            (o.name, o.colluding_sites): o.event for o in distributed(**changes).observers("s0", 4)
        }

    for k in range(4):
        assert rows()["key-holder", k] == plan.event_of_shares("s0", 4 - k)
        assert rows(strict=True)["key-holder", k] == alone
    bare = distributed(scheme="plaintext").observers("s0", 4)
    assert not any("adds honestly" in text for row in bare for text in row.assumptions)


# --- what the rest of the house asks -------------------------------------------------------------


def test_the_example_of_a_training_plan_runs() -> None:
    found = doctest.testmod(training)
    assert found.attempted > 5
    assert found.failed == 0


def test_a_plan_answers_exactly_what_is_asked_of_it() -> None:
    """mypy holds every asker to `Plan` and `RoundPlan`; here these are held to their askers."""
    house = Path(privagg.__file__).parent
    askers = [p for p in house.rglob("*.py") if (house / "privacy" / "plan") not in p.parents]
    text = "\n".join(p.read_text("utf-8") for p in askers)
    asked = set(re.findall(r"(?:plan|planned|load_plan\([^()]*\))\.(\w+)", text))
    asked |= set(re.findall(r"in_round\(.*?\)\.(\w+)", text))
    for protocol in (Plan, RoundPlan):
        answers = {name for name in vars(protocol) if not name.startswith("_")}
        assert answers - asked == set()
        assert all(getattr(protocol, name).__doc__ for name in answers)
