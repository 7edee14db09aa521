"""`report.json` as a type: format `privagg-report/1`, closed, bounded, free of anything to import.

What is not in these classes is not in a report. Unknown keys are refused on reading, every text and
list has a largest size, and every epsilon and delta is a decimal carried as a string, so that a
stranger's program reads the same digits. `Infinity` means: no guarantee.
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

from privagg.errors import VerificationError
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
    epsilon: Epsilon | None
    epsilon_lower: Epsilon | None = None
    delta: ExactDecimal
    certified: bool
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
    round: Count
    attempt: Count
    epsilon_after: Epsilon
    outcome: Literal["realised", "aborted", "charged"]


class LedgerFacts(_Part):
    """How a ledger identifies itself: size, Merkle root, signed checkpoint, signing key."""

    entries: Count
    root: Text
    checkpoint: Text
    public_key: Text


class RecordsApart(_Part):
    """How a site found that a record's gradient does not depend on others, as its charges state."""

    how: Literal["tested", "proved"]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    physical_batch: Count
    threads: Count
    device: Name
    torch: Name
    opacus: Name


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
    dataset: Name
    declared_records: Count
    unit: Unit
    adjacency: Name
    budget: Budget | None
    epsilon_before_run: Epsilon
    epsilon_after_run: Epsilon
    history: tuple[HistoryPoint, ...] = Field(max_length=10**6)
    committed: BoundedEvent
    guarantees: tuple[ObserverRow, ...] = Field(max_length=10**5)
    accountants: tuple[AccountantFigure, ...] = Field(max_length=64)
    records_apart: tuple[RecordsApart, ...] = Field(default=(), max_length=10**4)
    approvals: tuple[OwnersApproval, ...] = Field(default=(), max_length=10**4)
    ledger: LedgerFacts


class SchemeFacts(_Part):
    """The aggregation scheme, its parameters and what it is said to protect."""

    name: Name
    protects: bool
    security_bits: Count | None
    key_id: Text
    parameters: dict[str, JsonValue]
    explanation: Text


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
    what: Text
    about: Text = ""


class Refusal(_Part):
    """Why a site did not take part in a round; public facts only."""

    site: Name
    message: Text


class StageSeconds(_Part):
    """Wall-clock time of the stages of one round that touch ciphertexts or sums only.

    How long training takes depends on private records; it is neither recorded nor reported.
    """

    encrypt: Seconds
    add: Seconds
    open: Seconds


class RoundReport(_Part):
    """One attempt at a round, as the coordinator recorded it. Metrics are of the public table."""

    run: Name
    round: Count
    attempt: Count
    outcome: Literal["opened", "stopped"]
    reason: Text | None
    cohort: tuple[Name, ...] = Field(max_length=10**5)
    survivors: tuple[Name, ...] = Field(max_length=10**5)
    refusals: tuple[Refusal, ...] = Field(default=(), max_length=10**5)
    metrics: dict[Name, Figure] | None
    bytes_up: dict[Name, Count]
    bytes_down: dict[Name, Count]
    seconds: StageSeconds
    exchanges: Count


class ReleasedModel(_Part):
    """The model that left the federation, and the day (UTC) on which that was recorded."""

    file: Text
    sha256: Digest
    day: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    metrics: dict[Name, Figure]


class TuningCost(_Part):
    """What a search cost one site: the composition of everything its runs were charged with."""

    site: Name
    charges: Count
    epsilon: Epsilon
    epsilon_lower: Epsilon | None
    delta: ExactDecimal
    method: Text
    certified: bool
    event: DpEvent


class TuningSearch(_Part):
    """A search over hyperparameters, as ledgers record it, and what its runs cost.

    Attributes:
        method: how it is accounted for; every run is charged in full.
        runs: the runs that belong to it.
        recorded_in: the ledgers that hold this entry (`coordinator` or a site's name).
        facts: what was recorded with it, as it stands.
    """

    name: Name
    method: Literal["composition"]
    who: Name
    runs: tuple[Name, ...] = Field(max_length=4096)
    recorded_in: tuple[Name, ...] = Field(max_length=10**4)
    facts: dict[str, JsonValue]
    costs: tuple[TuningCost, ...] = Field(max_length=10**4)


class Report(_Part):
    """Everything a reader gets to know about one run. See the module's text for the rules."""

    format: Literal["privagg-report/1"] = FORMAT
    federation: Name
    run: Name
    generated: AwareDatetime
    outcome: Literal["finished", "stopped", "failed", "unfinished"]
    reason: Text | None
    summary: tuple[Text, ...] = Field(max_length=1000)
    plan: dict[str, JsonValue]
    plan_digest: Digest
    scheme: SchemeFacts
    custody: Custody
    custody_plainly: Text
    opener: Name | None = None
    parties: dict[Name, Digest]
    public_table: PublicTable | None
    attestations: tuple[Attestation, ...] = Field(max_length=1000)
    versions: dict[Name, Text]
    generator: Text
    sites: tuple[SiteReport, ...] = Field(max_length=10**4)
    rounds: tuple[RoundReport, ...] = Field(max_length=10**6)
    model: ReleasedModel | None
    tuning: tuple[TuningSearch, ...] = Field(default=(), max_length=10**4)
    coordinator: LedgerFacts
    assumptions: tuple[Text, ...] = Field(max_length=10**4)
    unprotected: tuple[Text, ...] = Field(max_length=1000)

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
            raise VerificationError(f"not a {FORMAT} report: {first_faults(error)}") from error


def first_faults(error: ValidationError, most: int = 3) -> str:
    """The first `most` places a validation found wrong, on one line, without the input itself."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [
        f"{'.'.join(str(step) for step in fault['loc']) or 'document'}: {fault['msg']}"
        for fault in faults[:most]
    ]
    more = f" (and {len(faults) - most} more)" if len(faults) > most else ""
    return "; ".join(lines) + more


def json_schema() -> Mapping[str, Any]:
    """The JSON Schema (2020-12) of a report; published beside this file as `schema.json`."""
    schema = Report.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:privagg:report:1",
        **schema,
        "title": "privagg report, format privagg-report/1",
    }
