"""What a report can say of its plan: whether it is one, and what its compression does."""

from __future__ import annotations

from privagg.errors import PlanError
from privagg.privacy.plan import Compression, Rounding, TrainingPlan, load_plan
from privagg.report.figures import count_text
from privagg.report.model import Report

ROUNDING_PHRASE = {
    Rounding.TRUNCATE: "truncated towards zero",
    Rounding.NEAREST: "rounded to the nearest grid point",
    Rounding.STOCHASTIC: "rounded at random (right on average)",
}


def readable_plan(report: Report) -> TrainingPlan | None:
    """The plan of a report; None where its facts are none that this version understands.

    Whoever made a report may have written anything there, and it is shown all the same: whether it
    is true is for `verify` to say.
    """
    try:
        return load_plan(report.plan)
    except PlanError:
        return None


def compression_text(plan: TrainingPlan) -> str:
    """How uploads are made smaller and what that does to sensitivity; empty without compression."""
    terms = plan.compression
    if terms is None:
        return ""
    parts = [_sent(terms, plan.dimension)]
    if plan.rounds_updates:
        parts.append(_rounded(terms))
    return " ".join((*parts, plan.compression_cost))


def _sent(terms: Compression, dimension: int) -> str:
    whole = count_text(dimension, "coordinate")
    if terms.kept is None:
        return f"By the plan each upload carries all {whole}."
    which = (
        "chosen at random"
        if terms.mask == "random-k"
        else "half of them the largest of the model released before, the others chosen at random"
    )
    return (
        f"By the plan each upload carries {terms.kept} of the {whole}, {which}, the "
        "same at every site and anew in every round, from public facts only."
    )


def _rounded(terms: Compression) -> str:
    they = "After a public random rotation they are" if terms.rotation else "They are"
    bits = f", to at most {terms.bits} bits each before weight and noise" if terms.bits else ""
    return f"{they} {ROUNDING_PHRASE[terms.rounding]}{bits}."
