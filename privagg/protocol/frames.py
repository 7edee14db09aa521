"""Frames: headers and payloads as signed bytes.

A frame on the wire, all integers little-endian:

    "PVAG" | version u8 | kind u8 | header length u32 | payload length u64
    header (canonical JSON, ASCII) | payload (raw bytes) | Ed25519 signature (64 bytes)

The signature covers kind, header and the payload's digest (`privagg.digest`), so that a third party
who holds the header and the digest, but not the payload, can check who contributed what (a
`Statement`). Every length is checked against the data in hand before anything is copied or parsed;
a frame has exactly one byte string, so equal messages are equal bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import ValidationError

from privagg.digest import canonical_json, tree_digest
from privagg.errors import MessageError, SignatureError, validation_faults
from privagg.identity.keys import SIGNATURE_BYTES, Identity, Roster
from privagg.protocol.messages import KINDS, Header, RoundStart, Statement

MAGIC = b"PVAG"
VERSION = 4
"""Version 3 signed the payload's BLAKE2b tree digest in the place of BLAKE3's; version 2 named run,
round, attempt and key a second time, in the tensor that an upload carries; version 1 signed the
payload's SHA-256."""

EARLIER_SIGNED_VERSION = 2
"""What signatures covered in frames of versions 2 and 3; statements made then are verified."""

_PREFIX = struct.Struct("<4sBBIQ")
MAX_HEADER_BYTES = 16 * 2**20

_SHORT_BYTES = 2**13
_LONG_BYTES = 2**22
"""Headers up to these sizes are remembered: 2,048 short ones, and the last two long ones."""


@dataclass(frozen=True)
class Message:
    """A verified or freshly signed message.

    Args:
        header: what it says.
        payload: raw bytes; a view of the received frame where it was received.
        signature: 64 bytes by the header's sender.
        header_bytes: the header as it was signed.
        payload_digest: tree digest of the payload, 64 hex digits.
    """

    header: Header
    payload: bytes | memoryview
    signature: bytes
    header_bytes: bytes = field(repr=False)
    payload_digest: str = field(repr=False)

    @classmethod
    def sign(cls, identity: Identity, header: Header, payload: bytes = b"") -> Message:
        """Sign a message as its sender.

        Args:
            identity: the header's sender.
            header: what is said.
            payload: raw bytes.

        Raises:
            MessageError: the header names another sender.
        """
        return cls.sign_each(identity, header, {"": payload})[""]

    @classmethod
    def sign_each(
        cls, identity: Identity, header: Header, payloads: Mapping[str, bytes]
    ) -> dict[str, Message]:
        """One header over several payloads, each by name; it is written down once.

        Args:
            identity, header: as for `sign`.
            payloads: whatever tells them apart -> raw bytes.

        Raises:
            MessageError: the header names another sender.
        """
        if header.sender != identity.name:
            raise MessageError(f"{identity.name!r} cannot sign as {header.sender!r}")
        text, made = header_to_bytes(header), dict[str, Message]()
        for name, payload in payloads.items():
            digest = tree_digest(payload)
            signature = identity.sign(_signed_bytes(header.kind, text, digest))
            made[name] = cls(header, payload, signature, text, digest)
        return made

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
    try:
        _verify_statement(statement, header, text, VERSION, roster)
    except SignatureError:
        _verify_statement(statement, header, text, EARLIER_SIGNED_VERSION, roster)
    return header


def _verify_statement(
    statement: Statement, header: Header, text: bytes, version: int, roster: Roster
) -> None:
    signed = _signed_bytes(statement.kind, text, statement.payload_digest, version)
    roster.verify(header.sender, signed, bytes.fromhex(statement.signature))


def header_to_bytes(header: Header) -> bytes:
    """Canonical JSON of a header: sorted keys, no spaces, ASCII."""
    return canonical_json(header.model_dump(mode="json"))


def parse_header(kind: int, text: bytes) -> Header:
    """A header from its canonical JSON.

    What was read is remembered, as it follows from kind and text alone and is never changed: where
    one process is many sites, each of which is sent the same list, that leaves one reading of n.

    Raises:
        MessageError: unknown kind, not JSON, not the fields of that kind, or not canonical.
    """
    if len(text) > _LONG_BYTES or kind == RoundStart.kind:  # an app gets a start's settings
        return _parsed(kind, text)
    return (_short if len(text) <= _SHORT_BYTES else _long)(kind, text)


def _parsed(kind: int, text: bytes) -> Header:
    if kind not in KINDS:
        raise MessageError(f"message kind {kind} is unknown; this version knows {sorted(KINDS)}")
    try:
        header = KINDS[kind].model_validate_json(text)
    except ValidationError as error:
        faults = validation_faults(error, whole="header", values=False)
        raise MessageError(f"not a {KINDS[kind].__name__} header: {faults}") from error
    except RecursionError as error:
        raise MessageError(f"not a {KINDS[kind].__name__} header: nested too deeply") from error
    if header_to_bytes(header) != text:
        raise MessageError(f"a {KINDS[kind].__name__} header is not in canonical form")
    return header


_short = lru_cache(maxsize=2048)(_parsed)
_long = lru_cache(maxsize=2)(_parsed)


def forget_headers() -> None:
    """Have every header read again: for whoever measures what that costs."""
    _short.cache_clear()
    _long.cache_clear()


def require_readable(frame: bytes) -> None:
    """Refuse a stored frame that nobody would read any more.

    Raises:
        MessageError: it is of another version than this one.
    """
    _require_version(_PREFIX.unpack_from(frame)[1])


def _require_version(version: int) -> None:
    if version != VERSION:
        made = "an earlier privagg made it" if version < VERSION else "a later privagg made it"
        raise MessageError(
            f"a message of version {version}, where this side speaks {VERSION}: {made}. Use one "
            "version everywhere; a run that began under another one is resumed with that one"
        )


def _split(view: memoryview) -> tuple[int, bytes, memoryview, bytes]:
    if len(view) < _PREFIX.size + SIGNATURE_BYTES:
        raise MessageError(f"{len(view)} bytes are too few for a message; it was truncated")
    magic, version, kind, header_size, payload_size = _PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise MessageError(f"a message starts with {MAGIC!r}, this one with {magic!r}")
    _require_version(version)
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


def _signed_bytes(kind: int, header: bytes, digest: str, version: int = VERSION) -> bytes:
    """What a signature covers; the prefix separates it from every other use of the key."""
    return b"privagg/message/%d/%d\0" % (version, kind) + header + b"\0" + digest.encode()
