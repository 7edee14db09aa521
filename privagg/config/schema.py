"""The configuration file: what a federation agrees on, checked before anything runs.

A configuration says public things only. From it follow, in this order, the training plan (with its
noise), the schema every site encodes its records by, and the places where files go.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from fractions import Fraction
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    model_validator,
)

from privagg.config.data import (
    AppData,
    DataSection,
    ImageData,
    Section,
    TableData,
    UndeclaredData,
    table_to_ask,
)
from privagg.config.faults import explain
from privagg.config.private import PrivateEvaluationSection
from privagg.config.proposal import Proposed, PublicFacts, expected_square, propose
from privagg.config.unread import unread
from privagg.errors import ConfigError, SchemeError, fault_words, validation_faults
from privagg.privacy.plan import mode_names, plan_class
from privagg.privacy.plan.base import DatasetName, SiteName
from privagg.privacy.plan.compression import Rounding
from privagg.privacy.unit import Custody
from privagg.programs.evaluation import Evaluated, Evaluation, OpenedModel, Schedule
from privagg.programs.facts.program import AnyFact, AskedFacts, Facts
from privagg.programs.optimizers import OptimizerSpec
from privagg.programs.questions.asked import AnyQuestion
from privagg.programs.questions.question import Question
from privagg.programs.registry import QUESTIONS, program
from privagg.programs.sums_program import AnsweringProgram
from privagg.protocol.names import COORDINATOR, KEY_HOLDER
from privagg.secure.registry import scheme as find_scheme
from privagg.secure.registry import scheme_names
from privagg.training.declared import ClientRule, EngineName, ModelSpec
from privagg.training.heldout import HeldOut
from privagg.training.table import TableSchema
from privagg.training.tablefile import TableFile
from privagg.training.targets import ClassKind

TUNABLE = ("training.", "compression.", "privacy.clip_norm_l2", "privacy.noise_multiplier")
"""How the keys begin that a search may vary: none of them moves a budget to another owner."""

MAX_CANDIDATES = 1000


class FederationSection(Section):
    """Who and where.

    Args:
        name: of the federation, for reports and run identifiers.
        output: folder for models, ledgers and reports, relative to the configuration file.
        seed: public seed of the model's initial parameters.
    """

    name: SiteName
    output: Path = Path("out")
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


def _known_mode(mode: str) -> str:
    if mode not in mode_names():
        near = get_close_matches(mode.lower(), mode_names(), n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"should be one of {', '.join(mode_names())}{meant}")
    return mode


def _installed_scheme(name: str) -> str:
    """The installed scheme of that name, however its letters are written."""
    return next((one for one in scheme_names() if one.lower() == name.lower()), name)


class PrivacySection(Section):
    """How to be private, and how much.

    Args:
        mode: of the plan, such as `record-distributed`, `record-local` or `client`.
        epsilon: what the whole job may cost each data set; the noise is calibrated to it, or to
            what shares of evaluations leave of it.
        delta: at which epsilon is stated.
        budget_epsilon: what a data set may spend over all jobs; defaults to `epsilon`.
        noise_multiplier: fixes the noise instead of calibrating it; epsilon then only limits.
        clip_norm_l2: largest L2 norm of a record's gradient (record modes) or of an update.
        sensitivity_grid: integer grid units that the clip norm is divided into. Left out, it is
            2^16, or up to 2^22 where a record's gradient is rounded in factors and the model's
            layers have many positions or values (`privagg.training.ghost.grids`).
        dropouts: sites that may fail in a round without stopping it.
        colluders: sites that may pool what they know; the budget is charged against them.
        unit: `client` mode only: what a client stands for, `site` or `person`.
    """

    mode: Annotated[str, AfterValidator(_known_mode)] = "record-distributed"
    epsilon: Decimal = Field(gt=0)
    delta: Decimal = Field(gt=0, lt=1)
    budget_epsilon: Decimal | None = Field(default=None, gt=0, allow_inf_nan=True)
    noise_multiplier: Decimal | None = Field(default=None, ge=0)
    clip_norm_l2: Decimal = Field(default=Decimal(1), gt=0)
    sensitivity_grid: int = Field(default=2**16, ge=2**4, le=2**30)
    dropouts: int = Field(default=0, ge=0)
    colluders: int = Field(default=1, ge=0)
    unit: Literal["site", "person"] = "site"

    @property
    def budget(self) -> Decimal:
        """What a data set may spend over all jobs."""
        return self.epsilon if self.budget_epsilon is None else self.budget_epsilon


class TrainingSection(Section):
    """What is trained, and how.

    Args:
        model: a model's name (`logistic`, `mlp`, `cnn`, `package.module:factory`) or a table.
        rounds: how often the sum is opened. Left out, it is proposed, and with it whatever else of
            `sampling_rate`, `physical_batch`, `optimizer` and `privacy.clip_norm_l2` is left out
            (`privagg.config.proposal`).
        sampling_rate: probability that a record takes part in a step (record modes).
        local_steps: steps at a site in a round (`record-local` and `client`).
        local_learning_rate: step size at a site (`record-local` and `client`).
        local_batch_size: records of one local step (`client`).
        proximal_mu: FedProx's pull towards the round's model; 0 is FedAvg.
        update_bound: largest coordinate of a local update (`record-local`); the default is what
            the local steps can reach.
        cohort_size: `client` mode: clients asked in a round; 0 asks all.
        physical_batch: records whose gradients are computed at once: with engine `exact` 256 or
            512 are faster, with `opacus` 64 is; SECURITY.md has the times.
        engine: how a record's gradient is clipped: `exact` for the most part without forming it,
            `opacus` after Opacus' hooks have formed it. `exact-dense` is `exact` in exact
            arithmetic from the record on, for `logistic` and `mlp` that predict classes: an owner
            can recompute a site's integers on any machine. All but `opacus` round factors: where
            gradients are far below the clip, a finer `sensitivity_grid` keeps what they say.
        optimizer: the server's step.
        retries: attempts after a stopped round; each one is charged again.
        loss: a loss of your own in place of the target's: `package.module:function`, a function of
            outputs (B, k) and targets (B, ...), as the target encodes them, that gives each
            record's loss, (B,).
    """

    model: ModelSpec = ModelSpec()
    rounds: int | None = Field(default=None, ge=1, le=10**6)
    sampling_rate: Decimal = Field(default=Decimal(1), gt=0, le=1)
    local_steps: int = Field(default=1, ge=1)
    local_learning_rate: float = Field(default=0.1, gt=0, le=1e6)
    local_batch_size: int = Field(default=32, ge=1)
    proximal_mu: float = Field(default=0.0, ge=0, le=1e6)
    update_bound: Decimal | None = Field(default=None, gt=0)
    cohort_size: int = Field(default=0, ge=0)
    physical_batch: int = Field(default=64, ge=1, le=65536)
    engine: EngineName = "exact"
    optimizer: OptimizerSpec = OptimizerSpec()
    retries: int = Field(default=0, ge=0, le=100)
    loss: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")

    @property
    def client_rule(self) -> ClientRule:
        """How a site trains between two rounds."""
        return ClientRule(
            learning_rate=self.local_learning_rate,
            prox_mu=self.proximal_mu,
            steps=self.local_steps,
            batch_size=self.local_batch_size,
            physical_batch=self.physical_batch,
            engine=self.engine,
        )

    @model_validator(mode="before")
    @classmethod
    def _model_by_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("model"), str):
            return {**values, "model": {"kind": values["model"]}}
        return values


class SecureSection(Section):
    """How contributions are added unread.

    Args:
        scheme: `masked`, `ckks`, `bfv`, `paillier`, `plaintext` (unsafe), or an installed third
            party's; in capital or small letters.
        custody: who can open the sum; `authority` or `sites`. There is no default: choose. Where
            the scheme says who (`every-site` for `masked`), it may be left out.
        opener: custody `sites`: the site that answers opening requests; defaults to the first.
        strict: the key holder adds the signed uploads again before it opens.
        security_bits: lowest classical security level accepted.
        options: further settings of the scheme, such as `modulus_bits` for Paillier.
    """

    scheme: Annotated[str, AfterValidator(_installed_scheme)] = "ckks"
    custody: Custody
    opener: str | None = None
    strict: bool = False
    security_bits: int = Field(default=128, ge=80, le=256)
    options: dict[str, int | str | bool] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _custody_of_the_scheme(cls, values: Any) -> Any:
        """A scheme without a key that opens sums leaves no choice of who holds it."""
        if not isinstance(values, dict) or not _is_every_sites(values.get("scheme")):
            return values
        return {"custody": Custody.EVERY_SITE, **values}

    @model_validator(mode="after")
    def _custody_is_the_schemes(self) -> Self:
        if _is_every_sites(self.scheme) != (self.custody is Custody.EVERY_SITE):
            needed = "'every-site'" if _is_every_sites(self.scheme) else "'authority' or 'sites'"
            raise ValueError(
                f"custody {self.custody.value!r} is not that of scheme {self.scheme!r}; write "
                f"{needed}"
            )
        return self


def _is_every_sites(name: Any) -> bool:
    """Whether nobody holds a key that opens sums under the scheme of this name."""
    try:
        return isinstance(name, str) and find_scheme(name.lower()).every_site
    except SchemeError:
        return False


class CompressionSection(Section):
    """Fewer and coarser integers in an upload. Without this section every coordinate is sent.

    Args:
        bits: of a coordinate before weight and noise, sign included; sets the grid, so
            `privacy.sensitivity_grid` stays out (not in `record-distributed`).
        rounding: `stochastic` (the default) or `nearest`; `truncate` at client level. In
            `record-distributed` each record is truncated.
        rotation: a public random rotation first, which makes few bits enough (same modes).
        keep: part of the coordinates that a round sends, in (0, 1].
        mask: which: `random-k`, or `top-k` of the round's model and some others.
    """

    bits: int | None = Field(default=None, ge=2, le=31)
    rounding: Rounding | None = None
    rotation: bool = False
    keep: Decimal = Field(default=Decimal(1), gt=0, le=1)
    mask: Literal["random-k", "top-k"] = "random-k"

    @model_validator(mode="after")
    def _top_of_a_part(self) -> Self:
        if self.mask == "top-k" and self.keep == 1:
            raise ValueError("mask = 'top-k' needs `keep` below 1, the part that is sent")
        return self


class SiteSection(Section):
    """One institution: a name, a file and its public facts.

    Args:
        name: how messages and reports call it.
        data: path of its table, of its images' `.npy`, or a data set's factory; what a Flower app
            reads may also be named at each site alone.
        labels: path of the labels' `.npy` (images only).
        records: declared number of records; public, used as normaliser and bound.
        weight: integer weight in averages; defaults to `records` in `record-local`, else to 1.
        dataset: public name of the data set whose budget is charged; defaults to the name.
        file: how its table is written, setting by setting in place of `data.file`; the site's own
            `party.toml` has the last word.
    """

    name: SiteName
    data: str = ""
    labels: str | None = None
    records: int = Field(ge=1)
    weight: int | None = Field(default=None, ge=1)
    dataset: DatasetName = ""
    file: TableFile = TableFile()

    @model_validator(mode="before")
    @classmethod
    def _no_database(cls, values: Any) -> Any:
        if isinstance(values, dict) and "database" in values:
            raise ValueError(
                "a database and its query are the site's own matter: write [database] into its "
                "party.toml, on its own machine, and nothing of it here"
            )
        return values


def _declared(public: Any) -> Any:
    if public is False:
        raise ValueError(
            "should be true: accuracy is computed only on a table that its owner "
            "declares public; without one leave out [evaluation]"
        )
    return public


class EvaluationSection(Section):
    """A table whose owner declares it public; only on such a one is accuracy computed.

    Args:
        data, labels, file: as for a site.
        public: must be true; a figure on private data would have to be charged.
        name: for the report.
    """

    data: str
    labels: str | None = None
    public: Annotated[Literal[True], BeforeValidator(_declared)]
    name: str = "public table"
    file: TableFile = TableFile()


PUBLIC_TABLE, HELD_OUT_RECORDS = "a table declared public", "held-out records"


def _records_meant(values: Any) -> str:
    """On which records an evaluation section is."""
    private = "private" in values if isinstance(values, dict) else hasattr(values, "private")
    return HELD_OUT_RECORDS if private else PUBLIC_TABLE


AnyEvaluation = Annotated[
    Annotated[EvaluationSection, Tag(PUBLIC_TABLE)]
    | Annotated[PrivateEvaluationSection, Tag(HELD_OUT_RECORDS)],
    Discriminator(_records_meant),
]


class TuningSection(Section):
    """A search over settings; each candidate is a run of its own and charged in full.

    Args:
        grid: dotted key of this file -> the values to try; every combination is a candidate. What
            may vary is listed in `TUNABLE`.
        metric: figure on the public table by which one candidate is selected.
        method: `composition` is the only one; see `privagg.run.tuning` for why.
    """

    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(min_length=1)
    metric: Literal["accuracy", "auc", "rmse", "mae", "r2", "c_index", "log_likelihood", "loss"] = (
        "accuracy"
    )
    method: Literal["composition"] = "composition"

    @model_validator(mode="after")
    def _within_reason(self) -> Self:
        strange = [key for key in self.grid if not key.startswith(TUNABLE)]
        if strange:
            raise ValueError(
                f"{strange[0]!r} cannot be searched over; keys begin with {', '.join(TUNABLE)}"
            )
        count = prod(len(values) for values in self.grid.values())
        if count > MAX_CANDIDATES:
            raise ValueError(f"the grid has {count} candidates, at most {MAX_CANDIDATES} fit")
        return self


class AskSection(Section):
    """Questions to the sites' records, a job of its own beside training.

    Args:
        epsilon: what all questions together may cost each data set, at `privacy.delta`.
        level: of both intervals of every figure, in (0.5, 1).
        noise: of the opened sums: `gaussian`, or where a record adds nothing but ones (counts,
            gaps, quantiles, survival) `laplace`; `auto` takes what leaves answers less uncertain.
        program: an installed program that is asked in place of `[[questions]]`, by its name.
        settings: the program's own.
    """

    epsilon: Decimal = Field(gt=0)
    level: float = Field(default=0.95, gt=0.5, lt=1)
    noise: Literal["auto", "gaussian", "laplace"] = "auto"
    program: str = QUESTIONS
    settings: dict[str, Any] = Field(default_factory=dict)

    def program_over(
        self,
        data: TableSchema,
        questions: Sequence[Question],
        records: int,
        delta: Decimal,
        noise: str | None = None,
    ) -> AnsweringProgram:
        """What is asked of a declared table.

        Args:
            data: the declaration.
            questions: of the configuration.
            records: of all sites, as declared; what is left open is chosen for them.
            delta: what `epsilon` is at.
            noise: of the questions' sums; by default as it is set, Gaussian where it is `auto`.

        Raises:
            ValueError: the program's settings are not its own (pydantic's are).
            ConfigError: no such program is installed, or it does not fit the table.
        """
        asked = {"data": data.model_dump(mode="json"), "level": self.level, **self.settings}
        if self.program == QUESTIONS:
            each_part = Fraction(self.epsilon) / sum(Fraction(each.share) for each in questions)
            fitted = (each.fitted(records, each_part * Fraction(each.share)) for each in questions)
            asked["questions"] = [each.model_dump(mode="json") for each in fitted]
            asked["noise"] = noise or ("gaussian" if self.noise == "auto" else self.noise)
        kind = program(self.program)
        return kind.of(kind.chosen(asked, records, Fraction(self.epsilon), Fraction(delta)))


class FactsSection(Section):
    """What of the tables is asked so that it can be declared: a job of its own beside training.

    Args:
        epsilon: what all columns together may cost each data set, at `privacy.delta`.
        level: of both intervals of every figure, in (0.5, 1).
        columns: each by its name and whether it holds numbers or categories.
    """

    epsilon: Decimal = Field(gt=0)
    level: float = Field(default=0.95, gt=0.5, lt=1)
    columns: tuple[AnyFact, ...] = Field(min_length=1)

    def program_over(self, data: TableSchema) -> Facts:
        """What is asked.

        Args:
            data: the columns, declared only as far as they are read by it.

        Raises:
            ValueError: columns contradict each other (pydantic's is).
            ConfigError: they do not fit one opening.
        """
        return Facts(AskedFacts(data=data, questions=self.columns, level=self.level))


class AttestationSection(Section):
    """A statement of a named person, repeated in the report as theirs.

    Args:
        who: the person.
        what: the statement.
        about: the blank of an annex that it answers, as the annex names it.
    """

    who: str
    what: str
    about: str = ""


_ASKED_BY_THEIR_OWN = {
    Facts.name: "[facts]",
    Evaluation.name: "[evaluation] with private = true",
}
"""Program -> the section that asks it."""

_TRAINS = {
    "model",
    "local_steps",
    "local_learning_rate",
    "local_batch_size",
    "proximal_mu",
    "physical_batch",
    "engine",
    "optimizer",
    "retries",
    "loss",
}
"""Settings of training that a Flower app and its strategy have in their own place."""


_Filled = TypeVar("_Filled", bound=BaseModel)


def _filled(section: _Filled, path: list[str], value: Any) -> _Filled | None:
    """The section with this setting in it; None where the file says it."""
    name, *rest = path
    if rest:
        value = _filled(getattr(section, name), rest, value)
    elif name in section.model_fields_set:
        return None
    return None if value is None else section.model_copy(update={name: value})


class Config(Section):
    """A whole configuration file.

    Args:
        federation: names and the output folder.
        privacy: what is protected, how, and within which budget.
        training: rounds, model and optimiser.
        secure: the aggregation scheme and who can open.
        compression: how uploads are made smaller; not at all by default.
        data: what the sites' records are.
        sites: at least one, each with its own name.
        evaluation: the table declared public, or the held-out records; none by default.
        tuning: a search over settings; none by default.
        ask: what questions may cost; none are asked by default.
        questions: what is asked of the sites' tables, all in one opening.
        facts: columns of which it is asked what to declare; none by default.
        attestations: statements of named people, repeated in reports.
    """

    federation: FederationSection
    privacy: PrivacySection
    training: TrainingSection
    secure: SecureSection
    compression: CompressionSection | None = None
    data: DataSection
    sites: tuple[SiteSection, ...] = Field(min_length=1)
    evaluation: AnyEvaluation | None = None
    tuning: TuningSection | None = None
    ask: AskSection | None = None
    questions: tuple[AnyQuestion, ...] = ()
    facts: FactsSection | None = None
    attestations: tuple[AttestationSection, ...] = ()
    _proposed: tuple[Proposed, ...] = PrivateAttr(default=())

    @property
    def proposed(self) -> tuple[Proposed, ...]:
        """Settings that the file left out and that were proposed; empty where it has rounds."""
        return self._proposed

    @property
    def public_table(self) -> EvaluationSection | None:
        """The table declared public, if there is one."""
        return self.evaluation if isinstance(self.evaluation, EvaluationSection) else None

    @property
    def private_evaluation(self) -> PrivateEvaluationSection | None:
        """The evaluation on held-out records, if there is one."""
        return self.evaluation if isinstance(self.evaluation, PrivateEvaluationSection) else None

    @property
    def training_epsilon(self) -> Decimal:
        """What training may cost each data set: `privacy.epsilon` without evaluations' shares."""
        private = self.private_evaluation
        return self.privacy.epsilon * (1 - private.shares) if private else self.privacy.epsilon

    @property
    def schedule(self) -> Schedule | None:
        """When the model is evaluated between the rounds; None where it is not."""
        private, rounds = self.private_evaluation, self.training.rounds
        if private is None or private.rounds is None or rounds is None:
            return None
        terms = private.rounds.model_dump(exclude={"epsilon", "share"})
        return Schedule(rounds=rounds, **terms)

    @property
    def held_out(self) -> HeldOut | None:
        """Which records are left out of training for it."""
        private = self.private_evaluation
        if private is None:
            return None
        return HeldOut(share=private.held_out, key=private.key or self.federation.name)

    @model_validator(mode="before")
    @classmethod
    def _data_is_a_table_by_default(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        data = values.get("data", {} if "facts" in values else None)
        if isinstance(data, dict):
            undeclared = "facts" in values and "features" not in data
            return {**values, "data": {"kind": "undeclared" if undeclared else "table", **data}}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [site.name for site in self.sites]
        reserved = sorted({COORDINATOR, KEY_HOLDER} & set(names))
        if reserved:
            raise ValueError(f"a site cannot be called {reserved[0]!r}; that name is a party's")
        if {"requirement", "self"} & set(self.secure.options):
            raise ValueError("secure.options cannot set the requirement; it follows from the plan")
        if self.secure.opener is not None and self.secure.opener not in names:
            raise ValueError(f"secure.opener {self.secure.opener!r} is none of the sites")
        bits = self.compression and self.compression.bits
        if bits and "sensitivity_grid" in self.privacy.model_fields_set:
            raise ValueError(
                "compression.bits sets the grid, and so would privacy.sensitivity_grid; keep one"
            )
        if isinstance(self.data, ImageData) and any(site.labels is None for site in self.sites):
            raise ValueError("image sites need `labels`, the path of their labels' .npy file")
        self._each_site_has_data_or_an_app()
        self._facts_can_be_asked()
        self._files_fit()
        self._questions_can_be_asked()
        self._model_can_be_centred()
        self._search_has_its_metric()
        self._held_out_records_are_of_tables()
        if found := list(unread(self)):
            raise ValueError("; ".join(found))
        return self

    @model_validator(mode="after")
    def _left_out(self) -> Self:
        """Fills what the file leaves out, where it leaves rounds out."""
        if self.training.rounds is not None:
            return self
        if fault := self._unknown_to_proposals():
            raise ValueError(
                f"training.rounds is missing; settings are proposed for {fault} only: say how "
                "often the sum is to be opened"
            )
        found, told = self, list[Proposed]()
        for proposed in propose(self._public_facts()):
            filled = _filled(found, proposed.key.split("."), proposed.value)
            if filled is not None:
                found, told = filled, [*told, proposed]
        found._proposed = tuple(told)
        return found

    def filled(self, key: str, value: Any) -> Config:
        """The same with a setting that the file leaves out; as it is where the file says it.

        Args:
            key: such as `privacy.sensitivity_grid`.
            value: None leaves it out.
        """
        return _filled(self, key.split("."), value) or self

    def _unknown_to_proposals(self) -> str:
        """What proposals are made for and this is not; empty where it is."""
        if not isinstance(self.data, TableData) or not isinstance(self.data.target, ClassKind):
            return "tables whose target is a class"
        if self.training.model.kind != "logistic":
            return "the model 'logistic'"
        if self.training.loss is not None:
            return "the target's own loss (no training.loss)"
        if self.privacy.mode != "record-distributed":
            return "privacy.mode = 'record-distributed'"
        if self.compression is not None and self.compression.keep < 1:
            return "uploads of all coordinates (compression.keep = 1)"
        if self.privacy.noise_multiplier is not None:
            return "noise that follows from epsilon (no privacy.noise_multiplier)"
        return ""

    def _public_facts(self) -> PublicFacts:
        assert isinstance(self.data, TableData)
        records = [site.records for site in self.sites]
        privacy, outputs = self.privacy, self.data.target.outputs
        return PublicFacts(
            epsilon=self.training_epsilon,
            delta=privacy.delta,
            records=sum(records),
            largest_site=max(records),
            parameters=outputs * (self.data.shape[0] + 1),
            square=expected_square(self.data.features),
            sites=len(records),
            shares=len(records) - privacy.dropouts - privacy.colluders,
        )

    def _model_can_be_centred(self) -> None:
        training, compression = self.training, self.compression
        if not training.model.centred:
            return
        classes = not isinstance(self.data, TableData) or isinstance(self.data.target, ClassKind)
        whole = compression is None or compression.keep == 1
        rounds = training.rounds is None or training.rounds > 2
        fits = self.privacy.mode == "record-distributed" and training.loss is None
        if not (fits and classes and whole and rounds):
            raise ValueError(
                "a model that is `centred` needs privacy.mode = 'record-distributed', a target of "
                "classes with its own loss, at least 3 rounds and uploads of all coordinates; "
                "leave `centred` out"
            )

    @property
    def declared_records(self) -> int:
        """Of all sites together."""
        return sum(site.records for site in self.sites)

    def _questions_can_be_asked(self) -> None:
        if self.ask is None and not self.questions:
            return
        if self.ask is None:
            raise ValueError("[[questions]] need [ask] with epsilon, what they may cost together")
        if (section := _ASKED_BY_THEIR_OWN.get(self.ask.program)) is not None:
            raise ValueError(
                f"ask.program = {self.ask.program!r} reads the sites' records in a way of its own; "
                f"write {section}, and remove ask.program"
            )
        own = self.ask.program == QUESTIONS
        if own and not self.questions:
            raise ValueError("[ask] needs a question: add a [[questions]] section, or remove [ask]")
        if own and self.ask.settings:
            raise ValueError("[ask.settings] are another program's: name it as ask.program")
        if not own and self.ask.noise != "auto":
            raise ValueError(
                f"ask.noise = {self.ask.noise!r} is for [[questions]]; what noise "
                f"{self.ask.program!r} has, it says itself: remove ask.noise"
            )
        if not own and self.questions:
            raise ValueError(
                f"[[questions]] beside ask.program = {self.ask.program!r} would not be asked; "
                "keep one of both"
            )
        if self.ask.settings.keys() & {"data", "level"}:
            raise ValueError("[ask.settings] may not say `data` or `level`: they are said above")
        if not isinstance(self.data, TableData):
            raise ValueError(
                "questions are asked of the columns of tables; with data.kind = "
                f"{self.data.kind!r} there are none: remove [ask] and [[questions]]"
            )
        try:
            self.ask.program_over(
                self.data.table_schema, self.questions, self.declared_records, self.privacy.delta
            )
        except ValidationError as error:
            told = "; ".join(map(fault_words, error.errors()))
            if not own:
                told = f"[ask.settings] of {self.ask.program!r}: {validation_faults(error)}"
            raise ValueError(told) from error
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def _files_fit(self) -> None:
        if isinstance(self.data, UndeclaredData) and self.facts is not None:
            schema = table_to_ask(self.data, self.facts.columns).table_schema
        elif isinstance(self.data, TableData):
            schema = self.data.table_schema
        else:
            return
        named = {f"sites[{site.name}]": site for site in self.sites}
        for place, one in {**named, "evaluation": self.public_table}.items():
            if one is None:
                continue
            try:
                written = one.file.over(self.data.file)
            except ValidationError as error:
                raise ValueError(
                    f"{place}.file with data.file: {'; '.join(map(fault_words, error.errors()))}"
                ) from error
            if strange := next(written.strange_to(schema), ""):
                raise ValueError(f"{place}.file: {strange}")

    def _search_has_its_metric(self) -> None:
        if self.tuning is None or isinstance(self.data, AppData):
            return
        measures = (*self.data.target.measures, "loss")
        if self.tuning.metric not in measures:
            raise ValueError(
                f"tuning.metric = {self.tuning.metric!r} is no figure of this target; choose one "
                f"of {', '.join(measures)}"
            )

    def _facts_can_be_asked(self) -> None:
        if self.facts is None:
            return
        if not isinstance(self.data, TableData | UndeclaredData):
            raise ValueError(
                f"[facts] asks of the columns of tables; with data.kind = {self.data.kind!r} there "
                "are none: remove [facts]"
            )
        try:
            self.facts.program_over(table_to_ask(self.data, self.facts.columns).table_schema)
        except ValidationError as error:
            raise ValueError("; ".join(map(fault_words, error.errors()))) from error
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def _held_out_records_are_of_tables(self) -> None:
        private = self.private_evaluation
        if private is None or isinstance(self.data, AppData | UndeclaredData):
            return
        if not isinstance(self.data, TableData):
            raise ValueError(
                "evaluation.private is for tables, whose columns are declared; with data.kind = "
                f"{self.data.kind!r} evaluate on a table declared public"
            )
        anything = OpenedModel(
            spec=ModelSpec(), seed=0, sha256="0" * 64, parameters=1, parameters_sha256="0" * 64
        )
        try:
            _ = Evaluation(self.evaluated(anything))
            if self.schedule is not None:
                _ = Evaluation(
                    self.evaluated_rounds(OpenedModel(spec=ModelSpec(), seed=0, parameters=1))
                )
        except ValidationError as error:
            raise ValueError("; ".join(map(fault_words, error.errors()))) from error
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def evaluated(self, model: OpenedModel) -> Evaluated:
        """What the private evaluation is of, for a configuration that has one.

        Args:
            model: the evaluated one.
        """
        private, rule = self.private_evaluation, self.held_out
        assert private is not None  # whoever asks has looked
        assert rule is not None
        assert isinstance(self.data, TableData)
        return Evaluated(
            data=self.data.table_schema,
            model=model,
            held_out=rule,
            sites=tuple(site.name for site in self.sites) if private.by_site else (),
            subgroups=private.subgroups,
            threshold=private.threshold,
            bins=private.bins,
            level=private.level,
            noise="gaussian" if private.noise == "auto" else private.noise,
        )

    def evaluated_rounds(self, model: OpenedModel) -> Evaluated:
        """What is evaluated between the training's rounds, for a configuration that does so.

        Args:
            model: the trained one, without digests.
        """
        private, rule = self.private_evaluation, self.held_out
        assert private is not None  # whoever asks has looked
        assert rule is not None
        assert isinstance(self.data, TableData)
        return Evaluated(
            data=self.data.table_schema,
            model=model,
            held_out=rule,
            threshold=private.threshold,
            level=private.level,
            schedule=self.schedule,
        )

    def _each_site_has_data_or_an_app(self) -> None:
        app = isinstance(self.data, AppData)
        for site in self.sites:
            if not site.data and not app:
                raise ValueError(f"site {site.name!r} needs `data`, where its records are")
        if app and (plan_class(self.privacy.mode).sees_records or self.evaluation is not None):
            raise ValueError(
                "with a Flower app, privagg sees updates and no records: use privacy.mode = "
                "'client' and no [evaluation]"
            )
        own = self.training.model_fields_set & _TRAINS if app else set()
        if own:
            raise ValueError(f"a Flower app trains by its own rule; remove training.{min(own)}")


def load_config(path: str | Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a wrong type or a contradiction; the
            message names the key and what was expected.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}; `privagg init {path}` writes one") from error
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}; name a TOML file, such as "
            "`privagg init` writes"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: byte {error.start} is not UTF-8; save the "
            "file as UTF-8"
        ) from error
    try:
        values = tomllib.loads(text, parse_float=_exact)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; nested as often
        raise ConfigError(
            f"{path} is not valid TOML: {error}; in TOML texts stand in quotation marks, decimals "
            "have a point, and a section comes once: compare what `privagg init` writes"
        ) from error
    return parse_config(values, source=str(path))


def parse_config(values: dict[str, Any], *, source: str = "configuration") -> Config:
    """Check a configuration given as plain values.

    Raises:
        ConfigError: as `load_config`.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, values, Config)}") from error


def tuning_candidates(config: Config) -> list[tuple[dict[str, Any], Config]]:
    """Every combination of the `[tuning]` grid's values, each a configuration that was checked.

    Returns:
        (settings by dotted name, the configuration with them); empty without a grid.

    Raises:
        ConfigError: a combination cannot be used.
    """
    found: list[tuple[dict[str, Any], Config]] = []
    tuning = config.tuning
    if tuning is None:
        return found
    for values in product(*tuning.grid.values()):
        settings = dict(zip(tuning.grid, values, strict=True))
        facts = config.model_dump(exclude_unset=True, exclude={"tuning"})
        for key, value in settings.items():
            _put(facts, key.split("."), value)
        found.append(
            (settings, parse_config(facts, source=f"candidate {plain_settings(settings)}"))
        )
    return found


def _put(facts: dict[str, Any], path: list[str], value: Any) -> None:
    *above, last = path
    for name in above:
        facts = facts.setdefault(name, {})
    facts[last] = value


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a ledger records them: numbers by their digits."""
    return {
        key: value if isinstance(value, str | bool | int) else str(value)
        for key, value in settings.items()
    }


class _ExactFloat(float):
    """A TOML float that remembers its digits, so that Decimal fields get them exactly."""

    digits: str

    def __new__(cls, digits: str) -> Self:
        made = super().__new__(cls, digits)
        made.digits = digits
        return made

    def __str__(self) -> str:
        return self.digits


def _exact(digits: str) -> float:
    return _ExactFloat(digits.replace("_", ""))
