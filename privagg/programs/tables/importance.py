"""How much a column counts: how far what it adds to scores varies between records."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np

from privagg.programs.answers import Figure, around
from privagg.programs.questions.columns import FloatArray

IMPORTANCE = "importance"


def importance_figure(
    name: str, effects: FloatArray, whole: FloatArray, errors: FloatArray, level: float
) -> Figure:
    """The standard deviation over records of what a column adds.

    Args:
        name: of the column.
        effects: float64 (K,), of its bins, of mean 0.
        whole: float64 (K,), about how many records are in each.
        errors: float64 (2, K), deviations of the effects: by the noise alone, and with sampling.
        level: of the intervals.
    """
    shares = whole / max(float(whole.sum()), 1.0)
    size = sqrt(float(shares @ effects**2))
    slopes = shares * effects / size if size > 0 else np.sqrt(shares)
    ends = [around(size, sqrt(float(slopes**2 @ each**2)), level, (0.0, inf)) for each in errors]
    return Figure(IMPORTANCE, {"column": name}, size, size, ends[0], ends[1])
