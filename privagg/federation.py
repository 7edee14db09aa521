"""The Python door: a federation from its configuration, checked, run and reported.

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

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.client.data import Records, read_declared
from privagg.client.factories import ApprovedCode, Factory, code_approved_in, look_at
from privagg.client.inspection import Finding, check_table
from privagg.client.known import KnownRecords, Tags, record_bytes
from privagg.client.loading import TableSource, load_records
from privagg.client.models import build_model, get_parameters
from privagg.client.predicting import predict_table
from privagg.client.rehearsal import RecordsApart, require_model_apart
from privagg.client.saving import load_model
from privagg.config import Config, SiteSection, load_config, parse_config
from privagg.configdata import AppData, DatasetData, TableData
from privagg.errors import ApprovalError, BudgetExceededError, ConfigError
from privagg.identity import Identity
from privagg.owner import make_owner_key, read_owner_key
from privagg.planning import build_plan, requirement_of
from privagg.privacy.accountant import Accountant
from privagg.privacy.accountants import default_accountant
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import Approval, BudgetKey, Ledger
from privagg.privacy.ledger.approvals import public_hex
from privagg.privacy.plan import TrainingPlan
from privagg.privacy.randomness import Randomness, SystemRandomness
from privagg.privacy.unit import Custody, Unit
from privagg.report.figures import lower_text
from privagg.running import COORDINATOR, KEY_HOLDER, RoundReport, Run, RunResult
from privagg.running.approving import (
    APPROVED_DAYS,
    Job,
    Place,
    Terms,
    approve_place,
    check_place,
    memory_beside,
    require_approved_records,
    withdraw,
)
from privagg.running.coordinator import MODEL_NAME
from privagg.running.search import Candidate, Search, SearchResult, grid_of
from privagg.secure.registry import scheme as find_scheme
from privagg.secure.scheme import Parameters, Scheme


class Federation:
    """Institutions that train one model together.

    Args:
        config: the checked configuration.
        base: folder that relative paths in it start from.
        records: site name -> records, in place of the files named in the configuration.
        public_records: the table declared public, in place of the file.
        accountant: whose epsilon calibrates the noise and guards the budgets.
        plan: the plan that was agreed on, where it was pinned; derived anew by default.
        code: what may be imported for factories that the configuration names; by default what
            approvals in the sites' ledgers name.
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
    ) -> None:
        self.config = config
        self.base = Path(base)
        self.accountant = accountant or default_accountant()
        self._records = dict(records or {})
        self._given = frozenset(self._records)
        self._tags: dict[tuple[str, Path], Tags] = {}
        self._public_records = public_records
        self._plan = plan
        self._apart: dict[tuple[object, ...], RecordsApart] = {}
        self._code = code
        self.source = source
        """The file that this was read from, for advice on what to type."""
        unknown = set(self._records) - {site.name for site in config.sites}
        if unknown:
            raise ConfigError(f"records given for unknown sites: {', '.join(sorted(unknown))}")

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

    # --- what follows from the configuration alone ----------------------------------------------

    @cached_property
    def model(self) -> Any:
        """A model for evaluation and saving (a `torch.nn.Module`); no site trains with it."""
        return self.fresh_model()

    def fresh_model(self) -> Any:
        """A new model with the public initial parameters (a `torch.nn.Module`)."""
        config = self.config
        return build_model(
            config.training.model,
            config.data.shape,
            config.data.classes,
            seed=config.federation.seed,
            code=self.code if self.config_names_code else ApprovedCode(),
        )

    @property
    def config_names_code(self) -> bool:
        """Whether the configuration names a factory, that is code of this machine."""
        return bool(self._references())

    @property
    def code(self) -> ApprovedCode:
        """What may be imported: what was given, or what approvals in force in ledgers here name."""
        if self._code is not None:
            return self._code
        found = ApprovedCode()
        for name in (COORDINATOR, *(site.name for site in self.config.sites)):
            if self.ledger_path(name).exists():
                found |= code_approved_in(Ledger.open(self.ledger_path(name)))
        return found

    def factories(self) -> tuple[Factory, ...]:
        """The code that the configuration names, looked at without importing anything.

        Raises:
            ConfigError: it is not there, or can never be approved.
        """
        return tuple(look_at(reference) for reference in self._references())

    def _references(self) -> tuple[str, ...]:
        config = self.config
        if isinstance(config.data, AppData):
            return ()
        named = [config.training.model.kind] if ":" in config.training.model.kind else []
        if isinstance(config.data, DatasetData):
            named += [site.data for site in config.sites]
            named += [config.evaluation.data] if config.evaluation else []
        return tuple(dict.fromkeys(named))

    @cached_property
    def plan(self) -> TrainingPlan:
        """The plan, its noise calibrated to the configured epsilon."""
        if self._plan is not None:
            return self._plan
        if isinstance(self.config.data, AppData):
            dimension = self.config.data.parameters
        else:
            dimension = len(get_parameters(self.model))
        return build_plan(self.config, dimension=dimension, accountant=self.accountant)

    def rehearse(self) -> RecordsApart | None:
        """How it is known that the model keeps records apart, by a test on this machine.

        Tested once for a model, shape and physical batch. None where whole clients are protected.

        Raises:
            ModelError: the model does not; named by the layer. Nothing is charged for it.
        """
        training, data = self.config.training, self.config.data
        if self.plan.unit is not Unit.RECORD:
            return None
        rows = training.client_rule.physical_batch
        case = (training.model.model_dump_json(), data.shape, data.classes, rows)
        if case not in self._apart:
            self._apart[case] = require_model_apart(self.fresh_model(), data.shape, rows)
        return self._apart[case]

    @cached_property
    def scheme(self) -> Scheme:
        """The secure aggregation scheme."""
        return find_scheme(self.config.secure.scheme)

    @cached_property
    def parameters(self) -> Parameters:
        """The scheme's parameters for this plan (before any key exists)."""
        return self.parameters_for(self.plan)

    def parameters_for(self, plan: TrainingPlan) -> Parameters:
        """The configured scheme's parameters for a plan, before any key exists.

        Raises:
            ParameterError: no parameters of the scheme have room for the plan's sums.
        """
        secure = self.config.secure
        requirement = requirement_of(plan, security_bits=secure.security_bits)
        return self.scheme.choose_parameters(requirement, **secure.options)

    @property
    def output(self) -> Path:
        """Folder of models, ledgers and reports."""
        return self.base / self.config.federation.output

    @property
    def opener(self) -> str:
        """The party that answers opening requests."""
        if self.config.secure.custody is Custody.AUTHORITY:
            return KEY_HOLDER
        return self.config.secure.opener or self.plan.names[0]

    def records_of(self, site: SiteSection) -> Records:
        """One site's records, read and encoded by the public declaration."""
        if site.name not in self._records:
            self._records[site.name] = load_records(
                self.config.data.source, self.base, site.data, site.labels, code=self.code
            )
        return self._records[site.name]

    @cached_property
    def public_records(self) -> Records | None:
        """The table declared public, or None where the configuration names none."""
        evaluation = self.config.evaluation
        if self._public_records is not None or evaluation is None:
            return self._public_records
        return load_records(
            self.config.data.source, self.base, evaluation.data, evaluation.labels, public=True,
            code=self.code,
        )  # fmt: skip

    def inspect(self, site: SiteSection) -> list[Finding]:
        """What the owner of a site's data should know before it takes part; for their eyes only.

        Raises:
            ConfigError, DataError: the data cannot be read as declared.
        """
        findings: list[Finding] = []
        if isinstance(self.config.data, AppData):
            return findings
        source = self.config.data.source
        if isinstance(source, TableSource) and site.name not in self._records:
            findings = check_table(
                source.schema, read_declared(self.base / site.data, source.schema)
            )
        count = len(self.records_of(site))
        if count != site.records:
            severity: Literal["warning", "note"] = "warning" if count > site.records else "note"
            text = f"{count} usable records, {site.records} declared; averages use the declaration"
            findings.append(Finding("", severity, text, abs(count - site.records)))
        return findings

    # --- budgets --------------------------------------------------------------------------------

    def ledger_path(self, party: str) -> Path:
        """Where a party's ledger lies."""
        return self.output / "ledgers" / f"{party}.sqlite"

    def opening_store(self, party: str) -> Path:
        """Where the party that opens keeps what it opened."""
        return self.output / "keyholder" / f"{party}.sqlite"

    def identity(self, party: str) -> Identity:
        """A party's identity key, made where it does not exist yet."""
        return Identity.load_or_create(party, self.output / "keys" / f"{party}.pem")

    def open_ledger(self, party: str) -> Ledger:
        """A party's ledger; the coordinator's is made where it does not exist yet.

        Raises:
            ApprovalError: a site has no ledger: its owner has approved nothing.
        """
        if party != COORDINATOR and not self.ledger_path(party).exists():
            raise self._unapproved(party, "it has no ledger yet")
        return self.open_ledger_at(self.ledger_path(party), self.identity(party))

    def open_ledger_at(self, path: Path, identity: Identity) -> Ledger:
        """The ledger of a party at a place of its own, created where it does not exist yet."""
        party = identity.name
        if path.exists():
            ledger = Ledger.open(path, signing_key=identity.key, accountant=self.accountant)
        else:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            ledger = Ledger.create(
                path, owner=party, signing_key=identity.key, accountant=self.accountant
            )
        return ledger

    def owner_key_path(self, party: str) -> Path:
        """Where the key lies that its owner signs approvals with, on this one machine."""
        return self.output / "owners" / f"{party}.pem"

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
            owner: the owner's key, where it is not kept in `owner_key_path`.

        Returns:
            The approval of each site.

        Raises:
            ApprovalError: records that count under another name already; an infinite budget.
            BudgetExceededError: a budget has no room for the whole job.
            ConfigError: a file or key cannot be read.
        """
        names = tuple(sites or (site.name for site in self.config.sites))
        last = until or datetime.now(UTC).date() + timedelta(days=APPROVED_DAYS)
        terms = Terms(who, why, last.isoformat(), budget, without_guarantee, overlaps, runs)
        self.trust(self.factories())
        job = Job.of(self)
        places = [self._place(self._section(name), owner) for name in names]
        for place in places:
            check_place(self, place, job, terms)
        together = self._decided_here(names, job)
        return {p.site: approve_place(self, p, job, terms, together) for p in places}

    def _decided_here(self, names: Sequence[str], job: Job) -> tuple[str, ...]:
        """Everybody for whom the job is decided on this machine, now or before; empty for one."""
        here = {*names}
        for name in self.plan.names:
            if self.ledger_path(name).exists():
                held = Ledger.open(self.ledger_path(name)).approvals()
                here |= {name for approval in held if set(approval.plans) & set(job.digests)}
        found = tuple(name for name in self.plan.names if name in here)
        return found if len(found) > 1 else ()

    def trust(self, code: Iterable[Factory]) -> None:
        """Let code that the configuration names run in this process, as the caller decides."""
        self._code = self.code | ApprovedCode.of(*code)

    def withdraw(self, *, who: str, why: str, sites: Sequence[str] | None = None) -> int:
        """Withdraw every approval in force of these sites, all by default; how many there were."""
        return sum(
            withdraw(
                self.open_ledger(name), read_owner_key(self.owner_key_path(name)), who=who, why=why
            )
            for name in sites or tuple(site.name for site in self.config.sites)
        )

    def _owner(self, party: str) -> Ed25519PrivateKey:
        path = self.owner_key_path(party)
        return read_owner_key(path) if path.exists() else make_owner_key(path)

    def _place(self, section: SiteSection, given: Ed25519PrivateKey | None) -> Place:
        name = section.name
        path, owner = self.ledger_path(name), given or self._owner(section.name)
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            Ledger.create(
                path,
                owner=name,
                signing_key=self.identity(name).key,
                owner_key=public_hex(owner),
            ).close()
        known = memory_beside(path)
        return Place(name, self.open_ledger(name), owner, known, self._tags_of(section, known))

    def _tags_of(self, section: SiteSection, known: KnownRecords) -> Tags | None:
        """A site's records as its owner's memory sees them; None where privagg sees none."""
        name, place = section.name, (section.name, known.path)
        if isinstance(self.config.data, AppData):
            return None
        if place not in self._tags:
            held = self.records_of(section)
            own = "" if name in self._given else section.data
            source = self.config.data.source
            self._tags[place] = known.tags(record_bytes(source, self.base, own, held))
        return self._tags[place]

    def _section(self, name: str) -> SiteSection:
        for site in self.config.sites:
            if site.name == name:
                return site
        known = ", ".join(site.name for site in self.config.sites)
        raise ConfigError(f"the configuration has no site {name!r}; it has {known}")

    def require_approvals(self) -> None:
        """Refuse to go on unless every site's owner has approved this plan.

        Raises:
            ApprovalError: one has not; the text says what to type.
        """
        for name in self.plan.names:
            if not self.ledger_path(name).exists():
                raise self._unapproved(name, "it has no ledger yet")
            try:
                ledger = Ledger.open(self.ledger_path(name))
                ledger.require_approval(self.budget_key(name), self.plan.digest)
            except ApprovalError as error:
                raise self._unapproved(name, "none in force covers one more run of it") from error

    def require_approved_records(self) -> None:
        """Refuse to go on with other records than those that each site's owner approved.

        Raises:
            ApprovalError: a plan is not approved.
            DataError: a site's records are others, or count under another data set's name.
        """
        for section in self.config.sites:
            path = self.ledger_path(section.name)
            known = memory_beside(path)
            tags = self._tags_of(section, known)
            if tags is not None:
                ledger = Ledger.open(path)
                approval = ledger.require_approval(self.budget_key(section.name), self.plan.digest)
                require_approved_records(known, tags, approval, section.name)

    def _unapproved(self, party: str, why: str) -> ApprovalError:
        command = f"privagg approve {quote(str(self.source))} --all-sites"
        if self.source is None:
            command = "federation.approve(who=..., why=...)"
        return ApprovalError(
            f"the owner of {party!r} has not approved this plan; nothing was spent ({why}). Look "
            f"at the plan, then approve it: {command}"
        )

    def candidates(self) -> list[Federation]:
        """The same federation under each combination of the `[tuning]` grid."""
        return [self.with_config(config) for _, config in grid_of(self.config)]

    def budget_key(self, party: str) -> BudgetKey:
        """The budget that a site's contributions are charged to."""
        return BudgetKey(self.plan.site(party).dataset, self.plan.unit.value)

    def check_budgets(self) -> dict[str, tuple[Decimal, Decimal, Decimal]]:
        """What the whole job would do to every data set's budget; nothing is spent.

        Returns:
            Site -> (epsilon spent before, epsilon after the whole job, budget).

        Raises:
            BudgetExceededError: a budget is too small for the whole job.
        """
        found = {}
        for name in self.plan.names:
            before, after, budget, fits = self.project(name, self.plan.total_committed(name))
            found[name] = (before, after, budget)
            if not fits:
                raise self.beyond_budget(name, before, after, budget)
        return found

    def beyond_budget(
        self, party: str, before: Decimal, after: Decimal, budget: Decimal
    ) -> BudgetExceededError:
        """The refusal of a job that a site's budget has no room for, with the ways out."""
        key, privacy = self.budget_key(party), self.config.privacy
        spent = "" if before == 0 else f", of which earlier runs spent {before:f}"
        if privacy.noise_multiplier is not None:
            way = "Plan fewer rounds, a lower sampling rate or a larger noise multiplier, or have"
        elif before < budget * Decimal("0.99"):  # what rounding left over has room for no job
            left = lower_text(budget - before)
            way = f"Set privacy.epsilon to what is left, {left} or a little less, or have"
        else:
            way = "As good as nothing is left of it. Have"
        path = quote(str(self.source)) if self.source else "CONFIG"
        return BudgetExceededError(
            f"{self.plan.rounds} rounds would bring data set {key.dataset!r} of {party!r} to "
            f"epsilon {after:f}{spent}, beyond its budget of {budget:f}; nothing was spent. "
            f"{way} the owner of the data approve a larger budget: privagg approve "
            f"{path} --site {quote(party)} --budget NEW"
        )

    def check_ready(self) -> None:
        """Everything that can be refused before a run costs anything: files, then budgets.

        Raises:
            ConfigError, DataError: a file cannot be read as declared.
            ApprovalError: an owner has not approved the plan.
            DataError: nor the records that lie at its site now.
            BudgetExceededError: a budget is too small for the whole job.
        """
        for site in self.config.sites:
            self.records_of(site)
        _ = self.public_records
        self.require_approvals()
        self.require_approved_records()
        self.check_budgets()

    def project(self, party: str, event: DpEvent) -> tuple[Decimal, Decimal, Decimal, bool]:
        """What charging `event` would do to a site's budget: epsilon before, after, budget, fits.

        A ledger that does not exist yet is not made for this.
        """
        if not self.ledger_path(party).exists():
            privacy = self.config.privacy
            after = self.accountant.epsilon(event, privacy.delta).upper
            return Decimal(0), after, privacy.budget, after <= privacy.budget
        projection = self.open_ledger(party).project(self.budget_key(party), event)
        return (
            projection.epsilon_before,
            projection.epsilon_after,
            projection.epsilon_budget,
            projection.fits,
        )

    # --- the run --------------------------------------------------------------------------------

    def run(
        self,
        *,
        on_round: Callable[[RoundReport], None] | None = None,
        randomness: Randomness | None = None,
        run_id: str | None = None,
    ) -> RunResult:
        """Train: charge, encrypt, add, open and step for every planned round; then report.

        Args:
            on_round: called after every attempt.
            randomness: source of sampling and noise; the operating system's unless a test says
                otherwise (a deterministic source is charged as epsilon = infinity).
            run_id: name of the run; a fresh one by default. A name that was used before is
                refused by the ledgers, which never charge one attempt twice.

        Raises:
            BudgetExceededError: before anything is spent, where a budget is too small.
            PrivaggError: bad configuration or data, before anything is spent.
        """
        return Run(self, randomness or SystemRandomness(), run_id).drive(on_round)

    def trained_model(self, path: Path | str | None = None) -> Any:
        """A released model (a `torch.nn.Module`); by default the last run's.

        Raises:
            ConfigError, ModelError: there is no such file, or it holds another model.
        """
        return load_model(self.fresh_model(), Path(path or self.output / MODEL_NAME))

    def predict(self, table: Path | str, *, model: Path | str | None = None) -> Any:
        """Class probabilities, float64 `(n, classes)`, of a table's every record.

        They say as much about the records as the records do: for their owner's eyes.

        Raises:
            ConfigError: the federation is not about tables, or a file is missing.
            DataError: the table cannot be read, or lacks a declared feature.
        """
        if not isinstance(self.config.data, TableData):
            raise ConfigError("only tables are read here; call federation.trained_model() on yours")
        return predict_table(self.trained_model(model), self.config.data.table_schema, table)

    def with_config(self, config: Config) -> Federation:
        """The same federation, its data and its ledgers, under another configuration."""
        other = Federation(
            config,
            base=self.base,
            records=self._records,
            public_records=self.public_records,
            accountant=self.accountant,
            code=self._code,
            source=self.source,
        )
        other._given, other._tags, other._apart = self._given, self._tags, self._apart
        return other

    def tune(
        self,
        *,
        on_candidate: Callable[[Candidate], None] | None = None,
        randomness: Randomness | None = None,
    ) -> SearchResult:
        """Run every candidate of the `[tuning]` grid, select one by the public table's metric.

        Every candidate is an ordinary run, charged in full; `privacy.epsilon` is what one may
        cost. The search is written into every ledger before its first run.

        Args:
            on_candidate: called after each candidate's run.
            randomness: as in `run`.

        Raises:
            ConfigError: no grid, no public table, settings that cannot be used.
            BudgetExceededError: before anything is spent, where a budget is too small for all.
            SearchError: no candidate finished.
        """
        return Search(self, randomness or SystemRandomness()).drive(on_candidate)
