"""`report.json` as a type: format `privagg-report/1`, closed, bounded, free of anything to import.

What is not in these classes is not in a report. Unknown keys are refused on reading, every text and
list has a largest size, and every epsilon and delta is a decimal carried as a string, so that a
stranger's program reads the same digits. `Infinity` means: no guarantee.

A class's docstring is published as its description in `schema.json`, which every bundle holds byte
by byte; so what was added on single fields stands below them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

from privagg.errors import VerificationError, validation_faults
from privagg.privacy.events import DpEvent, ExactDecimal, require_writable
from privagg.privacy.guarantee import Guarantee
from privagg.privacy.unit import Custody, Unit

FORMAT: Literal["privagg-report/1"] = "privagg-report/1"
LARGEST_REPORT_BYTES = 64 * 2**20
"""Longer input is refused unread."""

Name = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=8192)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**62)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Figure = Annotated[float, Field(allow_inf_nan=False)]


def _is_number(value: Decimal) -> Decimal:
    if value.is_nan():
        raise ValueError("an epsilon is a number or Infinity, never NaN")
    if value < 0:
        raise ValueError(f"an epsilon is not negative, got {value}")
    return require_writable(value)


Epsilon = Annotated[
    Decimal,
    Field(allow_inf_nan=True),
    AfterValidator(_is_number),
    PlainSerializer(lambda x: format(x, "f"), return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+(\.\d+)?|Infinity)$"}),
]
"""A bound on epsilon: a decimal without exponent, or `Infinity`."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BoundedEvent(Guarantee):
    """A guarantee together with the event it bounds, so that a stranger can compute it again."""

    epsilon: Epsilon
    event: DpEvent


class ObserverRow(BoundedEvent):
    """One cell of the observer matrix: who looks, with how many colluding sites, what they see."""

    sees: Text


class AccountantFigure(_Part):
    """What one accountant says about the committed total of this run.

    Attributes:
        epsilon: the accountant's figure, rounded up; None where it gives none.
        epsilon_lower: proven lower end; only the certified accountant has one.
        note: a plain sentence, e.g. that the figure lies below the proven lower end.
    """

    name: Name
    """The accountant's identifier."""
    epsilon: Epsilon | None
    epsilon_lower: Epsilon | None = None
    delta: ExactDecimal
    """At which the figure holds."""
    certified: bool
    """True where the figure is proved in ball arithmetic."""
    note: Text = ""


class Budget(_Part):
    """The most that may ever be spent on a data set, over all runs."""

    epsilon: Epsilon
    delta: ExactDecimal


class HistoryPoint(_Part):
    """One charge of the data set's ledger and what had been spent after it, at the budget's delta.

    `outcome`: `realised` (the sum was opened), `aborted`, or `charged` (the ledger does not say
    what became of it). The charge stands in all three cases.
    """

    run: Name
    """The run that was charged."""
    round: Count
    """Counts from 1."""
    attempt: Count
    """Counts from 1; every attempt is charged."""
    epsilon_after: Epsilon
    """Total over everything charged to the data set so far."""
    outcome: Literal["realised", "aborted", "charged"]
    """See above."""


class LedgerFacts(_Part):
    """How a ledger identifies itself: size, Merkle root, signed checkpoint, signing key."""

    entries: Count
    """Size of the log."""
    root: Text
    """Merkle tree head over all entries, hexadecimal."""
    checkpoint: Text
    """Signed note of size and root."""
    public_key: Text
    """The key that signs the ledger now, in the form of a note's verifier."""


class RecordsApart(_Part):
    """How a site found that a record's gradient does not depend on others, as its charges state."""

    how: Literal["tested", "proved"]
    """By a test on the model at hand, or by proof."""
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    """Day (UTC) on which it was found."""
    physical_batch: Count
    """Records that were computed together."""
    threads: Count
    """CPU threads."""
    device: Name
    """Where gradients were computed."""
    torch: Name
    """Version."""
    opacus: Name
    """Version."""
    engine: Literal["exact", "exact-dense", "opacus"] = "opacus"
    """How a record's gradient is clipped; statements that lack it are older than the choice."""
    placed: Literal["slots", ""] = ""
    """Where a sampled record lies in a batch: in a random row; not stated by older versions."""


class OwnersApproval(_Part):
    """The owner's act under which charges of this run were taken, as the site's ledger holds it.

    Attributes:
        who, why, until: the person, the analyst or purpose, and the last day (UTC).
        acted_for: sites that this person decided for at once; empty where it was one alone.
        owner_key: the public key that signed the act, 64 hex digits.
        own_key: False where that key also signed the ledger, so that a serving process holds it.
        for_lost_key: True where no earlier owner's key agreed to this one.
    """

    who: Name
    why: Text
    until: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    acted_for: tuple[Name, ...] = Field(max_length=10**4)
    owner_key: Digest
    own_key: bool
    for_lost_key: bool = False


class SiteReport(_Part):
    """One institution: its data set, what it spent, and what that means against whom.

    Attributes:
        committed: everything charged in this run; drives the budget.
        guarantees: the observer matrix over what was really done in this run.
        accountants: the certified interval of the committed total beside other accountants.
        records_apart: every different statement of this run's charges; none at client level, and
            none from sites that stated nothing.
        approvals: those that covered this run's charges; none where the ledger pins no owner.
    """

    name: Name
    """The site's, as in the plan."""
    dataset: Name
    """Whose budget is charged."""
    declared_records: Count
    """A public number, from the plan."""
    unit: Unit
    """Whose presence the guarantee hides."""
    adjacency: Name
    """Neighbouring relation of every epsilon."""
    budget: Budget | None
    """What the run's last charge was held against, else the present one."""
    epsilon_before_run: Epsilon
    """Spent on the data set before this run, at the budget's delta."""
    epsilon_after_run: Epsilon
    """Spent on it when this run's last charge was taken."""
    history: tuple[HistoryPoint, ...] = Field(max_length=10**6)
    """Every charge to the data set's budget, of all runs."""
    committed: BoundedEvent
    guarantees: tuple[ObserverRow, ...] = Field(max_length=10**5)
    accountants: tuple[AccountantFigure, ...] = Field(max_length=64)
    records_apart: tuple[RecordsApart, ...] = Field(default=(), max_length=10**4)
    approvals: tuple[OwnersApproval, ...] = Field(default=(), max_length=10**4)
    ledger: LedgerFacts
    """The ledger that all of this is read from."""


class SchemeFacts(_Part):
    """The aggregation scheme, its parameters and what it is said to protect."""

    name: Name
    """As in the configuration."""
    protects: bool
    """False where uploads are not encrypted."""
    security_bits: Count | None
    """Security level of the parameters; None where the scheme has none."""
    key_id: Text
    """Identifies the run's key."""
    parameters: dict[str, JsonValue]
    """The scheme's own."""
    explanation: Text
    """What the scheme protects, in words."""


class RosterReport(_Part):
    """Sites joined or left between two rounds, as the plan says and the coordinator recorded.

    Attributes:
        round: the first round of the new roster.
        key_id: identifies the key from there on.
    """

    round: Count
    joined: tuple[Name, ...] = Field(max_length=10**5)
    """Who takes part from here on."""
    left: tuple[Name, ...] = Field(max_length=10**5)
    """Who took part for the last time in the round before."""
    sites: tuple[Name, ...] = Field(max_length=10**5)
    """Who takes part, in the order of the plan."""
    key_id: Text


class PublicTable(_Part):
    """The table declared public on which metrics are taken."""

    name: Name
    rows: Count | None = None


class Attestation(_Part):
    """A statement of a named person or body, repeated as it was given.

    Attributes:
        about: the place it was made for, e.g. `registry.intended_use` or `gdpr-35.purposes`; see
            `privagg.report.places`. Empty where it is about the run as a whole.
    """

    who: Text
    """The person or body."""
    what: Text
    """Their words."""
    about: Text = ""


class Refusal(_Part):
    """Why a site did not take part in a round; public facts only."""

    site: Name
    message: Text


class StageSeconds(_Part):
    """Wall-clock time of the stages of one round that touch uploads or sums only.

    How long training takes depends on private records; it is neither recorded nor reported.
    """

    encrypt: Seconds
    """Of all sites together."""
    add: Seconds
    """Checking and adding at the aggregator."""
    open: Seconds
    """From the request to open until the answer."""


class RoundReport(_Part):
    """One attempt at a round, as the coordinator recorded it. Metrics are of the public table."""

    run: Name
    """The run's name."""
    round: Count
    """Counts from 1."""
    attempt: Count
    """Counts from 1."""
    outcome: Literal["opened", "stopped"]
    """`stopped` where no sum was opened."""
    reason: Text | None
    """Why it was stopped."""
    cohort: tuple[Name, ...] = Field(max_length=10**5)
    """Sites that were asked."""
    survivors: tuple[Name, ...] = Field(max_length=10**5)
    """Sites whose contributions are in the opened sum."""
    refusals: tuple[Refusal, ...] = Field(default=(), max_length=10**5)
    """What sites said that did not take part."""
    metrics: dict[Name, Figure] | None
    """Figures of the public table; None where there is no such table or round."""
    bytes_up: dict[Name, Count]
    """Party -> bytes it sent: uploads, what unmasks or opens a sum, acknowledgements."""
    bytes_down: dict[Name, Count]
    """Party -> bytes it received."""
    upload_bytes: dict[Name, Count] | None = None
    """Site -> bytes of its upload; None in a report that counts these alone as sent."""
    seconds: StageSeconds
    """By stage."""
    exchanges: Count
    """How often messages went out to parties and their answers were waited for."""


class Selection(_Part):
    """The round whose model was released, as evaluations between the rounds chose it."""

    looks: Name
    """The run that these evaluations are."""
    round: Count
    """The round, from 1."""


class ReleasedModel(_Part):
    """The model that left the federation, and the day (UTC) on which that was recorded."""

    file: Text
    """Its name."""
    sha256: Digest
    """Of the file."""
    day: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    """YYYY-MM-DD; None where the ledger's entry has none."""
    metrics: dict[Name, Figure]
    """Figures of the public table."""
    selection: Selection | None = None
    """None where it is the last round's."""


class Ends(_Part):
    """Lowest and highest value of an interval at the stated level."""

    low: Figure
    high: Figure


class Errors(_Part):
    """Standard errors of a coefficient: by the noise alone, and with sampling."""

    records: Figure
    population: Figure


class AnsweredFigure(_Part):
    """One number of an answer, recomputed from the opened sum and the plan.

    Attributes:
        records: the interval for these records, that is for the noise, whose variance is known.
        population: the interval for the population that they are a sample of.
    """

    what: Name
    """`count`, `sum`, `mean`, `variance` or `quantile 0.5`."""
    group: dict[Text, Text]
    """Column -> category; empty where it is of all records."""
    value: Figure | None
    """After post-processing; None where the noise leaves nothing to say."""
    raw: Figure
    """As it was opened; for a count the noised count itself."""
    records: Ends | None
    population: Ends | None
    standard_errors: Errors | None = None
    """Of a regression's coefficient; None of other figures."""


class Answered(_Part):
    """What became of one question."""

    question: dict[Name, JsonValue]
    """As the plan pins it, and `about`: what it asks, in a few words."""
    figures: tuple[AnsweredFigure, ...] = Field(max_length=10**5)


class Answers(_Part):
    """The answers that left the federation, recomputed from the opened sum.

    Attributes:
        file, sha256, day: of the file that was released; None where the record has no release.
        contributors: whose records are in the opened sum; each added a share of the noise.
    """

    file: Text | None
    sha256: Digest | None
    day: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None
    level: Annotated[float, Field(gt=0.5, lt=1)]
    """Of both intervals of every figure."""
    contributors: tuple[Name, ...] = Field(max_length=10**5)
    answers: tuple[Answered, ...] = Field(max_length=1000)
    """In the order of the questions."""


class TuningCost(_Part):
    """What a search cost one site: the composition of everything its runs were charged with."""

    site: Name
    """Who was charged."""
    charges: Count
    """How many."""
    epsilon: Epsilon
    """Upper bound of the composition."""
    epsilon_lower: Epsilon | None
    """Proven lower end, where the method gives one."""
    delta: ExactDecimal
    """At which both hold."""
    method: Text
    """What gave the bound."""
    certified: bool
    """True where it is proved in ball arithmetic."""
    event: DpEvent
    """The composition itself."""


class TuningSearch(_Part):
    """A search over hyperparameters, as ledgers record it, and what its runs cost.

    Attributes:
        method: how it is accounted for; every run is charged in full.
        runs: the runs that belong to it.
        recorded_in: the ledgers that hold this entry (`coordinator` or a site's name).
        facts: what was recorded with it, as it stands.
    """

    name: Name
    """The search's."""
    method: Literal["composition"]
    who: Name
    """The person who recorded it."""
    runs: tuple[Name, ...] = Field(max_length=4096)
    recorded_in: tuple[Name, ...] = Field(max_length=10**4)
    facts: dict[str, JsonValue]
    costs: tuple[TuningCost, ...] = Field(max_length=10**4)
    """One for each site that was charged."""


class Report(_Part):
    """Everything a reader gets to know about one run. See the module's text for the rules."""

    format: Literal["privagg-report/1"] = FORMAT
    federation: Name
    """Its name, from the configuration."""
    run: Name
    """The run's name."""
    generated: AwareDatetime
    """The report's own time."""
    outcome: Literal["finished", "stopped", "failed", "unfinished"]
    """`unfinished` where the coordinator's ledger does not record an end."""
    reason: Text | None
    """Why it stopped or failed."""
    summary: tuple[Text, ...] = Field(max_length=1000)
    """Sentences that follow from the figures below."""
    plan: dict[str, JsonValue]
    """The agreed plan as its JSON facts."""
    plan_digest: Digest
    """Of the plan, hexadecimal."""
    scheme: SchemeFacts
    """How uploads were aggregated."""
    custody: Custody
    """Who can open a sum."""
    custody_plainly: Text
    """The same in words."""
    opener: Name | None = None
    """Party that opens sums; None where the scheme needs none."""
    parties: dict[Name, Digest]
    """Party -> its public identity key, 64 hexadecimal digits."""
    public_table: PublicTable | None
    """Where metrics were taken; None where no table was declared public."""
    attestations: tuple[Attestation, ...] = Field(max_length=1000)
    """Statements of named people from the configuration."""
    versions: dict[Name, Text]
    """Library -> version."""
    generator: Text
    """Which randomness sampling and noise came from."""
    sites: tuple[SiteReport, ...] = Field(max_length=10**4)
    """In the order of the plan."""
    rounds: tuple[RoundReport, ...] = Field(max_length=10**6)
    """Every attempt at a round."""
    rosters: tuple[RosterReport, ...] = Field(default=(), max_length=10**5)
    """Each change of who takes part, in order."""
    model: ReleasedModel | None
    """None where nothing was released."""
    answers: Answers | None = None
    """None where nothing was asked, or nothing opened."""
    tuning: tuple[TuningSearch, ...] = Field(default=(), max_length=10**4)
    """Searches that name this run or cost its data sets something."""
    coordinator: LedgerFacts
    """The ledger that the run's course is read from."""
    assumptions: tuple[Text, ...] = Field(max_length=10**4)
    """Every one that some guarantee needs, each once."""
    unprotected: tuple[Text, ...] = Field(max_length=1000)
    """What the run did not protect, as far as privagg knows it."""

    def key_id_of(self, number: int) -> str:
        """What identifies the key of a round.

        Args:
            number: of the round.
        """
        known = {1: self.scheme.key_id, **{each.round: each.key_id for each in self.rosters}}
        return known[max(first for first in known if first <= number)]

    def to_json(self) -> str:
        """The report as canonical, indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a report from untrusted JSON.

        Raises:
            VerificationError: too long, or not a report of this format; the message names the
                first few places that are wrong.
        """
        if len(text) > LARGEST_REPORT_BYTES:
            raise VerificationError(
                f"the report has {len(text)} bytes; more than {LARGEST_REPORT_BYTES} are not read"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            faults = validation_faults(error, whole="document", values=False)
            raise VerificationError(f"not a {FORMAT} report: {faults}") from error


def json_schema() -> Mapping[str, Any]:
    """The JSON Schema (2020-12) of a report; published beside this file as `schema.json`."""
    schema = Report.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:privagg:report:1",
        **schema,
        "title": "privagg report, format privagg-report/1",
    }
