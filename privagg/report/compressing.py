"""What a plan's compression does, in sentences that follow from the plan alone."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue, ValidationError

from privagg.privacy.plan.compression import Compression, Rounding
from privagg.report.figures import count_text

ROUNDING_PHRASE = {
    Rounding.TRUNCATE: "truncated towards zero",
    Rounding.NEAREST: "rounded to the nearest grid point",
    Rounding.STOCHASTIC: "rounded at random (right on average)",
}


def compression_of(plan: Mapping[str, JsonValue]) -> Compression | None:
    """The compression of a plan's JSON; None where it has none, or none that this version knows."""
    if plan.get("compression") is None:
        return None
    try:
        return Compression.model_validate(plan["compression"])
    except ValidationError:
        return None


def compression_text(plan: Mapping[str, JsonValue]) -> str:
    """How uploads are made smaller and what that does to sensitivity; empty without compression.

    Args:
        plan: a plan's JSON facts, not trusted to be any.
    """
    terms, dimension = compression_of(plan), plan.get("dimension")
    if terms is None or not isinstance(dimension, int):
        return ""
    parts = [_sent(terms, dimension), _rounded(terms, plan), _sensitivity(terms, plan)]
    return " ".join(part for part in parts if part)


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


def _rounded(terms: Compression, plan: Mapping[str, JsonValue]) -> str:
    if plan.get("mode") == "record-distributed":
        return ""
    they = "After a public random rotation they are" if terms.rotation else "They are"
    bits = f", to at most {terms.bits} bits each before weight and noise" if terms.bits else ""
    return f"{they} {ROUNDING_PHRASE[terms.rounding]}{bits}."


def _sensitivity(terms: Compression, plan: Mapping[str, JsonValue]) -> str:
    if plan.get("mode") == "record-local":
        return "That is done to a private update and costs no privacy."
    if plan.get("mode") == "record-distributed":
        return "A record's sensitivity stays what it was."
    steps, sensitivity = plan.get("clip_norm_grid"), plan.get("sensitivity_grid")
    if not isinstance(steps, int) or not isinstance(sensitivity, int):
        return ""
    return (
        f"Rounding included, the sensitivity is {sensitivity} grid units where the clip norm has "
        f"{steps}; the noise is sized for the former."
    )
