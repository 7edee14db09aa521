"""The coordinator of a run: drives the rounds, folds their sums, records, and writes the report.

It holds public facts and its own identity; where the other parties are, only the transport knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from privagg.config.setup import Setup
from privagg.encoding.vectors import FloatVector
from privagg.errors import ResumeError
from privagg.privacy.ledger import Ledger
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.program import ANSWERS_NAME, Opened, Program, Result
from privagg.protocol.job import Job, RoundOutcome
from privagg.protocol.key_statement import KeyTerms
from privagg.protocol.statements import StatementStore
from privagg.protocol.transport import Transport
from privagg.run.committed import CommittedSpending
from privagg.run.evidence import collect_ledgers, ledgers_of_leavers, write_evidence
from privagg.run.journal import Journal, Progress
from privagg.run.keying import in_epoch
from privagg.run.record import RunRecorder
from privagg.run.results import RoundReport, RunResult
from privagg.run.rounds import RoundRunner
from privagg.run.selecting import Selecting

OnRound = Callable[[RoundReport], None]


@dataclass(frozen=True)
class Observed:
    """What can be read about the sites where they run in this process; nothing by default.

    Args:
        epsilon: site -> (spent so far over all jobs, budget).
        encrypt_seconds: what these sites took to encrypt in the last round.
    """

    epsilon: Callable[[], Mapping[str, tuple[Decimal, Decimal]]] = dict
    encrypt_seconds: Callable[[Mapping[str, int]], float] = lambda sites: 0.0


class Coordinator:
    """Drives one run.

    Args:
        setup: the agreed configuration.
        job: what the coordinator holds of the run.
        terms: what statements of its keys are held against.
        transport: carries messages to the parties.
        ledger: the coordinator's own, where the run is recorded.
        output: folder for model, report and bundle.
        generator: name of the sites' source of randomness.
        observed: what can be read about the sites here; None where they are elsewhere.
        journal: keeps how far the run is.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        job: Job,
        terms: KeyTerms,
        transport: Transport,
        ledger: Ledger,
        output: Path,
        generator: str,
        journal: Journal,
        observed: Observed | None = None,
    ) -> None:
        self.setup = setup
        self.job = job
        self.transport = transport
        self.output = output
        self.journal = journal
        self.record = RunRecorder(ledger, job.run, StatementStore.beside(output))
        self.program: Program = setup.program()
        self._terms = terms
        self._told: tuple[bytes, tuple[str, ...]] = b"", ()
        """How the last round ended, as its cohort is told; perhaps not yet sent."""
        self.selecting: Selecting | None = None
        """Evaluates the models between the rounds; set before `drive`."""
        self._generator = generator
        self._ends_when_interrupted = observed is not None
        self._observed = observed or Observed()
        self._committed = (
            CommittedSpending(
                job.plan, setup.accountant, secure=generator == SystemRandomness().name
            )
            if observed is None
            else None
        )

    def drive(self, on_round: OnRound | None, *, give_up: str = "") -> RunResult:
        """All rounds that are not finished yet, then the files.

        An error, an interruption and a kill leave a run that has not ended, and can be resumed.

        Args:
            on_round: called after each attempt at a round.
            give_up: why no further round is begun; empty where the rest are. A sum that was asked
                for already is taken all the same: it was paid for, and may have been opened.

        Raises:
            ConfigError: the journal is damaged.
            ResumeError: it is another plan's or key's, or the coordinator's ledger lacks what the
                journal has.
        """
        result, done = self.begin()
        if done is None or not done.over:
            before = done.round if done is not None else 0
            last = self._all_rounds(result, before, on_round, give_up)
            if self.selecting is not None:
                self.selecting.conclude()
            self._release(result, last)
        if not self.record.ever("run-finished"):
            self.record.finish(result.outcome, result.reason)
        self._write_evidence(result)
        return result

    def begin(self) -> tuple[RunResult, Progress | None]:
        """Take the run up where a killed coordinator left it, or begin it.

        Returns:
            What there is of its result, and how far it was; None for a fresh run.

        Raises:
            ConfigError, ResumeError: as `drive`.
        """
        result = RunResult(self.job.run, "finished", "", self.program.begin())
        done = self._take_up(result)
        if self._committed is not None and done is not None:
            for place, cohort in self.record.cohorts():
                self._committed.asked(place, cohort)
        self.record.keep_key(self.job.key)
        if not self.record.ever("run-started"):
            self.record.start(self.setup, self.job, self._generator)
        if done is None:
            self._note(result, 0)
        return result, done

    def advance(self, result: RunResult, number: int, parameters: FloatVector) -> None:
        """One round of a job whose states come from elsewhere; `drive` ends it later.

        Args:
            result: as `begin` gave it; says afterwards whether the round was stopped.
            number: of the round, the next one.
            parameters: float64 (d,), what it starts from.
        """
        result.parameters = parameters
        self._doubt_everybody()
        report = self._one_round(result, number, None)
        if report.outcome.outcome == "stopped":
            result.outcome, result.reason = "stopped", report.outcome.reason
        else:
            self._note(result, number)

    def _take_up(self, result: RunResult) -> Progress | None:
        """Where a killed coordinator left off; None for a fresh run."""
        done = self.journal.progress()
        if done is None:
            return None
        if (done.plan_digest, done.key_id) != (self.job.plan.digest, self.job.key_id):
            raise ResumeError(
                f"run {self.job.run!r} was begun under another plan or key; start a new run"
            )
        if done.round and done.round not in {number for (number, _), _ in self.record.cohorts()}:
            raise ResumeError(
                f"run {self.job.run!r} cannot be resumed: round {done.round} is over by its "
                "journal, and the coordinator's ledger knows nothing of it. The ledger was "
                "restored from an older copy; put back the one that the run was begun with"
            )
        self.program.resume(done.kept)
        if done.close:
            self.transport.post(dict.fromkeys(done.cohort, done.close))
        self._told = done.close, done.cohort
        result.parameters, result.metrics = done.parameters, dict(done.metrics)
        if done.over:
            result.outcome, result.reason = done.over, done.reason
            path = self.output / self.program.file_name
            if path.exists():
                result.left("answers" if path.name == ANSWERS_NAME else "model", path)
        return done

    def _all_rounds(
        self, result: RunResult, done: int, on_round: OnRound | None, give_up: str
    ) -> int:
        """The rounds after round `done`; the number of the last one that there was."""
        for number in range(done + 1, self.job.plan.rounds + 1):
            if give_up and not self._was_asked_to_open(number):
                result.outcome, result.reason = "stopped", give_up
                return number - 1
            if self._ends_early(result, number - 1):
                return number - 1
            report = self._one_round(result, number, on_round)
            if report.outcome.outcome == "stopped":
                result.outcome, result.reason = "stopped", report.outcome.reason
            if result.outcome == "stopped":
                return number
            self._note(result, number)
        if not give_up:
            self._ends_early(result, self.job.plan.rounds)
        return self.job.plan.rounds

    def _ends_early(self, result: RunResult, number: int) -> bool:
        """Whether no round is begun after this one, as its evaluation says, where it has one."""
        if self.selecting is None or not self.selecting.due(number):
            return False
        reason = self.selecting.look(number, result.parameters)
        self._doubt_everybody()
        if reason and number < self.job.plan.rounds:
            result.reason = reason
        return bool(reason)

    def _doubt_everybody(self) -> None:
        """Another run has had a round: what parties keep of each other's ledgers is asked anew."""
        for party in (self.job.opener, *self.job.plan.names):
            self.job.watch.doubt(party)

    def _was_asked_to_open(self, number: int) -> bool:
        begun = self.journal.attempt(number - 1)
        return begun is not None and begun.request is not None

    def _note(self, result: RunResult, number: int, over: str = "") -> None:
        """Keep durably what the next round starts from."""
        close, cohort = self._told
        progress = Progress(
            plan_digest=self.job.plan.digest,
            key_id=self.job.key_id,
            round=number,
            parameters=result.parameters,
            kept=self.program.kept(),
            metrics=dict(result.metrics),
            close=close,
            cohort=cohort,
            over=over,
            reason=result.reason,
        )
        self.journal.finished(progress)

    def _enter(self, number: int) -> None:
        """Where sites join or leave before a round: their epoch's key, its record, farewells.

        Whoever leaves is asked for its ledger, as it may be gone when the run ends.
        """
        plan, now = self.job.plan, self.job.plan.epoch(number)
        if now.first == 1:
            return
        before = plan.epoch(now.first - 1)
        self.job = in_epoch(self.job, self._terms, self.transport, self.journal, number)
        self.record.keep_key(self.job.key)
        if self.record.has_roster(now.first):
            return
        left = [name for name in before.names if name not in now.names]
        for site, frame in ledgers_of_leavers(self.job, self.transport, left, before.last):
            self.journal.keep_left(site, frame)
        self.record.roster(self.job, before, now)

    def _one_round(self, result: RunResult, number: int, on_round: OnRound | None) -> RoundReport:
        """One round with its retries; each attempt is charged, recorded and reported."""
        self._enter(number)
        made = len(result.rounds)

        def on_outcome(outcome: RoundOutcome) -> None:
            report = self._settle(result, outcome)
            self._tell(result, report, on_round)

        rounds = RoundRunner(
            self.job,
            self.transport,
            self.record,
            journal=self.journal,
            attempts=self.setup.config.training.retries + 1,
        )
        last = rounds.run(
            number, result.parameters, on_outcome, wanted=lambda: result.outcome != "stopped"
        )
        self._told = last.close, last.cohort
        if len(result.rounds) == made:  # a killed coordinator had made, recorded and reported it
            report = RoundReport(
                last.summary(), {}, epsilon=self._observed.epsilon(), encrypt_seconds=0.0
            )
            result.rounds.append(report)
        return result.rounds[-1]

    def _tell(self, result: RunResult, report: RoundReport, on_round: OnRound | None) -> None:
        """Report an attempt; who interrupts here, between two rounds, ends a run in one process."""
        try:
            if on_round is not None:
                on_round(report)
        except KeyboardInterrupt:
            if not self._ends_when_interrupted:
                raise
            result.outcome, result.reason = "stopped", "interrupted by whoever ran it"

    def _settle(self, result: RunResult, outcome: RoundOutcome) -> RoundReport:
        """Fold what was opened, look at the public table, record the attempt."""
        if outcome.update is not None and outcome.total is not None:
            place = (self.job.run, outcome.round, outcome.attempt)
            opened = Opened(place, outcome.total, outcome.update, outcome.survivors)
            result.parameters = self.program.fold(result.parameters, opened)
            result.metrics = dict(self.program.figures(result.parameters))
        report = RoundReport(
            outcome=outcome.summary(),
            metrics=dict(result.metrics) if outcome.update is not None else {},
            epsilon=self._observed.epsilon(),
            encrypt_seconds=self._observed.encrypt_seconds(outcome.upload_bytes),
            committed=self._committed.after(outcome) if self._committed is not None else {},
        )
        self.record.keep(outcome.statements)
        self.record.round(report, outcome.total if self.program.keeps_sums else None)
        result.rounds.append(report)
        return report

    def _release(self, result: RunResult, last: int) -> None:
        """Write what the job ends with, and note that no further round is asked for."""
        measured, facts = bool(result.metrics), dict[str, Any]()
        found: Result | None
        if self.selecting is not None:
            found, result.selected = self.selecting.finish(result.parameters, measured=measured)
            facts = self.selecting.facts(result.selected)
        else:
            found = self.program.finish(result.parameters, self.output, measured=measured)
        if found is not None:
            result.parameters = found.state
            result.metrics = dict(found.figures) or result.metrics
            result.left(found.what, found.path)
            self.record.released(found.what, found.path, found.sha256, result.metrics, facts)
        self._note(result, last, over=result.outcome)

    def _write_evidence(self, result: RunResult) -> None:
        """Ask for the ledgers, and write the report from them once all are there."""
        accountant = self.setup.accountant
        ledgers, result.missing = collect_ledgers(
            self.job, self.transport, round_number=self.job.plan.rounds,
            begun=max((number for (number, _), _ in self.record.cohorts()), default=0),
            accountant=accountant, left=self.journal.left,
        )  # fmt: skip
        if result.missing:
            return
        result.report_json, result.report_html, result.bundle = write_evidence(
            self.output,
            self.job,
            coordinator=self.record.ledger,
            statements=self.record.statements,
            sites=ledgers,
            accountant=accountant,
        )
