"""A fourth way to be private, added from outside: it trains, charges, reports and verifies.

What is written here is all that a mode takes without settings of its own; `privagg.privacy.plan`
lists where it goes in the house.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from privagg.audit import Brought, Methods, verify_file
from privagg.cli.planview import describe
from privagg.errors import ConfigError, PlanError
from privagg.party.open import ledger_here
from privagg.privacy.events import DpEvent
from privagg.privacy.guarantee import Observer
from privagg.privacy.ledger import BudgetKey
from privagg.privacy.noise import IntegerGaussian
from privagg.privacy.plan import DistributedPlan, RecordPlan, Rounding, load_plan, plan_mode
from privagg.privacy.plan.agreed import noise_share
from privagg.privacy.plan.observing import own_noise_observers
from privagg.programs import learners, training
from privagg.training.datasets import write_breast_cancer
from tests.test_federation import federation, ready


@plan_mode
class WholeNoisePlan(RecordPlan):
    """One gradient sum a round, to which every site adds all of the noise by itself."""

    contribution_plainly: ClassVar[str] = (
        "the sum of its records' clipped gradients with all of the noise"
    )
    rounds_updates: ClassVar[bool] = False
    usual_rounding: ClassVar[Rounding] = Rounding.TRUNCATE

    mode: Literal["record-whole"] = "record-whole"

    @property
    def steps_in_a_round(self) -> int:
        return 1

    @cached_property
    def noise(self) -> IntegerGaussian | None:
        return noise_share(
            noise_multiplier=self.noise_multiplier,
            sensitivity_grid=self.sensitivity_grid,
            shares=1,
        )

    @property
    def _uploads(self) -> list[int]:
        noise = self.noise.bound if self.noise else 0
        return [self.contribution_bound(site) + noise for site in self.sites]

    @property
    def upload_bound(self) -> int:
        return max(self._uploads)

    @property
    def sum_bound(self) -> int:
        return sum(self._uploads)

    def committed_event(self, site: str) -> DpEvent:
        self.site(site)
        return self.event_of_step(shares=1, coordinates=self.upload_dimension)

    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        return self.committed_event(site) if site in survivors else DpEvent()

    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        return own_noise_observers(
            self.committed_event(site),
            survivors=survivors,
            unit=self.unit,
            custody=self.custody,
            in_slots=True,
        )

    def divisor(self, survivors: Sequence[str]) -> Fraction:
        return sum((self.step_divisor(self.site(name)) for name in survivors), Fraction(0))

    @property
    def step_sign(self) -> int:
        return -1

    @property
    def compression_cost(self) -> str:
        return "A record's sensitivity stays what it was."


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_breast_cancer(tmp_path_factory.mktemp("tables"))


SECTIONS = {"privacy": {"mode": "record-whole"}, "training": {"rounds": 1}}


def test_a_mode_added_from_outside_trains_charges_and_verifies(
    tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(learners.LEARNERS, WholeNoisePlan, {"fedavg": training.DistributedLearner})
    job = ready(tables, tmp_path, **SECTIONS)
    plan = job.plan
    assert type(plan) is WholeNoisePlan
    assert load_plan(json.loads(plan.canonical_json)) == plan
    facts = describe(job.setup)
    assert facts["sampling_rate"] == "0.3"
    assert len(facts["batches"]) == len(plan.sites)
    result = job.run()
    assert result.outcome == "finished", result.reason
    for name in plan.names:
        spending = ledger_here(job.setup, name).spent(BudgetKey.of(plan, name))
        assert spending.event.terms == plan.committed_event(name).terms
    assert result.report_json is not None
    report = json.loads(result.report_json.read_text())
    assert "with all of the noise" in " ".join(report["summary"])
    everybody = {row["epsilon"] for site in report["sites"] for row in site["guarantees"]}
    assert len(everybody) == 1  # the noise of no other site counts
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought(methods=Methods())).holds


def test_a_mode_that_nothing_trains_is_refused(tables: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no client rule for plans of mode 'record-whole'"):
        ready(tables, tmp_path, **SECTIONS).run()


def test_a_mode_that_nobody_knows_is_refused_by_name(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.mode.*record-distributed.*\(got 'magic'\)"):
        federation(tables, tmp_path, privacy={"mode": "magic"})
    for mode in ("magic", None, [], {"record-local": 1}):
        with pytest.raises(PlanError, match="no mode is called"):
            load_plan({"mode": mode})
    for facts in ("record-local", ["mode"], None, 7):
        with pytest.raises(PlanError, match="where an object is due"):
            load_plan(facts)


def test_two_classes_cannot_share_a_mode() -> None:
    class Twin(DistributedPlan):
        """Has its parent's mode."""

    with pytest.raises(PlanError, match="two plan classes have the mode 'record-distributed'"):
        plan_mode(Twin)
