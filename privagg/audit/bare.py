"""A report without its ledgers: what still follows from the report itself, and how far that goes.

The plan gives every event; the rounds give who survived; together they give the committed total,
the observer matrix, the assumptions and the sentences. Charges, budgets and outcomes are taken as
the report states them: only the ledgers could show that they are so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from privagg.audit.charges import agrees
from privagg.audit.claims import Findings
from privagg.audit.methods import Methods
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import Verifier, open_checkpoint
from privagg.privacy.ledger.composition import compose
from privagg.privacy.plan import Plan
from privagg.report.accounting import (
    NO_PRIVACY,
    Bounds,
    ChargedAttempt,
    accountant_figures,
    committed_guarantee,
    observer_matrix,
)
from privagg.report.figures import epsilon_text
from privagg.report.model import HistoryPoint, LedgerFacts, Report, SiteReport

FROM_LEDGERS = "only the ledgers could show it; ask for the bundle"


@dataclass
class BareReport:
    """A report, its plan, and the accountants to recompute it with.

    Attributes:
        report: in hand, not believed.
        plan: read from the report.
        methods: the accountants.
        bounds: remembers what the certified accountant answered.
    """

    report: Report
    plan: Plan
    methods: Methods
    bounds: Bounds = field(init=False)

    def __post_init__(self) -> None:
        self.bounds = Bounds(self.methods.certified)

    def expected(self) -> Report:
        """The report with everything replaced that follows from its plan and its rounds."""
        sites = tuple(self._site(site) for site in self.report.sites)
        changed = {
            "sites": sites,
            "plan_digest": self.plan.digest,
            "custody": self.plan.custody,
            "custody_plainly": self.plan.custody_plainly,
        }
        return self.report.model_copy(update=changed)

    def _site(self, said: SiteReport) -> SiteReport:
        plan, terms = self.plan, self.plan.site(said.name)
        points = [point for point in said.history if point.run == self.report.run]
        private = said.committed.event.is_private
        events = [self._event(said.name, point, private) for point in points]
        committed = committed_guarantee(plan, said.name, events, self.bounds)
        attempts = [self._attempt(said.name, point, private) for point in points]
        changed = {
            "dataset": terms.dataset,
            "declared_records": terms.records,
            "unit": plan.unit,
            "adjacency": committed.adjacency,
            "committed": committed,
            "guarantees": observer_matrix(plan, said.name, attempts, self.bounds),
            "accountants": accountant_figures(committed.event, plan.delta, self.bounds, ()),
            "epsilon_after_run": points[-1].epsilon_after if points else said.epsilon_after_run,
            "epsilon_before_run": self._before(said, points),
        }
        return said.model_copy(update=changed)

    def _before(self, said: SiteReport, points: list[HistoryPoint]) -> Decimal:
        if not points:
            return said.epsilon_before_run
        place = said.history.index(points[0])
        return said.history[place - 1].epsilon_after if place else Decimal(0)

    def _attempt(self, site: str, point: HistoryPoint, private: bool) -> ChargedAttempt:
        if point.outcome != "realised":  # nothing proves what was opened: the worst is counted
            least = self.plan.in_round(point.round).minimum_survivors
            return ChargedAttempt(point.round, least, private)
        survivors = next(
            r.survivors
            for r in self.report.rounds
            if (r.round, r.attempt) == (point.round, point.attempt)
        )
        opened = len(survivors) if site in survivors else 0
        return ChargedAttempt(point.round, opened, private)

    def _event(self, site: str, point: HistoryPoint, private: bool) -> DpEvent:
        """What a charge of this run stands for."""
        return self.plan.in_round(point.round).committed_event(site) if private else NO_PRIVACY

    def check_histories(self, findings: Findings) -> None:
        """Recompute epsilon after each charge where all charges are this run's."""
        for said in self.report.sites:
            findings.section = said.name
            subject = "history of charges"
            claimed = f"{len(said.history)} charges"
            if any(point.run != self.report.run for point in said.history):
                findings.undecided(subject, claimed, f"other runs charged it too; {FROM_LEDGERS}")
                continue
            with findings.guarded(subject, claimed):
                self._check_history(findings, said, subject, claimed)
            findings.undecided(
                "budget", f"ε = {said.budget.epsilon}" if said.budget else "none", FROM_LEDGERS
            )

    def _check_history(
        self, findings: Findings, said: SiteReport, subject: str, claimed: str
    ) -> None:
        total, wrong = DpEvent(), None
        delta = said.budget.delta if said.budget else self.plan.delta
        private = said.committed.event.is_private
        for point in said.history:
            total = compose(total, self._event(said.name, point, private))
            bound = self.bounds.epsilon(total, delta)
            beyond = said.budget is not None and not point.epsilon_after <= said.budget.epsilon
            if not agrees(point.epsilon_after, bound) or beyond:
                wrong = point
                break
        last = self.bounds.epsilon(total, delta).upper if said.history else Decimal(0)
        note = "" if wrong is None else f"round {wrong.round} states ε = {wrong.epsilon_after}"
        findings.check(subject, claimed, f"up to ε = {epsilon_text(last, 9)}", wrong is None, note,
                       compared=max(1, len(said.history)))  # fmt: skip


def check_own_checkpoint(findings: Findings, party: str, facts: LedgerFacts) -> None:
    """A ledger's facts against its own signed checkpoint.

    Args:
        findings: gets the claim.
        party: whose ledger it is; names the section.
        facts: what the report says of the ledger.
    """
    findings.section = party
    claimed = f"{facts.entries} entries, root {facts.root[:16]}"
    with findings.guarded("signed checkpoint", claimed):
        checkpoint = open_checkpoint(facts.checkpoint, Verifier.parse(facts.public_key))
        fits = (checkpoint.size, checkpoint.root.hex()) == (facts.entries, facts.root)
        recomputed = f"{checkpoint.size} entries, root {checkpoint.root.hex()[:16]}"
        findings.check("signed checkpoint", claimed, recomputed, fits)
