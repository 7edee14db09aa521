"""OpenDP's central answers, made by `questions.py` in OpenDP's own environment.

One JSON request a line: what is asked of which values at which epsilon, and how many answers are
wanted; all of pure epsilon, a record added or removed, the number of records unknown as it is to
us. Means are a noised sum by a noised count, half of epsilon each; a quantile is the candidate that
its exponential mechanism (permute and flip) picks.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import opendp.prelude as dp

dp.enable_features("contrib")

FLOATS = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.symmetric_distance()
TEXTS = dp.vector_domain(dp.atom_domain(T=str)), dp.symmetric_distance()


def measured(made: Any, epsilon: float) -> Any:
    """The measurement with the least noise that costs epsilon at most; `made` takes its scale."""
    return dp.binary_search_chain(made, d_in=1, d_out=epsilon)


def counts(request: dict[str, Any]) -> list[list[float]]:
    """A histogram over declared categories, what is none of them in a cell of its own."""
    asked = request["categories"]
    made = measured(
        lambda scale: (
            TEXTS
            >> dp.t.then_count_by_categories(asked, null_category=True)
            >> dp.m.then_laplace(scale)
        ),
        request["epsilon"],
    )
    return [made(request["values"]) for _ in range(request["draws"])]


def mean(request: dict[str, Any]) -> list[list[float]]:
    """The mean of values clamped to a range."""
    half, ends = request["epsilon"] / 2, (request["low"], request["high"])
    total = measured(
        lambda scale: (
            FLOATS >> dp.t.then_clamp(ends) >> dp.t.then_sum() >> dp.m.then_laplace(scale)
        ),
        half,
    )
    count = measured(lambda scale: FLOATS >> dp.t.then_count() >> dp.m.then_laplace(scale), half)
    values = request["values"]
    found = ((total(values), count(values)) for _ in range(request["draws"]))
    return [[min(max(s / max(n, 1), ends[0]), ends[1])] for s, n in found]


def quantile(request: dict[str, Any]) -> list[list[float]]:
    """One of the candidates."""
    candidates = request["candidates"]
    made = measured(
        lambda scale: (
            FLOATS
            >> dp.t.then_quantile_score_candidates(candidates, alpha=request["at"])
            >> dp.m.then_noisy_max(dp.max_divergence(), scale, negate=True)
        ),
        request["epsilon"],
    )
    return [[candidates[made(request["values"])]] for _ in range(request["draws"])]


KINDS = {"count": counts, "mean": mean, "quantile": quantile}


def main() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(KINDS[request["kind"]](request)), flush=True)


if __name__ == "__main__":
    main()
