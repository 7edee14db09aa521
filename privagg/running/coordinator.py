"""The coordinator of a run: drives the rounds, steps the model, records, and writes the report.

It holds public facts and its own identity; where the other parties are, only the transport knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from privagg.client.evaluate import evaluate
from privagg.client.models import get_parameters
from privagg.client.saving import save_model
from privagg.errors import PrivaggError
from privagg.privacy.ledger import Ledger
from privagg.round import Job, RoundOutcome, run_round
from privagg.running.evidence import collect_ledgers, write_evidence
from privagg.running.record import Record
from privagg.running.results import FloatVector, RoundReport, RunResult
from privagg.server.optimizers import ServerOptimizer, make_optimizer
from privagg.transport import Transport

if TYPE_CHECKING:
    from privagg.federation import Federation

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
        federation: the agreed configuration.
        job: what the coordinator holds of the run.
        transport: carries messages to the parties.
        ledger: the coordinator's own, where the run is recorded.
        output: folder for model, report and bundle.
        generator: name of the sites' source of randomness.
        observed: what can be read about the sites here.
    """

    def __init__(
        self,
        federation: Federation,
        *,
        job: Job,
        transport: Transport,
        ledger: Ledger,
        output: Path,
        generator: str,
        observed: Observed | None = None,
    ) -> None:
        self.federation = federation
        self.job = job
        self.transport = transport
        self.output = output
        self.record = Record(ledger, job.run)
        self.optimizer: ServerOptimizer = make_optimizer(federation.config.training.optimizer)
        self._generator = generator
        self._observed = observed or Observed()

    def drive(self, on_round: OnRound | None) -> RunResult:
        """All rounds, then the files."""
        result = RunResult(self.job.run, "finished", "", get_parameters(self.federation.model))
        self.record.start(self.federation, self.job, self._generator)
        try:
            for number in range(1, self.job.plan.rounds + 1):
                report = self._one_round(result, number, on_round)
                if report.outcome.outcome == "stopped":
                    result.outcome, result.reason = "stopped", report.outcome.reason
                    break
        except PrivaggError as error:
            self.record.finish("failed", type(error).__name__)
            raise
        self._finish(result)
        return result

    def _one_round(self, result: RunResult, number: int, on_round: OnRound | None) -> RoundReport:
        """One round with its retries; each attempt is charged, recorded and told."""
        for attempt in range(1, self.federation.config.training.retries + 2):
            outcome = run_round(
                self.job,
                self.transport,
                result.parameters,
                round_number=number,
                attempt=attempt,
            )
            report = self._settle(result, outcome)
            if on_round is not None:
                on_round(report)
            if outcome.outcome == "opened" or outcome.opening_asked:
                break
        return report

    def _settle(self, result: RunResult, outcome: RoundOutcome) -> RoundReport:
        """Step along what was opened, look at the public table, record the attempt."""
        if outcome.update is not None:
            result.parameters = self.optimizer.step(result.parameters, outcome.update)
            result.metrics = self._evaluate(self._released(result.parameters))
        report = RoundReport(
            outcome=outcome,
            metrics=dict(result.metrics) if outcome.update is not None else {},
            epsilon=self._observed.epsilon(),
            encrypt_seconds=self._observed.encrypt_seconds(outcome.bytes_up),
        )
        self.record.round(report)
        result.rounds.append(report)
        return report

    def _released(self, parameters: FloatVector) -> FloatVector:
        """What would be released now: the optimiser's average where it keeps one."""
        average = self.optimizer.average
        return parameters if average is None else average

    def _evaluate(self, parameters: FloatVector) -> dict[str, float]:
        public = self.federation.public_records
        if public is None:
            return {}
        metrics = evaluate(self.federation.model, parameters, public)
        found = {"accuracy": metrics.accuracy, "loss": metrics.loss, "auc": metrics.auc}
        return {name: value for name, value in found.items() if value is not None}

    def _finish(self, result: RunResult) -> None:
        """Save the model, close the record, ask for the ledgers, write the report from them."""
        result.parameters = self._released(result.parameters)
        result.model = self.output / "model.safetensors"
        digest = save_model(self.federation.model, result.parameters, result.model)
        self.record.released(result, digest)
        self.record.finish(result.outcome, result.reason)
        self._write_evidence(result)

    def _write_evidence(self, result: RunResult) -> None:
        last = max((report.outcome.round for report in result.rounds), default=1)
        accountant = self.federation.accountant
        ledgers, result.missing = collect_ledgers(
            self.job, self.transport, round_number=last, accountant=accountant
        )
        if result.missing:
            return
        result.report_json, result.report_html, result.bundle = write_evidence(
            self.output,
            self.job,
            coordinator=self.record.ledger,
            sites=ledgers,
            accountant=accountant,
        )
