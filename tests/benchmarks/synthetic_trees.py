"""Chooses the constants of boosted trees on synthetic tables, never on real ones.

    python -m tests.benchmarks.synthetic_trees [--worlds 6] [--seed 77] [--records 24000]

The tables are those of `synthetic_scorecard.py`. The openings are simulated on the program's own
functions: sums in floats, Gaussian noise of the multiplier that the budget's part has. Printed is,
for each setting and epsilon, the mean AUC on fresh records. `asked.SIZES` and the constants of
`growing` are what came first or next to it, where `together` times `rate` is at most 1: trees of
one opening do not see each other, and beyond about 2 their steps overshoot (16 trees at a rate of
0.2 lose 0.03, 4 and 8 lose nothing).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import sqrt

import numpy as np

from privagg.programs.trees.asked import SIZES, Size
from privagg.programs.trees.growing import State, grown, likeness, started
from privagg.programs.trees.losses import Learnt, TwoClasses
from privagg.programs.trees.structure import Forest
from privagg.training.measures import roc_auc
from privagg.training.targets import Target
from tests.benchmarks.synthetic_heart import gaussian_noise_multiplier
from tests.benchmarks.synthetic_scorecard import DELTA, Floats, World, worlds

BINS = 16
EPSILONS = (0.1, 0.5, 1.0, 4.0)
LOSS = TwoClasses(Target(name="y", positive="== 1"))

SETTINGS: Sequence[Size] = (
    *(size for _, size in SIZES),
    Size(240, 6, 8, 0.1, 0.2, 0.4),
    Size(240, 6, 16, 0.1, 0.2, 0.4),
    Size(240, 6, 4, 0.4, 0.2, 0.4),
    Size(240, 6, 4, 0.1, 0.12, 0.4),
    Size(240, 6, 4, 0.1, 0.2, 0.25),
    Size(240, 4, 4, 0.1, 0.2, 0.4),
    Size(120, 6, 4, 0.1, 0.3, 0.4),
    Size(480, 6, 4, 0.1, 0.12, 0.4),
    Size(60, 5, 4, 0.7, 0.2, 0.2),
    Size(60, 4, 4, 0.5, 0.4, 0.2),
    Size(24, 4, 4, 0.7, 0.4, 0.2),
    Size(8, 3, 4, 0.9, 0.4, 0.1),
)


def learnt(world: World, count: int) -> Learnt:
    """Records as trees read them."""
    y, there = world.records.labels[:count], world.records.counted[:count]
    return Learnt(world.records.codes[:, :count], np.stack([1 - y, y]) * there, y[None], there)


def summed(places: Floats, values: Floats, leaves: int) -> Floats:
    """By leaf, float64 (K, L)."""
    return np.stack([np.bincount(places, each, leaves) for each in values])


def area(world: World, size: Size, epsilon: float, count: int, seed: int) -> float:
    """AUC on fresh records of trees with one draw of the noise and of the questions."""
    draw, sigma = np.random.default_rng(seed), gaussian_noise_multiplier(epsilon, DELTA)
    some, blocks = learnt(world, count), world.blocks
    forest = Forest.drawn(blocks, size.trees, size.depth, seed)
    stddev = sigma / sqrt(size.start) * sqrt(len(blocks))
    counts = [
        summed(codes, some.cells, block.size)
        for block, codes in zip(blocks, some.codes, strict=True)
    ]
    opened = np.concatenate(counts, axis=1)
    first = started(blocks, LOSS, opened + draw.normal(0, stddev, opened.shape), stddev)
    state = State(first.base, first.effects, np.zeros((size.trees, 1, forest.leaves)))
    scores = state.scores(forest, blocks, some.codes, 0)
    noise = sigma**2 * size.trees / (1 - size.start)
    prior = size.prior**2 * likeness(size.depth)
    for at in range(0, size.trees, size.together):
        gradient, curvature = LOSS.rows(state.base, scores, some)
        for tree, places in enumerate(forest.places(some.codes, at, at + size.together), at):
            units = (gradient / LOSS.gradient, curvature / LOSS.curvature)
            g, h = (summed(places, each, forest.leaves) for each in units)
            g = g + sqrt(noise) / LOSS.gradient * draw.standard_normal(g.shape)
            h = h + sqrt(noise) / LOSS.curvature * draw.standard_normal(h.shape)
            state.leaves[tree] = size.rate * grown(g, h, noise, LOSS.spread, prior).leaves
            scores = scores + state.leaves[tree][:, places]
    found = state.scores(forest, blocks, world.fresh.codes, size.trees)[0]
    return roc_auc(found, world.fresh.labels == 1) or 0.5


def main() -> None:
    """Compare and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--worlds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--records", type=int, default=24_000)
    parser.add_argument("--epsilons", type=float, nargs="+", default=EPSILONS)
    args = parser.parse_args()
    made = list(worlds(args.worlds, args.seed, BINS))
    for epsilon in args.epsilons:
        for size in SETTINGS:
            found = [
                area(world, size, epsilon, args.records, number)
                for number, world in enumerate(made)
            ]
            each = " ".join(f"{one:.4f}" for one in found)
            print(f"epsilon {epsilon:g}  {np.mean(found):.4f}  {size}  {each}", flush=True)


if __name__ == "__main__":
    main()
