"""Chooses the credit benchmark's hyperparameters on synthetic card holders, never on real ones.

    python -m tests.benchmarks.synthetic_credit [--worlds 8] [--draws 1] [--seed 1]

Draws data sets of the declared size. What is put in is what the columns' public description says
(amounts in New Taiwan dollars, payment status from -2 to 8 months of delay, UCI "Default of Credit
Card Clients") and what is generally known of credit: delays persist from month to month, a recent
delay speaks for default more than anything else, higher limits go with lower risk, amounts spread
over orders of magnitude. Every data set has its own strength of each effect and its own share of
defaults.

On each, the benchmark's mechanism is simulated in plain numpy: full batches, so T rounds are one
Gaussian mechanism with noise multiplier sigma / sqrt(T), exactly. The table shows the AUC on fresh
card holders for three ways to declare the columns and for clip, rate and length of training. One
recipe has to serve every epsilon, so the choice is minimax regret, as in `synthetic_heart.py`:
`Recipe` below is what `--worlds 8 --draws 1 --seed 1` puts last.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log1p
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from privagg.training.measures import roc_auc
from privagg.training.table import TableSchema
from privagg.training.targets import Target
from tests.benchmarks.synthetic_heart import gaussian_noise_multiplier

Floats = npt.NDArray[np.float64]

RECORDS, FRESH = 24_000, 6_000
DELTA = 1e-5
EPSILONS = (0.1, 1.0, 10.0)

MONTHS = (0, 2, 3, 4, 5, 6)  # the data set's own numbering of payment status
DELAYS = tuple(range(-2, 9))
UNIT = 1_000.0  # a thousand New Taiwan dollars, about 30 US dollars: a small amount


def _log_range(low: float, high: float, span: float) -> dict[str, Any]:
    """An amount on the logarithmic scale; `span` is the amount that encodes to 1."""
    scale = log1p(max(abs(low), high) / UNIT) / log1p(span / UNIT)
    return {"transform": "signed-log", "log_unit": UNIT, "range": [low, high], "scale": scale}


def declarations(encoding: str) -> list[dict[str, Any]]:
    """The columns as a configuration declares them.

    Args:
        encoding: `log-categories` (amounts by logarithm, payment status by category),
            `range-categories` (amounts straight) or `range-numbers` (status as a number too).
    """
    people: list[dict[str, Any]] = [
        {"name": "sex", "categories": [1, 2], "drop_first": True},
        {"name": "education", "categories": [4, 1, 2, 3], "drop_first": True},
        {"name": "marriage", "categories": [3, 1, 2], "drop_first": True},
        {"name": "age", "range": [20, 70]},
    ]
    limit: dict[str, Any] = {"range": [0, 500_000]}
    bill: dict[str, Any] = {"range": [0, 500_000]}
    paid: dict[str, Any] = {"range": [0, 50_000]}
    status: dict[str, Any] = {"range": [-2, 4]}
    if encoding.startswith("log"):
        limit = {"transform": "signed-log", "log_unit": UNIT, "range": [10_000, 1_000_000]}
        bill = _log_range(-2_000_000, 2_000_000, 500_000)
        paid = {"transform": "signed-log", "log_unit": UNIT, "range": [0, 100_000]}
    if encoding.endswith("categories"):
        # "Paid in part" (0) is the usual state and encodes as all zero.
        status = {"categories": [0, *(d for d in DELAYS if d != 0)], "drop_first": True}
    return [
        *people,
        {"name": "limit_bal", **limit},
        *({"name": f"bill_amt{i}", **bill} for i in range(1, 7)),
        *({"name": f"pay_amt{i}", **paid} for i in range(1, 7)),
        *({"name": f"pay_{month}", **status} for month in MONTHS),
    ]


@dataclass(frozen=True)
class Recipe:
    """Full-batch DP gradient descent with momentum on the logistic loss, from zero weights."""

    encoding: str = "log-categories"
    rounds: int = 40
    clip_norm_l2: float = 2.0
    learning_rate: float = 0.25
    momentum: float = 0.9


def draw_card_holders(rng: np.random.Generator, records: int) -> pd.DataFrame:
    """Draws one data set of synthetic card holders with their defaults."""
    risk, need = rng.standard_normal(records), rng.standard_normal(records)
    columns: dict[str, npt.NDArray[Any]] = {
        "limit_bal": _limits(rng, risk),
        "sex": 1 + (rng.random(records) < 0.6),
        "education": rng.choice([1, 2, 3, 4], records, p=[0.35, 0.45, 0.17, 0.03]),
        "marriage": rng.choice([1, 2, 3], records, p=[0.45, 0.53, 0.02]),
        "age": np.clip(21 + rng.gamma(3, 5, records), 21, 79),
    }
    columns |= _payment_status(rng, risk, need)
    columns |= _amounts(rng, risk, need, columns["limit_bal"])
    score = rng.uniform(0.5, 1.1) * risk
    score += rng.uniform(0.4, 1.0) * (columns["pay_0"] >= 1)
    score += rng.uniform(0.0, 0.3) * (columns["pay_2"] >= 1)
    threshold = np.quantile(score, rng.uniform(0.6, 0.9)) + 0.5
    columns["default"] = rng.random(records) < 1 / (1 + np.exp(threshold - score))
    return pd.DataFrame(columns).astype({"default": int})


def _limits(rng: np.random.Generator, risk: Floats) -> Floats:
    typical = np.exp(rng.normal(11.7, 0.2) - 0.3 * risk + 0.8 * rng.standard_normal(len(risk)))
    return np.asarray(np.clip(np.round(typical, -4), 10_000, 1_000_000))


def _payment_status(
    rng: np.random.Generator, risk: Floats, need: Floats
) -> Mapping[str, npt.NDArray[Any]]:
    """Months of delay: a persistent state that grows from risk, oldest month first."""
    state, found = 0.6 * risk + 0.5 * need, {}
    for month in reversed(MONTHS):
        state = 0.8 * state + 0.6 * rng.standard_normal(len(risk)) + 0.1 * risk
        level = np.digitize(state, [-0.9, -0.3, 1.0, 1.3]) - 2
        found[f"pay_{month}"] = np.where(
            state > 2.3, np.minimum(8, np.round(state + 0.8)), level
        ).astype(int)
    return found


def _amounts(
    rng: np.random.Generator, risk: Floats, need: Floats, limit: Floats
) -> Mapping[str, Floats]:
    """Six months' bills, a share of the limit that drifts, and payments towards them."""
    records, found = len(risk), {}
    bill = limit / (1 + np.exp(-1.5 * need))
    for month in range(6, 0, -1):
        bill = np.maximum(-5_000, bill * np.exp(0.25 * rng.standard_normal(records)))
        found[f"bill_amt{month}"] = np.round(bill * (rng.random(records) > 0.08))
        paid = 0.03 * limit * np.exp(rng.standard_normal(records) - 0.2 * risk)
        nothing = rng.random(records) < 0.2 + 0.1 * (risk > 0)
        found[f"pay_amt{month}"] = np.round(np.where(nothing, 0, paid))
    return found


def encode(table: pd.DataFrame, encoding: str) -> tuple[Floats, Floats]:
    """Encodes by the declarations: (records, width + 1), last the bias's 1; and labels 0 or 1."""
    schema = TableSchema.model_validate(
        {
            "features": declarations(encoding),
            "target": Target(name="default", positive="== 1").model_dump(),
        }
    )
    x, y = schema.encode(table)
    return np.column_stack([x, np.ones(len(x))]).astype(np.float64), y.astype(np.float64)


def train(
    rng: np.random.Generator, x: Floats, y: Floats, recipe: Recipe, noise_multiplier: float
) -> Floats:
    """Trains under one draw of the noise: weights, shape (width + 1,)."""
    clip = recipe.clip_norm_l2
    stddev = noise_multiplier * np.sqrt(recipe.rounds) * clip
    norms = np.linalg.norm(x, axis=1)
    weights = np.zeros(x.shape[1])
    velocity = np.zeros_like(weights)
    for _ in range(recipe.rounds):
        residuals = 1 / (1 + np.exp(-x @ weights)) - y
        residuals *= np.minimum(1, clip / np.maximum(np.abs(residuals) * norms, 1e-12))
        noisy_mean = (residuals @ x + stddev * rng.standard_normal(len(weights))) / len(y)
        velocity = recipe.momentum * velocity + noisy_mean
        weights = weights - recipe.learning_rate * velocity
    return weights


def candidates() -> list[Recipe]:
    """The recipes compared: each declaration, then clip, rate, momentum and length."""
    base = Recipe()
    grid = [replace(base, encoding=e) for e in ("range-categories", "range-numbers")]
    grid += [
        replace(base, encoding=e, clip_norm_l2=1.0, learning_rate=1.0)
        for e in ("range-categories", "range-numbers")
    ]
    grid += [
        replace(base, clip_norm_l2=clip, learning_rate=rate)
        for clip in (0.5, 1.0, 2.0)
        for rate in (0.25, 1.0, 4.0)
    ]
    grid += [replace(base, rounds=20), replace(base, rounds=80)]
    grid += [replace(base, momentum=0.0, learning_rate=rate) for rate in (1.0, 10.0)]
    return grid


def main() -> None:
    """Prints the tuning table, the least worst regret last."""
    parser = argparse.ArgumentParser(description="tune the credit recipe on synthetic data")
    parser.add_argument("--worlds", type=int, default=8, help="synthetic data sets")
    parser.add_argument("--draws", type=int, default=1, help="noise draws for each")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    rng = np.random.default_rng(arguments.seed)
    worlds = [draw_card_holders(rng, RECORDS + FRESH) for _ in range(arguments.worlds)]
    grid = candidates()
    table = np.array([_aucs(rng, worlds, recipe, arguments.draws) for recipe in grid])
    regret = (table.max(axis=0) - table).max(axis=1)
    header = "  ".join(f"eps={epsilon:<4g}" for epsilon in EPSILONS)
    print(f"{'encoding':18}{'rounds':>7}{'clip':>6}{'rate':>6}{'mom.':>6}   {header}  worst regret")
    for index in np.argsort(-regret):
        recipe = grid[index]
        figures = "  ".join(f"{value:8.4f}" for value in table[index])
        print(
            f"{recipe.encoding:18}{recipe.rounds:7d}{recipe.clip_norm_l2:6.2f}"
            f"{recipe.learning_rate:6.2f}{recipe.momentum:6.2f}   {figures}  {regret[index]:12.4f}"
        )


def _aucs(
    rng: np.random.Generator, worlds: list[pd.DataFrame], recipe: Recipe, draws: int
) -> Floats:
    """Mean AUC on fresh card holders over data sets and noise draws, one entry per epsilon."""
    found = []
    for world in worlds:
        x, y = encode(world, recipe.encoding)
        fresh, truth = x[RECORDS:], y[RECORDS:] == 1
        for _ in range(draws):
            weights = [
                train(rng, x[:RECORDS], y[:RECORDS], recipe, gaussian_noise_multiplier(e, DELTA))
                for e in EPSILONS
            ]
            found.append([roc_auc(fresh @ each, truth) or 0.5 for each in weights])
    return np.asarray(np.mean(found, axis=0))


if __name__ == "__main__":
    main()
