"""Nobody tells canaries apart better than the plan's rows say; in a sabotaged build, somebody does.

Seeds are fixed; a true claim would be refuted in one of 10^4 audits at most (`FALSE_ALARM`).
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from privagg.privacy.noise import IntegerGaussian
from privagg.privacy.plan import ClientPlan, RecordPlan
from privagg.privacy.plan import client as client_plan
from privagg.privacy.plan.training import GridTerms
from privagg.privacy.randomness import poisson_sample
from privagg.training import draws
from tests.audit.empirical import (
    OBSERVERS,
    Audit,
    Trials,
    audit,
    client_learner,
    client_trials,
    first_coordinate,
    record_trials,
    row,
)
from tests.audit.empirical_cases import CLIENT_PLANS, RECORD_PLANS, client, distributed, local

CLOSE = 0.8
"""So near to the claim comes the audit of a mechanism's worst case with thousands of trials."""


def audits(plan: Any, found: dict[tuple[str, int], Trials]) -> Iterator[tuple[str, Audit]]:
    for (observer, k), trials in found.items():
        yield f"{observer}, {k}", audit(row(plan, observer, k), trials)


@pytest.mark.parametrize("name", RECORD_PLANS)
def test_no_observer_tells_a_record_better_than_its_row_says(name: str) -> None:
    plan = RECORD_PLANS[name]()
    found = record_trials(plan, 250 if plan.compression and plan.compression.kept else 120)
    for observer, result in audits(plan, found):
        assert result.claimed - CLOSE < result.lower <= result.claimed, observer


@pytest.mark.parametrize("name", CLIENT_PLANS)
def test_no_observer_tells_a_client_better_than_its_row_says(name: str) -> None:
    make, canary = CLIENT_PLANS[name]
    plan = make()
    for observer, result in audits(plan, client_trials(plan, canary, 700)):
        assert result.lower <= result.claimed, observer


def test_no_observer_tells_what_a_client_trained_on_better_than_its_row_says() -> None:
    plan = client()
    found = client_trials(plan, first_coordinate(12), 500, contribution=client_learner(plan))
    for observer, result in audits(plan, found):
        assert result.lower <= result.claimed, observer


# --- the audit has power --------------------------------------------------------------------------


def halve_the_noise(patch: pytest.MonkeyPatch) -> None:
    whole = IntegerGaussian.sample
    patch.setattr(IntegerGaussian, "sample", lambda *args: whole(*args) // 2)


def leave_one_addend_out(patch: pytest.MonkeyPatch) -> None:
    drawn = draws.Draws.noise
    patch.setattr(draws.Draws, "noise", lambda self, *a: drawn(self, *a) * (self.site != "b"))


def noise_one_step_only(patch: pytest.MonkeyPatch) -> None:
    drawn = draws.Draws.noise
    patch.setattr(draws.Draws, "noise", lambda self, n, step=0: drawn(self, n, step) * (step == 0))


def sample_more(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        draws, "poisson_sample", lambda stream, n, q: poisson_sample(stream, n, q * 8 / 5)
    )


def clip_at_twice_the_norm(patch: pytest.MonkeyPatch) -> None:
    def doubled(terms: GridTerms) -> GridTerms:
        return GridTerms(terms.clip_norm_l2 * 2, terms.steps * 2, terms.bound * 2)

    of_records, of_updates = RecordPlan.gradient_terms, ClientPlan.update_terms
    patch.setattr(RecordPlan, "gradient_terms", lambda *args: doubled(of_records(*args)))
    patch.setattr(ClientPlan, "update_terms", lambda *args: doubled(of_updates(*args)))


def state_the_clip_norm_for_a_rounded_update(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(client_plan, "rounded_sensitivity", lambda rounding, steps, n: steps)


SABOTAGE: list[tuple[Callable[[pytest.MonkeyPatch], None], str, tuple[str, int]]] = [
    (halve_the_noise, "distributed", ("model-users", 0)),
    (halve_the_noise, "distributed, random half of the coordinates", ("sites", 1)),
    (halve_the_noise, "local", ("model-users", 0)),
    (halve_the_noise, "client", ("aggregator+key-holder", 0)),
    (halve_the_noise, "client, random half", ("model-users", 0)),
    (halve_the_noise, "client, rotated, 8 bits", ("model-users", 0)),
    (leave_one_addend_out, "distributed", ("sites", 1)),
    (leave_one_addend_out, "client", ("sites", 1)),
    (noise_one_step_only, "local", ("model-users", 0)),
    (sample_more, "distributed", ("model-users", 0)),
    (sample_more, "local, sampled", ("model-users", 0)),
    (clip_at_twice_the_norm, "distributed", ("model-users", 0)),
    (clip_at_twice_the_norm, "local", ("model-users", 0)),
    (clip_at_twice_the_norm, "client", ("model-users", 0)),
    (state_the_clip_norm_for_a_rounded_update, "client, nearest", ("model-users", 0)),
]


@pytest.mark.parametrize(("sabotage", "name", "observer"), SABOTAGE)
def test_the_audit_refutes_a_sabotaged_build(
    sabotage: Callable[[pytest.MonkeyPatch], None],
    name: str,
    observer: tuple[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sabotage(monkeypatch)
    if name in RECORD_PLANS:
        plan: Any = RECORD_PLANS[name]()
        found = record_trials(plan, 100)
    else:
        make, canary = CLIENT_PLANS[name]
        plan = make()
        found = client_trials(plan, canary, 1500 if sabotage is leave_one_addend_out else 700)
    assert audit(row(plan, *observer), found[observer]).refuted


def test_every_observer_that_is_audited_has_a_row() -> None:
    for plan in (distributed(), local(), client()):
        for observer in OBSERVERS:
            assert row(plan, *observer).is_private
