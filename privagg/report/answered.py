"""What was asked and answered: every figure recomputed from the opened sums in the record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from pydantic import ValidationError

from privagg.encoding.vectors import sum_of_text
from privagg.errors import ConfigError, LedgerError, ProgramMissingError
from privagg.privacy.ledger.entries import Released, RoundEnded
from privagg.privacy.plan import OpeningTerms, Plan, SumsPlan, load_plan
from privagg.programs.answering import contributors_of
from privagg.programs.answers import answer_facts
from privagg.programs.questions.question import OTHER
from privagg.programs.registry import program_of
from privagg.programs.sums_program import AnsweringProgram, NoisySum, openings_of
from privagg.report.language import say, told
from privagg.report.model import AnsweredFigure, Answers, Ends, Report

MOST_SENTENCES = 3
"""Figures of an answer that are all told in sentences; of more, the first alone."""


def asks(plan: Plan) -> TypeGuard[SumsPlan]:
    """Whether a plan pins a program that answers; a plan of sums alone may be for anything.

    Args:
        plan: any.
    """
    return isinstance(plan, SumsPlan) and "program" in plan.recipe


def program_in(plan: Plan) -> AnsweringProgram | None:
    """The program that a plan pins; None of a plan of training.

    Raises:
        ProgramMissingError: it is not installed here.
        LedgerError: it is none, or not the one that the openings are for.
    """
    if not asks(plan):
        return None
    try:
        found = program_of(plan.recipe)
        needed = openings_of(found, plan.openings[0].noise_multiplier)
    except ProgramMissingError:
        raise  # says nothing about the plan
    except (ConfigError, ValidationError, ValueError) as error:
        raise LedgerError(f"the plan pins what cannot be asked: {error}") from error
    if [*map(_but_noise, needed)] != [*map(_but_noise, plan.openings)]:
        raise LedgerError("the plan's openings are not those that its program needs")
    return found


def _but_noise(terms: OpeningTerms) -> dict[str, Any]:
    """What a program needs; how much noise there is, the plan says and every answer goes by."""
    return terms.model_dump(exclude={"noise_multiplier"})


def plan_in(facts: Mapping[str, Any]) -> Plan:
    """The plan that a run was begun under.

    Args:
        facts: of the entry that records its beginning.

    Raises:
        LedgerError: it holds none, or calls it by another digest.
        PlanError: what stands there is no plan.
    """
    stored = facts["plan"]
    try:
        agreed = json.loads(stored) if isinstance(stored, str) else stored
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"the coordinator's ledger holds no plan: {error}") from error
    plan = load_plan(agreed)
    if plan.digest != facts["plan_digest"]:
        raise LedgerError(
            f"the coordinator's ledger holds a plan with digest {plan.digest} and calls it "
            f"{facts['plan_digest']}; it is not the plan that was agreed to"
        )
    return plan


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
        ProgramMissingError: as `program_in`.
        LedgerError: the record does not hold the sums of the plan's rounds, in their order.
    """
    program = program_in(plan)
    if program is None or not asks(plan):
        return None
    sums = opened_sums(plan, rounds)
    if not sums:
        return None
    file = released.facts if released is not None else {}
    return Answers.model_validate(
        {
            "file": file.get("answers_file"),
            "sha256": file.get("answers_sha256"),
            "day": day if file else None,
            "level": program.level,
            "contributors": contributors_of(plan, sums),
            "answers": [answer_facts(answer) for answer in program.answers(sums)],
        }
    )


def opened_sums(plan: SumsPlan, rounds: Iterable[RoundEnded]) -> list[NoisySum]:
    """What each round of a job opened, as the coordinator recorded it.

    Args:
        plan: the job's.
        rounds: its attempts.

    Raises:
        LedgerError: the record does not hold the sums of the plan's rounds, in their order.
    """
    opened = [ended for ended in rounds if ended.outcome == "opened"]
    if [ended.round for ended in opened] != [*range(1, len(opened) + 1)]:
        raise LedgerError("the coordinator's ledger has no opened sum of one round after the other")
    return [_opened(plan, ended) for ended in opened]


def _opened(plan: SumsPlan, ended: RoundEnded) -> NoisySum:
    try:
        total = sum_of_text(ended.facts["opened"], plan.upload_dimension)
        return NoisySum.of(plan, ended.round, total, ended.facts["survivors"])
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"the coordinator's ledger holds no opened sum: {error}") from error


def about(question: dict[str, Any]) -> str:
    """What a question asks of the records, in the words of its own class."""
    return told(str(question.get("about", question.get("kind"))))


def figure_name(figure: AnsweredFigure) -> str:
    """A figure and the group that it is of."""
    what = told(figure.what)
    group = group_name(figure)
    return say("{figure} ({group})", figure=what, group=group) if group else what


def group_name(figure: AnsweredFigure) -> str:
    """The group that a figure is of; empty where it is of all records."""
    return say(", ").join(
        f"{column} = {category_name(category)}" for column, category in figure.group.items()
    )


def category_name(category: str) -> str:
    """A category as people read it."""
    return say("other or missing") if category == OTHER else category


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


STARTS = "points to start from"

IN_TABLES = {"points", "effect", "importance"}
"""Figures that mean something beside each other alone: none is told in a sentence."""


@dataclass(frozen=True)
class Told:
    """An answer as people read it; each figure stands in one place.

    Attributes:
        sentences: of the first figure, or of all where they are few; and of those that the noise
            leaves without an interval, or hides.
        columns: of the table: the figure, its value, the interval for these records, the one for
            the population, and where a figure has them its standard errors.
        rows: of every other figure, as many texts as there are columns.
    """

    sentences: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def told_answer(figures: Iterable[AnsweredFigure], level: float) -> Told:
    """What an answer's figures say.

    Args:
        figures: of one answer.
        level: of the intervals.
    """
    figures = tuple(figures)
    known = [each for each in figures if each.value is not None]
    sure = [each for each in known if each.records or each.population]
    few = len(sure) <= MOST_SENTENCES
    said, others = (sure, []) if few else (sure[:1], sure[1:])
    if {each.what for each in sure} <= IN_TABLES:
        said, others = [], sure
    lines = [_sentence(each, level) for each in said]
    if unsure := [each for each in known if each not in sure]:
        lines.append(_without_interval(unsure))
    if silent := [each for each in figures if each.value is None]:
        names = say("; ").join(map(figure_name, silent))
        lines.append(say("Too few records for the noise to tell: {figures}.", figures=names))
    columns: tuple[str, ...] = (say("Figure"), say("Value"))
    columns += (say("For these records"), say("For the population"))
    if with_errors := any(each.standard_errors for each in others):
        columns += (say("Standard error by noise"), say("with sampling"))
    rows = (_row(each)[: 6 if with_errors else 4] for each in others)
    return Told(tuple(lines), columns, tuple(rows))


def _row(figure: AnsweredFigure) -> tuple[str, ...]:
    errors = figure.standard_errors
    return (
        figure_name(figure),
        number_text(figure.value),
        ends_text(figure.records),
        ends_text(figure.population),
        number_text(errors.records if errors else None),
        number_text(errors.population if errors else None),
    )


def _without_interval(figures: Sequence[AnsweredFigure]) -> str:
    each = (
        say("{figure} {value}", figure=figure_name(figure), value=number_text(figure.value))
        for figure in figures
    )
    return say(
        "The noise leaves no interval for what came out as {figures}: do not use it as an "
        "estimate. A larger ε, more records or fewer columns tell more.",
        figures=say("; ").join(each),
    )


def _sentence(figure: AnsweredFigure, level: float) -> str:
    both = (figure.records, figure.population)
    if figure.what == STARTS:
        return say("Every record starts from {points} points.", points=number_text(figure.value))
    if all(ends is not None and ends.low == ends.high for ends in both):
        return say("{figure} is {value}.", figure=figure_name(figure),
                   value=number_text(figure.value))  # fmt: skip
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
    """What a report's plan asks, by name: its questions, or another program; none of training.

    Whoever made a report may have written anything there.
    """
    recipe = report.plan.get("recipe")
    if not isinstance(recipe, dict) or not recipe.get("program"):
        return []
    if report.plan.get("mode") != SumsPlan.model_fields["mode"].default:
        return []  # of a plan of training it is a word, and a model was trained
    asked = recipe.get("asked")
    questions = asked.get("questions") if isinstance(asked, dict) else None
    if not isinstance(questions, list):
        return [str(recipe["program"])]
    return [str(each.get("name")) for each in questions if isinstance(each, dict)]
