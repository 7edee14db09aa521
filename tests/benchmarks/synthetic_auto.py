"""Chooses what `[ask] program = "auto"` goes by: a scorecard, or a logistic model by gradients.

    python -m tests.benchmarks.synthetic_auto [--worlds 10] [--seed 31]

On the tables of `synthetic_scorecard.py`, of 300 to 6,000 records at epsilon 0.1, 1 and 4: the card
with what public facts choose for it, and the logistic model with proposed settings, trained by the
simulation that these come from (`propose.py`). Printed is by how much the AUC of each on fresh
records stays behind that of the other, by the noise of a bin (`noise_by_bin`), which public facts
tell. `MOST_NOISE` in `privagg.programs.choosing` is where the logistic model begins to lead; no
real table was looked at for it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise, product

import numpy as np

from privagg.config.proposal import expected_square, recipe_of
from privagg.programs.scorecard import adding
from privagg.programs.scorecard.asked import Asked, noise_by_bin
from privagg.training.measures import roc_auc
from tests.benchmarks import propose, synthetic_scorecard
from tests.benchmarks.synthetic_heart import gaussian_noise_multiplier
from tests.benchmarks.synthetic_scorecard import DELTA, Setting, World

SIZES, EPSILONS = (300, 600, 1500, 6000), (0.1, 1.0, 4.0)
VERSIONS = {1: Setting(1.0, 0.0, 0), 2: Setting(0.7, 0.3, 0), 8: Setting()}


def by_card(worlds: dict[int, World], records: int, epsilon: float, seed: int) -> float:
    """AUC of a scorecard whose openings and bins public facts choose.

    Args:
        worlds: bins of a column -> the table so read.
        records: that are learned from.
        epsilon: of the job.
        seed: of the noise.
    """
    schema = worlds[16].schema
    asked = Asked(data=schema).chosen(records, Fraction(epsilon), Fraction(DELTA))
    world = worlds[asked.bins or 8]
    whole = world.records
    fewer = adding.Learnt(whole.codes[:, :records], whole.labels[:records], whole.counted[:records])
    sigma = gaussian_noise_multiplier(epsilon, DELTA)
    small = replace(world, records=fewer)
    return synthetic_scorecard.tried(small, sigma, VERSIONS[asked.openings or 8], seed)


def by_gradients(world: World, records: int, epsilon: float, seed: int) -> float:
    """AUC of a logistic model with proposed settings.

    Args:
        world: the table.
        records, epsilon, seed: as for `by_card`.
    """
    fresh = world.frame.iloc[-synthetic_scorecard.FRESH :]
    parts = [world.schema.encode(each[world.schema.usable(each)])
             for each in (world.frame.iloc[:records], fresh)]  # fmt: skip
    x, y = (np.concatenate(each) for each in zip(*parts, strict=True))
    own = len(parts[0][1])
    square = float(expected_square(world.schema.features))
    table = propose.Table(np.column_stack([x, np.ones(len(x))]), y.astype(float), square, own)
    deviation = gaussian_noise_multiplier(epsilon, DELTA) / own
    level = deviation * np.sqrt(x.shape[1] + 1)
    recipe = recipe_of(Decimal(level), own)
    tried = propose.Recipes(
        recipe.centred,
        recipe.rounds,
        np.array([float(recipe.rate)]),
        np.array([float(recipe.clip)]),
    )
    weights = propose.train(np.random.default_rng(seed), table, tried, deviation)
    held, positive = table.fresh
    return roc_auc(held[:, :-1] @ weights[:, 0], positive) or 0.5


def main() -> None:
    """Compare and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=31)
    args = parser.parse_args()
    noises, leads = list[float](), list[float]()
    made = [synthetic_scorecard.worlds(args.worlds, args.seed, bins) for bins in (8, 16)]
    for number, both in enumerate(zip(*made, strict=True)):
        worlds = dict(zip((8, 16), both, strict=True))
        for records, epsilon in product(SIZES, EPSILONS):
            facts = (records, epsilon, 100 * number + records)
            noises.append(noise_by_bin(len(worlds[8].blocks), records, epsilon, DELTA))
            leads.append(by_card(worlds, *facts) - by_gradients(worlds[8], *facts))
    noise, lead = np.array(noises), np.array(leads)
    for low, high in pairwise((0, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2, 100)):
        some = lead[(noise >= low) & (noise < high)]
        if len(some):
            print(f"noise {low} to {high}, {len(some)} tables: the card leads by {some.mean():.4f} "
                  f"± {some.std() / len(some) ** 0.5:.4f}, in {(some > 0).mean():.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
