"""Evidence of a job whose rounds differ: it holds, and what a hostile ledger or report says not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pytest

from privagg.audit import Brought, Methods, verify_report
from privagg.privacy.ledger import ChargeRequest
from privagg.privacy.plan import SumsPlan, TrainingPlan
from privagg.privacy.plan.sums import RoundOfSums
from tests.audit.conftest import Evidence, bundle_of, failures
from tests.report.worlds import HOSPITALS, KEY_ID, World


def job() -> SumsPlan:
    return SumsPlan.model_validate(
        {
            "sites": [{"name": n, "records": r, "dataset": f"{n}-2025"} for n, r in HOSPITALS],
            "openings": [
                {"length": 30, "sensitivity_grid": 4096, "largest_grid": 4096,
                 "noise_multiplier": "9"},
                {"length": 7, "sensitivity_grid": 100, "largest_grid": 10,
                 "noise_multiplier": "12"},
            ],
            "delta": "1e-5", "scheme": "ckks", "custody": "authority", "dropouts": 1,
            "recipe": {"model": {"kind": "logistic"}, "optimizer": {"kind": "sgd", "rate": 0.5}},
        }
    )  # fmt: skip


class Sums(World):
    """Charges, uploads and openings as the plan has each round."""

    def planned(self, number: int) -> RoundOfSums:
        return cast(SumsPlan, self.plan).in_round(number)

    def _charge(self, name: str, run: str, number: int) -> None:
        self.receipts[name, number] = self.sites[name].charge(
            ChargeRequest(
                run=run, round=number, attempt=1, dataset=self.plan.site(name).dataset,
                unit=self.plan.unit.value, event=self.planned(number).committed_event(name),
                plan_digest=self.plan.digest, facts=self.facts(name, number),
            )
        )  # fmt: skip

    def facts(self, name: str, number: int) -> dict[str, Any]:
        return {
            **self.planned(number).charge_facts, "cohort": list(self.plan.names),
            "key_id": KEY_ID, "security_bits": 128, "generator": self.generator,
            "python": "3.11.9", "numpy": "2.3.1",
        }  # fmt: skip

    def attested(self, name: str, number: int) -> dict[str, str]:
        noise = self.planned(number).noise_stddev_text
        return {"generator": self.generator, "noise_stddev_grid": noise}

    def _realise(self, name: str, place: dict[str, Any], survivors: list[str]) -> None:
        event = self.planned(place["round"]).realised_event(name, survivors)
        payload = {
            **place, "dataset": self.plan.site(name).dataset, "unit": self.plan.unit.value,
            "event": event, "attested_by": self.opener, "facts": {"survivors": survivors},
        }  # fmt: skip
        self.sites[name].record("realised", payload)


class Swapped(Sums):
    """Every round does and charges what the plan says of the second."""

    def planned(self, number: int) -> RoundOfSums:
        return super().planned(2)


class Further(Sums):
    """A third round is charged and opened; the plan has two."""

    def planned(self, number: int) -> RoundOfSums:
        return super().planned(min(number, 2))

    def _round(self, number: int, rng: np.random.Generator) -> None:
        super()._round(number, rng)
        if number == 2:
            super()._round(3, rng)


def made(tmp_path: Path, methods: Methods, story: type[Sums] = Sums) -> Evidence:
    plan = cast(TrainingPlan, job())
    world = story(tmp_path, plan, dropped={2: ("leuven",)}).play()
    rounds = SumsPlan.in_round, SumsPlan.first_like
    with patch.multiple(  # by somebody whose software looks away
        SumsPlan,
        in_round=lambda self, number: rounds[0](self, min(number, 2)),
        first_like=lambda self, number: rounds[1](self, min(number, 2)),
    ):
        return Evidence(world, bundle_of(world), methods)


def test_each_round_is_held_against_its_own_terms(tmp_path: Path, methods: Methods) -> None:
    evidence = made(tmp_path, methods)
    found = evidence.verify()
    assert found.holds, failures(found)
    report = evidence.report
    assert verify_report(json.dumps(report).encode(), Brought(methods=methods)).holds
    report["sites"][0]["history"][0]["round"] = 99
    alone = verify_report(json.dumps(report).encode(), Brought(methods=methods))
    assert "the plan has rounds 1 to 2, no round 99" in failures(alone)
    assert "history[0].round: 99" in failures(evidence.verify(evidence.with_report(report)))


@pytest.mark.parametrize(
    ("story", "told"),
    [
        (Swapped, "charges what the plan does not say"),
        (Further, "is of round 3"),
    ],
)
def test_what_the_plan_does_not_say_of_a_round_is_found(
    tmp_path: Path, methods: Methods, story: type[Sums], told: str
) -> None:
    found = made(tmp_path, methods, story).verify()
    assert not found.holds
    assert told in failures(found)
