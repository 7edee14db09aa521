"""Accuracy of private training against stock Opacus, both tuned by the same rule.

    python -m tests.benchmarks.opacus_accuracy --json out/accuracy.json [--only cnn] [--epsilon 8]

Handwritten digits (scikit-learn's 1,797 images of 8 x 8, public), an MLP and a CNN at ε = 1, 3 and
8. Ours: two sites with half of the records each, engine `exact` at the plan's default grid, the
learners' real contributions added as integers in the clear, as every scheme opens them. Opacus:
its PrivacyEngine on all records in one place, Poisson sampling, its own accountant. Same models,
initial parameters, splits, sampling rate and number of steps. Clip and learning rate are those of
the same small grid that did best on other seeds than those reported, for each by itself. A row
holds where our mean is at least Opacus' less one standard error of the mean difference, seed by
seed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

import numpy as np
import torch
from opacus import PrivacyEngine
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from privagg.encoding.planned import decode_sum
from privagg.privacy.accountants import default_accountant
from privagg.privacy.calibration import calibrate
from privagg.privacy.plan import DistributedPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.learners import make_learner
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule, ModelSpec
from privagg.training.evaluate import evaluate
from privagg.training.models import build_model, get_parameters
from privagg.training.rehearsal import require_model_apart
from privagg.training.torch_state import deterministic_torch
from tests.benchmarks.tables import Row, show, write_json

TEST_IMAGES = 357
EPOCHS, RATE, DELTA = 10, "0.1", "1e-5"
STEPS = EPOCHS * 10
ROWS = 176
TUNED_ON, REPORTED = range(100, 105), range(10)
GRID = tuple(itertools.product((0.5, 1.0), (1.0, 2.0, 4.0)))
"""Clip and learning rate."""

EPSILONS = ("1", "3", "8")

MODELS = {
    "mlp": (ModelSpec(kind="mlp", hidden=(64,)), (64,)),
    "cnn": (ModelSpec(kind="cnn", channels=(8, 16)), (1, 8, 8)),
}


@dataclass(frozen=True)
class Trial:
    """One training run."""

    model: str
    epsilon: str
    seed: int
    clip: float
    rate: float

    def build(self) -> nn.Module:
        """The model with the seed's initial parameters."""
        spec, shape = MODELS[self.model]
        return build_model(spec, shape, 10, seed=self.seed)

    def split(self) -> tuple[TensorRecords, TensorRecords]:
        """The seed's records to train with and to test on."""
        bunch, shape = load_digits(), MODELS[self.model][1]
        order = np.random.default_rng(self.seed).permutation(len(bunch.target))
        x = torch.tensor(bunch.data[order] / 16, dtype=torch.float32).reshape(-1, *shape)
        y = torch.tensor(bunch.target[order])
        test = TensorRecords(x[:TEST_IMAGES], y[:TEST_IMAGES], public=True)
        return TensorRecords(x[TEST_IMAGES:], y[TEST_IMAGES:]), test


@cache
def plan_of(model: str, epsilon: str, clip: float, records: tuple[int, int]) -> DistributedPlan:
    """Two sites that trust each other's noise share, at the default grid."""
    trial = Trial(model, epsilon, 0, clip, 1)
    plan = DistributedPlan.model_validate({
        "sites": [{"name": n, "records": r} for n, r in zip("ab", records, strict=True)],
        "dimension": len(get_parameters(trial.build())), "rounds": STEPS, "sampling_rate": RATE,
        "clip_norm_l2": Decimal(str(clip)), "noise_multiplier": Decimal(1), "colluders": 0,
        "delta": Decimal(DELTA), "custody": "authority", "scheme": "bfv",
    })  # fmt: skip
    found = calibrate(
        lambda noise: plan.with_noise(noise).total_committed("a"),
        epsilon=Decimal(epsilon), delta=plan.delta, accountant=default_accountant(),
    )  # fmt: skip
    return plan.with_noise(found)


@cache
def _tested(model: str, steps: int) -> object:
    build, shape = Trial(model, "1", 0, 1, 1).build, MODELS[model][1]
    return require_model_apart(build(), shape, ROWS, engine="exact", sensitivity_grid=steps)


def ours(trial: Trial) -> float:
    """Test accuracy of a model that two sites trained."""
    train, test = trial.split()
    halves = [TensorRecords(train.x[i::2], train.y[i::2]) for i in range(2)]
    plan = plan_of(trial.model, trial.epsilon, trial.clip, (len(halves[0]), len(halves[1])))
    tested = _tested(trial.model, plan.sensitivity_grid)
    learners = [
        make_learner(
            plan, site, model=trial.build(), records=half,
            rule=ClientRule(physical_batch=ROWS, engine="exact"), tested=tested,  # type: ignore[arg-type]
        )
        for site, half in zip("ab", halves, strict=True)
    ]  # fmt: skip
    randomness = DeterministicRandomness(trial.seed)
    parameters = get_parameters(trial.build())
    for number in range(1, STEPS + 1):
        place = (f"seed-{trial.seed}", number, 1)
        sums = [one.contribution(parameters, randomness, place) for one in learners]
        update = decode_sum(plan, place, parameters, sums[0] + sums[1], plan.names)
        parameters = parameters + trial.rate * update  # already downhill
    return float(evaluate(trial.build(), parameters, test).figures["accuracy"])


def stock(trial: Trial) -> float:
    """Test accuracy of a model that Opacus trained, by its own documentation."""
    train, test = trial.split()
    torch.manual_seed(1000 + trial.seed)  # not the numbers that the parameters were drawn from
    model = trial.build().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.rate)
    loader = DataLoader(TensorDataset(train.x, train.y), batch_size=len(train) // 10)
    private, optimizer, loader = PrivacyEngine(accountant="prv").make_private_with_epsilon(
        module=model, optimizer=optimizer, data_loader=loader, epochs=EPOCHS,
        target_epsilon=float(trial.epsilon), target_delta=float(DELTA), max_grad_norm=trial.clip,
        poisson_sampling=True,
    )  # fmt: skip
    for _ in range(EPOCHS):
        for x, y in loader:
            optimizer.zero_grad()
            functional.cross_entropy(private(x), y).backward()
            optimizer.step()
    return float(evaluate(trial.build(), get_parameters(model), test).figures["accuracy"])


def tuned(train: Callable[[Trial], float], model: str, epsilon: str) -> tuple[float, float]:
    """The clip and learning rate with the best mean accuracy on the seeds for tuning."""

    def mean(pair: tuple[float, float]) -> float:
        return float(np.mean([train(Trial(model, epsilon, seed, *pair)) for seed in TUNED_ON]))

    return max(GRID, key=mean)


def rows(only: str, epsilons: Sequence[str]) -> Iterator[Row]:
    """Both at every epsilon, with what each was tuned to."""
    for model, epsilon in itertools.product(MODELS, epsilons):
        if only not in model:
            continue
        found = {}
        row: Row = {"model": model, "epsilon": epsilon, "seeds": len(REPORTED)}
        for name, train in {"ours": ours, "opacus": stock}.items():
            clip, rate = tuned(train, model, epsilon)
            found[name] = np.array([train(Trial(model, epsilon, s, clip, rate)) for s in REPORTED])
            row |= {name: float(found[name].mean()), f"{name}_tuned": f"{clip:g}, {rate:g}"}
        away = found["ours"] - found["opacus"]
        error = float(away.std(ddof=1) / np.sqrt(len(away)))
        holds = bool(away.mean() >= -error)
        yield {**row, "standard_error": error, "holds": holds}


def main(words: Sequence[str] | None = None) -> int:
    """Train, print and write; 0 where every row holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--only", default="", help="models whose name has this in it")
    parser.add_argument("--epsilon", nargs="+", choices=EPSILONS, default=EPSILONS)
    asked = parser.parse_args(words)
    warnings.simplefilter("ignore")  # Opacus on secure_mode and hooks
    with deterministic_torch():
        found = []
        for row in rows(asked.only, asked.epsilon):
            found.append(row)
            write_json(asked.json, found)
    columns = {
        "model": "model", "ε": "epsilon", "ours": lambda r: f"{r['ours']:.4f}",
        "clip, rate": "ours_tuned", "Opacus": lambda r: f"{r['opacus']:.4f}",
        "its clip, rate": "opacus_tuned",
        "standard error": lambda r: f"{r['standard_error']:.4f}",
        "holds": lambda r: "yes" if r["holds"] else "NO",
    }  # fmt: skip
    show("Test accuracy on digits, mean over seeds", columns, found)
    return 0 if all(row["holds"] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
