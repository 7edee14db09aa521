"""Chooses the scorecard's constants on synthetic tables, never on real ones.

    python -m tests.benchmarks.synthetic_scorecard [--worlds 6] [--seed 21]
    python -m tests.benchmarks.synthetic_scorecard --versions [--worlds 6] [--seed 11]

Half of the tables are the synthetic card holders of `synthetic_credit.py`. The others are drawn
from what tables generally are like: some hidden traits that several columns show, amounts that
spread over orders of magnitude and are often 0, codes with an order and without, gaps, effects that
are straight, bent or U-shaped, a few that need two columns at once.

On each, the openings are simulated on the scorecard's own functions: sums in floats and Gaussian
noise of the multiplier that the budget's part has. What is printed is, for each setting, the mean
and the largest regret in AUC on fresh records over tables and epsilons: how far it stays behind the
best of all settings on the same table at the same epsilon. The constants in
`privagg/programs/scorecard` are those that this put first; no real table was looked at for them.
With `--versions` it compares cards of one, two and eight openings from 600 to 24,000 records, by
the noise of a bin that follows from public facts (`noise_by_bin`): by it the version is chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import sqrt
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pandas as pd

from privagg.programs.questions.columns import Columns
from privagg.programs.scorecard import adding, fitting
from privagg.programs.scorecard.asked import Asked, blocks_of, noise_by_bin
from privagg.programs.tables.bins import Block, coded, offsets
from privagg.training.measures import roc_auc
from privagg.training.table import TableSchema
from tests.benchmarks.synthetic_credit import UNIT, draw_card_holders
from tests.benchmarks.synthetic_heart import gaussian_noise_multiplier

Floats = npt.NDArray[np.float64]

RECORDS, FRESH = 24_000, 6_000
DELTA = 1e-5
EPSILONS = (0.1, 0.5, 1.0, 4.0)


@dataclass(frozen=True)
class World:
    """A synthetic table, read.

    Attributes:
        schema: its public declaration.
        frame: its lines, those that are learned from first.
        blocks: of bins.
        records, fresh: what is learned from, and what is judged by.
    """

    schema: TableSchema
    frame: pd.DataFrame
    blocks: tuple[Block, ...]
    records: adding.Learnt
    fresh: adding.Learnt


CARD_HOLDERS: dict[str, Any] = {
    "features": [
        {"name": "sex", "categories": [1, 2]},
        {"name": "education", "categories": [1, 2, 3, 4]},
        {"name": "marriage", "categories": [1, 2, 3]},
        {"name": "age", "range": [20, 80]},
        {"name": "limit_bal", "transform": "signed-log", "log_unit": UNIT,
         "range": [10_000, 1_000_000]},
        *({"name": f"{kind}_amt{i}", "transform": "signed-log", "log_unit": UNIT,
           "range": [0, 1_000_000]} for kind in ("bill", "pay") for i in range(1, 7)),
        *({"name": f"pay_{month}", "categories": list(range(-2, 9))}
          for month in (0, 2, 3, 4, 5, 6)),
    ],
    "target": {"name": "default", "positive": "== 1"},
}  # fmt: skip
"""Card holders as a scorecard reads them: what is paid or owed from 0, delays in their order."""

DELAYS = tuple(f"pay_{month}" for month in (0, 2, 3, 4, 5, 6))


def card_holders(draw: np.random.Generator, bins: int) -> World:
    """A world of `synthetic_credit.py`."""
    frame = draw_card_holders(draw, RECORDS + FRESH)
    return read(frame, CARD_HOLDERS, {"bins": bins, "ordered": DELAYS})


def any_table(draw: np.random.Generator, bins: int) -> World:
    """A world of hidden traits."""
    count = RECORDS + FRESH
    traits = draw.standard_normal((count, int(draw.integers(2, 6))))
    features, columns, ordered = list[Any](), dict[str, Any](), list[str]()
    score = np.zeros(count)
    for place in range(int(draw.integers(8, 24))):
        name = f"c{place}"
        share = draw.uniform(0.2, 0.9)
        mix = draw.dirichlet(np.full(traits.shape[1], 0.4))
        shown = sqrt(share) * traits @ (mix / np.linalg.norm(mix))
        shown = shown + sqrt(1 - share) * draw.standard_normal(count)
        kind = draw.choice(["number", "amount", "codes", "categories"], p=[0.35, 0.25, 0.2, 0.2])
        feature: dict[str, Any] = {"name": name}
        if kind == "number":
            columns[name], feature["range"] = 50 + 15 * shown, [0, 100]
        elif kind == "amount":
            empty = shown < draw.normal(-0.6, 0.6)
            columns[name] = np.where(empty, 0.0, np.exp(8 + 1.2 * shown))
            feature |= {"range": [0, 1_000_000], "transform": "signed-log", "log_unit": 1_000.0}
        else:
            level = int(draw.integers(2, 12))
            code = np.clip(np.floor((shown + 2.5) / 5 * level), 0, level - 1).astype(int)
            columns[name] = code if kind == "codes" else draw.permutation(level)[code]
            feature["categories"] = list(range(level))
            ordered += [name] if kind == "codes" else []
        score = score + _effect(draw, shown)
        features.append(feature)
    for _ in range(int(draw.integers(0, 4))):
        one, other = draw.integers(0, traits.shape[1], 2)
        score = score + 0.3 * draw.standard_normal() * traits[:, one] * traits[:, other]
    score = score * draw.uniform(0.8, 2.0) / score.std()
    threshold = np.quantile(score, draw.uniform(0.55, 0.93))
    columns["y"] = (draw.random(count) < 1 / (1 + np.exp(threshold - score))).astype(int)
    frame = pd.DataFrame(columns)
    gaps = draw.random((count, len(features))) < draw.choice([0, 0, 0.05], len(features))
    names = [each["name"] for each in features]
    frame[names] = frame[names].astype(object).mask(gaps)
    declared = {"features": features, "target": {"name": "y", "positive": "== 1"}}
    return read(frame, declared, {"bins": bins, "ordered": tuple(ordered)})


def _effect(draw: np.random.Generator, shown: Floats) -> Floats:
    size, at = 0.5 * draw.standard_normal(), draw.normal(0, 0.7)
    shape = draw.choice(["none", "straight", "step", "bent", "u"], p=[0.35, 0.25, 0.15, 0.15, 0.1])
    shapes = {
        "none": 0 * shown, "straight": shown, "step": 1.5 * (shown > at),
        "bent": np.maximum(shown - at, 0), "u": 0.7 * (shown - at) ** 2,
    }  # fmt: skip
    return np.asarray(size * shapes[shape])


def read(frame: pd.DataFrame, declared: Mapping[str, Any], settings: Mapping[str, Any]) -> World:
    """A table as the scorecard reads it.

    Args:
        frame: `RECORDS + FRESH` lines.
        declared: its public declaration.
        settings: of the program.
    """
    schema = TableSchema.model_validate(declared)
    blocks = blocks_of(Asked(data=schema, **settings))
    records = Columns.read(frame, schema)
    codes, label = coded(blocks, records), records.codes(schema.target.columns[0])
    known = np.asarray(label < 2, np.float64)
    whole = adding.Learnt(codes, np.where(label == 1, 1.0, 0.0), known)
    cut = len(frame) - FRESH
    return World(
        schema,
        frame,
        blocks,
        adding.Learnt(codes[:, :cut], whole.labels[:cut], known[:cut]),
        adding.Learnt(codes[:, cut:], whole.labels[cut:], known[cut:]),
    )


def learned(
    world: World, sigma: float, parts: Sequence[float], draw: np.random.Generator
) -> fitting.State:
    """A card, as the openings would give it.

    Args:
        world: a table.
        sigma: noise multiplier of all openings together.
        parts: of the budget, for each opening.
        draw: of the noise.
    """
    blocks, count = world.blocks, len(world.blocks)
    sizes, free = [block.size for block in blocks], [0] * count
    state = fitting.State(0.5, 0.0, 0.0, 0.0, np.zeros((2, 0)), *[np.zeros(0)] * 3)
    for number, part in enumerate(parts, 1):
        stddev = sigma / sqrt(part)
        table = [state.values[at] if number == 2 else state.effects[at] for at in offsets(blocks)] \
            if number > 1 else []  # fmt: skip
        total = _summed(world.records, number, table, sizes, state.share)
        total = total + draw.normal(0, stddev, len(total))
        if number == 2:
            state = fitting.after_products(blocks, state, total, stddev)
            continue
        total, stddev = total * sqrt(count), stddev * sqrt(count)
        if number == 1:
            state = fitting.after_counts(blocks, free, total, stddev)
        else:
            state = fitting.after_scores(blocks, free, state, total, stddev)
    return state


def _summed(
    records: adding.Learnt, number: int, table: Sequence[Floats], sizes: Sequence[int], share: float
) -> Floats:
    """The sum of all records' rows, without forming them."""
    root = sqrt(len(sizes))
    if number == 2:
        values = np.stack(adding.shrunk(records, table), axis=1)
        first, second = np.triu_indices(len(sizes))
        weights = np.where(first == second, sqrt(0.5), 1.0)
        missed = (records.labels - share) / max(share, 1 - share) * adding.LABELS
        found = np.concatenate([(values.T @ values)[first, second] * weights, values.T @ missed])
        return np.asarray(found / sqrt(0.5 + adding.LABELS**2))
    labels = [1 - records.labels, records.labels]
    if number > 2:
        labels = [adding.placed(records, table, share)]
    return np.concatenate(
        [
            np.bincount(code, each * records.counted, size) / root
            for each in labels
            for code, size in zip(records.codes, sizes, strict=True)
        ]
    )


def area(world: World, state: fitting.State) -> float:
    """AUC on fresh records."""
    table = [state.effects[at] for at in offsets(world.blocks)]
    return roc_auc(adding.scores(world.fresh, table, 0.0), world.fresh.labels == 1) or 0.5


@dataclass(frozen=True)
class Setting:
    """Parts of the budget and constants that are tried together.

    Attributes:
        counts, products: parts of the first two openings; the rest is the scores'.
        scores: openings of scores.
        constants: of the module `fitting` or `adding`, in place of its own.
    """

    counts: float = 0.6
    products: float = 0.2
    scores: int = 6
    constants: tuple[tuple[str, Any], ...] = ()

    @property
    def parts(self) -> list[float]:
        """Of the budget."""
        if not self.products:
            return [1.0]
        rest = 1 - self.counts - self.products
        return [self.counts, self.products, *[rest / max(self.scores, 1)] * self.scores]


def tried(world: World, sigma: float, setting: Setting, seed: int) -> float:
    """AUC of one setting on one table."""
    with ExitStack() as stack:
        for name, value in setting.constants:
            for module in (fitting, adding):
                if hasattr(module, name):
                    stack.enter_context(patch.object(module, name, value))
        return area(world, learned(world, sigma, setting.parts, np.random.default_rng(seed)))


def worlds(count: int, seed: int, bins: int) -> Iterator[World]:
    """Tables, card holders and others in turn."""
    for number in range(count):
        draw = np.random.default_rng([seed, number])
        yield (card_holders if number % 2 else any_table)(draw, bins)


def settings() -> dict[str, Setting]:
    """What is compared: the constants as they are, and each one changed."""
    changed = {
        "FLOOR": (0.75, 3.0), "STEP": (0.35, 0.8), "MOMENTUM": (0.3, 0.65),
        "LABELS": (0.7, 2.0), "ROOM": (1.0, 1.5), "CURVED": (0.9, 1.6),
    }  # fmt: skip
    found = {"as it is": Setting()}
    for name, values in changed.items():
        found |= {f"{name} {value}": Setting(constants=((name, value),)) for value in values}
    for counts, products in ((0.6, 0.15), (0.7, 0.15), (0.75, 0.1), (0.5, 0.25)):
        found[f"parts {counts} {products}"] = Setting(counts, products)
    found |= {f"{n} openings of scores": Setting(scores=n) for n in (3, 4, 9, 12)}
    return found | {"two openings": Setting(0.7, 0.3, 0), "one opening": Setting(1.0, 0.0, 0)}


def compare_settings(count: int, seed: int, sizes: Sequence[int]) -> None:
    """Print each setting's regrets."""
    compared = [(bins, name, each) for bins in sizes for name, each in settings().items()]
    found = np.zeros((count, len(EPSILONS), len(compared)))
    for bins in sizes:
        for number, world in enumerate(worlds(count, seed, bins)):
            for place, (own, _, setting) in enumerate(compared):
                if own != bins:
                    continue
                for at, epsilon in enumerate(EPSILONS):
                    sigma = gaussian_noise_multiplier(epsilon, DELTA)
                    found[number, at, place] = tried(world, sigma, setting, 1000 * number + at)
    regret = found.max(axis=2, keepdims=True) - found
    for place in np.argsort(regret.mean(axis=(0, 1))):
        bins, name, _ = compared[place]
        by = " ".join(f"{each:.4f}" for each in regret[:, :, place].mean(axis=0))
        print(f"{bins:3d} bins  {name:28s} mean {regret[:, :, place].mean():.4f}  "
              f"largest {regret[:, :, place].max():.4f}  by epsilon {by}")  # fmt: skip


def compare_versions(count: int, seed: int, sizes: Sequence[int]) -> None:
    """Print the regrets of versions and bins by the noise of a bin."""
    versions = [Setting(1.0, 0.0, 0), Setting(0.7, 0.3, 0), Setting()]
    noises, areas = list[float](), list[list[float]]()
    made = [list(worlds(count, seed, bins)) for bins in sizes]
    for number, cut, epsilon in product(range(count), (600, 2000, 6000, RECORDS), EPSILONS):
        sigma, row = gaussian_noise_multiplier(epsilon, DELTA), list[float]()
        for world in (each[number] for each in made):
            whole = world.records
            fewer = adding.Learnt(whole.codes[:, :cut], whole.labels[:cut], whole.counted[:cut])
            small = replace(world, records=fewer)
            row += [tried(small, sigma, each, 77 * number + int(10 * epsilon)) for each in versions]
        noises.append(noise_by_bin(len(made[0][number].blocks), cut, epsilon, DELTA))
        areas.append(row)
    noise, found = np.array(noises), np.array(areas)
    regret = found.max(axis=1, keepdims=True) - found
    for low, high in pairwise((0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 100)):
        some = (noise >= low) & (noise < high)
        if some.any():
            by = regret[some].mean(axis=0).reshape(len(sizes), -1).round(4)
            told = "; ".join(f"{b} bins {r}" for b, r in zip(sizes, by.tolist(), strict=True))
            print(f"noise {low} to {high}, {some.sum()} cards: {told} (1, 2, 8 openings)")


def main() -> None:
    """Compare and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--worlds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--bins", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--versions", action="store_true")
    args = parser.parse_args()
    (compare_versions if args.versions else compare_settings)(args.worlds, args.seed, args.bins)


if __name__ == "__main__":
    main()
