"""Where proposed settings of training come from: a search on synthetic tables, never on real ones.

    python -m tests.benchmarks.propose [--worlds 16] [--seed 1] [--records 4000] [--json FILE]

`privagg.config.proposal` fills settings that a configuration leaves out from a small table. This
derives the table again. It draws tables of all kinds (8 to 25 columns, numbers in wide or narrow
public ranges, skewed amounts, categories of all sizes, features that depend on each other, classes
of 10 to 50 %), trains a logistic model on each of them under the noise of one level at a time, and
holds each recipe's AUC on fresh records against the same model's without privacy.

Full batches: T rounds are one Gaussian mechanism, so a round's noise is the job's times the root of
T, exactly. Noise is told by the one number that decides what can be learnt,

    level = sigma * sqrt(d) / n

where sigma is the noise multiplier of a single opening, d the parameters and n the records: how
long the noise of a mean gradient is, in clips. Clips are told in root mean squares of a record's
norm, as the public declaration suggests it, rates in its inverse squares, so that neither depends
on the units of the features.

With few records, sampling is in a mean gradient beside the noise, and a recipe that goes far loses
more: `--records 500` derives `FEW`, the table for these.

Chosen at every level: the recipe of the least mean gap, smoothed over neighbouring rates and clips;
among those within `TIE` of it the one of the fewest rounds, which is the fastest.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from privagg.config.proposal import MOMENTUM
from privagg.programs.centring import PROBE, RAREST
from privagg.training.measures import roc_auc
from privagg.training.models import Centre
from tests.benchmarks.tables import Row, show, write_json

Floats = npt.NDArray[np.float64]

RECORDS = 4_000
LEVELS = (0.0005, 0.0015, 0.005, 0.015, 0.05, 0.15, 0.5)
ROUNDS = (2, 4, 6, 12, 25, 50, 100)
RATES = (12.0, 25.0, 50.0, 100.0, 200.0, 400.0)
CLIPS = (0.06, 0.1, 0.15, 0.22, 0.33, 0.5, 0.75)
TIE = 0.001


@dataclass(frozen=True)
class Table:
    """Synthetic records, some of them fresh, and what a declaration would say of their norm.

    Attributes:
        x: (records and fresh ones, width + 1), the last column is the intercept's 1.
        y: labels 0.0 or 1.0.
        square: mean square of a record's norm as the public declaration suggests it.
        records: the first so many are trained on.
    """

    x: Floats
    y: Floats
    square: float
    records: int

    @property
    def fresh(self) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Records that nothing was trained on, and which of them are positive."""
        return self.x[self.records :], self.y[self.records :] == 1

    @property
    def ceiling(self) -> float:
        """AUC of the logistic model without privacy."""
        model = LogisticRegression(max_iter=300, fit_intercept=False)
        weights = model.fit(self.x[: self.records], self.y[: self.records]).coef_[0]
        fresh, truth = self.fresh
        return roc_auc(fresh @ weights, truth) or 0.5


def draw_table(rng: np.random.Generator, records: int) -> Table:
    """Draws one table: columns that share a few hidden causes, and a label from both.

    Args:
        rng: source of it.
        records: to train on; `RECORDS` more are fresh.
    """
    count = records + RECORDS
    causes = rng.standard_normal((count, int(rng.integers(2, 6))))
    score = causes @ (0.5 * rng.standard_normal(causes.shape[1]))
    parts, square = [np.zeros((count, 0))], 1.0
    for _ in range(int(rng.integers(8, 26))):
        latent = causes @ rng.standard_normal(causes.shape[1]) * rng.uniform(0.2, 1.0)
        latent += rng.standard_normal(count)
        latent /= latent.std()
        encoded, expected, effect = _draw_column(rng, latent)
        parts.append(encoded)
        square += expected
        score += rng.normal(0, 0.25) * effect
    score *= rng.uniform(0.5, 1.6) / score.std()
    threshold = np.quantile(score, 1 - rng.uniform(0.1, 0.5))
    y = (rng.random(count) < _sigmoid(score - threshold)).astype(np.float64)
    return Table(np.column_stack([*parts, np.ones(count)]), y, square, records)


def _draw_column(rng: np.random.Generator, latent: Floats) -> tuple[Floats, float, Floats]:
    """A column's encoding, its expected square as declared, and what the label sees of it."""
    kind = rng.random()
    if kind < 0.35:  # a number within a public range that is wider than the values
        place = rng.uniform(-0.6, 0.6) + rng.uniform(0.1, 0.5) * latent
        return np.clip(place, -1, 1)[:, None], 1 / 3, latent
    if kind < 0.55:  # an amount with a long tail, on a straight scale
        amount = np.exp(rng.uniform(0.3, 1.0) * latent - rng.uniform(1.0, 3.5))
        return np.clip(2 * amount - 1, -1, 1)[:, None], 1 / 3, latent
    size = int(rng.integers(2, 11))
    shares = rng.dirichlet(np.full(size, 0.7))
    level = np.digitize(latent, np.quantile(latent, np.cumsum(shares)[:-1]))
    if rng.random() < 0.5:  # no order among them
        level = rng.permutation(size)[level]
    dropped = rng.random() < 0.3
    encoded = (level[:, None] == np.arange(int(dropped), size)).astype(np.float64)
    return encoded, 1 - 1 / size if dropped else 1.0, rng.standard_normal(size)[level]


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))))


@dataclass(frozen=True)
class Recipes:
    """Many recipes of equal length, simulated at once.

    Attributes:
        centred: whether features' means are opened first (`privagg.programs.centring`).
        rounds: T.
        rates: (k,), rate at full momentum over the table's `square`.
        clips: (k,), in roots of the table's `square`.
    """

    centred: bool
    rounds: int
    rates: Floats
    clips: Floats


class _Training:
    """Many recipes' trainings side by side: weights (d, k), the last row that of the constant."""

    def __init__(
        self, rng: np.random.Generator, table: Table, recipes: Recipes, deviation: float
    ) -> None:
        self._x = table.x[: table.records, :-1].astype(np.float32)
        self._y = table.y[: table.records].astype(np.float32)[:, None]
        self._constant = Centre.constant if recipes.centred else 1.0
        self._squares = (self._x**2).sum(axis=1)[:, None]
        self._lengths = np.sqrt(self._squares + self._constant**2)
        self._clips = (recipes.clips * np.sqrt(table.square)).astype(np.float32)
        self._noise, self._rng = deviation * np.sqrt(recipes.rounds) * self._clips, rng
        width, count = self._x.shape[1], len(recipes.clips)
        self.means = np.zeros((width, count), dtype=np.float32)
        self.weights = np.zeros((width + 1, count))

    def gradient(self) -> Floats:
        """The opened mean of clipped gradients, (d, k)."""
        slopes = self.weights[:-1].astype(np.float32)
        offsets = self._constant * self.weights[-1] - (slopes * self.means).sum(axis=0)
        residuals = (_sigmoid(self._x @ slopes + offsets) - self._y).astype(np.float32)
        lengths = np.maximum(np.abs(residuals) * self._lengths, np.float32(1e-9))
        residuals *= np.minimum(np.float32(1), self._clips / lengths)
        total = residuals.sum(axis=0)
        sums = np.vstack([self._x.T @ residuals - self.means * total, self._constant * total])
        return np.asarray(sums / len(self._x) + self._noise * self._rng.standard_normal(sums.shape))

    def centre(self) -> Floats:
        """Two openings at opposite intercepts; centred from here on. The first step's gradient."""
        ends = []
        for intercept in (PROBE, -PROBE):
            self.weights[-1] = intercept / self._constant
            found = self.gradient()
            found[-1] /= self._constant
            ends.append(found)
        apart = np.maximum(ends[0][-1] - ends[1][-1], 0.1)
        means = (ends[0][:-1] - ends[1][:-1]) / apart
        high, low = _sigmoid(np.array([PROBE, -PROBE]))
        share = np.clip(high + (low - high) * ends[0][-1] / apart, RAREST, 1 - RAREST)
        self.weights[-1] = np.log(share / (1 - share)) / self._constant
        self.means = means.astype(np.float32)
        squares = self._squares - 2 * self._x @ self.means + (self.means**2).sum(axis=0)
        self._lengths = np.sqrt(np.maximum(squares, 0) + self._constant**2)
        mean = (ends[0] + ends[1]) / 2
        return np.vstack([mean[:-1] - means * mean[-1], 0 * mean[-1]])


def train(rng: np.random.Generator, table: Table, recipes: Recipes, deviation: float) -> Floats:
    """Trains under one draw of the noise, as privagg does: averaged weights, (width, k).

    Args:
        rng: source of the noise.
        table: the records.
        recipes: what is tried.
        deviation: of the noise of one opened mean in a job of one round, in clips.
    """
    training = _Training(rng, table, recipes, deviation)
    rates = recipes.rates * (1 - MOMENTUM) / table.square
    first = training.centre() if recipes.centred else None
    velocity, total = np.zeros_like(training.weights), np.zeros_like(training.weights)
    steps = recipes.rounds - recipes.centred
    for step in range(steps):
        found = training.gradient() if first is None or step else first
        velocity = MOMENTUM * velocity + found
        training.weights = training.weights - rates * velocity
        if step >= steps // 2:
            total += training.weights
    return np.asarray(total[:-1] / (steps - steps // 2))


Key = tuple[float, bool, int, float, float]

KINDS = tuple(itertools.product(LEVELS, (True, False), ROUNDS))


def _worth_trying(kind: tuple[float, bool, int], records: int) -> bool:
    """Without what lost at once in a wider search: long trainings in noise, uncentred without."""
    level, centred, rounds = kind
    if records < RECORDS:
        return level >= 0.005 and rounds >= (6 if centred else 2) and rounds * level <= 5
    return rounds >= 6 and (rounds <= 50 if level >= 0.05 else centred and rounds >= 12)


def gaps(rng: np.random.Generator, tables: Sequence[Table]) -> Mapping[Key, list[float]]:
    """(level, centred, rounds, rate, clip) -> how far each table's AUC lies below its ceiling."""
    found: dict[Key, list[float]] = {}
    grid = list(itertools.product(RATES, CLIPS))
    rates, clips = (np.array(values) for values in zip(*grid, strict=True))
    for table in tables:
        ceiling, (fresh, truth) = table.ceiling, table.fresh
        kinds = (kind for kind in KINDS if _worth_trying(kind, table.records))
        for level, centred, rounds in kinds:
            deviation = level / np.sqrt(table.x.shape[1])
            weights = train(rng, table, Recipes(centred, rounds, rates, clips), deviation)
            for (rate, clip), column in zip(grid, np.nan_to_num(weights).T, strict=True):
                auc = roc_auc(fresh[:, :-1] @ column, truth) or 0.5
                found.setdefault((level, centred, rounds, rate, clip), []).append(ceiling - auc)
    return found


def chosen(found: Mapping[Key, list[float]], level: float) -> Row:
    """The recipe of one level, with its gap and the best gap of the other kind of recipe."""
    means = {key[1:]: float(np.mean(values)) for key, values in found.items() if key[0] == level}

    def smooth(key: tuple[bool, int, float, float]) -> float:
        centred, rounds, rate, clip = key
        r, c = RATES.index(rate), CLIPS.index(clip)
        near = itertools.product(RATES[max(r - 1, 0) : r + 2], CLIPS[max(c - 1, 0) : c + 2])
        return 0.5 * means[key] + 0.5 * float(np.mean([means[centred, rounds, *at] for at in near]))

    smoothed = {key: smooth(key) for key in means}
    least = min(smoothed.values())
    tied = [key for key, gap in smoothed.items() if gap <= least + TIE]
    best = min(tied, key=lambda key: (key[1], smoothed[key]))
    others = [gap for key, gap in means.items() if key[0] != best[0]]
    names = ("centred", "rounds", "rate", "clip")
    return {
        "benchmark": "propose", "level": level, **dict(zip(names, best, strict=True)),
        "gap": means[best], "gap_of_the_other_kind": min(others, default=None),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Prints the table that `privagg.config.proposal` holds, and what each choice is worth."""
    parser = argparse.ArgumentParser(description="derive the proposed settings of training")
    parser.add_argument("--worlds", type=int, default=16, help="synthetic tables")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--records", type=int, default=RECORDS, help="that are trained on")
    parser.add_argument("--json", type=Path, help="file for the rows")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    found = gaps(rng, [draw_table(rng, options.records) for _ in range(options.worlds)])
    rows = [chosen(found, level) for level in sorted({key[0] for key in found})]
    names = ("level", "centred", "rounds", "rate", "clip", "gap", "gap_of_the_other_kind")
    show("Proposed settings by level of noise", {name: name for name in names}, rows, "")
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
