"""Entries of the log: the closed set of their kinds, and an entry's one canonical byte string.

An entry describes and never interprets: it holds the event, the budget and the figures as they
stood, so that a stranger can replay the rules on them.

Entries written during a round carry only the day, since the time at which training ended depends
on private data and is itself a release; entries about budgets and keys carry the second.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from privagg.errors import LedgerError, LedgerTamperedError, validation_faults
from privagg.privacy.events import DpEvent, ExactDecimal, require_writable
from privagg.privacy.ledger import canonical, merkle
from privagg.privacy.ledger.composition import event_to_json
from privagg.privacy.plan import Plan

_MAX_ESCAPED_NAME = 512
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]*")


def _printable(text: str) -> str:
    if not _PRINTABLE.fullmatch(text):
        raise ValueError("control characters cannot be recorded")
    return text


def _short(text: str) -> str:
    # Names stand in database indices, whose rows have some 2,700 bytes for three of them. In ASCII
    # only quotes and backslashes are escaped, to at most twice their length.
    if not text.isascii() and len(canonical.dumps(text)) > _MAX_ESCAPED_NAME:
        raise ValueError("too long once escaped; use a shorter name")
    return text


Name = Annotated[
    str, Field(min_length=1, max_length=240), AfterValidator(_printable), AfterValidator(_short)
]
Text = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Day = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\d$"), AfterValidator(lambda d: str(date.fromisoformat(d)))
]
Natural = Annotated[int, Field(ge=0, lt=1 << 53)]
Facts = Annotated[dict[str, Any], BeforeValidator(canonical.facts)]
Exact = Annotated[
    Decimal,
    Field(ge=0, allow_inf_nan=True),
    AfterValidator(require_writable),
    PlainSerializer(canonical.plain_decimal, return_type=str),
]
Delta = Annotated[ExactDecimal, Field(gt=0, lt=1)]
Event = Annotated[DpEvent, PlainSerializer(event_to_json)]


class BudgetKey(NamedTuple):
    """What a budget belongs to: a data set under its public name, and the unit it protects."""

    dataset: str
    unit: str

    @classmethod
    def of(cls, plan: Plan, site: str) -> Self:
        """Whose budget a site's contributions under a plan are charged to."""
        return cls(plan.site(site).dataset, plan.unit.value)


def attempt_subject(run: str, round_: int, attempt: int) -> str:
    """How one attempt at a round is named in the log.

    Args:
        run: the run's name.
        round_: number of the round.
        attempt: number of the attempt.
    """
    return canonical.dumps([run, round_, attempt]).decode("ascii")


def key_subject(run: str, first: int = 1) -> str:
    """How the key of a run is named in the log.

    Args:
        run: the run's name.
        first: the first round under the key.
    """
    return canonical.dumps([run] if first == 1 else [run, first]).decode("ascii")


class Payload(BaseModel):
    """An entry's contents. Subclasses are the closed set of kinds."""

    model_config = ConfigDict(frozen=True, extra="forbid", revalidate_instances="never")

    kind: ClassVar[str]
    of_round: ClassVar[bool] = False

    @property
    def subject(self) -> str | None:
        """What there may be only one entry of this kind about; None where that is unlimited."""
        return None

    @property
    def key(self) -> BudgetKey | None:
        """The budget this entry concerns, if any."""
        return None

    def to_json(self) -> dict[str, Any]:
        """The payload as canonical JSON values."""
        value = self.model_dump(mode="json")
        assert isinstance(value, dict)
        return value


class Created(Payload):
    """The ledger begins. Always entry 0, and nowhere else.

    Args:
        owner: name of the party whose ledger it is.
        origin: first line of every checkpoint; names the log.
        verifier: the key that signs the log, in the form of a note's verifier.
        software: what made the ledger.
        owner_key: that acts of the data's owner are signed with; empty where none is pinned.
    """

    kind: ClassVar[str] = "created"

    owner: Name
    origin: Name
    verifier: Name
    software: Text
    owner_key: Hex32 | Literal[""] = ""

    def to_json(self) -> dict[str, Any]:
        """As `Payload.to_json`; a ledger that pins no owner's key is written as it always was."""
        value = super().to_json()
        if not self.owner_key:
            del value["owner_key"]
        return value


class Code(BaseModel):
    """A module that may be imported, by what its source files say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: Name
    sha256: Hex32


class OwnersAct(Payload):
    """What the data's owner decided, signed with a key that no serving process holds.

    Args:
        name: of this act, random.
        who: the person.
        why: the reason.
        owner_key: the public key that signed, 64 hex digits.
        signature: over `signed_bytes`, 128 hex digits.
    """

    name: Name
    who: Name
    why: Text
    owner_key: Hex32
    signature: Hex64

    def signed_bytes(self, origin: str) -> bytes:
        """What the owner's key signs: the whole act, in the ledger that it stands in."""
        value = self.to_json()
        for name in ("signature", "old_signature"):
            value.pop(name, None)
        return canonical.dumps({"act": self.kind, "format": 1, "ledger": origin, "says": value})


class Approval(OwnersAct):
    """The owner lets plans use a data set and sets its budget, or lets code run, or both.

    Args:
        name: of this act, random.
        who, why: the person, and the analyst or purpose.
        until: last day, UTC.
        job: `plan`; `tune`, whose candidates are all of `plans`; of a party whose records nobody
            uses, `open`, to make keys and open sums for `plans`, or `code` alone.
        plans: digests.
        total: epsilon that all plans together cost a data set of which nothing was spent.
        dataset, unit, epsilon, delta: the budget over all jobs; None where no records are used.
        code: modules that may be imported for it.
        acted_for: parties for whom one person acted at once, on one machine; else empty.
        overlaps: why it is right that records count under two names; empty where none do.
        runs: how many runs of these plans may be charged, all together; None: any number that the
            budget has room for.
    """

    kind: ClassVar[str] = "approval"

    until: Day
    job: Literal["plan", "tune", "open", "code"]
    plans: Annotated[tuple[Hex32, ...], Field(max_length=1000)]
    total: Exact
    dataset: Name | None
    unit: Name | None
    epsilon: Exact | None
    delta: Delta | None
    code: Annotated[tuple[Code, ...], Field(max_length=1000)]
    acted_for: Annotated[tuple[Name, ...], Field(max_length=10000)]
    overlaps: Text
    runs: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None

    def to_json(self) -> dict[str, Any]:
        """As `Payload.to_json`; one without a number of runs is written as it always was."""
        value = super().to_json()
        if self.runs is None:
            del value["runs"]
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        budget = (self.dataset, self.unit, self.epsilon, self.delta)
        if (self.job == "code") == bool(self.plans):
            raise ValueError("an approval names plans, one of code alone does not")
        if self.job in ("open", "code") and any(part is not None for part in budget):
            raise ValueError("an approval that uses no records names no budget")
        if self.job in ("plan", "tune") and None in budget:
            raise ValueError("an approval of plans names a data set and its budget")
        return self

    @property
    def subject(self) -> str:
        return self.name

    @property
    def key(self) -> BudgetKey | None:
        if self.dataset is None or self.unit is None:
            return None
        return BudgetKey(self.dataset, self.unit)

    def covers(self, key: BudgetKey, plan_digest: str, day: str) -> bool:
        """Whether a charge of this plan to this budget is approved on a day (`YYYY-MM-DD`).

        Args:
            key: data set and unit.
            plan_digest: SHA-256 (hex) of the plan.
            day: of the charge, UTC.
        """
        return key == self.key and plan_digest in self.plans and day <= self.until

    def has_room(self, used: Collection[str], run: str | None) -> bool:
        """Whether a run (a fresh one where None) may be charged beside those that were."""
        return self.runs is None or run in used or len(used) < self.runs


class Withdrawal(OwnersAct):
    """The owner takes an approval back; what was charged stays charged."""

    kind: ClassVar[str] = "withdrawal"

    approval: Name

    @property
    def subject(self) -> str:
        return self.approval


class OwnerKeyChanged(OwnersAct):
    """The owner goes on with another key, which signs this; so does the old one, unless it is lost.

    Args:
        old_key: that the ledger pinned until now.
        old_signature: by it, over the same bytes; empty where it is lost.
        keeps: approvals in force stay so; never without the old key's signature.
    """

    kind: ClassVar[str] = "owner-key"

    old_key: Hex32
    old_signature: Hex64 | Literal[""]
    keeps: bool

    @model_validator(mode="after")
    def _keeps_what_both_keys_sign(self) -> Self:
        if self.keeps and not self.old_signature:
            raise ValueError("without the old key no approval stays in force")
        return self

    @property
    def subject(self) -> str:
        return self.name


class BudgetSet(Payload):
    """A budget is set or changed; delta is the one at which its epsilon is counted.

    Args:
        dataset: public name of the data set.
        unit: what the guarantee hides.
        epsilon: the most that may ever be spent; infinity sets no limit.
        delta: in (0, 1).
        who: the person.
        why: the reason.
    """

    kind: ClassVar[str] = "budget"

    dataset: Name
    unit: Name
    epsilon: Exact
    delta: Delta
    who: Name
    why: Text

    @property
    def key(self) -> BudgetKey:
        return BudgetKey(self.dataset, self.unit)


class OfAttempt(Payload):
    """Something about one attempt at one round of one run.

    Args:
        run: the run's name.
        round: number of the round.
        attempt: number of the attempt.
    """

    of_round: ClassVar[bool] = True

    run: Name
    round: Natural
    attempt: Natural

    @property
    def attempt_subject(self) -> str:
        """Names the attempt."""
        return attempt_subject(self.run, self.round, self.attempt)

    @property
    def subject(self) -> str:
        return self.attempt_subject


class OfCharge(OfAttempt):
    """Something about one charge: an attempt, seen from one data set and unit."""

    dataset: Name
    unit: Name

    @property
    def key(self) -> BudgetKey:
        return BudgetKey(self.dataset, self.unit)

    @property
    def subject(self) -> str:
        parts = [self.run, self.round, self.attempt, self.dataset, self.unit]
        return canonical.dumps(parts).decode("ascii")


class ChargeRequest(OfCharge):
    """What a site is about to release, charged before it trains.

    Args:
        run: name of the run; round, attempt: counted from 0; a retry with fresh sampling or noise
            is a new attempt.
        dataset: public name of the data set.
        unit: what the guarantee hides (record, site, person).
        event: the committed event: the least noise that the plan lets be opened.
        plan_digest: digest of the plan, hexadecimal or prefixed by its algorithm.
        facts: what was really planned (sampler, cohort, clip, noise owed, grid, scheme, custody,
            generator, versions), recorded as it stands.
    """

    kind: ClassVar[str] = "charge"

    event: Event
    plan_digest: Name
    facts: Facts = Field(default_factory=dict)


class Charge(ChargeRequest):
    """A charge as recorded: the request, and what it did to the budget.

    Args:
        epsilon_before: spent by then, at `delta`.
        epsilon_after: spent with this charge, at `delta`.
        epsilon_budget: the budget that it was held against.
        delta: the budget's.
        accountant: whose figures these are.
        method: how the figure after this charge was bounded.
        certified: whether that is proved.
    """

    epsilon_before: Exact
    epsilon_after: Exact
    epsilon_budget: Exact
    delta: Delta
    accountant: Name
    method: Text
    certified: bool

    def request(self) -> ChargeRequest:
        """What was asked for, without what the ledger added."""
        return ChargeRequest(**{name: getattr(self, name) for name in ChargeRequest.model_fields})


class Consumed(OfCharge):
    """A receipt was used: training on this charge has begun; see `Ledger.cut_off`."""

    kind: ClassVar[str] = "consumed"

    charge: Natural


class UploadStored(OfAttempt):
    """The upload's bytes were stored; a resend is these bytes and no others.

    Args:
        charge: index of the entry that charged it.
        sha256: of the bytes.
        length_bytes: how many.
    """

    kind: ClassVar[str] = "upload"

    charge: Natural
    sha256: Hex32
    length_bytes: Natural


class RunKeyTaken(Payload):
    """The encryption key of a run, as its holder stated it: whoever keeps this takes no second.

    Args:
        run: whose key.
        holder: the party that signed the statement.
        key_id, parameters: SHA-256 that name the key and the scheme's parameters.
        until: last day, UTC, on which the holder opens anything under it.
        sha256, length_bytes: of the signed statement, the key in it included.
        first_round: the first round under it; None where it is the run's first.
    """

    kind: ClassVar[str] = "run-key"

    run: Name
    holder: Name
    key_id: Hex32
    parameters: Hex32
    until: Day
    sha256: Hex32
    length_bytes: Natural
    first_round: int | None = Field(default=None, ge=2, le=10**6)

    @property
    def subject(self) -> str:
        return key_subject(self.run, self.first_round or 1)

    def to_json(self) -> dict[str, Any]:
        """As `Payload.to_json`; the run's first key is written as it always was."""
        value = super().to_json()
        if self.first_round is None:
            del value["first_round"]
        return value


class Realised(OfCharge):
    """What really happened after opening; it is reported and never returns budget.

    Args:
        event: what the opened sum shows, by the plan, of those who survived.
        attested_by: the party that signed what was opened.
        facts: the survivors, and what else was recorded of it.
    """

    kind: ClassVar[str] = "realised"

    event: Event
    attested_by: Name
    facts: Facts = Field(default_factory=dict)


class Aborted(OfAttempt):
    """An attempt came to nothing; its charge stays."""

    kind: ClassVar[str] = "aborted"

    reason: Text
    facts: Facts = Field(default_factory=dict)


class Opened(OfAttempt):
    """The sum of an attempt was opened."""

    kind: ClassVar[str] = "opened"

    facts: Facts = Field(default_factory=dict)


class Released(Payload):
    """Something left the federation: a model, a metric, a report.

    Args:
        what: in words.
        who: the party or person that released it.
        facts: recorded as they stand.
    """

    kind: ClassVar[str] = "released"

    what: Text
    who: Name
    facts: Facts = Field(default_factory=dict)


class Tuning(Payload):
    """A search over hyperparameters: which runs belong to it, and how it is accounted for.

    Args:
        name: the search's.
        runs: that belong to it.
        who: the person or party that recorded it.
        facts: recorded as they stand.
    """

    kind: ClassVar[str] = "tuning"

    name: Name
    runs: tuple[Name, ...] = Field(min_length=1, max_length=4096)
    method: Literal["composition"]
    who: Name
    facts: Facts = Field(default_factory=dict)


class RunStarted(Payload):
    """A coordinator begins a run: the plan, the parties, the scheme, as everybody pinned them."""

    kind: ClassVar[str] = "run-started"

    run: Name
    facts: Facts = Field(default_factory=dict)


class RosterChanged(Payload):
    """Between two rounds of a run sites joined or left, as its plan says; the coordinator's word.

    Args:
        run: the run's name.
        first_round: the first round of the new roster.
        joined, left: who.
        facts: who takes part from here on, and under which key.
    """

    kind: ClassVar[str] = "roster"

    run: Name
    first_round: int = Field(ge=2, le=10**6)
    joined: tuple[Name, ...] = ()
    left: tuple[Name, ...] = ()
    facts: Facts = Field(default_factory=dict)

    @property
    def subject(self) -> str:
        return key_subject(self.run, self.first_round)


class RoundEnded(OfAttempt):
    """How an attempt at a round ended, as the coordinator saw it: opened, or stopped and why.

    Args:
        outcome: `stopped` where no sum was opened.
        reason: why it was stopped.
        facts: cohort, survivors and what else is public of it.
    """

    kind: ClassVar[str] = "round"

    outcome: Literal["opened", "stopped"]
    reason: Text = ""
    facts: Facts = Field(default_factory=dict)


class RunFinished(Payload):
    """A coordinator's run is over.

    Args:
        run: the run's name.
        outcome: how it ended.
        reason: why it did not finish.
    """

    kind: ClassVar[str] = "run-finished"

    run: Name
    outcome: Literal["finished", "stopped", "failed"]
    reason: Text = ""


class KeyRotated(Payload):
    """The signing key changes; the checkpoint after this entry carries both keys' signatures.

    Args:
        old_verifier: the key that signed until now, in the form of a note's verifier.
        new_verifier: the one from now on.
        who: the person.
        why: the reason.
    """

    kind: ClassVar[str] = "key"

    old_verifier: Name
    new_verifier: Name
    who: Name
    why: Text


class Restored(Payload):
    """The ledger goes on from a copy; entries after this copy was made may be missing."""

    kind: ClassVar[str] = "restored"

    who: Name
    why: Text


KINDS: dict[str, type[Payload]] = {
    cls.kind: cls
    for cls in (
        Created, Approval, Withdrawal, OwnerKeyChanged, BudgetSet, RunKeyTaken, Charge, Consumed,
        UploadStored,
        Realised, Aborted, Opened, Released, Tuning, RunStarted, RosterChanged, RoundEnded,
        RunFinished,
        KeyRotated, Restored,
    )
}  # fmt: skip

RECORDABLE = frozenset(
    [
        "realised",
        "aborted",
        "opened",
        "released",
        "tuning",
        "run-started",
        "roster",
        "round",
        "run-finished",
    ]
)
"""The kinds that `Ledger.record` takes; all others follow from a rule of their own."""


def payload_of(kind: str, values: Mapping[str, Any]) -> Payload:
    """The payload of this kind with these values.

    Raises:
        LedgerError: unknown kind, missing or unknown field, value out of range.
    """
    model = KINDS.get(kind)
    if model is None:
        raise LedgerError(f"unknown kind of entry {kind!r}; known are {', '.join(sorted(KINDS))}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise LedgerError(f"not a {kind!r} entry: {validation_faults(error)}") from error


ENTRY_VERSION: Literal[1] = 1


@dataclass(frozen=True)
class Entry:
    """One entry of the log.

    Attributes:
        index: position, from 0.
        time: UTC, to the second or (for entries of a round) to the day.
        payload: what it says.
        state: digest of all budgets and running totals once this entry is applied.
    """

    index: int
    time: str
    payload: Payload
    state: str

    @property
    def kind(self) -> str:
        """The payload's kind."""
        return self.payload.kind

    def body(self) -> bytes:
        """The canonical bytes: the Merkle leaf's data."""
        return self._body

    @cached_property
    def _body(self) -> bytes:
        return canonical.dumps(
            {
                "version": ENTRY_VERSION,
                "index": self.index,
                "time": self.time,
                "kind": self.kind,
                "payload": self.payload.to_json(),
                "state": self.state,
            }
        )

    def hash(self) -> bytes:
        """The Merkle leaf hash of the body."""
        return merkle.leaf_hash(self.body())

    @classmethod
    def parse(cls, body: bytes, *, what: str = "entry") -> Self:
        """Read an entry back; only the exact bytes that `body` gives are taken.

        What was read is remembered, as it follows from the bytes alone and is never changed: a
        round looks at each of its few entries a dozen times.

        Raises:
            LedgerTamperedError: not the canonical bytes of an entry of a known version and kind.
        """
        try:
            return cls._remembered(body)
        except LedgerTamperedError:
            return cls._read(body, what)  # again, to say which one

    @classmethod
    @lru_cache(maxsize=1024)
    def _remembered(cls, body: bytes) -> Self:
        return cls._read(body, "entry")

    @classmethod
    def _read(cls, body: bytes, what: str) -> Self:
        value = canonical.loads(body, what=what)
        names = {"version", "index", "time", "kind", "payload", "state"}
        if not isinstance(value, dict) or set(value) != names:
            raise LedgerTamperedError(f"{what} does not have the fields {sorted(names)}")
        if value["version"] != ENTRY_VERSION:
            raise LedgerTamperedError(
                f"{what} has version {value['version']!r}; this software reads {ENTRY_VERSION}"
            )
        types = {"index": int, "time": str, "kind": str, "payload": dict, "state": str}
        if any(type(value[name]) is not wanted for name, wanted in types.items()):
            raise LedgerTamperedError(f"{what} has a field of a wrong type")
        try:
            entry = cls(
                value["index"], value["time"], payload_of(value["kind"], value["payload"]),
                value["state"],
            )  # fmt: skip
            again = entry.body()
        except (LedgerError, TypeError) as error:
            raise LedgerTamperedError(f"{what}: {error}") from error
        if again != body:
            raise LedgerTamperedError(f"{what} is not spelled as this software would spell it")
        _check_time(entry, what)
        return entry


def timestamp(now: datetime, payload: Payload) -> str:
    """The time that an entry with this payload may carry."""
    utc = now.astimezone(UTC)
    return utc.strftime("%Y-%m-%d" if payload.of_round else "%Y-%m-%dT%H:%M:%SZ")


def _check_time(entry: Entry, what: str) -> None:
    try:
        if entry.payload.of_round:
            date.fromisoformat(entry.time)
        else:
            datetime.strptime(entry.time, "%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, TypeError) as error:
        raise LedgerTamperedError(f"{what} has no valid time: {entry.time!r}") from error
