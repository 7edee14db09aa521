"""The names under which figures of a public table are recorded; read without torch.

A record of a run holds them as one flat mapping of names to numbers. Those of single classes follow
a pattern, so that a reader can put them back together, and old records simply have none.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BASE_RATE = "base_rate"
"""Share of the largest class: the accuracy of always answering with it."""

BASES = {
    "accuracy": BASE_RATE,
    "rmse": "base_rmse",
    "mae": "base_mae",
    "c_index": "base_c_index",
    "log_likelihood": "base_log_likelihood",
}
"""Figure -> the same figure of a guess without a model: the largest class, the mean, any order."""

CHIEF = ("accuracy", "auc", "c_index", "rmse")
"""What a report leads with: the first of these that was measured."""

SHARES = frozenset({"accuracy", BASE_RATE, "auc", "c_index", "base_c_index"})
"""Figures between 0 and 1."""

LABELS = {
    "accuracy": "accuracy",
    BASE_RATE: "base rate",
    "auc": "AUC",
    "rmse": "RMSE",
    "base_rmse": "base RMSE",
    "mae": "MAE",
    "base_mae": "base MAE",
    "r2": "R²",
    "c_index": "C-index",
    "base_c_index": "base C",
    "log_likelihood": "log-likelihood",
    "base_log_likelihood": "base log-likelihood",
}
"""How figures are called in a table's head."""

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


def chief(figures: Mapping[str, float]) -> str | None:
    """The figure to lead with; None where none of `CHIEF` was measured."""
    return next((name for name in CHIEF if name in figures), None)


def figure_text(name: str, value: float) -> str:
    """A figure as a table shows it: shares with three decimals, amounts with four digits."""
    return f"{value:.3f}" if name in SHARES or name == "r2" else f"{value:.4g}"


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


def concordance(
    risks: npt.NDArray[np.float64], times: npt.NDArray[np.float64], events: npt.NDArray[np.bool_]
) -> float | None:
    """How often, of two of whom it is known who had the event first, that one had the higher risk.

    Equal risks count half. Who was seen last at the time of another's event outlived it; of two
    with the event at one time none was first.

    Args:
        risks: `(n,)`, higher for an earlier event.
        times: `(n,)`, when each was seen last.
        events: `(n,)`, whether that was with the event.

    Returns:
        The share of pairs, or None where there is none.

    Source: Harrell, Califf, Pryor, Lee & Rosati 1982, "Evaluating the yield of medical tests".
    """
    later, pairs, wins = list[float](), 0, 0.0
    for time in np.unique(times)[::-1]:
        here = times == time
        for risk in risks[here & ~events].tolist():
            insort(later, risk)
        for risk in risks[here & events].tolist():
            below = bisect_left(later, risk)
            wins += (below + bisect_right(later, risk)) / 2
            pairs += len(later)
        for risk in risks[here & events].tolist():
            insort(later, risk)
    return wins / pairs if pairs else None


def hazard_figures(
    logits: npt.NDArray[np.float64],
    seen: npt.NDArray[np.float64],
    happened: npt.NDArray[np.float64],
) -> dict[str, float]:
    """Mean log-likelihood of a record, beside that of one hazard an interval for all of them.

    Args:
        logits: of the hazard in each interval, `(n, K)`, n >= 1.
        seen: the part of each interval that counts, 1 in that of the event, `(n, K)`.
        happened: 1 in the interval of the event, else 0, `(n, K)`.
    """
    each = logits * happened - np.logaddexp(0.0, logits) * seen
    at_risk, had = seen.sum(axis=0), happened.sum(axis=0)
    without = at_risk - had
    with np.errstate(divide="ignore", invalid="ignore"):
        told = np.where(had > 0, had * np.log(had / at_risk), 0.0)
        told += np.where(without > 0, without * np.log(without / at_risk), 0.0)
    return {
        "log_likelihood": float(each.sum()) / len(logits),
        "base_log_likelihood": float(told.sum()) / len(logits),
    }


def amount_figures(
    predicted: npt.NDArray[np.float64], amounts: npt.NDArray[np.float64]
) -> dict[str, float]:
    """RMSE and MAE, each beside that of naming the amounts' mean every time, and R².

    Args:
        predicted: `(n,)`, n >= 1.
        amounts: `(n,)`, in the same unit.
    """
    errors, around = predicted - amounts, amounts - amounts.mean()
    squares, base = float(np.mean(errors**2)), float(np.mean(around**2))
    found = {
        "rmse": math.sqrt(squares),
        "base_rmse": math.sqrt(base),
        "mae": float(np.abs(errors).mean()),
        "base_mae": float(np.abs(around).mean()),
    }
    return {**found, "r2": 1.0 - squares / base} if base > 0 else found


def grade_figures(chosen: npt.NDArray[np.int64], grades: npt.NDArray[np.int64]) -> dict[str, float]:
    """How many grades answers are off on average, beside always answering the median grade.

    Args:
        chosen: int64 `(n,)`, n >= 1.
        grades: int64 `(n,)`.
    """
    median = int(np.sort(grades)[(len(grades) - 1) // 2])
    away = float(np.abs(chosen - grades).mean())
    return {"mae": away, "base_mae": float(np.abs(grades - median).mean())}


def label_figures(
    scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Means over labels of accuracy, of the commoner answer's share, and of the AUC.

    Besides, for each label as for a class: how many records have it, and its recall among them.

    Args:
        scores: above 0 for yes, `(n, m)`, n >= 1.
        labels: 0 and 1, int64 `(n, m)`.
    """
    yes, shares = labels == 1, labels.mean(axis=0)
    found = {
        "accuracy": float(((scores > 0) == yes).mean()),
        BASE_RATE: float(np.maximum(shares, 1.0 - shares).mean()),
    }
    areas = [roc_auc(scores[:, j], yes[:, j]) for j in range(labels.shape[1])]
    known = [area for area in areas if area is not None]
    if known:
        found["auc"] = float(np.mean(known))
    each = tuple(
        ClassFigure(j, int(there.sum()), float((scores[there, j] > 0).mean()))
        for j, there in enumerate(yes.T)
        if there.any()
    )
    return {**found, **flat(each)}
