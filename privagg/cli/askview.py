"""What questions ask and cost, before anybody asks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from privagg.cli import console
from privagg.cli.planview import budgets
from privagg.config.asking import SumsSetup
from privagg.config.evaluating import EvaluateSetup, ForeseenEvaluation, RoundsSetup
from privagg.config.facts import FactsSetup
from privagg.config.setup import Setup
from privagg.party.ready import project
from privagg.privacy.events import DpEvent
from privagg.privacy.plan import SumsPlan
from privagg.programs.choosing import Choice
from privagg.programs.evaluation import Evaluated, Evaluation
from privagg.programs.questions.program import Questions
from privagg.programs.sums_program import NoisySum


def questions_facts(setup: SumsSetup) -> dict[str, Any]:
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
        "level": setup.sums.level,
        "noise": _noise(plan),
        "noise_multiplier": format(plan.openings[0].noise_multiplier, "f"),
        "epsilon_of_one_share": format(_of_one_share(setup), "f"),
        "rounds": plan.rounds,
        "numbers": sum(opening.length for opening in plan.openings),
        "program": setup.sums.name,
        "questions": setup.sums.asked.get("questions", []),
        "budgets": budgets(setup),
    }


def print_questions(out: Console, setup: SumsSetup) -> None:
    """What is asked and what it costs, for a person.

    Args:
        out: where it is printed.
        setup: the questions as a job.
    """
    from privagg.report.figures import count_text, delta_text, epsilon_text
    from privagg.report.language import say, told

    plan = setup.plan
    head = say("Questions of {federation}", federation=setup.config.federation.name)
    if setup.job == FactsSetup.job:
        head = say("Facts to declare in {federation}", federation=setup.config.federation.name)
    if setup.job == EvaluateSetup.job:
        head = say("Evaluation of {federation}", federation=setup.config.federation.name)
    if setup.job == RoundsSetup.job:
        head = say("Evaluation between the rounds of {federation}",
                   federation=setup.config.federation.name)  # fmt: skip
    console.heading(out, head)
    numbers = sum(opening.length for opening in plan.openings)
    pairs = [*_asked(setup)]
    pairs += [
        (say("cost"), say("ε {epsilon} at δ = {delta} for every data set; the unit is a record",
                          epsilon=epsilon_text(setup.cost, 4), delta=delta_text(plan.delta))),
        (say("noise"), say("{kind}; against whoever reads a site's own upload, one share of it: "
                           "ε {epsilon}", kind=told(_noise(plan)),
                           epsilon=epsilon_text(_of_one_share(setup), 4))),
        (say("opened"), say("{times}: {numbers} with noise", times=count_text(
            plan.rounds, "sum"), numbers=count_text(numbers, "number"))),
    ]  # fmt: skip
    if not isinstance(setup, ForeseenEvaluation):
        pairs.append((say("plan digest"), plan.digest))
    console.facts(out, pairs)


def print_choice(out: Console, choice: Choice) -> None:
    """What `[ask] program = "auto"` comes to, and why.

    Args:
        out: where it is printed.
        choice: of the configuration.
    """
    from privagg.report.language import say

    console.heading(out, say("Chosen by public facts, as ask.program is “auto”"))
    model = choice.program or say("training, by `privagg run`; nothing is asked")
    console.facts(out, [(say("model"), model), (say("because"), choice.reason)])


def _noise(plan: SumsPlan) -> str:
    """Which noises the plan's openings have."""
    names = {True: "integer Laplace", False: "Gaussian"}
    return " and ".join(
        dict.fromkeys(names[opening.moves is not None] for opening in plan.openings)
    )


def _of_one_share(setup: SumsSetup) -> Decimal:
    """What the job costs against whoever knows all shares of the noise but the site's own."""
    plan, event = setup.plan, DpEvent()
    for number in range(1, plan.rounds + 1):
        event += plan.in_round(number).event_of_shares(plan.names[0], 1)
    return setup.accountant.epsilon(event, plan.delta).upper


def _asked(setup: SumsSetup) -> Iterator[tuple[str, str]]:
    """What is asked by name, the part of the budget that it has, and how near counts will be."""
    from privagg.report.answered import number_text
    from privagg.report.language import say, told

    program = setup.sums
    if isinstance(program, Evaluation):
        yield from _evaluated(program.content)
        return
    if not isinstance(program, Questions):
        yield say("program"), program.name
        yield say("settings"), _settings(program.asked)
        return
    questions = program.content.questions
    whole = sum(question.share for question in questions)
    for each, reach in zip(questions, _reaches(setup.plan, program), strict=True):
        share = f"{float(100 * each.share / whole):.3g} %"
        what = told(each.about)
        text = say("{what}; {share} of the budget", what=what, share=share)
        if reach is not None:
            text = say("{text}; counts to ± {reach}, by the noise alone", text=text,
                       reach=number_text(reach))  # fmt: skip
        yield each.name, text


def _settings(asked: Mapping[str, JsonValue]) -> str:
    """What a program is asked beside the table, one setting after the other; empty ones unsaid."""
    nothing: list[JsonValue] = [None, {}, [], ""]
    told = (
        f"{key.replace('_', ' ')} {_setting(value)}"
        for key, value in asked.items()
        if key != "data" and value not in nothing
    )
    return "; ".join(told)


def _setting(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {_setting(each)}" for key, each in value.items() if each is not None
        )
    return str(value)


def _reaches(plan: SumsPlan, program: Questions) -> Iterator[float | None]:
    """How far the interval of a question's counts will reach for these records, where it has any.

    Known beforehand: it is the noise's alone, with every site in the sum.
    """
    nothing = NoisySum.of(plan, 1, np.zeros(plan.upload_dimension, np.int64), plan.names)
    for answer in program.answers([nothing]):
        ends = [figure.records.high for figure in answer.figures if figure.what == "count"]
        yield max(ends, default=None)


def _evaluated(content: Evaluated) -> Iterator[tuple[str, str]]:
    """Which model is evaluated, and on what."""
    from privagg.report.language import say

    rule = content.held_out
    digest, schedule = content.model.sha256, content.schedule
    if schedule is not None:
        yield (
            say("models"),
            say("those after every {every} of {rounds} rounds, {looks} at most",
                every=schedule.every, rounds=schedule.rounds, looks=schedule.looks),
        )  # fmt: skip
    elif digest is None or not digest.strip("0"):
        yield say("model"), say("none yet: the one that is trained")
    else:
        yield say("model"), say("SHA-256 {digest}", digest=digest)
    yield (
        say("records"),
        say("about {share} of every site's, held out of training by the key “{key}”",
            share=f"{float(100 * rule.share):.3g} %", key=rule.key),
    )  # fmt: skip
    groups = [say("site")] if content.sites else []
    if groups := [*groups, *content.subgroups]:
        yield say("also by"), say(", ").join(groups)


def print_both(out: Console, training: Setup, setup: SumsSetup) -> None:
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
                "{site}: this and training come to ε {after} together, beyond the budget of "
                "{budget}; a larger privacy.budget_epsilon has room for both",
                site=name, after=epsilon_text(after, 4), budget=epsilon_text(budget, 4),
            )  # fmt: skip
            out.print(Text(text, style="yellow"), soft_wrap=True)
