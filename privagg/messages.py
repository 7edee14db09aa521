"""What crosses the boundary between parties: a few versioned, signed messages.

A frame on the wire, all integers little-endian:

    "PVAG" | version u8 | kind u8 | header length u32 | payload length u64
    header (canonical JSON, ASCII) | payload (raw bytes) | Ed25519 signature (64 bytes)

The signature covers kind, header and the payload's digest (`privagg.digest`), so that a third party
who holds the header and the digest, but not the payload, can check who contributed what (a
`Statement`). Every length is checked against the data in hand before anything is copied or parsed;
a frame has exactly one byte string, so equal messages are equal bytes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from privagg.digest import tree_digest
from privagg.errors import MessageError, PrivaggError
from privagg.identity import SIGNATURE_BYTES, Identity, Roster

MAGIC = b"PVAG"
VERSION = 2  # 1 had the payload's SHA-256 in the place of its tree digest
_PREFIX = struct.Struct("<4sBBIQ")
MAX_HEADER_BYTES = 16 * 2**20

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=64)]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]


class Header(BaseModel):
    """What every message says about itself.

    Args:
        run: identifier of the run; round numbers start at 1; so do attempts.
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
    def place(self) -> tuple[str, int, int]:
        """(run, round, attempt)."""
        return self.run, self.round, self.attempt


class Statement(BaseModel):
    """A signed frame without its payload: who contributed what, checkable by a third party."""

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

MAX_BRANCHES = 8
"""A party keeps at most so many checkpoints of a ledger that no other is proved to extend."""

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
        cohort: sites asked, in roster order.
        kept_sizes: site -> sizes of its ledger under the checkpoints that coordinator, key holder
            and other sites keep; its upload has to prove that the ledger still extends each.
        settings: what the round's training is to be told beyond the plan, such as the settings
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
    """Site to aggregator: one contribution. Payload: an `EncryptedTensor`.

    Args:
        receipt_hash: hash of the ledger entry that charged this contribution.
        checkpoint: the site's signed ledger checkpoint after that charge; receivers keep it.
        consistency: proofs that it extends each checkpoint that the round's start asked for.
        generator: name of the site's source of randomness (attested).
        noise_stddev_grid: standard deviation of the noise added, in grid units (attested).
    """

    kind: ClassVar[int] = 2

    key_id: Hex64
    receipt_hash: str = Field(max_length=128)
    checkpoint: str = Field(max_length=8192)
    consistency: tuple[ConsistencyProof, ...] = Field(default=(), max_length=MAX_PROOFS)
    generator: str = Field(max_length=128)
    noise_stddev_grid: str = Field(max_length=64)


RefusalReason = Literal["budget", "plan", "key", "cohort", "spent-attempt", "ledger", "unavailable"]


class Refusal(Header):
    """A party's answer that it will not; for reasons that are public facts only."""

    kind: ClassVar[int] = 3

    reason: RefusalReason
    message: str = Field(max_length=2048)


class OpenRequest(Header):
    """Aggregator to key holder: open this sum. Payload: the sum, in strict mode then the uploads.

    Args:
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
        opening: the key holder's signed statement that it opened exactly these.
        contributions: the survivors' signed statements, in roster order; each site keeps the
            ledger checkpoints in them and requires that they extend those kept before.
    """

    kind: ClassVar[int] = 6

    outcome: Literal["opened", "stopped"]
    survivors: tuple[Name, ...] = Field(max_length=10**5)
    reason: str = Field(max_length=2048)
    opening: Statement | None
    contributions: tuple[Statement, ...] = Field(default=(), max_length=10**5)


class Acknowledgement(Header):
    """A party's answer where nothing is to be said but what it keeps of the sites' ledgers."""

    kind: ClassVar[int] = 7

    kept_sizes: KeptSizes = Field(default_factory=dict)


class PartialSum(Header):
    """Aggregator to aggregator: a sum of some of the round's uploads. Payload: the tensor.

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
    )
}


@dataclass(frozen=True)
class Message:
    """A verified or freshly signed message.

    Args:
        header: what it says.
        payload: raw bytes; a view of the received frame where it was received.
        signature: 64 bytes by the header's sender.
    """

    header: Header
    payload: bytes | memoryview
    signature: bytes
    header_bytes: bytes = field(repr=False)
    payload_digest: str = field(repr=False)

    @classmethod
    def sign(cls, identity: Identity, header: Header, payload: bytes = b"") -> Message:
        """Sign `header` and `payload` as `identity`, which must be the header's sender."""
        if header.sender != identity.name:
            raise MessageError(f"{identity.name!r} cannot sign as {header.sender!r}")
        text = header_to_bytes(header)
        digest = tree_digest(payload)
        signature = identity.sign(_signed_bytes(header.kind, text, digest))
        return cls(header, payload, signature, text, digest)

    def to_bytes(self) -> bytes:
        """The frame."""
        prefix = _PREFIX.pack(
            MAGIC, VERSION, self.header.kind, len(self.header_bytes), len(self.payload)
        )
        return b"".join((prefix, self.header_bytes, self.payload, self.signature))

    @property
    def statement(self) -> Statement:
        """The frame without its payload, for a third party."""
        return Statement(
            kind=self.header.kind,
            header=self.header_bytes.decode("ascii"),
            payload_digest=self.payload_digest,
            signature=self.signature.hex(),
        )


def read_message(
    data: bytes | bytearray | memoryview, roster: Roster, *, max_bytes: int = 2**40
) -> Message:
    """Parse a frame and verify its sender's signature. Never trusts a length it has not checked.

    Args:
        data: one whole frame.
        roster: pinned identity keys.
        max_bytes: largest frame accepted.

    Raises:
        MessageError: not a frame of a known kind and version, or its lengths do not add up.
        UnknownPartyError, SignatureError: from `Roster.verify`.
    """
    view = memoryview(data).cast("B")
    if len(view) > max_bytes:
        raise MessageError(f"a frame of {len(view)} bytes exceeds the {max_bytes} accepted here")
    kind, header_bytes, payload, signature = _split(view)
    header = parse_header(kind, header_bytes)
    digest = tree_digest(payload)
    roster.verify(header.sender, _signed_bytes(kind, header_bytes, digest), signature)
    return Message(header, payload, signature, header_bytes, digest)


def read_statement(statement: Statement, roster: Roster) -> Header:
    """Verify a statement's signature and return its header.

    Raises:
        MessageError, UnknownPartyError, SignatureError: as `read_message`.
    """
    try:
        text = statement.header.encode("ascii")
    except UnicodeEncodeError as error:
        raise MessageError("a statement's header is not in canonical form") from error
    header = parse_header(statement.kind, text)
    signed = _signed_bytes(statement.kind, text, statement.payload_digest)
    roster.verify(header.sender, signed, bytes.fromhex(statement.signature))
    return header


def header_to_bytes(header: Header) -> bytes:
    """Canonical JSON of a header: sorted keys, no spaces, ASCII."""
    facts = header.model_dump(mode="json")
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode("ascii")


def parse_header(kind: int, text: bytes) -> Header:
    """A header from its canonical JSON.

    Raises:
        MessageError: unknown kind, not JSON, not the fields of that kind, or not canonical.
    """
    if kind not in KINDS:
        raise MessageError(f"message kind {kind} is unknown; this version knows {sorted(KINDS)}")
    try:
        header = KINDS[kind].model_validate_json(text)
    except (ValidationError, RecursionError) as error:
        raise MessageError(f"not a {KINDS[kind].__name__} header: {_first(error)}") from error
    if header_to_bytes(header) != text:
        raise MessageError(f"a {KINDS[kind].__name__} header is not in canonical form")
    return header


def _first(error: Any) -> str:
    if isinstance(error, ValidationError):
        details = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in details['loc']) or 'header'}: {details['msg']}"
    return "nested too deeply"


def _split(view: memoryview) -> tuple[int, bytes, memoryview, bytes]:
    if len(view) < _PREFIX.size + SIGNATURE_BYTES:
        raise MessageError(f"{len(view)} bytes are too few for a message; it was truncated")
    magic, version, kind, header_size, payload_size = _PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise MessageError(f"a message starts with {MAGIC!r}, this one with {magic!r}")
    if version != VERSION:
        raise MessageError(f"message version {version} is unknown here; this side speaks {VERSION}")
    if header_size > MAX_HEADER_BYTES:
        raise MessageError(f"a header of {header_size} bytes exceeds {MAX_HEADER_BYTES}")
    expected = _PREFIX.size + header_size + payload_size + SIGNATURE_BYTES
    if expected != len(view):
        raise MessageError(
            f"a message says it is {expected} bytes long but {len(view)} arrived; "
            "it was truncated, extended or its lengths were altered"
        )
    start = _PREFIX.size + header_size
    header = bytes(view[_PREFIX.size : start])
    return kind, header, view[start : start + payload_size], bytes(view[start + payload_size :])


def _signed_bytes(kind: int, header: bytes, digest: str) -> bytes:
    """What a signature covers; the prefix separates it from every other use of the key."""
    return b"privagg/message/%d/%d\0" % (VERSION, kind) + header + b"\0" + digest.encode()


def refusal_text(error: PrivaggError) -> str:
    """What of an error may leave a party: its message where it is public, else only its kind."""
    return str(error)[:2048] if error.public else type(error).__name__
