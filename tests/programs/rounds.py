"""Whole trainings without parties: every learner's integers, their plain sum, the program's fold.

The sum is the one that every scheme opens, to the bit; what is left out is messages, ledgers, keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.encoding.contribution import Learner
from privagg.encoding.planned import decode_sum
from privagg.privacy.plan import TrainingPlan
from privagg.privacy.randomness import Randomness
from privagg.programs.program import Opened, Program


def trained(
    plan: TrainingPlan,
    learners: Mapping[str, Learner],
    program: Program,
    randomness: Randomness,
    *,
    cohort: Callable[[int], tuple[str, ...]] | None = None,
) -> NDArray[np.float64]:
    """The state after the plan's rounds; all take part, or whom `cohort` names."""
    state = program.begin()
    for number in range(1, plan.rounds + 1):
        names = cohort(number) if cohort else plan.names
        place = ("run", number, 1)
        parts: list[Any] = [learners[name].contribution(state, randomness, place) for name in names]
        total = np.sum(parts, axis=0)
        update = decode_sum(plan, place, state, total, names)
        state = program.fold(state, Opened(place, total, update, names))
    return state
