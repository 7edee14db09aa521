"""What a run is made from: the configuration, and what follows from it on this machine.

Everything that drives, records or approves a run is handed a `Setup`; only the Python door makes
one, or a party's folder. It changes nothing and spends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar

import numpy as np
from pydantic import ValidationError

from privagg.config.algorithms import network_fault
from privagg.config.data import AppData, DatasetData, UndeclaredData
from privagg.config.plan import FROZEN, build_plan, requirement_of, rounds_factors
from privagg.config.schema import Config
from privagg.config.sections import EvaluationSection, SiteSection
from privagg.encoding.contribution import Learner
from privagg.encoding.vectors import FloatVector
from privagg.errors import (
    ApprovalError,
    ConfigError,
    DataError,
    ModelError,
    ParameterError,
    WrongRoundError,
    validation_faults,
)
from privagg.privacy.accountant import Accountant
from privagg.privacy.accountants import default_accountant
from privagg.privacy.ledger import BudgetKey
from privagg.privacy.plan import Plan, TrainingPlan
from privagg.privacy.unit import Custody, Unit
from privagg.programs.gradient import GradientTraining
from privagg.programs.learners import extra_coordinates, make_learner, make_training
from privagg.programs.program import Program
from privagg.protocol.job import require_driven
from privagg.protocol.names import COORDINATOR, KEY_HOLDER
from privagg.secure.registry import scheme as find_scheme
from privagg.secure.scheme import Parameters, Scheme
from privagg.training.data import (
    DatasetRecords,
    Records,
    kept_by,
    require_encoded,
    targets_of,
)
from privagg.training.declared import (
    DeviceName,
    ImageSource,
    ModelSpec,
    Source,
    TableSource,
)
from privagg.training.devices import Device, settle
from privagg.training.factories import ApprovedCode, Factory, look_at
from privagg.training.frozen import frozen_digest, require_frozen
from privagg.training.ghost.grids import Side, coarsest
from privagg.training.images import read_array
from privagg.training.inspection import (
    Finding,
    check_count,
    check_items,
    check_labels,
    check_step,
    check_table,
)
from privagg.training.known import KnownRecords, Tags, record_bytes
from privagg.training.loading import load_records
from privagg.training.local_sgd import keep_home, personal_parameters
from privagg.training.modelcard import ModelCard
from privagg.training.models import ParameterLayout, build_model
from privagg.training.objective import Objective
from privagg.training.reading import declared_sample
from privagg.training.rehearsal import RecordsApart, require_model_apart, require_trains
from privagg.training.saving import PERSONAL, load_pinned_model, read_tensors
from privagg.training.tablefile import OwnTable
from privagg.training.taught import Taught

TRAINING = "training"
"""The job that every configuration has."""


@dataclass(frozen=True, eq=False)
class Setup:
    """One job of a federation, before it is run.

    Args:
        config: the checked configuration.
        base: folder that relative paths in it start from.
        source: the file that it was read from, for advice on what to type.
        accountant: whose epsilon calibrates the noise and guards the budgets.
        pinned: the plan that was agreed on; derived anew where it is None.
        allowed: says what may be imported for factories that the configuration names; asked each
            time, because an approval ends. Nothing by default.
        own: site -> what its owner says of its table on this machine; asked only when it is read.
        devices: site -> where it trains, its own choice.
        opened: file of an opened model that is evaluated, in place of the configuration's.
        given: site -> records, in place of the files named in the configuration.
        given_public: the table declared public, in place of the file.

    Raises:
        ConfigError: records are given for a site that is not there.
    """

    job: ClassVar[str] = TRAINING
    """Which of the configuration's jobs it is; owners approve each by its name."""

    command: ClassVar[str] = "run"
    """The subcommand that does it."""

    epsilon_key: ClassVar[str] = "privacy.epsilon"
    """The setting that says what the job may cost."""

    config: Config
    base: Path
    source: Path | None = None
    accountant: Accountant = field(default_factory=default_accountant)
    pinned: TrainingPlan | None = None
    allowed: Callable[[], ApprovedCode] = ApprovedCode
    own: Callable[[str], OwnTable] = lambda _: OwnTable()
    devices: Callable[[str], DeviceName] = lambda _: "auto"
    opened: Path | None = None
    given: Mapping[str, Records] = field(default_factory=dict)
    given_public: Records | None = None
    _read: dict[str, Records] = field(default_factory=dict, repr=False)
    _found: dict[tuple[str, str], list[Finding]] = field(default_factory=dict, repr=False)
    _kept: dict[str, Records] = field(default_factory=dict, repr=False)
    _settled: dict[tuple[object, ...], tuple[Device, RecordsApart | None]] = field(
        default_factory=dict, repr=False
    )
    _tags: dict[tuple[str, Path], Tags] = field(default_factory=dict, repr=False)
    _lines: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)
    _rehearsed: set[str] = field(default_factory=set, repr=False)
    _noises: dict[tuple[str, Decimal, Accountant], Decimal] = field(
        default_factory=dict, repr=False
    )

    def __post_init__(self) -> None:
        unknown = set(self.given) - {site.name for site in self.config.sites}
        if unknown:
            raise ConfigError(f"records given for unknown sites: {', '.join(sorted(unknown))}")

    def trusting(self, code: Iterable[Factory]) -> Setup:
        """The same, with code that may be imported besides, as the caller decides."""
        allowed = self.code | ApprovedCode.of(*code)
        return replace(self, allowed=lambda: allowed)

    def with_config(self, config: Config) -> Setup:
        """The same data and ledgers under another configuration."""
        return replace(self, config=config, pinned=None, given_public=self.public_records)

    # --- code -----------------------------------------------------------------------------------

    @property
    def names_code(self) -> bool:
        """Whether the configuration names a factory, that is code of this machine."""
        return bool(self._references())

    @property
    def code(self) -> ApprovedCode:
        """What may be imported now."""
        return self.allowed()

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
        networks = filter(None, (self.network_at(site.name) for site in config.sites))
        kinds = [each.kind for each in (config.training.model, *networks)]
        named = [kind for kind in kinds if ":" in kind]
        named += [config.training.loss] if config.training.loss else []
        if isinstance(config.data, DatasetData):
            named += [site.data for site in config.sites]
            named += [config.public_table.data] if config.public_table else []
        return tuple(dict.fromkeys(named))

    # --- model, plan and scheme -----------------------------------------------------------------

    @cached_property
    def model(self) -> Any:
        """A model for evaluation and saving (a `torch.nn.Module`); no site trains with it."""
        model = self._built_model()
        if self.pinned is not None and self._may_freeze:
            require_frozen(model, self.pinned.recipe.get(FROZEN))
        return model

    def fresh_model(self) -> Any:
        """A new model with the public initial parameters (a `torch.nn.Module`).

        Raises:
            ApprovalError: its factory is code that no approval names.
            ModelError: it cannot be built, or what of it is frozen is not what the plan names.
        """
        model = self._built_model()
        if self._may_freeze:
            require_frozen(model, self._frozen)
        return model

    def network_at(self, site: str) -> ModelSpec | None:
        """The model that a site has in the place of training.model's; None where it has none.

        Args:
            site: its name in the plan.

        Raises:
            ConfigError: it names one that the algorithm does not take.
        """
        said, kind = self.section(site).network, self.config.training.algorithm.kind
        if fault := network_fault(kind, site, said):
            raise ConfigError(f"{fault}; nothing was spent")
        if kind != "class-logits":
            return None
        return ModelSpec(kind=said) if isinstance(said, str) else said

    def model_at(self, site: str) -> Any:
        """As `fresh_model`; with a network of a site's own, if it has one, which no plan pins.

        Args:
            site: its name in the plan.

        Raises:
            ApprovalError, ConfigError, ModelError: as `network_at` and `fresh_model`.
        """
        own = self.network_at(site)
        return self.fresh_model() if own is None else self._built_model(own)

    def whole_model(self, site: str | None = None) -> Any:
        """As `fresh_model`, with what stays at home a part of it again: what a site predicts with.

        Args:
            site: its name in the plan, where its own network is meant.

        Raises:
            ApprovalError, ConfigError, ModelError: as `model_at`.
        """
        model = self.fresh_model() if site is None else self.model_at(site)
        personal = self.config.training.algorithm.personal
        for parameter in personal_parameters(model, personal).values():
            parameter.requires_grad_(True)
        return model

    @property
    def _may_freeze(self) -> bool:
        """Whether the model is of a factory of somebody's own, or a part of it stays at home."""
        training = self.config.training
        return ":" in training.model.kind or bool(training.algorithm.personal)

    @cached_property
    def _frozen(self) -> str | None:
        """SHA-256 (hex) of what of the model is not trained; None where all of it is."""
        return frozen_digest(self.model) if self._may_freeze else None

    def model_in(self, path: Path) -> Any:
        """A model of the kind that a file of this job's holds: an opened one, or a site's own.

        Args:
            path: the file; whoever wrote it.

        Raises:
            ApprovalError, ConfigError, ModelError: as `fresh_model`; or it is no such file.
        """
        header = read_tensors(path)[1]
        if PERSONAL not in header or self.config.training.algorithm.kind != "class-logits":
            return self.whole_model()
        return self.bare_model(ModelCard.read(header).model)

    def bare_model(self, spec: ModelSpec) -> Any:
        """A model of a kind, with the public initial parameters, beside nothing.

        Args:
            spec: the kind.

        Raises:
            ApprovalError, ModelError: as `fresh_model`.
        """
        config, code = self.config, self.code if self.names_code else ApprovedCode()
        return build_model(
            spec, config.data.shape, config.data.target, seed=config.federation.seed, code=code
        )

    def _built_model(self, spec: ModelSpec | None = None) -> Any:
        config = self.config
        model = self.bare_model(spec or config.training.model)
        if config.training.algorithm.kind == "class-logits":
            model = Taught(model, config.data.target)
        if personal := config.training.algorithm.personal:
            keep_home(model, personal)
        return model

    @cached_property
    def objective(self) -> Objective:
        """What is trained with: each record's loss.

        Raises:
            ApprovalError: it is code that no approval names.
            ConfigError: a file that the target rests on is not there, or not as agreed.
            ModelError: a loss of one's own mixes records.
        """
        own = self.config.training.loss
        code = self.code if own else ApprovedCode()
        return Objective.of(self.config.data.target.settled(self.base), own, code)

    @property
    def plan(self) -> Plan:
        """What all parties agree to, its noise calibrated to the configured epsilon."""
        return self.training_plan

    @cached_property
    def training_plan(self) -> TrainingPlan:
        """The plan of training, for what asks of its clip, model or steps."""
        if self.pinned is not None:
            return self.pinned
        if isinstance(self.config.data, AppData):
            dimension, frozen = self.config.data.parameters, None
        else:
            dimension, frozen = ParameterLayout.of(self.model).dimension, self._frozen
            dimension += extra_coordinates(self.config.training.algorithm, self.model)
        side = self.coarsest_side
        config = self.config.filled("privacy.sensitivity_grid", side.grid if side else None)
        return build_plan(config, dimension=dimension, accountant=self.accountant, frozen=frozen)

    @cached_property
    def coarsest_side(self) -> Side | None:
        """The factor of a record's gradient that a grid rounds most; None where none is rounded.

        Raises:
            ApprovalError, ConfigError, ModelError: as `fresh_model`.
        """
        bits = self.config.compression and self.config.compression.bits
        if isinstance(self.config.data, AppData) or bits or not rounds_factors(self.config):
            return None
        return coarsest(self.fresh_model(), self.config.data.shape)

    def program(self) -> Program:
        """The coordinator's half of the job, from its beginning.

        Raises:
            ApprovalError, ConfigError, DataError: as `public_records`.
        """
        return self._training(self.public_records)

    def _training(self, public: Records | None) -> GradientTraining:
        config, data = self.config, self.config.data
        digest, model = self.training_plan.digest, config.training.model
        return make_training(
            self.training_plan,
            config.training.algorithm,
            model=self._first_model(),
            optimizer=config.training.optimizer,
            public=public,
            target=data.target,
            loss=self.objective.loss,
            card=ModelCard.facts(model, data.shape, data.source, data.target, digest),
        )

    def _first_model(self) -> Any:
        """What training starts from: the public initial parameters, or an earlier run's model.

        Raises:
            ConfigError, ModelError: that model is not there, another file or another model's.
        """
        model, before = self.fresh_model(), self.config.training.continues
        if before is None:
            return model
        return load_pinned_model(model, self.base / before.model, before.sha256)

    def learner(self, site: str) -> Learner:
        """A site's half of the job, with a model of its own; all start from the same public seed.

        Args:
            site: its name in the plan.

        Raises:
            ApprovalError, ConfigError, DataError: as `records_of`.
            ModelError: as `kept_apart`.
        """
        device, tested = self._settle(site)
        section = self.section(site)
        file = section.network if self.network_at(site) is None else None
        return make_learner(
            self.training_plan,
            site,
            model=self.model_at(site),
            records=self.records_of(section),
            rule=self.config.training.client_rule,
            objective=self.objective,
            tested=tested,
            device=device,
            network=self.base / file if isinstance(file, str) else None,
        )

    def require_state(self, number: int, state: FloatVector) -> None:
        """Refuse, before a charge, a round's public state that the plan rules out.

        A run that goes on with an earlier one's model begins with that model, which each site reads
        from the file that the plan pins. Every other round may start from anything.

        Args:
            number: of the round.
            state: float64 (d,), that it would start from.

        Raises:
            WrongRoundError: round 1 starts from another model, or the file is not here.
        """
        before = self.config.training.continues
        if number != 1 or before is None:
            return
        pinned = f"the model of run {before.run} (a file with SHA-256 {before.sha256})"
        try:
            expected = self._training(None).begin()
        except (ConfigError, ModelError) as error:
            raise WrongRoundError(
                f"the plan goes on with {pinned}, and this site cannot read it to hold round 1 "
                "against it: put it where [training.continues] says; nothing was charged"
            ) from error
        if not np.array_equal(state, expected):
            raise WrongRoundError(
                f"round 1 brings another model than the plan goes on with, {pinned}; nothing was "
                "charged"
            )

    def rehearse(self) -> None:
        """Refuse what cannot be computed, at any site, by a test on this machine.

        Raises:
            ConfigError, ModelError: as `kept_apart`.
        """
        for site in self.plan.names:
            self.kept_apart(site)

    def kept_apart(self, site: str) -> RecordsApart | None:
        """How it is known that the model keeps records apart where a site trains, by a test there.

        Tested once for a model, shape, physical batch and choice of a device. None where whole
        clients are protected.

        Args:
            site: its name in the plan.

        Raises:
            ConfigError: the device that the site names is not there.
            ModelError: the model does not; named by the layer. Nothing is charged for it.
        """
        return None if isinstance(self.config.data, AppData) else self._settle(site)[1]

    def _settle(self, site: str) -> tuple[Device, RecordsApart | None]:
        """Where a site trains, and what the test there found."""
        training, data = self.config.training, self.config.data
        asked, unit, rows = self.devices(site), self.plan.unit, training.physical_batch
        engine, units = training.engine, self.training_plan.sensitivity_grid
        model = (self.network_at(site) or training.model).model_dump_json()
        case = (asked, model, data.shape, data.target, training.loss, unit, rows, engine, units)

        def test(device: Device) -> RecordsApart | None:
            if unit is not Unit.RECORD:
                require_trains(self.model_at(site), data.shape, self.objective, device)
                return None
            return require_model_apart(
                self.fresh_model(), data.shape, rows, self.objective,
                engine=engine, sensitivity_grid=units, device=device,
            )  # fmt: skip

        if case not in self._settled:
            self._settled[case] = settle(asked, test)
        return self._settled[case]

    @cached_property
    def scheme(self) -> Scheme:
        """The secure aggregation scheme.

        Raises:
            SchemeError: none is called so, or it declares phases that a round does not drive.
        """
        return require_driven(find_scheme(self.config.secure.scheme))

    @cached_property
    def parameters(self) -> Parameters:
        """The scheme's parameters for this plan (before any key exists)."""
        return self.parameters_for(self.plan)

    def parameters_for(self, plan: Plan) -> Parameters:
        """The configured scheme's parameters for a plan, before any key exists.

        Raises:
            ParameterError: no parameters of the scheme have room for the plan's sums, or the scheme
                opens none of the sites of one of its epochs.
        """
        secure = self.config.secure
        requirement = requirement_of(
            plan, security_bits=secure.security_bits, by_tail=self.scheme.by_tail
        )
        epochs = (plan.in_round(epoch.first) for epoch in plan.epochs)
        least = max(planned.minimum_survivors for planned in epochs)  # of the largest roster
        rule = {"minimum_survivors": least, "colluders": plan.colluders}
        options = {**secure.options, **(rule if self.scheme.every_site else {})}
        chosen = self.scheme.choose_parameters(requirement, **options)
        for epoch in plan.epochs:
            try:
                chosen.for_roster(plan.in_round(epoch.first).addends)
            except ParameterError as error:
                told = f"in {epoch.rounds_text} ({', '.join(epoch.names)}): {error}"
                raise ParameterError(told) from error
        return chosen

    @property
    def opener(self) -> str:
        """The party that states the runs' keys and what was opened."""
        custody = self.config.secure.custody
        if custody is Custody.AUTHORITY:
            return KEY_HOLDER
        if custody is Custody.EVERY_SITE:
            return COORDINATOR  # puts together what the sites state and release
        stay = (site.name for site in self.plan.sites if site.stays)
        return self.config.secure.opener or next(stay, self.plan.names[0])

    @property
    def holders(self) -> tuple[str, ...]:
        """The parties that hold a secret of a run."""
        everybody = self.config.secure.custody is Custody.EVERY_SITE
        return self.plan.names if everybody else (self.opener,)

    def budget_key(self, site: str) -> BudgetKey:
        """The budget that a site's contributions are charged to."""
        return BudgetKey.of(self.plan, site)

    # --- records --------------------------------------------------------------------------------

    def section(self, site: str) -> SiteSection:
        """What the configuration says of a site.

        Raises:
            ConfigError: it has no such site.
        """
        for section in self.config.sites:
            if section.name == site:
                return section
        known = ", ".join(section.name for section in self.config.sites)
        raise ConfigError(f"the configuration has no site {site!r}; it has {known}")

    def source_of(self, section: SiteSection | EvaluationSection) -> Source:
        """How a site's records, or the table declared public, are read.

        Raises:
            ConfigError: what the site's owner says of its table does not fit the declaration.
        """
        source = self.config.data.source
        own = self.own(section.name) if isinstance(section, SiteSection) else OwnTable()
        if not isinstance(source, TableSource):
            if own.database is not None or own.file.model_fields_set:
                raise ConfigError(
                    f"party.toml of {section.name!r} says how a table is written, and data.kind is "
                    f"{self.config.data.kind!r}; remove [file] and [database] from it"
                )
            return source
        try:
            written = own.file.over(section.file.over(source.file))
            strange = next(written.strange_to(source.schema), "")
        except ValidationError as error:
            strange = validation_faults(error, whole="the section", values=False)
        if strange:
            raise ConfigError(f"[file] in party.toml of {section.name!r}: {strange}")
        return TableSource(source.schema, written, own.database, own.folder)

    def records_of(self, site: SiteSection) -> Records:
        """One site's records to train with: none that is held out for evaluation.

        Raises:
            ApprovalError, ConfigError, DataError: as `all_records_of`.
        """
        every, rule = self.all_records_of(site), self.config.held_out
        if rule is None:
            return every
        if site.name not in self._kept:
            self._kept[site.name] = kept_by(rule, every, self._encoded_columns)
        return self._kept[site.name]

    @property
    def _encoded_columns(self) -> tuple[str, ...]:
        """Names of a record's inputs, where they have any."""
        source = self.config.data.source
        return source.schema.columns if isinstance(source, TableSource) else ()

    def all_records_of(self, site: SiteSection) -> Records:
        """All of one site's records, read and encoded by the public declaration.

        Raises:
            ApprovalError: a factory makes them, and no approval names it.
            ConfigError, DataError: they cannot be read as declared.
            DataError: those given in the program have other targets than are declared.
        """
        if site.name in self.given:
            given = self.given[site.name]
            require_encoded(given, self.config.data.target, repr(site.name))
            return given
        if site.name not in self._read:
            self._read[site.name] = load_records(
                self.source_of(site), self.base, site.data, site.labels, code=self.code
            )
        return self._read[site.name]

    def tags_of(self, site: SiteSection, known: KnownRecords) -> Tags | None:
        """A site's records as its owner's memory sees them; None where privagg sees none.

        Args:
            site: whose.
            known: the owner's memory of records.

        Raises:
            ApprovalError, ConfigError, DataError: as `records_of`.
        """
        if isinstance(self.config.data, AppData):
            return None
        place = (site.name, known.path)
        if place not in self._tags:
            records = self.all_records_of(site)
            if site.name in self.given:
                held = record_bytes(self.config.data.source, self.base, "", records)
            else:
                held = record_bytes(self.source_of(site), self.base, site.data, records)
            self._tags[place] = known.tags(held)
        return self._tags[place]

    @cached_property
    def public_records(self) -> Records | None:
        """The table declared public, or None where the configuration names none.

        Raises:
            ApprovalError, ConfigError, DataError: as `records_of`, or its classes show that figures
                on it would mislead.
        """
        evaluation = self.config.public_table
        undeclared = isinstance(self.config.data, UndeclaredData)  # nothing to read it by
        if self.given_public is not None or evaluation is None or undeclared:
            return self.given_public
        records = load_records(
            self.source_of(evaluation), self.base, evaluation.data, evaluation.labels,
            public=True, code=self.code,
        )  # fmt: skip
        self._require_telling(evaluation, records)
        return records

    def _require_telling(self, evaluation: EvaluationSection, records: Records) -> None:
        """Refuse a table whose figures would mislead; it is public, so its records may decide."""
        what = f"evaluation.data {evaluation.data}"
        source = self.config.data.source
        if isinstance(source, ImageSource):
            labels = read_array(self.base / (evaluation.labels or ""))
            for found in check_labels(labels, source.classes, source.first_label):
                if found.severity == "error":
                    raise ConfigError(f"{what}: {found.message}")
        try:
            self.config.data.target.require_telling(targets_of(records))
        except ValueError as error:
            raise ConfigError(f"{what}: {error}") from error

    def inspect(self, site: SiteSection) -> list[Finding]:
        """What the owner of a site's data should know before it takes part; for their eyes only.

        Raises:
            ConfigError, DataError: the data cannot be read as declared.
        """
        if isinstance(self.config.data, AppData):
            return []
        place = (site.name, self.job)
        if place not in self._found:
            records = self.all_records_of(site)
            found = [] if site.name in self.given else self._inspect_files(site, records)
            if self.job == TRAINING:  # else of lines, whose number a learner of sums looks at
                found += check_count(len(records), site.records, self.training_plan)
            self._found[place] = found
        return self._found[place]

    def stopping(self, site: SiteSection) -> list[Finding]:
        """What of it keeps the site from joining; nothing where its owner accepts what was found.

        Raises:
            ConfigError, DataError: as `inspect`.
        """
        if self.own(site.name).accepted:
            return []
        return [finding for finding in self.inspect(site) if finding.severity == "error"]

    def require_joining(self, site: SiteSection) -> None:
        """Refuse to join with records that change what is learned, whatever it is about them.

        Called before a run is begun, or a site's process answers anybody; never within a run.

        Raises:
            DataError: one text for all causes; `inspect` tells the owner which.
            ConfigError: as `inspect`.
        """
        if self.stopping(site):
            raise DataError(
                f"{site.name!r} does not join with its records as they are. Its owner is told why "
                f"on its own machine (privagg check {quote(str(self.source or 'CONFIG'))} --site "
                f"{quote(site.name)}; in a deployment privagg approve --party FOLDER), and "
                "corrects them or accepts them as they are (privagg approve --accept-findings). "
                "Nothing was spent"
            )

    def inspect_public(self) -> list[Finding]:
        """The same of the table declared public; no count is declared of it.

        Raises:
            ApprovalError, ConfigError, DataError: as `public_records`.
        """
        records, section = self.public_records, self.config.public_table
        if records is None or section is None or self.given_public is not None:
            return []
        return self._inspect_files(section, records)

    def _inspect_files(
        self, section: SiteSection | EvaluationSection, records: Records
    ) -> list[Finding]:
        source = self.source_of(section)
        if isinstance(source, TableSource):
            frame, step = declared_sample(source, self.base / section.data)
            found = check_table(source.schema, frame, trained=self.job == TRAINING)
            return [*found, *check_step(step)]
        if isinstance(source, ImageSource):
            labels = read_array(self.base / (section.labels or ""))
            return check_labels(labels, source.classes, source.first_label)
        if isinstance(records, DatasetRecords):
            return check_items(records.left_out, np.asarray(targets_of(records), np.int64), source)
        return []

    # --- what it leaves behind ------------------------------------------------------------------

    @property
    def output(self) -> Path:
        """Folder of models and reports; in a local run, of its parties' folders too."""
        return self.base / self.config.federation.output

    def unapproved(self, parties: Sequence[str], why: str) -> ApprovalError:
        """The refusal of a job that owners have not approved, with what to type."""
        command = f"privagg approve {quote(str(self.source))} --all-sites"
        command += f" --job {self.job}" if self.job != TRAINING else ""
        if self.source is None:
            more = f", job={self.job!r}" if self.job != TRAINING else ""
            command = f"federation.approve(who=..., why=...{more})"
        named = ", ".join(map(repr, parties))
        what = {TRAINING: "this plan", "questions": "these questions"}
        told = what.get(self.job, f"this {self.job}")
        owners = f"the owner of {named} has" if len(parties) == 1 else f"the owners of {named} have"
        return ApprovalError(
            f"{owners} not approved {told}; nothing was spent "
            f"({why}). Look at the plan, then approve it: {command}"
        )
