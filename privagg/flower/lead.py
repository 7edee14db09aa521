"""The coordinator's side of a distributed run: meet the parties, drive the rounds, report them.

    out/<run>/rounds.jsonl   a line for each attempt at a round, as it ends
    out/<run>/driving        held by the process that drives the run
    out/<run>/flower-run     Flower's number of the run, where an app of one's own drives it
    out/<run>/result.json    how the run ended; written last

Whoever submitted the run reads these, and no exit code of a network layer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from privagg.config.evaluating import EvaluateSetup
from privagg.config.setup import TRAINING, Setup
from privagg.durable import write_whole
from privagg.errors import BudgetExceededError, CohortError, PrivaggError
from privagg.party.folder import PartyFolder
from privagg.party.open import open_federation
from privagg.party.released import require_released
from privagg.protocol.transport import Transport
from privagg.run.journal import alone
from privagg.run.open import open_coordinator
from privagg.run.results import RoundReport, RunResult, outcome_facts, outcome_of

ROUNDS_NAME, RESULT_NAME = "rounds.jsonl", "result.json"
FLOWER_RUN_NAME = "flower-run"


def lead(
    folder: PartyFolder,
    transport: Transport,
    run: str,
    problems: Mapping[str, str],
    *,
    kept: Mapping[str, Mapping[str, tuple[int, ...]]] | None = None,
    generator: str | None = None,
    job: str = TRAINING,
) -> RunResult:
    """Drive a run to its end, and write down how it went.

    Args:
        folder: the coordinator's.
        transport: carries messages to the parties.
        run: the run's identifier.
        problems: party -> why it is not there or cannot take part.
        kept: party -> what it said, when it was met, that it keeps of the sites' ledgers.
        generator: name of the sites' source of randomness, for the record.
        job: which of the configuration's jobs.

    Raises:
        BudgetExceededError, CohortError: before anything is spent.
        RunInProgressError: another process drives this run; it is left alone.
        PrivaggError: what stopped the run; `result.json` says it too.
    """
    output = folder.run_folder(run)
    output.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(output, run):
        (output / RESULT_NAME).unlink(missing_ok=True)
        try:
            setup = open_federation(folder, job)
            if isinstance(setup, EvaluateSetup):
                require_released(setup, folder)
            check_presence(setup, problems)
            coordinator = open_coordinator(folder, transport, run, generator=generator, job=job)
            for party, sizes in (kept or {}).items():
                coordinator.job.watch.record_kept_sizes(party, sizes)
            result = coordinator.drive(lambda report: report_round(output, report))
        except PrivaggError as error:
            facts = {"run": run, "outcome": "failed", "reason": f"{type(error).__name__}: {error}"}
            report_result(output, facts)
            raise
        report_result(output, result_facts(result))
    return result


def check_presence(setup: Setup, problems: Mapping[str, str]) -> None:
    """Refuse to start where it is known that no round can be opened, or a budget is too small.

    Raises:
        BudgetExceededError: a site says that the whole job does not fit its budget.
        CohortError: the party that opens is missing, or too many sites are.
    """
    plan = setup.plan
    poor = [text for text in problems.values() if "beyond its budget" in text]
    if poor:
        raise BudgetExceededError(f"{'; '.join(poor)}; nothing was spent")
    alone = setup.opener if setup.opener in setup.holders else ""
    told = "; ".join(f"{name}: {problems[name]}" for name in problems)
    for epoch in plan.epochs:  # whoever joins later is met now: its approval lies in its own ledger
        planned = plan.in_round(epoch.first)
        there = sum(name not in problems for name in epoch.names)
        if alone in problems or there < planned.minimum_survivors:
            where = f" in {epoch.rounds_text}" if len(plan.epochs) > 1 else ""
            raise CohortError(
                f"{there} of {len(epoch.names)} sites are there, the plan needs "
                f"{planned.minimum_survivors}{where}{f' and {alone!r} to open' if alone else ''}; "
                f"nothing was spent. {told}"
            )


def parties_of(setup: Setup) -> tuple[str, ...]:
    """Everybody whom the coordinator talks to."""
    names = setup.plan.names
    return tuple(dict.fromkeys((*names, *setup.holders)))


def round_facts(report: RoundReport) -> dict[str, Any]:
    """What is reported of an attempt at a round; public facts only."""
    return {
        **outcome_facts(report.outcome),
        "metrics": dict(report.metrics),
        "committed": {site: format(epsilon, "f") for site, epsilon in report.committed.items()},
    }


def report_of(facts: Mapping[str, Any]) -> RoundReport:
    """A round's facts as the report that a run in one process would hand on."""
    return RoundReport(
        outcome_of(facts),
        dict(facts["metrics"]),
        epsilon={},
        encrypt_seconds=0.0,
        committed={site: Decimal(text) for site, text in facts["committed"].items()},
    )


def result_facts(result: RunResult) -> dict[str, Any]:
    """What is reported of a run that has ended."""
    paths = {
        name: None if path is None else str(path.resolve())
        for name, path in (
            ("model", result.model),
            ("answers", result.answers),
            ("report_json", result.report_json),
            ("report_html", result.report_html),
            ("bundle", result.bundle),
        )
    }
    return {
        "run": result.run,
        "outcome": result.outcome,
        "reason": result.reason,
        "metrics": dict(result.metrics),
        "missing": dict(result.missing),
        **paths,
    }


def read_lines(path: Path, seen: int) -> list[dict[str, Any]]:
    """The rounds reported so far, without the first `seen`; a line under way is left for later."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()[seen:]]


def missing_text(missing: Collection[str]) -> str:
    """What to do where ledgers did not come."""
    return (
        f"there is no report yet: the ledgers of {', '.join(sorted(missing))} did not come. Once "
        "they are there again, resume this run: it only asks for them"
    )


def report_round(output: Path, report: RoundReport) -> None:
    line = json.dumps(round_facts(report), sort_keys=True) + "\n"
    with (output / ROUNDS_NAME).open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def report_result(output: Path, facts: dict[str, Any]) -> None:
    write_whole(output / RESULT_NAME, json.dumps(facts, sort_keys=True, indent=2).encode())
