"""Which round's model a training released, recomputed from the opened figures of its rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privagg.audit.claims import Findings
from privagg.audit.replayed import ReplayedLedger
from privagg.errors import ProgramMissingError
from privagg.privacy.ledger.entries import Payload, Released
from privagg.privacy.plan import Plan
from privagg.programs.evaluation.rounds import LOOKS
from privagg.protocol.names import COORDINATOR
from privagg.report.model import Report, Selection
from privagg.report.selected import ROUND, Looks, looks_of, looks_run

BEST = "released round follows from the opened figures of the rounds"
EVALUATED = "evaluated models: those that the training had opened by then"


def check_selection(
    findings: Findings, report: Report, plan: Plan, ledgers: Mapping[str, ReplayedLedger]
) -> None:
    """Hold the released round, and where the training ended, against what was opened.

    Args:
        findings: gets the claims; none of a training that is not evaluated between its rounds.
        report: what is claimed.
        plan: the run's.
        ledgers: party -> ledger, of those that hold.
    """
    selection = report.model.selection if report.model is not None else None
    if report.model is None or (selection is None and _pinned(report) is None):
        return
    findings.section = "run"
    entries = ledgers[COORDINATOR].entries() if COORDINATOR in ledgers else []
    payloads = [entry.payload for entry in entries]
    claimed = f"round {selection.round}" if selection is not None else "the last round"
    with findings.guarded(BEST, claimed):
        try:
            looks = looks_of(payloads, looks_run(report.run))
        except ProgramMissingError as error:
            findings.undecided(BEST, claimed, f"the package of its program; {error}")
            return
        if selection is None and not looks.opened:
            return
        wrong = _fault(report, selection, plan, looks, payloads)
        findings.check(
            BEST, claimed, f"round {looks.best()}" if looks.opened else "none", not wrong, wrong,
            compared=len(looks.opened),
        )  # fmt: skip
        findings.attested(
            EVALUATED, f"{len(looks.opened)}", by=COORDINATOR,
            settle="the models in the run's folder, and every sum that the training opened",
        )  # fmt: skip


def _fault(
    report: Report, selection: Selection | None, plan: Plan, looks: Looks, payloads: list[Payload]
) -> str:
    """What contradicts the selection; empty where nothing does."""
    if selection is None:
        return "its rounds were evaluated, and no round is said to be the best one"
    if looks.measure is None or not looks.opened or selection.looks != looks_run(report.run):
        return "no evaluation between its rounds was opened"
    schedule = looks.measure.schedule
    if schedule.model_dump(mode="json") != _pinned(report):
        return "the evaluations follow another schedule than the plan pins"
    if looks.best() != selection.round:
        return "another round has the best figure"
    last = max((each.round for each in report.rounds if each.outcome == "opened"), default=0)
    stops = next(
        (each for each in range(1, len(looks.opened) + 1) if looks.stops(each)), None
    )  # fmt: skip
    if stops is not None and last > stops * schedule.every:
        return f"it went on after round {stops * schedule.every}, where its rule stops it"
    if stops is None and report.outcome == "finished" and last < plan.rounds:
        return f"it ended after round {last}, and its rule does not stop it there"
    if len(looks.opened) * schedule.every > last:
        return "rounds were evaluated that it has not opened"
    digests = {
        payload.facts.get("round"): payload.facts.get(f"{ROUND}_sha256")
        for payload in payloads
        if isinstance(payload, Released) and payload.facts.get("of") == report.run
    }
    if report.model is None or digests.get(selection.round) != report.model.sha256:
        return "the released model is not the one that was evaluated after that round"
    return ""


def _pinned(report: Report) -> Any:
    """The schedule that the training's plan pins; None where there is none."""
    recipe = report.plan.get("recipe")
    return recipe.get(LOOKS) if isinstance(recipe, dict) else None
