"""One run of a federation in this process: its parties, its rounds, its files.

Every party has its own identity, ledger and key material, and they exchange the very bytes that a
network would carry; only the calling is local.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import privagg
from privagg.audit.bundle import NAME as BUNDLE_NAME
from privagg.audit.bundle import ReportBundle
from privagg.client.data import Records
from privagg.client.evaluate import evaluate
from privagg.client.models import get_parameters
from privagg.client.saving import save_model
from privagg.client.site import Learner, Pins, Site
from privagg.client.training import make_learner
from privagg.errors import PrivaggError
from privagg.identity import Roster
from privagg.privacy.ledger import CheckpointKeeper
from privagg.privacy.randomness import Randomness
from privagg.report import write_report
from privagg.round import Job, RoundOutcome, run_round
from privagg.runtime.local import LocalTransport
from privagg.secure.keyholder import KeyHolder, OpeningRule
from privagg.secure.opening import DecryptionKey
from privagg.server.checkpoints import CheckpointWatch
from privagg.server.optimizers import ServerOptimizer, make_optimizer

if TYPE_CHECKING:
    from privagg.federation import Federation

COORDINATOR, KEY_HOLDER = "coordinator", "key-holder"

FloatVector = NDArray[np.float64]


@dataclass(frozen=True)
class RoundReport:
    """What a caller hears after each round.

    Attributes:
        outcome: how the round ended.
        metrics: figures on the table declared public; empty where there is none.
        epsilon: site -> (spent so far over all jobs, budget), as its ledger says.
        encrypt_seconds: wall-clock seconds all sites together took to encrypt.
    """

    outcome: RoundOutcome
    metrics: Mapping[str, float]
    epsilon: Mapping[str, tuple[Decimal, Decimal]]
    encrypt_seconds: float


@dataclass
class RunResult:
    """What a run left behind.

    Attributes:
        run: its identifier.
        outcome: `finished`, or `stopped` where a round stopped by the plan's rule.
        parameters: float64 (d,), the model after the last opened round.
        metrics: figures on the public table after the last opened round.
        rounds: every attempt, in order.
        model, report_json, report_html, bundle: files written.
        ledgers: party -> ledger file.
    """

    run: str
    outcome: str
    reason: str
    parameters: FloatVector
    metrics: dict[str, float] = field(default_factory=dict)
    rounds: list[RoundReport] = field(default_factory=list)
    model: Path | None = None
    report_json: Path | None = None
    report_html: Path | None = None
    bundle: Path | None = None
    ledgers: dict[str, Path] = field(default_factory=dict)


class Run:
    """One run of a federation in this process: its parties, its rounds, its files."""

    def __init__(
        self, federation: Federation, randomness: Randomness, run_id: str | None = None
    ) -> None:
        self.federation = federation
        self.plan = plan = federation.plan
        self.run_id = run_id or f"{federation.config.federation.name}-{secrets.token_hex(6)}"
        records = {site.name: federation.records_of(site) for site in federation.config.sites}
        if randomness.secure:
            federation.check_budgets()
        key = federation.scheme.generate_key(federation.parameters)
        self.ledgers = {name: federation.open_ledger(name) for name in plan.names}
        self.coordinator_ledger = federation.open_ledger(COORDINATOR)
        self.identities = {
            name: federation.identity(name) for name in (COORDINATOR, KEY_HOLDER, *plan.names)
        }
        self.roster = Roster.of(*self.identities.values())
        self.sites = self._make_sites(key, records, randomness)
        self.transport = LocalTransport(self._handlers(key))
        self.job = Job(
            run=self.run_id,
            plan=plan,
            scheme=federation.scheme,
            parameters=key.encryption_key.parameters,
            key_id=key.encryption_key.key_id,
            identity=self.identities[COORDINATOR],
            roster=self.roster,
            opener=federation.opener,
            watch=CheckpointWatch(
                CheckpointKeeper.open(federation.output / "checkpoints.sqlite"), self.roster
            ),
        )
        self.optimizer: ServerOptimizer = make_optimizer(federation.config.training.optimizer)
        self.generator = randomness.name

    def _make_sites(
        self, key: DecryptionKey, records: Mapping[str, Records], randomness: Randomness
    ) -> dict[str, Site]:
        federation, plan = self.federation, self.plan
        pins = Pins(
            roster=self.roster,
            coordinator=COORDINATOR,
            plan_digest=plan.digest,
            key_id=key.encryption_key.key_id,
            opener=federation.opener,
        )
        return {
            name: Site(
                identity=self.identities[name],
                pins=pins,
                plan=plan,
                learner=self._make_learner(name, records[name]),
                key=key.encryption_key,
                ledger=self.ledgers[name],
                randomness=randomness,
                key_holder=self._key_holder(key, name) if name == federation.opener else None,
            )
            for name in plan.names
        }

    def _make_learner(self, name: str, records: Records) -> Learner:
        """A learner with a model of its own; every site starts from the same public seed."""
        federation, training = self.federation, self.federation.config.training
        return make_learner(
            self.plan,
            name,
            model=federation.fresh_model(),
            records=records,
            rule=training.client_rule,
        )

    def _key_holder(self, key: DecryptionKey, party: str) -> KeyHolder:
        plan = self.plan
        rule = OpeningRule(
            plan_digest=plan.digest,
            names=plan.names,
            minimum_survivors=plan.minimum_survivors,
            addends=plan.addends,
            rounds=plan.rounds,
            strict=plan.strict,
        )
        return KeyHolder(
            identity=self.identities[party],
            key=key,
            rule=rule,
            roster=self.roster,
            aggregator=COORDINATOR,
            store=self.federation.output / "keyholder" / f"{party}.sqlite",
        )

    def _handlers(self, key: DecryptionKey) -> dict[str, Callable[[bytes], bytes]]:
        handlers: dict[str, Callable[[bytes], bytes]] = {
            name: site.handle for name, site in self.sites.items()
        }
        if self.federation.opener == KEY_HOLDER:
            handlers[KEY_HOLDER] = self._key_holder(key, KEY_HOLDER).handle
        return handlers

    # --- rounds -----------------------------------------------------------------------------------

    def drive(self, on_round: Callable[[RoundReport], None] | None) -> RunResult:
        """All rounds, then the files."""
        parameters = get_parameters(self.federation.model)
        result = RunResult(self.run_id, "finished", "", parameters)
        self._record_start()
        try:
            for number in range(1, self.plan.rounds + 1):
                report = self._one_round(result, number, on_round)
                if report.outcome.outcome == "stopped":
                    result.outcome, result.reason = "stopped", report.outcome.reason
                    break
        except PrivaggError as error:
            self._record("run-finished", outcome="failed", reason=type(error).__name__)
            raise
        self._finish(result)
        return result

    def _one_round(
        self, result: RunResult, number: int, on_round: Callable[[RoundReport], None] | None
    ) -> RoundReport:
        """One round with its retries; each attempt is charged, recorded and told."""
        for attempt in range(1, self.federation.config.training.retries + 2):
            outcome = run_round(
                self.job,
                self.transport,
                result.parameters,
                round_number=number,
                attempt=attempt,
            )
            if outcome.update is not None:
                stepped = self.optimizer.step(result.parameters, outcome.update)
                result.parameters = stepped
                result.metrics = self._evaluate(self._released(stepped))
            report = RoundReport(
                outcome=outcome,
                metrics=dict(result.metrics) if outcome.update is not None else {},
                epsilon=self._epsilon(),
                encrypt_seconds=sum(self.sites[name].encrypt_seconds for name in outcome.bytes_up),
            )
            self._record_round(report)
            result.rounds.append(report)
            if on_round is not None:
                on_round(report)
            if outcome.outcome == "opened" or outcome.opening_asked:
                break
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

    def _epsilon(self) -> dict[str, tuple[Decimal, Decimal]]:
        found = {}
        for name, ledger in self.ledgers.items():
            key = self.federation.budget_key(name)
            spending = ledger.spent(key)
            found[name] = (spending.epsilon.upper, spending.epsilon_budget)
        return found

    # --- records and files ------------------------------------------------------------------------

    def _record(self, kind: str, **values: Any) -> None:
        self.coordinator_ledger.record(kind, {"run": self.run_id, **values})

    def _record_start(self) -> None:
        federation, plan = self.federation, self.plan
        self._record(
            "run-started",
            facts={
                "federation": federation.config.federation.name,
                "plan": plan.canonical_json,
                "plan_digest": plan.digest,
                "scheme": {
                    "name": federation.scheme.name,
                    "protects": federation.scheme.protects,
                    "security_bits": self.job.parameters.security_bits,
                    "key_id": self.job.key_id,
                    "payload_bytes": self.job.parameters.payload_bytes,
                    "explanation": self.job.parameters.explain(),
                },
                "custody": plan.custody.value,
                "custody_plainly": plan.custody.plainly,
                "opener": federation.opener,
                "parties": dict(self.roster.keys),
                "public_table": self._public_table(),
                "attestations": [a.model_dump() for a in federation.config.attestations],
                "generator": self.generator,
                "versions": {
                    "privagg": privagg.__version__,
                    "python": platform.python_version(),
                    "numpy": np.__version__,
                },
            },
        )

    def _public_table(self) -> dict[str, Any] | None:
        """The table declared public: its name, and its size, which is public too."""
        evaluation, records = self.federation.config.evaluation, self.federation.public_records
        if records is None:
            return None
        name = evaluation.name if evaluation is not None else "given in the program"
        return {"name": name, "rows": len(records)}

    def _record_round(self, report: RoundReport) -> None:
        outcome = report.outcome
        self._record(
            "round",
            round=outcome.round,
            attempt=outcome.attempt,
            outcome=outcome.outcome,
            reason=outcome.reason,
            facts={
                "cohort": list(outcome.cohort),
                "survivors": list(outcome.survivors),
                "refusals": [
                    {"site": site, "message": text} for site, text in outcome.refusals.items()
                ],
                "metrics": dict(report.metrics) or None,
                "bytes_up": outcome.bytes_up,
                "bytes_down": outcome.bytes_down,
                # The time a whole round takes depends on private data, so it is never recorded.
                "seconds": {
                    "encrypt": report.encrypt_seconds,
                    **{name: outcome.seconds.get(name, 0.0) for name in ("add", "open")},
                },
                "exchanges": outcome.exchanges,
            },
        )

    def _finish(self, result: RunResult) -> None:
        """Save the model, close the coordinator's record, write the report from the ledgers."""
        output = self.federation.output
        result.parameters = self._released(result.parameters)
        result.model = output / "model.safetensors"
        digest = save_model(self.federation.model, result.parameters, result.model)
        self.coordinator_ledger.record(
            "released",
            {
                "what": "model",
                "who": COORDINATOR,
                "facts": {
                    "run": self.run_id,
                    "model_file": result.model.name,
                    "model_sha256": digest,
                    "metrics": result.metrics or None,
                },
            },
        )
        self._record("run-finished", outcome=result.outcome, reason=result.reason)
        for ledger in self.ledgers.values():
            ledger.forget_uploads(self.run_id)
        result.ledgers = {
            name: self.federation.ledger_path(name) for name in (COORDINATOR, *self.plan.names)
        }
        result.report_json, result.report_html = write_report(
            output,
            run=self.run_id,
            coordinator=self.coordinator_ledger,
            sites=self.ledgers,
            accountant=self.federation.accountant,
        )
        evidence = ReportBundle.make(
            result.report_json.read_bytes(),
            {COORDINATOR: self.coordinator_ledger, **self.ledgers},
            self.identities[COORDINATOR],
        )
        result.bundle = output / BUNDLE_NAME
        evidence.write(result.bundle)
