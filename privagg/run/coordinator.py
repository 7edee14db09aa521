"""The coordinator of a run: drives the rounds, folds their sums, records, and writes the report.

It holds public facts and its own identity; where the other parties are, only the transport knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from privagg.config.setup import Setup
from privagg.errors import PrivaggError, ResumeError
from privagg.privacy.ledger import Ledger
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.program import Opened, Program
from privagg.protocol.round import Job, RoundOutcome
from privagg.protocol.statements import StatementStore
from privagg.protocol.transport import Transport
from privagg.run.committed import CommittedSpending
from privagg.run.evidence import collect_ledgers, write_evidence
from privagg.run.journal import Journal, Progress
from privagg.run.record import RunRecorder
from privagg.run.results import RoundReport, RunResult
from privagg.run.rounds import RoundRunner

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
        transport: carries messages to the parties.
        ledger: the coordinator's own, where the run is recorded.
        output: folder for model, report and bundle.
        generator: name of the sites' source of randomness.
        observed: what can be read about the sites here.
        journal: keeps how far the run is; None where nobody will resume it.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        job: Job,
        transport: Transport,
        ledger: Ledger,
        output: Path,
        generator: str,
        observed: Observed | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.setup = setup
        self.job = job
        self.transport = transport
        self.output = output
        self.journal = journal
        self.record = RunRecorder(ledger, job.run, StatementStore.beside(output))
        self.program: Program = setup.program()
        self._last: RoundOutcome | None = None
        self._generator = generator
        self._observed = observed or Observed()
        self._committed = (
            CommittedSpending(
                job.plan, setup.accountant, secure=generator == SystemRandomness().name
            )
            if observed is None
            else None
        )

    def drive(self, on_round: OnRound | None) -> RunResult:
        """All rounds that are not finished yet, then the files.

        Raises:
            ConfigError: the journal is another plan's or key's, or damaged.
        """
        result = RunResult(self.job.run, "finished", "", self.program.begin())
        done = self._take_up(result)
        if self._committed is not None and done is not None:
            for place, cohort in self.record.cohorts():
                self._committed.asked(place, cohort)
        self.record.keep([self.job.key.statement])
        if done is None:
            self.record.start(self.setup, self.job, self._generator)
        if done is None or not done.over:
            self._all_rounds(result, done.round if done is not None else 0, on_round)
            self._release(result)
        self._write_evidence(result, self.job.plan.rounds)
        return result

    def _take_up(self, result: RunResult) -> Progress | None:
        """Where a killed coordinator left off; None for a fresh run."""
        done = self.journal.progress() if self.journal is not None else None
        if done is None:
            return None
        if (done.plan_digest, done.key_id) != (self.job.plan.digest, self.job.key_id):
            raise ResumeError(
                f"run {self.job.run!r} was begun under another plan or key; start a new run"
            )
        self.program.resume(done.kept)
        if done.close:
            self.transport.post(dict.fromkeys(done.cohort, done.close))
        result.parameters, result.metrics = done.parameters, dict(done.metrics)
        if done.over:
            result.outcome, result.reason = done.over, done.reason
            result.model = self.output / self.program.file_name
        return done

    def _all_rounds(self, result: RunResult, done: int, on_round: OnRound | None) -> None:
        self._note(result, done)
        try:
            for number in range(done + 1, self.job.plan.rounds + 1):
                report = self._one_round(result, number, on_round)
                if report.outcome.outcome == "stopped":
                    result.outcome, result.reason = "stopped", report.outcome.reason
                if result.outcome == "stopped":
                    break
                self._note(result, number)
        except PrivaggError as error:
            if self.journal is None:  # else the run has not ended: somebody may resume it
                self.record.finish("failed", type(error).__name__)
            raise

    def _note(self, result: RunResult, number: int, over: str = "") -> None:
        """Keep durably what the next round starts from."""
        if self.journal is None:
            return
        last = self._last
        progress = Progress(
            plan_digest=self.job.plan.digest,
            key_id=self.job.key_id,
            round=number,
            parameters=result.parameters,
            kept=self.program.kept(),
            metrics=dict(result.metrics),
            close=last.close if last is not None else b"",
            cohort=last.cohort if last is not None else (),
            over=over,
            reason=result.reason,
        )
        self.journal.finished(progress)

    def _one_round(self, result: RunResult, number: int, on_round: OnRound | None) -> RoundReport:
        """One round with its retries; each attempt is charged, recorded and reported."""
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
        self._last = rounds.run(
            number, result.parameters, on_outcome, wanted=lambda: result.outcome != "stopped"
        )
        if len(result.rounds) == made:  # a killed coordinator had made, recorded and reported it
            summary = self._last.summary()
            report = RoundReport(summary, {}, epsilon=self._observed.epsilon(), encrypt_seconds=0.0)
            result.rounds.append(report)
        return result.rounds[-1]

    def _tell(self, result: RunResult, report: RoundReport, on_round: OnRound | None) -> None:
        """Report an attempt; who interrupts here, between two rounds, keeps what was paid for."""
        try:
            if on_round is not None:
                on_round(report)
        except KeyboardInterrupt:
            if self.journal is not None:  # the run has not ended: somebody may resume it
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
            encrypt_seconds=self._observed.encrypt_seconds(outcome.bytes_up),
            committed=self._committed.after(outcome) if self._committed is not None else {},
        )
        self.record.keep(outcome.statements)
        self.record.round(report)
        result.rounds.append(report)
        return report

    def _release(self, result: RunResult) -> None:
        """Write what the job ends with, and close the record."""
        last = result.rounds[-1].outcome.round if result.rounds else self.job.plan.rounds
        found = self.program.finish(result.parameters, self.output, measured=bool(result.metrics))
        result.parameters, result.model = found.state, found.path
        result.metrics = dict(found.figures) or result.metrics
        self.record.released(result, found.sha256)
        self.record.finish(result.outcome, result.reason)
        self._note(result, last, over=result.outcome)

    def _write_evidence(self, result: RunResult, last: int) -> None:
        """Ask for the ledgers, and write the report from them once all are there."""
        accountant = self.setup.accountant
        ledgers, result.missing = collect_ledgers(
            self.job, self.transport, round_number=last, accountant=accountant
        )
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
