"""Federations that need no download: scikit-learn's bundled tables, split among institutions.

The splits are fixed by hashing row numbers, so they are the same everywhere and for ever. The
public facts beside them (ranges, classes) are constants written here, not computed from the data.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from privagg.training.features import NumericFeature
from privagg.training.table import TableSchema
from privagg.training.targets import Target

Indices = npt.NDArray[np.int64]

BREAST_CANCER_SITES = {"riverside": 220, "hillcrest": 140, "lakeview": 90}
"""The three hospitals and how many patients each declares; the other 119 are the public table."""

DIGITS_CLIENTS = {"north": 600, "south": 500, "west": 400}
"""Three clients with their own images; the other 297 digits are the public set."""

DIGITS_SHAPE = (1, 8, 8)
DIGITS_VALUE_RANGE = (0.0, 16.0)
DIGITS_CLASSES = 10

# Round numbers near the lowest and highest values that the data set's published documentation
# states for each column (UCI, "Breast Cancer Wisconsin (Diagnostic)", 1995); lengths in pixels.
# (mean, standard error, worst) for each measure.
_NUCLEI_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "radius": ((5, 30), (0, 3), (5, 40)),
    "texture": ((5, 40), (0, 5), (10, 50)),
    "perimeter": ((40, 200), (0, 20), (40, 260)),
    "area": ((100, 2500), (0, 400), (100, 4000)),
    "smoothness": ((0.05, 0.17), (0, 0.03), (0.05, 0.25)),
    "compactness": ((0, 0.4), (0, 0.15), (0, 1)),
    "concavity": ((0, 0.5), (0, 0.4), (0, 1.25)),
    "concave points": ((0, 0.2), (0, 0.05), (0, 0.3)),
    "symmetry": ((0.1, 0.3), (0, 0.08), (0.1, 0.7)),
    "fractal dimension": ((0.04, 0.1), (0, 0.03), (0.04, 0.2)),
}


def _nuclei_features() -> tuple[NumericFeature, ...]:
    """The thirty columns in scikit-learn's order: all means, all standard errors, all worst."""
    features = []
    for position, name_of in enumerate(("mean {}", "{} error", "worst {}")):
        for measure, ranges in _NUCLEI_RANGES.items():
            name = name_of.format(measure)
            # Areas and standard errors have long upper tails; the logarithm evens them out.
            long_tail = measure == "area" or position == 1
            features.append(
                NumericFeature(
                    name=name,
                    range=ranges[position],
                    transform="signed-log" if long_tail else "linear",
                )
            )
    return tuple(features)


BREAST_CANCER_SCHEMA = TableSchema(
    features=_nuclei_features(), target=Target(name="malignant", positive=">0")
)
"""Public declaration of the Wisconsin table; the target is 1 for a malignant mass."""


@dataclass(frozen=True)
class Federation:
    """A split of one data set: who holds which rows, and which rows are public.

    Args:
        sites: row numbers of each institution, no row twice.
        public: row numbers of the held-out public part.
    """

    sites: dict[str, Indices]
    public: Indices


def split_rows(count: int, sizes: dict[str, int], *, name: str) -> Federation:
    """Deals rows out in the order of their hashes, first to the institutions, the rest public.

    Args:
        count: number of rows.
        sizes: how many each institution gets.
        name: of the data set; another name is another order.
    """
    digests = [hashlib.sha256(f"{name}/{row}".encode()).digest() for row in range(count)]
    order = np.array(sorted(range(count), key=digests.__getitem__), dtype=np.int64)
    sites, start = {}, 0
    for site, size in sizes.items():
        sites[site] = np.sort(order[start : start + size])
        start += size
    return Federation(sites, np.sort(order[start:]))


def breast_cancer_tables() -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """The Wisconsin breast-cancer table as three hospitals' tables and a public one.

    Returns:
        A table for each of `BREAST_CANCER_SITES`, and the held-out table. Columns are the 30
        features of `BREAST_CANCER_SCHEMA` and `malignant` (1 or 0).

    Source: Wolberg, Street & Mangasarian 1995, bundled with scikit-learn.
    """
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    table = pd.DataFrame(data.data, columns=[str(name) for name in data.feature_names])
    table["malignant"] = 1 - data.target  # scikit-learn has 1 for benign
    split = split_rows(len(table), BREAST_CANCER_SITES, name="breast-cancer")
    tables = {site: table.iloc[rows].reset_index(drop=True) for site, rows in split.sites.items()}
    return tables, table.iloc[split.public].reset_index(drop=True)


def write_breast_cancer(folder: str | Path) -> dict[str, Path]:
    """Writes the hospitals' tables and the public one as CSV files.

    Returns:
        Path of each hospital's file by name, and of the held-out table under `public`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables, public = breast_cancer_tables()
    paths = {name: folder / f"{name}.csv" for name in (*tables, "public")}
    for name, table in {**tables, "public": public}.items():
        table.to_csv(paths[name], index=False)
    return paths


def write_digits(folder: str | Path) -> dict[str, tuple[Path, Path]]:
    """Writes scikit-learn's 8x8 digits as `.npy` image sets of three clients and a public one.

    Returns:
        Paths of images and labels of each of `DIGITS_CLIENTS`, and of the held-out `public`.

    Source: Alpaydin & Kaynak 1998, bundled with scikit-learn.
    """
    from sklearn.datasets import load_digits

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = load_digits()
    split = split_rows(len(data.target), DIGITS_CLIENTS, name="digits")
    paths = {}
    for name, rows in {**split.sites, "public": split.public}.items():
        images, labels = folder / f"{name}-images.npy", folder / f"{name}-labels.npy"
        np.save(images, data.images[rows].astype(np.uint8))
        np.save(labels, data.target[rows].astype(np.int64))
        paths[name] = (images, labels)
    return paths
