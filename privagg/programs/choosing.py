"""Which model a declared table should have: `[ask] program = "auto"`, by public facts alone.

What decides is how much noise a bin has beside its records (`noise_by_bin`). With little, a
scorecard learns bends and steps that a logistic model misses, from fewer openings; with much, what
its many bins say is drowned, and a logistic model with proposed settings, which says less, is told
better. `python -m tests.benchmarks.synthetic_auto` derives where on synthetic tables.

Nothing else is chosen from: other programs are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from privagg.programs.scorecard.asked import Asked, noise_of, refusal
from privagg.training.table import TableSchema
from privagg.training.targets import ClassKind

AUTO = "auto"
"""As it is written in place of a program's name."""

MOST_NOISE = 0.15
"""Of a bin, up to which a scorecard is taken."""


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
        program: its name; None where the model is trained by gradients, a job of its own.
        reason: one sentence, by public facts.
    """

    program: str | None
    reason: str


def choice(asked: Mapping[str, Any], records: int, epsilon: Fraction, delta: Fraction) -> Choice:
    """What a table should be asked, or whether to train on it.

    Args:
        asked: what a scorecard would be asked.
        records: of all sites, as declared.
        epsilon, delta: what the model may cost each data set.

    Raises:
        ValueError: `asked` is not a scorecard's (pydantic's is).
        ConfigError: the scorecard is too large.
    """
    target = TableSchema.model_validate(asked["data"]).target
    if why := refusal(target):
        return Choice(None, f"{why}: a model trained by gradients is for it")
    content = Asked.model_validate(asked)
    noise = noise_of(content, records, epsilon, delta)
    about = f"the noise is about {noise:.2g} of the records of a bin"
    if noise > MOST_NOISE and isinstance(target, ClassKind):
        return Choice(
            None, f"{about}, above {MOST_NOISE}: a logistic model trained by gradients bears more"
        )
    made = content.chosen(records, epsilon, delta)
    times = "1 opening" if made.openings == 1 else f"{made.openings} openings"
    ends = "at most" if noise <= MOST_NOISE else "and proposals for training are for classes: above"
    return Choice(
        "scorecard",
        f"{about}, {ends} {MOST_NOISE}: a scorecard of {times}, {made.bins} bins a number",
    )
