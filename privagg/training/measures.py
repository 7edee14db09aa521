"""The names under which figures of a public table are recorded; read without torch.

A record of a run holds them as one flat mapping of names to numbers. Those of single classes follow
a pattern, so that a reader can put them back together, and old records simply have none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BASE_RATE = "base_rate"
MOST_CLASSES = 100
"""Where there are more, no class is recorded by itself."""

_COUNT = "class_{}_records"
_RECALL = "class_{}_recall"
_OF_A_CLASS = re.compile(r"class_(\d{1,9})_(?:records|recall)")


@dataclass(frozen=True)
class ClassFigure:
    """What a model does on the public records of one class.

    Args:
        number: the class, from 0.
        count: how many public records are of it; at least 1.
        recall: share of these that the model gives this class.
    """

    number: int
    count: int
    recall: float


def flat(classes: tuple[ClassFigure, ...]) -> dict[str, float]:
    """The figures of single classes by name; none of more than `MOST_CLASSES`."""
    if len(classes) > MOST_CLASSES:
        return {}
    found: dict[str, float] = {}
    for each in classes:
        found[_COUNT.format(each.number)] = float(each.count)
        found[_RECALL.format(each.number)] = each.recall
    return found


def overall(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures of the whole table, without those of single classes."""
    return {name: value for name, value in figures.items() if not _OF_A_CLASS.fullmatch(name)}


def by_class(figures: Mapping[str, float]) -> tuple[ClassFigure, ...]:
    """Those of single classes that are whole, in the order of the classes."""
    numbers = {int(m[1]) for m in map(_OF_A_CLASS.fullmatch, figures) if m}
    return tuple(
        ClassFigure(n, round(figures[_COUNT.format(n)]), figures[_RECALL.format(n)])
        for n in sorted(numbers)
        if _COUNT.format(n) in figures and _RECALL.format(n) in figures
    )


def roc_auc(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve: how often a positive outranks a negative, ties counting half.

    Args:
        scores: `(n,)`, higher for more likely positive; infinite ones of a model that diverged too,
            which scikit-learn's function refuses.
        positive: `(n,)`.

    Returns:
        The area, or None where one class is absent.

    Source: Mann & Whitney 1947 (the U statistic, with mid-ranks).
    """
    positives, total = int(positive.sum()), len(positive)
    if positives in (0, total):
        return None
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    mid_rank = last - (sizes - 1) / 2.0
    rank_sum = float(mid_rank[group][positive].sum())
    wins = rank_sum - positives * (positives + 1) / 2.0
    return wins / (positives * (total - positives))
