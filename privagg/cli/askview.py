"""What questions ask and cost, before anybody asks them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from privagg.cli import console
from privagg.cli.planview import budgets
from privagg.config.asking import AskSetup
from privagg.config.setup import Setup
from privagg.party.ready import project


def questions_facts(setup: AskSetup) -> dict[str, Any]:
    """What the questions are and cost; JSON-ready.

    Args:
        setup: the questions as a job.
    """
    plan = setup.plan
    return {
        "plan_digest": plan.digest,
        "mode": plan.mode,
        "unit": plan.unit.value,
        "epsilon": format(setup.cost, "f"),
        "delta": format(plan.delta, "f"),
        "level": setup.questions.asked.level,
        "noise_multiplier": format(plan.openings[0].noise_multiplier, "f"),
        "numbers": plan.upload_dimension,
        "questions": [each.model_dump(mode="json") for each in setup.questions.asked.questions],
        "budgets": budgets(setup),
    }


def print_questions(out: Console, setup: AskSetup) -> None:
    """What is asked and what it costs, for a person.

    Args:
        out: where it is printed.
        setup: the questions as a job.
    """
    from privagg.report.answered import about
    from privagg.report.figures import count_text, delta_text, epsilon_text
    from privagg.report.language import say

    plan, asked = setup.plan, setup.questions.asked
    head = say("Questions of {federation}", federation=setup.config.federation.name)
    console.heading(out, head)
    whole = sum(question.share for question in asked.questions)
    pairs = [
        (question.name, say("{what}; {share} of the budget", what=about(question.model_dump()),
                            share=f"{float(100 * question.share / whole):.3g} %"))
        for question in asked.questions
    ]  # fmt: skip
    pairs += [
        (say("cost"), say("ε {epsilon} at δ = {delta} for every data set; the unit is a record",
                          epsilon=epsilon_text(setup.cost, 4), delta=delta_text(plan.delta))),
        (say("opened"), say("once, {numbers} with noise", numbers=count_text(
            plan.upload_dimension, "number"))),
        (say("plan digest"), plan.digest),
    ]  # fmt: skip
    console.facts(out, pairs)


def print_both(out: Console, training: Setup, setup: AskSetup) -> None:
    """The questions beside the training that was shown, and whether budgets have room for both.

    Args:
        out: where it is printed.
        training: the training's.
        setup: the questions as a job.
    """
    from privagg.report.figures import epsilon_text
    from privagg.report.language import say

    print_questions(out, setup)
    for name in setup.plan.names:
        both = setup.plan.total_committed(name) + training.plan.total_committed(name)
        if setup.budget_key(name) != training.budget_key(name):
            continue  # another unit, another budget
        _, after, budget, fits = project(setup, name, both)
        if not fits:
            text = say(
                "{site}: asking and then training comes to ε {after}, beyond the budget of "
                "{budget}; a larger privacy.budget_epsilon has room for both",
                site=name, after=epsilon_text(after, 4), budget=epsilon_text(budget, 4),
            )  # fmt: skip
            out.print(Text(text, style="yellow"), soft_wrap=True)
