"""Rosters that change: each epoch is what a plan of its own sites would be, and costs only them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from privagg.config.plan import charged_most
from privagg.errors import PlanError
from privagg.privacy.events import DpEvent
from privagg.privacy.plan import (
    ClientPlan,
    DistributedPlan,
    LocalPlan,
    OpeningTerms,
    SiteTerms,
    SumsPlan,
    load_plan,
)

ROUNDS = 12
COMMON: dict[str, Any] = {"delta": "1e-5", "custody": "authority", "scheme": "bfv"}
TRAINED: dict[str, Any] = {
    "dimension": 3, "rounds": ROUNDS, "clip_norm_l2": "1", "noise_multiplier": "2", **COMMON,
}  # fmt: skip
OPENING = OpeningTerms(
    length=3, sensitivity_grid=100, largest_grid=100, noise_multiplier=Decimal(2)
)
KINDS: dict[type, dict[str, Any]] = {
    DistributedPlan: {**TRAINED, "sampling_rate": "0.2"},
    ClientPlan: TRAINED,
    LocalPlan: {**TRAINED, "sampling_rate": "0.2", "local_steps": 2, "update_bound": "1"},
    SumsPlan: {**COMMON, "openings": (OPENING,) * ROUNDS},
}


def site(
    name: str, first: int | None = None, last: int | None = None, weight: int = 1
) -> SiteTerms:
    return SiteTerms(name=name, records=50, weight=weight, first_round=first, last_round=last)


def three_and(*others: SiteTerms) -> list[SiteTerms]:
    return [site("a"), site("b"), site("c"), *others]


def made(kind: type, sites: list[SiteTerms], **changes: Any) -> Any:
    return kind.model_validate({**KINDS[kind], "sites": sites, **changes})


JOINS_AND_LEAVES = three_and(site("joins", 5), site("leaves", None, 8))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_round_is_planned_as_by_its_own_sites_alone(kind: type) -> None:
    plan = made(kind, JOINS_AND_LEAVES)
    assert [(e.first, e.last, e.names) for e in plan.epochs] == [
        (1, 4, ("a", "b", "c", "leaves")),
        (5, 8, ("a", "b", "c", "joins", "leaves")),
        (9, 12, ("a", "b", "c", "joins")),
    ]
    for epoch in plan.epochs:
        alone = made(kind, [site(name) for name in epoch.names])
        for number in (epoch.first, epoch.last):
            mine, theirs = plan.in_round(number), alone.in_round(number)
            for name in epoch.names:
                assert mine.committed_event(name) == theirs.committed_event(name)
                assert mine.observers(name, 3) == theirs.observers(name, 3)
            assert mine.noise_stddev_text == theirs.noise_stddev_text
            assert (mine.addends, mine.minimum_survivors) == (len(epoch.names),) * 2
            assert mine.divisor(epoch.names) == theirs.divisor(epoch.names)
        assert (plan.upload_bound, plan.sum_bound) >= (alone.upload_bound, alone.sum_bound)
        assert plan.sum_tail >= alone.sum_tail
        if kind is not LocalPlan:
            total = alone.total_committed("a", range(epoch.first, epoch.last + 1))
            assert plan.total_committed("a", range(epoch.first, epoch.last + 1)) == total


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_site_is_charged_for_its_own_rounds_alone(kind: type) -> None:
    plan = made(kind, JOINS_AND_LEAVES)
    for name, there in {"a": range(1, 13), "joins": range(5, 13), "leaves": range(1, 9)}.items():
        assert plan.rounds_of(name) == there
        total = DpEvent()
        for number in there:
            total += plan.in_round(number).committed_event(name)
        found = plan.total_committed(name)
        assert (found.terms, found.distance) == (total.terms, total.distance)
        elsewhere = [number for number in range(1, 13) if number not in there]
        assert plan.total_committed(name, elsewhere) == DpEvent()
        for number in elsewhere:
            with pytest.raises(PlanError, match="no site"):
                plan.in_round(number).committed_event(name)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_schedule_is_in_the_digest_and_reads_back(kind: type) -> None:
    plan, fixed = made(kind, JOINS_AND_LEAVES), made(kind, three_and(site("joins"), site("leaves")))
    assert plan.digest != fixed.digest
    assert load_plan(plan.model_dump(mode="json")).digest == plan.digest
    assert "first_round" not in fixed.canonical_json
    assert load_plan(plan.model_dump(mode="json")) == plan  # no endless comparison of its parts


@settings(max_examples=60, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(1, ROUNDS), st.integers(1, ROUNDS)), max_size=4),
    dropouts=st.integers(0, 2),
    colluders=st.integers(0, 2),
)
def test_whoever_comes_and_goes_the_planned_noise_is_there(
    spans: list[tuple[int, int]], dropouts: int, colluders: int
) -> None:
    """Of each round's least quorum, less colluders, the shares' variance is the planned one."""
    changing = [site(f"x{n}", min(span), max(span)) for n, span in enumerate(spans)]
    facts = {"dropouts": dropouts, "colluders": colluders}
    if 3 - dropouts - colluders < 1:
        sizes = [len(e.names) for e in made(ClientPlan, three_and(*changing), dropouts=0,
                                            colluders=0).epochs]  # fmt: skip
        if min(sizes) - dropouts - colluders < 1:
            with pytest.raises((ValidationError, PlanError)):
                made(ClientPlan, three_and(*changing), **facts)
            return
    plan = made(ClientPlan, three_and(*changing), **facts)
    needed = (Fraction(plan.noise_multiplier) * plan.sensitivity_grid) ** 2
    covered = []
    for epoch in plan.epochs:
        planned = plan.in_round(epoch.first)
        honest = planned.minimum_survivors - colluders
        assert honest * planned.noise.stddev_grid**2 >= needed
        covered += range(epoch.first, epoch.last + 1)
        assert planned.names == tuple(
            s.name for s in plan.sites if epoch.first in plan.rounds_of(s.name)
        )
    assert covered == list(range(1, ROUNDS + 1))


def test_the_largest_weight_of_an_epoch_sizes_its_noise() -> None:
    plan = made(ClientPlan, three_and(site("heavy", 5, 6, weight=9)))
    light, heavy = plan.in_round(1), plan.in_round(5)
    assert heavy.noise.stddev_grid > 6 * light.noise.stddev_grid
    assert plan.upload_bound == heavy.upload_bound > light.upload_bound


def test_calibration_asks_every_site_that_may_be_charged_most() -> None:
    plan = made(
        ClientPlan, three_and(site("short", 1, 3, weight=5), site("shorter", 2, 3, weight=5))
    )
    assert charged_most(plan) == ("short", "a")
    assert charged_most(made(ClientPlan, three_and(site("d", weight=2)))) == ("d",)


@pytest.mark.parametrize(
    ("sites", "changes", "message"),
    [
        (three_and(site("x", 13)), {}, r"'x' takes part in rounds 13 to 12; the job has .* 12"),
        (three_and(site("x", 7, 6)), {}, "'x' takes part in rounds 7 to 6"),
        ([site("a", 1, 6), site("b", 1, 6), site("c", 7), site("d", 8)], {},
         r"in round 7 \(c\): .*leave no honest noise share"),
        ([site("a", 1, 5), site("b", 7)], {"colluders": 0}, "no site takes part in round 6"),
        (three_and(site("x", 5)), {"cohort_size": 4}, r"rounds 1 to 4 .*cohort_size 4"),
        (three_and(site("x", 5)), {"dropouts": 3, "colluders": 0}, r"rounds 1 to 4 \(a, b, c\)"),
    ],
)  # fmt: skip
def test_a_schedule_that_hides_nobody_is_refused_by_its_rounds(
    sites: list[SiteTerms], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValidationError, PlanError), match=message):
        made(ClientPlan, sites, **changes)


def test_a_changing_plan_has_no_noise_of_its_own() -> None:
    plan = made(ClientPlan, JOINS_AND_LEAVES)
    with pytest.raises(PlanError, match="ask for one round"):
        plan.committed_event("a")
