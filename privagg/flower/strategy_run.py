"""A run that a Flower strategy drives: begun or resumed, recorded, and reported at its end.

It leaves the same files as a run of ours (`privagg.flower.lead`), and one ending.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.errors import PrivaggError, ResumeError
from privagg.flower.bridge.grid import say
from privagg.flower.lead import (
    RESULT_NAME,
    missing_text,
    report_result,
    report_round,
    result_facts,
)
from privagg.party.folder import PartyFolder
from privagg.party.open import open_federation, open_ledger
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.program import MODEL_NAME
from privagg.protocol.job import Job, RoundOutcome
from privagg.protocol.statements import StatementStore
from privagg.protocol.transport import Transport
from privagg.report.figures import epsilon_text
from privagg.run.committed import CommittedSpending
from privagg.run.evidence import collect_ledgers, write_evidence
from privagg.run.journal import Journal
from privagg.run.local import new_run_id
from privagg.run.open import open_job
from privagg.run.record import RunRecorder
from privagg.run.replay import ReplayedRounds
from privagg.run.results import RoundReport, RunResult
from privagg.run.rounds import RoundRunner
from privagg.training.saving import tensor_bytes, write_model


class StrategyRun:
    """One run at its coordinator.

    Args:
        folder: the coordinator's.
        resume: identifier of a run to resume; a fresh one where it is None or empty.

    Raises:
        ConfigError: the folder is incomplete or contradicts its pins.
        ResumeError: no strategy began such a run here.
    """

    def __init__(self, folder: PartyFolder, resume: str | None) -> None:
        self.setup = open_federation(folder)
        self.name = resume or new_run_id(self.setup)
        self.output = folder.run_folder(self.name)
        self.identity, self.roster = folder.identity(), folder.pins().pinned_roster
        self._folder = folder
        self._job: Job | None = None
        self._journal = Journal(self.output)
        if resume and not self._journal.for_replay:
            raise ResumeError(
                f"there is no run {resume!r} of a strategy to resume in {folder.output}"
            )
        statements = StatementStore.beside(self.output)
        self._record = RunRecorder(open_ledger(self.setup, folder), self.name, statements)
        self._committed = CommittedSpending(self.setup.plan, self.setup.accountant, secure=True)
        self._result = RunResult(self.name, "finished", "", np.empty(0))
        self.output.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def job(self) -> Job:
        """What the coordinator holds of the run, once it has begun."""
        assert self._job is not None, "a run begins first"
        return self._job

    def begin(self, transport: Transport) -> None:
        """Get the run's key, and write down that the run begins, or is resumed.

        Raises:
            As `open_job`; nothing was spent.
        """
        self._job = open_job(
            self.setup, self._folder, self.roster, self.name, transport, self._journal,
            over=self._record.ever("run-finished"),
        )  # fmt: skip
        self._record.keep_key(self._job.key)
        (self.output / RESULT_NAME).unlink(missing_ok=True)
        resumed = self._journal.for_replay
        self._journal.keep_for_replay()
        if resumed:
            say(f"run {self.name} is resumed; rounds that are over are read from its journal")
        else:
            say(f"run {self.name}; if this process dies, resume it with resume={self.name!r}")
        if resumed:
            for place, cohort in self._record.cohorts():
                self._committed.asked(place, cohort)
        if not resumed or not self._record.ever("run-started"):
            self._record.start(self.setup, self.job, SystemRandomness().name)

    def rounds(self, transport: Transport) -> ReplayedRounds:
        """What answers the strategy."""
        attempts = self.setup.config.training.retries + 1
        rounds = RoundRunner(
            self.job, transport, self._record, journal=self._journal, attempts=attempts
        )
        return ReplayedRounds(rounds, self._note, over=self._record.ever("run-finished"))

    def _note(self, outcome: RoundOutcome) -> None:
        committed = self._committed.after(outcome)
        report = RoundReport(outcome.summary(), {}, {}, encrypt_seconds=0.0, committed=committed)
        self._record.keep(outcome.statements)
        self._record.round(report)
        report_round(self.output, report)
        came, asked = len(outcome.survivors), len(outcome.cohort)
        end = f"{came} of {asked} sites" if outcome.outcome == "opened" else outcome.reason
        spent = epsilon_text(max(committed.values()))
        say(f"round {outcome.round}, {outcome.outcome}: {end}; this run's ε so far ≤ {spent}")
        for site, why in outcome.refusals.items():
            say(f"round {outcome.round}, {site}: {why}")

    def release(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Save the model that the run ends with, and write its digest down.

        Args:
            tensors: the arrays by name.

        Raises:
            ConfigError: the file cannot be written.
            ResumeError: the run has released another model already.
        """
        data, path = tensor_bytes(tensors), self.output / MODEL_NAME
        digest, before = hashlib.sha256(data).hexdigest(), self._record.released_digest()
        if before not in (None, digest):
            raise ResumeError(
                f"run {self.name!r} has released its model already, with SHA-256 {before}; this "
                f"one has {digest}"
            )
        write_model(path, data)
        self._result.model = path
        self._record.released("model", path, digest, self._result.metrics)

    def failed(self, error: BaseException) -> None:
        """The strategy or the app raised; the run has not ended, somebody may resume it."""
        text = f": {error}" if isinstance(error, PrivaggError) else ""
        reason = f"{type(error).__name__}{text}"
        report_result(self.output, {"run": self.name, "outcome": "failed", "reason": reason})

    def end(self, outcomes: Sequence[RoundOutcome], transport: Transport) -> None:
        """Close the record, ask for the ledgers, and write the report once all are there."""
        result = self._result
        if not any(outcome.outcome == "opened" for outcome in outcomes):
            result.outcome = "stopped"
            result.reason = outcomes[-1].reason if outcomes else "no round was asked for"
        if not self._record.ever("run-finished"):
            self._record.finish(result.outcome, result.reason)
        accountant = self.setup.accountant
        last = max(len(outcomes), 1)
        ledgers, result.missing = collect_ledgers(
            self.job, transport, round_number=last, begun=last, accountant=accountant
        )
        if not result.missing:
            result.report_json, result.report_html, result.bundle = write_evidence(
                self.output,
                self.job,
                coordinator=self._record.ledger,
                statements=self._record.statements,
                sites=ledgers,
                accountant=accountant,
            )
        report_result(self.output, result_facts(result))
        self._report_end(result)

    def _report_end(self, result: RunResult) -> None:
        if result.missing:
            say(missing_text(result.missing))
        else:
            say(f"report and bundle: {self.output}")
        if result.model is None and result.outcome == "finished":
            say("the report names no model; private.release(result.arrays) records the final one")
