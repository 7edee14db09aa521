"""The sections of a configuration file, each checked by itself.

What two of them say together is checked in `privagg.config.consistent`; `privagg.config.data` has
the section that declares the records, `privagg.config.private` that of held-out ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from difflib import get_close_matches
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from privagg.config.data import Section
from privagg.config.private import PrivateEvaluationSection
from privagg.errors import SchemeError
from privagg.privacy.plan import mode_names
from privagg.privacy.plan.compression import Rounding
from privagg.privacy.plan.roster import DatasetName, SiteName
from privagg.privacy.unit import Custody
from privagg.programs.choosing import AUTO, Choice, choice
from privagg.programs.facts.program import AnyFact, AskedFacts, Facts
from privagg.programs.optimizers import OptimizerSpec
from privagg.programs.questions.question import Question
from privagg.programs.registry import QUESTIONS, program
from privagg.programs.sums_program import AnsweringProgram
from privagg.protocol.names import RUN_ID
from privagg.secure.registry import scheme as find_scheme
from privagg.secure.registry import scheme_names
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.declared import ClientRule, EngineName, ModelSpec
from privagg.training.table import TableSchema
from privagg.training.tablefile import TableFile

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


class ContinuesSection(Section):
    """The opened model of an earlier run, with which another plan goes on, say of another roster.

    Args:
        run: the earlier run's name.
        model: path of the model that it released.
        sha256: of that file, hexadecimal; the plan pins it.
    """

    run: str = Field(pattern=RUN_ID)
    model: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


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
        algorithm: what sites and coordinator do besides, by its name in the literature or as a
            table; `privagg algorithms` lists them.
        continues: the earlier run whose model training starts from; its own beginning by default.
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
    algorithm: AlgorithmSpec = AlgorithmSpec()
    continues: ContinuesSection | None = None

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
            algorithm=self.algorithm,
        )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        named = {k: values[k] for k in ("model", "algorithm") if isinstance(values.get(k), str)}
        return {**values, **{key: {"kind": name} for key, name in named.items()}}


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
        network: a network of its own: with training.algorithm "fedma", path of the one that it
            begins from; with "class-logits", a model in the place of training.model's.
        records: declared number of records; public, used as normaliser and bound.
        weight: integer weight in averages; defaults to `records` in `record-local`, else to 1.
        dataset: public name of the data set whose budget is charged; defaults to the name.
        file: how its table is written, setting by setting in place of `data.file`; the site's own
            `party.toml` has the last word.
        first_round, last_round: of training's rounds, those that it takes part in; all by default.
            A site that leaves is asked for nothing after it, in no other job either.
    """

    name: SiteName
    data: str = ""
    labels: str | None = None
    network: str | ModelSpec | None = None
    records: int = Field(ge=1)
    weight: int | None = Field(default=None, ge=1)
    dataset: DatasetName = ""
    file: TableFile = TableFile()
    first_round: int | None = Field(default=None, ge=1)
    last_round: int | None = Field(default=None, ge=1)

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


NOT_SEARCHED = (
    "what a program in [ask] leaves open is chosen by public facts and costs nothing (`privagg "
    "check` shows it). To compare settings of your own, ask for each in a run of its own (`privagg "
    "ask`), which is charged, and hold their models against a public table (`privagg predict`)"
)
"""Why a search is over trainings alone, and what to do instead."""


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
        if strange and strange[0].startswith("ask."):
            raise ValueError(f"{strange[0]!r} cannot be searched over: {NOT_SEARCHED}")
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
            `auto` takes a scorecard, or leaves the table to training, whichever public facts speak
            for (`privagg.programs.choosing`); `check` says which, and why.
        settings: the program's own; of `auto` the scorecard's.
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
        asked = self._asked(data)
        if self.program == QUESTIONS:
            each_part = Fraction(self.epsilon) / sum(Fraction(each.share) for each in questions)
            fitted = (each.fitted(records, each_part * Fraction(each.share)) for each in questions)
            asked["questions"] = [each.model_dump(mode="json") for each in fitted]
            asked["noise"] = noise or ("gaussian" if self.noise == "auto" else self.noise)
        name = self.program
        if (chosen := self.choice(data, records, delta)) is not None:
            name = chosen.program or name
        kind = program(name)
        return kind.of(kind.chosen(asked, records, Fraction(self.epsilon), Fraction(delta)))

    def choice(self, data: TableSchema, records: int, delta: Decimal) -> Choice | None:
        """What `auto` comes to; None where a program is named.

        Args:
            data, records, delta: as for `program_over`.

        Raises:
            ValueError, ConfigError: as `program_over`.
        """
        if self.program != AUTO:
            return None
        return choice(self._asked(data), records, Fraction(self.epsilon), Fraction(delta))

    def _asked(self, data: TableSchema) -> dict[str, Any]:
        return {"data": data.model_dump(mode="json"), "level": self.level, **self.settings}


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
