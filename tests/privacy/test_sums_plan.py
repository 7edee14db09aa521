"""Plans of sums over records: each round's own shape, noise and event; capacity; refusals."""

from __future__ import annotations

import json
from decimal import Decimal
from math import erfc, exp, inf, sqrt
from typing import Any

import pytest
from pydantic import ValidationError

from privagg.errors import NoiseError, PlanError
from privagg.privacy.accountants import default_accountant
from privagg.privacy.events import DpEvent
from privagg.privacy.plan import SiteTerms, SumsPlan, load_plan, mode_names
from privagg.privacy.plan.sums import MOST_DIFFERENT
from tests.report.worlds import distributed


def opening(**changes: Any) -> dict[str, Any]:
    return {
        "length": 30, "sensitivity_grid": 4096, "largest_grid": 4096, "noise_multiplier": "5",
    } | changes  # fmt: skip


def plan(*openings: dict[str, Any], **changes: Any) -> SumsPlan:
    sites = (SiteTerms(name="north", records=200), SiteTerms(name="south", records=100),
             SiteTerms(name="west", records=50))  # fmt: skip
    facts = {
        "sites": sites, "openings": openings or (opening(),), "delta": "1e-5", "scheme": "bfv",
        "custody": "authority", "colluders": 1, "dropouts": 0,
    }  # fmt: skip
    return SumsPlan.model_validate(facts | changes)


def gaussian_delta(epsilon: float, sensitivity_over_stddev: float) -> float:
    """Balle and Wang 2018, theorem 8: the exact delta of a Gaussian mechanism."""
    m = sensitivity_over_stddev
    upper = erfc((epsilon / m - m / 2) / sqrt(2)) / 2
    lower = erfc((epsilon / m + m / 2) / sqrt(2)) / 2
    return upper - exp(epsilon) * lower


def test_an_event_is_the_gaussian_of_the_shares_that_stay_unknown() -> None:
    job = plan(opening(noise_multiplier="4"))
    planned = job.in_round(1)
    for shares, least in ((2, 4.0), (3, 4.0 * sqrt(1.5)), (1, 4.0 / sqrt(2))):
        (term,) = planned.event_of_shares("north", shares).terms
        assert float(term.mechanism.noise_multiplier) == pytest.approx(least, rel=1e-4)
        assert term.mechanism.sampling_rate == 1
    committed = planned.committed_event("north")
    assert committed == planned.event_of_shares("north", job.counted_shares)
    epsilon = default_accountant().epsilon(committed, Decimal("1e-5")).upper
    assert gaussian_delta(float(epsilon), 1 / 4) == pytest.approx(1e-5, rel=1e-3)
    multiplier = float(committed.terms[0].mechanism.noise_multiplier)
    assert gaussian_delta(float(epsilon), 1 / multiplier) <= 1e-5


def test_rounds_differ_in_shape_noise_and_event_and_the_job_is_their_sum() -> None:
    job = plan(opening(state=3), opening(length=7, noise_multiplier="9", largest_grid=10),
               opening(state=3))  # fmt: skip
    assert (job.rounds, job.upload_dimension) == (3, 30)
    assert [job.in_round(k).dimension for k in (1, 2, 3)] == [3, 0, 3]
    assert [job.first_like(k) for k in (1, 2, 3)] == [1, 2, 1]
    events = [job.in_round(k).committed_event("south") for k in (1, 2, 3)]
    assert job.total_committed("south").terms == (events[0] + events[1] + events[2]).terms
    assert job.total_committed("south", [2, 2]).terms == events[1].repeated(2).terms
    assert events[0] != events[1]
    assert job.in_round(2).charge_facts["length"] == 7


def test_it_is_read_back_and_is_no_mode_of_training() -> None:
    job = plan(recipe={"program": "questions"})
    again = load_plan(json.loads(job.canonical_json))
    assert (again, again.digest) == (job, job.digest)
    assert job.mode not in mode_names()


def test_observers_see_what_their_shares_leave() -> None:
    rows = plan().in_round(1).observers("north", 3)
    seen = {(row.name, row.colluding_sites): row for row in rows}
    planned = plan().in_round(1)
    assert seen["model-users", 0].event == planned.event_of_shares("north", 3)
    assert seen["sites", 2].event == planned.event_of_shares("north", 1)
    assert seen["aggregator+key-holder", 0].event == planned.event_of_shares("north", 1)
    assert all("that record and public facts alone" in " ".join(row.assumptions) for row in rows)
    assert planned.realised_event("north", ("south", "west")) == DpEvent()


def test_room_is_for_every_record_and_every_share() -> None:
    job = plan(opening(), opening(largest_grid=8, noise_multiplier="50"))
    first, second = (job.in_round(k).noise for k in (1, 2))
    assert first is not None
    assert second is not None
    assert job.upload_bound == max(200 * 4096 + first.bound, 200 * 8 + second.bound)
    assert job.sum_bound == max(350 * 4096 + 3 * first.bound, 350 * 8 + 3 * second.bound)
    assert job.reach_of_one_site == min(job.sum_bound, 3 * job.upload_bound)


def test_without_noise_there_is_no_privacy() -> None:
    event = plan(opening(noise_multiplier="0")).total_committed("north")
    assert default_accountant().epsilon(event, Decimal("1e-5")).upper == Decimal(inf)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"openings": (opening(largest_grid=4097),)}, "exceeds the norm"),
        ({"openings": (opening(length=10**6, largest_grid=2**24, sensitivity_grid=2**24),)},
         "beyond 2**63"),
        ({"openings": ()}, "at least 1 item"),
        ({"colluders": 3}, "no honest noise share"),
        ({"custody": "sites", "strict": True}, "would show every upload"),
        ({"sites": (SiteTerms(name="a", records=2, weight=2), SiteTerms(name="b", records=1))},
         "weights must be 1"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told.replace("*", "[*]")):
        plan(**changes)


@pytest.mark.parametrize("multiplier", ["1e-30", "1e30", "1e39"])
def test_a_strangers_plan_with_noise_out_of_the_proven_range_is_none(multiplier: str) -> None:
    facts = plan().model_dump(mode="json")
    facts["openings"][0]["noise_multiplier"] = multiplier
    with pytest.raises(PlanError, match="not a plan: stddev_grid is"):
        load_plan(facts)
    trained = {**distributed().model_dump(mode="json"), "noise_multiplier": multiplier + "0" * 9}
    for changes in ({}, {"sensitivity_grid": 10**290}):
        with pytest.raises(PlanError, match="not a plan"):
            load_plan(trained | changes)


def test_a_strangers_plan_makes_no_work_for_each_pair_of_rounds() -> None:
    """Reading 10,000 rounds that all differ took minutes, before anything vouched for them."""
    many = [opening(noise_multiplier=str(5000 + number)) for number in range(10**4)]
    with pytest.raises(ValidationError, match="10000 of the rounds differ from one another"):
        plan(*many)
    job = plan(*(many[number % MOST_DIFFERENT] for number in range(10**4)))
    assert [job.first_like(k) for k in (1, 257, 10**4)] == [1, 1, 10**4 % 256]
    (once, *_), total = job.in_round(1).committed_event("north").terms, job.total_committed("north")
    assert (len(total.terms), sum(term.count for term in total.terms)) == (256, 10**4)
    assert next(t.count for t in total.terms if t.mechanism == once.mechanism) == 40


def test_a_round_that_is_not_there_has_no_plan() -> None:
    with pytest.raises(PlanError, match="no round 2"):
        plan().in_round(2).committed_event("north")


# --- integer Laplace noise ------------------------------------------------------------------------


def cells(**changes: Any) -> dict[str, Any]:
    """Two questions of shares 2 and 1: a record moves one integer by 2 and one by 1."""
    return {
        "length": 9, "sensitivity_grid": 3, "largest_grid": 2, "noise_multiplier": "2",
        "moves": (2, 1),
    } | changes  # fmt: skip


def test_a_gaussian_opening_looks_as_it_did_before_there_was_other_noise() -> None:
    assert set(plan().model_dump(mode="json")["openings"][0]) == {
        "state", "length", "sensitivity_grid", "largest_grid", "noise_multiplier"
    }  # fmt: skip


def test_laplace_noise_costs_the_shift_over_the_scale_of_every_integer_that_moves() -> None:
    job = plan(cells())
    committed = job.in_round(1).committed_event("north")
    assert [(t.mechanism.kind, t.count) for t in committed.terms] == [("integer-laplace", 1)] * 2
    assert job.openings[0].scale == 6
    bound = default_accountant().epsilon(committed, Decimal("1e-5"))
    assert Decimal("0.49") < bound.upper <= Decimal("0.5")
    assert 0 < committed.distance < Decimal("1e-30")
    again = load_plan(json.loads(job.canonical_json))
    assert (again, again.digest) == (job, job.digest)
    assert job.in_round(1).charge_facts["moves"] == [2, 1]


def test_of_laplace_noise_one_share_alone_promises_far_less_than_all() -> None:
    """Where the sum of three has epsilon 1, whoever reads one upload has 2.08."""
    one = cells(moves=(1,), sensitivity_grid=1, largest_grid=1, noise_multiplier="1")
    rows = plan(one, colluders=0).in_round(1).observers("north", 3)
    costs = {
        (row.name, row.colluding_sites): default_accountant()
        .epsilon(row.event, Decimal("1e-5"))
        .upper
        for row in rows
    }
    assert costs["model-users", 0] <= 1
    assert float(costs["aggregator+key-holder", 0]) == pytest.approx(2.08, abs=0.005)
    assert costs["model-users", 0] < costs["sites", 1] < costs["sites", 2]
    assert costs["sites", 2] == costs["aggregator+key-holder", 2]


def test_more_survivors_than_were_counted_on_cost_less_and_a_lost_site_nothing_more() -> None:
    job = plan(cells(), colluders=1)
    planned = job.in_round(1)
    committed, realised = (
        default_accountant().epsilon(event, Decimal("1e-5")).upper
        for event in (planned.committed_event("west"), planned.realised_event("west", job.names))
    )
    assert realised < committed
    assert planned.realised_event("west", ("north", "south")) == DpEvent()


def test_capacity_counts_the_largest_laplace_noise() -> None:
    job = plan(cells(), colluders=0)
    assert job.in_round(1).noise_bound == 96 * 6
    assert job.upload_bound == 200 * 2 + 96 * 6
    assert job.sum_bound == 350 * 2 + 3 * 96 * 6


def test_laplace_and_gaussian_rounds_add_up_in_one_job() -> None:
    job = plan(cells(), opening(noise_multiplier="6"))
    event = job.total_committed("south")
    assert {term.mechanism.kind for term in event.terms} == {"gaussian", "integer-laplace"}
    both = default_accountant().epsilon(event, Decimal("1e-5")).upper
    apart = [
        default_accountant()
        .epsilon(job.in_round(k).committed_event("south"), Decimal("1e-5"))
        .upper
        for k in (1, 2)
    ]
    assert max(apart) < both <= sum(apart)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"moves": (1, 2)}, "must fall"),
        ({"moves": (2, 1), "sensitivity_grid": 2}, "sensitivity_grid is 3"),
        ({"moves": (2, 1), "largest_grid": 1}, "largest_grid 2"),
        ({"moves": (2, 1), "length": 1}, "no more than the 1 integers"),
        ({"moves": ()}, "at least 1"),
        ({"moves": (5000,)}, "less than or equal to 4096"),
        ({"moves": (0,)}, "greater than or equal to 1"),
    ],
)
def test_moves_that_are_not_the_openings_bounds_are_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        plan(cells(**changes))


@pytest.mark.parametrize("multiplier", ["1000", "0.001"])
def test_laplace_noise_without_a_table_is_refused(multiplier: str) -> None:
    with pytest.raises(NoiseError, match="Gaussian"):
        plan(cells(noise_multiplier=multiplier))


def test_a_tail_counts_gaussian_noise_by_its_sum_and_other_noise_at_its_largest() -> None:
    gaussian = plan(opening())
    share, draws = gaussian.in_round(1).noise, gaussian.openings[0].length
    noiseless = gaussian.sum_bound - share.bound * gaussian.addends
    assert gaussian.sum_tail == noiseless + share.sum_tail(gaussian.addends, draws)
    laplace = plan(cells())
    assert laplace.sum_tail == laplace.sum_bound
