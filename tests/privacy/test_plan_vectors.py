"""Plans as they were: digests that sites pinned, events that ledgers hold, words in reports."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from privagg.config.plan import build_plan
from privagg.config.schema import parse_config
from privagg.privacy.accountants import CertifiedAccountant
from privagg.privacy.plan import load_plan
from privagg.report.plan_text import compression_text

FROZEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "plans.json").read_text(encoding="utf-8")
)
PLANS, CONFIGURATIONS = FROZEN["plans"], FROZEN["configurations"]


def facts_of(plan: Any) -> dict[str, Any]:
    """What a plan's digest, charges, statements and report follow from; JSON-ready."""
    names, site = plan.names, plan.names[-1]
    rows = [row.model_dump(mode="json") for row in plan.observers(site, plan.addends)]
    return {
        "digest": plan.digest,
        "computation_digest": plan.computation_digest,
        "committed": plan.committed_event(site).model_dump(mode="json"),
        "realised": plan.realised_event(site, names[1:]).model_dump(mode="json"),
        "observers": hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest(),
        "noise_stddev_grid": str(plan.noise.stddev_grid) if plan.noise else "0",
        "upload_dimension": plan.upload_dimension,
        "upload_bound": plan.upload_bound,
        "sum_bound": plan.sum_bound,
        "reach_of_one_site": plan.reach_of_one_site,
        "minimum_survivors": plan.minimum_survivors,
        "addends": plan.addends,
        "mean": str(plan.step_per_grid(names[1:])),
        "compression": compression_text(plan),
    }


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_means_what_it_meant(name: str) -> None:
    plan = load_plan(PLANS[name]["plan"])
    assert json.loads(plan.canonical_json) == PLANS[name]["plan"]
    assert facts_of(plan) == PLANS[name]["facts"]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_gives_the_plan_that_it_gave(name: str) -> None:
    """Frozen before there was a choice of engine: those plans train by Opacus' hooks, unsaid."""
    frozen = CONFIGURATIONS[name]
    said = frozen["configuration"]
    if said["privacy"].get("mode") != "client":
        said = {**said, "training": {**said["training"], "engine": "opacus"}}
    config = parse_config(said, source=name)
    plan = build_plan(config, dimension=14, accountant=CertifiedAccountant())
    assert json.loads(plan.canonical_json) == frozen["plan"]
    assert Decimal(plan.noise_multiplier) == Decimal(frozen["plan"]["noise_multiplier"])
    assert plan.digest == frozen["digest"]
