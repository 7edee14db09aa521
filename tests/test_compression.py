"""Compressed uploads, whole way: one model whatever the scheme, noise for what is really sent."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privagg import Federation
from privagg.audit import Brought, Methods, verify_file, verify_report
from privagg.cli.planview import describe
from privagg.encoding.planned import transform_of
from privagg.party.open import ledger_here
from privagg.privacy.ledger import BudgetKey
from privagg.privacy.plan import SiteTerms
from privagg.privacy.randomness import DeterministicRandomness
from privagg.secure.registry import scheme_names
from privagg.training.datasets import write_breast_cancer
from privagg.training.draws import Draws, noised_update
from tests.privacy.test_compression import compressed
from tests.simulator import NAMES, Simulation
from tests.test_federation import config, ready

pytestmark = pytest.mark.usefixtures("no_page")
NOISE = {"noise_multiplier": "0.7", "budget_epsilon": "Infinity", "epsilon": "100"}
CLIENT: dict[str, Any] = {
    "privacy": {"mode": "client", "colluders": 0, **NOISE},
    "training": {
        "rounds": 6,
        "local_steps": 20,
        "local_learning_rate": 0.5,
        "optimizer": {"kind": "sgd", "learning_rate": 1.0},
    },
}
LOCAL: dict[str, Any] = {
    "privacy": {"mode": "record-local", **NOISE},
    "training": {"local_steps": 2, "local_learning_rate": 2.0, "optimizer": {"learning_rate": 1.0}},
}
DISTRIBUTED: dict[str, Any] = {"privacy": {"mode": "record-distributed", **NOISE}}

ENCODINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (CLIENT, {"bits": 12}),
    (CLIENT, {"bits": 8, "rounding": "nearest"}),
    (CLIENT, {"bits": 8, "rotation": True}),
    (CLIENT, {"keep": "0.5", "rounding": "truncate"}),
    (CLIENT, {"bits": 10, "rotation": True, "keep": "0.5", "mask": "top-k"}),
    (LOCAL, {"bits": 10, "rotation": True, "keep": "0.7"}),
    (LOCAL, {"rounding": "nearest", "bits": 8}),
    (DISTRIBUTED, {"keep": "0.5", "mask": "top-k"}),
]
SCHEMES: dict[str, dict[str, Any]] = {
    "plaintext": {},
    "ckks": {},
    "bfv": {},
    "paillier": {"security_bits": 112, "options": {"modulus_bits": 2048}},
    "masked": {"custody": "every-site"},
}


def name_of(value: Any) -> str | None:
    if isinstance(value, dict) and "privacy" in value:
        return str(value["privacy"]["mode"])
    return ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_breast_cancer(tmp_path_factory.mktemp("tables"))


def made(
    tables: dict[str, Path], folder: Path, sections: dict[str, Any], terms: dict[str, Any]
) -> Federation:
    return ready(tables, folder, **{**copy.deepcopy(sections), "compression": terms})


@pytest.mark.parametrize(("sections", "terms"), ENCODINGS, ids=name_of)
def test_every_encoding_learns(
    tables: dict[str, Path], tmp_path: Path, sections: dict[str, Any], terms: dict[str, Any]
) -> None:
    """With the noise of a real job; 63 % of the public table are benign."""
    job = made(tables, tmp_path, sections, terms)
    result = job.run(randomness=DeterministicRandomness(b"seed"), run_id="one")
    assert result.outcome == "finished", result.reason
    assert result.metrics["accuracy"] > 0.8
    assert result.metrics["auc"] > 0.9
    assert np.isfinite(result.parameters).all()


@pytest.mark.parametrize(
    ("sections", "terms"),
    [ENCODINGS[4], *(pytest.param(*ENCODINGS[i], marks=pytest.mark.nightly) for i in (5, 7))],
    ids=name_of,
)
def test_all_schemes_give_the_same_parameters_bit_by_bit(
    tables: dict[str, Path], tmp_path: Path, sections: dict[str, Any], terms: dict[str, Any]
) -> None:
    torch.set_num_threads(1)
    assert SCHEMES.keys() == {*scheme_names()}
    models = set()
    for scheme, secure in SCHEMES.items():
        quick = {**sections, "training": {**sections.get("training", {}), "rounds": 2}}
        job = made(
            tables, tmp_path / scheme, {**quick, "secure": {"scheme": scheme, **secure}}, terms
        )
        result = job.run(randomness=DeterministicRandomness(b"same"), run_id="one")
        assert result.outcome == "finished", result.reason
        models.add(result.parameters.tobytes())
    assert len(models) == 1


def test_a_calibrated_job_is_charged_reported_and_verified(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    changes = {"rounds": 2, "local_steps": 2}
    sections = {"privacy": {"mode": "client", "epsilon": "2"}, "training": changes}
    job = made(tables, tmp_path, sections, {"bits": 8, "rotation": True, "keep": "0.5"})
    result = job.run()
    plan = job.plan
    assert (plan.dimension, plan.upload_dimension, plan.sensitivity_grid) == (31, 16, 128)
    spending = ledger_here(job.setup, "riverside").spent(BudgetKey("riverside", "site"))
    assert Decimal("1.999") < spending.epsilon.upper <= 2
    (term,) = spending.event.terms
    assert plan.noise is not None
    share = float(plan.noise.stddev_grid)
    assert float(term.mechanism.noise_multiplier) == pytest.approx(share * sqrt(2) / 128, rel=1e-9)
    assert result.report_json is not None
    assert result.bundle is not None
    report = json.loads(result.report_json.read_text())
    summary = " ".join(report["summary"])
    assert "carries 16 of the 31 coordinates, chosen at random" in summary
    assert "After a public random rotation they are rounded at random" in summary
    assert "to at most 8 bits" in summary
    assert "the sensitivity is 128 grid units where the clip norm has 127" in summary
    brought = Brought(methods=Methods())
    assert verify_file(result.bundle, brought).holds
    for old, new in (("carries 16", "carries 15"), ("is 128 grid", "is 127 grid")):
        told = [line.replace(old, new) for line in report["summary"]]
        assert told != report["summary"]
        changed = json.dumps({**report, "summary": told}).encode()
        assert not verify_report(changed, brought).holds


def test_check_says_where_a_job_is_possible_only_by_its_compression(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    privacy = {"mode": "client", "noise_multiplier": "8", "epsilon": "5"}
    values = config(tables, privacy=privacy, training={"rounds": 1})
    values["compression"] = {"bits": 8}
    for site in values["sites"]:
        site["weight"] = 10**7
    facts = describe(Federation.from_dict(values, base=tmp_path).setup)
    assert facts["compression"]["upload_bytes"] == facts["scheme"]["upload_bytes"] > 0
    assert facts["compression"]["upload_bytes_without"] is None


def test_the_noise_is_for_what_rounding_makes_of_an_update_not_for_the_clip_norm() -> None:
    """Empirically, over 40,000 coordinates: the share's deviation over the stated sensitivity.

    Without a rotation 8 bits of 40,000 coordinates reach far beyond the clip norm.
    """
    n = 40_000
    plan = compressed(127, dimension=n, rounding="stochastic", bits=8)
    assert plan.sensitivity_grid == 163  # sqrt(127^2 + n/4 + ...), not 127
    model, place = np.zeros(n), ("run", 1, 1)
    draws = Draws(DeterministicRandomness(b"noise"), place, "s0", plan)
    noise = noised_update(plan, np.zeros(n), draws, released=model)
    deviation = float(noise.std())
    assert plan.noise is not None
    assert deviation == pytest.approx(float(plan.noise.stddev_grid), rel=5 / sqrt(2 * n))
    (term,) = plan.committed_event("s0").terms
    total = deviation * sqrt(plan.counted_shares)
    charged = float(term.mechanism.noise_multiplier)
    assert total / plan.sensitivity_grid == pytest.approx(charged, rel=5 / sqrt(2 * n))
    longest = 0.0
    for seed in range(20):
        update = np.random.default_rng(seed).normal(size=n) + 0.5
        sent = noised_update(plan, update, draws, released=model) - noise
        longest = max(longest, float(np.linalg.norm(sent)))
    assert 1.15 * 127 < longest <= plan.sensitivity_grid


def test_weights_multiply_what_was_encoded() -> None:
    plan = compressed(127, rounding="stochastic", bits=8, kept=20, rotation=True)
    sites = (SiteTerms(name="s0", records=5, weight=3), *plan.sites[1:])
    weighted = type(plan).model_validate({**plan.model_dump(), "sites": sites})
    model, place = np.zeros(40), ("run", 1, 1)
    draws = Draws(DeterministicRandomness(b"w"), place, "s0", weighted)
    noise = noised_update(weighted, np.zeros(40), draws, released=model)
    for seed in range(50):
        update = np.random.default_rng(seed).normal(size=40)
        before = update.tobytes()
        sent = noised_update(weighted, update, draws, released=model) - noise
        assert update.tobytes() == before  # what is computed in place is never the caller's
        assert sent.shape == (32,)
        assert (sent % 3 == 0).all()
        assert 0 < np.linalg.norm(sent) <= 3 * weighted.sensitivity_grid
        assert np.abs(sent).max() + np.abs(noise).max() <= weighted.upload_bound


@pytest.mark.parametrize("mask", ["random-k", "top-k"])
def test_masked_sums_line_up_when_a_site_drops_out(tmp_path: Path, mask: str) -> None:
    world = Simulation(tmp_path, dropouts=1, compression={"kept": 3, "mask": mask})
    for i, name in enumerate(NAMES):
        world.learners[name].values = np.array([1, 10, 100], dtype=np.int64) * (i + 1)
    world.wire.answers["east"] = lambda frame: None
    outcome = world.round()
    assert outcome.outcome == "opened", outcome.reason
    assert outcome.survivors == ("north", "south", "west")
    found = transform_of(world.plan, ("run-1", 1, 1), np.zeros(5)).mask
    assert found is not None
    factor = -world.plan.unit_per_grid / world.plan.divisor(outcome.survivors)
    expected = np.zeros(5)
    expected[found.indices] = np.array([8.0, 80.0, 800.0]) * float(factor) * found.factors
    assert outcome.update is not None
    np.testing.assert_allclose(outcome.update, expected, rtol=1e-15)
