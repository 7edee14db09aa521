"""What parties say to each other: one header for each kind of message, and what it may hold.

A header is public: it crosses the network in the clear. Its fields are strict and closed, so that
whatever is not foreseen here is refused when it is parsed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from privagg.digest import json_digest
from privagg.errors import PrivaggError
from privagg.privacy.ledger.keeper import MAX_BRANCHES
from privagg.protocol.names import RUN_ID

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=64)]
RunId = Annotated[str, Field(pattern=RUN_ID)]
Day = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\d$"), AfterValidator(lambda d: str(date.fromisoformat(d)))
]


class Header(BaseModel):
    """What every message says about itself.

    Args:
        run: identifier of the run.
        round: from 1.
        attempt: from 1.
        sender: the party whose identity key signed the frame.
        plan_digest: SHA-256 (hex) of the plan this message belongs to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: ClassVar[int]

    run: RunId
    round: int = Field(ge=1, le=10**6)
    attempt: int = Field(ge=1, le=10**6)
    sender: Name
    plan_digest: Hex64

    @property
    def round_id(self) -> tuple[str, int, int]:
        """(run, round, attempt)."""
        return self.run, self.round, self.attempt


class Statement(BaseModel):
    """A signed frame without its payload: who contributed what, checkable by a third party.

    Args:
        kind: number of the header's class.
        header: its bytes, as text.
        payload_digest: tree digest of the payload that is left out.
        signature: over kind, header and payload digest, 128 hex digits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: int
    header: str = Field(max_length=2**20)
    payload_digest: Hex64
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class ConsistencyProof(BaseModel):
    """RFC 6962 proof (hex) that a checkpoint extends that of `since` entries."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    since: int = Field(ge=1, lt=1 << 53)
    path: tuple[Hex64, ...] = Field(max_length=64)


MAX_PROOFS = 64
"""An upload proves at most so many extensions."""

KeptSizes = Annotated[
    dict[
        Name,
        Annotated[
            tuple[Annotated[int, Field(ge=1, lt=1 << 53)], ...],
            Field(min_length=1, max_length=MAX_BRANCHES),
        ],
    ],
    Field(max_length=10**5),
]
"""Site -> entries of its ledger under each checkpoint that its next upload must extend.

That is the last one that a party keeps, and where rounds of two runs overlap, the last of each.
"""


class RoundStart(Header):
    """Coordinator to site: take part in this round. Payload: the model, float64 (d,).

    Args:
        key_id: SHA-256 (hex) of the encryption key.
        cohort: sites asked, in roster order.
        kept_sizes: site -> sizes of its ledger under the checkpoints that coordinator, key holder
            and other sites keep; its upload has to prove that the ledger still extends each.
        settings: settings of the round's training beyond the plan, such as the settings
            that an optimiser changes from round to round; public, and no part of the guarantee.
    """

    kind: ClassVar[int] = 1

    key_id: Hex64
    cohort: tuple[Name, ...] = Field(max_length=10**6)
    kept_sizes: dict[Name, Annotated[tuple[int, ...], Field(max_length=MAX_PROOFS)]] = Field(
        default_factory=dict, max_length=10**6
    )
    settings: dict[str, JsonValue] = Field(default_factory=dict, max_length=10**3)


class Upload(Header):
    """Site to aggregator: one contribution. Payload: an `EncryptedTensor`, then attachments.

    Args:
        key_id: SHA-256 (hex) of the encryption key.
        key_part_digest: tree digest of the part of the payload that opening multiplies with the
            secret key (`Parameters.key_part`), then of what is attached behind the tensor
            (`Parameters.attachment_bytes`); of no bytes where the scheme has neither.
        receipt_hash: hash of the ledger entry that charged this contribution.
        checkpoint: the site's signed ledger checkpoint after that charge; receivers keep it.
        consistency: proofs that it extends each checkpoint that the round's start asked for.
        generator: name of the site's source of randomness (attested).
        noise_stddev_grid: standard deviation of the noise added, in grid units (attested).
        start: what the site started from (`start_digest`); absent from uploads of earlier versions.
    """

    kind: ClassVar[int] = 2

    key_id: Hex64
    key_part_digest: Hex64
    receipt_hash: str = Field(max_length=128)
    checkpoint: str = Field(max_length=8192)
    consistency: tuple[ConsistencyProof, ...] = Field(default=(), max_length=MAX_PROOFS)
    generator: str = Field(max_length=128)
    noise_stddev_grid: str = Field(max_length=64)
    start: Hex64 | Literal[""] = ""

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name != "start" or value}


RefusalReason = Literal[
    "budget", "plan", "key", "key-erased", "cohort", "spent-attempt", "ledger", "unavailable"
]


class Refusal(Header):
    """A party's answer that it will not; for reasons that are public facts only."""

    kind: ClassVar[int] = 3

    reason: RefusalReason
    message: str = Field(max_length=2048)


class OpenRequest(Header):
    """Aggregator to key holder: open this sum.

    Payload: the sum, then in roster order the key parts of the uploads in it, or in strict mode the
    uploads themselves.

    Args:
        key_id: SHA-256 (hex) of the encryption key.
        contributions: the signed statements of every upload in the sum, in roster order.
        tensor_bytes: size of the sum at the start of the payload.
        upload_bytes: sizes of the upload frames that follow it (strict mode), else empty.
    """

    kind: ClassVar[int] = 4

    key_id: Hex64
    contributions: tuple[Statement, ...] = Field(max_length=10**5)
    tensor_bytes: int = Field(ge=0)
    upload_bytes: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(), max_length=10**5)


class Opening(Header):
    """Key holder to coordinator: a share of the opened sum (payload).

    Args:
        key_id: SHA-256 (hex) of the encryption key.
        request_sha256: digest of the request frame this answers.
        contributors: whose uploads the opened sum holds, in roster order.
        kept_sizes: what the key holder now keeps of the sites' ledgers.
    """

    kind: ClassVar[int] = 5

    key_id: Hex64
    request_sha256: Hex64
    contributors: tuple[Name, ...] = Field(max_length=10**5)
    kept_sizes: KeptSizes = Field(default_factory=dict)


class RoundClose(Header):
    """Coordinator to site: how the round ended, so that the ledger can say what really happened.

    Args:
        outcome: `opened` or `stopped`.
        survivors: contributors of the opened sum (empty when stopped).
        reason: why it was stopped; empty when opened.
        opening: the key holder's signed statement that it opened exactly these.
        contributions: the survivors' signed statements, in roster order; each site keeps the
            ledger checkpoints in them and requires that they extend those kept before.
        releases: what sites signed as they unmasked exactly this sum; left out where a key opened.
    """

    kind: ClassVar[int] = 6

    outcome: Literal["opened", "stopped"]
    survivors: tuple[Name, ...] = Field(max_length=10**5)
    reason: str = Field(max_length=2048)
    opening: Statement | None
    contributions: tuple[Statement, ...] = Field(default=(), max_length=10**5)
    releases: tuple[Statement, ...] = Field(default=(), max_length=10**5)

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name != "releases" or value}


class Acknowledgement(Header):
    """A party's answer where nothing is to be said but what it keeps of the sites' ledgers."""

    kind: ClassVar[int] = 7

    kept_sizes: KeptSizes = Field(default_factory=dict)


class PartialSum(Header):
    """Aggregator to aggregator: a sum of some of the round's uploads.

    Payload: the tensor, then the key parts of the uploads in it, in roster order.

    Args:
        contributions: the signed statements of every upload in it, in roster order.
    """

    kind: ClassVar[int] = 8

    key_id: Hex64
    contributions: tuple[Statement, ...] = Field(max_length=10**5)


class Challenge(Header):
    """Coordinator to whoever answers: prove who you are, and say whether you can take part.

    Args:
        nonce: fresh random bytes; the answer repeats them under its signature.
    """

    kind: ClassVar[int] = 10

    nonce: Hex64


class Presence(Header):
    """A party's answer to a `Challenge`; its signature over the nonce is the proof.

    Args:
        nonce: the challenge's.
        problem: why it cannot take part in the whole job, for public reasons; empty where it can.
        kept_sizes: what it keeps of the sites' ledgers; their uploads have to prove to extend it.
    """

    kind: ClassVar[int] = 11

    nonce: Hex64
    problem: str = Field(max_length=2048)
    kept_sizes: KeptSizes = Field(default_factory=dict)


class LedgerRequest(Header):
    """Coordinator to site: the run is over, send your ledger's export for its report."""

    kind: ClassVar[int] = 12


class LedgerExport(Header):
    """Site to coordinator: its ledger, public facts only. Payload: the export, to be replayed."""

    kind: ClassVar[int] = 13


class KeyRequest(Header):
    """Coordinator to key holder: state the encryption key of this run. Round and attempt are 1.

    Args:
        federation_digest: of whose parties' run it is (`Roster.federation_digest`).
    """

    kind: ClassVar[int] = 14

    federation_digest: Hex64


class KeyStatement(Header):
    """Key holder to everybody: the key that a run encrypts under. Payload: the encryption key.

    Where nobody holds a key that opens sums, each site states its own (its card), and the
    coordinator states them together; the payload is then every card's frame.

    Args:
        federation_digest: of whose parties' run it is.
        parameters_fingerprint: of the scheme's parameters, the key's public facts included.
        key_id: SHA-256 (hex) that names the key; it follows from parameters and payload.
        until: last day, UTC, on which the key holder opens anything under it; of all cards
            together, on which as many sites as a sum needs still do.
    """

    kind: ClassVar[int] = 15

    federation_digest: Hex64
    parameters_fingerprint: Hex64
    key_id: Hex64
    until: Day


class ReleaseRequest(Header):
    """Coordinator to a contributor: unmask the sum of exactly these, or first agree to it.

    Payload: what the others attached for this site, sealed; nothing where consent is asked.

    Args:
        key_id: SHA-256 (hex) that names what the sites stated.
        contributions: the signed statements of every upload in the sum, in roster order.
        consents: `Consent` statements to this very list; none are needed where nobody is missing.
    """

    kind: ClassVar[int] = 16

    key_id: Hex64
    contributions: tuple[Statement, ...] = Field(max_length=10**5)
    consents: tuple[Statement, ...] = Field(default=(), max_length=10**5)


class Consent(Header):
    """Site to coordinator: in this round it unmasks the sum of this list and no other.

    Args:
        key_id: SHA-256 (hex) that names what the sites stated.
        list_digest: of the contributors and their uploads (`list_digest`).
        contributors: whose uploads the sum holds, in roster order.
    """

    kind: ClassVar[int] = 17

    key_id: Hex64
    list_digest: Hex64
    contributors: tuple[Name, ...] = Field(max_length=10**5)


class Release(Header):
    """Site to coordinator: what takes the masks off the sum of this list (payload).

    Args:
        key_id, list_digest, contributors: as for `Consent`.
    """

    kind: ClassVar[int] = 18

    key_id: Hex64
    list_digest: Hex64
    contributors: tuple[Name, ...] = Field(max_length=10**5)


KINDS: dict[int, type[Header]] = {
    cls.kind: cls
    for cls in (
        RoundStart,
        Upload,
        Refusal,
        OpenRequest,
        Opening,
        RoundClose,
        Acknowledgement,
        PartialSum,
        Challenge,
        Presence,
        LedgerRequest,
        LedgerExport,
        KeyRequest,
        KeyStatement,
        ReleaseRequest,
        Consent,
        Release,
    )
}


def refusal_text(error: PrivaggError) -> str:
    """What of an error may leave a party: its message where it is public, else only its kind."""
    return str(error)[:2048] if error.public else type(error).__name__


def start_digest(header: RoundStart, model_digest: str) -> str:
    """SHA-256 (hex) of what a contribution follows from beside records and noise.

    Whoever starts one site from another model than the rest can have these contribute nothing, so
    that the sum is that one's.

    Args:
        header: the round's start, whose settings count.
        model_digest: tree digest of its payload.
    """
    return json_digest([model_digest, header.settings], domain=b"privagg/start/1\0")


def list_digest(contributions: Iterable[Statement]) -> str:
    """SHA-256 (hex) over who is in a sum and with which upload; consents and releases sign it.

    Args:
        contributions: the signed statements of the uploads, in roster order.
    """
    stated = [statement.model_dump(mode="json") for statement in contributions]
    return json_digest(stated, domain=b"privagg/list/1\0")
