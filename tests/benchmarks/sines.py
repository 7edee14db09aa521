"""Sine regression: how well an initialisation is adapted to a new sine in five gradient steps.

MAML's setting (Finn, Abbeel & Levine 2017, section 5.1): a task is a sine of amplitude within
[0.1, 5] and phase within [0, π]; inputs are uniform on [-5, 5]; a network of two hidden layers of
40 rectified units; adapted to 10 points by steps of SGD at 0.01, and the mean squared error over
[-5, 5] is told. A site is a task: 100 of them with 100 records each, 10 asked in a round, where
MAML draws 70,000 batches of 25 new tasks each.

`reptile` takes plain local steps, `per-fedavg` MAML's, ten of each a round with batches of 10. The
oracle is plain torch, all tasks of a round at once, on the same tasks with batches of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.learners import make_learner, make_training
from privagg.programs.optimizers import OptimizerSpec
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.models import get_parameters, set_parameters
from privagg.training.targets import NumberedClasses
from tests.benchmarks.tables import Row
from tests.programs.rounds import trained

TASKS, RECORDS, ASKED, STEPS, BATCH = 100, 100, 10, 10, 10
SHOTS, ADAPTED, NEW, INNER = 10, 5, 200, 0.01
ROUNDS = 150
RATES = {"reptile": 0.02, "per-fedavg": 0.01}
Parameters = dict[str, torch.Tensor]


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1)
    )


def sines(seed: Sequence[int], tasks: int, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and values, each float32 (tasks, points, 1)."""
    draw = np.random.default_rng(seed)
    height, phase = draw.uniform(0.1, 5, (tasks, 1, 1)), draw.uniform(0, math.pi, (tasks, 1, 1))
    x = draw.uniform(-5, 5, (tasks, points, 1))
    return torch.tensor(x).float(), torch.tensor(height * np.sin(x - phase)).float()


def errors(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((outputs - y) ** 2).reshape(len(y), -1).mean(1)


def adapted_error(model: nn.Module, seed: int) -> float:
    """The mean squared error over new sines, each after its own steps on its own points."""
    x, y = sines((2, seed), NEW, SHOTS + 100)
    start = dict(model.named_parameters())

    def one(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        moved = start
        for _ in range(ADAPTED):
            moved = _step(model, moved, x[:SHOTS], y[:SHOTS], INNER)
        return errors(functional_call(model, moved, (x[SHOTS:],)), y[SHOTS:]).mean()

    return float(vmap(one)(x, y).mean().detach())


def _step(
    model: nn.Module, at: Parameters, x: torch.Tensor, y: torch.Tensor, rate: float
) -> Parameters:
    slopes = grad(lambda p: errors(functional_call(model, p, (x,)), y).mean())(at)
    return {name: at[name] - rate * slopes[name] for name in at}


def oracle(kind: str, seed: int, rounds: int) -> float:
    """Reptile's and Per-FedAvg's papers in plain torch."""
    model, draw = network(seed), np.random.default_rng((3, seed))
    x, y = sines((1, seed), TASKS, RECORDS)
    at = {name: p.detach() for name, p in model.named_parameters()}
    several = vmap(local_step(model, kind))
    size = BATCH * (1 if kind == "reptile" else 2)
    for _ in range(rounds):
        tasks = draw.choice(TASKS, ASKED, replace=False)[:, None]
        own = {name: p.expand(ASKED, *p.shape) for name, p in at.items()}
        for _ in range(STEPS):
            some = np.stack([draw.choice(RECORDS, size, replace=False) for _ in range(ASKED)])
            own = several(own, x[tasks, some], y[tasks, some])
        at = {name: p.mean(0) for name, p in own.items()}
    model.load_state_dict(at)
    return adapted_error(model, seed)


def local_step(model: nn.Module, kind: str) -> Callable[..., Parameters]:
    """One step at a site, of its own parameters on its own points."""

    def meta(p: Parameters, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        moved = _step(model, p, x[:BATCH], y[:BATCH], INNER)
        return errors(functional_call(model, moved, (x[BATCH:],)), y[BATCH:]).mean()

    def local(p: Parameters, x: torch.Tensor, y: torch.Tensor) -> Parameters:
        if kind == "reptile":
            return _step(model, p, x, y, RATES[kind])
        slopes = grad(meta)(p, x, y)
        return {name: p[name] - RATES[kind] * slopes[name] for name in p}

    return local


def by_privagg(kind: str, seed: int, rounds: int) -> float:
    spec = AlgorithmSpec(kind="per-fedavg", inner_learning_rate=INNER)
    algorithm = spec if kind == "per-fedavg" else AlgorithmSpec()
    names = [f"s{number}" for number in range(TASKS)]
    plan = ClientPlan(
        sites=[{"name": name, "records": RECORDS} for name in names], rounds=rounds,
        cohort_size=ASKED, dimension=len(get_parameters(network(0))), clip_norm_l2=Decimal(50),
        sensitivity_grid=2**20, noise_multiplier=Decimal(0), delta=Decimal("1e-5"),
        custody="authority", scheme="plaintext",
    )  # fmt: skip
    rule = ClientRule(steps=STEPS, learning_rate=RATES[kind], batch_size=BATCH, algorithm=algorithm)
    x, y = sines((1, seed), TASKS, RECORDS)
    objective: Any = SimpleNamespace(loss=errors)
    learners = {
        name: make_learner(
            plan, name, model=network(seed), records=TensorRecords(x[task], y[task]), rule=rule,
            objective=objective,
        )
        for task, name in enumerate(names)
    }  # fmt: skip
    program = make_training(
        plan, algorithm, model=network(seed), optimizer=OptimizerSpec(), public=None,
        target=NumberedClasses(count=2), loss=errors, card={},
    )  # fmt: skip
    draw = np.random.default_rng((3, seed))
    orders = [sorted(draw.choice(TASKS, ASKED, replace=False)) for _ in range(rounds)]
    state = trained(
        plan, learners, program, DeterministicRandomness(seed),
        cohort=lambda number: tuple(names[task] for task in orders[number - 1]),
    )  # fmt: skip
    model = network(seed)
    set_parameters(model, program.released(state))
    return adapted_error(model, seed)


LONG = {"reptile": (10_000, STEPS), "per-fedavg": (70_000, 1)}
"""Rounds and local steps."""


def oracle_long(kind: str, seed: int) -> float:
    """The oracle with MAML's numbers: 25 new tasks a round, the server's step Adam's.

    Each round's mean update is the pseudo-gradient of Adam at 0.001, which `training.optimizer` is
    too; with one local step `per-fedavg` is MAML.
    """
    (rounds, steps), tasks = LONG[kind], 25
    model, draw = network(seed), np.random.default_rng((4, seed))
    local, size = vmap(local_step(model, kind)), BATCH * (1 if kind == "reptile" else 2)
    server = torch.optim.Adam(model.parameters(), lr=0.001)
    for number in range(rounds):
        x, y = sines((5, seed, number), tasks, size * steps)
        at = {name: p.detach() for name, p in model.named_parameters()}
        own = {name: p.expand(tasks, *p.shape) for name, p in at.items()}
        for some in np.split(draw.permutation(size * steps), steps):
            own = local(own, x[:, some], y[:, some])
        for name, p in model.named_parameters():
            p.grad = (at[name] - own[name].mean(0)) / RATES[kind]
        server.step()
    return adapted_error(model, seed)


def rows_of_long_sines(seeds: int) -> list[Row]:
    """Rows of `oracle_long`: what the algorithms reach with as many tasks as the papers'."""
    rows = list[Row]()
    for kind, (rounds, _) in LONG.items():
        found = np.array([oracle_long(kind, seed) for seed in range(seeds)])
        rows.append({
            "task": f"sines, {rounds} rounds of 25 new tasks", "algorithm": f"{kind}, plain torch",
            "epsilon": None, "metric": f"squared error after {ADAPTED} steps on {SHOTS} points",
            "value": float(found.mean()), "oracle": None,
            "se": float(found.std(ddof=1) / math.sqrt(seeds)) if seeds > 1 else 0.0,
        })  # fmt: skip
    return rows


def rows_of_sines(seeds: int, rounds: int = ROUNDS) -> list[Row]:
    """A row for each way to start: errors over seeds, beside the oracle's."""
    rows = list[Row]()
    ways: dict[str, Any] = {"random start": lambda _, seed, __: adapted_error(network(seed), seed)}
    ways |= dict.fromkeys(RATES, by_privagg)
    for kind, way in ways.items():
        found = np.array([way(kind, seed, rounds) for seed in range(seeds)])
        truth = [oracle(kind, seed, rounds) for seed in range(seeds)] if kind in RATES else None
        se = float(found.std(ddof=1) / math.sqrt(seeds)) if seeds > 1 else 0.0
        rows.append({
            "task": "sines", "algorithm": kind, "epsilon": None,
            "metric": f"squared error after {ADAPTED} steps on {SHOTS} points",
            "value": float(found.mean()), "se": se,
            "oracle": None if truth is None else float(np.mean(truth)),
        })  # fmt: skip
        print(rows[-1], found, truth, flush=True)
    return rows
