"""The Python door: a federation from its configuration, checked, approved, run and reported.

    from privagg import Federation

    federation = Federation.from_toml("my.toml")
    print(federation.plan.noise_multiplier)
    federation.approve(who="Dr. Ito", why="readmissions study")
    result = federation.run()
    print(result.metrics, result.report_html)

All parties live in this process, each with its own identity, ledger and key material, and exchange
the very bytes that a network would carry. A distributed runtime drives the same parties.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Self, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.config.asking import AskSetup, SumsSetup
from privagg.config.data import TableData, UndeclaredData
from privagg.config.evaluating import EvaluateSetup
from privagg.config.jobs import beside, job_of
from privagg.config.proposed import proposed
from privagg.config.schema import Config, load_config, parse_config
from privagg.config.setup import TRAINING, Setup
from privagg.errors import ConfigError
from privagg.identity.owner import read_owner_key
from privagg.party.approving import Terms, approve_here, last_day, withdraw
from privagg.party.open import code_here, decided_folder
from privagg.party.own_data import device_here, own_table_here
from privagg.party.personal import HomeRule, Personal, personalise
from privagg.party.ready import require_ready
from privagg.privacy.accountant import Accountant
from privagg.privacy.accountants import default_accountant
from privagg.privacy.ledger import Approval
from privagg.privacy.plan import TrainingPlan
from privagg.privacy.randomness import Randomness, SystemRandomness
from privagg.programs.program import MODEL_NAME
from privagg.run.listing import ListedRun, runs_at
from privagg.run.local import How, Run
from privagg.run.results import RoundReport, RunResult
from privagg.run.tuning import Candidate, OnBegin, Search, SearchResult
from privagg.run.unfinished import (
    Begun,
    Unfinished,
    require_none_unfinished,
    require_unfinished,
    unfinished_runs,
)
from privagg.secure.scheme import Parameters
from privagg.training.data import Records
from privagg.training.declared import DeviceName, TableSource
from privagg.training.factories import ApprovedCode, Factory
from privagg.training.predicting import predict_table
from privagg.training.saving import load_model


class Federation:
    """Institutions that train one model together, all on this machine.

    A whole job, once a configuration file is written (`privagg init` writes one)::

        federation = Federation.from_toml("my.toml")
        federation.approve(who="Dr. Ito", why="study 7")  # the owners' act
        result = federation.run()
        result.report_json  # what it cost each data set, and against whom that holds

    Args:
        config: the checked configuration.
        base: folder that relative paths in it start from.
        records: site name -> records, in place of the files named in the configuration.
        public_records: the table declared public, in place of the file.
        accountant: whose epsilon calibrates the noise and guards the budgets.
        plan: the plan that was agreed on, where it was pinned; derived anew by default.
        code: what may be imported for factories that the configuration names; by default what
            approvals in the sites' ledgers name.
        source: the file that it was read from, for advice on what to type.
        device: where all sites train: "auto", "cpu", "cuda" or "mps"; by default as each site's own
            `party.toml` says, "auto" where none does.

    Attributes:
        setup: what a run is made from.
    """

    def __init__(
        self,
        config: Config,
        *,
        base: Path | str = ".",
        records: Mapping[str, Records] | None = None,
        public_records: Records | None = None,
        accountant: Accountant | None = None,
        plan: TrainingPlan | None = None,
        code: ApprovedCode | None = None,
        source: Path | None = None,
        device: DeviceName | None = None,
    ) -> None:
        self.setup = Setup(
            config,
            Path(base),
            source=source,
            accountant=accountant or default_accountant(),
            pinned=plan,
            allowed=lambda: code_here(self.setup) if code is None else code,
            own=lambda site: own_table_here(self.setup.output, site),
            devices=lambda site: device or device_here(self.setup.output, site),
            given=dict(records or {}),
            given_public=public_records,
        )

    @classmethod
    def from_toml(cls, path: str | Path, **options: Any) -> Self:
        """The federation described by a configuration file; its paths start at its folder.

        Raises:
            ConfigError: the file cannot be used as it is.
        """
        base = Path(path).resolve().parent
        return cls(load_config(path), base=base, source=Path(path), **options)

    @classmethod
    def from_dict(cls, values: dict[str, Any], **options: Any) -> Self:
        """The federation described by plain values, as they would stand in the file."""
        return cls(parse_config(values), **options)

    @property
    def config(self) -> Config:
        """The checked configuration."""
        return self.setup.config

    @property
    def plan(self) -> TrainingPlan:
        """The plan, its noise calibrated to the configured epsilon."""
        return self.setup.training_plan

    @property
    def asking(self) -> AskSetup:
        """The configured questions as a job of their own.

        Raises:
            ConfigError: none are configured.
        """
        return AskSetup.of(self.setup)

    @property
    def declared(self) -> bool:
        """Whether the records' columns are declared, so that there is something to train."""
        return not isinstance(self.config.data, UndeclaredData)

    def beside(self, job: str) -> SumsSetup:
        """A job that is asked beside training.

        Args:
            job: such as `questions` or `facts`.

        Raises:
            ConfigError: there is no such job, or the configuration does not have it.
        """
        return beside(self.setup, job)

    @property
    def evaluating(self) -> EvaluateSetup:
        """The configured private evaluation as a job of its own.

        Raises:
            ConfigError: none is configured.
        """
        return EvaluateSetup.of(self.setup)

    @property
    def parameters(self) -> Parameters:
        """The scheme's parameters for this plan (before any key exists)."""
        return self.setup.parameters

    def with_config(self, config: Config) -> Self:
        """The same data and ledgers under another configuration; records are not read again."""
        other = copy(self)
        other.setup = self.setup.with_config(config)
        return other

    # --- the owners' act ------------------------------------------------------------------------

    def approve(
        self,
        *,
        who: str,
        why: str,
        sites: Sequence[str] | None = None,
        until: date | None = None,
        budget: Decimal | None = None,
        without_guarantee: bool = False,
        overlaps: str = "",
        runs: int | None = None,
        owner: Ed25519PrivateKey | None = None,
        job: str = TRAINING,
        accept_findings: bool = False,
    ) -> dict[str, Approval]:
        """Approve the configured job, a run or a search, for sites whose ledgers lie here.

        One person acts for all of these sites, and the approvals say so. A site's ledger and
        owner's key are made where they do not exist yet. Nothing is spent.

        Args:
            who: the person who decides.
            why: the analyst, or the purpose.
            sites: all by default.
            until: last day; by default `APPROVED_DAYS` from now.
            budget: what a data set may spend over all jobs; the configuration's by default.
            without_guarantee: an infinite budget is meant.
            overlaps: why it is right that records count under two names; by default they may not.
            runs: how many runs of the job's plans, all together; by default any number that the
                budget has room for until the last day.
            owner: the owner's key, where it is not kept in the sites' folders.
            job: which of the configuration's jobs: its training, `questions`, `facts`,
                `evaluation` or `rounds`.
            accept_findings: these sites take part with their records as they are, now and later,
                whatever `privagg check` finds in them.

        Returns:
            The approval of each site.

        Raises:
            DataError: a site does not join with its records as they are.
            ApprovalError: records that count under another name already; an infinite budget.
            BudgetExceededError: a budget has no room for the whole job.
            ConfigError: a file or key cannot be read.
        """
        terms = Terms(who, why, last_day(until), budget, without_guarantee, overlaps, runs)
        self.trust(job_of(self.setup, job).factories())
        setup = job_of(self.setup, job)
        return approve_here(setup, terms, sites, owner, accept_findings=accept_findings)

    def trust(self, code: Iterable[Factory]) -> None:
        """Let code that the configuration names run in this process, as the caller decides."""
        self.setup = self.setup.trusting(code)

    def withdraw(self, *, who: str, why: str, sites: Sequence[str] | None = None) -> int:
        """Withdraw every approval in force of some sites.

        Args:
            who: the person who acts.
            why: the reason, for the ledger.
            sites: all by default.

        Returns:
            How many there were.
        """
        names = sites or [site.name for site in self.config.sites]
        folders = [decided_folder(self.setup, name) for name in names]
        return sum(
            withdraw(folder, read_owner_key(folder.owner_key), who=who, why=why)
            for folder in folders
        )

    # --- the run --------------------------------------------------------------------------------

    def unfinished(self) -> list[Unfinished]:
        """The runs that were cut off in this federation's folder; not one that goes on elsewhere.

        Raises:
            ConfigError: the journal of one is damaged.
        """
        return unfinished_runs(self.setup.output)

    def check_ready(self, resume: str | None = None, *, job: str = TRAINING) -> None:
        """Everything that can be refused before a run costs anything: files, approvals, budgets.

        Args:
            resume: as for `run`.
            job: as for `approve`.

        Raises:
            ResumeError: a run was cut off; or the one to resume was not.
            ConfigError, DataError: a file cannot be read as declared.
            ApprovalError: an owner has not approved the plan.
            DataError: nor the records that lie at its site now.
            BudgetExceededError: a budget is too small for the whole job.
        """
        if resume is not None:
            require_unfinished(self.setup.output, resume)
        else:
            require_none_unfinished(self.setup)
        require_ready(job_of(self.setup, job), resume)

    def run(
        self,
        *,
        on_round: Callable[[RoundReport], None] | None = None,
        randomness: Randomness | None = None,
        run_id: str | None = None,
        resume: str | None = None,
    ) -> RunResult:
        """Train: charge, encrypt, add, open and step for every planned round; then report.

        A run that is cut off (a kill, an interruption, a full disk) can be resumed: nothing is
        charged twice, and the model is the one that it would have had. `KeyboardInterrupt` out of
        `on_round` ends a run instead, and its model and report are written.

        Args:
            on_round: called after every attempt.
            randomness: source of sampling and noise; the operating system's unless a test says
                otherwise (a deterministic source is charged as epsilon = infinity).
            run_id: name of the run; a fresh one by default. A name that was used before is
                refused by the ledgers, which never charge one attempt twice.
            resume: name of a run that was cut off, to go on with.

        Raises:
            ResumeError: a run was cut off, which is resumed or given up first; or there is no such
                run, or it was begun with other settings or code.
            BudgetExceededError: before anything is spent, where a budget is too small.
            PrivaggError: bad configuration or data, before anything is spent.
        """
        how: How = "resume" if resume is not None else "new"
        source = randomness or SystemRandomness()
        return Run(self.setup, source, resume or run_id, how=how).drive(on_round)

    def ask(
        self,
        *,
        on_round: Callable[[RoundReport], None] | None = None,
        randomness: Randomness | None = None,
        run_id: str | None = None,
        resume: str | None = None,
        job: str = AskSetup.job,
    ) -> RunResult:
        """Ask the configured questions: charge, encrypt, add, open; then answers and report.

        `RunResult.answers` is the file of the answers. Asking again is charged again.

        Args:
            on_round: called after every attempt.
            randomness, run_id, resume: as for `run`.
            job: `questions`, or `facts` for what `[data]` should declare; see `proposed`.

        Raises:
            ConfigError: no questions, or no facts, are configured.
            PrivaggError: as `run`.
        """
        how: How = "resume" if resume is not None else "new"
        source = randomness or SystemRandomness()
        setup = self.beside(job)
        return Run(setup, source, resume or run_id, how=how).drive(on_round)

    def evaluate(
        self,
        *,
        on_round: Callable[[RoundReport], None] | None = None,
        randomness: Randomness | None = None,
        run_id: str | None = None,
        resume: str | None = None,
    ) -> RunResult:
        """Evaluate an opened model on the sites' held-out records; then answers and report.

        The model is the latest run's, unless `evaluation.model` names one; a run of this federation
        released it, trained without these records. Evaluating again is charged again.

        Args:
            on_round: called after every attempt.
            randomness, run_id, resume: as for `run`.

        Raises:
            ConfigError: no private evaluation is configured; no such model, or another one.
            PrivaggError: as `run`.
        """
        return self.ask(
            on_round=on_round,
            randomness=randomness,
            run_id=run_id,
            resume=resume,
            job=EvaluateSetup.job,
        )

    def proposed(self, result: RunResult) -> str:
        """What `ask(job="facts")` found, as TOML sections for the configuration.

        Args:
            result: of the asking.

        Raises:
            ConfigError: nothing was opened.
        """
        if result.answers is None:
            raise ConfigError(f"{result.run} opened nothing, so that nothing can be proposed")
        declared = "target" in self.config.data.model_fields_set
        return proposed(json.loads(result.answers.read_bytes()), target_declared=declared)

    def give_up(self, run: str, *, randomness: Randomness | None = None) -> RunResult:
        """End a run that was cut off: its model so far and its report are written, its key erased.

        What was charged stays charged. A sum that was asked for already is still taken. Neither an
        approval nor this federation's own settings matter: the run ends by those it was begun with.

        Args:
            run: its name.
            randomness: what the run was begun with.

        Raises:
            ResumeError: there is no such run, or it was begun with other code.
        """
        begun = Begun.read(require_unfinished(self.setup.output, run))
        setup = self.setup.with_config(parse_config(begun.configuration))
        return Run(
            job_of(setup, begun.job), randomness or SystemRandomness(), run, how="give up"
        ).drive(None)

    def tune(
        self,
        *,
        on_begin: OnBegin | None = None,
        on_candidate: Callable[[Candidate], None] | None = None,
        randomness: Randomness | None = None,
        resume: str | None = None,
    ) -> SearchResult:
        """Run every candidate of the `[tuning]` grid, select one by the public table's metric.

        Every candidate is an ordinary run, charged in full; `privacy.epsilon` is what one may
        cost. The search is written into every ledger before its first run. The same search again
        is another one, charged again; what an earlier one selected stays in its own folder.

        Args:
            on_begin: called with the search once all is checked, before anything is spent.
            on_candidate: called after each candidate's run.
            randomness: as in `run`.
            resume: name of a search that was cut off: candidates that have ended are read again,
                the one under way goes on, and the rest is run.

        Raises:
            ConfigError: no grid, no public table, settings that cannot be used.
            BudgetExceededError: before anything is spent, where a budget is too small for all.
            ResumeError: something else was cut off, or this search cannot be resumed.
            SearchError: no candidate finished.
        """
        search = Search(self.setup, randomness or SystemRandomness(), resume)
        if on_begin is not None:
            on_begin(search)
        return search.drive(on_candidate)

    # --- what it left behind --------------------------------------------------------------------

    def runs(self) -> list[ListedRun]:
        """Every run and search in the output folder: how it ended, its cost, where its files lie.

        Raises:
            ConfigError: there is no such folder yet.
            LedgerError: a ledger cannot be read, or was changed.
        """
        return runs_at(self.setup.output, self.setup.accountant)

    def trained_model(self, path: Path | str | None = None) -> Any:
        """A released model (a `torch.nn.Module`); by default the last run's.

        Raises:
            ConfigError, ModelError: there is no such file, or it holds another model.
        """
        file = Path(path or self.setup.output / MODEL_NAME)
        return load_model(self.setup.model_in(file), file)

    def personalise(
        self,
        site: str,
        *,
        model: Path | str | None = None,
        rule: HomeRule | None = None,
        randomness: Randomness | None = None,
    ) -> Personal:
        """A site's own model: the opened one, trained on at home on its records. Nothing leaves.

        No budget is touched; the model is as private as the records.

        Args:
            site: whose.
            model: file of the opened model; the last run's by default.
            rule: how it is trained; `HomeRule()` by default.
            randomness: of batches; the operating system's by default.

        Raises:
            ConfigError, DataError, ModelError: as `privagg.party.personal.personalise`.
        """
        self.setup.section(site)
        folder = decided_folder(self.setup, site)
        path = Path(model or self.setup.output / MODEL_NAME)
        return personalise(self.setup, folder, path, rule or HomeRule(), randomness=randomness)

    def predict(
        self, table: Path | str, *, model: Path | str | None = None, site: str | None = None
    ) -> Any:
        """Class probabilities, float64 `(n, classes)`, of a table's every record.

        They say as much about the records as the records do: for their owner's eyes.

        Args:
            table: path of the table.
            model: of the model; the last run's by default.
            site: whose table is written like this one; by default it is as `data.file` says.

        Raises:
            ConfigError: the federation is not about tables, or a file is missing.
            DataError: the table cannot be read, or lacks a declared feature.
        """
        if not isinstance(self.config.data, TableData):
            raise ConfigError("only tables are read here; call federation.trained_model() on yours")
        written = self.config.data.source
        if site is not None:
            written = cast(TableSource, self.setup.source_of(self.setup.section(site)))
        return predict_table(self.trained_model(model), replace(written, database=None), table)
