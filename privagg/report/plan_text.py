"""What a report can say of its plan: whether it is one, and what its compression does."""

from __future__ import annotations

from privagg.errors import PlanError
from privagg.privacy.plan import (
    Compression,
    OpeningTerms,
    Plan,
    Rounding,
    SumsPlan,
    TrainingPlan,
    load_plan,
)
from privagg.report.figures import count_text, joined
from privagg.report.language import say, told
from privagg.report.model import Report

ROUNDING_PHRASE = {
    Rounding.TRUNCATE: "truncated towards zero",
    Rounding.NEAREST: "rounded to the nearest grid point",
    Rounding.STOCHASTIC: "rounded at random (right on average)",
}

MOST_OPENINGS = 12
"""Different openings that are told; the JSON report has all."""


def readable_plan(report: Report) -> Plan | None:
    """The plan of a report; None where its facts are none that this version understands.

    Whoever made a report may have written anything there, and it is shown all the same: whether it
    is true is for `verify` to say.
    """
    try:
        return load_plan(report.plan)
    except PlanError:
        return None


def compression_text(plan: Plan) -> str:
    """How uploads are made smaller and what that does to sensitivity; empty without compression."""
    if not isinstance(plan, TrainingPlan) or (terms := plan.compression) is None:
        return ""
    parts = [_sent(terms, plan.dimension)]
    if plan.rounds_updates:
        parts.append(_rounded(terms))
    return say(" ").join((*parts, told(plan.compression_cost)))


def _sent(terms: Compression, dimension: int) -> str:
    whole = count_text(dimension, "coordinate")
    if terms.kept is None:
        return say("By the plan each upload carries all {coordinates}.", coordinates=whole)
    which = (
        say("chosen at random")
        if terms.mask == "random-k"
        else say(
            "half of them the largest of the model released before, the others chosen at random"
        )
    )
    return say(
        "By the plan each upload carries {kept} of the {coordinates}, {which}, the "
        "same at every site and anew in every round, from public facts only.",
        kept=terms.kept,
        coordinates=whole,
        which=which,
    )


def _rounded(terms: Compression) -> str:
    sentences = {
        (False, False): "They are {rounded}.",
        (False, True): "They are {rounded}, to at most {bits} bits each before weight and noise.",
        (True, False): "After a public random rotation they are {rounded}.",
        (True, True): "After a public random rotation they are {rounded}, to at most {bits} bits "
        "each before weight and noise.",
    }
    sentence = sentences[terms.rotation, bool(terms.bits)]
    return say(sentence, rounded=say(ROUNDING_PHRASE[terms.rounding]), bits=terms.bits)


def mode_text(plan: Plan | None, mode: object) -> str:
    """A plan's way of being private, in words where its name is no word.

    Args:
        plan: as it is read; None where it cannot be.
        mode: as the report has it.
    """
    if not isinstance(plan, SumsPlan):
        return str(mode)
    if any(opening.shards for opening in plan.openings):
        return say("sums over shards of records")
    return say("sums over records")


def openings_text(plan: SumsPlan) -> tuple[tuple[str, str], ...]:
    """(which rounds, what each of them opens), where rounds differ one after the other."""
    rounds: dict[OpeningTerms, list[int]] = {}
    for number, terms in enumerate(plan.openings, 1):
        rounds.setdefault(terms, []).append(number)
    named = [(joined([*map(str, numbers)], most=6), terms) for terms, numbers in rounds.items()]
    return tuple((numbers, _opening_text(terms)) for numbers, terms in named[:MOST_OPENINGS])


def _opening_text(terms: OpeningTerms) -> str:
    integers = count_text(terms.length, "integer")
    moved = say("one record moves them by at most {norm} grid units in L2",
                norm=terms.sensitivity_grid)  # fmt: skip
    noised = say("the noise multiplier is {noise}", noise=format(terms.noise_multiplier, "f"))
    if terms.moves:
        noised = say("integer Laplace noise has scale {scale}", scale=format(terms.scale, "f"))
    parts = [integers, moved, noised]
    if terms.shards:
        parts.insert(1, say("{n} shards at each site vote", n=terms.shards))
    return say("; ").join(parts)
