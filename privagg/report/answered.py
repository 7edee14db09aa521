"""What was asked and answered: every figure recomputed from the opened sum in the record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from privagg.encoding.vectors import sum_of_text
from privagg.errors import ConfigError, LedgerError
from privagg.privacy.ledger.entries import Released, RoundEnded
from privagg.privacy.plan import Plan, SumsPlan
from privagg.programs.questions.asked import OTHER
from privagg.programs.questions.asking import answer_facts
from privagg.programs.questions.program import Questions, of_recipe
from privagg.report.language import say, told
from privagg.report.model import AnsweredFigure, Answers, Ends, Report


def questions_of(plan: Plan) -> Questions | None:
    """The questions that a plan pins; None of any other plan.

    Raises:
        LedgerError: they are none, or not those that its openings are for.
    """
    if not isinstance(plan, SumsPlan) or plan.recipe.get("program") != "questions":
        return None
    try:
        found = of_recipe(plan.recipe)
    except (ConfigError, ValidationError, ValueError) as error:
        raise LedgerError(f"the plan pins questions that cannot be asked: {error}") from error
    if found.openings(plan.openings[0].noise_multiplier) != plan.openings:
        raise LedgerError("the plan's opening is not the one that its questions need")
    return found


def answers_of(
    plan: Plan, rounds: Iterable[RoundEnded], released: Released | None, day: str | None
) -> Answers | None:
    """The answers of a run; None where it asked nothing, or opened nothing.

    Args:
        plan: the run's.
        rounds: its attempts, as the coordinator recorded them.
        released: the record of what left the federation.
        day: when that was recorded.

    Raises:
        LedgerError: the record holds no such sum.
    """
    questions = questions_of(plan)
    opened = [ended for ended in rounds if ended.outcome == "opened"]
    if questions is None or not isinstance(plan, SumsPlan) or not opened:
        return None
    facts = opened[-1].facts
    try:
        total = sum_of_text(facts["opened"], plan.upload_dimension)
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"the coordinator's ledger holds no opened sum: {error}") from error
    contributors = tuple(facts["survivors"])
    made = questions.answers(plan, total, contributors)
    file = released.facts if released is not None else {}
    return Answers.model_validate(
        {
            "file": file.get("answers_file"),
            "sha256": file.get("answers_sha256"),
            "day": day if file else None,
            "level": questions.asked.level,
            "contributors": contributors,
            "answers": [answer_facts(answer) for answer in made],
        }
    )


def about(question: dict[str, Any]) -> str:
    """What a question asks of the records, in a few words."""
    by = question.get("by") or ()
    groups = [by] if isinstance(by, str) else list(by)
    of = question.get("of") or ()
    columns = [of] if isinstance(of, str) else list(of)
    words = {
        "count": say("how many records"),
        "mean": say("count, sum, mean and variance"),
        "quantiles": say("quantiles"),
        "missing": say("how many records lack a value"),
    }
    text = words.get(str(question.get("kind")), str(question.get("kind")))
    if columns:
        text = say("{what} of {columns}", what=text, columns=say(", ").join(columns))
    if groups:
        text = say("{what} by {columns}", what=text, columns=say(", ").join(groups))
    return text


def figure_name(figure: AnsweredFigure) -> str:
    """A figure and the group that it is of."""
    what = told(figure.what)
    group = say(", ").join(
        f"{column} = {say('other or missing') if category == OTHER else category}"
        for column, category in figure.group.items()
    )
    return say("{figure} ({group})", figure=what, group=group) if group else what


def number_text(value: float | None) -> str:
    """A figure as people read it: four significant digits; counts of thousands in full."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def ends_text(ends: Ends | None) -> str:
    """An interval as people read it."""
    if ends is None:
        return "–"
    return say("{low} to {high}", low=number_text(ends.low), high=number_text(ends.high))


def sentence(figure: AnsweredFigure, level: float) -> str:
    """What a figure says, in one sentence."""
    if figure.value is None:
        return say("{figure}: too few records for the noise; nothing can be said.",
                   figure=figure_name(figure))  # fmt: skip
    return say(
        "{figure} is about {value}: for these records between {records}, for the population that "
        "they stand for between {population}, each with {level} confidence.",
        figure=figure_name(figure),
        value=number_text(figure.value),
        records=_between(figure.records),
        population=_between(figure.population),
        level=f"{100 * level:g} %",
    )


def _between(ends: Ends | None) -> str:
    if ends is None:
        return say("any two values")
    return say("{low} and {high}", low=number_text(ends.low), high=number_text(ends.high))


def asked_names(report: Report) -> list[str]:
    """The names of the questions that a report's plan pins; none of a report on training.

    Whoever made a report may have written anything there.
    """
    recipe = report.plan.get("recipe")
    if not isinstance(recipe, dict) or recipe.get("program") != "questions":
        return []
    if report.plan.get("mode") != SumsPlan.model_fields["mode"].default:
        return []  # of a plan of training it is a word, and a model was trained
    asked = recipe.get("asked")
    questions = asked.get("questions") if isinstance(asked, dict) else None
    if not isinstance(questions, list):
        return []
    return [str(each.get("name")) for each in questions if isinstance(each, dict)]
