"""Class logits: against the recursion in plain torch, their one clip, and what noise leaves."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from privagg.errors import ModelError
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.class_logits import ClassLogits
from privagg.programs.learners import make_learner, make_training
from privagg.programs.optimizers import OptimizerSpec
from privagg.programs.program import Opened
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.local_sgd import LARGEST_LOGIT, keep_home
from privagg.training.losses import class_loss
from privagg.training.objective import Objective
from privagg.training.targets import NumberedClasses, Regression
from privagg.training.taught import Taught
from tests.programs.rounds import trained

SIZES = {"a": 60, "b": 40, "c": 25}
STEPS, RATE, PULL, ROUNDS = 5, 0.3, 0.7, 4
TARGET = NumberedClasses(count=3)
SPEC = AlgorithmSpec(kind="class-logits", strength=PULL)


def network(site: str) -> nn.Module:
    """Another architecture at each site."""
    torch.manual_seed(SIZES[site])
    if site == "a":
        return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3))
    return nn.Linear(2, 3) if site == "b" else nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))


def records(site: str) -> TensorRecords:
    """Site c has no record of class 2."""
    draw = np.random.default_rng(SIZES[site])
    x = draw.standard_normal((SIZES[site], 2))
    y = np.digitize(x.sum(axis=1), [-0.7, 0.7])
    return TensorRecords.of(x, np.minimum(y, 1) if site == "c" else y)


def plan_of(**more: Any) -> ClientPlan:
    facts: dict[str, Any] = {
        "sites": [{"name": name, "records": size} for name, size in SIZES.items()],
        "dimension": 12, "rounds": ROUNDS, "clip_norm_l2": Decimal(3), "sensitivity_grid": 2**24,
        "noise_multiplier": Decimal(0), "delta": Decimal("1e-5"), "custody": "authority",
        "scheme": "plaintext",
    }  # fmt: skip
    return ClientPlan(**{**facts, **more})


def taught(site: str) -> Taught:
    model = Taught(network(site), TARGET)
    keep_home(model, SPEC.personal)
    return model


def learners(plan: ClientPlan) -> dict[str, Any]:
    rule = ClientRule(steps=STEPS, learning_rate=RATE, batch_size=64, algorithm=SPEC)
    return {
        site: make_learner(
            plan, site, model=taught(site), records=records(site), rule=rule,
            objective=Objective(class_loss),
        )
        for site in SIZES
    }  # fmt: skip


def coordinator(plan: ClientPlan) -> ClassLogits:
    program = make_training(
        plan, SPEC, model=taught("a"), optimizer=OptimizerSpec(), public=None, target=TARGET,
        loss=class_loss, card={},
    )  # fmt: skip
    assert isinstance(program, ClassLogits)
    return program


def by_hand() -> tuple[np.ndarray, dict[str, nn.Module]]:
    """The papers' recursion: logits by class, weighted by how many records each site has of it."""
    table, seen = torch.zeros(3, 3), torch.zeros(3)
    own = {site: network(site) for site in SIZES}
    for _ in range(ROUNDS):
        sums, shares = torch.zeros(3, 3), torch.zeros(3)
        for site, model in own.items():
            held = records(site)
            for _ in range(STEPS):
                z = model(held.x)
                apart = 0.5 * ((z - table[held.y]) ** 2).mean(1) * (seen[held.y] > 0)
                loss = functional.cross_entropy(z, held.y) + PULL * apart.mean()
                slopes = torch.autograd.grad(loss, list(model.parameters()))
                with torch.no_grad():
                    for weight, slope in zip(model.parameters(), slopes, strict=True):
                        weight.sub_(RATE * slope)
            with torch.no_grad():
                z, hot = model(held.x), functional.one_hot(held.y, 3).float() / len(held)
            sums += hot.T @ z / len(own)
            shares += hot.sum(0) / len(own)
        table, seen = sums / shares[:, None], shares
    return torch.cat([table, seen[:, None]], 1).numpy(), own


def test_three_architectures_share_logits_as_the_paper_says() -> None:
    plan = plan_of()
    sites = learners(plan)
    found = trained(plan, sites, coordinator(plan), DeterministicRandomness(7)).reshape(3, 4)
    table, own = by_hand()
    np.testing.assert_allclose(found, table, atol=2e-5)
    for site, model in own.items():
        kept = sites[site].home.load("run", ROUNDS + 1)
        for name, weight in model.named_parameters():
            np.testing.assert_allclose(kept[f"network.{name}"], weight.detach(), atol=2e-5)


def test_logits_and_shares_pass_one_clip_whatever_the_network_says() -> None:
    plan = plan_of(clip_norm_l2=Decimal("0.25"))
    sites = learners(plan)
    state, place = coordinator(plan).begin(), ("run", 1, 1)
    for site in SIZES:
        sent = sites[site].contribution(state, DeterministicRandomness(1), place)
        assert sum(int(z) ** 2 for z in sent) <= plan.sensitivity_grid**2
        assert sum(int(z) ** 2 for z in sent) > 0.98 * plan.sensitivity_grid**2
        sent = sites[site].contribution(np.full(12, 1e30), DeterministicRandomness(1), place)
        assert sum(int(z) ** 2 for z in sent) <= plan.sensitivity_grid**2


def test_a_class_that_noise_hides_keeps_the_logits_that_it_had() -> None:
    noised = plan_of(noise_multiplier=Decimal("0.01"), clip_norm_l2=Decimal(1))
    program, place = coordinator(noised), ("run", 1, 1)
    before = np.arange(12.0)
    update = np.array([[0.1, -0.2, 5, 0.4], [1, 1, 1, 0.0001], [np.pi, 0, 0, -0.3]])
    opened = Opened(place, np.zeros(12, np.int64), update.ravel(), tuple(SIZES))
    after = program.fold(before, opened).reshape(3, 4)
    expected = LARGEST_LOGIT * np.array([0.25, -0.5, 1])
    np.testing.assert_allclose(after[0], [*expected, 0.4])
    np.testing.assert_array_equal(after[1:], before.reshape(3, 4)[1:])


def test_what_has_no_classes_and_other_parts_at_home_are_refused() -> None:
    with pytest.raises(ModelError, match="has no classes"):
        Taught(nn.Linear(2, 1), Regression(name="cost", kind="regression", range=(0, 9)))
    with pytest.raises(ValueError, match="remove 'personal'"):
        AlgorithmSpec(kind="class-logits", personal=("table",))
    assert AlgorithmSpec.model_validate(SPEC.model_dump()) == SPEC
