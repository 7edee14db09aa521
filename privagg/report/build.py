"""From ledgers to a report. Every fact comes from an entry of the coordinator's or a site's ledger.

The ledgers of the parties are held against each other on the way: one plan, one list of survivors
a round. Where two of them contradict, there is no report but an error that says where.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import ValidationError

from privagg.errors import LedgerError, validation_faults
from privagg.privacy.accountant import Accountant
from privagg.privacy.accountants import PldAccountant, RdpAccountant, default_accountant
from privagg.privacy.ledger import BudgetKey, Entry
from privagg.privacy.ledger.entries import (
    Aborted,
    Charge,
    Realised,
    Released,
    RosterChanged,
    RoundEnded,
    RunFinished,
    RunStarted,
    Tuning,
)
from privagg.privacy.plan import Plan
from privagg.privacy.unit import Custody
from privagg.report.accounting import (
    AttemptId,
    Bounds,
    ChargedAttempt,
    accountant_figures,
    committed_guarantee,
    observer_matrix,
)
from privagg.report.answered import answers_of, plan_in
from privagg.report.approvals import approvals_of
from privagg.report.consistency import require_charged, require_one_ending, require_said_once
from privagg.report.language import ENGLISH, speaking
from privagg.report.model import (
    Attestation,
    Budget,
    HistoryPoint,
    LedgerFacts,
    PublicTable,
    RecordsApart,
    Refusal,
    ReleasedModel,
    Report,
    RosterReport,
    RoundReport,
    SchemeFacts,
    Selection,
    SiteReport,
    StageSeconds,
)
from privagg.report.sentences import distinct_assumptions, summarise, unprotected
from privagg.report.source import LedgerView
from privagg.report.tuning import tuning_searches

SCHEME_FACTS = ("name", "protects", "security_bits", "key_id", "explanation")


@dataclass
class RunRecord:
    """What the coordinator's ledger holds about one run.

    Attributes:
        started: the entry that the run began with.
        rounds: every attempt at a round, in order.
        rosters: every change of who takes part, in order.
        released: the model's release; None where nothing was released.
        released_day: its day (UTC), YYYY-MM-DD.
        finished: the run's end; None while it is not recorded.
    """

    started: RunStarted
    rounds: list[RoundEnded] = field(default_factory=list)
    rosters: list[RosterChanged] = field(default_factory=list)
    released: Released | None = None
    released_day: str | None = None
    finished: RunFinished | None = None


@speaking(ENGLISH)
def build_report(
    *,
    run: str,
    coordinator: LedgerView,
    sites: Mapping[str, LedgerView],
    accountant: Accountant | None = None,
    peers: Sequence[Accountant] | None = None,
    generated: datetime | None = None,
    answered: bool = True,
) -> Report:
    """The report of one run.

    Args:
        run: its identifier, as the coordinator recorded it.
        coordinator: the coordinator's ledger.
        sites: site name -> its ledger; every site of the plan must be there, but for one that was
            to join after the run had ended.
        accountant: whose epsilon is reported; the certified one by default.
        peers: accountants whose figures stand beside it; dp-accounting's two by default.
        generated: the report's own time; now by default.
        answered: with its answers; an auditor who does not have their program leaves them out.

    Raises:
        ProgramMissingError: the program of its answers is not installed here.
        LedgerError: the run is unknown, a site's ledger is missing, or two ledgers contradict.
        LedgerTamperedError: a ledger does not hold what its checkpoint covers.
    """
    entries = coordinator.entries()
    require_said_once(entries, run)
    record = _run_record(entries, run)
    facts = record.started.facts
    plan = plan_in(facts)
    bounds = Bounds(accountant or default_accountant())
    others = [Bounds(p) for p in (peers if peers is not None else default_peers())]
    survivors = {(r.round, r.attempt): tuple(r.facts["survivors"]) for r in record.rounds}
    reports, stories = [], dict[str, SiteStory]()
    for name in plan.names:
        if name not in sites:
            continue
        story = stories[name] = _site_story(name, sites[name], plan, run, survivors)
        require_charged(name, story.charges, run, survivors)
        require_one_ending(name, sites[name].entries(), run)
        reports.append(_site_report(name, sites[name], plan, story, bounds, others))
    _require_never_there(run, plan, record, stories)
    draft = _assemble(record, facts, plan, reports, coordinator, generated or datetime.now(UTC))
    if answered:
        found = answers_of(plan, record.rounds, record.released, record.released_day)
        draft = draft.model_copy(update={"answers": found})
    searches = tuning_searches(
        run,
        {"coordinator": _searches(entries), **{n: s.searches for n, s in stories.items()}},
        {name: story.charges for name, story in stories.items()},
        plan.delta,
        bounds,
    )
    draft = draft.model_copy(update={"tuning": searches})
    return draft.model_copy(update={"summary": summarise(draft), "unprotected": unprotected(draft)})


def _require_never_there(
    run: str, plan: Plan, record: RunRecord, stories: Mapping[str, SiteStory]
) -> None:
    """A ledger may be missing of a site alone whose first round never came.

    By every ledger that is there: a round that the coordinator did not record was charged.

    Raises:
        LedgerError: one of another site is missing.
    """
    charged = (c.round for story in stories.values() for c in story.charges if c.run == run)
    last = max((*charged, *(ended.round for ended in record.rounds)), default=0)
    for name in plan.names:
        if name not in stories and plan.rounds_of(name).start <= last:
            raise LedgerError(
                f"the plan of run {run!r} names the site {name!r}, whose ledger was not given"
            )


def default_peers() -> tuple[Accountant, ...]:
    """The accountants of dp-accounting."""
    return RdpAccountant(), PldAccountant()


def runs_of(coordinator: LedgerView) -> tuple[str, ...]:
    """The runs a coordinator's ledger knows, oldest first."""
    return tuple(e.payload.run for e in coordinator.entries() if isinstance(e.payload, RunStarted))


def _searches(entries: Iterable[Entry]) -> list[Tuning]:
    return [e.payload for e in entries if isinstance(e.payload, Tuning)]


# --- the coordinator's side ----------------------------------------------------------------------


def _run_record(entries: Iterable[Entry], run: str) -> RunRecord:
    record: RunRecord | None = None
    known: list[str] = []
    for entry in entries:
        payload = entry.payload
        if isinstance(payload, RunStarted):
            known.append(payload.run)
            if payload.run == run and record is None:
                record = RunRecord(payload)
        elif record is None:
            continue
        elif isinstance(payload, RoundEnded) and payload.run == run:
            record.rounds.append(payload)
        elif isinstance(payload, RosterChanged) and payload.run == run:
            record.rosters.append(payload)
        elif isinstance(payload, Released) and payload.facts.get("run") == run:
            record.released, record.released_day = payload, entry.time[:10]
        elif isinstance(payload, RunFinished) and payload.run == run:
            record.finished = payload
    if record is None:
        raise LedgerError(
            f"the coordinator's ledger knows no run {run!r}; it knows "
            f"{', '.join(known) if known else 'none'}"
        )
    return record


def _assemble(
    record: RunRecord,
    facts: Mapping[str, Any],
    plan: Plan,
    sites: Sequence[SiteReport],
    coordinator: LedgerView,
    generated: datetime,
) -> Report:
    finished = record.finished
    outcome: Literal["finished", "stopped", "failed", "unfinished"] = (
        finished.outcome if finished else "unfinished"
    )
    custody = Custody(facts["custody"])
    return Report(
        federation=facts["federation"],
        run=record.started.run,
        generated=generated.astimezone(UTC).replace(microsecond=0),
        outcome=outcome,
        reason=finished.reason or None if finished else None,
        summary=(),
        plan=json.loads(plan.canonical_json),
        plan_digest=plan.digest,
        scheme=_scheme(facts["scheme"]),
        custody=custody,
        custody_plainly=facts.get("custody_plainly", custody.plainly),
        opener=facts.get("opener"),
        parties=facts["parties"],
        public_table=_public_table(facts.get("public_table")),
        attestations=tuple(Attestation(**a) for a in facts.get("attestations", ())),
        versions=facts["versions"],
        generator=facts["generator"],
        sites=tuple(sites),
        rounds=tuple(_round(r) for r in record.rounds),
        rosters=tuple(map(_roster, record.rosters)),
        model=_released(record.released, record.released_day),
        coordinator=_ledger_facts(coordinator),
        assumptions=distinct_assumptions(sites),
        unprotected=(),
    )


def _scheme(facts: Mapping[str, Any]) -> SchemeFacts:
    known = {name: facts[name] for name in SCHEME_FACTS}
    given = facts.get("parameters", {})
    others = {k: v for k, v in facts.items() if k not in (*SCHEME_FACTS, "parameters")}
    return SchemeFacts(**known, parameters={**given, **others})


def _public_table(stored: Any) -> PublicTable | None:
    if stored is None:
        return None
    if isinstance(stored, str):
        return PublicTable(name=stored)
    return PublicTable(name=stored["name"], rows=stored.get("rows"))


def _round(ended: RoundEnded) -> RoundReport:
    facts = ended.facts
    seconds = {name: float(value) for name, value in facts.get("seconds", {}).items()}
    stages = {name: seconds.get(name, 0.0) for name in StageSeconds.model_fields}
    return RoundReport(
        run=ended.run,
        round=ended.round,
        attempt=ended.attempt,
        outcome=ended.outcome,
        reason=ended.reason or None,
        cohort=tuple(facts["cohort"]),
        survivors=tuple(facts["survivors"]),
        refusals=tuple(
            Refusal(site=r["site"], message=r["message"]) for r in facts.get("refusals", ())
        ),
        metrics=_figures(facts.get("metrics")) or None,
        bytes_up=facts.get("bytes_up", {}),
        bytes_down=facts.get("bytes_down", {}),
        upload_bytes=facts.get("upload_bytes"),
        seconds=StageSeconds(**stages),
        exchanges=facts.get("exchanges", 0),
    )


def _roster(changed: RosterChanged) -> RosterReport:
    return RosterReport(
        round=changed.first_round,
        joined=changed.joined,
        left=changed.left,
        sites=tuple(changed.facts["sites"]),
        key_id=changed.facts["key_id"],
    )


def _figures(stored: Mapping[str, Any] | None) -> dict[str, float]:
    """Recorded metrics as numbers; a figure that is none (a diverged loss) is left out."""
    found = {name: float(value) for name, value in (stored or {}).items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _released(entry: Released | None, day: str | None) -> ReleasedModel | None:
    if entry is None or entry.what == "answers":
        return None
    facts = entry.facts
    return ReleasedModel(
        file=facts["model_file"],
        sha256=facts["model_sha256"],
        day=day,
        metrics=_figures(facts.get("metrics")),
        selection=Selection(**facts["selected"]) if "selected" in facts else None,
    )


# --- a site's side -------------------------------------------------------------------------------


@dataclass
class SiteStory:
    """What a site's ledger holds about its data set, and about this run in particular.

    Attributes:
        run: the run's name.
        key: the budget of the data set and unit that the plan names.
        charges: to that budget, of every run, in order.
        outcomes: (run, round, attempt) -> `realised` or `aborted`.
        realised: (round, attempt) of this run -> what the site recorded of its opened sum.
        searches: every search over hyperparameters that the ledger records.
    """

    run: str
    key: BudgetKey
    charges: list[Charge] = field(default_factory=list)
    outcomes: dict[tuple[str, int, int], str] = field(default_factory=dict)
    realised: dict[AttemptId, Realised] = field(default_factory=dict)
    searches: list[Tuning] = field(default_factory=list)


def _site_story(
    name: str,
    ledger: LedgerView,
    plan: Plan,
    run: str,
    survivors: Mapping[AttemptId, tuple[str, ...]],
) -> SiteStory:
    story = SiteStory(run, BudgetKey.of(plan, name))
    for entry in ledger.entries():
        payload = entry.payload
        if isinstance(payload, Charge) and payload.key == story.key:
            story.charges.append(payload)
            if payload.run == run and payload.plan_digest != plan.digest:
                raise LedgerError(
                    f"the ledger of {name!r} charged run {run!r} under plan "
                    f"{payload.plan_digest[:16]}..., the coordinator recorded {plan.digest[:16]}..."
                )
        elif isinstance(payload, Realised) and payload.key == story.key:
            attempt = (payload.round, payload.attempt)
            story.outcomes[payload.run, *attempt] = "realised"
            if payload.run != run:
                continue
            story.realised[attempt] = payload
            named = tuple(payload.facts["survivors"])
            if named != survivors.get(attempt):
                raise LedgerError(
                    f"round {payload.round}, attempt {payload.attempt}: the ledger of {name!r} "
                    f"names the survivors {', '.join(named)}, the coordinator's "
                    f"{', '.join(survivors.get(attempt, ())) or 'none'}"
                )
        elif isinstance(payload, Aborted):
            story.outcomes[payload.run, payload.round, payload.attempt] = "aborted"
        elif isinstance(payload, Tuning):
            story.searches.append(payload)
    return story


def _site_report(
    name: str,
    ledger: LedgerView,
    plan: Plan,
    story: SiteStory,
    bounds: Bounds,
    peers: Sequence[Bounds],
) -> SiteReport:
    of_run = [c for c in story.charges if c.run == story.run]
    terms = plan.site(name)
    committed = committed_guarantee(plan, name, (c.event for c in of_run), bounds)
    attempts = [_attempt(plan, name, c, story.realised.get((c.round, c.attempt))) for c in of_run]
    spent_before = story.charges[-1].epsilon_after if story.charges else Decimal(0)
    return SiteReport(
        name=name,
        dataset=terms.dataset,
        declared_records=terms.records,
        unit=plan.unit,
        adjacency=committed.adjacency,
        budget=_budget(ledger, story, of_run),
        epsilon_before_run=of_run[0].epsilon_before if of_run else spent_before,
        epsilon_after_run=of_run[-1].epsilon_after if of_run else spent_before,
        history=tuple(
            HistoryPoint.model_validate(
                {
                    "run": c.run,
                    "round": c.round,
                    "attempt": c.attempt,
                    "epsilon_after": c.epsilon_after,
                    "outcome": story.outcomes.get((c.run, c.round, c.attempt), "charged"),
                }
            )
            for c in story.charges
        ),
        committed=committed,
        guarantees=observer_matrix(plan, name, attempts, bounds),
        accountants=accountant_figures(committed.event, plan.delta, bounds, peers),
        records_apart=_records_apart(name, of_run),
        approvals=approvals_of(ledger.entries(), story.key, plan.digest, story.run),
        ledger=_ledger_facts(ledger),
    )


def _records_apart(site: str, charges: Sequence[Charge]) -> tuple[RecordsApart, ...]:
    """What the charges state of how records were found to be apart, each statement once."""
    stated = [c.facts["records_apart"] for c in charges if "records_apart" in c.facts]
    try:
        return tuple(dict.fromkeys(RecordsApart.model_validate(facts) for facts in stated))
    except ValidationError as error:
        raise LedgerError(
            f"a charge of {site!r} does not say how records were found to be apart "
            f"(records_apart): {validation_faults(error, whole='records_apart')}"
        ) from error


def _attempt(plan: Plan, site: str, charge: Charge, realised: Realised | None) -> ChargedAttempt:
    """What is proved about a charged attempt; without proof it counts as opened at its worst.

    Only the key holder's statement shows what was opened. Where none reached the site, the sum may
    have been opened all the same, with the least noise that the plan allows.
    """
    if realised is None:
        least = plan.in_round(charge.round).minimum_survivors
        return ChargedAttempt(charge.round, least, charge.event.is_private)
    survivors = realised.facts["survivors"]
    opened = len(survivors) if site in survivors else 0
    private = charge.event.is_private and realised.event.is_private
    return ChargedAttempt(charge.round, opened, private)


def _budget(ledger: LedgerView, story: SiteStory, of_run: Sequence[Charge]) -> Budget | None:
    """The budget that the run's last charge was held against, or the present one."""
    if of_run:
        return Budget(epsilon=of_run[-1].epsilon_budget, delta=of_run[-1].delta)
    if story.key not in ledger.keys():  # noqa: SIM118 - a method of the ledger, not of a dict
        return None
    spending = ledger.spent(story.key)
    return Budget(epsilon=spending.epsilon_budget, delta=spending.delta)


def _ledger_facts(ledger: LedgerView) -> LedgerFacts:
    return LedgerFacts(
        entries=len(ledger),
        root=ledger.root().hex(),
        checkpoint=ledger.checkpoint(),
        public_key=ledger.verifier.encode(),
    )
