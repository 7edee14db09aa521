"""The app's own part: columns with public ranges, a logistic model, plain gradient descent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RANGES = {
    "age": (35, 75),
    "trestbps": (90, 170),
    "chol": (100, 340),
    "thalach": (90, 200),
    "oldpeak": (-1, 3),
    "sex": (0, 1),
    "fbs": (0, 1),
    "exang": (0, 1),
    "cp": (1, 4),
}
"""Public clinical ranges; nothing is ever scaled by a hospital's own statistics."""


def load_table(path: Path) -> tuple[Floats, Floats]:
    """Features (n, 9) in -1 ... 1 and labels (n,) of the patients without a gap."""
    table = pd.read_csv(path)[[*RANGES, "num"]].dropna()
    low, high = np.array(list(RANGES.values()), dtype=np.float64).T
    scaled = 2 * (table[list(RANGES)].to_numpy(np.float64) - low) / (high - low) - 1
    return np.clip(scaled, -1, 1), (table["num"].to_numpy() > 0).astype(np.float64)


def initial_arrays() -> ArrayRecord:
    """The model that every run starts from."""
    weight, bias = np.zeros(len(RANGES), np.float32), np.zeros(1, np.float32)
    return ArrayRecord({"weight": Array(weight), "bias": Array(bias)})


def train_model(
    arrays: ArrayRecord, x: Floats, y: Floats, *, rate: float, steps: int
) -> ArrayRecord:
    """Full-batch gradient descent from `arrays`."""
    weight = arrays["weight"].numpy().astype(np.float64)
    bias = arrays["bias"].numpy().astype(np.float64)
    for _ in range(steps):
        slope = _sigmoid(x @ weight + bias) - y
        weight -= rate * x.T @ slope / len(y)
        bias -= rate * slope.mean()
    return ArrayRecord(
        {"weight": Array(weight.astype(np.float32)), "bias": Array(bias.astype(np.float32))}
    )


def accuracy(arrays: ArrayRecord, x: Floats, y: Floats) -> float:
    """Share of right answers at threshold one half."""
    scores = x @ arrays["weight"].numpy() + arrays["bias"].numpy()
    return float(((scores > 0) == (y > 0)).mean())


def _sigmoid(scores: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-scores)))
