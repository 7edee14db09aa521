"""Answers to questions, recomputed from the opened sum, and the sum held against its signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

from privagg.audit.bare import FROM_LEDGERS
from privagg.audit.claims import Findings, Verdict
from privagg.audit.replayed import ReplayedLedger
from privagg.audit.work import Work
from privagg.digest import is_digest_of
from privagg.encoding.vectors import sum_of_text
from privagg.errors import ProgramMissingError, VerificationError
from privagg.privacy.ledger.entries import RoundEnded
from privagg.privacy.plan import Plan
from privagg.protocol.names import COORDINATOR
from privagg.report.accounting import AttemptId
from privagg.report.answered import answers_of, asked_names, asks, program_in
from privagg.report.figures import count_text
from privagg.report.model import Answers, Report

ANSWERS = "answers follow from the opened sum"
SUM = "opened sum: the one that the key holder signed"

SUMS_ARE_PAYLOADS = ("ckks", "bfv", "paillier", "plaintext")
"""Schemes in which what the key holder signs is the sum itself, little-endian int64."""

FIGURE_TOLERANCE = 1e-9
"""Relative; a figure's last digits depend on the machine's logarithm and sums of floats."""


def check_answers(
    findings: Findings,
    report: Report,
    plan: Plan,
    ledgers: Mapping[str, ReplayedLedger],
    signed: Mapping[AttemptId, str],
    work: Work,
) -> None:
    """Hold a report's answers against the opened sum, and that against the key holder's signature.

    Answers whose recomputation does not fit into the work are not decided.

    Args:
        findings: gets the claims; none for a run that asked nothing.
        report: what is claimed.
        plan: the run's.
        ledgers: party -> ledger, of those that hold.
        signed: (round, attempt) -> tree digest of the payload that the key holder signed.
        work: what may be spent on recomputing answers, here and where the report is made again.
    """
    if not asks(plan) and report.answers is None:
        return
    findings.section = "run"
    entries = ledgers[COORDINATOR].entries() if COORDINATOR in ledgers else []
    rounds = [
        entry.payload
        for entry in entries
        if isinstance(entry.payload, RoundEnded) and entry.payload.run == report.run
    ]
    with findings.guarded(ANSWERS, _claimed(report)):
        _check_figures(findings, report, plan, rounds, work)
    opened = [ended for ended in rounds if ended.outcome == "opened"]
    for ended in opened:
        with findings.guarded(SUM, f"round {ended.round}, attempt {ended.attempt}"):
            _check_sum(findings, report, plan, ended, signed.get((ended.round, ended.attempt)))


def _check_figures(
    findings: Findings, report: Report, plan: Plan, rounds: Sequence[RoundEnded], work: Work
) -> None:
    try:
        if (program := program_in(plan)) is not None:
            price = 2 * program.work() // 1000
            work.require(price)
            work.take(price)
        expected = answers_of(plan, rounds, None, None)
    except ProgramMissingError as error:
        findings.undecided(ANSWERS, _claimed(report), f"the package of its program; {error}")
        return
    mine, theirs = _figures(report.answers), _figures(expected)
    different = first_difference(mine, theirs)
    findings.check(
        ANSWERS, _claimed(report), "recomputed alike" if not different else "other figures",
        not different, different, compared=_leaves(theirs),
    )  # fmt: skip


def are_decided(findings: Findings) -> bool:
    """Whether answers were recomputed: their program is installed, and the work allowed it.

    Args:
        findings: of a verification that has come past `check_answers`.
    """
    verdicts = [claim.verdict for claim in findings.claims if claim.subject == ANSWERS]
    return bool(verdicts) and Verdict.UNDECIDED not in verdicts


def leave_answers(findings: Findings, report: Report) -> Report:
    """A report alone holds no opened sum: its answers are told apart from what follows.

    Args:
        findings: gets the claim, undecided; none for a run that asked nothing.
        report: what is claimed.

    Returns:
        The report without its answers.
    """
    if report.answers is not None or asked_names(report):
        findings.section = "run"
        findings.undecided(ANSWERS, _claimed(report), FROM_LEDGERS)
    return report.model_copy(update={"answers": None})


def _check_sum(
    findings: Findings, report: Report, plan: Plan, ended: RoundEnded, signed: str | None
) -> None:
    total = sum_of_text(ended.facts["opened"], plan.upload_dimension)
    claimed = count_text(len(total), "integer")
    if max(int(total.max()), -int(total.min())) > plan.sum_bound:
        raise VerificationError(f"an integer lies beyond the plan's bound of {plan.sum_bound}")
    if signed is None or report.scheme.name not in SUMS_ARE_PAYLOADS:
        findings.attested(
            SUM, claimed, by=COORDINATOR,
            settle="the key holder's statement of its opening, under a scheme in which it signs "
            "the sum",
        )  # fmt: skip
        return
    same = is_digest_of(total.astype("<i8").tobytes(), signed)
    findings.check(
        SUM, claimed, f"digest {signed[:16]}", same,
        "" if same else "the record holds another sum than was opened",
        compared=len(total),
    )  # fmt: skip


def _figures(answers: Answers | None) -> Any:
    """What follows from the opened sum; which file was released is the record's word."""
    if answers is None:
        return None
    return answers.model_dump(mode="json", exclude={"file", "sha256", "day"})


def _claimed(report: Report) -> str:
    if report.answers is None:
        return "none"
    figures = sum(len(answer.figures) for answer in report.answers.answers)
    return count_text(figures, "figure")


def first_difference(claimed: Any, expected: Any, path: str = "answers") -> str:
    """Where two JSON values differ by more than the tolerance of figures; empty where nowhere.

    Args:
        claimed: in the report.
        expected: as it follows.
        path: where both stand.
    """
    kinds = {type(claimed), type(expected)}
    if kinds == {dict} and claimed.keys() == expected.keys():
        pairs = [(f"{path}.{key}", claimed[key], expected[key]) for key in expected]
    elif kinds == {list} and len(claimed) == len(expected):
        both = zip(claimed, expected, strict=True)
        pairs = [(f"{path}[{place}]", *values) for place, values in enumerate(both)]
    elif type(claimed) is float and type(expected) is float:
        alike = isclose(claimed, expected, rel_tol=FIGURE_TOLERANCE, abs_tol=FIGURE_TOLERANCE)
        return "" if alike else f"{path} is {claimed!r}, {expected!r} follows from the opened sum"
    else:
        alike = type(claimed) is type(expected) and claimed == expected
        return "" if alike else f"{path} is not what follows from the opened sum"
    return next((found for p, a, b in pairs if (found := first_difference(a, b, p))), "")


def _leaves(value: Any) -> int:
    if isinstance(value, dict | list):
        return sum(map(_leaves, value.values() if isinstance(value, dict) else value))
    return 1
