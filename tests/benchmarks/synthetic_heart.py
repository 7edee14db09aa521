"""Chooses the heart benchmark's hyperparameters on synthetic patients, never on real ones.

    python -m tests.benchmarks.synthetic_heart [--mode local] [--worlds 60] [--draws 10] [--seed 1]

Draws federations of four hospitals of the declared sizes. What is put in is textbook knowledge
only: typical values of adults referred with chest pain, and which findings speak for coronary
disease strongly, moderately or weakly (Cohen's 0.8, 0.5 and 0.2 standard deviations; Cohen,
"Statistical Power Analysis for the Behavioral Sciences", 1988). Exercise findings and chest pain
count as strong, age and sex as moderate (Diamond & Forrester, N Engl J Med 300, 1979; Mark et al.,
the Duke treadmill score, Ann Intern Med 106, 1987); resting pressure, cholesterol, fasting sugar
and resting ECG as weak. Every federation has its own true effects (0.3 to 1.7 times the textbook's,
chest pain in any direction), prevalences (35 % to 90 % by hospital), correlations, shifts between
hospitals, and one hospital that did not measure cholesterol (recorded as 0).

On each, the benchmark's mechanism is simulated in plain numpy: full batches, so T rounds are one
Gaussian mechanism with noise multiplier sigma / sqrt(T), exactly. The table shows the mean over
hospitals of the accuracy on fresh patients. One recipe has to serve every epsilon, so the choice is
minimax regret: the recipe whose greatest loss, over the epsilons, against the best recipe of the
table for that epsilon is least. Around it lies a plateau of ties (worst regrets within 0.0015 of
one another): 2 to 24 rounds where rounds times rate stays the same, clips from 0.2 to 1.6 where
clip times rate does. `Recipe` is the middle of it, `LocalRecipe` the last line of `--mode local`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import norm

Floats = npt.NDArray[np.float64]
Columns = dict[str, Floats]

DELTA = 1e-4
EPSILONS = (0.1, 1.0, 5.0, 10.0)
TRAIN_SIZES = (199, 172, 30, 85)  # declared, public: 66 % of 303, 261, 46 and 130
TEST_SIZE = 300  # per hospital; larger than the real ones, so that a recipe's mean is sharper
RECORDS = sum(TRAIN_SIZES)

STRONG, MODERATE, WEAK = 0.8, 0.5, 0.2
# name: typical value, typical spread, effect of disease in spreads
MEASURED = {
    "age": (55.0, 9.0, MODERATE),
    "trestbps": (132.0, 18.0, WEAK),
    "chol": (220.0, 45.0, WEAK),
    "thalach": (145.0, 23.0, -STRONG),
    "oldpeak": (0.9, 1.1, STRONG),
}
# name: typical proportion, effect of disease on the probit scale
YES_NO = {"sex": (0.70, MODERATE), "fbs": (0.15, WEAK), "exang": (0.35, STRONG)}

# Public ranges: about two typical spreads either side of the typical value, so that -1 and +1 mean
# the same everywhere. Values outside clamp.
RANGES = {
    "age": (35.0, 75.0),
    "trestbps": (90.0, 170.0),
    "chol": (100.0, 340.0),
    "thalach": (90.0, 200.0),
    "oldpeak": (-1.0, 3.0),
    "sex": (0.0, 1.0),
    "fbs": (0.0, 1.0),
    "exang": (0.0, 1.0),
}
LEVELS = {"cp": (1, 2, 3, 4), "restecg": (0, 1, 2)}  # the first is dropped, as FLamby does

# A feature spreads in proportion to what it is expected to tell. A yes/no feature at -1 or +1
# spreads twice as far as a measurement whose range is four spreads wide, hence half the scale.
WEIGHTED = {
    "age": 4.0,
    "trestbps": 2.0,
    "chol": 2.0,
    "thalach": 5.0,
    "oldpeak": 5.0,
    "sex": 2.0,
    "fbs": 1.0,
    "exang": 2.5,
    "cp": 4.0,
    "restecg": 2.0,
}
EVEN = {name: 2.0 if name in YES_NO else 4.0 for name in WEIGHTED}
SCALES = {
    "weighted": WEIGHTED,
    "even": EVEN,
    "even / 2": {name: scale / 2 for name, scale in EVEN.items()},
    "even / 4": {name: scale / 4 for name, scale in EVEN.items()},
}


@dataclass(frozen=True)
class Recipe:
    """Full-batch DP gradient descent on the logistic loss, from zero weights."""

    scales: str = "weighted"
    rounds: int = 6
    clip_norm_l2: float = 0.4
    learning_rate: float = 4.0


@dataclass(frozen=True)
class LocalRecipe:
    """Local steps with each hospital's own noise, updates averaged by declared records."""

    scales: str = "weighted"
    rounds: int = 3
    local_steps: int = 2
    clip_norm_l2: float = 0.4
    learning_rate: float = 0.25


@dataclass(frozen=True)
class Federation:
    """Four hospitals' patients, features still in clinical units, one entry per hospital."""

    train: tuple[tuple[Columns, Floats], ...]
    test: tuple[tuple[Columns, Floats], ...]


@dataclass(frozen=True)
class _World:
    """What is true of one federation: its effects, and what the hospitals have in common."""

    effects: Mapping[str, float]
    loadings: Mapping[str, float]
    pain_log_odds: Floats
    pain_effects: Floats
    ecg_log_odds: Floats
    ecg_effects: Floats


def _draw_world(rng: np.random.Generator) -> _World:
    textbook = {name: entry[-1] for name, entry in (MEASURED | YES_NO).items()}
    return _World(
        effects={name: effect * rng.uniform(0.3, 1.7) for name, effect in textbook.items()},
        loadings={name: rng.normal(0, 0.35) for name in textbook},
        pain_log_odds=np.log(rng.dirichlet(np.full(4, 4.0))),
        pain_effects=rng.normal(0, 1.0, 4),
        ecg_log_odds=np.log(rng.dirichlet((6.0, 2.0, 2.0))),
        ecg_effects=rng.normal(0, 0.4, 3),
    )


def _draw_hospital(
    rng: np.random.Generator, world: _World, records: int, cholesterol_measured: bool
) -> tuple[Columns, Floats]:
    """One hospital's patients, shape (records,) a column, and their labels 0.0 or 1.0."""
    prevalence = rng.uniform(0.35, 0.9)
    label = (rng.random(records) < prevalence).astype(np.float64)
    side = label - 0.5
    common = rng.standard_normal(records)  # what makes a patient's findings correlate

    def latent(name: str) -> Floats:
        shift = rng.normal(0, 0.25)
        own = rng.standard_normal(records)
        return world.effects[name] * side + world.loadings[name] * common + shift + own

    def level(log_odds: Floats, effects: Floats) -> Floats:
        scores = log_odds + rng.normal(0, 0.3, log_odds.size) + side[:, None] * effects
        chosen = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
        return np.asarray(chosen, dtype=np.float64)

    columns = {name: at + by * latent(name) for name, (at, by, _) in MEASURED.items()}
    for name, (proportion, _) in YES_NO.items():
        columns[name] = (norm.ppf(proportion) + latent(name) > 0).astype(np.float64)
    # Maximal heart rate falls by about 0.7 a year (Tanaka et al., J Am Coll Cardiol 37, 2001).
    columns["thalach"] = columns["thalach"] - 0.7 * (columns["age"] - 55)
    columns["oldpeak"] = np.maximum(0.0, columns["oldpeak"])
    columns["chol"] = np.maximum(90.0, columns["chol"]) * float(cholesterol_measured)
    columns["cp"] = 1 + level(world.pain_log_odds, world.pain_effects)
    columns["restecg"] = level(world.ecg_log_odds, world.ecg_effects)
    return columns, label


def draw_federation(rng: np.random.Generator) -> Federation:
    """Draws one federation of synthetic patients, with fresh patients of the same hospitals."""
    world = _draw_world(rng)
    unmeasured = int(rng.integers(len(TRAIN_SIZES)))
    train, test = [], []
    for site, size in enumerate(TRAIN_SIZES):
        columns, label = _draw_hospital(rng, world, size + TEST_SIZE, site != unmeasured)
        train.append(({name: column[:size] for name, column in columns.items()}, label[:size]))
        test.append(({name: column[size:] for name, column in columns.items()}, label[size:]))
    return Federation(tuple(train), tuple(test))


def encode(columns: Mapping[str, Floats], scales: Mapping[str, float]) -> Floats:
    """Encodes patients by public ranges and levels only: shape (records, 14), last the bias's 1."""
    features = [
        scales[name] * np.clip((2 * columns[name] - low - high) / (high - low), -1, 1)
        for name, (low, high) in RANGES.items()
    ]
    for name, levels in LEVELS.items():
        features += [scales[name] * (columns[name] == level) for level in levels[1:]]
    return np.stack([*features, np.ones(len(features[0]))], axis=1)


def gaussian_noise_multiplier(epsilon: float, delta: float) -> float:
    """The Gaussian mechanism's exact noise multiplier (Balle & Wang, ICML 2018, Theorem 8)."""

    def excess(sigma: float) -> float:
        loss = norm.cdf(0.5 / sigma - epsilon * sigma)
        other = np.exp(epsilon + norm.logcdf(-0.5 / sigma - epsilon * sigma))
        return float(loss - other - delta)

    return float(brentq(excess, 1e-2, 1e4))


def train(
    rng: np.random.Generator,
    features: Floats,
    labels: Floats,
    recipe: Recipe,
    noise_multiplier: float,
    draws: int,
) -> Floats:
    """Trains under `draws` independent draws of the noise at once: weights, shape (draws, 14)."""
    clip = recipe.clip_norm_l2
    stddev = noise_multiplier * np.sqrt(recipe.rounds) * clip
    norms = np.linalg.norm(features, axis=1)
    weights = np.zeros((draws, features.shape[1]))
    for _ in range(recipe.rounds):
        residuals = 1 / (1 + np.exp(-weights @ features.T)) - labels
        residuals *= np.minimum(1, clip / np.maximum(np.abs(residuals) * norms, 1e-12))
        noisy_sum = residuals @ features + stddev * rng.standard_normal(weights.shape)
        weights -= recipe.learning_rate * noisy_sum / len(labels)
    return weights


def train_locally(
    rng: np.random.Generator,
    hospitals: Sequence[tuple[Floats, Floats]],
    recipe: LocalRecipe,
    noise_multiplier: float,
    draws: int,
) -> Floats:
    """The same with all noise at each hospital, updates averaged by records: (draws, 14)."""
    clip = recipe.clip_norm_l2
    steps = recipe.rounds * recipe.local_steps
    stddev = noise_multiplier * np.sqrt(steps) * clip
    total = sum(len(labels) for _, labels in hospitals)
    weights = np.zeros((draws, hospitals[0][0].shape[1]))
    for _ in range(recipe.rounds):
        update = np.zeros_like(weights)
        for features, labels in hospitals:
            norms, local = np.linalg.norm(features, axis=1), weights.copy()
            for _ in range(recipe.local_steps):
                residuals = 1 / (1 + np.exp(-local @ features.T)) - labels
                residuals *= np.minimum(1, clip / np.maximum(np.abs(residuals) * norms, 1e-12))
                noisy_sum = residuals @ features + stddev * rng.standard_normal(local.shape)
                local -= recipe.learning_rate * noisy_sum / len(labels)
            update += (local - weights) * len(labels) / total
        weights = weights + update
    return weights


def accuracies(
    rng: np.random.Generator, federation: Federation, recipe: Recipe | LocalRecipe, draws: int
) -> Floats:
    """Mean over hospitals and noise draws of the accuracy, one entry per epsilon."""
    scales = SCALES[recipe.scales]
    hospitals = [(encode(columns, scales), label) for columns, label in federation.train]
    features = np.concatenate([x for x, _ in hospitals])
    labels = np.concatenate([y for _, y in hospitals])
    tests = [(encode(columns, scales), label > 0.5) for columns, label in federation.test]
    result = []
    for epsilon in EPSILONS:
        sigma = gaussian_noise_multiplier(epsilon, DELTA)
        if isinstance(recipe, LocalRecipe):
            weights = train_locally(rng, hospitals, recipe, sigma, draws)
        else:
            weights = train(rng, features, labels, recipe, sigma, draws)
        result.append(np.mean([((weights @ x.T > 0) == label).mean() for x, label in tests]))
    return np.array(result)


def candidates() -> list[Recipe]:
    """The recipes compared: every scaling with every length of training, then C and T."""
    base = Recipe()
    rates = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    grid = [replace(base, learning_rate=rate) for rate in rates]
    # The smaller the features, the larger the steps that move the logits as far.
    for scales, by in (("even", 1), ("even / 2", 4), ("even / 4", 16)):
        clip = base.clip_norm_l2 / np.sqrt(by)
        grid += [replace(base, scales=scales, clip_norm_l2=clip, learning_rate=by * rate)
                 for rate in rates]  # fmt: skip
    grid += [
        replace(base, clip_norm_l2=clip, learning_rate=rate)
        for clip in (0.1, 0.2, 0.8, 1.6)
        for rate in (1.6 / clip / 2, 1.6 / clip, 1.6 / clip * 2)
    ]
    grid += [replace(base, rounds=rounds, learning_rate=24 / rounds) for rounds in (2, 3, 12, 24)]
    return grid


def local_candidates() -> list[LocalRecipe]:
    """The local recipes compared: how steps are cut into rounds, then rate, then clip."""
    grid = []
    for rounds, local_steps in ((6, 1), (3, 2), (2, 3), (1, 6), (6, 2)):
        for way in (1.5, 3.0, 6.0, 12.0, 24.0):  # rate times steps
            rate = way / (rounds * local_steps)
            grid.append(LocalRecipe("weighted", rounds, local_steps, 0.4, rate))
    # The smaller the clip, the larger the steps that move the logits as far.
    for clip in (0.2, 0.8):
        grid += [LocalRecipe("weighted", 3, 2, clip, 0.4 / clip * rate) for rate in (0.5, 1, 2)]
    return grid


def main() -> None:
    """Prints the tuning table, the least worst regret last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mode", choices=("distributed", "local"), default="distributed")
    parser.add_argument("--worlds", type=int, default=60, help="synthetic federations")
    parser.add_argument("--draws", type=int, default=10, help="noise draws for each")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    rng = np.random.default_rng(arguments.seed)
    federations = [draw_federation(rng) for _ in range(arguments.worlds)]
    local = arguments.mode == "local"
    grid: Sequence[Recipe | LocalRecipe] = local_candidates() if local else candidates()
    table = np.array(
        [
            np.mean([accuracies(rng, fed, recipe, arguments.draws) for fed in federations], axis=0)
            for recipe in grid
        ]
    )
    regret = (table.max(axis=0) - table).max(axis=1)
    header = "  ".join(f"eps={epsilon:<4g}" for epsilon in EPSILONS)
    print(f"{'scales':10}{'rounds':>7}{'steps':>7}{'clip':>7}{'rate':>8}   {header}  worst regret")
    for index in np.argsort(-regret):
        recipe = grid[index]
        figures = "  ".join(f"{value:8.4f}" for value in table[index])
        print(
            f"{recipe.scales:10}{recipe.rounds:7d}{getattr(recipe, 'local_steps', 1):7d}"
            f"{recipe.clip_norm_l2:7.2f}"
            f"{recipe.learning_rate:8.2f}   {figures}  {regret[index]:12.4f}"
        )


if __name__ == "__main__":
    main()
